"""Estimates of one model on several targets or with several cfgs, side by side in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.cost.reports import KB, Estimated, fps_text, report_head, settings_text
from engine.estimates import LayerEstimate
from engine.text_tables import NAME_CELLS, printable, shortened

_Size = Callable[[LayerEstimate], float]
# Where a terminal is too narrow for the names.
_SHORT = {"int8": "i8", "int16": "i16", "float16": "f16"}


def perf_side_by_side(cases: Sequence[Estimated], *, worst: int | None = 0, width: int | None = None) -> str:
    """Microseconds of each layer in each estimate, then the totals; `worst` and `width` as in `perf_text`.

    A layer that not all of them compute in the same precision has it with its time.
    """
    totals = [case.estimate.totals for case in cases]
    rows = {
        "Layers(us)": [f"{total.time_us:.1f}" for total in totals],
        "Overhead(us)": [f"{total.overhead_us:.1f}" for total in totals],
        "Total Time(us)": [f"{total.latency_us:.1f}" for total in totals],
        "FPS": [fps_text(total.fps) for total in totals],
    }
    order = slowest_layers(cases, worst)
    return _table("Performance: microseconds by layer", cases, order, lambda layer: layer.time_us, rows, width)


def memory_side_by_side(cases: Sequence[Estimated], *, worst: int | None = 0, width: int | None = None) -> str:
    """KB in use by layer in each estimate, then the totals; as `perf_side_by_side`."""
    memories = [case.estimate.memory for case in cases]
    rows = {
        "Weights(KB)": [f"{memory.weight_bytes / KB:.1f}" for memory in memories],
        "Internal(KB)": [f"{memory.internal_bytes / KB:.1f}" for memory in memories],
        "Total(KB)": [f"{memory.total_bytes / KB:.1f}" for memory in memories],
    }
    order = largest_layers(cases, worst)
    return _table("Memory: KB in use by layer", cases, order, lambda layer: layer.memory_bytes / KB, rows, width)


def slowest_layers(cases: Sequence[Estimated], count: int | None) -> list[str]:
    """The names of the `count` layers that take longest in any of the estimates, longest first; None is all of them, in
    execution order."""
    return _order(cases, lambda layer: layer.time_us, count)


def largest_layers(cases: Sequence[Estimated], count: int | None) -> list[str]:
    """As `slowest_layers`, by the memory in use while a layer runs."""
    return _order(cases, lambda layer: layer.memory_bytes, count)


def labels(cases: Sequence[Estimated]) -> list[str]:
    """What tells the estimates apart: target, cfg, or both."""
    targets = len({case.estimate.target for case in cases}) > 1
    cfgs = len({case.cfg for case in cases}) > 1
    names = {case.cfg: _cfg_name(case.cfg) for case in cases}
    alike = len(set(names.values())) < len(names)
    found = []
    for case in cases:
        parts = [case.estimate.target] if targets or not cfgs else []
        parts += [(case.cfg or "") if alike else names[case.cfg]] if cfgs else []
        found.append(printable(" ".join(parts)))
    return found


def _cfg_name(path: str | None) -> str:
    name = Path(path or "").name
    return name.removesuffix(".cfg").removesuffix(".quantization") or name


def _order(cases: Sequence[Estimated], size: _Size, count: int | None) -> list[str]:
    order: list[str] = []
    sizes: dict[str, float] = {}
    for case in cases:
        place = 0
        for layer in case.estimate.layers:
            if layer.name not in sizes:
                order.insert(place, layer.name)
            # Nearly always it is the next one.
            elif order[place : place + 1] != [layer.name]:
                place = order.index(layer.name)
            place += 1
            sizes[layer.name] = max(sizes.get(layer.name, 0.0), size(layer))
    return order if count is None else sorted(order, key=lambda name: -sizes[name])[:count]


def _table(
    title: str,
    cases: Sequence[Estimated],
    order: Sequence[str],
    size: _Size,
    totals: dict[str, list[str]],
    width: int | None,
) -> str:
    """A row a layer with its size in each estimate, then the totals."""
    heads = labels(cases)
    layers = [{layer.name: layer for layer in case.estimate.layers} for case in cases]
    names = [printable(name) for name in order]
    least = max(map(len, totals))
    for short in (False, True):
        rows = [_row([of.get(name) for of in layers], size, short) for name in order]
        cells = [max(map(len, column)) for column in zip(heads, *rows, *totals.values(), strict=True)]
        room = NAME_CELLS if width is None else width - sum(cells) - 2 * len(cells)
        if room >= least:
            break
    room = min(max(room, least), max(map(len, ("FullName", *names, *totals))))

    def line(name: str, row: Sequence[str]) -> str:
        return "  ".join([shortened(name, room).ljust(room), *(c.rjust(w) for c, w in zip(row, cells, strict=True))])

    head = line("FullName", heads)
    several = len({case.estimate.target for case in cases}) > 1
    settings = [
        f" {label}: {settings_text(case.estimate, target=not several)}"
        for label, case in zip(heads, cases, strict=True)
    ]
    widest = max(map(len, (*settings, title)))
    rule = "=" * max(len(head), widest if width is None else min(widest, width))
    body = [*map(line, names, rows), rule] if names else []
    table = [head, rule, *body, *(line(*total) for total in totals.items()), rule]
    return "\n".join([*report_head(title, settings, len(rule)), *table, *_notes(cases, heads)])


def _row(layers: Sequence[LayerEstimate | None], size: _Size, short: bool) -> list[str]:
    """A layer's size in each estimate, `-` where there is no such layer; with its precision where that differs."""
    several = len({layer.precision for layer in layers if layer}) > 1
    cells = []
    for layer in layers:
        cell = "-" if layer is None else f"{size(layer):.1f}"
        if layer is not None and several:
            words = layer.precision.split("+")
            cell = f"{'+'.join(_SHORT.get(word, word) if short else word for word in words)} {cell}".strip()
        cells.append(cell)
    return cells


def _notes(cases: Sequence[Estimated], heads: Sequence[str]) -> list[str]:
    """What is to know of the estimates, each note once, with what it is of where that is not all of them."""
    concerned: dict[str, list[str]] = {}
    for label, case in zip(heads, cases, strict=True):
        for note in case.estimate.notes:
            concerned.setdefault(note, []).append(label)
    ordered = sorted(concerned.items(), key=lambda of: len(of[1]) < len(cases))
    places = [f" on {', '.join(of)}" if len(of) < len(cases) else "" for _, of in ordered]
    return [f"note{place}: {printable(note)}" for place, (note, _) in zip(places, ordered, strict=True)]
