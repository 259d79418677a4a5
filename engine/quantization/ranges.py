"""From what calibration saw to the range that each tensor uses: the rules by which tensors share ranges.

The rules are the toolkit's, read off its cfg files (rk3588, int8). They clip ranges only where an activation
saturates; every range is widened to contain 0 when it becomes parameters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from engine.graph.operators import SELECTIONS
from engine.graph.query import attribute, sole_consumer

Range = tuple[float, float]

_WITHOUT_END = (-math.inf, math.inf)
# Beyond these inputs the activation is flat to within one int8 step of its output. Ranges are float32 throughout.
_TANH = float(np.float32(3.2))
_SATURATION: dict[str, Range] = {"Sigmoid": (-7.0, 7.0), "Tanh": (-_TANH, _TANH), "HardSwish": (-3.0, math.inf)}


@dataclasses.dataclass
class _Ranges:
    use: dict[str, Range]
    clip: dict[str, Range]
    whole: frozenset[str] = frozenset()

    def set(self, value: ir.Value, new: Range) -> None:
        name = value.name or ""
        if name in self.use:
            low, high = self.clip.get(name, _WITHOUT_END)
            self.use[name] = (max(new[0], low), min(new[1], high))

    def get(self, value: ir.Value | None) -> Range | None:
        return self.use.get(value.name or "") if value is not None else None


def share_ranges(
    model: ir.Model, starting: Mapping[str, Range], whole: frozenset[str] = frozenset()
) -> dict[str, Range]:
    """The range in use of every tensor, given those that calibration or a clipping criterion starts from.

    Against the flow: a tensor that only one Relu, Clip, MaxPool, Slice, linear Resize or reordering reads takes its
    reader's output range; one that only saturating activations read is clipped to where one of them is not flat.
    With the flow: reorderings, nearest Resize, AveragePool and a MaxPool whose input has other readers take their
    input's range; Concat takes the union of its inputs'. Inputs and outputs of the graph keep what they start from.
    Inputs of the operators `whole` are not clipped, however saturating.
    """
    ranges = _Ranges(dict(starting), {}, whole)
    nodes = list(model.graph)
    for node in reversed(nodes):
        _against_the_flow(node, ranges)
    for node in nodes:
        _with_the_flow(node, ranges)
    return ranges.use


def _against_the_flow(node: ir.Node, ranges: _Ranges) -> None:
    source = node.inputs[0] if node.inputs else None
    if source is None or ranges.get(source) is None or source.is_graph_output() or source.is_graph_input():
        return
    out = ranges.get(node.outputs[0])
    saturation = _saturation(source, ranges.whole)
    if saturation != _WITHOUT_END:
        name = source.name or ""
        low, high = ranges.use[name]
        ranges.clip[name] = saturation
        # A tensor that lies wholly beyond the saturation keeps a range that contains 0 and its nearer bound.
        ranges.use[name] = (min(max(low, saturation[0]), saturation[1]), max(min(high, saturation[1]), saturation[0]))
    elif out is not None and sole_consumer(source) is node:
        narrowed = node.op_type in ("Relu", "Clip", "MaxPool", "Slice")
        # Cubic interpolation overshoots, so that its output's range says little of its input's.
        resized = node.op_type == "Resize" and attribute(node, "mode", "nearest") in ("nearest", "linear")
        if narrowed or resized or node.op_type in SELECTIONS - {"Split"}:
            ranges.set(source, out)


def _saturation(value: ir.Value, whole: frozenset[str]) -> Range:
    """Where at least one of the activations that read `value` is not flat; without end if anything else reads it."""
    low, high = math.inf, -math.inf
    for use in value.uses():
        one = _SATURATION.get(use.node.op_type, _WITHOUT_END)
        if use.node.op_type in whole:
            one = _WITHOUT_END
        elif use.node.op_type == "HardSigmoid":
            alpha, beta = float(attribute(use.node, "alpha", 0.2)), float(attribute(use.node, "beta", 0.5))
            if alpha > 0:
                one = float(np.float32(-beta / alpha)), float(np.float32((1 - beta) / alpha))
        low, high = min(low, one[0]), max(high, one[1])
    return low, high


def _with_the_flow(node: ir.Node, ranges: _Ranges) -> None:
    source = node.inputs[0] if node.inputs else None
    used = ranges.get(source)
    if node.op_type == "Concat":
        parts = [ranges.get(v) or _constant_range(v) for v in node.inputs]
        known = [p for p in parts if p is not None]
        if len(known) == len(parts):
            ranges.set(node.outputs[0], (min(p[0] for p in known), max(p[1] for p in known)))
        return
    if used is None or source is None:
        return
    nearest = node.op_type == "Resize" and attribute(node, "mode", "nearest") == "nearest"
    shared_pool = node.op_type == "MaxPool" and sole_consumer(source) is None
    if node.op_type in SELECTIONS or nearest or shared_pool or node.op_type == "AveragePool":
        for value in node.outputs:
            ranges.set(value, used)


def _constant_range(value: ir.Value | None) -> Range | None:
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return (float(array.min()), float(array.max())) if array.size else None
