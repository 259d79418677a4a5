"""An estimate as text, CSV and plain data: what people and scripts read of it."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from engine.estimates import LayerEstimate, ModelEstimate
from engine.summaries import to_plain
from engine.text_tables import NAME_CELLS, counted, printable, shape_text, shortened

KB = 1 << 10
_RULE_CELLS = 54
# Titles stand where they are seen, however wide the table.
_TITLE_CELLS = 80
_FEWEST_NAME_CELLS = 16
# As in the toolkit's tables.
_SHAPES_SHOWN = 3
_MB = 1 << 20
_NUMBERS = (
    *("ID", "Cycles(DDR/NPU/Total)", "Time(us)", "MacUsage(%)", "Read/Write(KB)"),
    *("InUse(KB)", "Weights(KB)"),
)
# What a narrow terminal shows no longer, first to last.
_LEFT_OUT = (
    *("InputShape", "Cycles(DDR/NPU/Total)", "Read/Write(KB)", "Target", "OutputShape"),
    *("Certainty", "DataType", "MacUsage(%)"),
)


@dataclasses.dataclass(frozen=True)
class Estimated:
    """An estimate, the model's file, and the cfg file whose wishes it counts with."""

    model: str
    estimate: ModelEstimate
    cfg: str | None = None


def perf_text(estimate: ModelEstimate, *, worst: int | None = 0, width: int | None = None) -> str:
    """The form of `eval_perf` (guide 3.5.9): total time and frames a second, said to be an estimate.

    worst: how many of the slowest layers stand above the totals, slowest first; None is all, in execution order.
    width: cells of the terminal; a wider table leaves out columns, then the starts of names.
    """
    layers = _most(estimate, lambda layer: layer.time_us, worst)
    table = _fitting([_perf_row(*layer) for layer in layers], width) if layers else []
    totals = estimate.totals
    mac_usage = _shares([(layer.utilisation, layer.time_us) for layer in estimate.layers])
    lines = [
        f" Total Time(us): {totals.latency_us:.1f} (layers {totals.time_us:.1f}, overhead {totals.overhead_us:.1f})",
        f" FPS: {fps_text(totals.fps)}",
        f" MacUsage(%): {100 * mac_usage:.1f}",
        f" Cycles(DDR/NPU/Total): {totals.cycles_ddr}/{totals.cycles_npu}/{totals.cycles_total}",
        f" Read/Write(KB): {totals.bytes_read / KB:.1f}/{totals.bytes_written / KB:.1f}",
        f" Bound, of the layers' time: {_by_time(estimate, 'bound')}",
        f" Certainty, of the layers' time: {_by_time(estimate, 'certainty')}",
    ]
    if worst is not None and layers:
        share = sum(layer.time_us for _, layer in layers) / totals.time_us if totals.time_us else 0.0
        lines.insert(0, f" {_part(len(layers), estimate)} shown, the slowest: {_percent(share)} of their time")
    return _form("Performance", estimate, table, lines, width)


def memory_text(
    estimate: ModelEstimate,
    *,
    model_bytes: int | None = None,
    worst: int | None = 0,
    width: int | None = None,
) -> str:
    """The form of `eval_memory` (guide 3.5.10), said to be an estimate.

    model_bytes: the size of the model's package, where there is one. worst: how many of the layers with most memory in
    use stand above it, most first; None is all, in execution order. width: as in `perf_text`.
    """
    memory = estimate.memory
    layers = _most(estimate, lambda layer: layer.memory_bytes, worst)
    table = _fitting([_memory_row(*layer) for layer in layers], width) if layers else []
    lines = [
        "",
        "NPU model memory detail(bytes):",
        f"    Total Weight Memory: {_mib(memory.weight_bytes)}",
        f"    Total Internal Tensor Memory: {_mib(memory.internal_bytes)}",
        f"    Total Memory: {_mib(memory.total_bytes)}",
    ]
    if model_bytes is not None:
        lines += [
            "",
            "INFO: When evaluating memory usage, we need consider",
            f"the size of model, current model size is: {_mib(model_bytes)}",
        ]
    if layers:
        lines += ["", f"At once in use: {memory.lower_bound / KB:.1f} KB, without which no plan of the tensors can do"]
        if worst is not None:
            lines.append(f"{_part(len(layers), estimate)} shown, those with most in use")
    return _form("Memory Profile Info Dump", estimate, table, lines, width)


def layers_csv(cases: Sequence[Estimated]) -> str:
    """One line a layer under the names of LayerEstimate's fields, shapes as 1x3x480x480 with spaces between them.

    Of several estimates, all below each other, with their target and cfg first.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = [field.name for field in dataclasses.fields(LayerEstimate)]
    several = len(cases) > 1
    writer.writerow(["target", "cfg", *fields] if several else fields)
    for case in cases:
        for layer in case.estimate.layers:
            values = [getattr(layer, field) for field in fields]
            cells = [" ".join(map(shape_text, value)) if isinstance(value, tuple) else value for value in values]
            writer.writerow([case.estimate.target, case.cfg or "", *cells] if several else cells)
    return file.getvalue()


def document(cases: Sequence[Estimated], *, blocks: bool = False) -> dict[str, Any]:
    """The JSON document of `engine.cost.schema`; of several estimates the first, and all of them under 'estimates'.

    blocks: with the plan of the internal memory.
    """
    found = [_document(case, blocks) for case in cases]
    return found[0] if len(found) == 1 else {**found[0], "estimates": found}


def _document(case: Estimated, blocks: bool) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(case.estimate)
    if not blocks:
        del plain["memory"]["blocks"]
    return {"kind": plain.pop("kind"), "model": case.model, "cfg": case.cfg, **plain}


def report_head(title: str, settings: Sequence[str], cells: int) -> list[str]:
    """The first lines of a report so wide: what it is of, and that it is an estimate."""
    rule, middle = "=" * cells, min(cells, _TITLE_CELLS)
    return [rule, *(f"{line:^{middle}}".rstrip() for line in (title, "ESTIMATE, not a measurement")), *settings, rule]


def _form(title: str, estimate: ModelEstimate, table: list[str], lines: list[str], width: int | None) -> str:
    """The parts of a report below each other, as wide as its table."""
    cells = max([_RULE_CELLS, *map(len, table)])
    rule = "=" * (cells if width is None else min(cells, width))
    settings = f"{settings_text(estimate):^{min(len(rule), _TITLE_CELLS)}}".rstrip()
    body = [*table, rule] if table else []
    notes = [f"note: {printable(note)}" for note in estimate.notes]
    return "\n".join([*report_head(title, [settings], len(rule)), *body, *lines, rule, *notes])


def settings_text(estimate: ModelEstimate, *, target: bool = True) -> str:
    """For what the figures are: `rk3588, int8, 1 core at 1000 MHz, batch 1`."""
    name = f"{estimate.target}, " if target else ""
    return (
        f"{name}{estimate.built}, {counted(estimate.cores, 'core')} at {estimate.clock_mhz:g} MHz, "
        f"batch {estimate.batch}"
    )


def _perf_row(place: int, layer: LayerEstimate) -> dict[str, str]:
    return {
        "ID": str(place),
        "OpType": layer.op,
        "DataType": layer.precision.upper() or "-",
        "Target": {"cpu": "CPU", "": "-"}.get(layer.bound, "NPU"),
        "InputShape": _shapes(layer.in_shapes),
        "OutputShape": _shapes(layer.out_shapes),
        "Cycles(DDR/NPU/Total)": f"{layer.cycles_ddr}/{layer.cycles_npu}/{layer.cycles_total}",
        "Time(us)": f"{layer.time_us:.1f}",
        "MacUsage(%)": f"{100 * layer.utilisation:.1f}" if layer.macs else "-",
        "Read/Write(KB)": f"{layer.bytes_read / KB:.1f}/{layer.bytes_written / KB:.1f}",
        "Bound": layer.bound or "-",
        "Certainty": layer.certainty,
        "FullName": layer.name,
    }


def _memory_row(place: int, layer: LayerEstimate) -> dict[str, str]:
    return {
        "ID": str(place),
        "OpType": layer.op,
        "DataType": layer.precision.upper() or "-",
        "OutputShape": _shapes(layer.out_shapes),
        "Weights(KB)": f"{layer.weight_bytes / KB:.1f}",
        "InUse(KB)": f"{layer.memory_bytes / KB:.1f}",
        "FullName": layer.name,
    }


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """As the toolkit's tables have them: (1,3,480,480),(16,3,3,3),(16)."""
    shown = [f"({','.join(map(str, shape))})" for shape in shapes[:_SHAPES_SHOWN]]
    return ",".join(shown) + (",..." if len(shapes) > _SHAPES_SHOWN else "")


def _fitting(rows: list[dict[str, str]], width: int | None) -> list[str]:
    """The table, as many of its columns as `width` cells hold; names, which stand last, give way a little first."""
    rows = [{key: printable(cell) for key, cell in row.items()} for row in rows]
    *columns, last = rows[0]
    cells = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    names = min(cells[last], NAME_CELLS)
    if width is not None:
        for left_out in (None, *_LEFT_OUT):
            columns = [key for key in columns if key != left_out]
            room = width - sum(cells[key] + 2 for key in columns)
            if room >= min(names, _FEWEST_NAME_CELLS):
                break
        names = max(min(names, room), len(last))
    drawn = [{key: key for key in rows[0]}, *({**row, last: shortened(row[last], names)} for row in rows)]
    lines = [
        "  ".join(
            row[key].rjust(cells[key]) if key in _NUMBERS else row[key].ljust(cells[key]) for key in (*columns, last)
        ).rstrip()
        for row in drawn
    ]
    return [lines[0], "=" * max(map(len, lines)), *lines[1:]]


def _most(
    estimate: ModelEstimate, size: Callable[[LayerEstimate], float], count: int | None
) -> list[tuple[int, LayerEstimate]]:
    """The `count` largest layers, largest first, with their places in execution order from 1 on; None is all of them in
    that order."""
    layers = list(enumerate(estimate.layers, 1))
    return layers if count is None else sorted(layers, key=lambda layer: -size(layer[1]))[:count]


def _by_time(estimate: ModelEstimate, field: str) -> str:
    """`compute 70 %, memory 30 %`: shares of the time by what a field of the layers says, largest first."""
    sums: dict[str, float] = defaultdict(float)
    for layer in estimate.layers:
        sums[getattr(layer, field)] += layer.time_us
    whole = sum(sums.values())
    parts = sorted(((time, name) for name, time in sums.items() if time > 0), reverse=True)
    return ", ".join(f"{name or 'nothing'} {_percent(time / whole)}" for time, name in parts) or "-"


def _shares(values: Sequence[tuple[float, float]]) -> float:
    """The mean of the first of each pair, weighted by the second."""
    whole = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / whole if whole else 0.0


def fps_text(value: float) -> str:
    """Frames a second, with as many digits as mean something."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or not share else "<1 %"


def _part(count: int, estimate: ModelEstimate) -> str:
    return f"{count} of {counted(len(estimate.layers), 'layer')}"


def _mib(size: int) -> str:
    return f"{size / _MB:.2f} MiB"
