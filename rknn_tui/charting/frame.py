"""A plot's frame, ticks and curves, drawn by plotext and given back as cells to draw more into."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from itertools import groupby

from rknn_tui.pieces import Line, Piece
from rknn_tui.symbols import Symbols

LEAST_COLUMNS, LEAST_ROWS = 12, 3
"""A smaller plot says nothing."""

_COLOUR = re.compile(r"\x1b\[(?:38;5;)?(\d+)m")
_PLAIN = str.maketrans("│┤├┼─┬┴└┘┌┐", "|+++-++++++")

Tick = tuple[float, str]
"""Where it lies on its axis, 0..1, and what is written there."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Places 0..1 on both axes, in a marker of plotext's or a character; joined by lines, or not."""

    xs: Sequence[float]
    ys: Sequence[float]
    marker: str
    role: str
    joined: bool = False


class Frame:
    """The cells of a plot: `columns` x `rows` of them inside the axes, from the upper left corner."""

    def __init__(self, cells: list[list[Piece]], left: int, rows: int) -> None:
        self._cells = cells
        self._left = left
        self.rows = rows
        self.columns = len(cells[0]) - left

    def lines(self) -> list[Line]:
        """The frame as lines, each of its width."""
        return [
            [("".join(text for text, _ in group), role) for role, group in groupby(line, key=lambda cell: cell[1])]
            for line in self._cells
        ]

    def free(self, column: int, row: int) -> bool:
        """Whether nothing is drawn there, or it lies outside."""
        inside = 0 <= column < self.columns and 0 <= row < self.rows
        return not inside or self._cells[row][self._left + column][0] == " "

    def put(self, column: int, row: int, text: str, role: str) -> None:
        """Write over what is there; what lies outside is left out."""
        for place, character in enumerate(text, start=column):
            if 0 <= place < self.columns and 0 <= row < self.rows:
                self._cells[row][self._left + place] = (character, role)

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """Column and row of places 0..1."""
        return round(x * (self.columns - 1)), round((1 - y) * (self.rows - 1))


def room(width: int, height: int, y_ticks: Sequence[Tick], x_label: str) -> tuple[int, int]:
    """Columns and rows inside the axes of such a frame; a name of the x axis is left out where lines are few."""
    return width - max((len(label) for _, label in y_ticks), default=0) - 1, height - 2 - _label_lines(height, x_label)


def framed(
    width: int,
    height: int,
    x_ticks: Sequence[Tick],
    y_ticks: Sequence[Tick],
    x_label: str,
    curves: Sequence[Curve],
    symbols: Symbols,
) -> Frame:
    """Axes with their ticks, and the curves. All labels are ASCII."""
    # 70 ms that only those pay who look at a chart.
    import plotext  # type: ignore[import-untyped]

    columns, rows = room(width, height, y_ticks, x_label)
    # Of two labels in a line, plotext writes either.
    by_row: dict[int, Tick] = {}
    for tick in y_ticks:
        by_row.setdefault(round(tick[0] * (rows - 1)), tick)
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.theme("clear")
    plotext.plotsize(width, rows + 2)
    plotext.xaxes(True, False)
    plotext.yaxes(True, False)
    plotext.xlim(0, 1)
    plotext.ylim(0, 1)
    plotext.xticks([at for at, _ in x_ticks], [label for _, label in x_ticks])
    plotext.yticks([at for at, _ in by_row.values()], [label for _, label in by_row.values()])
    # Without anything to draw, plotext leaves the ticks out.
    plotext.scatter([0.5], [0.5], marker=" ")
    for number, curve in enumerate(curves, start=1):
        draw = plotext.plot if curve.joined else plotext.scatter
        draw(list(curve.xs), list(curve.ys), marker=curve.marker, color=number)
    text = plotext.build()
    roles = {str(number): curve.role for number, curve in enumerate(curves, start=1)}
    plain = {} if symbols.unicode else _PLAIN
    lines = [_cells(line, width, roles, plain) for line in text.splitlines()]
    if _label_lines(height, x_label):
        lines.append(_cells(x_label.rjust(width), width, {}, plain))
    return Frame(lines, width - columns, rows)


def _label_lines(height: int, x_label: str) -> int:
    return 1 if x_label and height >= 10 else 0


def _cells(line: str, width: int, roles: dict[str, str], plain: dict[int, int]) -> list[Piece]:
    cells: list[Piece] = []
    role = "muted"
    for place, part in enumerate(_COLOUR.split(line)):
        if place % 2:
            # The code of a colour, or 0 where one ends.
            role = roles.get(part, "muted")
        else:
            cells += [(character, role) for character in part.translate(plain)]
    return (cells + [(" ", "muted")] * (width - len(cells)))[:width]
