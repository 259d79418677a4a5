"""What a chart is: a table of plain values, and how to draw it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from rknn_tui.symbols import drawable

Cell = str | int | float
Kind = Literal["lines", "steps", "bars", "points", "histogram"]

_NAME_CHARACTERS = 40
"""Of a name in a sentence, where the end tells most."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value on the x axis that is worth a rule of its own, and what it is."""

    value: float
    word: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """`rows` under `header`, drawn as `kind` says; without rows, `note` says why there are none.

    kind: 'lines' draws the columns `ys` over `x`, the lowest value where several rows share a place; 'steps' fills what
    is under its one column, the highest value where rows share a place; 'bars' draws a bar a row, the largest first;
    'points' writes a row's `label` where it lies; 'histogram' counts in `ys` what lies between the first two columns.

    `label` is the column that names a row, `tag` one with a word for it: for points 'chosen', 'in force' and
    'base' are meant.
    `unit` is 'share' (0..1), 'bytes', 'cosine', or what is written after a number. `limit` is a y with its own rule
    (NaN: none). Columns have their names in the CSV; `x_label` and `y_label` are for people.
    """

    id: str
    title: str
    kind: Kind
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    x: str = ""
    ys: tuple[str, ...] = ()
    label: str = ""
    tag: str = ""
    x_label: str = ""
    y_label: str = ""
    unit: str = ""
    marks: tuple[Mark, ...] = ()
    limit: float = math.nan
    note: str = ""

    def numbers(self, column: str) -> list[float]:
        """A column of numbers, row by row."""
        place = self.header.index(column)
        return [float(row[place]) for row in self.rows]

    def texts(self, column: str) -> list[str]:
        """A column as words; empty ones where there is no such column."""
        if not column:
            return [""] * len(self.rows)
        place = self.header.index(column)
        return [str(row[place]) for row in self.rows]


def short_name(name: str) -> str:
    """A layer's or tensor's name as it stands in a sentence: where it is long, its end."""
    name = drawable(name)
    return name if len(name) <= _NAME_CHARACTERS else f"..{name[2 - _NAME_CHARACTERS :]}"
