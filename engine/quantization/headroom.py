"""Widens ranges that calibration saw through few values, such as a classifier's two scores on twenty photos."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from engine.graph.query import static_shape, tensors
from engine.quantization.ranges import Range

# Of n values drawn alike, the next lies outside the range of the others with a chance of 2 / (n + 1), and by an amount
# of its spread. At this many values the range grows by the whole of itself, at 40 times as many by a fortieth: a step
# that is twice as wide costs 6 dB of a tensor that is seldom the worst, a score cut off costs the answer.
_FEW = 40
_WORTHWHILE = 0.01
# Their outputs end where the function does.
_BOUNDED = {"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Clip", "Erf", "Sin", "Cos"}


def with_headroom(model: ir.Model, ranges: Mapping[str, Range], samples: int) -> dict[str, Range]:
    """`ranges`, each wider by a share of min(1, 40 / n) where n values were seen of the tensor over all `samples`.

    Model inputs, and tensors that their operator bounds, keep their range.
    """
    found = dict(ranges)
    for value in tensors(model.graph):
        node = value.producer()
        if value.name not in found or node is None or node.op_type in _BOUNDED:
            continue
        share = min(1.0, _FEW / max(1, samples * math.prod(static_shape(value))))
        if share > _WORTHWHILE:
            low, high = found[value.name]
            found[value.name] = low * (1.0 + share), high * (1.0 + share)
    return found
