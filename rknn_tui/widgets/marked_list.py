"""A list of any length with a one-cell cursor: the base of the layer table and of the choices in other screens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from rknn_tui.palette import Palette
from rknn_tui.pieces import Line, changed_span, strip_of
from rknn_tui.symbols import Symbols, drawable, fit

_MOST_STRIPS = 1000


class MarkedList(Widget):
    """Draws only the rows in sight, and on a cursor move only the marker's two cells.

    It keeps its own scroll offset and never animates: over a slow link, a page drawn in ten steps costs ten pages.
    Beside the cursor, a row has one cell for a mark. Subclasses give `row_count` and `row_line`, and `marked_row` where
    rows can be marked.
    """

    DEFAULT_CSS = "MarkedList { height: 1fr; width: 1fr; }"

    class Moved(Message):
        """The cursor is on another row."""

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.palette = palette
        self.symbols = symbols
        self.cursor = 0
        self.top = 0
        self._strips: dict[int, Strip] = {}
        self._drawn: dict[int, Line] = {}

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def row_line(self, row: int) -> Line:
        """A row's text, without the two cells of the marker and the mark."""
        raise NotImplementedError

    def marked_row(self, row: int) -> bool:
        """Whether the row carries a mark."""
        return False

    @property
    def page(self) -> int:
        """Rows in sight."""
        return max(self.size.height, 1)

    def move_to(self, row: int) -> None:
        """Put the cursor on `row`, or the nearest there is, and scroll just far enough; after a jump of more than a
        page there are rows around it."""
        row = max(0, min(row, self.row_count - 1))
        if row == self.cursor:
            return
        old, self.cursor = self.cursor, row
        if not self._scroll_into_sight():
            for changed in (old, row):
                self.refresh(Region(0, changed - self.top, 1, 1))
        self.post_message(self.Moved())

    def move_by(self, rows: int) -> None:
        """Move the cursor by `rows`."""
        self.move_to(self.cursor + rows)

    def reset(self, cursor: int = 0) -> None:
        """Draw everything anew, after the rows became others."""
        self._strips.clear()
        self._drawn.clear()
        self.cursor = max(0, min(cursor, self.row_count - 1))
        self._scroll_into_sight()
        self.refresh()
        self.post_message(self.Moved())

    def redraw_changes(self) -> None:
        """Draw the cells in sight that differ from what was drawn, after values in the same rows changed."""
        drawn = self._drawn
        self._strips, self._drawn = {}, {}
        for row in self._in_sight():
            self._redraw(row, drawn.get(row, ()))

    def redraw_rows(self, rows: Iterable[int]) -> None:
        """Draw the cells in sight of these rows that differ from what was drawn."""
        sight = self._in_sight()
        for row in rows:
            self._strips.pop(row, None)
            drawn = self._drawn.pop(row, ())
            if row in sight:
                self._redraw(row, drawn)

    def _redraw(self, row: int, drawn: Line) -> None:
        # Rows that stay as they are keep their place here: they are on the screen, and may change next time.
        line = self._drawn[row] = self.row_line(row)
        span = changed_span(drawn, line, self.size.width - 2)
        if span is not None:
            self.refresh(Region(2 + span[0], row - self.top, span[1] - span[0], 1))

    @contextlib.contextmanager
    def changing_marks(self) -> Iterator[None]:
        """Draw the marks in sight that are others after what is done inside."""
        top, before = self.top, [row for row in self._in_sight() if self.marked_row(row)]
        yield
        if self.top == top:
            after = {row for row in self._in_sight() if self.marked_row(row)}
            for row in after.symmetric_difference(before):
                self.refresh(Region(1, row - top, 1, 1))

    def _in_sight(self) -> range:
        # A list behind another pane has no size.
        if self.size.width < 3:
            return range(0)
        return range(self.top, min(self.top + self.page, self.row_count))

    def render_line(self, y: int) -> Strip:
        row = self.top + y
        width = self.size.width
        if row >= self.row_count or width < 3:
            return Strip.blank(width, self.palette["text"])
        body = self._strips.get(row)
        if body is None:
            if len(self._strips) >= _MOST_STRIPS:
                self._strips.clear()
                self._drawn.clear()
            line = self._drawn[row] = self.row_line(row)
            body = self._strips[row] = strip_of(line, width - 2, self.palette)
        marker = self.symbols.marker if row == self.cursor else " "
        mark = self.symbols.mark if self.marked_row(row) else " "
        return Strip([*strip_of([(marker, "marker"), (mark, "mark")], 2, self.palette), *body], width)

    def on_resize(self) -> None:
        self._strips.clear()
        self._drawn.clear()
        self._scroll_into_sight()
        self.refresh()

    def on_mouse_scroll_down(self) -> None:
        self.move_by(3)

    def on_mouse_scroll_up(self) -> None:
        self.move_by(-3)

    def _scroll_into_sight(self) -> bool:
        """True when everything has to be drawn, since other rows came into sight."""
        last = max(self.row_count - self.page, 0)
        near = self.top - self.page <= self.cursor < self.top + 2 * self.page
        top = self.top if near else self.cursor - self.page // 3
        top = max(min(max(top, self.cursor - self.page + 1), self.cursor, last), 0)
        if top == self.top:
            return False
        self.top = top
        self.refresh()
        return True


class ChoiceList(MarkedList):
    """Rows of two columns: what is chosen by its id, and what it means."""

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(palette, symbols, id=id)
        self._choices: list[tuple[str, str, str]] = []

    @property
    def row_count(self) -> int:
        return len(self._choices)

    @property
    def chosen(self) -> str | None:
        """The id under the cursor, or None in an empty list."""
        return self._choices[self.cursor][0] if self._choices else None

    def show(self, choices: list[tuple[str, str, str]]) -> None:
        """Replace the rows: (id, left column, right column); the left column is as wide as its longest text."""
        if choices != self._choices:
            self._choices = choices
            self.reset()

    def row_line(self, row: int) -> Line:
        _, left, right = self._choices[row]
        width = min(max(len(text) for _, text, _ in self._choices), max(self.size.width - 4, 1))
        if not right:
            return [(fit(drawable(left, self.symbols), self.size.width - 2, self.symbols, keep_end=True), "text")]
        return [
            (fit(drawable(left, self.symbols), width, self.symbols), "key"),
            ("  ", "text"),
            (fit(drawable(right, self.symbols), max(self.size.width - 4 - width, 0), self.symbols), "text"),
        ]
