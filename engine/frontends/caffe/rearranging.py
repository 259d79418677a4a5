"""Layers that move numbers without computing any: joins, cuts, permutations, other shapes."""

from __future__ import annotations

import itertools
import math

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, reads


@reads("Concat", onnx=["Concat", "Identity"], bottoms=(1, None))
def _concat(making: Making) -> list[ir.Value]:
    param = making.param("concat_param")
    axis = making.axis(param.integer("concat_dim" if param.has("concat_dim") else "axis", 1))
    if len(making.inputs) == 1:
        return [making.node("Identity", making.inputs)]
    return [making.node("Concat", making.inputs, axis=axis)]


@reads("Slice", onnx=["Identity", "Split"])
def _slice(making: Making) -> list[ir.Value]:
    param = making.param("slice_param")
    axis = making.axis(param.integer("slice_dim" if param.has("slice_dim") else "axis", 1))
    size, count = making.shape()[axis], len(making.layer.tops)
    points = param.integers("slice_point")
    if not points:
        if size % count:
            raise ModelError(f"{size} cannot be cut into {count} equal parts")
        points = [size // count * (index + 1) for index in range(count - 1)]
    edges = [0, *points, size]
    if len(edges) != count + 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ModelError(f"{size} cannot be cut at {points[:8]} for {count} parts")
    if count == 1:
        return [making.node("Identity", making.inputs)]
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    return making.nodes("Split", [*making.inputs, making.constant(sizes, "sizes")], count, axis=axis)


@reads("Split", onnx=["Identity"])
def _split(making: Making) -> list[ir.Value]:
    """The same blob under several names."""
    return [making.node("Identity", making.inputs) for _ in making.layer.tops]


@reads("Permute", onnx=["Transpose"])
def _permute(making: Making) -> list[ir.Value]:
    order = making.param("permute_param").integers("order")
    rank = len(making.shape())
    if len(set(order)) < len(order) or any(not 0 <= axis < rank for axis in order):
        raise ModelError(f"the order {order[:8]} is none of {rank} axes")
    order += [axis for axis in range(rank) if axis not in order]
    return [making.node("Transpose", making.inputs, perm=order)]


@reads("Flatten", onnx=["Identity", "Reshape"])
def _flatten(making: Making) -> list[ir.Value]:
    param = making.param("flatten_param")
    first, last = making.axis(param.integer("axis", 1)), making.axis(param.integer("end_axis", -1))
    shape = making.shape()
    if last < first:
        raise ModelError(f"it ends at axis {last}, before axis {first}")
    return [_shaped(making, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])]


@reads("Reshape", onnx=["Identity", "Reshape"])
def _reshape(making: Making) -> list[ir.Value]:
    """0 keeps the size of the axis at its place, -1 takes what remains; axes outside the span stay."""
    param = making.param("reshape_param")
    shape = making.shape()
    dims = param.message("shape").integers("dim")
    first = making.axis(param.integer("axis"), end=True)
    count = param.integer("num_axes", -1)
    last = len(shape) if count == -1 else first + count
    if count < -1 or last > len(shape):
        raise ModelError(f"it spans {count} axes from {first} of a blob with {len(shape)}")
    span = shape[first:last]
    if (
        any(dim < -1 for dim in dims)
        or dims.count(-1) > 1
        or any(d == 0 and i >= len(span) for i, d in enumerate(dims))
    ):
        raise ModelError(f"the shape {dims[:8]} cannot be that of {list(span)}")
    dims = [span[index] if dim == 0 else dim for index, dim in enumerate(dims)]
    known, size = math.prod(dim for dim in dims if dim != -1), math.prod(span)
    if size % known or (-1 not in dims and known != size):
        raise ModelError(f"{list(span)} cannot become {dims[:8]}")
    dims = [size // known if dim == -1 else dim for dim in dims]
    return [_shaped(making, [*shape[:first], *dims, *shape[last:]])]


def _shaped(making: Making, shape: list[int]) -> ir.Value:
    value = making.reshape(making.inputs[0], shape)
    return making.node("Identity", [value]) if value is making.inputs[0] else value


@reads("Crop", onnx=["Slice"], bottoms=(2, 2))
def _crop(making: Making) -> list[ir.Value]:
    """As large as the second blob from `axis` on, from an offset on."""
    param = making.param("crop_param")
    first = making.axis(param.integer("axis", 2))
    given = param.integers("offset") or [0]
    shape, wanted = making.shape(), making.shape(1)
    if not making.layer.message.has("crop_param"):
        making.warn("it has no crop_param and is cut at offset 0, as Caffe does; forks for FCN and HED find an offset")
    axes = list(range(first, len(shape)))
    offsets = given * len(axes) if len(given) == 1 else given
    if len(offsets) != len(axes) or len(wanted) != len(shape):
        raise ModelError(
            f"it crops {len(axes)} axes with {len(offsets)} offsets to the size of {len(wanted)} dimensions"
        )
    ends = [offset + wanted[axis] for axis, offset in zip(axes, offsets, strict=True)]
    if any(offset < 0 for offset in offsets) or any(end > shape[axis] for axis, end in zip(axes, ends, strict=True)):
        raise ModelError(f"a crop of {list(wanted)} at {offsets} does not lie in {list(shape)}")
    places = [making.constant(numbers, name) for numbers, name in ((offsets, "from"), (ends, "to"), (axes, "axes"))]
    return [making.node("Slice", [making.inputs[0], *places])]


@reads("ShuffleChannel", onnx=["Reshape", "Transpose"])
def _shuffle(making: Making) -> list[ir.Value]:
    """Channels of several groups, by turns."""
    group = making.param("shuffle_channel_param").integer("group", 1)
    batch, channels, *rest = making.shape() if len(making.shape()) > 1 else (1, 0)
    if group < 1 or channels < 1 or channels % group:
        raise ModelError(f"{channels} channels cannot be shuffled in {group} groups")
    parts = making.reshape(making.inputs[0], [batch, group, channels // group, *rest])
    order = [0, 2, 1, *range(3, 3 + len(rest))]
    turned = making.node("Transpose", [parts], perm=order)
    return [making.reshape(turned, [batch, channels, *rest])]


@reads("Reorg", onnx=["Reshape", "Transpose"])
def _reorg(making: Making) -> list[ir.Value]:
    """YOLOv2's: the blob's numbers are taken as a picture stride times as large, whose pixels become channels."""
    param = making.param("reorg_param")
    stride, back = param.integer("stride", 2), param.flag("reverse")
    if len(making.shape()) != 4 or stride < 1:
        raise ModelError(f"it reorganizes {len(making.shape())} dimensions by {stride}")
    batch, channels, height, width = making.shape()
    cells = stride * stride
    value = making.inputs[0]
    if back:
        if channels % cells:
            raise ModelError(f"{channels} channels cannot be spread over {cells} pixels")
        parts = making.reshape(value, [batch, stride, stride, channels // cells, height, width])
        turned = making.node("Transpose", [parts], perm=[0, 3, 4, 1, 5, 2])
        return [making.reshape(turned, [batch, channels // cells, height * stride, width * stride])]
    if channels % cells or height % stride or width % stride:
        raise ModelError(f"{channels} channels of {height} x {width} cannot be reorganized by {stride}")
    parts = making.reshape(value, [batch, channels // cells, height, stride, width, stride])
    turned = making.node("Transpose", [parts], perm=[0, 3, 5, 1, 2, 4])
    return [making.reshape(turned, [batch, channels * cells, height // stride, width // stride])]


@reads("Tile", onnx=["Tile"])
def _tile(making: Making) -> list[ir.Value]:
    param = making.param("tile_param")
    axis, tiles = making.axis(param.integer("axis", 1)), param.integer("tiles", 1)
    if tiles < 1:
        raise ModelError(f"tiles is {tiles}")
    repeats = [tiles if index == axis else 1 for index in range(len(making.shape()))]
    return [making.node("Tile", [*making.inputs, making.constant(repeats, "repeats")])]
