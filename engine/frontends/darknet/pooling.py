"""Darknet's layers that make images smaller or larger: pools, reorganizations, upsampling."""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.darknet.cfg import Section
from engine.frontends.darknet.network import Network, section

_LARGEST_WINDOW = 1 << 14
"""Longer than any image is; what is longer is a slip or an attack."""


@section("maxpool", "max", becomes=("MaxPool",), variants={"maxpool_depth": ("Reshape", "ReduceMax")})
def maxpool(net: Network, at: Section) -> ir.Value:
    """The largest number of each window; points outside do not count."""
    net.refuse_options(at, "antialiasing", "maxpool_zero_nonmax")
    if at.whole("maxpool_depth"):
        return _maxpool_depth(net, at)
    return _pool(net, at, "MaxPool")


def _maxpool_depth(net: Network, at: Section) -> ir.Value:
    """The largest of the channels whose numbers have the same remainder."""
    image = net.image()
    batch, channels, height, width = net.size(image)
    count = at.positive("out_channels", 1)
    if channels % count:
        net.refuse(at, f"maxpool_depth of {channels} channels with out_channels={count}")
        return image
    shape = net.constant([batch, channels // count, count, height, width], at, "shape")
    split = net.node("Reshape", [image, shape], at, "split")
    return net.node("ReduceMax", [split, net.constant([1], at, "axes")], at, "max", keepdims=0)


@section("local_avgpool", "local_avg", becomes=("AveragePool",))
def local_average(net: Network, at: Section) -> ir.Value:
    """The mean of each window's points that lie inside."""
    return _pool(net, at, "AveragePool")


def _pool(net: Network, at: Section, op_type: str) -> ir.Value:
    """`padding` points are added in all, by default one less than the window has, half of them before."""
    image = net.image()
    lengths = net.size(image)[2:]
    stride = at.positive("stride", 1)
    strides = [at.positive("stride_y", stride), at.positive("stride_x", stride)]
    size = at.positive("size", stride)
    padding = at.whole("padding", size - 1)
    if padding < 0:
        raise ModelError(f"padding={padding}, which must be at least 0", where=at.where)
    before = padding // 2
    counts = [(length + padding - size) // step + 1 for length, step in zip(lengths, strides, strict=True)]
    if size > _LARGEST_WINDOW or min(length + padding - size for length in lengths) < 0:
        raise ModelError(f"its window of {size} does not fit {lengths[0]}x{lengths[1]}", where=at.where)
    # No more is added behind than the last window reaches.
    behind = [
        max((count - 1) * step + size - length - before, 0)
        for count, step, length in zip(counts, strides, lengths, strict=True)
    ]
    if max(before, *behind) >= size:
        net.refuse(at, f"a padding of {padding} for windows of {size}")
        return image
    return net.node(
        op_type,
        [image],
        at,
        "pool",
        kernel_shape=[size, size],
        strides=strides,
        pads=[before, before, *behind],
    )


@section("avgpool", "avg", becomes=("GlobalAveragePool",))
def average(net: Network, at: Section) -> ir.Value:
    """The mean of each channel."""
    return net.node("GlobalAveragePool", [net.image()], at, "pool")


@section("reorg", "reorg_old", becomes=("Reshape", "SpaceToDepth"), variants={"reverse": ("DepthToSpace",)})
def reorg(net: Network, at: Section) -> ir.Value:
    """Blocks of stride x stride points become channels, in the order of Darknet's first version: as if the image had
    a stride-th of its channels, and stride times the points each way."""
    net.refuse_options(at, "flatten", "extra")
    image = net.image()
    batch, channels, height, width = net.size(image)
    stride, blocks = _reorganized(net, at, image)
    if not blocks or stride == 1:
        return image
    if at.whole("reverse"):
        return net.node("DepthToSpace", [image], at, "space", blocksize=stride, mode="DCR")
    if channels % blocks:
        net.refuse(at, f"stride={stride} of {channels} channels")
        return image
    wide = net.constant([batch, channels // blocks, height * stride, width * stride], at, "wide_shape")
    deep = net.constant([batch, channels * blocks, height // stride, width // stride], at, "deep_shape")
    spread = net.node("Reshape", [image, wide], at, "wide")
    return net.node("Reshape", [net.node("SpaceToDepth", [spread], at, "depth", blocksize=stride), deep], at, "deep")


@section("reorg3d", becomes=("SpaceToDepth",), variants={"reverse": ("DepthToSpace",)})
def reorg3d(net: Network, at: Section) -> ir.Value:
    """Blocks of stride x stride points become channels."""
    image = net.image()
    stride, blocks = _reorganized(net, at, image)
    if not blocks or stride == 1:
        return image
    if at.whole("reverse"):
        return net.node("DepthToSpace", [image], at, "space", blocksize=stride, mode="DCR")
    return net.node("SpaceToDepth", [image], at, "depth", blocksize=stride)


def _reorganized(net: Network, at: Section, image: ir.Value) -> tuple[int, int]:
    """The stride and its square; the latter is 0 where the image does not split so."""
    _, channels, height, width = net.size(image)
    stride = at.positive("stride", 1)
    whole = channels % (stride * stride) == 0 if at.whole("reverse") else height % stride == 0 == width % stride
    if not whole:
        net.refuse(at, f"stride={stride} of {channels} channels of {height}x{width}")
        return stride, 0
    return stride, stride * stride


@section("upsample", becomes=("Resize",), variants={"scale": ("Resize", "Mul")})
def upsample(net: Network, at: Section) -> ir.Value:
    """Every point becomes stride x stride, times `scale`."""
    image, stride = net.image(), at.whole("stride", 2)
    if stride < 1:
        net.refuse(at, f"stride={stride}")
        return image
    scale = at.decimal("scale", 1.0)
    if stride > 1:
        scales = net.maker.constant([1.0, 1.0, float(stride), float(stride)], f"{at.name}.scales")  # type: ignore[list-item]
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        image = net.node("Resize", [image, None, scales], at, "resized", **modes)
    return image if scale == 1 else net.node("Mul", [image, net.constant(scale, at, "scale")], at, "scaled")
