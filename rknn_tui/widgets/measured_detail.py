"""What a board told of one layer, in words for its details."""

from __future__ import annotations

from collections.abc import Mapping

from engine.boards import BoardRun, MeasuredLayer
from engine.summaries import ErrorPair
from rknn_tui.bench.board_runs import LayerOnBoard
from rknn_tui.charting.axes import short
from rknn_tui.graph.bars import digits
from rknn_tui.pieces import Piece
from rknn_tui.symbols import Symbols, drawable, fit

_DEVICE = 20
"""Cells of a board's id; of a longer one the end is shown."""

_CYCLES: Mapping[str, str] = {"cycles_npu": "NPU", "cycles_ddr": "DDR", "cycles_total": "in all"}


def measured_chunks(found: LayerOnBoard | None, symbols: Symbols) -> list[list[Piece]]:
    """Measured time with place and cycles, then the board's cosines against simulator and float model; each names what
    it was measured on and whether that was before the last edits."""
    if found is None:
        return []
    chunks: list[list[Piece]] = []
    if found.lines:
        text = f"{short(found.milliseconds, 'ms')} on the {_places(found.lines)}"
        chunks.append([("measured ", "muted"), (text, "text"), *_where(found.where_timed, found.old_time, symbols)])
        if cycles := _cycles(found.lines):
            chunks.append([("measured cycles ", "muted"), (cycles, "text")])
        traffic = [line.rw_kb for line in found.lines if line.rw_kb is not None]
        if traffic:
            chunks.append([("measured traffic ", "muted"), (f"{sum(traffic):.4g} KB", "text")])
    cosines = [
        *_cosine("against the simulator", found.simulator),
        *_cosine("against the float model", found.float_model),
    ]
    if cosines:
        cosines[-1] += _where(found.where_compared, found.old_cosine, symbols)
        chunks += cosines
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


def _cosine(label: str, pair: ErrorPair | None) -> list[list[Piece]]:
    return [] if pair is None else [[(f"board {label} cos ", "muted"), (digits(pair.cosine) or "nan", "text")]]


def _where(where: BoardRun | None, old: bool, symbols: Symbols) -> list[Piece]:
    device = drawable(where.device, symbols) if where is not None else ""
    pieces: list[Piece] = [(f" {fit(device, min(len(device), _DEVICE), symbols, keep_end=True)}", "muted")]
    return [*(pieces if device else []), *([(" before the change", "warning")] if old else [])]
