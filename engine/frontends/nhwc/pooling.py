"""Pooling and normalization over windows, of channels-last frameworks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.frontends.nhwc.padding import Padding, onnx_pads, pads_of
from engine.frontends.nhwc.tensors import Place, Tensor, in_layout, prefers_first


def pool(
    x: Tensor, place: Place, kind: str, *, kernel: Sequence[int], strides: Sequence[int], padding: Padding = "VALID"
) -> Tensor:
    """The 'max', 'average' or 'l2' (root of the mean square) of each window over the spatial axes of [N, spatial, C].

    There may be several spatial axes. Padding is in no average. Raises ModelError.
    """
    if x.rank != len(kernel) + 2:
        raise place.error(f"pools {list(x.shape)} in windows of {list(kernel)}")
    pads = onnx_pads(pads_of(padding, x.shape[1:-1], kernel, strides, (1,) * len(kernel), place))
    value = x.first()
    shape = {"kernel_shape": list(kernel), "strides": list(strides), "pads": pads}
    if kind == "max":
        return Tensor.of_first(place.node("MaxPool", [value], **shape), place)
    if kind == "average":
        return Tensor.of_first(place.node("AveragePool", [value], count_include_pad=0, **shape), place)
    squares = place.inner("Mul", [value, value], "squares")
    means = place.inner("AveragePool", [squares], "means", count_include_pad=0, **shape)
    return Tensor.of_first(place.node("Sqrt", [means]), place)


def local_response_normalization(
    x: Tensor, place: Place, *, radius: int, bias: float, alpha: float, beta: float
) -> Tensor:
    """x / (bias + alpha * sum of squares of the channels up to `radius` away) ** beta. Raises ModelError."""
    size = 2 * radius + 1
    if x.rank != 4 or radius < 0:
        raise place.error(f"normalizes {list(x.shape)} over {size} channels")
    result = place.node("LRN", [x.first()], size=size, bias=bias, alpha=alpha * size, beta=beta)
    return Tensor.of_first(result, place)


def batch_normalization(
    x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, variance: Tensor, place: Place, *, epsilon: float
) -> Tensor:
    """scale * (x - mean) / sqrt(variance + epsilon) + offset, each of one value a channel (the last axis)."""
    parameters = [t.form(range(t.rank), (t.size,)) for t in (scale, offset, mean, variance)]
    if any(t.size != x.shape[-1] for t in (scale, offset, mean, variance)) or x.rank < 2:
        raise place.error(f"normalizes {list(x.shape)} by {scale.size} channels")
    return Tensor.of_first(place.node("BatchNormalization", [x.first(), *parameters], epsilon=epsilon), place)


def l2_normalization(x: Tensor, place: Place, *, axis: int = -1, epsilon: float = 1e-6) -> Tensor:
    """x / sqrt(max(sum of x * x along `axis`, epsilon))."""
    first = prefers_first([x])
    value = x.get(first)
    axes = place.constant(np.array([1 if first and axis in (-1, x.rank - 1) else axis % x.rank], np.int64), "axes")
    squares = place.inner("Mul", [value, value], "squares")
    total = place.inner("ReduceSum", [squares, axes], "total", keepdims=1)
    bounded = place.inner("Max", [total, place.constant(np.float32(epsilon), "epsilon")], "bounded")
    length = place.inner("Sqrt", [bounded], "length")
    return in_layout(place.node("Div", [value, length]), first, place)
