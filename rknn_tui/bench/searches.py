"""Work that goes on beside a person's edits: tracing error sources, searching for repairs, measuring on boards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from engine.errors import Cancelled, EngineError, InputError
from engine.history import EditState
from engine.host_protocol import EngineDiedError
from engine.summaries import Finding, SourceMap, TuneReport, TuneRun
from rknn_tui.bench.calls import Calls
from rknn_tui.bench.dialogue import Notice, Reply, counted, notice_of
from rknn_tui.bench.editing import Editing
from rknn_tui.bench.job import Job
from rknn_tui.graph.bars import digits

PREVIEW = "candidate"
Take = Callable[[Any], Reply]


@dataclasses.dataclass(frozen=True)
class Search:
    """What to ask of the engine beside; `begin` is called when it is asked, and gives who takes the answer."""

    name: str
    method: str
    params: dict[str, Any]
    begin: Callable[[], Take]


class Searches:
    """One search runs at a time, others wait. `tell` hears what came of them; `key` names the key of an action."""

    def __init__(
        self, calls: Calls, editing: Editing, tell: Callable[[Reply], object], key: Callable[[str], str]
    ) -> None:
        self._calls, self._editing, self._tell, self._key = calls, editing, tell, key
        self.begun: Callable[[Job], object] = lambda job: None
        self.over: Callable[[Job, str, str], object] = lambda job, state, message: None
        self.forget()

    def forget(self) -> None:
        """The model is another one: what was found is of no use."""
        self.job: Job | None = None
        self.waiting: list[Search] = []
        self.report: TuneReport | None = None
        self.run = 0
        self._start_of_run = EditState()
        self._before_preview: EditState | None = None
        self.findings: tuple[Finding, ...] | None = None

    # What is asked

    def trace(self, sample: list[str], *, told: bool = True) -> Reply:
        """Trace where the outputs' error comes from, with the precisions of the moment when its turn comes."""

        def begin() -> Take:
            precisions = dict(self._editing.precisions)

            def take(found: SourceMap) -> Reply:
                self._editing.set_sources(found, precisions)
                first = found.sources[0] if found.sources else None
                text = f"largest error source: {first.share:.0%} {first.kind} {first.name}" if first else ""
                return Notice(text or "no error sources") if told else None

            return take

        return self.start(Search("trace", "trace", {"inputs": sample}, begin))

    def tune(self, dataset: str, wish: dict[str, Any]) -> Reply:
        """Search for layers that are worth a higher precision, from the edits of the moment when its turn comes."""

        def begin() -> Take:
            start = self._editing.state

            def take(found: TuneRun) -> Reply:
                self.report, self.run = found.report, found.number
                self._start_of_run, self._before_preview = start, None
                text = tune_text(found.report)
                text += f"; {self._key('candidates')} shows them" if found.report.candidates else ""
                return Notice(text, "info" if found.report.reached else "warning")

            return take

        return self.start(Search("tune", "tune_run", {"dataset": dataset, **wish}, begin))

    def lint(self, dataset: str | None, sample: list[str] | None) -> Reply:
        """Look for what costs accuracy."""

        def take(found: tuple[Finding, ...]) -> Reply:
            self.findings = found
            return Notice(f"lint: {counted(len(found), 'finding')}" if found else "lint: nothing found")

        params = {"dataset": dataset, "inputs": sample}
        return self.start(Search("lint", "findings", {k: v for k, v in params.items() if v is not None}, lambda: take))

    def cancel(self) -> None:
        """Ask the running search to stop, and drop those that wait."""
        self.waiting.clear()
        if self.job is not None:
            self.job.cancelling = True
            self._calls.cancel(self.job.number)

    def progressed(self, number: int, stage: str, done: int, total: int) -> bool:
        """Note progress; False where it is not this search's."""
        if self.job is None or self.job.number != number:
            return False
        self.job.progressed(stage, done, total)
        return True

    # Candidates

    @property
    def in_force(self) -> int | None:
        """The candidate that the edits in force are; -1 for the model that the search began with, None for others."""
        if self.report is None:
            return None
        state = self._editing.state
        candidates = range(len(self.report.candidates))
        found = next((index for index in candidates if state == self._with_candidate(index)), None)
        return -1 if found is None and state == self._start_of_run else found

    def _with_candidate(self, index: int) -> EditState:
        # A candidate's lines come on top of those that were in force when the search began.
        assert self.report is not None
        edited = self._start_of_run.with_wishes(self.report.candidates[index].wishes)
        return dataclasses.replace(edited, biases=f"{self.run}.{index}")

    def preview(self, index: int) -> Reply:
        """Put the edits of a candidate in force for now; with -1 those from before candidates were looked at."""
        if self.report is None:
            return Notice("nothing was searched yet", "warning")
        in_force = self.in_force
        if self._before_preview is None or in_force is None or in_force < 0:
            self._before_preview = self._editing.state
        state = self._with_candidate(index) if index >= 0 else self._before_preview
        self._editing.do(f"candidate {index + 1}" if index >= 0 else "no candidate", state, PREVIEW)
        return None

    def take(self, index: int) -> Reply:
        """Put the edits of a candidate in force for good."""
        if reply := self.preview(index):
            return reply
        self._editing.settle_group()
        if index < 0 or self.report is None:
            return Notice("no candidate is in force")
        quality = self.report.candidates[index].quality
        samples = counted(self.report.samples, "sample")
        return Notice(f"candidate {index + 1} is in force: cosine {digits(quality.cosine)} on {samples} of the search")

    # One after the other

    def start(self, search: Search) -> Reply:
        """Ask it of the engine, or wait for the one that runs."""
        if self.job is not None:
            if any(one.name == search.name for one in self.waiting) or self.job.name == search.name:
                return Notice(f"{search.name} is running already", "warning")
            self.waiting.append(search)
            return Notice(f"{search.name} waits for {self.job.name}")
        job = self.job = Job(search.name, [], method=search.method)
        job.progressed("", 0, 0)
        self._editing.send_latest()
        take = search.begin()

        def answer(value: Any, error: EngineError | None) -> None:
            if self.job is not job or isinstance(error, EngineDiedError):
                # The bench hears of a death too, and ends all that ran.
                return
            self.job = None
            reply: Reply
            if error is None:
                state, reply = "done", take(value)
            elif isinstance(error, Cancelled):
                state, reply = "cancelled", Notice(f"{search.name}: cancelled")
            else:
                state, reply = "failed", notice_of(error)
            self.over(job, state, reply.text if isinstance(reply, Notice) else "")
            if self.waiting:
                self.start(self.waiting.pop(0))
            self._tell(reply)

        job.number = self._calls.start(search.method, search.params, answer)
        self.begun(job)
        return None


def parse_wish(text: str) -> dict[str, Any]:
    """What a search should reach: `0.999`, and in any order `cost 0.2`, `layers 8`, `int16`. Raises InputError."""
    words = text.replace("=", " ").replace("<", " ").split()
    found: dict[str, Any] = {}
    while words:
        word = words.pop(0).lower()
        try:
            if word in ("cost", "layers", "cosine"):
                found[word] = int(words.pop(0)) if word == "layers" else float(words.pop(0))
            elif word in ("int16", "float16"):
                found["precision"] = word
            else:
                found["cosine"] = float(word)
        except (ValueError, IndexError) as error:
            raise InputError(f"cannot make sense of {word!r}", hint="such as: 0.999 cost 0.2 layers 8") from error
    return found


def tune_text(report: TuneReport) -> str:
    """What a search found, in a sentence."""
    count = len(report.candidates)
    if report.reached and not count:
        return f"the wish is fulfilled as it is: cosine {digits(report.base.cosine)}"
    if not count:
        return "the search found nothing that helps"
    best = report.candidates[report.chosen if report.chosen >= 0 else count - 1]
    what = counted(len(best.layers), "layer") if best.layers else "corrected biases"
    change = f"cosine {digits(report.base.cosine)} to {digits(best.quality.cosine)}"
    change += f" on {counted(report.samples, 'sample')} with {what}, {best.cost:+.1%} time"
    end = "" if report.complete else " (search cancelled)"
    return f"{counted(count, 'candidate')}; {change}{end}"
