"""Charts of what a model takes on a chip: by layer, over the run, by operator, and by target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.errors import EngineError
from engine.estimates import CostTotals
from engine.summaries import LayerSummary
from rknn_tui.charting.axes import short
from rknn_tui.charting.chart import Cell, Chart, Kind, short_name
from rknn_tui.graph.layer_values import BOUNDS, NOTHING, LayerValues
from rknn_tui.symbols import drawable

Values = Mapping[str, LayerValues]


def estimated_time_by_layer(layers: Sequence[LayerSummary], values: Values, totals: CostTotals | None = None) -> Chart:
    """The layers' times on the chip, the largest first; nothing where there is neither estimate nor measurement.

    `totals` tell of what an inference takes beside its layers.
    """
    beside = ""
    if totals is not None:
        beside = f", with overhead {short(totals.latency_us / 1000, 'ms')}, {short(totals.fps)} a second"
    return _by_layer(
        "time",
        "time by layer",
        "bars",
        "ms",
        _known(layers, values, lambda value: value.milliseconds),
        lambda total, largest: f"{short(total, 'ms')} in all{beside}; longest {largest}",
    )


def memory_over_run(layers: Sequence[LayerSummary], values: Values, totals: CostTotals | None = None) -> Chart:
    """The memory that is in use while each layer runs; nothing where there is neither estimate nor measurement.

    `totals` tell of what else there is to hold: the weights, and the plan of the tensors between layers.
    """
    beside = ""
    if totals is not None:
        weights, plan = short(totals.weight_bytes, "bytes"), short(totals.internal_bytes, "bytes")
        beside = f"; planned {plan}, and {weights} of weights"
    return _by_layer(
        "memory",
        "memory over the run",
        "steps",
        "bytes",
        _known(layers, values, lambda value: value.bytes),
        lambda total, largest: f"peak {largest}{beside}",
    )


def time_by_operator(layers: Sequence[LayerSummary], values: Values) -> Chart:
    """The times of the layers of each operator together, by what bounds them; the largest first."""
    title, header = "time by operator", ("operator", "op", "bound", "layers", "milliseconds", "share", "source")
    groups: dict[tuple[str, str], list[LayerValues]] = {}
    for layer in layers:
        value = values.get(layer.name, NOTHING)
        if math.isfinite(value.milliseconds):
            groups.setdefault((drawable(layer.op), value.bound), []).append(value)
    sums = {key: _sum(value.milliseconds for value in group) for key, group in groups.items()}
    total = _sum(sums.values())
    rows = tuple(
        (
            *(f"{op} {bound}".rstrip(), op, bound, len(groups[op, bound]), time, time / total if total else 0.0),
            "estimated" if any(value.estimated for value in groups[op, bound]) else "measured",
        )
        for (op, bound), time in sorted(sums.items(), key=lambda item: -item[1])
    )
    if not rows:
        return Chart("operators", title, "bars", header, (), note="no estimate yet")
    bounds: dict[str, float] = {}
    for (_, bound), time in sums.items():
        bounds[bound] = bounds.get(bound, 0.0) + time
    told = [
        f"{short(time / total if total else 0.0, 'share')} {BOUNDS.get(bound, bound)}"
        for bound, time in sorted(bounds.items(), key=lambda item: -item[1])
        if bound and time
    ]
    return Chart(
        "operators",
        f"{title}, {' and '.join(sorted({str(row[6]) for row in rows}))}",
        "bars",
        header,
        rows,
        ys=("milliseconds",),
        label="operator",
        y_label="milliseconds",
        unit="ms",
        note="; ".join([f"{short(total, 'ms')} in all", *told]),
    )


def time_by_target(known: Mapping[str, CostTotals | EngineError], target: str) -> Chart:
    """What the model as it is would take on each target, the longest time first; `target` is the one in use."""
    title = "time by target"
    header = (
        "target",
        "milliseconds",
        "latency_ms",
        "fps",
        "weight_bytes",
        "internal_bytes",
        "memory",
        "state",
        "source",
    )
    rows = tuple(
        (
            *(name, found.time_us / 1000, found.latency_us / 1000, found.fps),
            *(found.weight_bytes, found.internal_bytes),
            short(found.weight_bytes + found.internal_bytes, "bytes"),
            "in use" if name == target else "",
            "estimated",
        )
        for name, found in known.items()
        if isinstance(found, CostTotals) and math.isfinite(found.time_us)
    )
    refused = [f"{name}: {found.what}" for name, found in known.items() if isinstance(found, EngineError)]
    if not rows:
        return Chart("targets", title, "bars", header, (), note="; ".join(refused) or "no estimate yet")
    fastest = min(rows, key=lambda row: float(row[1]))
    notes = [
        f"{row[0]} in use: {short(float(row[1]), 'ms')}, with overhead {short(float(row[2]), 'ms')}, "
        f"{short(float(row[3]))} a second"
        for row in rows
        if row[7]
    ]
    notes.append(f"fastest: {fastest[0]}, {short(float(fastest[1]), 'ms')}")
    return Chart(
        "targets",
        f"{title}, estimated",
        "bars",
        header,
        rows,
        ys=("milliseconds",),
        label="target",
        tag="memory",
        y_label="milliseconds, and memory in all",
        unit="ms",
        note="; ".join([*notes, *refused]),
    )


def _known(
    layers: Iterable[LayerSummary], values: Values, number: Callable[[LayerValues], float]
) -> tuple[tuple[Cell, ...], ...]:
    found = ((layer, values.get(layer.name, NOTHING)) for layer in layers)
    return tuple(
        (
            *(layer.index, drawable(layer.name), drawable(layer.op), number(value)),
            "estimated" if value.estimated else "measured",
        )
        for layer, value in found
        if math.isfinite(number(value))
    )


def _by_layer(
    id: str, title: str, kind: Kind, unit: str, rows: tuple[tuple[Cell, ...], ...], say: Callable[[float, str], str]
) -> Chart:
    header = ("layer", "name", "op", "milliseconds" if unit == "ms" else unit, "source")
    if not rows:
        return Chart(id, title, kind, header, (), note="no estimate yet")
    sources = sorted({str(row[4]) for row in rows})
    largest = max(rows, key=lambda row: float(row[3]))
    named = f"{short(float(largest[3]), unit)} at #{largest[0]} {short_name(str(largest[1]))}"
    return Chart(
        id,
        f"{title}, {' and '.join(sources)}",
        kind,
        header,
        rows,
        x="layer",
        ys=(header[3],),
        label="name",
        tag="source" if len(sources) > 1 else "",
        x_label="layer, as executed",
        y_label=header[3],
        unit=unit,
        note=say(_sum(float(row[3]) for row in rows), named),
    )


def _sum(values: Iterable[float]) -> float:
    """The sum; infinite where it is more than a double holds."""
    found = list(values)
    return math.fsum(found) if math.isfinite(sum(found)) else math.inf
