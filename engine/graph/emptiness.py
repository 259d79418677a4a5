"""Takes out tensors without elements that are only joined to others, as exporters leave them where a size is zero."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.provenance import inherit
from engine.graph.query import constant, static_shape

_STANDARD = ("", "ai.onnx")


def leave_out_empty(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    """Take results of `node` that have no elements from every Concat that joins them to something, in place.

    Returns whether the node itself was replaced, by one behind it: a Split loses the parts that nothing reads any more.
    Where else something reads what is empty, or all that is joined is empty, it stays: the sizes of the inputs are too
    small then, and this node is the one to tell of.
    """
    if node.op_type == "Concat" and node.domain in _STANDARD:
        for constant_input in [value for value in node.inputs if value is not None and value.is_initializer()]:
            if _is_empty(constant_input):
                _shorten_concat(node, constant_input)
    empty = [value for value in node.outputs if _is_empty(value)]
    for value in empty:
        for reader in {use.node for use in value.uses()}:
            if reader.op_type == "Concat" and reader.domain in _STANDARD:
                _shorten_concat(reader, value)
    return bool(empty) and node.op_type == "Split" and node.domain in _STANDARD and _shorten_split(graph, node, names)


def _shorten_concat(node: ir.Node, empty: ir.Value) -> None:
    kept = [value for value in node.inputs if value is not empty]
    if kept:
        node.resize_inputs(len(kept))
        for index, value in enumerate(kept):
            node.replace_input_with(index, value)


def _shorten_split(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    sizes = constant(node.inputs[1]) if len(node.inputs) == 2 else None
    if sizes is None or sizes.size != len(node.outputs):
        return False
    kept = [index for index, size in enumerate(sizes.reshape(-1)) if size]
    dropped = [value for index, value in enumerate(node.outputs) if index not in kept]
    if not kept or not dropped or any(value.uses() or value.is_graph_output() for value in dropped):
        return False
    parts = names.constant(f"{node.outputs[kept[0]].name}_sizes", sizes.reshape(-1)[kept].astype(np.int64))
    olds = [node.outputs[index] for index in kept]
    news = [ir.val(None, type=old.type, shape=old.shape, metadata_props=dict(old.metadata_props)) for old in olds]
    inputs = [node.inputs[0], parts]
    shorter = ir.Node("", "Split", inputs, list(node.attributes.values()), outputs=news, name=node.name)
    graph.insert_after(node, inherit(shorter, node))  # where a sweep meets it next
    for old, new in zip(olds, news, strict=True):
        new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def _is_empty(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static() and math.prod(static_shape(value)) == 0
