"""The ranges that a clipping criterion gives a model's tensors, and which of these it must leave alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from engine.errors import QuantizationError
from engine.graph.layers import Layer
from engine.graph.masks import MASKED, scores_and_mask
from engine.graph.operators import REORDERINGS, SELECTIONS
from engine.graph.query import constant, sole_consumer
from engine.quantization.clipping import clip
from engine.quantization.ranges import Range
from engine.quantization.statistics import Statistics

# Few values decide here, and these may be the rare ones: scores of what is seldom seen.
_DECISIVE = {"Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax"}
# Tensors on both sides may get one range: see ranges.share_ranges.
_FROM_INPUT = SELECTIONS | {"AveragePool", "MaxPool", "Resize"}
_FROM_OUTPUT = SELECTIONS | {"Clip", "MaxPool", "Relu", "Resize", "Slice"}
# exp(-12), the largest share of a masked score beside the lowest one that counts, is below half a step of int8.
_BELOW_SCORES = 12.0


def clipped_ranges(
    model: ir.Model, layers: Iterable[Layer], statistics: Statistics, criterion: str, precision: str = "int8"
) -> dict[str, Range]:
    """The range of each tensor by `criterion`, one of those of `clip`, as `share_ranges` takes them to start from.

    What `never_clipped` names keeps what was observed, but for scores before a softmax that share it with a mask: they
    end a little below the lowest score that is not masked. So does a tensor without a histogram. Raises
    QuantizationError for statistics without histograms.
    """
    if not statistics.histograms and any(low < high for low, high in statistics.ranges.values()):
        raise QuantizationError(
            f"ranges by {criterion} need histograms, and only extremes were collected", hint="collect histograms first"
        )
    keep = never_clipped(model, layers)
    found = dict(statistics.ranges)
    for name, histogram in statistics.histograms.items():
        if name not in keep:
            found[name] = clip(histogram, criterion, precision)
    _unmask(model, statistics, found)
    return found


def never_clipped(model: ir.Model, layers: Iterable[Layer]) -> set[str]:
    """Inputs and outputs of the model, what softmaxes and sigmoids read and make, masks, and what shares their range.

    The sigmoid of x * sigmoid(x) is not meant.
    """
    swishes = {layer.last for layer in layers if layer.op.endswith(("ExSwish", "exSwish"))}
    waiting = [*model.graph.inputs, *model.graph.outputs]
    for node in model.graph:
        if node.op_type in _DECISIVE and sole_consumer(node.outputs[0]) not in swishes:
            waiting += [value for value in (node.inputs[0], node.outputs[0]) if value is not None]
        waiting += [mask for _, mask in scores_and_mask(node)]
    found: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        if value in found:
            continue
        found.add(value)
        maker, reader = value.producer(), sole_consumer(value)
        if maker is not None and maker.op_type in _FROM_INPUT:
            waiting += [v for v in maker.inputs[:1] if v is not None]
        if maker is not None and maker.op_type == "Concat":
            waiting += [v for v in maker.inputs if v is not None]
        if reader is not None and reader.op_type in _FROM_OUTPUT:
            waiting += reader.outputs
    return {value.name or "" for value in found}


def _unmask(model: ir.Model, statistics: Statistics, ranges: dict[str, Range]) -> None:
    """End ranges that reach down to a mask where no score that counts is."""
    for node in model.graph:
        for scores, mask in scores_and_mask(node):
            lowest, (masked, unmasked) = _observed(scores, statistics)[0], _observed(mask, statistics)
            if not masked < MASKED < lowest:
                continue
            end = float(np.float32(lowest + (unmasked if node.op_type == "Add" else 0.0) - _BELOW_SCORES))
            waiting = [node.outputs[0]]
            while waiting:
                value = waiting.pop()
                low, high = ranges.get(value.name or "", (end, end))
                ranges[value.name or ""] = max(low, min(end, high)), high
                waiting += [use.node.outputs[0] for use in value.uses() if use.node.op_type in REORDERINGS]


def _observed(value: ir.Value, statistics: Statistics) -> Range:
    array = constant(value)
    if array is not None:
        return float(array.min()), float(array.max())
    return statistics.ranges.get(value.name or "", (0.0, 0.0))
