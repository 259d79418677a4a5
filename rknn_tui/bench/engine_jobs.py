"""One job at a time: its requests to the engine, one after the other, and who hears what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from engine.errors import Cancelled, EngineError
from engine.host_client import EngineHost
from rknn_tui.bench.calls import Calls, EndHearer, ProgressHearer
from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.bench.job import Job
from rknn_tui.bench.runs import Run
from rknn_tui.graph.layer_values import LayerValues


class View(Protocol):
    """Where what happens on the bench is shown."""

    def values_changed(self, changes: Mapping[str, LayerValues]) -> object:
        """The rows of some layers show something else now."""

    def edits_changed(self, step: str) -> object:
        """Other edits are in force."""

    def text_changed(self) -> object:
        """The cfg's text is another now, and not because someone typed there."""

    def told(self, reply: Reply) -> object:
        """There is something to say or to ask."""

    def show_layer_row(self, name: str) -> bool:
        """Put the cursor on a layer; False where there is none of that name."""

    def compare_with(self, side: str, run: Run) -> object:
        """A state was evaluated for one side of the comparison."""

    def job_ended(self, value: Any, replies: list[Reply]) -> object:
        """A request of the job ended with `value`; there may be things to say or to ask, the most important last."""


class EngineJobs:
    """Starts jobs, and passes on to `view` what happens. Subclasses say in `ended` what to make of an answer."""

    def __init__(self, host: EngineHost, on_progress: ProgressHearer, on_end: EndHearer) -> None:
        self.host = host
        self.calls = Calls(host, on_progress, on_end)
        self.view: View | None = None
        self.job: Job | None = None

    def ended(self, job: Job, value: Any, error: EngineError | None) -> list[Reply]:
        """Take in the end of a request of `job`, and return what to tell or ask.

        It starts the job's next request, or sets `job` to None, or to another one.
        """
        raise NotImplementedError

    def before_request(self) -> None:
        """A request of a job is about to be sent: what it builds on has to be with the engine before."""

    def job_begun(self, job: Job) -> None:
        """A job starts."""

    def job_over(self, job: Job, state: str, message: str) -> None:
        """A job ended: 'done', 'failed' or 'cancelled', and what it came to."""

    def _start(self, name: str, *steps: tuple[str, dict[str, Any]]) -> Reply:
        self.job = Job(name, list(steps))
        self.job_begun(self.job)
        self._next(self.job)
        return None

    def _next(self, job: Job) -> None:
        job.method, job.params = job.steps.pop(0)
        job.progressed("", 0, 0)

        def answer(value: Any, error: EngineError | None) -> None:
            if self.job is not job:
                return
            replies = self.ended(job, value, error)
            if self.job is not job:
                state = "done" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
                texts = [reply.text for reply in replies if isinstance(reply, (Notice, Question))]
                # In a list the first line is seen: what it came to, before what else there is to know.
                self.job_over(job, state, "\n".join(reversed(texts)))
            if self.view is not None:
                self.view.job_ended(value, replies)

        self.before_request()
        job.number = self.calls.start(job.method, job.params, answer)

    # What edits, the text and searches tell

    def values_changed(self, changes: Mapping[str, LayerValues]) -> None:
        """Pass on that rows changed."""
        if self.view is not None:
            self.view.values_changed(changes)

    def edits_changed(self, step: str) -> None:
        """Pass on that other edits are in force."""
        if self.view is not None:
            self.view.edits_changed(step)

    def text_changed(self) -> None:
        """Pass on that the cfg's text changed."""
        if self.view is not None:
            self.view.text_changed()

    def told(self, reply: Reply) -> None:
        """Pass on what is said or asked."""
        if self.view is not None and reply is not None:
            self.view.told(reply)
