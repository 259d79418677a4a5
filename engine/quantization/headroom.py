"""Widens ranges that calibration saw in few places, such as a classifier's two scores on twenty photos."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from engine.graph.operators import SELECTIONS
from engine.graph.query import static_shape, tensors
from engine.quantization.ranges import Range

# The next of n places lies outside the range of the others with a chance of about 2 / (n + 1); channels of one place go
# up and down together, so that they count as one. At this many places the range grows by the whole of itself, at 20 by
# a fifth: a step that is wider by a fifth costs 1.6 dB of a tensor that is seldom the worst, a score cut off costs the
# answer.
_FEW = 4
_WORTHWHILE = 0.01
# Their outputs end where the function does.
_BOUNDED = {"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Clip", "Erf", "Sin", "Cos"}


def with_headroom(model: ir.Model, ranges: Mapping[str, Range], samples: int) -> dict[str, Range]:
    """`ranges`, each wider by a share of min(1, 4 / n) where n places of the tensor were seen over all `samples`.

    Places are values of one channel (axis 1). The share was tried on classifiers, whose scores and squeezed features
    (1 x 1) are seen once a sample; maps of features are seen at so many places that they stay as they are.

    Model inputs and tensors that their operator bounds keep their range, also where they are reordered or parted.
    """
    found = dict(ranges)
    for value in tensors(model.graph):
        origin = _origin(value)
        node = origin.producer()
        # What a model input may hold is told by its samples.
        if value.name not in found or node is None or node.op_type in _BOUNDED:
            continue
        places = samples * math.prod(size for axis, size in enumerate(static_shape(origin)) if axis != 1)
        share = min(1.0, _FEW / max(1, places))
        if share > _WORTHWHILE:
            low, high = found[value.name]
            found[value.name] = low * (1.0 + share), high * (1.0 + share)
    return found


def _origin(value: ir.Value) -> ir.Value:
    """The tensor whose values these are, before they were reordered or parted."""
    node = value.producer()
    while node is not None and node.op_type in SELECTIONS and (source := node.inputs[0]) is not None:
        if source.is_initializer():
            break
        value, node = source, source.producer()
    return value
