"""How the values of each tensor are spread: histograms, taken in a second pass over the samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.query import static_shape
from engine.progress import Progress
from engine.quantization.statistics import Sample, Statistics, derived_range, run_each

Array = np.ndarray[Any, Any]

BINS = 2048
# Values counted of one tensor and sample. A tensor's share above any point is then known to about 1e-5 from 20 samples.
SAMPLED_VALUES = 1 << 17
# Keeps the largest value in the last bin; float32 knows bin numbers to 1e-4 there.
_INSIDE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Counts (int64) of a tensor's values in bins of equal width from `low` to `high`, which are float32 values."""

    low: float
    high: float
    counts: Array

    @property
    def edges(self) -> Array:
        """The bins' ends in float64, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())


def collect_histograms(
    model: ir.Model, statistics: Statistics, samples: Iterable[Sample], total: int, progress: Progress
) -> Statistics:
    """`statistics` with a histogram of each float tensor over `samples`, its bins spread over the range seen.

    `samples` may be those that the statistics are of, or others: values outside of the range count in the end bins.
    Of a tensor of more than SAMPLED_VALUES every n-th value of a sample is counted, n having no factor in common with
    any of the tensor's dimensions, so that all channels, rows and columns have their share. Tensors that were constant,
    or whose extent leaves float32, have no histogram. Raises as `collect` does.
    """
    proto, counted, same = _counting_graph(model, statistics)
    counts = np.zeros((len(counted), BINS), np.int64)
    bytes_each = sum(2 * min(math.prod(static_shape(value)), SAMPLED_VALUES) for value in counted)
    progress.step("histograms", 0, total)
    results = run_each(proto, model, samples, total, bytes_each) if counted else iter(())
    del proto  # the session will hold its own copy of the weights
    for done, numbers in enumerate(results, start=1):
        for row, bins in zip(counts, numbers, strict=True):
            # A sample that `statistics` is not of may hold NaN, whose bin could be any.
            row += np.bincount(bins, minlength=BINS)[:BINS]
        progress.step("histograms", done, total)
    found: dict[str, Histogram] = {}
    for value, row in zip(counted, counts, strict=True):
        name = value.name or ""
        found[name] = Histogram(*statistics.ranges[name], row)
    for name, source in same:
        if source in found:
            found[name] = found[source]
    return dataclasses.replace(statistics, histograms=found)


def _counting_graph(
    model: ir.Model, statistics: Statistics
) -> tuple[onnx.ModelProto, list[ir.Value], list[tuple[str, str]]]:
    """A graph that gives out numbers of bins (uint16) of tensors; these tensors; and pairs of those with equal values.

    Of a pair, the second comes first in the graph and may be counted.
    """
    builder = GraphBuilder(model, "histograms")
    counted: list[ir.Value] = []
    same: list[tuple[str, str]] = []

    def count(value: ir.Value) -> None:
        if (width := _bin_width(*statistics.ranges.get(value.name or "", (0.0, 0.0)))) is not None:
            builder.output(_bin_numbers(builder, value, statistics.ranges[value.name or ""][0], width))
            counted.append(value)

    for value in model.graph.inputs:
        count(value)
    for node in model.graph:
        builder.copy_plain(node)
        rule = derived_range(node)
        for value in node.outputs:
            if rule is not None and rule.same:
                same.append((value.name or "", rule.source))
            else:
                count(value)
    return builder.build(), counted, same


def _bin_width(low: float, high: float) -> Array | None:
    """None where it, or the number of bins a unit, is not a finite float32 with all its digits."""
    with np.errstate(over="ignore"):
        extent = np.float32(high) - np.float32(low)
    if not np.isfinite(extent) or extent < BINS * np.finfo(np.float32).tiny:
        return None
    return np.array(extent / (BINS - _INSIDE), np.float32)


def _bin_numbers(builder: GraphBuilder, value: ir.Value, low: float, width: Array) -> str:
    name, size = value.name or "", math.prod(static_shape(value))
    numbers = builder.node("Reshape", [name, builder.array("histograms.flat", np.array([-1]))], f"{name}.flat")
    if size > SAMPLED_VALUES:
        step = -(-size // SAMPLED_VALUES)
        while math.gcd(step, size) > 1:
            step += 1
        bounds = [builder.array(f"histograms.{n}", np.array([n])) for n in (0, np.iinfo(np.int64).max, 0, step)]
        numbers = builder.node("Slice", [numbers, *bounds], f"{name}.some")
    numbers = builder.node("Sub", [numbers, builder.array(f"{name}.low", np.float32(low))], f"{name}.above")
    numbers = builder.node("Div", [numbers, builder.array(f"{name}.width", width)], f"{name}.bins")
    ends = [builder.array(f"histograms.{end}", np.float32(end)) for end in (0.0, BINS - 1.0)]
    numbers = builder.node("Clip", [numbers, *ends], f"{name}.inside")
    return builder.node("Cast", [numbers], f"{name}.number", to=onnx.TensorProto.UINT16)
