"""The prior boxes of SSD's fork, which sizes alone decide: constants."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, reads
from engine.frontends.caffe.prototxt import Message
from engine.graph.query import Array

_MOST_NUMBERS = 1 << 24
_SAME = 1e-6  # ratios that differ by less are one, as in the fork


@reads("PriorBox", onnx=["Identity"], bottoms=(2, 2))
def _prior_box(making: Making) -> list[ir.Value]:
    """[1, 2, 4 * boxes]: the boxes' corners as parts of the picture, and the variances of their numbers."""
    param = making.param("prior_box_param")
    if len(making.shape()) != 4 or len(making.shape(1)) != 4:
        raise ModelError("it needs a blob of features and one of the picture, of 4 dimensions each")
    (rows, columns), picture = making.shape()[2:], making.shape(1)[2:]
    height = param.integer("img_h", param.integer("img_size", picture[0])) or picture[0]
    width = param.integer("img_w", param.integer("img_size", picture[1])) or picture[1]
    step_y = param.number("step_h", param.number("step")) or height / rows
    step_x = param.number("step_w", param.number("step")) or width / columns
    offset = param.number("offset", 0.5)
    boxes = _boxes(param)
    if 8 * rows * columns * len(boxes) > _MOST_NUMBERS:
        raise ModelError(f"it would make {rows * columns * len(boxes)} boxes")
    # The fork computes in float32.
    half = np.array(boxes, np.float32) / np.float32(2)
    x = ((np.arange(columns, dtype=np.float32) + np.float32(offset)) * np.float32(step_x))[None, :, None]
    y = ((np.arange(rows, dtype=np.float32) + np.float32(offset)) * np.float32(step_y))[:, None, None]
    corners = np.empty((rows, columns, len(boxes), 4), np.float32)
    corners[..., 0], corners[..., 2] = (x - half[:, 0]) / np.float32(width), (x + half[:, 0]) / np.float32(width)
    corners[..., 1], corners[..., 3] = (y - half[:, 1]) / np.float32(height), (y + half[:, 1]) / np.float32(height)
    if param.flag("clip"):
        corners = corners.clip(0, 1)
    variances = np.resize(_variances(param), corners.size).astype(np.float32)
    result: Array = np.stack([corners.reshape(-1), variances])[None]
    return [making.constant(result, "boxes")]


def _boxes(param: Message) -> list[tuple[float, float]]:
    """The boxes' widths and heights in pixels: for each size a square, one between it and the next size, and the other
    ratios of width to height, by default each with its inverse."""
    least, most = param.numbers("min_size"), param.numbers("max_size")
    if not least or any(size <= 0 for size in least):
        raise ModelError("min_size is missing, or not positive")
    if most and (len(most) != len(least) or any(b <= a for a, b in zip(least, most, strict=False))):
        raise ModelError("max_size must be larger than min_size, one for each")
    ratios = [1.0]
    both = param.flag("flip", True)
    for ratio in param.numbers("aspect_ratio"):
        if ratio <= 0:
            raise ModelError(f"aspect_ratio is {ratio}")
        if all(abs(ratio - known) >= _SAME for known in ratios):
            ratios += [ratio, 1 / ratio] if both else [ratio]
    boxes: list[tuple[float, float]] = []
    for index, size in enumerate(least):
        boxes.append((size, size))
        if most:
            between = math.sqrt(size * most[index])
            boxes.append((between, between))
        boxes += [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for ratio in ratios if abs(ratio - 1) >= _SAME]
    return boxes


def _variances(param: Message) -> list[float]:
    given = param.numbers("variance") or [0.1]
    if len(given) not in (1, 4) or any(value <= 0 for value in given):
        raise ModelError("variance must be one positive number, or four")
    return given
