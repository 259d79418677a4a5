"""Darknet's layers with weights: convolutions, connected layers and batch normalization."""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.darknet.cfg import Section
from engine.frontends.darknet.network import Network, section

_CHANGED_KERNELS = ("sway", "rotate", "stretch", "stretch_sway", "antialiasing", "coordconv")
_BINARY = ("binary", "xnor", "bin_output")
_FLOAT_HINT = "train it with float weights"


@section("convolutional", "conv", becomes=("Conv", "BatchNormalization"))
def convolutional(net: Network, at: Section) -> ir.Value:
    """Biases, then scales, means and variances where normalized, then weights [filters, channels / groups, size, size];
    `pad=1` means half a kernel."""
    image = net.image()
    channels = net.size(image)[1]
    filters, groups = at.positive("filters", 1), at.positive("groups", 1)
    if channels % groups or filters % groups:
        what = f"{channels} channels and {filters} filters do not split into groups={groups}"
        raise ModelError(what, where=at.where)
    return _convolution(net, at, image, filters, groups)


@section("depthwise_convolutional", becomes=("Conv", "BatchNormalization"))
def depthwise(net: Network, at: Section) -> ir.Value:
    """A filter a channel."""
    image = net.image()
    channels = net.size(image)[1]
    return _convolution(net, at, image, channels, channels)


def _convolution(net: Network, at: Section, image: ir.Value, filters: int, groups: int) -> ir.Value:
    for key in _BINARY:
        if at.whole(key):
            net.refuse(at, f"{key}={at.text(key)[:20]}", _FLOAT_HINT)
    net.refuse_options(at, *_CHANGED_KERNELS)
    if "share_index" in at.options:
        net.refuse(at, "share_index")
    _refuse_unloaded(net, at)
    _, channels, height, width = net.size(image)
    size, padding = at.positive("size", 1), _padding(at)
    strides = _strides(at)
    # Darknet pads by the padding times the dilation, and finds the size of the output without it.
    dilation = at.positive("dilation", 1) if size > 1 else 1
    plain = [
        (length + 2 * padding - size) // stride + 1 for length, stride in zip((height, width), strides, strict=True)
    ]
    reach = dilation * (size - 1) + 1
    spread = [
        (length + 2 * padding * dilation - reach) // stride + 1
        for length, stride in zip((height, width), strides, strict=True)
    ]
    if min(plain) < 1:
        raise ModelError(f"its kernel of {size} does not fit {height}x{width}", where=at.where)
    if plain != spread:
        net.refuse(at, f"dilation={dilation} with size={size} and a padding of {padding}")
        return image
    inside = channels // groups
    bias = net.weights.take((filters,), at.name, "biases")
    normalized = bool(at.whole("batch_normalize") or at.whole("cbn"))
    if normalized:
        numbers = [net.weights.take((filters,), at.name, what) for what in ("scales", "means", "variances")]
    kernel = net.weights.take((filters, inside, size, size), at.name, "weights")
    if at.whole("flipped"):
        kernel = kernel.reshape(inside * size * size, filters).T.reshape(kernel.shape)
    inputs: list[ir.Value | None] = [image, net.constant(kernel, at, "weights")]
    if not normalized:
        inputs.append(net.constant(bias, at, "biases"))
    made = net.node(
        "Conv",
        inputs,
        at,
        "convolution",
        kernel_shape=[size, size],
        strides=strides,
        pads=[padding * dilation] * 4,
        dilations=[dilation, dilation],
        group=groups,
    )
    if normalized:
        made = net.normalize(made, at, bias, *numbers)
    return net.activate(made, at, "logistic")


@section("deconvolutional", becomes=("ConvTranspose", "BatchNormalization"))
def deconvolutional(net: Network, at: Section) -> ir.Value:
    """Like a convolution, with weights [channels, filters, size, size]; the output has
    (length - 1) * stride + size - 2 * padding points."""
    _refuse_unloaded(net, at)
    net.refuse_options(at, "groups", "dilation", besides=1)
    image = net.image()
    channels = net.size(image)[1]
    filters, size, padding = at.positive("filters", 1), at.positive("size", 1), _padding(at)
    stride = at.positive("stride", 1)
    bias = net.weights.take((filters,), at.name, "biases")
    normalized = bool(at.whole("batch_normalize"))
    if normalized:
        numbers = [net.weights.take((filters,), at.name, what) for what in ("scales", "means", "variances")]
    inputs: list[ir.Value | None] = [image, net.weight((channels, filters, size, size), at, "weights")]
    if not normalized:
        inputs.append(net.constant(bias, at, "biases"))
    made = net.node(
        "ConvTranspose",
        inputs,
        at,
        "convolution",
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[padding] * 4,
    )
    if normalized:
        made = net.normalize(made, at, bias, *numbers)
    return net.activate(made, at, "logistic")


@section("connected", "conn", becomes=("Flatten", "Gemm", "BatchNormalization"))
def connected(net: Network, at: Section) -> ir.Value:
    """Biases, then weights [outputs, inputs], then scales, means and variances where normalized."""
    _refuse_unloaded(net, at)
    value, count = net.current, at.positive("output", 1)
    if len(net.maker.shape(value)) != 2:
        value = net.node("Flatten", [value], at, "flat")
    inputs = net.maker.shape(value)[1]
    bias = net.weights.take((count,), at.name, "biases")
    shape = (inputs, count) if net.weights.transposed else (count, inputs)
    matrix = net.weight(shape, at, "weights")
    normalized = bool(at.whole("batch_normalize"))
    operands: list[ir.Value | None] = [value, matrix]
    if not normalized:
        operands.append(net.constant(bias, at, "biases"))
    made = net.node("Gemm", operands, at, "product", transB=int(not net.weights.transposed))
    if normalized:
        numbers = [net.weights.take((count,), at.name, what) for what in ("scales", "means", "variances")]
        made = net.normalize(made, at, bias, *numbers)
    return net.activate(made, at, "logistic")


@section("batchnorm", becomes=("BatchNormalization",))
def batchnorm(net: Network, at: Section) -> ir.Value:
    """Biases, scales, means and variances, one for each channel."""
    _refuse_unloaded(net, at)
    image = net.image()
    count = (net.size(image)[1],)
    bias, *numbers = (net.weights.take(count, at.name, what) for what in ("biases", "scales", "means", "variances"))
    return net.normalize(image, at, bias, *numbers)


def _refuse_unloaded(net: Network, at: Section) -> None:
    for key in ("dontload", "dontloadscales"):
        if at.whole(key):
            net.refuse(at, key, "train it and save its weights")


def _padding(at: Section) -> int:
    if at.whole("pad"):
        return at.positive("size", 1) // 2
    padding = at.whole("padding")
    if padding < 0:
        raise ModelError(f"padding={padding}, which must be at least 0", where=at.where)
    return padding


def _strides(at: Section) -> list[int]:
    """For height and width; those that are not given are `stride`."""
    stride = at.positive("stride", 1)
    given = (at.whole("stride_y", -1), at.whole("stride_x", -1))
    return [one if one >= 1 else stride for one in given]
