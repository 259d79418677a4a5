"""Pooling layers, whose windows Caffe lets stand over the edges of the picture in its own way."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.convolutions import check_window, sizes
from engine.frontends.caffe.layers import Making, Refused, reads

_METHODS = {"MAX": 0, "AVE": 1, "STOCHASTIC": 2}
_ROUNDING = {"CEIL": 0, "FLOOR": 1}
_HIGHEST_PYRAMID = 8


@reads(
    "Pooling",
    onnx=["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Pad"],
)
def _pooling(making: Making) -> list[ir.Value]:
    param = making.param("pooling_param")
    method = param.choice("pool", _METHODS, "MAX")
    if method == "STOCHASTIC":
        raise Refused("STOCHASTIC pooling", "train with MAX or AVE pooling")
    if len(making.shape()) != 4:
        raise ModelError(f"it pools {len(making.shape())} dimensions, not 4")
    masked = len(making.layer.tops) > 1
    if param.flag("global_pooling"):
        if masked:
            raise Refused("the mask of a global pooling")
        param.ignore("kernel_size", "kernel_h", "kernel_w", "stride", "stride_h", "stride_w", "pad", "pad_h", "pad_w")
        return [making.node("GlobalMaxPool" if method == "MAX" else "GlobalAveragePool", making.inputs)]
    # Some converters write ceil_mode instead of round_mode.
    ceil = param.choice("round_mode", _ROUNDING, "CEIL") == "CEIL" and param.flag("ceil_mode", True)
    kernel = sizes(param, "kernel", 2, 0, plain="kernel_size")
    strides, pads = sizes(param, "stride", 2, 1), sizes(param, "pad", 2, 0)
    return pool(making, method, kernel, strides, pads, ceil=ceil, masked=masked)


def pool(
    making: Making,
    method: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    *,
    ceil: bool = True,
    masked: bool = False,
) -> list[ir.Value]:
    """Pool the layer's bottom blob; with `masked` the places of the maxima are the second result.

    Along an axis of size n there are ceil((n + 2 pad - kernel) / stride) + 1 windows; where there is padding, none
    begins behind the picture and its first padding. An average divides by the part of the window that lies on the
    picture and its padding on both sides.
    """
    check_window(kernel, strides, pads)
    value = making.inputs[0]
    if any(pad >= size for pad, size in zip(pads, kernel, strict=True)):
        raise ModelError(f"its padding {list(pads)} is as large as its window {list(kernel)}")
    over = []
    for size, window, stride, pad in zip(making.shape()[2:], kernel, strides, pads, strict=True):
        room = size + 2 * pad - window
        if room < 0:
            raise ModelError(f"its window of {window} is larger than the picture of {size}")
        count = (-(-room // stride) if ceil else room // stride) + 1
        if any(pads) and (count - 1) * stride >= size + pad:
            count -= 1
        if (count - 1) * stride >= size + pad:
            raise Refused("a window that lies beside the picture", "set round_mode: FLOOR, or a smaller stride")
        over.append(max((count - 1) * stride + window - size - pad, 0))
    given = {"kernel_shape": list(kernel), "strides": list(strides)}
    if method == "MAX":
        return making.nodes("MaxPool", [value], 2 if masked else 1, pads=[*pads, *over], **given)
    if all(behind <= pad for behind, pad in zip(over, pads, strict=True)):
        return [making.node("AveragePool", [value], pads=[*pads, *over], count_include_pad=1, **given)]
    if any(pads):
        # What lies beyond the padding does not count: let the padding be picture.
        edges = making.constant([0, 0, *pads, 0, 0, *pads], "pads")
        value = making.node("Pad", [value, edges])
        over = [max(behind - pad, 0) for behind, pad in zip(over, pads, strict=True)]
    return [making.node("AveragePool", [value], pads=[0, 0, *over], count_include_pad=0, **given)]


@reads("ROIPooling", onnx=["MaxRoiPool"], bottoms=(2, 2))
def _region_pooling(making: Making) -> list[ir.Value]:
    """The maxima of each region, whose rows are [picture, x1, y1, x2, y2]."""
    param = making.param("roi_pooling_param")
    size = [param.integer(name) for name in ("pooled_h", "pooled_w")]
    if any(side < 1 for side in size) or len(making.shape()) != 4 or making.shape(1)[1:2] != (5,):
        raise ModelError(f"it pools {list(making.shape(1))} regions to the size {size}")
    regions = making.reshape(making.inputs[1], making.shape(1)[:2])
    scale = param.number("spatial_scale", 1.0)
    return [making.node("MaxRoiPool", [making.inputs[0], regions], pooled_shape=size, spatial_scale=scale)]


@reads("SPP", onnx=["AveragePool", "Concat", "Flatten", "MaxPool", "Pad"])
def _pyramid(making: Making) -> list[ir.Value]:
    """Spatial pyramid pooling: 1, 4, 16... windows over the whole picture, behind each other."""
    param = making.param("spp_param")
    method, height = param.choice("pool", _METHODS, "MAX"), param.integer("pyramid_height", 1)
    if method == "STOCHASTIC" or len(making.shape()) != 4 or not 1 <= height <= _HIGHEST_PYRAMID:
        raise Refused(f"{method} pooling of {len(making.shape())} dimensions in {height} levels")
    levels = []
    for level in range(height):
        bins = 1 << level
        kernel = [-(-size // bins) for size in making.shape()[2:]]
        pads = [(window * bins - size + 1) // 2 for window, size in zip(kernel, making.shape()[2:], strict=True)]
        levels.append(making.node("Flatten", pool(making, method, kernel, kernel, pads), axis=1))
    return [making.node("Concat", levels, axis=1) if len(levels) > 1 else levels[0]]
