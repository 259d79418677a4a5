"""Spells every change of shape without movement of data as Reshape."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.rewriting import RewritePass
from engine.graph.query import Array, attribute, constant, new_node, replace, static_shape


class UnifyReshapes(RewritePass):
    """Squeeze, Unsqueeze, Flatten, and Transpose that moves axes of size 1 behind the batch only → Reshape.

    In the new shape the batch is copied (0), or computed (-1) where another dimension took its place.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Squeeze", "Unsqueeze", "Flatten", "Transpose"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Turn `node` into a Reshape if its rule allows."""
        data, output = node.inputs[0], node.outputs[0]
        if data is None:
            return False
        source, result = static_shape(data), static_shape(output)
        target = None if 0 in source else _TARGETS[node.op_type](node, source, result)
        if target is None:
            return False
        shape = names.constant(f"{output.name}_shape", np.array(target, dtype=np.int64))
        reshape = new_node(
            graph,
            "Reshape",
            [data, shape],
            name=output.name or "",
            dtype=output.dtype,
            shape=result,
            origins=[node],
        )
        replace(graph, [node], [reshape], reshape.outputs[0])
        return True


def _squeezed(node: ir.Node, source: tuple[int, ...], result: tuple[int, ...]) -> list[int] | None:
    axes = _axes(node)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return None
    removed = {axis % len(source) for axis in axes.tolist()} if axes is not None else None
    if removed is None:
        removed = {axis for axis, size in enumerate(source) if size == 1}
    return _with_leading(result, -1 if 0 in removed else 0)


def _unsqueezed(node: ir.Node, source: tuple[int, ...], result: tuple[int, ...]) -> list[int] | None:
    axes = _axes(node)
    if axes is None:
        return None
    added = {axis % len(result) for axis in axes.tolist()}
    if 0 not in added:
        return _with_leading(result, 0)
    target = list(result)
    kept = next((axis for axis in range(len(result)) if axis not in added), None)
    if kept is not None:
        target[kept] = -1
    return target


def _flattened(node: ir.Node, source: tuple[int, ...], result: tuple[int, ...]) -> list[int] | None:
    axis = attribute(node, "axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    if axis == 0:
        return [1, -1]
    return [0 if axis == 1 else -1, result[1]]


def _transposed(node: ir.Node, source: tuple[int, ...], result: tuple[int, ...]) -> list[int] | None:
    order = tuple(attribute(node, "perm", range(len(source) - 1, -1, -1)))
    moved = [axis for axis in order[1:] if source[axis] != 1]
    if not order or order[0] != 0 or order == tuple(range(len(source))) or moved != sorted(moved):
        return None
    return _with_leading(result, 0)


def _axes(node: ir.Node) -> Array | None:
    return constant(node.inputs[1]) if len(node.inputs) > 1 else None


def _with_leading(result: tuple[int, ...], leading: int) -> list[int]:
    return [leading, *result[1:]] if result else []


_TARGETS = {"Squeeze": _squeezed, "Unsqueeze": _unsqueezed, "Flatten": _flattened, "Transpose": _transposed}
