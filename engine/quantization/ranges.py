"""From what calibration saw to the range that each tensor uses: the rules by which tensors share ranges.

The rules are the toolkit's, read off its cfg files (rk3588, int8). Ranges are clipped only where an activation
saturates; every range is widened to contain 0 when it becomes parameters.
"""

from __future__ import annotations

import dataclasses
import math

import onnx_ir as ir

from engine.graph.layers import Layer
from engine.graph.query import attribute, sole_consumer
from engine.quantization.statistics import Statistics

Range = tuple[float, float]

# Beyond these inputs the activation is flat to within one int8 step of its output.
_SATURATION: dict[str, Range] = {"Sigmoid": (-7.0, 7.0), "Tanh": (-3.2, 3.2), "HardSwish": (-3.0, math.inf)}

# The output holds exactly the input's values, so that one range serves both.
_SAME_VALUES = {
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth", "Identity",
    "Expand", "Tile", "Split", "Gather", "GatherElements", "GatherND",
}  # fmt: skip


@dataclasses.dataclass
class _Ranges:
    use: dict[str, Range]
    clip: dict[str, Range]

    def set(self, value: ir.Value, new: Range) -> None:
        name = value.name or ""
        if name in self.use:
            low, high = self.clip.get(name, (-math.inf, math.inf))
            self.use[name] = (max(new[0], low), min(new[1], high))

    def get(self, value: ir.Value | None) -> Range | None:
        return self.use.get(value.name or "") if value is not None else None


def share_ranges(model: ir.Model, layers: tuple[Layer, ...], statistics: Statistics) -> dict[str, Range]:
    """The range in use of every measured tensor.

    Against the flow: a layer's inner tensor before Relu or Clip, and a producer that only one MaxPool, Slice, linear
    Resize or reordering reads, take their reader's output range; the input of a saturating activation is clipped to
    where it is not flat. With the flow: reorderings, nearest Resize, AveragePool and a MaxPool whose input has other
    readers take their input's range; Concat takes the union of its inputs'.
    """
    ranges = _Ranges(dict(statistics.ranges), {})
    swish = {node for layer in layers if "xSwish" in layer.op for node in layer.nodes}
    nodes = list(model.graph)
    for node in reversed(nodes):
        _against_the_flow(node, ranges, node in swish)
    for node in nodes:
        _with_the_flow(node, ranges)
    return ranges.use


def _against_the_flow(node: ir.Node, ranges: _Ranges, in_swish: bool) -> None:
    source = node.inputs[0] if node.inputs else None
    if source is None or ranges.get(source) is None or source.is_graph_output() or source.is_graph_input():
        return
    out = ranges.get(node.outputs[0])
    saturation = None if in_swish else _saturation(node)
    if saturation is not None and all(use.node.op_type == node.op_type for use in source.uses()):
        name = source.name or ""
        low, high = ranges.use[name]
        ranges.clip[name] = saturation
        # A tensor that lies wholly beyond the saturation keeps a range that contains 0 and its nearer bound.
        ranges.use[name] = (min(max(low, saturation[0]), saturation[1]), max(min(high, saturation[1]), saturation[0]))
    elif out is not None and sole_consumer(source) is node:
        producer = source.producer()
        activated = node.op_type in ("Relu", "Clip") and producer is not None
        moved = (
            node.op_type in ("MaxPool", "Slice") or node.op_type in _SAME_VALUES - {"Split"} or node.op_type == "Resize"
        )
        if activated or moved:
            ranges.set(source, out)


def _saturation(node: ir.Node) -> Range | None:
    if node.op_type == "HardSigmoid":
        alpha, beta = float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))
        return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else None
    return _SATURATION.get(node.op_type)


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
    if node.op_type in _SAME_VALUES or nearest or shared_pool or node.op_type == "AveragePool":
        for value in node.outputs:
            ranges.set(value, used)


def _constant_range(value: ir.Value | None) -> Range | None:
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return (float(array.min()), float(array.max())) if array.size else None
