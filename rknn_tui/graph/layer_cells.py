"""What stands in the cells of a layer's row, and of the row of a block that is folded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from rknn_tui.graph.bars import bar, flagged_digits, milliseconds, percent, size
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.palette import ROLES
from rknn_tui.pieces import Piece

_PRECISIONS = ("int8", "int16", "float16")


def precision_pieces(precision: str, changed: bool, width: int) -> list[Piece]:
    """The precision in `width` cells, in fewer letters where it has to be, and a '*' when it is not as saved."""
    room = width - changed
    short = precision.replace("float16", "fp16")
    joined = short.replace("int8", "i8").replace("int16", "i16")
    for word in (precision, short, joined, joined.replace("fp", "f"), joined.replace("fp", "f").replace("i", "")):
        if len(word) <= room:
            break
    else:
        word = "mixed"
    word = word[: max(room, 0)]
    finest = precision.rpartition("+")[2]
    pieces = [(word, finest if finest in ROLES else "text"), ("*" if changed and width > 0 else "", "changed")]
    return [*pieces, (" " * (width - len(word) - changed), "text")]


def number_piece(column: str, values: LayerValues, limit: float, *, all_estimated: bool = True) -> Piece:
    """The text of a number's column and its role; a cosine below `limit` is bad.

    Where not all times are estimates, each that is one has a '~', as has one that is only expected.
    """
    bad = values.entire < limit
    if column == "cosine":
        if values.fused and math.isnan(values.entire):
            return "fused ", "muted"
        return flagged_digits(values.entire, stale=values.stale, bad=bad), "bad" if bad else "text"
    if column == "single":
        return flagged_digits(values.single)[:-1].lstrip(), "muted"
    if column == "share":
        return percent(values.share), "text"
    if column == "board":
        # Against the simulator: another number than the one that the limit is for.
        return flagged_digits(values.board, stale=values.board_old), "muted" if values.board_old else "text"
    if column == "measured":
        return milliseconds(values.measured), "muted" if values.measured_old else "text"
    unsure = values.estimated and not all_estimated
    if column == "time":
        text = milliseconds(values.milliseconds, expected=values.expected and not unsure)
    else:
        text = size(values.bytes)
    return f"~{text}" if text and unsure else text, "text"


def bar_piece(values: LayerValues, low: float, limit: float, width: int, *, unicode: bool) -> Piece:
    """The entire cosine as a bar from `low` to 1."""
    return bar(values.entire, low, 1.0, width, unicode=unicode), "bad" if values.entire < limit else "muted"


def summary(values: Iterable[LayerValues]) -> LayerValues:
    """Several layers as one: all their precisions, the worst cosines, the sums of shares and times, the most memory."""
    parts = list(values)
    precisions = {word for part in parts for word in part.precision.split("+") if word}
    known = [word for word in _PRECISIONS if word in precisions] + sorted(precisions.difference(_PRECISIONS))
    return LayerValues(
        precision="+".join(known),
        changed=any(part.changed for part in parts),
        entire=min((part.entire for part in parts if part.entire == part.entire), default=math.nan),
        single=min((part.single for part in parts if part.single == part.single), default=math.nan),
        share=_sum(part.share for part in parts),
        milliseconds=_sum(part.milliseconds for part in parts),
        bytes=max((part.bytes for part in parts if part.bytes == part.bytes), default=math.nan),
        estimated=any(part.estimated for part in parts if part.milliseconds == part.milliseconds),
        stale=any(part.stale for part in parts),
        fused=bool(parts) and all(part.fused for part in parts),
        expected=any(part.expected for part in parts),
        measured=_sum(part.measured for part in parts),
        measured_old=any(part.measured_old for part in parts),
        board=min((part.board for part in parts if part.board == part.board), default=math.nan),
        board_entire=min(
            (part.board_entire for part in parts if part.board_entire == part.board_entire), default=math.nan
        ),
        board_old=any(part.board_old for part in parts),
    )


def _sum(numbers: Iterable[float]) -> float:
    known = [number for number in numbers if number == number]
    return math.fsum(known) if known else math.nan


def with_precision(values: LayerValues, precision: str) -> LayerValues:
    """The values, with the model's own word for the precision where they have none."""
    return values if values.precision or not precision else dataclasses.replace(values, precision=precision)
