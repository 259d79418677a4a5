"""Gives tensors on the way the quantization parameters of those that they only rearrange."""

from __future__ import annotations

import onnx_ir as ir

from engine.graph.given import GivenParameters, given, keep
from engine.graph.query import constant

_MOVES = {
    "Transpose",
    "Reshape",
    "Identity",
    "Slice",
    "Split",
    "Gather",
    "DepthToSpace",
    "SpaceToDepth",
    "Tile",
    "Expand",
}


def spread(model: ir.Model) -> None:
    """Note parameters on the results of nodes that were put in for a tensor that has some, forwards from what they
    read and backwards from what reads them, so that no layer between two of integers computes in floats."""
    nodes = list(model.graph)
    for node in nodes:
        own = _moved(node)
        if own is None or given(node.outputs[0]) is not None:
            continue
        for output in node.outputs:
            if output.name and output.dtype == ir.DataType.FLOAT:
                keep(output, own)
    for node in reversed(nodes):
        own = given(node.outputs[0]) if len(node.outputs) == 1 else None
        source = node.inputs[0] if node.inputs else None
        if own is None or own.axis is not None or source is None or node.op_type not in _MOVES:
            continue
        if given(source) is not None or len(source.uses()) != 1 or source.dtype != ir.DataType.FLOAT:
            continue
        # An input that is rounded first thing may come rounded.
        if source.producer() is not None or (source.is_graph_input() and node.op_type == "Identity"):
            keep(source, own)


def _moved(node: ir.Node) -> GivenParameters | None:
    """The parameters of what the node rearranges, pads with zeros, or takes the largest of."""
    source = node.inputs[0] if node.inputs else None
    own = given(source) if source is not None and constant(source) is None else None
    if own is None or own.axis is not None:
        return None
    if node.op_type in _MOVES or node.op_type == "MaxPool":
        return own
    return own if node.op_type == "Pad" and len(node.inputs) == 2 else None
