"""What lint found: each finding with its remedy, the way to its layer, and the change that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from textual.geometry import Size

from engine.summaries import Finding
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.job import Job
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.rows import RowScreen, Table, progress_facts
from rknn_tui.symbols import drawable
from rknn_tui.widgets.row_list import Cells, RowColumn

if TYPE_CHECKING:
    from rknn_tui.app import Workshop


class FindingsBench(Protocol):
    """What the screen needs of the workbench. `findings` is None before lint ran."""

    @property
    def findings(self) -> Sequence[Finding] | None: ...
    @property
    def search_job(self) -> Job | None:
        """What runs beside the job: 'lint' or another search."""

    def go_to_layer(self, name: str) -> Reply:
        """Put the tune screen's cursor on the layer; a warning where there is none of that name."""

    def apply_finding(self, finding: Finding) -> Reply:
        """Make the finding's wishes an edit that can be undone."""

    def cancel(self) -> Reply: ...


class FindingsScreen(RowScreen):
    """One row a finding; message, remedy and lines of the current one below."""

    CSS_PATH: ClassVar = "findings.tcss"
    PLACE: ClassVar[str] = "findings"
    TITLE_TEXT: ClassVar[str] = "lint"

    def __init__(self, app: Workshop, bench: FindingsBench) -> None:
        super().__init__(app)
        self._bench = bench

    @property
    def finding(self) -> Finding | None:
        """The finding under the cursor."""
        row, findings = self.rows.current, self._bench.findings
        return findings[row] if findings and row is not None else None

    def title_line(self, size: Size) -> Line:
        findings = self._bench.findings
        facts: list[Piece] = [(self.TITLE_TEXT, "title")]
        if findings is not None:
            facts.append((counted(len(findings), "finding"), "text"))
        return self.joined([*facts, *progress_facts(self._bench.search_job)], size.width)

    def table(self) -> Table:
        findings = self._bench.findings or ()
        job = self._bench.search_job
        if job is not None and job.name == "lint":
            empty = "looking for what costs accuracy"
        elif self._bench.findings is None:
            start = f"{self.keymap.shown('lint')} on the layers' screen looks for what costs accuracy"
            empty = f"nothing was looked at yet: {start}"
        else:
            empty = "nothing found that costs accuracy"
        columns = (
            RowColumn("rule", max((len(one.rule) for one in findings), default=0), least=12),
            RowColumn("", 1, rank=3),
            RowColumn("layer", max((len(one.layer) for one in findings), default=0), least=12, rank=1, keep_end=True),
            RowColumn("message", max((len(one.message) for one in findings), default=0), least=16, rank=2),
        )

        def cells(row: int) -> Cells:
            finding = findings[row]
            return (
                (finding.rule, "warning"),
                ("w" if finding.wishes else "", "mark"),
                (finding.layer or "(model)", "text"),
                (finding.message, "text"),
            )

        return Table(columns, len(findings), cells, empty)

    def about(self, size: Size) -> list[Line]:
        finding = self.finding
        if finding is None:
            return []
        what = f"{finding.rule}  {finding.layer or 'the model'}"
        lines: list[Line] = [[(f" {drawable(what, self.symbols)}", "title")]]
        lines += self.wrapped("", finding.message, size.width)
        lines += self.wrapped("remedy", finding.remedy, size.width)
        wishes = ", ".join(f"{tensor}: {precision}" for tensor, precision in finding.wishes.items())
        if wishes:
            lines += self.wrapped(f"{self.keymap.shown('apply_finding')} sets", wishes, size.width, "changed")
        return self.cut(lines, size.height)

    def useless(self) -> frozenset[str]:
        names = set() if self._bench.findings else {"go_to", "apply_finding"}
        return frozenset(names if self._bench.search_job is not None else {*names, "cancel"})

    def do_go_to(self) -> Reply:
        finding = self.finding
        if finding is None:
            return None
        if not finding.layer:
            return Notice("this finding is about the whole model, not about a layer")
        return self.leave_with(self._bench.go_to_layer(finding.layer))

    def do_apply_finding(self) -> Reply:
        finding = self.finding
        if finding is None:
            return None
        if not finding.wishes:
            return Notice(f"no change of precisions cures this: {finding.remedy}", "warning")
        return self._bench.apply_finding(finding)

    def do_cancel(self) -> Reply:
        return self._bench.cancel()
