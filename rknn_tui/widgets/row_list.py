"""A list of rows in aligned columns that fit its width."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from textual.message import Message
from textual.strip import Strip

from rknn_tui.palette import Palette
from rknn_tui.pieces import Line, Piece, strip_of
from rknn_tui.symbols import Symbols, drawable, fit, wrap
from rknn_tui.widgets.marked_list import MarkedList

Cells = Sequence[Piece]
"""A row's text in each column, and the role that it is drawn in."""


@dataclasses.dataclass(frozen=True)
class RowColumn:
    """`needs`: cells of its longest text; `least`: cells below which it is of no use (0: all that it needs).

    Of the columns that do not fit together, those with the highest `rank` are left out; room that is left goes to those
    with the lowest first. `right` puts numbers under each other; `keep_end` cuts the beginning of texts that are too
    long.
    """

    title: str
    needs: int
    least: int = 0
    rank: int = 0
    right: bool = False
    keep_end: bool = False

    @property
    def most(self) -> int:
        """Cells that it has a use for."""
        return max(self.needs, cell_len(self.title))


def column_widths(columns: Sequence[RowColumn], width: int) -> list[int]:
    """Cells of each column, 0 for those that are left out; with a blank between them they take at most `width`."""
    widths = [0] * len(columns)
    order = sorted(range(len(columns)), key=lambda place: columns[place].rank)
    room = max(width, 0) + 1
    for place in order:
        cells = min(columns[place].least or columns[place].most, columns[place].most)
        if cells > 0 and cells + 1 <= room:
            widths[place] = cells
            room -= cells + 1
    for place in order:
        if widths[place]:
            more = min(columns[place].most - widths[place], room)
            widths[place] += more
            room -= more
    return widths


class RowList(MarkedList):
    """Shows the rows given to `show`, and in the place of none what there is to do."""

    class Resized(Message):
        """The list has another size, and so may have what stands around it."""

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(palette, symbols, id=id)
        self._columns: tuple[RowColumn, ...] = ()
        self._count = 0
        self._cells: Callable[[int], Cells] = lambda row: ()
        self._empty = ""

    @property
    def row_count(self) -> int:
        return self._count

    @property
    def current(self) -> int | None:
        """The row under the cursor, None in an empty list."""
        return self.cursor if self._count else None

    @property
    def text(self) -> str:
        """All that the list holds, a line a row, without styles; the text in place of rows where there are none."""
        if not self._count:
            return "\n".join(self._empty_lines())
        return "\n".join("".join(text for text, _ in self.row_line(row)) for row in range(self._count))

    def show(
        self,
        columns: Sequence[RowColumn],
        count: int,
        cells: Callable[[int], Cells],
        *,
        cursor: int | None = None,
        empty: str = "",
    ) -> None:
        """Replace the rows; `cells` gives those of a row when it is drawn. Where the rows keep their places, only the
        cells that changed are drawn. `cursor` is the row to stand on, the same as before without it."""
        new, row = tuple(columns), self.cursor if cursor is None else cursor
        same = (new, count, empty) == (self._columns, self._count, self._empty)
        self._columns, self._count, self._cells, self._empty = new, count, cells, empty
        if same:
            self.redraw_changes()
            self.move_to(row)
        else:
            self.reset(row)

    def on_resize(self) -> None:
        self.post_message(self.Resized())

    def header(self) -> Line:
        """The titles over the columns, with the two cells of the marker; nothing over an empty list."""
        if not self._count:
            return []
        return [("  ", "text"), *self._placed([(column.title, "muted") for column in self._columns])]

    def row_line(self, row: int) -> Line:
        return self._placed(self._cells(row))

    def render_line(self, y: int) -> Strip:
        if not self._count and y < len(lines := self._empty_lines()):
            return strip_of([(f"  {lines[y]}", "text")], self.size.width, self.palette)
        return super().render_line(y)

    def _empty_lines(self) -> list[str]:
        text = "\n".join(drawable(part, self.symbols) for part in self._empty.splitlines())
        return wrap(text, max(self.size.width - 3, 10)) if text else []

    def _placed(self, cells: Cells) -> list[Piece]:
        line: list[Piece] = []
        widths = column_widths(self._columns, self.size.width - 2)
        for column, (text, role), width in zip(self._columns, cells, widths, strict=True):
            if not width:
                continue
            shown = drawable(text, self.symbols)
            if column.right and (missing := width - cell_len(shown)) > 0:
                shown = " " * missing + shown
            if line:
                line.append((" ", "text"))
            line.append((fit(shown, width, self.symbols, keep_end=column.keep_end), role))
        return line
