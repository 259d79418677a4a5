"""Computes with numpy what constants alone decide: shapes, sizes, axes, conditions, and weights that are prepared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tensorflow.constants import numpy_type
from engine.frontends.tensorflow.nodes import Node
from engine.frontends.tensorflow.values import Value
from engine.graph.query import Array

LARGEST = 1 << 25
"""Elements of a result that is computed here; larger ones are made when the model runs."""

Formula = Callable[[Node, Sequence[Array]], "Array | list[Array]"]


def evaluate(node: Node, inputs: Sequence[Value], place: Place) -> list[Array] | None:
    """The results of a node whose inputs are all constants, or None where it is to become part of the graph.

    Raises ModelError where numpy cannot compute it.
    """
    formula = FORMULAS.get(node.op)
    if formula is None or not inputs:
        return None
    arrays: list[Array] = []
    for value in inputs:
        if not isinstance(value, Tensor) or not value.is_constant or value.grid is not None or value.array is None:
            return None
        arrays.append(value.array)
    if _size(node, arrays) > LARGEST:
        return None
    try:
        with np.errstate(all="ignore"):
            made = formula(node, arrays)
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError) as error:
        shapes = [list(array.shape) for array in arrays]
        raise place.error(f"{node.op} does not fit its inputs {shapes}: {error}") from error
    found = made if isinstance(made, list) else [made]
    if any(array.dtype.kind not in "fiub" for array in found):
        raise place.error(f"{node.op} makes values of the type {found[0].dtype}")
    return [np.asarray(array, np.float32 if array.dtype.kind == "f" else array.dtype) for array in found]


def _size(node: Node, arrays: Sequence[Array]) -> float:
    """How many elements the result has, where that is more than the inputs have together."""
    largest = max(array.size for array in arrays)
    if node.op in _GROWING:
        return float(_GROWING[node.op](arrays))
    if len(arrays) == 2 and all(a.ndim > 0 for a in arrays) and node.op not in ("Reshape", "Transpose"):
        return float(min(arrays[0].size * arrays[1].size, math.prod(_broadcast(arrays))))
    return float(sum(array.size for array in arrays) if len(arrays) > 2 else largest)


def _broadcast(arrays: Sequence[Array]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        return (max(array.size for array in arrays),)


def _range_size(arrays: Sequence[Array]) -> float:
    start, limit, delta = (float(array.reshape(-1)[0]) for array in arrays)
    return max(math.ceil((limit - start) / delta), 0) if delta and math.isfinite(limit - start) else math.inf


_GROWING: dict[str, Callable[[Sequence[Array]], float]] = {
    "Fill": lambda a: math.prod(float(max(n, 0)) for n in a[0].reshape(-1)),
    "BroadcastTo": lambda a: math.prod(float(max(n, 0)) for n in a[1].reshape(-1)),
    "Tile": lambda a: a[0].size * math.prod(float(max(n, 0)) for n in a[1].reshape(-1)),
    "Range": _range_size,
    "OneHot": lambda a: a[0].size * float(a[1].reshape(-1)[0]),
    "LinSpace": lambda a: float(a[2].reshape(-1)[0]),
    "ScatterNd": lambda a: math.prod(float(max(n, 0)) for n in a[2].reshape(-1)),
    "GatherV2": lambda a: float(a[0].size / max(a[0].shape[0] if a[0].ndim else 1, 1) * a[1].size),
    "Gather": lambda a: float(a[0].size / max(a[0].shape[0] if a[0].ndim else 1, 1) * a[1].size),
    "Pad": lambda a: math.prod(n + float(np.sum(p)) for n, p in zip(a[0].shape, a[1].reshape(-1, 2), strict=False)),
}
_GROWING["PadV2"] = _GROWING["Pad"]


def _floor_divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and np.any(b == 0):
        raise ValueError("division by zero")
    return np.asarray(np.floor_divide(a, b))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if np.any(b == 0):
        raise ValueError("division by zero")
    return np.asarray(np.trunc(a.astype(np.float64) / b)).astype(a.dtype)


def _mod(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and np.any(b == 0):
        raise ValueError("division by zero")
    return np.asarray(np.mod(a, b))


def _axis(array: Array) -> int:
    return int(array.reshape(-1)[0])


def _cast(node: Node, arrays: Sequence[Array]) -> Array:
    dtype = numpy_type(node.dtype("DstT"))
    if dtype is None:
        raise TypeError("no type of numbers")
    array = arrays[0]
    if array.dtype.kind == "f" and dtype.kind in "iu":
        array = np.trunc(np.nan_to_num(array))
    return array.astype(dtype)


def _reduction(function: Any) -> Formula:
    def formula(node: Node, arrays: Sequence[Array]) -> Array:
        axes = tuple(int(axis) for axis in arrays[1].reshape(-1))
        keep = node.flag("keep_dims") or node.flag("keepdims")
        result = np.asarray(function(arrays[0], axis=axes, keepdims=keep))
        return result if result.dtype.kind == "b" else result.astype(arrays[0].dtype)

    return formula


def _strided_slice(node: Node, arrays: Sequence[Array]) -> Array:
    begin, end, strides = (array.reshape(-1) for array in arrays[1:4])
    masks = {name: node.integer(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    index: list[Any] = []
    for place, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = {name: bool(mask >> place & 1) for name, mask in masks.items()}
        if bit["ellipsis"]:
            index.append(Ellipsis)
        elif bit["new_axis"]:
            index.append(None)
        elif bit["shrink_axis"]:
            index.append(int(first))
        else:
            index.append(slice(None if bit["begin"] else int(first), None if bit["end"] else int(last), int(step)))
    return np.asarray(arrays[0][tuple(index)])


def _slice(node: Node, arrays: Sequence[Array]) -> Array:
    array, begin, size = arrays
    ranges = [
        slice(int(b), int(n) if s == -1 else int(b) + int(s))
        for b, s, n in zip(begin.reshape(-1), size.reshape(-1), array.shape, strict=True)
    ]
    return np.asarray(array[tuple(ranges)])


def _squeeze(node: Node, arrays: Sequence[Array]) -> Array:
    axes = tuple(node.integers("squeeze_dims") or node.integers("axis"))
    return np.asarray(np.squeeze(arrays[0], axes or None))


def _gather(node: Node, arrays: Sequence[Array]) -> Array:
    axis = _axis(arrays[2]) if len(arrays) > 2 else 0
    if node.integer("batch_dims"):
        raise ValueError("batch_dims")
    return np.asarray(np.take(arrays[0], arrays[1], axis=axis))


def _split(node: Node, arrays: Sequence[Array]) -> list[Array]:
    return list(np.split(arrays[1], node.integer("num_split", 1), _axis(arrays[0])))


def _split_sizes(node: Node, arrays: Sequence[Array]) -> list[Array]:
    axis, total = _axis(arrays[2]), arrays[0].shape[_axis(arrays[2])]
    sizes = [int(size) for size in arrays[1].reshape(-1)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = total - sum(size for size in sizes if size != -1)
    return list(np.split(arrays[0], np.cumsum(sizes)[:-1], axis))


def _unpack(node: Node, arrays: Sequence[Array]) -> list[Array]:
    axis = node.integer("axis")
    return [np.asarray(np.take(arrays[0], i, axis)) for i in range(arrays[0].shape[axis])]


def _concat(node: Node, arrays: Sequence[Array]) -> Array:
    parts, axis = (arrays[1:], arrays[0]) if node.op == "Concat" else (arrays[:-1], arrays[-1])
    return np.concatenate(list(parts), _axis(axis))


def _fill(node: Node, arrays: Sequence[Array]) -> Array:
    return np.full([int(n) for n in arrays[0].reshape(-1)], arrays[1].reshape(-1)[0], arrays[1].dtype)


def _range(node: Node, arrays: Sequence[Array]) -> Array:
    start, limit, delta = (array.reshape(-1)[0] for array in arrays)
    return np.arange(start, limit, delta).astype(arrays[0].dtype)


def _transpose(node: Node, arrays: Sequence[Array]) -> Array:
    return np.transpose(arrays[0], [int(axis) for axis in arrays[1].reshape(-1)])


def _matmul(node: Node, arrays: Sequence[Array]) -> Array:
    a, b = arrays
    if node.flag("transpose_a") or node.flag("adj_x"):
        a = a.swapaxes(-1, -2)
    if node.flag("transpose_b") or node.flag("adj_y"):
        b = b.swapaxes(-1, -2)
    return np.asarray(a @ b)


def _select(node: Node, arrays: Sequence[Array]) -> Array:
    condition, a, b = arrays
    if node.op == "Select" and condition.ndim == 1 and a.ndim > 1:
        condition = condition.reshape(-1, *(1,) * (a.ndim - 1))
    return np.where(condition, a, b)


def _scatter(node: Node, arrays: Sequence[Array]) -> Array:
    index, updates, shape = arrays
    result = np.zeros([int(n) for n in shape.reshape(-1)], updates.dtype)
    np.add.at(result, tuple(np.moveaxis(index, -1, 0)), updates)
    return result


def _pad(node: Node, arrays: Sequence[Array]) -> Array:
    value = arrays[2].reshape(-1)[0] if len(arrays) > 2 else 0
    return np.pad(arrays[0], [(int(a), int(b)) for a, b in arrays[1]], constant_values=value)


def _one_hot(node: Node, arrays: Sequence[Array]) -> Array:
    index, depth, on, off = arrays
    axis = node.integer("axis", -1)
    found = np.where(np.arange(_axis(depth)) == index[..., None], on, off).astype(on.dtype)
    return found if axis == -1 else np.moveaxis(found, -1, axis)


def _pack(node: Node, arrays: Sequence[Array]) -> Array:
    return np.stack(list(arrays), node.integer("axis"))


def _pairwise(function: Any) -> Formula:
    return lambda node, arrays: np.asarray(function(arrays[0], arrays[1]))


def _each(function: Any) -> Formula:
    return lambda node, arrays: np.asarray(function(arrays[0]))


FORMULAS: dict[str, Formula] = {
    **{name: _pairwise(np.add) for name in ("Add", "AddV2", "BiasAdd")},
    "Sub": _pairwise(np.subtract),
    "Mul": _pairwise(np.multiply),
    "RealDiv": _pairwise(_divide),
    "Div": _pairwise(_divide),
    "TruncateDiv": _pairwise(_divide),
    "FloorDiv": _pairwise(_floor_divide),
    "FloorMod": _pairwise(_mod),
    "Mod": _pairwise(np.fmod),
    "DivNoNan": _pairwise(lambda a, b: np.where(b == 0, 0, a / np.where(b == 0, 1, b)).astype(a.dtype)),
    "Maximum": _pairwise(np.maximum),
    "Minimum": _pairwise(np.minimum),
    "Pow": _pairwise(np.power),
    "SquaredDifference": _pairwise(lambda a, b: (a - b) * (a - b)),
    "Equal": _pairwise(np.equal),
    "NotEqual": _pairwise(np.not_equal),
    "Less": _pairwise(np.less),
    "LessEqual": _pairwise(np.less_equal),
    "Greater": _pairwise(np.greater),
    "GreaterEqual": _pairwise(np.greater_equal),
    "LogicalAnd": _pairwise(np.logical_and),
    "LogicalOr": _pairwise(np.logical_or),
    "LogicalNot": _each(np.logical_not),
    "Neg": _each(np.negative),
    "Abs": _each(np.abs),
    "Sign": _each(np.sign),
    "Square": _each(np.square),
    "Sqrt": _each(np.sqrt),
    "Rsqrt": _each(lambda a: 1 / np.sqrt(a)),
    "Reciprocal": _each(lambda a: 1 / a),
    "Inv": _each(lambda a: 1 / a),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Log1p": _each(np.log1p),
    "Floor": _each(np.floor),
    "Ceil": _each(np.ceil),
    "Round": _each(np.round),
    "Rint": _each(np.round),
    "Sin": _each(np.sin),
    "Cos": _each(np.cos),
    "Tanh": _each(np.tanh),
    "Sigmoid": _each(lambda a: 1 / (1 + np.exp(-a.astype(np.float64)))),
    "Relu": _each(lambda a: np.maximum(a, a.dtype.type(0))),
    "ZerosLike": _each(np.zeros_like),
    "OnesLike": _each(np.ones_like),
    "Sum": _reduction(np.sum),
    "Prod": _reduction(np.prod),
    "Mean": _reduction(np.mean),
    "Max": _reduction(np.max),
    "Min": _reduction(np.min),
    "All": _reduction(np.all),
    "Any": _reduction(np.any),
    "Cast": _cast,
    "Bitcast": lambda node, arrays: arrays[0].view(numpy_type(node.dtype("type"))),
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "ExpandDims": lambda node, arrays: np.expand_dims(arrays[0], _axis(arrays[1])),
    "Reshape": lambda node, arrays: arrays[0].reshape([int(n) for n in arrays[1].reshape(-1)]),
    "Transpose": _transpose,
    "GatherV2": _gather,
    "Gather": _gather,
    "GatherNd": lambda node, arrays: np.asarray(arrays[0][tuple(np.moveaxis(arrays[1], -1, 0))]),
    "Split": _split,
    "SplitV": _split_sizes,
    "Unpack": _unpack,
    "Pack": _pack,
    "ParallelConcat": _pack,
    "Concat": _concat,
    "ConcatV2": _concat,
    "Fill": _fill,
    "Range": _range,
    "LinSpace": lambda node, a: np.linspace(a[0].item(), a[1].item(), int(a[2].item()), dtype=np.float32),
    "Tile": lambda node, arrays: np.tile(arrays[0], [int(n) for n in arrays[1].reshape(-1)]),
    "BroadcastTo": lambda node, arrays: np.broadcast_to(arrays[0], [int(n) for n in arrays[1].reshape(-1)]),
    "BroadcastArgs": lambda node, a: np.array(
        np.broadcast_shapes(tuple(map(int, a[0])), tuple(map(int, a[1]))), a[0].dtype
    ),
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Select": _select,
    "SelectV2": _select,
    "Where": lambda node, arrays: np.argwhere(arrays[0]).astype(np.int64),
    "InvertPermutation": _each(lambda a: np.argsort(a).astype(a.dtype)),
    "Size": lambda node, arrays: np.array(arrays[0].size, numpy_type(node.dtype("out_type", default=3))),
    "ReverseV2": lambda node, arrays: np.flip(arrays[0], tuple(int(axis) for axis in arrays[1].reshape(-1))),
    "Cumsum": lambda node, a: _cumulative(node, a),
    "OneHot": _one_hot,
    "ScatterNd": _scatter,
    "Pad": _pad,
    "PadV2": _pad,
    "ArgMax": lambda node, a: np.argmax(a[0], _axis(a[1])).astype(numpy_type(node.dtype("output_type", default=9))),
    "ArgMin": lambda node, a: np.argmin(a[0], _axis(a[1])).astype(numpy_type(node.dtype("output_type", default=9))),
}
"""Operators that are computed where all their inputs are constants; results keep TensorFlow's types."""


def _cumulative(node: Node, arrays: Sequence[Array]) -> Array:
    array, axis = arrays[0], _axis(arrays[1])
    if node.flag("reverse"):
        array = np.flip(array, axis)
    total = np.cumsum(array, axis, dtype=array.dtype)
    if node.flag("exclusive"):
        total = total - array
    return np.flip(total, axis) if node.flag("reverse") else total
