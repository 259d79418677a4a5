"""Layers of Caffe's forks that make pictures larger or smaller."""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.convolutions import sizes
from engine.frontends.caffe.layers import Making, Refused, reads


@reads("Upsample", onnx=["MaxUnpool", "Resize"], bottoms=(1, 2))
def _upsample(making: Making) -> list[ir.Value]:
    """Repeats every pixel; with a second blob, the mask of a pooling, puts each pixel where its maximum was."""
    param = making.param("upsample_param")
    height, width = _picture(making)
    # Where both are given, as in one fork, pixels are repeated by the stride.
    scales = sizes(param, "stride" if param.has("stride") else "scale", 2, 2)
    if param.has("stride") and param.number("scale", 1.0) != 1:
        raise Refused("a scale of its values", "scale them by a Power layer")
    if any(scale < 1 for scale in scales):
        raise ModelError(f"its scale is {scales}")
    size = [height * scales[0], width * scales[1]]
    for axis, side in enumerate("hw"):
        # SegNet's fork gives the size itself, or leaves out a last odd row.
        if param.has(f"upsample_{side}"):
            size[axis] = param.integer(f"upsample_{side}")
        elif param.flag(f"pad_out_{side}"):
            size[axis] -= 1
    if len(making.inputs) == 1:
        return [resize(making, making.inputs[0], size, linear=False)]
    mask = making.inputs[1]
    producer = mask.producer()
    if producer is None or producer.op_type != "MaxPool":
        raise Refused("a mask that no pooling makes")
    pooled = producer.inputs[0]
    if pooled is None or list(making.maker.shape(pooled)[2:]) != size:
        raise Refused(f"to the size {size}, which is not that before the pooling")
    strides = [-(-big // small) for big, small in zip(size, (height, width), strict=True)]
    over = [small * stride - big for big, small, stride in zip(size, (height, width), strides, strict=True)]
    pads = [0, 0, *over] if any(over) else None
    return [making.node("MaxUnpool", [making.inputs[0], mask], kernel_shape=strides, strides=strides, pads=pads)]


@reads("Interp", onnx=["Resize", "Slice"], bottoms=(1, 2))
def _interp(making: Making) -> list[ir.Value]:
    """Linear between the corners, which stay in their places (DeepLab's fork); with a second blob, as large as that."""
    param = making.param("interp_param")
    before, behind = param.integer("pad_beg"), param.integer("pad_end")
    if before > 0 or behind > 0:
        raise Refused("padding", "pad_beg and pad_end may only cut")
    height, width = _picture(making)
    value = making.inputs[0]
    if before or behind:
        ends = [height + behind, width + behind]
        if any(end <= -before for end in ends):
            raise ModelError("nothing is left of its picture")
        places = [making.constant(numbers) for numbers in ([-before, -before], ends, [2, 3])]
        value = making.node("Slice", [value, *places])
    size = [side + before + behind for side in (height, width)]
    shrink, zoom = param.integer("shrink_factor", 1), param.integer("zoom_factor", 1)
    if shrink < 1 or zoom < 1:
        raise ModelError(f"it shrinks by {shrink} and zooms by {zoom}")
    if len(making.inputs) == 2:
        size = list(_picture(making, 1))
    elif param.has("height") or param.has("width"):
        size = [param.integer("height"), param.integer("width")]
    else:
        size = [(side - 1) // shrink + 1 for side in size]
        size = [side + (side - 1) * (zoom - 1) for side in size]
    return [resize(making, value, size, linear=True)]


def resize(making: Making, value: ir.Value, size: list[int], *, linear: bool) -> ir.Value:
    """Linear with the corners in place, or each pixel repeated."""
    shape = making.maker.shape(value)
    if any(side < 1 for side in size):
        raise ModelError(f"its size would be {size}")
    target = making.constant([*shape[:2], *size], "size")
    if linear:
        way = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    else:
        way = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return making.node("Resize", [value, None, None, target], **way)


def _picture(making: Making, index: int = 0) -> tuple[int, int]:
    if len(making.shape(index)) != 4:
        raise ModelError(f"it resizes {len(making.shape(index))} dimensions, not 4")
    height, width = making.shape(index)[2:]
    return height, width
