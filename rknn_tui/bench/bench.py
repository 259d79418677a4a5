"""The bench as every screen sees it: what charts, lists and the comparison show, and the record of all jobs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.estimates import CostTotals
from engine.summaries import (
    CfgReading,
    Finding,
    LayerFacts,
    LayerSummary,
    LiveState,
    ModelSummary,
    SourceMap,
    TuneReport,
)
from engine.targets import TARGETS
from rknn_tui.bench.dialogue import Notice, Question, Reply, counted, notice_of
from rknn_tui.bench.job import Job
from rknn_tui.bench.job_records import CANCELLED, RUNNING, WAITING, JobRecord
from rknn_tui.bench.memory import Memory
from rknn_tui.bench.paths import is_file, typed_path
from rknn_tui.bench.runs import Run
from rknn_tui.bench.tuning_bench import TuningBench
from rknn_tui.graph.layer_values import LayerValues

MOST_JOBS = 200


class Bench(TuningBench):
    """A tuning bench that tells other screens of itself."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.read_only = self.settings.read_only or bool(self.given.get("read_only"))
        self.memory = Memory(self, self.told, read_only=self.read_only, restore=self.settings.restore)
        self._records: list[JobRecord] = []
        self._counted = 0
        self.searches.begun, self.searches.over = self.job_begun, self.job_over
        self.board_runs.keep = self._keep_board

    # What outlives the app

    def leaving(self) -> None:
        if self.memory.keep_unsaved() and self.unsaved:
            edits = counted(self.unsaved, "unsaved edit")
            self.told(Notice(f"{edits} of {Path(self.path).name} kept: they come back when it is opened and built"))

    def opening(self, path: str) -> None:
        """A model is about to be loaded."""
        for notice in self.memory.opening(path, self.given):
            self.told(notice)

    def request_done(self, job: Job, params: Mapping[str, Any], value: Any) -> None:
        """A request of a job ended well."""
        if isinstance(value, CfgReading):
            self.memory.started_with(self.editing.state)
        self.memory.done(job, params, value)

    def edits_changed(self, step: str) -> None:
        self.memory.edited(step)
        super().edits_changed(step)

    def edits_ready(self) -> Reply:
        """A built model can be edited: bring back what was never saved, or say that a cfg was."""
        if reply := self.memory.recovered():
            return reply
        if self.summary is not None and self.summary.framework == "hybrid" and not self.text.recovering:
            self.text.open(str(Path(self.path).with_suffix(".quantization.cfg")))
        saved = self.memory.saved_cfg
        if saved and not self.text.path and is_file(saved):
            return Notice(f"{Path(saved).name} was saved for this model: {self._key('open_cfg')} reads it")
        return None

    def cfg_saved(self, path: str) -> None:
        super().cfg_saved(path)
        self.memory.note("save", cfg=path)
        if not self.unsaved:
            self.memory.drop_unsaved()
        self.memory.keep_unsaved()
        self.memory.keep_project()

    def tune_asked(self, wish: Mapping[str, Any]) -> None:
        # A search without its dataset ends at once, and a journal with it could not be replayed.
        if self.dataset is not None and is_file(self.dataset):
            self.memory.note("tune", dataset=self.dataset, **wish)

    def _begin_edits(self, summary: ModelSummary) -> None:
        left = self.text.left
        super()._begin_edits(summary)
        if left is not None and left.typed and self.editing.ready and not self.text.recovering:
            place = self.memory.put_aside(left.text)
            if place is not None:
                self.told(Notice(f"the new build begins another cfg; the typed one is kept in {place}", "warning"))

    def exported(self, path: str) -> None:
        self.memory.note("export", path=path)

    def write_script(self, path: str) -> Reply:
        return self.memory.write_script(path)

    def _keep_board(self) -> None:
        if self.summary is not None:
            self.memory.keep_project()

    def keep_unsaved(self) -> bool:
        """Write down what is not saved, in any thread; False where that cannot be done."""
        return self.memory.keep_unsaved()

    def closed(self) -> None:
        self.memory.closed()

    # What the charts show

    @property
    def layers(self) -> Sequence[LayerSummary]:
        """The model's layers."""
        return self.summary.layers if self.summary is not None else ()

    @property
    def layer_values(self) -> Mapping[str, LayerValues]:
        """What every row shows."""
        return self.values()

    @property
    def source_map(self) -> SourceMap | None:
        """Where the outputs' error comes from."""
        return self.editing.sources

    @property
    def cost_totals(self) -> CostTotals | None:
        """What the model is estimated to take on the target."""
        return self.costs.totals

    @property
    def target_totals(self) -> Mapping[str, CostTotals | EngineError]:
        """The same on every target, once all are known: see `compare_targets`."""
        known = self.costs.by_target
        return known if all(name in known for name in TARGETS) else {}

    def compare_targets(self) -> None:
        """Ask what the model would take on every target, where that is not known; `target_totals` then has it."""
        if self.idle and not self.board_only:
            self.costs.compare()

    def layer_facts_of(self, layer: str) -> LayerFacts | None:
        """What is known of a layer now; of another target than was built for, not what precisions take there."""
        facts = self.facts.of(layer)
        if facts is None or not self.costs.known or self.costs.looks_at(self.built_target):
            return facts
        untimed = (dataclasses.replace(one, extra=math.nan) for one in facts.alternatives)
        return dataclasses.replace(facts, alternatives=tuple(untimed))

    @property
    def layer_facts(self) -> LayerFacts | None:
        """The facts of the layer that was looked at last."""
        return self.facts.latest

    # What the lists show

    @property
    def tune_report(self) -> TuneReport | None:
        """What the last search found."""
        return self.searches.report

    @property
    def in_force(self) -> int | None:
        """The candidate whose edits are in force."""
        return self.searches.in_force

    @property
    def search_job(self) -> Job | None:
        """The search beside that runs."""
        return self.searches.job

    @property
    def findings(self) -> Sequence[Finding] | None:
        """What lint found."""
        return self.searches.findings

    def go_to_layer(self, name: str) -> Reply:
        """Put the tune screen's cursor on a layer."""
        if self.view is not None and not self.view.show_layer_row(name):
            return Notice(f"the model has no layer {name!r}", "warning")
        return None

    # Jobs

    @property
    def jobs(self) -> Sequence[JobRecord]:
        """All jobs of this start, and the searches that wait."""
        waiting = [
            JobRecord(self._counted + place, search.name, WAITING)
            for place, search in enumerate(self.searches.waiting, 1)
        ]
        return [*self._records, *waiting]

    @property
    def log_path(self) -> Path | None:
        """Where the engine prints."""
        return self._log

    def cancel_job(self, number: int) -> Reply:
        """Stop a job that runs or waits."""
        record = next((one for one in self._records if one.number == number), None)
        if record is None:
            place = number - self._counted - 1
            if 0 <= place < len(self.searches.waiting):
                search = self.searches.waiting.pop(place)
                return Notice(f"{search.name} will not be done")
            return Notice("no such job", "warning")
        if record.state != RUNNING:
            return Notice(f"{record.name} has ended")
        if record.job is self.searches.job:
            self.searches.cancel()
            return None
        return self.cancel()

    def job_begun(self, job: Job) -> None:
        self._counted += 1
        self._records = self._records[-MOST_JOBS + 1 :]
        self._records.append(JobRecord(self._counted, job.name, RUNNING, time.monotonic(), job=job))

    def job_over(self, job: Job, state: str, message: str) -> None:
        for record in self._records:
            if record.job is job and record.ended is None:
                record.state, record.ended, record.message = state, time.monotonic(), message
                record.state = CANCELLED if job.cancelling and state != "done" else state

    # Runs side by side

    @property
    def runs(self) -> Sequence[Run]:
        """States of the model that were evaluated, the latest last: that is how it is now."""
        now = self.editing.as_run("now")
        return [*self.editing.runs, *([now] if now is not None else [])]

    def compare_file(self, side: str) -> Reply:
        """Ask which cfg to evaluate for one side of the comparison."""
        if refusal := self._not_quantized():
            return refusal
        return Question("compare", "compare with the cfg:", self.cfg_path(), subject=side)

    def evaluate_file(self, side: str, path: str) -> Reply:
        """Evaluate the cfg in a file, and hand the run to the comparison's side."""

        def opened(value: Any, error: EngineError | None) -> None:
            if error is not None:
                self.told(notice_of(error))
            else:
                self.calls.start("compare_cfg", {"text": str(value["text"])}, evaluated)

        def evaluated(value: Any, error: EngineError | None) -> None:
            if error is not None:
                self.told(notice_of(error))
            elif self.view is not None:
                self.view.compare_with(side, self._run_of(Path(path).name, value))

        try:
            self.calls.start("cfg_open", {"path": typed_path(path)}, opened)
        except EngineError as error:
            return notice_of(error)
        return None

    def _run_of(self, label: str, state: LiveState) -> Run:
        milliseconds = state.totals.time_us / 1000 if state.totals is not None else math.nan
        found = state.precisions, state.errors, state.wishes, milliseconds
        return Run(label, self.built_target, state.quality, state.extra, *found)
