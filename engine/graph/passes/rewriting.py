"""The form that the rewrite passes share, and the edits that keep names, outputs and provenance right."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.given import KEY as GIVEN_QUANTIZATION
from engine.graph.names import Names
from engine.graph.provenance import inherit
from engine.graph.query import Array


class RewritePass(ir.passes.InPlacePass):
    """Offers every node of the standard domain whose operator is in `operators` to `rewrite`, in execution order."""

    operators: ClassVar[frozenset[str]]

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place; the result says whether anything changed."""
        graph = model.graph
        names = Names(graph)
        modified = False
        for node in tuple(graph):
            # An earlier rewrite of this sweep may have taken the node out.
            if node.graph is graph and node.op_type in self.operators and node.domain in ("", "ai.onnx"):
                modified |= self.rewrite(graph, node, names)
        return ir.passes.PassResult(model, modified=modified)

    @abc.abstractmethod
    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Apply the pass's rules where `node` is the last node of their pattern; True when the graph changed."""


def has_given_quantization(value: ir.Value) -> bool:
    """Whether `value` came with quantization parameters, so that it must keep its name and meaning."""
    return GIVEN_QUANTIZATION in value.metadata_props


def absorbable(value: ir.Value | None) -> bool:
    """Whether `value` may disappear with its one reader: nobody else, nor the caller or a table, would miss it."""
    return (
        value is not None
        and value.producer() is not None
        and len(value.uses()) == 1
        and not value.is_graph_output()
        and not has_given_quantization(value)
    )


def maker(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that makes `value`, if its operator is one of `operators` of the standard domain."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in operators or node.domain not in ("", "ai.onnx"):
        return None
    return node


def absorbed(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """Like `maker`, but only if `value` may disappear with its reader."""
    return maker(value, *operators) if absorbable(value) else None


def bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> bool:
    """Let the readers of `node`'s first output read the equal `value`, and remove `node`.

    False, and nothing changed, where a graph output or a tensor with given quantization would lose its name.
    """
    output = node.outputs[0]
    if has_given_quantization(output):
        return False
    maker = value.producer()
    if output.is_graph_output():
        if maker is None or value.is_graph_output() or has_given_quantization(value):
            return False
        value.name, output.name = output.name, None
        value.metadata_props.update(output.metadata_props)
    for heir in [maker] if maker is not None else {use.node for use in output.uses()}:
        inherit(heir, node)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def absorb(graph: ir.Graph, node: ir.Node, last: ir.Node) -> None:
    """Let `node`'s output, which `last` alone reads, take over the name and the readers of the output of `last`."""
    result, target = node.outputs[0], last.outputs[0]
    result.name, target.name = target.name, None
    result.metadata_props.update(target.metadata_props)
    target.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(last, safe=True)
    inherit(node, last)


def set_input(node: ir.Node, index: int, value: ir.Value) -> None:
    """Make `value` the input of `node` at `index`, lengthening its inputs where needed."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def renewed_constant(value: ir.Value | None, array: Array, base: str, names: Names) -> ir.Value:
    """An initializer that holds `array` in place of `value`.

    It is `value` itself, with its name, where that is an initializer with one reader; else a new one called `base`.
    """
    if (
        value is None
        or not value.is_initializer()
        or len(value.uses()) != 1
        or value.is_graph_output()
        or value.is_graph_input()
    ):
        return names.constant(base, array)
    value.const_value = ir.tensor(np.asarray(array, order="C"), name=value.name)
    value.dtype = value.const_value.dtype
    value.shape = ir.Shape(array.shape)
    return value


def set_constant_input(node: ir.Node, index: int, array: Array, base: str, names: Names) -> None:
    """Make `array` the constant input of `node` at `index`; see `renewed_constant` for its name."""
    value = node.inputs[index] if index < len(node.inputs) else None
    set_input(node, index, renewed_constant(value, array, base, names))


def set_attributes(node: ir.Node, **attributes: Any) -> None:
    """Give `node` attributes from Python values: int, float, str, or a sequence of one of them."""
    for name, value in attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)


def reshape_constant(source: Sequence[int], result: Sequence[int]) -> Array:
    """The shape input of a Reshape from `source` to `result`: the leading dimension is copied where both agree.

    So a model's batch can still be changed afterwards. Neither shape has a dimension of size 0.
    """
    dims = list(result)
    if dims and source and source[0] == dims[0]:
        dims[0] = 0
    return np.array(dims, dtype=np.int64)
