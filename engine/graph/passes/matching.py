"""What the passes recognise nodes by: scalar and per-channel constants, scalings, offsets and clips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.graph.passes.rewriting import absorbed, has_given_quantization
from engine.graph.query import Array, attribute, constant, static_shape

FLOAT = ir.DataType.FLOAT


def close(number: float, expected: float) -> bool:
    """Whether `number` is `expected` up to the rounding of float32."""
    return math.isclose(number, expected, rel_tol=1e-6, abs_tol=1e-9)


def is_float(node: ir.Node) -> bool:
    """Whether the node's first output is float32: integer arithmetic wraps and truncates, so it is left alone."""
    return node.outputs[0].dtype == FLOAT


def free_constant(value: ir.Value | None) -> Array | None:
    """The array of an initializer that did not come with quantization parameters of its own."""
    if value is None or has_given_quantization(value):
        return None
    return constant(value)


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element, of any rank."""
    if value is None or not value.is_initializer() or value.shape is None or math.prod(static_shape(value)) != 1:
        return None
    array = free_constant(value)
    return None if array is None else float(array.reshape(()))


def keeps_shape(node: ir.Node, data: ir.Value) -> bool:
    """Whether the node's output has the shape and type of `data`: its constants broadcast without growing it."""
    output = node.outputs[0]
    return static_shape(output) == static_shape(data) and output.dtype == data.dtype


def scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, factor) for x*c, c*x and x/c with a scalar c."""
    found = _with_number(node, "Mul", "Div")
    if found is None or node.op_type == "Mul":
        return found
    return (found[0], 1.0 / found[1]) if found[1] else None


def offset(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, summand) for x+c, c+x and x-c with a scalar c."""
    found = _with_number(node, "Add", "Sub")
    if found is None or node.op_type == "Add":
        return found
    return found[0], -found[1]


def _with_number(node: ir.Node, commuting: str, inverse: str) -> tuple[ir.Value, float] | None:
    """The data and the scalar constant that one of two operators joins; the inverse takes the constant last."""
    if node.op_type not in (commuting, inverse) or not is_float(node):
        return None
    left, right = node.inputs
    if left is None or right is None:
        return None
    number = scalar(right)
    if number is not None and keeps_shape(node, left):
        return left, number
    number = scalar(left) if node.op_type == commuting else None
    return (right, number) if number is not None and keeps_shape(node, right) else None


def clip_bounds(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    """(x, lowest, highest) of a Clip between scalar constants; a missing bound is infinite."""
    if node.op_type != "Clip" or not is_float(node) or node.inputs[0] is None:
        return None
    bounds = [-math.inf, math.inf]
    for index, value in enumerate(node.inputs[1:3]):
        if value is not None:
            number = scalar(value)
            if number is None:
                return None
            bounds[index] = number
    return node.inputs[0], bounds[0], bounds[1]


@dataclasses.dataclass(frozen=True)
class Gate:
    """factor * value = clip(alpha * data + beta, 0, 1), made by `nodes` (in execution order) that nobody else needs."""

    data: ir.Value
    factor: float
    alpha: float
    beta: float
    nodes: tuple[ir.Node, ...]


def gate(value: ir.Value | None) -> Gate | None:
    """How `value` is a hard sigmoid up to a factor: HardSigmoid(x), or Clip(x + b, 0, h) with h above 0."""
    node = absorbed(value, "HardSigmoid", "Clip")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "HardSigmoid":
        return Gate(node.inputs[0], 1.0, attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5), (node,))
    clip = clip_bounds(node)
    if clip is None or clip[1] != 0.0 or not 0.0 < clip[2] < math.inf:
        return None
    add = absorbed(clip[0], "Add", "Sub")
    moved = None if add is None else offset(add)
    if add is None or moved is None:
        return None
    factor = 1.0 / clip[2]
    return Gate(moved[0], factor, factor, moved[1] * factor, (add, node))


def per_channel(array: Array, shape: Sequence[int], axis: int = 1) -> Array | None:
    """`array` as float64 [C], if it broadcasts over a tensor of `shape` as one number for each index of `axis`.

    Takes scalars and shapes such as [1], [C, 1, 1] or [1, C, 1, 1]; None for any other, and where it would make
    the tensor larger.
    """
    rank = len(shape)
    if array.ndim > rank or rank <= axis:
        return None
    aligned = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for index, size in enumerate(aligned) if index != axis) or aligned[axis] not in (1, shape[axis]):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (shape[axis],))
