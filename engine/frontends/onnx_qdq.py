"""Lifts the quantization parameters of a model that arrives with Q/DQ nodes (trained or quantized elsewhere).

The nodes go, the graph becomes plain float, and the parameters stay with their tensors: activations as one scale and
zero point, weights as their grid per channel (see `engine.graph.given`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.given import SIGNED, GivenParameters, given, keep
from engine.graph.provenance import inherit, label
from engine.graph.query import Array, add_constant, attribute, constant, drop_unused_constants


def lift(model: ir.Model) -> int:
    """Replace Q/DQ pairs and dequantized constants, in place; returns how many were lifted.

    Unsigned grids become the equal signed ones. A second, different pair on a tensor stays as nodes, so that what the
    model computes does not change. Raises ModelError on parameters that are not constant.
    """
    graph = model.graph
    if not any(node.op_type == "DequantizeLinear" for node in graph):
        return 0
    count = _lift_constants(graph) + _lift_pairs(graph)
    drop_unused_constants(graph)
    return count


def _parameters(node: ir.Node) -> GivenParameters | None:
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or (len(node.inputs) > 2 and node.inputs[2] is not None and zero is None):
        raise ModelError("its scale or zero point is not a constant", where=label(node))
    kind = node.inputs[2].dtype if zero is not None and node.inputs[2] is not None else None
    if kind is None:
        kind = node.inputs[0].dtype if node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None
        kind = kind or ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8)
    if kind.name.lower() not in SIGNED or attribute(node, "block_size", 0):
        return None
    if zero is not None and zero.size != scale.size:
        raise ModelError(f"it has {scale.size} scales and {zero.size} zero points", where=label(node))
    flat = scale.astype(np.float64).reshape(-1)
    points = np.zeros(flat.size, np.int64) if zero is None else zero.astype(np.int64).reshape(-1)
    axis = None if flat.size == 1 else int(attribute(node, "axis", 1))
    if axis is not None:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] != flat.size:
            raise ModelError(f"its {flat.size} scales do not fit axis {axis} of its input", where=label(node))
        axis %= len(shape)
    return GivenParameters.of(kind.name.lower(), flat.tolist(), points.tolist(), axis, where=label(node))


def _lift_constants(graph: ir.Graph) -> int:
    """DequantizeLinear of a constant, or Q then DQ of a float constant: the float constant, with its grid."""
    count = 0
    for node in list(graph):
        if node.op_type != "DequantizeLinear":
            continue
        source = node.inputs[0]
        quantizer = source.producer() if source is not None else None
        stored = constant(source)
        parameters = _parameters(node)
        if parameters is None:
            continue
        if stored is None:
            floats = (
                constant(quantizer.inputs[0])
                if quantizer is not None and quantizer.op_type == "QuantizeLinear"
                else None
            )
            if floats is None or quantizer is None:
                continue
            stored = _quantize(floats, parameters)
            real = _dequantize(stored, parameters)
        else:
            shift = SIGNED.get(source.dtype.name.lower(), ("", 0))[1] if source is not None and source.dtype else 0
            real = _dequantize(stored.astype(np.int64) + shift, parameters)
        name = (source.name if source is not None else None) or f"{node.outputs[0].name}"
        result = add_constant(graph, f"{name}_dequantized", real)
        keep(result, parameters)
        if node.outputs[0].is_graph_output():
            continue
        _pass_sources([use.node for use in node.outputs[0].uses()], node, quantizer)
        node.outputs[0].replace_all_uses_with(result)
        graph.remove(node, safe=True)
        if quantizer is not None and not quantizer.outputs[0].uses():
            graph.remove(quantizer, safe=True)
        count += 1
    return count


def _lift_pairs(graph: ir.Graph) -> int:
    count = 0
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
            continue
        quantizer = node.inputs[0].producer()
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.inputs[0] is None:
            continue
        tensor = quantizer.inputs[0]
        parameters, check = _parameters(node), _parameters(quantizer)
        if parameters is None or parameters != check or len(parameters.scale) != 1:
            continue
        present = given(tensor)
        if present is not None and present != parameters:
            continue
        result = node.outputs[0]
        if result.is_graph_output():
            # The output keeps its name, so the tensor before it takes that name over.
            if tensor.is_graph_input() or tensor.is_graph_output():
                continue
            tensor.name, result.name = result.name, None
        keep(tensor, parameters)
        _pass_sources([use.node for use in result.uses()], node, quantizer)
        result.replace_all_uses_with(tensor, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        if not quantizer.outputs[0].uses():
            graph.remove(quantizer, safe=True)
        count += 1
    return count


def _pass_sources(readers: Iterable[ir.Node], *gone: ir.Node | None) -> None:
    for reader in readers:
        inherit(reader, *(node for node in gone if node is not None))


def _shape_for(parameters: GivenParameters, rank: int) -> tuple[int, ...]:
    if parameters.axis is None:
        return (1,) * rank
    shape = [1] * rank
    shape[parameters.axis] = len(parameters.scale)
    return tuple(shape)


def _quantize(real: Array, parameters: GivenParameters) -> Array:
    shape = _shape_for(parameters, real.ndim)
    scale = np.array(parameters.scale, np.float32).reshape(shape)
    zero = np.array(parameters.zero_point, np.int64).reshape(shape)
    low, high = np.iinfo(parameters.dtype).min, np.iinfo(parameters.dtype).max
    stored: Array = np.clip(np.rint(real / scale).astype(np.int64) + zero, low, high)
    return stored


def _dequantize(stored: Array, parameters: GivenParameters) -> Array:
    shape = _shape_for(parameters, stored.ndim)
    scale = np.array(parameters.scale, np.float32).reshape(shape)
    zero = np.array(parameters.zero_point, np.int64).reshape(shape)
    real: Array = (stored.astype(np.int64) - zero).astype(np.float32) * scale
    return real
