"""Darknet's layers that join earlier ones or hand them on, softmax, and what does nothing but in training."""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.darknet.cfg import Section
from engine.frontends.darknet.network import Network, section


@section("route", becomes=("Concat",), variants={"groups": ("Slice", "Concat")})
def route(net: Network, at: Section) -> ir.Value:
    """Channels of several layers, of each the part `group_id` of `groups`."""
    groups, group = at.positive("groups", 1), at.whole("group_id")
    if not 0 <= group < groups:
        raise ModelError(f"group_id={group} of groups={groups}", where=at.where)
    parts: list[ir.Value | None] = []
    for number in at.wholes("layers"):
        value = net.as_image(net.layer(at, number))
        channels = net.size(value)[1]
        if channels % groups:
            net.refuse(at, f"groups={groups} of {channels} channels")
        elif groups > 1:
            value = _channels(net, at, value, group * channels // groups, (group + 1) * channels // groups)
        parts.append(value)
    if not parts:
        raise ModelError("names no layers", where=at.where)
    return parts[0] if len(parts) == 1 and parts[0] else net.node("Concat", parts, at, "joined", axis=1)


def _channels(net: Network, at: Section, value: ir.Value, first: int, end: int) -> ir.Value:
    bounds = [net.constant([number], at, what) for what, number in (("first", first), ("end", end), ("axis", 1))]
    return net.node("Slice", [value, *bounds], at, "channels")


@section("shortcut", becomes=("Add",), variants={"of unequal channels": ("Slice", "Pad", "Add")})
def shortcut(net: Network, at: Section) -> ir.Value:
    """The sum of the layer before and others; of those as many channels count as the layer before has."""
    if at.text("weights_type", "none") != "none":
        net.refuse(at, f"weights_type={at.text('weights_type')[:20]}")
    for key in ("alpha", "beta"):
        if at.decimal(key, 1.0) != 1:
            net.refuse(at, f"{key}={at.text(key)[:20]}")
    total = net.image()
    _, channels, height, width = net.size(total)
    for number in at.wholes("from"):
        other = net.as_image(net.layer(at, number))
        _, count, *lengths = net.size(other)
        if lengths != [height, width]:
            net.refuse(at, f"adds {lengths[0]}x{lengths[1]} to {height}x{width}")
            continue
        if count > channels:
            other = _channels(net, at, other, 0, channels)
        elif count < channels:
            pads = net.constant([0, 0, 0, 0, 0, channels - count, 0, 0], at, "pads")
            other = net.node("Pad", [other, pads], at, "padded")
        total = net.node("Add", [total, other], at, "sum")
    return net.activate(total, at, "linear")


@section("scale_channels", becomes=("Mul",))
def scale_channels(net: Network, at: Section) -> ir.Value:
    """An earlier layer times the one before: a number for each channel, or with `scale_wh` one for each point."""
    scale, image = net.image(), net.as_image(_only(net, at))
    _, channels, height, width = net.size(image)
    wanted = (1, height, width) if at.whole("scale_wh") else (channels, 1, 1)
    if net.size(scale)[1:] != wanted:
        found, wants = ("x".join(map(str, shape)) for shape in (net.size(scale)[1:], wanted))
        raise ModelError(f"the scale is {found}, and must be {wants}", where=at.where)
    return net.activate(net.node("Mul", [image, scale], at, "product"), at, "linear")


@section("sam", becomes=("Mul",))
def sam(net: Network, at: Section) -> ir.Value:
    """An earlier layer times the one before, number by number."""
    scale, image = net.image(), net.as_image(_only(net, at))
    if net.size(scale) != net.size(image):
        raise ModelError("multiplies layers of different sizes", where=at.where)
    return net.activate(net.node("Mul", [image, scale], at, "product"), at, "linear")


def _only(net: Network, at: Section) -> ir.Value:
    numbers = at.wholes("from")
    if len(numbers) != 1:
        raise ModelError("must read one layer", where=at.where)
    return net.layer(at, numbers[0])


@section("activation", becomes=())
def activation(net: Network, at: Section) -> ir.Value:
    """An activation of its own."""
    return net.activate(net.current, at, "linear")


@section("dropout", "cost", "empty", "silence", becomes=())
def nothing(net: Network, at: Section) -> ir.Value:
    """What only training needs."""
    return net.current


@section(
    "softmax",
    "soft",
    becomes=("Softmax",),
    variants={"groups": ("Reshape", "Softmax"), "temperature": ("Mul", "Softmax")},
)
def softmax(net: Network, at: Section) -> ir.Value:
    """Over all numbers of each group, or with `spatial` over the channels of each point."""
    if "tree" in at.options:
        net.refuse(at, "tree")
    value = net.current
    shape = net.maker.shape(value)
    temperature = at.decimal("temperature", 1.0)
    if at.decimal("spatial", 0.0):
        return net.node("Softmax", [value], at, "softmax", axis=1)
    if temperature <= 0:
        raise ModelError(f"temperature={temperature}, which must be above 0", where=at.where)
    if temperature != 1:
        value = net.node("Mul", [value, net.constant(1 / temperature, at, "sharpness")], at, "scaled")
    groups, count = at.positive("groups", 1), 1
    for length in shape[1:]:
        count *= length
    if count % groups:
        net.refuse(at, f"groups={groups} of {count} numbers")
        return value
    if groups == 1 and count == shape[1]:
        return net.node("Softmax", [value], at, "softmax", axis=1)
    split = net.node("Reshape", [value, net.constant([shape[0], groups, count // groups], at, "groups")], at, "split")
    shares = net.node("Softmax", [split], at, "shares", axis=2)
    return net.node("Reshape", [shares, net.constant(list(shape), at, "shape")], at, "softmax")
