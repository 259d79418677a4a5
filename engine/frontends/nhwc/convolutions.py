"""Convolutions and matrix products of channels-last frameworks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc.padding import Padding, onnx_pads, pads_of
from engine.frontends.nhwc.spreading import spread_convolution
from engine.frontends.nhwc.tensors import Place, Tensor

_LETTERS = {1: "W", 2: "HW", 3: "DHW"}


def convolution(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    place: Place,
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (),
    padding: Padding = "VALID",
    order: str = "HWIO",
    groups: int | None = None,
) -> Tensor:
    """A convolution over [N, spatial..., C], in one to three spatial axes, as many as `strides` has.

    `order` says what the axes of the weights are: I, O and one letter a spatial axis: 'HWIO', 'OHWI', 'WIO', 'DHWIO'.
    `groups` of None follows from the channels of `x` and the weights. Between `space_to_batch` and `batch_to_space` it
    becomes a dilated one. Raises ModelError.
    """
    spatial = len(strides)
    dilations = tuple(dilations) or (1,) * spatial
    if x.rank != spatial + 2 or weights.rank != spatial + 2:
        raise place.error(f"convolves {list(x.shape)} with {list(weights.shape)}")
    turned = [order.index(letter) for letter in "OI" + _LETTERS[spatial]]
    shape = tuple(weights.shape[axis] for axis in turned)
    if 0 in shape or x.shape[-1] % shape[1]:
        raise place.error(f"has weights {list(weights.shape)} for {x.shape[-1]} channels")
    groups = groups or x.shape[-1] // shape[1]
    if groups * shape[1] != x.shape[-1] or shape[0] % groups:
        raise place.error(f"has {groups} groups of weights {list(weights.shape)} for {x.shape[-1]} channels")
    return _convolved(x, weights.form(turned, shape, 0), bias, groups, strides, dilations, padding, place)


def depthwise(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    place: Place,
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    padding: Padding = "VALID",
    order: str = "HWCM",
) -> Tensor:
    """A convolution of each channel by itself. `order` of the weights: 'HWCM' for [H, W, C, multiplier], '1HWC' for
    [1, H, W, C * multiplier]. Raises ModelError."""
    channels = x.shape[-1] if x.rank == 4 else 0
    flat = order == "1HWC"
    own = weights.shape[3 if flat else 2] if weights.rank == 4 else 1
    if (
        x.rank != 4
        or weights.rank != 4
        or 0 in weights.shape
        or own % max(channels, 1)
        or not (flat or own == channels)
    ):
        raise place.error(f"convolves {list(x.shape)} with {list(weights.shape)}")
    if flat:
        kernel = weights.form((3, 0, 1, 2), (own, 1, *weights.shape[1:3]), 0)
    else:
        kernel = weights.form((2, 3, 0, 1), (own * weights.shape[3], 1, *weights.shape[:2]))
    return _convolved(x, kernel, bias, channels, strides, dilations, padding, place)


def _convolved(
    x: Tensor,
    kernel: ir.Value,
    bias: Tensor | None,
    groups: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    place: Place,
) -> Tensor:
    window = place.maker.shape(kernel)[2:]
    added = _bias(bias, place.maker.shape(kernel)[0], place)

    def make(x: Tensor, dilations: Sequence[int], padding: Padding, place: Place) -> Tensor:
        pads = pads_of(padding, x.shape[1:-1], window, strides, dilations, place)
        result = place.node(
            "Conv",
            [x.first(), kernel, *added],
            kernel_shape=list(window),
            strides=list(strides),
            dilations=list(dilations) if any(d != 1 for d in dilations) else None,
            pads=onnx_pads(pads),
            group=groups if groups != 1 else None,
        )
        return Tensor.of_first(result, place)

    spread = None
    if all(n == 1 for n in (*strides, *dilations)):
        spread = spread_convolution(x, window, padding, make, place.maker.shape(kernel)[0], place)
    return spread or make(x, dilations, padding, place)


def transpose_convolution(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    place: Place,
    *,
    output_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    padding: Padding = "VALID",
    order: str = "HWOI",
) -> Tensor:
    """The gradient of a convolution from [N, *output_size, O]; `order` of the weights as in `convolution`, with O the
    channels of the result ('OHWI' in TFLite, 'HWOI' in TensorFlow). Raises ModelError."""
    spatial = len(strides)
    if x.rank != spatial + 2 or weights.rank != spatial + 2 or len(output_size) != spatial:
        raise place.error(f"makes {list(output_size)} of {list(x.shape)} with weights {list(weights.shape)}")
    turned = [order.index(letter) for letter in "IO" + _LETTERS[spatial]]
    shape = tuple(weights.shape[axis] for axis in turned)
    if shape[0] != x.shape[-1] or 0 in shape:
        raise place.error(f"has weights {list(weights.shape)} for {x.shape[-1]} channels")
    window = shape[2:]
    pads = pads_of(padding, output_size, window, strides, dilations, place)
    extra = []
    for index, size in enumerate(output_size):
        covered = (x.shape[1 + index] - 1) * strides[index] + (window[index] - 1) * dilations[index] + 1
        before, behind = pads[index]
        missing = size - (covered - before - behind)
        if missing < 0:  # SAME shares less than there is where the stride is larger than the window
            behind, missing = behind - missing, 0
        pads[index] = (before, behind)
        extra.append(missing)
    if any(
        missing >= max(stride, dilation) for missing, stride, dilation in zip(extra, strides, dilations, strict=True)
    ):
        raise place.error(f"makes {list(output_size)} of {list(x.shape)}", "its output shape does not fit its strides")
    result = place.node(
        "ConvTranspose",
        [x.first(), weights.form(turned, shape, 1), *_bias(bias, shape[1], place)],
        kernel_shape=list(window),
        strides=list(strides),
        dilations=list(dilations) if any(d != 1 for d in dilations) else None,
        pads=onnx_pads(pads),
        output_padding=extra if any(extra) else None,
    )
    return Tensor.of_first(result, place)


def fully_connected(
    x: Tensor, weights: Tensor, bias: Tensor | None, place: Place, *, keep_axes: bool = False
) -> Tensor:
    """x, as rows as long as those of `weights` [O, I], times their transposed, plus a bias [O].

    The result is [rows, O], or with `keep_axes` the shape of `x` with O as its last axis. Raises ModelError.
    """
    if weights.rank != 2 or 0 in weights.shape or x.size % weights.shape[1]:
        raise place.error(f"multiplies {list(x.shape)} with {list(weights.shape)}")
    outputs, inner = weights.shape
    rows = x.size // inner
    if keep_axes and (not x.rank or x.shape[-1] != inner):
        raise place.error(f"multiplies {list(x.shape)} with {list(weights.shape)}")
    value = x.plain()
    if x.shape != (rows, inner):
        value = place.inner("Reshape", [value, place.constant(np.array([rows, inner], np.int64), "rows")], "flat")
    final = (*x.shape[:-1], outputs) if keep_axes else (rows, outputs)
    end = place if final == (rows, outputs) else place.within("product")
    inputs = [value, weights.form((0, 1), (outputs, inner), 0), *_bias(bias, outputs, place)]
    result = end.node("Gemm", inputs, transB=1)
    if end is not place:
        result = place.node("Reshape", [result, place.constant(np.array(final, np.int64), "shape")])
    return Tensor.of(result, place)


def matmul(a: Tensor, b: Tensor, place: Place, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """The product of the last two axes, each turned first where asked, broadcast over those before."""
    if a.rank < 2 or b.rank < 2:
        raise place.error(f"multiplies {list(a.shape)} with {list(b.shape)}")
    left, right = (_turned(tensor, turn) for tensor, turn in ((a, transpose_a), (b, transpose_b)))
    return Tensor.of(place.node("MatMul", [left, right]), place)


def _turned(tensor: Tensor, turn: bool) -> ir.Value:
    order = list(range(tensor.rank))
    if turn:
        order[-2:] = order[-1], order[-2]
    axis = order.index(tensor.grid.axis) if tensor.grid is not None and tensor.grid.axis is not None else None
    return tensor.form(order, [tensor.shape[a] for a in order], axis)


def _bias(bias: Tensor | None, channels: int, place: Place) -> list[ir.Value]:
    if bias is None:
        return []
    if bias.size != channels:
        raise place.error(f"has a bias of {bias.size} for {channels} channels")
    return [bias.form(range(bias.rank), (channels,), 0)]
