"""Reads TFLite's operators that slide windows, multiply matrices, normalize and resize."""

from __future__ import annotations

import struct

from engine.frontends import nhwc
from engine.frontends.nhwc import Padding
from engine.frontends.tflite.conversion import Op, Refusal, operator

_PADDINGS = {0: "SAME", 1: "VALID"}


def _padding(op: Op) -> Padding:
    padding = _PADDINGS.get(op.options.padding)
    if padding is None:
        raise Refusal(f"its padding has the number {op.options.padding}")
    return padding


@operator("CONV_2D", "Conv", "Conv2DOptions")
def _convolution(op: Op) -> None:
    o, x, weights = op.options, op.input(0), op.input(1)
    bias = op.bias(2, x, weights)
    op.make(
        lambda place: nhwc.convolution(
            x,
            weights,
            bias,
            place,
            strides=(o.stride_h, o.stride_w),
            dilations=(o.dilation_h, o.dilation_w),
            padding=_padding(op),
            order="OHWI",
        ),
        o.activation,
    )


@operator("DEPTHWISE_CONV_2D", "Conv", "DepthwiseConv2DOptions")
def _depthwise(op: Op) -> None:
    o, x, weights = op.options, op.input(0), op.input(1)
    bias = op.bias(2, x, weights)
    op.make(
        lambda place: nhwc.depthwise(
            x,
            weights,
            bias,
            place,
            strides=(o.stride_h, o.stride_w),
            dilations=(o.dilation_h, o.dilation_w),
            padding=_padding(op),
            order="1HWC",
        ),
        o.activation,
    )


@operator("CONV_3D", "Conv", "Conv3DOptions")
def _convolution_3d(op: Op) -> None:
    o, x, weights = op.options, op.input(0), op.input(1)
    bias = op.bias(2, x, weights)
    op.make(
        lambda place: nhwc.convolution(
            x,
            weights,
            bias,
            place,
            strides=(o.stride_d, o.stride_h, o.stride_w),
            dilations=(o.dilation_d, o.dilation_h, o.dilation_w),
            padding=_padding(op),
            order="DHWIO",
        ),
        o.activation,
    )


@operator("TRANSPOSE_CONV", "ConvTranspose", "TransposeConvOptions")
def _transpose_convolution(op: Op) -> None:
    o, shape, weights, x = op.options, op.numbers(0), op.input(1), op.input(2)
    bias = op.bias(3, x, weights)
    if len(shape) != 4:
        raise op.error(f"makes the shape {shape}")
    op.make(
        lambda place: nhwc.transpose_convolution(
            x,
            weights,
            bias,
            place,
            output_size=shape[1:3],
            strides=(o.stride_h, o.stride_w),
            padding=_padding(op),
            order="OHWI",
        ),
        o.activation,
    )


@operator("Convolution2DTransposeBias", "ConvTranspose")
def _transpose_convolution_of_mediapipe(op: Op) -> None:
    """A custom operator of MediaPipe's models; its options are the padding (1 SAME, 2 VALID) and the strides."""
    x, weights = op.input(0), op.input(1)
    raw = bytes(op.info.table.custom_options)
    if len(raw) < 12 or x.rank != 4 or weights.rank != 4:
        raise op.error("has options that do not fit")
    padding, stride_w, stride_h = struct.unpack_from("<3i", raw)
    if padding not in (1, 2) or min(stride_h, stride_w) < 1:
        raise op.error(f"has the padding {padding} and the strides {stride_h}, {stride_w}")
    strides = (stride_h, stride_w)
    sizes = [n * s for n, s in zip(x.shape[1:3], strides, strict=True)]
    if padding == 2:
        sizes = [(n - 1) * s + k for n, s, k in zip(x.shape[1:3], strides, weights.shape[1:3], strict=True)]
    op.set(
        nhwc.transpose_convolution(
            x,
            weights,
            op.bias(2, x, weights),
            op.place(),
            output_size=sizes,
            strides=strides,
            padding="SAME" if padding == 1 else "VALID",
            order="OHWI",
        )
    )


@operator("FULLY_CONNECTED", "Gemm Reshape", "FullyConnectedOptions")
def _fully_connected(op: Op) -> None:
    o, x, weights = op.options, op.input(0), op.input(1)
    if o.weights_format:
        raise Refusal("its weights are shuffled")
    bias = op.bias(2, x, weights)
    op.make(lambda place: nhwc.fully_connected(x, weights, bias, place, keep_axes=o.keep_num_dims), o.activation)


@operator("BATCH_MATMUL", "MatMul", "BatchMatMulOptions")
def _matmul(op: Op) -> None:
    o = op.options
    op.set(nhwc.matmul(op.input(0), op.input(1), op.place(), transpose_a=o.adj_x, transpose_b=o.adj_y))


@operator("MAX_POOL_2D", "MaxPool", "Pool2DOptions")
def _max_pool(op: Op) -> None:
    _pool(op, "max")


@operator("AVERAGE_POOL_2D", "AveragePool", "Pool2DOptions")
def _average_pool(op: Op) -> None:
    _pool(op, "average")


@operator("L2_POOL_2D", "AveragePool Mul Sqrt", "Pool2DOptions")
def _l2_pool(op: Op) -> None:
    _pool(op, "l2")


def _pool(op: Op, kind: str) -> None:
    o, x = op.options, op.input(0)
    kernel, strides = (o.filter_height, o.filter_width), (o.stride_h, o.stride_w)
    op.make(lambda place: nhwc.pool(x, place, kind, kernel=kernel, strides=strides, padding=_padding(op)), o.activation)


@operator(
    "LOCAL_RESPONSE_NORMALIZATION", "Add AveragePool Div LRN Mul Pow Reshape", "LocalResponseNormalizationOptions"
)
def _lrn(op: Op) -> None:
    o = op.options
    op.set(
        nhwc.local_response_normalization(
            op.input(0), op.place(), radius=o.radius, bias=o.bias, alpha=o.alpha, beta=o.beta, open_end=True
        )
    )


@operator("L2_NORMALIZATION", "Div Max ReduceL2", "L2NormOptions")
def _l2_normalization(op: Op) -> None:
    op.make(lambda place: nhwc.l2_normalization(op.input(0), place), op.options.activation)


@operator("RESIZE_BILINEAR", "Resize", "ResizeBilinearOptions")
def _resize_bilinear(op: Op) -> None:
    _resize(op, "linear")


@operator("RESIZE_NEAREST_NEIGHBOR", "Resize Gather", "ResizeNearestNeighborOptions")
def _resize_nearest(op: Op) -> None:
    _resize(op, "nearest")


def _resize(op: Op, kind: str) -> None:
    o = op.options
    op.set(
        nhwc.resize(
            op.input(0),
            op.place(),
            size=op.numbers(1),
            kind=kind,
            align_corners=o.align_corners,
            half_pixel_centers=o.half_pixel_centers,
        )
    )


@operator("DEPTH_TO_SPACE", "DepthToSpace", "DepthToSpaceOptions")
def _depth_to_space(op: Op) -> None:
    op.set(nhwc.depth_to_space(op.input(0), op.place(), block=op.options.block_size))


@operator("SPACE_TO_DEPTH", "SpaceToDepth", "SpaceToDepthOptions")
def _space_to_depth(op: Op) -> None:
    op.set(nhwc.space_to_depth(op.input(0), op.place(), block=op.options.block_size))


def _pairs(op: Op, index: int) -> list[tuple[int, int]]:
    flat = op.numbers(index)
    if len(flat) % 2:
        raise op.error(f"reads {len(flat)} numbers where pairs are due")
    return list(zip(flat[::2], flat[1::2], strict=True))


@operator("SPACE_TO_BATCH_ND", "Pad Reshape Transpose")
def _space_to_batch(op: Op) -> None:
    op.set(nhwc.space_to_batch(op.input(0), op.place(), block=op.numbers(1), pads=_pairs(op, 2)))


@operator("BATCH_TO_SPACE_ND", "Reshape Slice Transpose")
def _batch_to_space(op: Op) -> None:
    op.set(nhwc.batch_to_space(op.input(0), op.place(), block=op.numbers(1), crops=_pairs(op, 2)))
