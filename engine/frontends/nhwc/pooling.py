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
    x: Tensor, place: Place, *, radius: int, bias: float, alpha: float, beta: float, open_end: bool = False
) -> Tensor:
    """x / (bias + alpha * sum of squares of the channels up to `radius` away) ** beta.

    With `open_end` the channel `radius` behind does not count, as in TFLite's kernels. Raises ModelError.
    """
    if x.rank != 4 or not 0 <= radius <= x.shape[-1]:
        raise place.error(f"normalizes {list(x.shape)} over {radius} channels on each side")
    if not open_end or not radius:
        size = 2 * radius + 1
        result = place.node("LRN", [x.first()], size=size, bias=bias, alpha=alpha * size, beta=beta)
        return Tensor.of_first(result, place)
    value, size = x.first(), 2 * radius
    batch, channels, height, width = place.maker.shape(value)
    flat = place.constant(np.array([batch, 1, channels, height * width], np.int64), "flat_shape")
    squares = place.inner("Reshape", [place.inner("Mul", [value, value], "squares"), flat], "flat")
    pads = [radius, 0, radius - 1, 0]
    means = place.inner("AveragePool", [squares], "means", kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    whole = place.constant(np.array([batch, channels, height, width], np.int64), "shape")
    means = place.inner("Reshape", [means, whole], "whole")
    scaled = place.inner("Mul", [means, place.constant(np.float32(alpha * size), "alpha")], "scaled")
    total = place.inner("Add", [scaled, place.constant(np.float32(bias), "bias")], "total")
    divisor = place.inner("Pow", [total, place.constant(np.float32(beta), "beta")], "divisor")
    return Tensor.of_first(place.node("Div", [value, divisor]), place)


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
    # One node, so that no sum of squares has to fit into half precision.
    length = place.inner("ReduceL2", [value, axes], "length", keepdims=1)
    smallest = place.constant(np.float32(np.sqrt(epsilon)), "smallest")
    length = place.inner("Max", [length, smallest], "bounded")
    return in_layout(place.node("Div", [value, length]), first, place)
