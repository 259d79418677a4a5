"""Computes once what the graph computes twice."""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from engine.graph.passes.rewriting import has_given_quantization
from engine.graph.provenance import inherit
from engine.graph.query import constant

# Bounds, shapes and scalars are compared by content; weights by identity.
_LARGEST_COMPARED = 64
_RANDOM = frozenset(
    {"RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial", "Bernoulli"}
)


class MergeCommonSubexpressions(ir.passes.InPlacePass):
    """A node with the operator, attributes and inputs of an earlier node → that node, which takes over its sources.

    Unlike onnx_ir's pass of this kind it compares small constants by content, keeps provenance, and leaves alone
    nodes that make a graph output or a tensor with given quantization, whose names must live on. Random operators and
    nodes with subgraphs stay as well.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge in place, in execution order, so that whole chains of doubles collapse in one sweep."""
        first: dict[Hashable, ir.Node] = {}
        contents: dict[ir.Value, Hashable] = {}
        modified = False
        for node in tuple(model.graph):
            key = None if node.op_type in _RANDOM else _key(node, contents)
            if key is None:
                continue
            twin = first.setdefault(key, node)
            if twin is node or any(v.is_graph_output() or has_given_quantization(v) for v in node.outputs):
                continue
            inherit(twin, node)
            for value, same in zip(node.outputs, twin.outputs, strict=True):
                value.replace_all_uses_with(same)
            model.graph.remove(node, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified=modified)


def _key(node: ir.Node, contents: dict[ir.Value, Hashable]) -> Hashable | None:
    """What two nodes must share to compute the same; None where that cannot be told."""
    attributes: list[Hashable] = []
    for name, attr in sorted(node.attributes.items()):
        if attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return None
        value = attr.value
        if attr.type == ir.AttributeType.TENSOR:
            value = (value.dtype, tuple(value.shape.numpy()), value.tobytes())
        elif not isinstance(value, Hashable):
            return None
        attributes.append((name, attr.type, value))
    inputs = tuple(_identity(value, contents) for value in node.inputs)
    return (node.op_identifier(), inputs, tuple(attributes), tuple(bool(value.name) for value in node.outputs))


def _identity(value: ir.Value | None, contents: dict[ir.Value, Hashable]) -> Hashable:
    if value is None or not value.is_initializer() or has_given_quantization(value):
        return value
    if value not in contents:
        array = (
            constant(value) if value.const_value is not None and value.const_value.size <= _LARGEST_COMPARED else None
        )
        # Objects of variable length (text) have no bytes to compare.
        plain = array is not None and not array.dtype.hasobject
        contents[value] = (value.dtype, array.shape, array.tobytes()) if array is not None and plain else value
    return contents[value]
