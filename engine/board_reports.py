"""What was measured on a board as text, and as plain data beside an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.boards import BoardMemory, BoardPerf, BoardRun, MeasuredLayer
from engine.summaries import to_plain
from engine.text_tables import NAME_CELLS, printable, shortened, table

_RULE_CELLS = 54
_MIB = 1 << 20
_PLACES = {"npu": "on the NPU", "cpu": "on the board's processor, not on the NPU"}


def measured_perf_text(
    found: BoardPerf, *, estimated: Mapping[str, float] | None = None, worst: int | None = None
) -> str:
    """The form of `eval_perf` (guide 3.5.9) with what was measured.

    `estimated` are microseconds by layer, shown beside the measured ones. `worst`: how many of the slowest layers are
    shown, slowest first; None is all, in the runtime's order.
    """
    lines = _head("Performance", found.where)
    rows = list(enumerate(found.layers, 1))
    if worst is not None:
        rows = sorted(rows, key=lambda row: -row[1].time_us)[:worst]
    if rows:
        lines += [_layers_table(rows, estimated), "=" * _RULE_CELLS]
    lines += [
        f" Total Time(us): {found.median_us:.1f} (median of {found.runs} runs after {found.warmup})",
        f" p95(us): {found.p95_us:.1f}  fastest: {found.fastest_us:.1f}  slowest: {found.slowest_us:.1f}",
        f" FPS: {1e6 / found.median_us:.2f}" if found.median_us > 0 else " FPS: -",
    ]
    if found.layers_us is not None:
        lines.append(f" Layers(us): {found.layers_us:.1f}, in a run of their own, which is slower")
    if found.pinned_hz is not None:
        lines.append(f" NPU clock: {found.pinned_hz / 1e6:.0f} MHz, pinned")
    return "\n".join([*lines, "=" * _RULE_CELLS, *_notes(found.where)])


def measured_memory_text(found: BoardMemory, *, model_bytes: int | None = None) -> str:
    """The form of `eval_memory` (guide 3.5.10) with what the runtime tells."""
    lines = [
        *_head("Memory Profile Info Dump", found.where),
        "",
        "NPU model memory detail(bytes):",
        f"    Total Weight Memory: {_mib(found.weight_bytes)}",
        f"    Total Internal Tensor Memory: {_mib(found.internal_bytes)}",
        f"    Total Memory: {_mib(found.total_bytes)}",
    ]
    further = (("DMA", found.dma_bytes), ("SRAM", found.sram_bytes), ("Free SRAM", found.sram_free_bytes))
    lines += [f"    {name} Memory: {_mib(size)}" for name, size in further if size is not None]
    if model_bytes is not None:
        lines += [
            "",
            "INFO: When evaluating memory usage, we need consider",
            f"the size of model, current model size is: {_mib(model_bytes)}",
        ]
    return "\n".join([*lines, "=" * _RULE_CELLS, *_notes(found.where)])


def where_text(where: BoardRun) -> str:
    """`on the NPU of rk3588 (515e9b401c060c0b), runtime 1.5.2`."""
    chip = f" of {where.chip}" if where.chip else ""
    place = f"on the NPU{chip}" if where.place == "npu" else f"on the processor{chip}, not on its NPU"
    return printable(f"{place} ({where.device}), {where.runtime}")


def measured_document(found: BoardPerf | BoardMemory) -> dict[str, Any]:
    """The object `measured` of engine.cost.schema."""
    plain: dict[str, Any] = to_plain(found)
    plain.pop("text", None)
    return {"kind": "measurement", **plain}


def _head(title: str, where: BoardRun) -> list[str]:
    rule = "=" * _RULE_CELLS
    texts = (title, f"MEASURED {_PLACES[where.place]}", f"{where.chip or 'unknown chip'}, {where.device}")
    return [rule, *(f"{printable(text):^{_RULE_CELLS}}".rstrip() for text in texts), rule]


def _layers_table(rows: list[tuple[int, MeasuredLayer]], estimated: Mapping[str, float] | None) -> str:
    titles = ["ID", "OpType", "DataType", "Target", "Time(us)", "FullName"]
    if estimated is not None:
        titles.insert(5, "Estimated(us)")
    cells = []
    for place, row in rows:
        line = [str(place), row.op, row.dtype or "-", row.target, f"{row.time_us:.1f}", row.layer or row.name]
        if estimated is not None:
            guess = estimated.get(row.layer or row.name)
            line.insert(5, "-" if guess is None else f"{guess:.1f}")
        cells.append((*map(printable, line[:-1]), shortened(printable(line[-1]), NAME_CELLS)))
    return table(tuple(titles), cells, numbers=(0, 4, 5) if estimated is not None else (0, 4))


def _notes(where: BoardRun) -> list[str]:
    return [f"note: {printable(note)}" for note in where.notes]


def _mib(size: int) -> str:
    return f"{size / _MIB:.2f} MiB"
