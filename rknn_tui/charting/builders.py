"""Charts of what the app knows: accuracy, time and memory by layer, operator and target, error sources, candidates, a
tensor's values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.errors import EngineError
from engine.estimates import CostTotals
from engine.summaries import LayerFacts, LayerSummary, SourceMap, TensorFacts, TuneReport
from rknn_tui.bench.dialogue import counted
from rknn_tui.charting.axes import finite, short
from rknn_tui.charting.chart import Cell, Chart, Mark, short_name
from rknn_tui.charting.cost_charts import Values, memory_over_run, time_by_operator, time_by_target
from rknn_tui.charting.measured_charts import time_by_layer
from rknn_tui.graph.bars import digits
from rknn_tui.graph.layer_values import NOTHING
from rknn_tui.symbols import drawable


class ChartData(Protocol):
    """What charts are made of, as it is now. `path` is the model's file, '' without one.

    `in_force` is the index of the candidate that is taken or looked at, None or -1 without one; `layer_facts` are those
    of the layer under the cursor. `cost_totals` are estimates for `target`, `target_totals` for each target that they
    are known of, or why there are none.
    """

    @property
    def path(self) -> str: ...
    @property
    def layers(self) -> Sequence[LayerSummary]: ...
    @property
    def layer_values(self) -> Values: ...
    @property
    def source_map(self) -> SourceMap | None: ...
    @property
    def tune_report(self) -> TuneReport | None: ...
    @property
    def in_force(self) -> int | None: ...
    @property
    def target(self) -> str: ...
    @property
    def cost_totals(self) -> CostTotals | None: ...
    @property
    def target_totals(self) -> Mapping[str, CostTotals | EngineError]: ...
    @property
    def layer_facts(self) -> LayerFacts | None: ...

    def compare_targets(self) -> None:
        """Find out `target_totals`, which may take a moment."""


CHARTS: Mapping[str, Callable[[ChartData, float], Chart]] = {
    "cosine": lambda data, limit: cosine_by_layer(data.layers, data.layer_values, limit=limit),
    "sources": lambda data, _: error_sources(data.source_map),
    "time": lambda data, _: time_by_layer(data.layers, data.layer_values, data.cost_totals),
    "memory": lambda data, _: memory_over_run(data.layers, data.layer_values, data.cost_totals),
    "operators": lambda data, _: time_by_operator(data.layers, data.layer_values),
    "targets": lambda data, _: time_by_target(data.target_totals, data.target),
    "candidates": lambda data, _: pareto(data.tune_report, data.in_force),
    "range": lambda data, _: range_histogram(_shown_tensor(data.layer_facts)),
}
"""The charts by their ids, in the order in which they are gone through, of the data and the limit of a good cosine."""

ON_BOARD = "measured on board"


def cosine_by_layer(layers: Sequence[LayerSummary], values: Values, *, limit: float = math.nan) -> Chart:
    """Every layer's cosine in execution order, in the entire model and, where that is known, alone and on a board.

    `limit` is the cosine below which a layer counts as bad.
    """
    title = "cosine by layer"
    header: tuple[str, ...] = ("layer", "name", "op", "entire", "single")
    known = [values.get(layer.name, NOTHING) for layer in layers]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (layer.index, drawable(layer.name), drawable(layer.op), value.entire, value.single)
        for layer, value in zip(layers, known, strict=True)
    )
    if any(math.isfinite(value.board_entire) for value in known):
        header = (*header, ON_BOARD)
        rows = tuple((*row, value.board_entire) for row, value in zip(rows, known, strict=True))
    ys = tuple(name for name in header[3:] if any(math.isfinite(float(row[header.index(name)])) for row in rows))
    if not ys:
        return Chart("cosine", title, "lines", header, (), note="no accuracy is known yet")
    notes = [f"lowest {name}: {_worst(rows, header.index(name))}" for name in ys]
    if ON_BOARD in ys:
        if any(value.board_old for value in known):
            notes.insert(0, "measured before the last change")
        notes.append("the board's tensors are compared with the float model's as well")
    stale = sum(value.stale for value in known)
    if stale:
        notes.append(f"{counted(stale, 'number')} from before the last change")
    return Chart(
        "cosine",
        title,
        "lines",
        header,
        rows,
        x="layer",
        ys=ys,
        label="name",
        x_label="layer, as executed",
        y_label="cosine",
        unit="cosine",
        limit=limit,
        note="; ".join(notes),
    )


def error_sources(source_map: SourceMap | None) -> Chart:
    """Each rounding's part of the outputs' error, the largest first."""
    title, header = "where the error comes from", ("kind", "name", "layer", "op", "share")
    if source_map is None:
        return Chart("sources", title, "bars", header, (), note="error sources are not traced yet")
    rows = tuple(
        (source.kind, drawable(source.name), drawable(source.layer), drawable(source.op), source.share)
        for source in sorted(source_map.sources, key=lambda source: _largest_first(source.share))
        if math.isfinite(source.share)
    )
    total = source_map.total
    note = f"{counted(len(rows), 'rounding')}, each alone in the float model, {counted(source_map.samples, 'sample')}"
    note += f"; together: cosine {digits(total.cosine)}, SNR {total.snr:.1f} dB"
    return Chart(
        "sources",
        title,
        "bars",
        header,
        rows,
        ys=("share",),
        label="name",
        tag="kind",
        y_label="share of the outputs' error",
        unit="share",
        note=note if rows else "no rounding costs anything",
    )


def pareto(report: TuneReport | None, in_force: int | None) -> Chart:
    """What each candidate of a search costs and gives, numbered as its rows: 0 is the model as it was.

    `in_force` is an index into the report's candidates; where it is None or -1, what the search chose is marked.
    """
    title = "candidates of the search"
    header = ("candidate", "extra_time", "cosine", "lowest", "snr_db", "layers", "state", "milliseconds")
    if report is None:
        return Chart("candidates", title, "points", header, (), note="no search has run yet")
    now = in_force is not None and 0 <= in_force < len(report.candidates)
    marked, word = (in_force if now and in_force is not None else report.chosen), "in force" if now else "chosen"
    qualities = [report.base, *(candidate.quality for candidate in report.candidates)]
    costs = [0.0, *(candidate.cost for candidate in report.candidates)]
    known = report.time_us > 0
    times = [report.time_us, *(candidate.time_us for candidate in report.candidates)]
    times = [time / 1000 if known else math.nan for time in times]
    counts = [0, *(len(candidate.layers) for candidate in report.candidates)]
    rows = tuple(
        (
            *(number, cost, quality.cosine, quality.lowest, quality.snr, count),
            word if number == marked + 1 and number else "" if number else "base",
            time,
        )
        for number, (quality, cost, time, count) in enumerate(zip(qualities, costs, times, counts, strict=True))
    )
    shown = marked + 1 if 0 <= marked < len(report.candidates) else 0
    note = f"{word if shown else 'as it was'}: {shown}, cosine {digits(qualities[shown].cosine)}"
    note += f", SNR {qualities[shown].snr:.1f} dB, {counted(counts[shown], 'layer')}"
    if shown:
        whole = f", {short(times[shown], 'ms')}" if known else ""
        note += f", est time {costs[shown]:+.1%}{whole}"
    if not report.candidates:
        note += "; nothing better was found" if report.chosen < 0 and not report.reached else "; nothing needs repair"
    return Chart(
        "candidates",
        title,
        "points",
        header,
        rows,
        x="extra_time",
        ys=("cosine",),
        label="candidate",
        tag="state",
        x_label="extra time, estimated",
        y_label="cosine",
        unit="cosine",
        note=note,
    )


def range_histogram(facts: TensorFacts | None) -> Chart:
    """How a tensor's values are spread, and which of them its range in use covers."""
    title, header = "values of a tensor", ("from", "to", "count")
    if facts is None:
        return Chart("range", title, "histogram", header, (), note="no layer's tensors are known yet")
    title = f"values of {short_name(facts.name)}"
    stored = f"stored as {facts.stored or 'integers'}"
    ends = math.isfinite(facts.low) and math.isfinite(facts.high)
    if ends:
        stored += f", range {short(facts.low)} to {short(facts.high)}"
    if math.isfinite(facts.seen_low) and math.isfinite(facts.seen_high):
        stored += f", calibration saw {short(facts.seen_low)} to {short(facts.seen_high)}"
    span = facts.last - facts.first
    if not facts.counts or not math.isfinite(span) or span < 0:
        return Chart("range", title, "histogram", header, (), note=f"no values are known; {stored}")
    count = len(facts.counts)
    edges = [facts.first + span * (place / count) for place in range(count)] + [facts.last]
    rows = tuple(zip(edges[:-1], edges[1:], facts.counts, strict=True))
    if ends:
        stored = f"{short(facts.outside, 'share')} of the values outside; {stored}"
    return Chart(
        "range",
        title,
        "histogram",
        header,
        rows,
        x="from",
        ys=("count",),
        x_label="value",
        y_label="values",
        marks=(Mark(facts.low, "low"), Mark(facts.high, "high")) if ends else (),
        note=stored,
    )


def _shown_tensor(facts: LayerFacts | None) -> TensorFacts | None:
    """Of a layer's tensors, the first that it makes with values to show, else the first it reads with some."""
    if facts is None:
        return None
    tensors = (*facts.makes, *facts.reads)
    return next((tensor for tensor in tensors if tensor.counts), next(iter(tensors), None))


def _worst(rows: Sequence[Sequence[Cell]], column: int) -> str:
    row = min((row for row in rows if finite([float(row[column])])), key=lambda row: float(row[column]))
    return f"{digits(float(row[column]))} at #{row[0]} {short_name(str(row[1]))}"


def _largest_first(share: float) -> float:
    return -share if math.isfinite(share) else math.inf
