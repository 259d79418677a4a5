"""Adds and takes away spatial axes where the channels stay first, as convolutions over one axis are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.frontends import nhwc
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.nhwc.tensors import normal_axis, to_first


def squeeze(x: Tensor, place: Place, axes: Sequence[int] = ()) -> Tensor:
    """Like `nhwc.squeeze`; no transpose where only spatial axes go and the channels are first. Raises
    ModelError."""
    chosen = {normal_axis(axis, x.rank, place) for axis in axes} or {a for a, n in enumerate(x.shape) if n == 1}
    shape = [n for axis, n in enumerate(x.shape) if axis not in chosen]
    inner = set(range(1, x.rank - 1))
    if x.has_plain or not chosen <= inner or len(shape) < 3 or any(x.shape[axis] != 1 for axis in chosen):
        return nhwc.squeeze(x, place, axes)
    return _reshaped(x, place, shape)


def expand_dims(x: Tensor, place: Place, axis: int) -> Tensor:
    """Like `nhwc.expand_dims`; without a transpose where the axis is spatial and the channels are first. Raises
    ModelError."""
    at = normal_axis(axis, x.rank + 1, place)
    if x.has_plain or x.rank < 3 or not 0 < at < x.rank:
        return nhwc.expand_dims(x, place, axis)
    return _reshaped(x, place, [*x.shape[:at], 1, *x.shape[at:]])


def _reshaped(x: Tensor, place: Place, shape: Sequence[int]) -> Tensor:
    sizes = place.constant(np.array([shape[axis] for axis in to_first(len(shape))], np.int64), "shape")
    return Tensor.of_first(place.node("Reshape", [x.first(), sizes]), place)
