"""What the screens of rows have in common: titles over a list, the list, and more about its current row."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.geometry import Size
from textual.timer import Timer

from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.bench.job import Job
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.screens.base import WorkScreen
from rknn_tui.symbols import drawable, fit, wrap
from rknn_tui.widgets.row_list import Cells, RowColumn, RowList
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

LOW = 20
"""Lines below which only the most needed is shown beside the rows."""
WIDE = 120
"""Cells from which two parts stand beside each other."""
SECONDS_OF_REST = 0.15
"""What is told of the current row follows once the cursor rests: a held key then costs the marker's bytes alone."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows for a list: see RowList.show. `empty` is shown where there are none, and says what to do."""

    columns: Sequence[RowColumn]
    count: int
    cells: Callable[[int], Cells]
    empty: str


class RowScreen(WorkScreen):
    """Shows the rows of `table`, and below them `about` the current one. Call `refresh_rows` when they are others."""

    def __init__(self, app: Workshop) -> None:
        super().__init__(app)
        self._rest: Timer | None = None
        self._held = contextlib.ExitStack()

    def compose_body(self) -> ComposeResult:
        yield TextLines(self.palette, id="columns")
        yield RowList(self.palette, self.symbols, id="rows")
        yield TextLines(self.palette, id="about")

    @property
    def composed(self) -> bool:
        """Whether there are parts to show things in."""
        return bool(self.query("#rows"))

    @property
    def rows(self) -> RowList:
        """The list."""
        return self.query_one("#rows", RowList)

    def table(self) -> Table:
        """The rows as they are now."""
        raise NotImplementedError

    def about(self, size: Size) -> list[Line]:
        """Lines about the current row, for the area below the list."""
        return []

    def on_mount(self) -> None:
        # Textual paints a new screen three times until its styles and sizes are settled: hold that back.
        self._held.enter_context(self.app.batch_update())
        self.call_after_refresh(self.call_after_refresh, self._held.close)
        self._choose_layout(self.app.size)

    def on_unmount(self) -> None:
        self._held.close()

    def on_resize(self, event: events.Resize) -> None:
        self._choose_layout(event.size)

    def _choose_layout(self, size: Size) -> None:
        self.set_class(size.height < LOW, "low")
        self.set_class(size.width >= WIDE, "wide")

    def on_row_list_resized(self) -> None:
        self.line("columns").show([self.rows.header()])
        self.show_about()

    def show_frame(self) -> None:
        super().show_frame()
        self.refresh_rows()

    def refresh_rows(self, cursor: int | None = None) -> None:
        """Bring the title, the rows and what is told of the current one up to date; only cells that changed are drawn.

        `cursor` is the row to stand on, the same as before without it.
        """
        if not self.composed:
            return
        self.line("title").show([self.title_line(self.app.size)])
        table = self.table()
        self.rows.show(table.columns, table.count, table.cells, cursor=cursor, empty=table.empty)
        self.line("columns").show([self.rows.header()])
        self.show_about()
        self.show_keys()

    def numbers_changed(self) -> None:
        self.refresh_rows()

    def progress_changed(self) -> None:
        self.refresh_rows()

    def show_about(self) -> None:
        """Tell of the current row."""
        area = self.line("about")
        if area.display:
            area.show(self.about(area.size))

    def on_marked_list_moved(self) -> None:
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(SECONDS_OF_REST, self.show_about)

    def leave_with(self, reply: Reply) -> Reply:
        """Go on in the tune screen, and tell the reply there; a refusal is told here."""
        if isinstance(reply, Notice) and reply.level != "info":
            return reply
        self.app.go_to("tune")
        if reply is not None:
            self.app.tune.tell(reply)
        return None

    def wrapped(self, label: str, text: str, width: int, role: str = "text") -> list[Line]:
        """A text from outside in lines of `width` cells, with a label before the first; nothing for an empty text."""
        room = max(width - len(label) - 2, 10)
        parts = wrap("\n".join(drawable(part, self.symbols) for part in text.splitlines()), room) if text else []
        return [
            [(f" {label if not count else '':<{len(label)}} ", "muted"), (part, role)]
            for count, part in enumerate(parts)
        ]

    def cut(self, lines: list[Line], height: int) -> list[Line]:
        """The lines that fit, with a sign where some do not."""
        if len(lines) <= height or height < 1:
            return lines[: max(height, 0)]
        return [*lines[: height - 1], [*lines[height - 1], (f" {self.symbols.ellipsis}", "muted")]]

    def joined(self, facts: Sequence[Piece], width: int) -> Line:
        """Facts two blanks apart, as many as fit; the first one always, cut if need be."""
        line: list[Piece] = []
        for text, role in facts:
            shown = drawable(text, self.symbols)
            if not line:
                line.append((f" {fit(shown, min(cell_len(shown), width - 1), self.symbols)}", role))
            elif shown and length(line) + 2 + cell_len(shown) <= width:
                line += [("  ", "text"), (shown, role)]
        return line


class DetailScreen(RowScreen):
    """Tells of the current row only when asked to, in as many lines as that takes."""

    def __init__(self, app: Workshop) -> None:
        super().__init__(app)
        self._details = False
        self._tallest = 0

    def show_about(self) -> None:
        area = self.line("about")
        lines = self.about(self.app.size) if self._details else []
        most = max(self.app.size.height // 2, 2)
        lines = self.cut(lines, most)
        # A new height paints the whole screen: while rows are gone through, it only grows.
        self._tallest = min(max(self._tallest, len(lines)), most) if lines else 0
        if area.display != bool(lines):
            area.display = bool(lines)
        if lines and (area.styles.height is None or area.styles.height.value != self._tallest):
            area.styles.height = self._tallest
        area.show(lines)

    def do_details(self) -> Reply:
        self._details = not self._details
        self.show_about()
        return None


def progress_facts(job: Job | None) -> list[Piece]:
    """What a title tells of a running job: its stage and progress, and the time that is left, in as many cells for
    every one, so that what follows keeps its place."""
    if job is None:
        return []
    return [(f"{job.progress:<16} {job.left:<11}", "key")]
