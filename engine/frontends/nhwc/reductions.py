"""Reductions, arguments of extremes and softmax, in whichever order of axes their operand is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc.shaping import reshape
from engine.frontends.nhwc.tensors import Place, Tensor, axis_in, in_layout, normal_axis, prefers_first, to_first

_REDUCTIONS = {
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
    "any": "ReduceMax",
    "all": "ReduceMin",
}


def reduce(x: Tensor, place: Place, kind: str, *, axes: Sequence[int], keep_axes: bool = False) -> Tensor:
    """The 'mean', 'sum', 'max', 'min', 'prod', 'any' or 'all' along `axes`; along none it is `x`.

    Raises ModelError.
    """
    chosen = sorted({normal_axis(axis, x.rank, place) for axis in axes}) if x.rank else []
    first = prefers_first([x])
    if not chosen:
        return in_layout(place.node("Identity", [x.get(first)]), first, place)
    op_type = _REDUCTIONS[kind]
    value = x.get(first)
    logical = kind in ("any", "all")
    if logical:
        value = place.inner("Cast", [value], "counts", to=ir.DataType.INT32.value)
    left = [axis for axis in (to_first(x.rank) if first else range(x.rank)) if axis not in chosen]
    # What is left may lie as in the source model although the operand does not.
    plain = left == sorted(left) and not keep_axes
    shape = [1 if axis in chosen else size for axis, size in enumerate(x.shape)]
    end = place if keep_axes or plain else place.within("kept")
    at = np.array(sorted(axis_in(axis, x.rank, first) for axis in chosen), np.int64)
    inputs = [value, end.constant(at, "axes")]
    keep = 0 if plain else 1
    if logical:
        value = end.node("Cast", [end.inner(op_type, inputs, "reduced", keepdims=keep)], to=ir.DataType.BOOL.value)
    else:
        value = end.node(op_type, inputs, keepdims=keep)
    if plain:
        return Tensor.of(value, place)
    kept = in_layout(value, first, end)
    return kept if keep_axes else reshape(kept, place, [size for a, size in enumerate(shape) if a not in chosen])


def argument(x: Tensor, place: Place, kind: str, *, axis: int, dtype: ir.DataType, keep_axes: bool = False) -> Tensor:
    """Where the 'max' or 'min' lies along `axis`, the first of equal ones. Raises ModelError."""
    axis = normal_axis(axis, x.rank, place)
    left = [a for a in to_first(x.rank) if a != axis]
    first = prefers_first([x]) and left == sorted(left)
    op_type = "ArgMax" if kind == "max" else "ArgMin"
    end = place if dtype == ir.DataType.INT64 else place.within("index")
    value = end.node(op_type, [x.get(first)], axis=axis_in(axis, x.rank, first), keepdims=0)
    if end is not place:
        value = place.node("Cast", [value], to=dtype.value)
    result = Tensor.of(value, place)
    if not keep_axes:
        return result
    return reshape(result, place, [1 if a == axis else n for a, n in enumerate(x.shape)])


def softmax(x: Tensor, place: Place, *, axis: int = -1, beta: float = 1.0, logarithm: bool = False) -> Tensor:
    """exp(beta * x) along `axis`, parted by its sum; its logarithm where asked."""
    axis = normal_axis(axis, x.rank, place)
    first = prefers_first([x])
    value = x.get(first)
    if beta != 1.0:
        value = place.inner("Mul", [value, place.constant(np.float32(beta), "beta")], "scaled")
    op_type = "LogSoftmax" if logarithm else "Softmax"
    return in_layout(place.node(op_type, [value], axis=axis_in(axis, x.rank, first)), first, place)


def cumulative_sum(x: Tensor, place: Place, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """The sums of the values up to each along `axis`."""
    axis = normal_axis(axis, x.rank, place)
    inputs = [x.plain(), place.constant(np.array(axis, np.int64), "axis")]
    return Tensor.of(place.node("CumSum", inputs, exclusive=int(exclusive), reverse=int(reverse)), place)
