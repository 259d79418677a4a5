"""Convolutions, pooling and normalization, in both data formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends import nhwc
from engine.frontends.nhwc import Padding, Tensor
from engine.frontends.nhwc.tensors import Place
from engine.frontends.tensorflow.elementwise import identity
from engine.frontends.tensorflow.values import Call, Refused, Value, operator

_MOST_PATCHED = 2048


def channels_first(call: Call) -> bool:
    """Whether the node reads and makes tensors with the channels second."""
    found = call.node.text("data_format", "NHWC") or "NHWC"
    if found not in ("NHWC", "NCHW", "NDHWC", "NCDHW", "NWC", "NCW"):
        raise Refused(f"data format {found}")
    return found.startswith("NC")


def in_last(call: Call, x: Tensor, act: Callable[[Tensor, Place], Tensor]) -> Tensor:
    """What `act`, which knows channels last only, makes of `x` in the node's data format."""
    if not channels_first(call):
        return act(x, call.place)
    # With the channels last it would be the tensor whose other order `x` is.
    turned = Tensor(x.place, first=x.plain(), grid=None) if x.rank > 2 else x
    made = act(turned, call.place)
    return Tensor.of(made.first(), call.place) if made.rank > 2 else made


def spatial(call: Call, values: Sequence[int], what: str) -> list[int]:
    """Of a list for every axis what is said of the spatial axes. Raises Refused where the others are not left alone."""
    first = channels_first(call)
    outer = [values[0], values[1] if first else values[-1]] if len(values) > 2 else []
    if len(values) < 3 or any(value != 1 for value in outer):
        raise Refused(f"{what} {list(values)}")
    found = [int(value) for value in (values[2:] if first else values[1:-1])]
    if any(value < 1 for value in found):
        raise Refused(f"{what} {list(values)}")
    return found


def padding_of(call: Call, axes: int) -> Padding:
    """What the attributes `padding` and `explicit_paddings` say of the spatial axes."""
    padding = call.node.text("padding", "VALID")
    if padding != "EXPLICIT":
        if padding not in ("SAME", "VALID"):
            raise Refused(f"padding {padding!r}")
        return padding
    flat = call.node.integers("explicit_paddings")
    pairs = list(zip(flat[::2], flat[1::2], strict=False))
    if len(pairs) != axes + 2:
        raise Refused(f"explicit padding {flat}")
    return pairs[2:] if channels_first(call) else pairs[1:-1]


@operator("Conv2D", "Conv3D", becomes="Conv")
def _convolution(call: Call) -> Value:
    axes = 2 if call.node.op == "Conv2D" else 3
    one = [1] * (axes + 2)
    strides = spatial(call, call.node.integers("strides", one), "strides")
    dilations = spatial(call, call.node.integers("dilations", one) or one, "dilations")
    padding, order = padding_of(call, axes), "HWIO" if axes == 2 else "DHWIO"
    x, weights = call.tensor(0), call.tensor(1)
    return in_last(
        call,
        x,
        lambda x, place: nhwc.convolution(
            x, weights, None, place, strides=strides, dilations=dilations, padding=padding, order=order
        ),
    )


@operator("DepthwiseConv2dNative", "DepthwiseConv2d", becomes="Conv")
def _depthwise(call: Call) -> Value:
    strides = spatial(call, call.node.integers("strides", [1] * 4), "strides")
    dilations = spatial(call, call.node.integers("dilations") or [1] * 4, "dilations")
    padding, weights = padding_of(call, 2), call.tensor(1)
    return in_last(
        call,
        call.tensor(0),
        lambda x, place: nhwc.depthwise(x, weights, None, place, strides=strides, dilations=dilations, padding=padding),
    )


@operator("Conv2DBackpropInput", becomes="ConvTranspose")
def _transposed(call: Call) -> Value:
    sizes, weights = call.integers(0), call.tensor(1)
    strides = spatial(call, call.node.integers("strides", [1] * 4), "strides")
    dilations = spatial(call, call.node.integers("dilations") or [1] * 4, "dilations")
    padding = padding_of(call, 2)
    if len(sizes) == 4:
        sizes = sizes[2:] if channels_first(call) else sizes[1:3]
    if len(sizes) != 2:
        raise call.error(f"makes the size {sizes}")
    return in_last(
        call,
        call.tensor(2),
        lambda x, place: nhwc.transpose_convolution(
            x, weights, None, place, output_size=sizes, strides=strides, dilations=dilations, padding=padding
        ),
    )


@operator("BiasAdd", "BiasAddV1", becomes="Add")
def _bias(call: Call) -> Value:
    bias = call.tensor(1)
    return in_last(call, call.tensor(0), lambda x, place: nhwc.binary(x, bias, place, "Add"))


_POOLS = {
    "MaxPool": "max",
    "MaxPoolV2": "max",
    "MaxPool3D": "max",
    "MaxPoolWithArgmax": "max",
    "AvgPool": "average",
    "AvgPool3D": "average",
}


@operator("MaxPool", "MaxPoolV2", "MaxPool3D", "MaxPoolWithArgmax", becomes="MaxPool")
def _max_pool(call: Call) -> Value:
    return _pool(call)


@operator("AvgPool", "AvgPool3D", becomes="AveragePool")
def _average_pool(call: Call) -> Value:
    return _pool(call)


def _pool(call: Call) -> Value:
    node, x = call.node, call.tensor(0)
    given = (call.integers(1), call.integers(2)) if node.op == "MaxPoolV2" else None
    kernel, strides = given or (node.integers("ksize"), node.integers("strides"))
    windows, steps = spatial(call, kernel, "window"), spatial(call, strides, "strides")
    padding = padding_of(call, len(windows))
    if x.rank != len(windows) + 2:
        raise call.error(f"pools {list(x.shape)} in windows of {windows}")
    kind = _POOLS[node.op]
    return in_last(call, x, lambda x, place: nhwc.pool(x, place, kind, kernel=windows, strides=steps, padding=padding))


@operator(
    "FusedBatchNorm",
    "FusedBatchNormV2",
    "FusedBatchNormV3",
    becomes=("Add", "BatchNormalization", "Div", "Mul", "ReduceMean", "Sqrt", "Sub"),
)
def _batch_normalization(call: Call) -> Value:
    scale, offset, mean, variance = (call.tensor(index) for index in range(1, 5))
    epsilon = call.node.number("epsilon", 0.0001)

    def act(x: Tensor, place: Place) -> Tensor:
        if not call.node.flag("is_training", True):
            return nhwc.batch_normalization(x, scale, offset, mean, variance, place, epsilon=epsilon)
        # A graph frozen as it is trained normalizes by what the batch at hand has.
        axes = list(range(x.rank - 1))
        average = nhwc.reduce(x, place.within("mean"), "mean", axes=axes, keep_axes=True)
        centred = nhwc.binary(x, average, place.within("centred"), "Sub")
        squares = nhwc.binary(centred, centred, place.within("squares"), "Mul")
        spread = nhwc.reduce(squares, place.within("variance"), "mean", axes=axes, keep_axes=True)
        bounded = nhwc.binary(spread, _number(place, epsilon), place.within("bounded"), "Add")
        root = nhwc.unary(bounded, place.within("root"), "Sqrt")
        unit = nhwc.binary(centred, root, place.within("unit"), "Div")
        return nhwc.binary(nhwc.binary(unit, scale, place.within("scaled"), "Mul"), offset, place, "Add")

    return in_last(call, call.tensor(0), act)


def _number(place: Place, value: float) -> Tensor:
    return Tensor.constant(np.array(value, np.float32), place.within("epsilon"))


@operator("BatchNormWithGlobalNormalization", becomes="BatchNormalization")
def _global_normalization(call: Call) -> Value:
    x, mean, variance, offset, scale = (call.tensor(index) for index in range(5))
    if not call.node.flag("scale_after_normalization"):
        scale = Tensor.constant(np.ones(scale.shape, np.float32), call.place.within("scale"))
    epsilon = call.node.number("variance_epsilon")
    return nhwc.batch_normalization(x, scale, offset, mean, variance, call.place, epsilon=epsilon)


@operator("LRN", becomes="LRN")
def _local_response(call: Call) -> Value:
    node = call.node
    return nhwc.local_response_normalization(
        call.tensor(0),
        call.place,
        radius=node.integer("depth_radius", 5),
        bias=node.number("bias", 1.0),
        alpha=node.number("alpha", 1.0),
        beta=node.number("beta", 0.5),
    )


@operator("DepthToSpace", becomes="DepthToSpace")
def _depth_to_space(call: Call) -> Value:
    block = call.node.integer("block_size")
    return in_last(call, call.tensor(0), lambda x, place: nhwc.depth_to_space(x, place, block=block))


@operator("SpaceToDepth", becomes="SpaceToDepth")
def _space_to_depth(call: Call) -> Value:
    block = call.node.integer("block_size")
    return in_last(call, call.tensor(0), lambda x, place: nhwc.space_to_depth(x, place, block=block))


@operator("SpaceToBatchND", "SpaceToBatch", becomes=("Pad", "Reshape", "Transpose"))
def _space_to_batch(call: Call) -> Value:
    if call.node.op == "SpaceToBatch":
        block, pads = [call.node.integer("block_size")] * 2, call.pairs(1)
    else:
        block, pads = call.integers(1), call.pairs(2)
    return nhwc.space_to_batch(call.tensor(0), call.place, block=block, pads=pads)


@operator("BatchToSpaceND", "BatchToSpace", becomes=("Reshape", "Slice", "Transpose"))
def _batch_to_space(call: Call) -> Value:
    if call.node.op == "BatchToSpace":
        block, crops = [call.node.integer("block_size")] * 2, call.pairs(1)
    else:
        block, crops = call.integers(1), call.pairs(2)
    return nhwc.batch_to_space(call.tensor(0), call.place, block=block, crops=crops)


@operator("ResizeBilinear", "ResizeNearestNeighbor", becomes=("Cast", "Gather", "Resize"))
def _resize(call: Call) -> Value:
    x, size = call.tensor(0), call.integers(1)
    if call.node.op == "ResizeBilinear" and x.dtype != ir.DataType.FLOAT:
        x = nhwc.cast(x, call.place.within("real"), ir.DataType.FLOAT)
    if x.rank == 4 and list(x.shape[1:3]) == size:
        return identity(x, call.place)
    return nhwc.resize(
        x,
        call.place,
        size=size,
        kind="linear" if call.node.op == "ResizeBilinear" else "nearest",
        align_corners=call.node.flag("align_corners"),
        half_pixel_centers=call.node.flag("half_pixel_centers"),
    )


@operator("ResizeBicubic", becomes=("Cast", "Resize"))
def _resize_cubic(call: Call) -> Value:
    x, size, half = call.tensor(0), call.integers(1), call.node.flag("half_pixel_centers")
    if x.rank != 4 or len(size) != 2 or min(size) < 1:
        raise call.error(f"resizes {list(x.shape)} to {size}")
    if x.dtype != ir.DataType.FLOAT:
        x = nhwc.cast(x, call.place.within("real"), ir.DataType.FLOAT)
    mode = "half_pixel" if half else "align_corners" if call.node.flag("align_corners") else "asymmetric"
    sizes = call.place.constant(np.array([x.shape[0], x.shape[3], *size], np.int64), "size")
    # Keys' kernel: newer layers use a = -0.5 and leave out what lies outside, older ones -0.75 and repeat the edge.
    result = call.place.node(
        "Resize",
        [x.first(), None, None, sizes],
        mode="cubic",
        coordinate_transformation_mode=mode,
        cubic_coeff_a=-0.5 if half else -0.75,
        exclude_outside=int(half),
    )
    return Tensor.of_first(result, call.place)


@operator("ExtractImagePatches", becomes=("Conv", "SpaceToDepth"))
def _patches(call: Call) -> Value:
    x, node = call.tensor(0), call.node
    kernel = spatial(call, node.integers("ksizes"), "window")
    strides = spatial(call, node.integers("strides"), "strides")
    rates = spatial(call, node.integers("rates", [1] * 4), "rates")
    if x.rank != 4 or x.dtype != ir.DataType.FLOAT:
        raise Refused(f"of {list(x.shape)}")
    whole = all(n % k == 0 for n, k in zip(x.shape[1:3], kernel, strict=True))
    if kernel == strides and kernel[0] == kernel[1] and rates == [1, 1] and whole:
        return nhwc.space_to_depth(x, call.place, block=kernel[0])
    channels = kernel[0] * kernel[1] * x.shape[3]
    if channels > _MOST_PATCHED:
        raise Refused(f"of {channels} elements each")
    # A convolution whose every output channel copies one element of the window.
    weights = np.eye(channels, dtype=np.float32).reshape(kernel[0], kernel[1], x.shape[3], channels)
    return nhwc.convolution(
        x,
        Tensor.constant(weights, call.place.within("weights")),
        None,
        call.place,
        strides=strides,
        dilations=rates,
        padding=padding_of(call, 2),
    )
