"""All jobs of this start with their progress, and the engine's log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size

from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.job_records import CANCELLED, FAILED, RUNNING, WAITING, JobRecord, clock, in_order
from rknn_tui.graph.bars import bar
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.moves import MOVES
from rknn_tui.screens.rows import DetailScreen, Table
from rknn_tui.symbols import drawable
from rknn_tui.widgets.log_view import LogView
from rknn_tui.widgets.row_list import Cells, RowColumn
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

SECONDS_BETWEEN_PROGRESS = 1.0
"""A row with progress and two clocks takes 90 bytes: over a slow link, that is enough a second."""
_BAR_CELLS = 8
_ROLES = {RUNNING: "key", WAITING: "muted", FAILED: "error", CANCELLED: "warning"}


class JobsBench(Protocol):
    """What the screen needs of the workbench. `log_path` is the engine's log file, None where none can be written."""

    @property
    def jobs(self) -> Sequence[JobRecord]:
        """All jobs since the app was started, each with a number of its own that grows."""

    @property
    def log_path(self) -> Path | None: ...

    def cancel_job(self, number: int) -> Reply:
        """Stop a job that runs or waits."""


class JobsScreen(DetailScreen):
    """One row a job, running ones first; `details` shows the current one's message in full, `log` the log."""

    CSS_PATH: ClassVar = "jobs.tcss"
    PLACE: ClassVar[str] = "jobs"
    TITLE_TEXT: ClassVar[str] = "jobs"

    def __init__(self, app: Workshop, bench: JobsBench) -> None:
        super().__init__(app)
        self._bench = bench
        self._log_open = False
        self._drawn_at = 0.0
        self._order: list[int] = []

    def compose_body(self) -> ComposeResult:
        yield from super().compose_body()
        with Container(id="log"):
            yield TextLines(self.palette, id="log-title")
            yield LogView(self.palette, self.symbols)

    @property
    def log_view(self) -> LogView:
        """The pane with the log."""
        return self.query_one(LogView)

    @property
    def record(self) -> JobRecord | None:
        """The job under the cursor."""
        row, records = self.rows.current, in_order(self._bench.jobs)
        return records[row] if row is not None and row < len(records) else None

    def show_frame(self) -> None:
        self.query_one("#log").display = self._log_open
        if self._log_open:
            self.log_view.open_log(self._bench.log_path)
        self._show_log_title()
        super().show_frame()

    def on_screen_suspend(self) -> None:
        # Nobody sees it now: the file is closed and no timer runs.
        self.log_view.close_log()

    def refresh_rows(self, cursor: int | None = None) -> None:
        if not self.composed:
            return
        order = [record.number for record in in_order(self._bench.jobs)]
        if order != self._order:
            # The cursor stays on its job while others come and go around it.
            row = self.rows.current
            at = self._order[row] if row is not None and row < len(self._order) else None
            self._order = order
            if cursor is None and at in order:
                cursor = order.index(at)
        super().refresh_rows(cursor)

    def progress_changed(self) -> None:
        if time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_PROGRESS:
            self._drawn_at = time.monotonic()
            self.refresh_rows()

    def title_line(self, size: Size) -> Line:
        jobs = self._bench.jobs
        facts: list[Piece] = [(self.TITLE_TEXT, "title")]
        for state in (RUNNING, WAITING):
            if count := sum(record.state == state for record in jobs):
                facts.append((f"{count} {state}", "text"))
        return self.joined([*facts, (counted(len(jobs), "job"), "muted")], size.width)

    def table(self) -> Table:
        records, now = in_order(self._bench.jobs), time.monotonic()
        # Without a running job its columns give their room to what jobs came to.
        running = any(record.state == RUNNING for record in records)
        # What changes while a job runs stands first: Textual draws a changed row from its start.
        columns = (
            RowColumn("#", max((len(str(record.number)) for record in records), default=1), right=True),
            RowColumn("state", 9),
            RowColumn("", _BAR_CELLS * running, rank=3),
            RowColumn("", 4 * running, rank=1, right=True),
            RowColumn("time", 7, rank=2, right=True),
            RowColumn("left" if running else "", 11 * running, rank=4),
            RowColumn("job", max((len(record.name) for record in records), default=0), least=8),
            RowColumn("", 80, least=12, rank=2),
        )

        def cells(row: int) -> Cells:
            record = records[row]
            job, share = record.job if record.state == RUNNING else None, record.share
            stage = ""
            if job is not None:
                # Where the end is not known, what is done so far tells that it goes on.
                steps = f" {job.done}" if job.done and share is None else ""
                stage = "cancelling" if job.cancelling else f"{job.stage}{steps}"
            role = _ROLES.get(record.state, "text")
            return (
                (str(record.number), "key"),
                (record.state, role),
                (bar(share, 0, 1, _BAR_CELLS, unicode=self.symbols.unicode) if share is not None else "", "key"),
                (f"{share:.0%}" if share is not None else "", "text"),
                (clock(record.seconds(now)), "text"),
                (job.left if job is not None else "", "muted"),
                (record.name, "text"),
                (
                    stage or "  ".join(" ".join(line.split()) for line in record.message.splitlines()),
                    role if record.state in (FAILED, CANCELLED) else "text",
                ),
            )

        return Table(columns, len(records), cells, "no job has run since the start")

    def about(self, size: Size) -> list[Line]:
        record = self.record
        if record is None:
            return []
        lines: list[Line] = [
            [(f" {self.symbols.rule} #{record.number} {drawable(record.name, self.symbols)}", "title")]
        ]
        lines += self.wrapped("", record.message or f"{record.state}; it has said nothing yet", self.app.size.width - 1)
        return lines

    def perform(self, action: str) -> None:
        # With the log open, the rows keep the keys for single steps.
        if self._log_open and action in MOVES and action not in ("down", "up"):
            log, page = self.log_view, max(self.log_view.size.height, 1)
            steps = {"page_down": page, "page_up": -page, "half_page_down": page // 2, "half_page_up": -(page // 2)}
            if action == "first":
                log.scroll_first()
            elif action == "last":
                log.scroll_last()
            else:
                log.scroll_lines(steps[action])
            return
        super().perform(action)

    def useless(self) -> frozenset[str]:
        going_on = any(record.state in (RUNNING, WAITING) for record in self._bench.jobs)
        return frozenset() if going_on else frozenset({"cancel"})

    def do_cancel(self) -> Reply:
        record = self.record
        if record is None or record.state not in (RUNNING, WAITING):
            return Notice("nothing to cancel: the job has ended" if record else "no job has run")
        reply = self._bench.cancel_job(record.number)
        self.refresh_rows()
        return reply

    def do_log(self) -> Reply:
        self._log_open = not self._log_open
        self.query_one("#log").display = self._log_open
        if self._log_open:
            self.log_view.open_log(self._bench.log_path)
        else:
            self.log_view.close_log()
        self._show_log_title()
        return None

    def on_log_view_followed(self) -> None:
        self._show_log_title()

    def _show_log_title(self) -> None:
        if not self._log_open:
            return
        key = self.keymap.shown
        if self.log_view.following:
            state = f"follows the end; {key('page_up')} scrolls"
        else:
            state = f"stands still; {key('last')} follows the end"
        name = drawable(str(self._bench.log_path or ""), self.symbols)
        self.line("log-title").show(
            [
                self.joined(
                    [(f"{self.symbols.rule} log", "title"), (state, "muted"), (name, "muted")], self.app.size.width
                )
            ]
        )
