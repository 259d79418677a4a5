"""Layers that multiply by matrices of weights: convolutions, inner products, embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, Refused, reads
from engine.frontends.caffe.prototxt import Message
from engine.frontends.caffe.weights import Wanted

_DEPTHWISE = ("ConvolutionDepthwise", "DepthwiseConvolution", "DepthwiseConv", "ConvolutionDepthWise")


@reads("Convolution", *_DEPTHWISE, onnx=["Conv"], bottoms=(1, None))
def _convolution(making: Making) -> list[ir.Value]:
    depthwise = making.layer.type in _DEPTHWISE
    return _convolve(making, "Conv", depthwise)


@reads("Deconvolution", onnx=["ConvTranspose"], bottoms=(1, None))
def _deconvolution(making: Making) -> list[ir.Value]:
    return _convolve(making, "ConvTranspose", depthwise=False)


def _convolve(making: Making, op_type: str, depthwise: bool) -> list[ir.Value]:
    """Both kinds; the weights of a deconvolution have input channels first, in ONNX too."""
    param = making.param("convolution_param")
    param.ignore("force_nd_im2col")
    channels, *spatial = making.shape()[1:] or [0]
    if making.axis(param.integer("axis", 1)) != 1 or not 1 <= len(spatial) <= 3:
        raise Refused(f"of {len(making.shape())} dimensions, from axis {param.integer('axis', 1)} on")
    kernel = sizes(param, "kernel", len(spatial), 0, plain="kernel_size")
    strides = sizes(param, "stride", len(spatial), 1)
    pads = sizes(param, "pad", len(spatial), 0)
    dilations = sizes(param, "dilation", len(spatial), 1)
    check_window(kernel, strides, pads, dilations)
    out = param.integer("num_output", channels if depthwise else 0)
    group = param.integer("group", channels if depthwise else 1)
    if depthwise and group == 1:
        group = channels
    if out < 1 or group < 1 or channels % group or out % group:
        raise ModelError(f"{channels} channels to {out} in {group} groups cannot be")
    first, second = (out, channels // group) if op_type == "Conv" else (channels, out // group)
    wanted = [Wanted((first, second, *kernel))]
    if param.flag("bias_term", True):
        wanted.append(Wanted((out,), "bias"))
    arrays = making.weights(*wanted)
    constants = [making.constant(array, name) for array, name in zip(arrays, ("weights", "bias"), strict=False)]
    results = []
    for index, value in enumerate(making.inputs):  # one set of weights for all bottoms
        if making.shape(index)[1] != channels:
            raise ModelError(f"its bottoms have {channels} and {making.shape(index)[1]} channels")
        results.append(
            making.node(
                op_type,
                [value, *constants],
                kernel_shape=kernel,
                strides=strides,
                pads=[*pads, *pads],
                dilations=dilations if any(d != 1 for d in dilations) else None,
                group=group,
            )
        )
    return results


def sizes(param: Message, name: str, rank: int, default: int, *, plain: str = "") -> list[int]:
    """What a layer says for each of its axes: by `name_h` and `name_w`, by one number for all, or by one for each."""
    both = [param.integer(f"{name}_{side}") if param.has(f"{name}_{side}") else None for side in "hw"]
    if rank == 2 and any(size is not None for size in both):
        return [default if size is None else size for size in both]
    given = param.integers(plain or name)
    if not given:
        given = [default]
    if len(given) == 1:
        given *= rank
    if len(given) != rank:
        raise ModelError(f"{plain or name} has {len(given)} numbers for {rank} axes")
    return given


def check_window(
    kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int] = ()
) -> None:
    """Raise ModelError for a window that cannot slide."""
    if any(size < 1 for size in (*kernel, *strides, *dilations)) or any(pad < 0 for pad in pads):
        raise ModelError(f"its window has the sizes {list(kernel)}, strides {list(strides)}, padding {list(pads)}")


@reads("InnerProduct", onnx=["Flatten", "Gemm", "Reshape"])
def _inner_product(making: Making) -> list[ir.Value]:
    param = making.param("inner_product_param")
    axis = making.axis(param.integer("axis", 1))
    shape = making.shape()
    length, out = math.prod(shape[axis:]), param.integer("num_output")
    turned = param.flag("transpose")
    wanted = [Wanted((length, out) if turned else (out, length))]
    if param.flag("bias_term", True):
        wanted.append(Wanted((out,), "bias"))
    weights, *bias = making.weights(*wanted)
    rows = making.inputs[0]
    if axis != 1 or len(shape) != 2:
        rows = making.node("Flatten", [rows], axis=axis)
    constants = [making.constant(weights.T if turned else weights, "weights")]
    constants += [making.constant(array, "bias") for array in bias]
    result = making.node("Gemm", [rows, *constants], transB=1)
    return [making.reshape(result, [*shape[:axis], out])]


@reads("Embed", onnx=["Cast", "Gather", "Add"])
def _embed(making: Making) -> list[ir.Value]:
    """Rows of a table; Caffe keeps their numbers in floats."""
    param = making.param("embed_param")
    rows, length = param.integer("input_dim"), param.integer("num_output")
    wanted = [Wanted((rows, length))]
    if param.flag("bias_term", True):
        wanted.append(Wanted((length,), "bias"))
    table, *bias = making.weights(*wanted)
    index = making.node("Cast", making.inputs, to=int(ir.DataType.INT64))
    result = making.node("Gather", [making.constant(table, "weights"), index], axis=0)
    for array in bias:
        result = making.node("Add", [result, making.constant(array.astype(np.float32), "bias")])
    return [result]
