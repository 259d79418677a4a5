"""What of a node decides where it runs, read off the graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from engine.cost.placement import Facts
from engine.graph.query import attribute, constant

_POOLS = {"AveragePool", "MaxPool", "LpPool"}


def facts_of(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> Facts:
    """The facts of one node; `shapes` has those of all tensors that are computed."""
    source = node.inputs[0] if node.inputs else None
    shape = shapes.get(source.name or "", ()) if source is not None else ()
    out = shapes.get(node.outputs[0].name or "", ())
    operator, rank = node.op_type, len(out)
    if operator in _POOLS:
        return Facts(
            rank,
            shape,
            kernel=tuple(attribute(node, "kernel_shape", ())),
            padded=any(attribute(node, "pads", ())) or attribute(node, "auto_pad", "NOTSET").startswith("SAME"),
            counts_padding=bool(attribute(node, "count_include_pad", 0)),
        )
    if operator == "Div":
        return Facts(rank, shape, by_constant=constant(node.inputs[1]) is not None)
    if operator.startswith("Reduce"):
        axes = _numbers(node, 1) or tuple(attribute(node, "axes", ())) or tuple(range(len(shape)))
        return Facts(rank, shape, axes=tuple(int(axis) % max(len(shape), 1) for axis in axes))
    if operator == "Transpose":
        return Facts(rank, shape, permutation=tuple(attribute(node, "perm", tuple(reversed(range(len(shape)))))))
    if operator == "Resize":
        scales = tuple(b / a for a, b in zip(shape[2:], out[2:], strict=True)) if len(shape) == rank == 4 else ()
        return Facts(rank, shape, scales=scales, mode=attribute(node, "mode", "nearest"))
    if operator == "Pad":
        return Facts(rank, shape, mode=attribute(node, "mode", "constant"))
    if operator == "Slice":
        return Facts(rank, shape, steps=tuple(int(step) for step in _numbers(node, 4)))
    if operator == "Pow":
        exponent = _numbers(node, 1)
        return Facts(rank, shape, exponent=float(exponent[0]) if len(exponent) == 1 else None)
    return Facts(rank, shape)


def _numbers(node: ir.Node, index: int) -> tuple[float, ...]:
    """The numbers of a constant input; none where it is computed or left out."""
    array = constant(node.inputs[index]) if len(node.inputs) > index else None
    # No list of axes or steps is longer than this, and a tensor of exponents is no one number.
    return tuple(array.ravel().tolist()) if array is not None and array.size <= 16 else ()
