"""What a board told of one layer, in words for its details."""

from __future__ import annotations

from collections.abc import Mapping

from engine.boards import BoardRun, MeasuredLayer
from rknn_tui.bench.board_runs import LayerOnBoard
from rknn_tui.charting.axes import short
from rknn_tui.graph.bars import digits
from rknn_tui.pieces import Piece
from rknn_tui.symbols import Symbols, drawable, fit

_DEVICE = 20
"""Cells of a board's id; of a longer one the end is shown."""

_CYCLES: Mapping[str, str] = {"cycles_npu": "NPU", "cycles_ddr": "DDR", "cycles_total": "in all"}


def measured_chunks(found: LayerOnBoard | None, symbols: Symbols) -> list[list[Piece]]:
    """Measured time and where it ran, the board's cosines against simulator and float model, and cycles and traffic;
    they name the board, and say so where that was before the last edits."""
    if found is None:
        return []
    chunks: list[list[Piece]] = []
    if found.lines:
        text = f"{short(found.milliseconds, 'ms')} on the {drawable(_places(found.lines), symbols)}"
        device = _device(found.where_timed, symbols)
        chunks.append([("measured", "muted"), *_old(found.old_time), (f" {text}", "text"), *device])
    chunks += _cosines(found, symbols)
    if cycles := _cycles(found.lines):
        chunks.append([("measured cycles ", "muted"), (cycles, "text")])
    traffic = [line.rw_kb for line in found.lines if line.rw_kb is not None]
    if traffic:
        chunks.append([("measured traffic ", "muted"), (f"{sum(traffic):.4g} KB", "text")])
    return chunks


def _cosines(found: LayerOnBoard, symbols: Symbols) -> list[list[Piece]]:
    chunks: list[list[Piece]] = []
    for other, pair in (("simulator", found.simulator), ("float model", found.float_model)):
        if pair is not None:
            chunks.append([("board", "muted"), *_old(found.old_cosine), (f" to {other} cos ", "muted")])
            chunks[-1].append((digits(pair.cosine) or "nan", "text"))
    if chunks:
        chunks[-1] += _device(found.where_compared, symbols)
    return chunks


def _places(lines: tuple[MeasuredLayer, ...]) -> str:
    return " and the ".join(dict.fromkeys(line.target or "board" for line in lines))


def _cycles(lines: tuple[MeasuredLayer, ...]) -> str:
    words = []
    for field, word in _CYCLES.items():
        numbers = [number for line in lines if (number := getattr(line, field)) is not None]
        if numbers:
            words.append(f"{word} {sum(numbers)}")
    return ", ".join(words)


def _device(where: BoardRun | None, symbols: Symbols) -> list[Piece]:
    device = drawable(where.device, symbols) if where is not None else ""
    return [(f" {fit(device, min(len(device), _DEVICE), symbols, keep_end=True)}", "muted")] if device else []


def _old(old: bool) -> list[Piece]:
    return [(" before the change", "warning")] if old else []
