"""The corrected model as a float graph: weights and biases replaced, nothing rounded, plain ONNX for other programs."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.query import drop_unused_constants
from engine.quantization.quantized import Array, Quantized


def corrected_model(quantized: Quantized) -> ir.Model:
    """A copy of the float graph with the corrected weights and biases, also where a node had no bias.

    Quantizing it without corrections gives the same integer weights. Where several nodes read a constant, those whose
    weight or bias was corrected get one of their own.
    """
    model: ir.Model = ir.from_proto(ir.to_proto(quantized.model))
    names = Names(model.graph)
    corrections = quantized.corrections
    for node in model.graph:
        _replace(node, 1, corrections.weights, "weight", names)
        _replace(node, 2, corrections.biases, "bias", names)
    drop_unused_constants(model.graph)
    return model


def _replace(node: ir.Node, index: int, arrays: Mapping[str, Array], kind: str, names: Names) -> None:
    output = node.outputs[0].name or ""
    if output not in arrays:
        return
    if index == len(node.inputs):
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    if old is not None and len(old.uses()) == 1:
        old.const_value = ir.tensor(arrays[output], name=old.name)
        return
    new = names.constant(f"{output}.{kind}", arrays[output])
    if old is not None:
        new.metadata_props.update(old.metadata_props)
    node.replace_input_with(index, new)
