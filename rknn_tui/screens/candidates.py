"""What a search found: candidates as rows and as a plot, to be looked at in the graph and taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size

from engine.summaries import Candidate, Quality, TuneReport
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.job import Job
from rknn_tui.charting.builders import pareto
from rknn_tui.graph.bars import digits
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.rows import RowScreen, Table, progress_facts
from rknn_tui.widgets.chart import ChartView
from rknn_tui.widgets.row_list import Cells, RowColumn

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

_MILLISECONDS = 7
"""Cells of an extra time."""
BASE = -1
"""The index that stands for the model as it was before the search."""


class CandidatesBench(Protocol):
    """What the screen needs of the workbench. `in_force` is the index of the candidate whose edits are in force, BASE
    for the model as it was, None where neither was asked for."""

    @property
    def tune_report(self) -> TuneReport | None: ...
    @property
    def in_force(self) -> int | None: ...
    @property
    def search_job(self) -> Job | None:
        """What runs beside the job: 'tune' or another search."""

    def preview_candidate(self, index: int) -> Reply:
        """Put the candidate's edits in force for now."""

    def take_candidate(self, index: int) -> Reply:
        """Put the candidate's edits in force for good, as an edit that can be undone."""

    def cancel(self) -> Reply: ...


class CandidatesScreen(RowScreen):
    """Row 0 is the model as it was, row n the n-th candidate, numbered as in the plot."""

    CSS_PATH: ClassVar = "candidates.tcss"
    PLACE: ClassVar[str] = "candidates"
    TITLE_TEXT: ClassVar[str] = "repair"

    def __init__(self, app: Workshop, bench: CandidatesBench) -> None:
        super().__init__(app)
        self._bench = bench
        self._report: TuneReport | None = None

    def compose_body(self) -> ComposeResult:
        with Container(id="candidates"):
            with Container(id="list"):
                yield from super().compose_body()
            yield ChartView(self.palette, self.symbols)

    def refresh_rows(self, cursor: int | None = None) -> None:
        if not self.composed:
            return
        report = self._bench.tune_report
        if report is not self._report:
            # Another search: begin at what it would choose.
            self._report, cursor = report, report.chosen + 1 if report is not None else 0
        super().refresh_rows(cursor)
        self.query_one(ChartView).show(pareto(report, self._bench.in_force))

    def title_line(self, size: Size) -> Line:
        report = self._bench.tune_report
        facts: list[Piece] = [(self.TITLE_TEXT, "title"), *progress_facts(self._bench.search_job)]
        if report is not None:
            facts.append((counted(len(report.candidates), "candidate"), "text"))
            facts.append(("wish fulfilled", "text") if report.reached else ("wish not fulfilled", "warning"))
            if not report.complete:
                facts.append(("search cancelled", "warning"))
            facts.append((f"judged on {counted(report.samples, 'sample')}", "muted"))
        return self.joined(facts, size.width)

    def table(self) -> Table:
        report, in_force = self._bench.tune_report, self._bench.in_force
        if report is None:
            job = self._bench.search_job
            searching = job is not None and job.name == "tune"
            start = f"{self.keymap.shown('tune')} on the layers' screen searches for a repair"
            return Table(
                (),
                0,
                lambda row: (),
                "the search has found nothing yet" if searching else f"no search has run yet: {start}",
            )
        changes = ["the model as it was", *(changes_text(one) for one in report.candidates)]
        timed = report.time_us > 0
        more = (RowColumn("est ms", _MILLISECONDS, rank=3, right=True),) if timed else ()
        columns = (
            RowColumn("#", len(str(len(report.candidates))), right=True),
            RowColumn("", 1),
            RowColumn("", 1),
            RowColumn("layers", 4, rank=2, right=True),
            RowColumn("est time", 7, rank=1, right=True),
            *more,
            RowColumn("cosine", 8),
            RowColumn("lowest", 8, rank=3),
            RowColumn("SNR dB", 6, rank=4, right=True),
            RowColumn("changes", max(map(len, changes)), least=12, rank=5),
        )

        def cells(row: int) -> Cells:
            quality, cost, layers = _facts(report, row - 1)
            return (
                (str(row), "key"),
                ("c" if row and row - 1 == report.chosen else "", "mark"),
                ("=" if row - 1 == in_force else "", "changed"),
                (str(layers), "text"),
                (f"{cost:+.1%}", "text"),
                *(((more_milliseconds(report, row - 1), "text"),) if timed else ()),
                (digits(quality.cosine), "text"),
                (digits(quality.lowest), "muted"),
                (decibels(quality), "text"),
                (changes[row], "text"),
            )

        return Table(columns, len(report.candidates) + 1, cells, "")

    def about(self, size: Size) -> list[Line]:
        report, row = self._bench.tune_report, self.rows.current
        if report is None or row is None or row > len(report.candidates):
            return []
        quality, cost, layers = _facts(report, row - 1)
        name = f"candidate {row}" if row else "the model as it was"
        facts: list[Piece] = [(name, "title")]
        if row - 1 == self._bench.in_force:
            facts.append(("= in force", "changed"))
        facts.append((f"cosine {digits(quality.cosine)}", "text"))
        facts.append((f"SNR {decibels(quality)} dB", "text"))
        if row:
            facts.append((f"{counted(layers, 'layer')}, {cost:+.1%} time (est)", "text"))
            if more := more_milliseconds(report, row - 1):
                facts.append((f"{more} ms (est)", "text"))
        lines: list[Line] = [self.joined(facts, size.width)]
        if row and row - 1 == report.chosen:
            why = "the cheapest that fulfils the wish" if report.reached else "nearest to the wish, which none fulfils"
            lines.append([(" c ", "mark"), (f"chosen: {why}", "text")])
        if row:
            lines += self.wrapped("", changes_text(report.candidates[row - 1]), size.width)
        return self.cut(lines, size.height)

    def useless(self) -> frozenset[str]:
        names = {"preview", "take"} if self._bench.tune_report is None else set()
        return frozenset(names if self._bench.search_job is not None else {*names, "cancel"})

    def do_preview(self) -> Reply:
        row = self.rows.current
        if row is None:
            return self._nothing()
        reply = self._bench.preview_candidate(row - 1)
        self.refresh_rows()
        return reply

    def do_take(self) -> Reply:
        row = self.rows.current
        if row is None:
            return self._nothing()
        return self.leave_with(self._bench.take_candidate(row - 1))

    def do_cancel(self) -> Reply:
        return self._bench.cancel()

    def _nothing(self) -> Reply:
        return Notice(self.table().empty, "warning")


def changes_text(candidate: Candidate) -> str:
    """What a candidate changes, by precision: `float16: a, b; int16: c`."""
    by_precision: dict[str, list[str]] = {}
    wishes: Mapping[str, str] = candidate.wishes
    for tensor, precision in wishes.items():
        by_precision.setdefault(precision, []).append(tensor)
    parts = [f"{precision}: {', '.join(tensors)}" for precision, tensors in by_precision.items()]
    return "; ".join(parts) or "corrected biases"


def more_milliseconds(report: TuneReport, index: int) -> str:
    """The time that a candidate takes more than the model as it was, with its sign; '' where no time is known."""
    if report.time_us <= 0:
        return ""
    time = report.time_us if index == BASE else report.candidates[index].time_us
    more = (time - report.time_us) / 1000
    return next((text for d in (4, 3, 2, 1) if len(text := f"{more:+.{d}f}") <= _MILLISECONDS), f"{more:+.1e}")


def decibels(quality: Quality) -> str:
    """The signal-to-noise ratio with one decimal, `inf` where nothing differs."""
    return "inf" if math.isinf(quality.snr) else f"{quality.snr:.1f}"


def _facts(report: TuneReport, index: int) -> tuple[Quality, float, int]:
    """Quality, extra time and number of layers of a candidate, or of the model as it was."""
    if index == BASE:
        return report.base, 0.0, 0
    candidate = report.candidates[index]
    return candidate.quality, candidate.cost, len(candidate.layers)
