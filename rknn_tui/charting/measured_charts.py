"""The chart of times by layer: estimated ones, and beside them what a board was measured to take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.estimates import CostTotals
from engine.summaries import LayerSummary
from rknn_tui.charting.axes import short
from rknn_tui.charting.chart import Cell, Chart, short_name
from rknn_tui.charting.cost_charts import Values, estimated_time_by_layer
from rknn_tui.graph.bars import milliseconds
from rknn_tui.graph.layer_values import NOTHING
from rknn_tui.symbols import drawable


def time_by_layer(layers: Sequence[LayerSummary], values: Values, totals: CostTotals | None = None) -> Chart:
    """The layers' times on the chip, the largest first; nothing where there is neither estimate nor measurement.

    Where layers were measured, the bars are what was measured, with the estimate of each beside it; those that were not
    are in the rows without a bar. `totals` tell of what an inference is estimated to take beside its layers.
    """
    known = [(layer, values.get(layer.name, NOTHING)) for layer in layers]
    known = [(layer, value) for layer, value in known if _is_known(value.measured) or _is_known(value.milliseconds)]
    measured = [(layer, value) for layer, value in known if _is_known(value.measured)]
    if not measured:
        return estimated_time_by_layer(layers, values, totals)
    old = any(value.measured_old for _, value in measured)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            *(layer.index, drawable(layer.name), drawable(layer.op), value.measured, value.milliseconds),
            f"~{milliseconds(value.milliseconds)}" if _is_known(value.milliseconds) else "",
            _source(value.measured, old=value.measured_old),
        )
        for layer, value in known
    )
    total = math.fsum(value.measured for _, value in measured)
    longest, most = max(measured, key=lambda one: one[1].measured)
    notes = [
        f"{short(total, 'ms')} measured in {len(measured)} of {len(layers)} layers",
        f"longest {short(most.measured, 'ms')} at #{longest.index} {short_name(longest.name)}",
    ]
    estimated = [value.milliseconds for _, value in measured if _is_known(value.milliseconds)]
    if estimated:
        notes.append(f"the same layers are estimated at {short(math.fsum(estimated), 'ms')}")
    if old:
        notes.append("measured before the last change")
    return Chart(
        "time",
        f"time by layer, measured{' before the last change' if old else ''}",
        "bars",
        ("layer", "name", "op", "measured_ms", "estimated_ms", "estimate", "source"),
        rows,
        ys=("measured_ms",),
        label="name",
        tag="estimate",
        y_label="~ estimated",
        unit="ms",
        note="; ".join(notes),
    )


def _is_known(number: float) -> bool:
    return math.isfinite(number)


def _source(measured: float, *, old: bool) -> str:
    if not _is_known(measured):
        return "estimated"
    return "measured before the last change" if old else "measured"
