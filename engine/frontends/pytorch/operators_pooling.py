"""Poolings, and resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.frontends.pytorch.operators_activation import like
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Refused, Tensor, Unknown


def _batched(t: Translation, x: Tensor, dims: int) -> tuple[Tensor, bool]:
    """With a batch, and whether it had none."""
    if x.rank not in (dims + 1, dims + 2):
        raise Refused(f"pools a tensor of shape {list(x.shape)}")
    return (t.reshape(x, (1, *x.shape)), True) if x.rank == dims + 1 else (x, False)


def _unbatched(t: Translation, x: Tensor, alone: bool) -> Tensor:
    return t.reshape(x, x.shape[1:]) if alone else x


class _Windows:
    """The windows of a pooling: torch's rule for `ceil_mode` lets none begin behind the input and its left padding."""

    def __init__(self, a: Arguments, size: Sequence[int]) -> None:
        dims = len(size)
        self.kernel = a.integers("kernel_size", dims)
        self.stride = a.integers("stride", dims) or self.kernel
        self.padding = a.integers("padding", dims) or [0] * dims
        self.dilation = a.integers("dilation", dims) or [1] * dims
        if min(self.stride + self.kernel + self.dilation) < 1 or len(self.kernel) != dims:
            raise Refused(f"has windows of {self.kernel} every {self.stride}")
        self.ends: list[int] = []
        self.counts: list[int] = []
        for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True):
            reach = d * (k - 1) + 1
            span = n + 2 * p - reach
            count = (-(-span // s) if a.flag("ceil_mode") else span // s) + 1
            if a.flag("ceil_mode") and (count - 1) * s >= n + p:
                count -= 1
            self.counts.append(count)
            self.ends.append(max((count - 1) * s + reach - n - p, p))

    @property
    def overhang(self) -> bool:
        """Whether windows reach behind the padding."""
        return self.ends != self.padding

    def attributes(self) -> dict[str, list[int]]:
        """What all poolings of ONNX have."""
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": [*self.padding, *self.ends]}


def max_pool(t: Translation, a: Arguments, dims: int) -> Tensor:
    """The largest of every window."""
    source = a.tensor("self" if "self" in a else "qx")
    x, alone = _batched(t, source, dims)
    windows = _Windows(a, x.shape[2:])
    result = t.emit("MaxPool", x, **windows.attributes(), dilations=windows.dilation)
    return like(t, source, _unbatched(t, result, alone))


def average_pool(t: Translation, a: Arguments, dims: int) -> Tensor:
    """The mean of every window."""
    source = a.tensor("self")
    x, alone = _batched(t, source, dims)
    windows = _Windows(a, x.shape[2:])
    include = "count_include_pad" not in a or a.flag("count_include_pad")
    divisor = a.get("divisor_override")
    attributes = windows.attributes()
    if divisor is not None:
        result = t.emit("AveragePool", x, **attributes, count_include_pad=1)
        factor = math.prod(windows.kernel) / int(divisor)
        result = result if factor == 1 else t.emit("Mul", result, t.scalar(factor))
    elif include and any(windows.padding) and windows.overhang:
        # What lies behind the padding does not count, though the padding does.
        result = t.emit("AveragePool", x, **attributes, count_include_pad=1)
        counted = np.ones([1] * (dims + 2))
        for axis, (n, k, s, p, count) in enumerate(
            zip(x.shape[2:], windows.kernel, windows.stride, windows.padding, windows.counts, strict=True)
        ):
            inside = [min(i * s + k, n + 2 * p) - i * s for i in range(count)]
            shape = [1] * (dims + 2)
            shape[axis + 2] = count
            counted = counted * (k / np.array(inside)).reshape(shape)
        result = t.emit("Mul", result, counted.astype(np.float32))
    else:
        result = t.emit("AveragePool", x, **attributes, count_include_pad=int(include and any(windows.padding)))
    return like(t, source, _unbatched(t, result, alone))


def adaptive_average(t: Translation, a: Arguments, dims: int) -> Tensor:
    """Means over as many regions as the result has places; region i is floor(i n / m) to ceil((i + 1) n / m)."""
    source = a.tensor("self")
    x, alone = _batched(t, source, dims)
    sizes = _sizes(a, x.shape[2:])
    if all(size == 1 for size in sizes):
        result = t.emit("GlobalAveragePool", x)
    elif all(n % m == 0 for n, m in zip(x.shape[2:], sizes, strict=True)):
        steps = [n // m for n, m in zip(x.shape[2:], sizes, strict=True)]
        result = t.emit("AveragePool", x, kernel_shape=steps, strides=steps)
    else:
        result = x
        for axis, (n, m) in enumerate(zip(x.shape[2:], sizes, strict=True), start=2):
            weights = np.zeros((n, m), np.float32)
            for place, (start, end) in enumerate(_regions(n, m)):
                weights[start:end, place] = 1 / (end - start)
            if axis == x.rank - 1:
                result = t.emit("MatMul", result, weights)
            else:
                order = [i for i in range(x.rank) if i != axis] + [axis]
                product = t.emit("MatMul", t.transpose(result, order), weights)
                result = t.transpose(product, np.argsort(order).tolist())
    return like(t, source, _unbatched(t, result, alone))


def _regions(n: int, m: int) -> list[tuple[int, int]]:
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _sizes(a: Arguments, size: Sequence[int]) -> list[int]:
    value = a.get("output_size")
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    values = values * len(size) if len(values) == 1 else values
    sizes = [n if v is None else int(v) for v, n in zip(values, size, strict=True)]
    if min(sizes) < 1:
        raise Refused(f"makes the size {sizes}")
    return sizes


def adaptive_max(t: Translation, a: Arguments, dims: int) -> Tensor:
    """The largest of each region, as `adaptive_average` has them."""
    source = a.tensor("self")
    x, alone = _batched(t, source, dims)
    sizes = _sizes(a, x.shape[2:])
    if all(size == 1 for size in sizes):
        result = t.emit("GlobalMaxPool", x)
    elif all(n % m == 0 for n, m in zip(x.shape[2:], sizes, strict=True)):
        steps = [n // m for n, m in zip(x.shape[2:], sizes, strict=True)]
        result = t.emit("MaxPool", x, kernel_shape=steps, strides=steps)
    else:
        result = x
        for axis, (n, m) in enumerate(zip(x.shape[2:], sizes, strict=True), start=2):
            parts = [
                t.emit("ReduceMax", t.slice(result, axis, start, end), [axis], keepdims=1)
                for start, end in _regions(n, m)
            ]
            result = parts[0] if m == 1 else t.emit("Concat", *parts, axis=axis)
    return like(t, source, _unbatched(t, result, alone))


def _with_indices(compute: Handler) -> Handler:
    def handler(t: Translation, a: Arguments) -> list[object]:
        return [compute(t, a), Unknown("reads the places that a pooling chose")]

    return handler


def _for_dims(compute: object, dims: int) -> Handler:
    return lambda t, a: compute(t, a, dims)  # type: ignore[operator]


_ADAPTIVE = "Concat GlobalMaxPool MaxPool ReduceMax Reshape Slice"
for _dims in (1, 2, 3):
    _max = _for_dims(max_pool, _dims)
    operator(f"max_pool{_dims}d", f"quantized::max_pool{_dims}d", becomes="MaxPool Reshape")(_max)
    operator(f"max_pool{_dims}d_with_indices", becomes="MaxPool Reshape")(_with_indices(_max))
    operator(f"avg_pool{_dims}d", becomes="AveragePool Mul Reshape")(_for_dims(average_pool, _dims))
    operator(
        f"adaptive_avg_pool{_dims}d",
        f"_adaptive_avg_pool{_dims}d",
        becomes="AveragePool GlobalAveragePool MatMul Reshape Transpose",
    )(_for_dims(adaptive_average, _dims))
    operator(f"adaptive_max_pool{_dims}d", becomes=_ADAPTIVE)(_with_indices(_for_dims(adaptive_max, _dims)))
