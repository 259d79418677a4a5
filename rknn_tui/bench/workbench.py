"""The model on the bench: its settings, what was built and measured of it; no screen in sight."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import Cancelled, DatasetError, EngineError, FileError
from engine.history import EditState
from engine.host_client import EngineHost
from engine.host_protocol import EngineDiedError
from engine.summaries import AccuracyReport, BuildSummary, CfgReading, LiveState, ModelSummary
from engine.targets import TARGETS
from rknn_tui.bench.calls import EndHearer, ProgressHearer
from rknn_tui.bench.cfg_text import RECOVERY, CfgText
from rknn_tui.bench.costs import Costs
from rknn_tui.bench.dialogue import Notice, Question, Reply, counted, first_sample, notice_of, parse_sizes, split_paths
from rknn_tui.bench.editing import Editing
from rknn_tui.bench.engine_jobs import EngineJobs
from rknn_tui.bench.job import Job
from rknn_tui.bench.kept import Kept
from rknn_tui.bench.outcomes import outcome
from rknn_tui.bench.paths import exists, is_file, is_folder, typed_path
from rknn_tui.bench.project import LOAD_OPTIONS
from rknn_tui.bench.searches import Searches
from rknn_tui.keymap import DEFAULT, Keymap
from rknn_tui.settings import Settings

SECONDS_BEFORE_CANCEL_ASKS = 60.0


class Workbench(EngineJobs):
    """Turns what the user wants into requests, and the engine's answers into state, notices and questions.

    `on_progress` and `on_end` are called in the reading thread; hand their arguments to `progressed` and `ended` in
    the thread that owns the workbench. `options`: inputs, input_size_list, outputs, weights,
    dataset, config, float16, batch. Notices name keys as `keymap` has them.
    """

    def __init__(
        self,
        host: EngineHost,
        options: Mapping[str, Any],
        on_progress: ProgressHearer,
        on_end: EndHearer,
        log: Path | None = None,
        keymap: Keymap = DEFAULT,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(host, on_progress, on_end)
        self.keymap = keymap
        self.settings = settings or Settings()
        self._key = keymap.shown
        self._log = log
        self.costs = Costs(self.calls)
        self.editing = Editing(self.calls, self, f"{keymap.shown('build_int8')} quantizes to int8", self.costs)
        self.text = CfgText(self.calls, self.editing, self)
        self.searches = Searches(self.calls, self.editing, self.told, self._key)
        self.kept: Kept | None = None
        self.analysed: list[str] = []
        self._building: dict[str, Any] = {}
        self._built_with: dict[str, Any] | None = None
        self._again: dict[str, Any] | None = None
        self.given = dict(options)
        self.load_options = {key: options.get(key) for key in LOAD_OPTIONS}
        self.config: dict[str, Any] = dict(options.get("config") or {})
        self.path = ""
        self.dataset: str | None = options.get("dataset")
        self.float16 = bool(options.get("float16"))
        self.batch = int(options.get("batch") or 1)
        self._suggested = ""
        self.sample: list[str] | None = None
        self._forget()

    def _forget(self) -> None:
        if self.searches.job is not None:
            self.searches.cancel()
            self.job_over(self.searches.job, "cancelled", "the model is another one now")
        self.summary: ModelSummary | None = None
        self.board_only = False
        """Whether the model is a file of the vendor's compiler: it is shown, and nothing can be done with it here."""
        self.build: BuildSummary | None = None
        self.built_target = ""
        self.report: AccuracyReport | None = None
        self.job = None
        self.died: EngineDiedError | None = None
        self.costs.forget()
        self.editing.forget()
        self.text.forget()
        self.searches.forget()

    @property
    def target(self) -> str:
        """The chip that is built for."""
        known = self.summary.target if self.summary else ""
        if self.board_only:
            return known
        return str(self.config.get("target_platform") or known or "rk3566")

    @property
    def built(self) -> str:
        """The precision of what was built, or '' before."""
        return self.summary.built if self.summary is not None else ""

    @property
    def output_cosine(self) -> float | None:
        """The worst output's cosine against the float model, or None before an analysis."""
        return self.editing.cosine

    def open(self, path: str) -> Reply:
        """Load another model; sizes, batch, dataset and sample are its own, other settings are kept and named."""
        if self.job is not None and not self.died:
            return self._busy()
        if self.summary is not None and path != self.path and not is_file(path):
            return Notice(f"{path}: {'is a folder' if is_folder(path) else 'does not exist'} (check the path)", "error")
        gone = self.died is not None
        kept: list[str] = []
        if self.path and path != self.path:
            kept = sorted(set(self.config) - {"target_platform"})
            self.load_options = dict.fromkeys(self.load_options)
            self.sample = self.dataset = None
            self._suggested, self.float16, self.batch = "", False, 1
            self.given = {}
        self.leaving()
        if path != self.path:
            # What was edited comes back with its model, as after a start.
            self.kept = self._built_with = None
            self._forget()
        self._keep_edits()
        self.path = path
        self.opening(path)
        refusal = self._restart() if gone else self._load()
        return Notice(f"settings kept from before: {', '.join(kept)}", "warning") if kept else refusal

    def leaving(self) -> None:
        """The model on the bench goes, or is loaded anew."""

    def opening(self, path: str) -> None:
        """A model is about to be loaded."""

    def request_done(self, job: Job, params: Mapping[str, Any], value: Any) -> None:
        """A request of a job ended well."""

    def edits_ready(self) -> Reply:
        """A built model can be edited for the first time: what there is to say of it."""

    def exported(self, path: str) -> None:
        """A package was written."""

    def _load(self) -> Reply:
        self._keep_edits()
        self._forget()
        if Path(self.path).suffix.lower() == ".rknn":
            # Ours has that ending too: only the engine tells which of them it is.
            return self._start("load", ("vendor_summary", {"path": self.path}))
        return self._start("load", *self._load_steps())

    def _load_steps(self) -> list[tuple[str, dict[str, Any]]]:
        settings = ("configure", {"config": self.config, "reset": True})
        path = Path(self.path)
        if path.suffix == ".model" and is_file(path.with_suffix(".data")):
            names = (path, path.with_suffix(".data"), path.with_suffix(".quantization.cfg"))
            files = dict(zip(("model_input", "data_input", "model_quantization_cfg"), map(str, names), strict=True))
            return [settings, ("hybrid_step2", files), ("summary", {})]
        params = {"path": self.path} | {key: value for key, value in self.load_options.items() if value}
        return [settings, ("load", params)]

    def build_int8(self) -> Reply:
        """Quantize; asks for the dataset when none is known, unless the model came quantized.

        Precisions that were wished for are wished again.
        """
        if refusal := self._not_ready():
            return refusal
        if self.dataset is None and not (self.summary and self.summary.quantized):
            return self.ask_dataset("build_int8")
        return self._build({"do_quantization": True, "dataset": self.dataset}, "build int8")

    def build_float16(self) -> Reply:
        """Build without quantization."""
        return self._not_ready() or self._build({"do_quantization": False}, "build float16")

    def _build(self, params: dict[str, Any], name: str) -> Reply:
        if self.batch > 1:
            params["rknn_batch_size"] = self.batch
        self._building = dict(params)
        self.searches.cancel()
        return self._start(name, ("build", params), ("summary", {}))

    def analyse(self) -> Reply:
        """Compare with the float model on one sample; asks for the sample when there is no dataset to take it from."""
        if refusal := self._not_ready():
            return refusal
        if not self.built:
            return Notice(f"nothing is built yet: {self._key('build_int8')} quantizes to int8", "warning")
        if self.built == "float16":
            text = f"a float16 build has no quantization error: {self._key('build_int8')} quantizes to int8"
            return Notice(text, "warning")
        sample = self.sample
        if sample is None and self.dataset is not None:
            try:
                sample = first_sample(self.dataset, len(self.summary.inputs) if self.summary else 1)
            except EngineError as error:
                return notice_of(error)
        if sample is None:
            return self.ask_sample("analyse")
        self.analysed = sample
        steps: list[tuple[str, dict[str, Any]]] = [("analyze", {"inputs": sample})]
        if self.settings.live:
            steps.append(("live_start", {"inputs": sample}))
        return self._start("analyse", *steps)

    def ask_dataset(self, then: str = "") -> Reply:
        """Ask which dataset file to calibrate with; `then` names the action to go on with."""
        beside = Path(self.path).parent / "dataset.txt"
        known = self.dataset or self._suggested or (str(beside) if is_file(beside) else "")
        return Question("dataset", "calibration dataset, a text file with one sample a line:", known, subject=then)

    def ask_sample(self, then: str = "") -> Reply:
        """Ask which files to analyse with."""
        names = ", ".join(tensor.name for tensor in self.summary.inputs) if self.summary else ""
        known = shlex.join(self.sample or ())
        return Question("sample", f"sample to analyse, one image or npy file an input ({names}):", known, subject=then)

    def export(self) -> Reply:
        """Ask where to write the built model."""
        if refusal := self._not_ready():
            return refusal
        if not self.built:
            return Notice(f"nothing is built yet: {self._key('build_int8')} quantizes to int8", "warning")
        # What is written is plain: it does not offer to replace the encrypted file that it came from.
        path = Path(self.path)
        path = path.with_suffix("") if path.name.endswith(".crypt.rknn") else path
        return Question("export", "write to:", prefill=str(path.with_suffix(".rknn")))

    def next_target(self) -> Reply:
        """Go on to the next chip; the key may come again while the last change is under way."""
        changing = self.job if self.job is not None and self.job.name == "target" else None
        if changing is None and (refusal := self._not_ready()):
            return refusal
        names = list(TARGETS)
        following = names[(names.index(self.target) + 1) % len(names)] if self.target in names else names[0]
        self.config = {**self.config, "target_platform": following}
        change: tuple[str, dict[str, Any]] = ("configure", {"config": {"target_platform": following}})
        if changing is None:
            self._start("target", change, ("summary", {}))
        else:
            changing.steps += [change, ("summary", {})]
        # Nothing has to be built for that.
        self.costs.ask(following)
        return None

    def cancel(self) -> Reply:
        """Ask the running job to stop; when it does not, offer to end the engine."""
        job = self.job
        if job is None and self.searches.job is not None:
            self.searches.cancel()
            return None
        if job is None:
            return Notice("nothing is running")
        if job.cancelling:
            text = "still cancelling. End the engine and load the model anew? Edits are kept. y ends it"
            return Question("kill", text, confirm=True)
        if time.monotonic() - job.started > SECONDS_BEFORE_CANCEL_ASKS:
            return Question("cancel", f"{job.name} has run for over a minute. y cancels it", confirm=True)
        return self._cancel()

    def _cancel(self) -> Reply:
        if self.job is not None:
            self.job.cancelling = True
            self.host.cancel(self.job.number)
        return None

    def restart(self) -> Reply:
        """A fresh engine where it has ended, and the model loaded anew where none is."""
        if self.died is None and self.host.alive:
            if self.summary is None and self.job is None and self.path:
                return self._load()
            return Notice("the engine is running")
        return self._restart()

    def _restart(self) -> Reply:
        # The same model is built again as it was, for its edits to go on; but not where just that does not end.
        stuck = self.job is not None and self.job.name.startswith("build")
        self._again = None if stuck else self._built_with
        self._keep_edits()
        if self.job is not None:
            self.job_over(self.job, "cancelled", "ended with the engine's process")
        self._forget()
        self.calls.forget()
        try:
            self.host.restart()
        except EngineDiedError as error:
            return self.died_of(error)
        return self._load() if self.path else None

    def died_of(self, error: EngineDiedError) -> Reply:
        """The engine's process ended; heard from its request and from its death, told once. Edits are kept."""
        if self.died is not None:
            return None
        self.died = error
        for job in (self.job, self.searches.job):
            if job is not None:
                self.job_over(job, "failed", str(error))
        self.job = self.searches.job = None
        self.calls.forget()
        self._keep_edits()
        found = self.kept or Kept(EditState())
        words = [counted(found.edits, "edit")] if found.edits else []
        words += ["the cfg as it was typed"] if found.text is not None and found.text.typed else []
        kept = f"{' and '.join(words)} kept. " if words else ""
        again = "starts it again, and builds again" if self._built_with else "starts the engine again"
        lost = "What was built is lost. " if self.built and not self.board_only else ""
        return Notice(f"{error}\n{lost}{kept}{self._key('restart')} {again}.", "error")

    def answer(self, question: Question, text: str) -> Reply:
        """Go on with what was typed; an unusable answer is asked for again, with the reason."""
        try:
            return self._answer(question, text.strip())
        except EngineError as error:
            return dataclasses.replace(question, text=f"{error}\n{question.text}", prefill=text)

    def _answer(self, question: Question, text: str) -> Reply:
        topic = question.topic
        if topic == "kill":
            return self._restart()
        if topic == "cancel":
            return self._cancel()
        if topic == "replace":
            return self._start("export", ("export", {"path": question.subject}))
        if not text and topic == "dataset" and question.subject:
            # Models that bring quantization parameters of their own need none; the engine says so where one does.
            return self._build({"do_quantization": True}, "build int8")
        if not text:
            return None
        if topic == "sizes":
            self.load_options["input_size_list"] = parse_sizes(text)
            return self._load()
        if topic == "dataset":
            self.dataset = typed_path(text)
            return self.build_int8() if question.subject else Notice(f"dataset: {self.dataset}")
        if topic == "sample":
            self.sample = split_paths(text)
            return self.analyse() if question.subject else Notice(f"sample: {' '.join(self.sample)}")
        path = typed_path(text)
        if is_folder(path):
            raise FileError("is a folder, not a file", where=path, hint="name a file in it")
        if exists(path):
            return Question("replace", f"{path} exists. y replaces it, other keys keep it", subject=path, confirm=True)
        return self._start("export", ("export", {"path": path}))

    def progressed(self, number: int, stage: str, done: int, total: int) -> bool:
        """Note progress; False when it is old news."""
        if self.job is None or self.job.number != number:
            return self.searches.progressed(number, stage, done, total)
        self.job.progressed(stage, done, total)
        return True

    def before_request(self) -> None:
        self.editing.send_latest()

    def ended(self, job: Job, value: Any, error: EngineError | None) -> list[Reply]:
        """Take in a request's end, start the job's next step, and return what to tell or ask."""
        if error is None:
            self._take(job, value)
            self.request_done(job, job.params, value)
            if job.steps and not job.cancelling:
                self._next(job)
                return []
            self.job = None
            if job.name == "load" and self.summary is None:
                # It was cancelled between two of its requests.
                return [Notice(f"load: cancelled; {self._ways_on()}")]
            replies = outcome(self, job, value)
            if job.name.startswith("build") or (job.name == "load" and self.editing.ready):
                replies = [*replies, *([reply] if (reply := self.edits_ready()) is not None else [])]
            if job.name == "export":
                self.exported(str(value))
            if job.name == "load" and self._again is not None:
                params, self._again = self._again, None
                return [*replies, self._build(params, "build again")]
            return replies
        self.job = None
        if isinstance(error, EngineDiedError):
            return [self.died_of(error)]
        if isinstance(error, Cancelled):
            again = f"; {self._ways_on()}" if job.name == "load" else ""
            return [Notice(f"{job.name}: cancelled{again}")]
        if job.method == "live_start":
            # What was analysed stays; edits then change precisions only.
            return [*outcome(self, job, value), notice_of(error, self._log, self.path)]
        if job.method == "load" and error.where.startswith("input_size_list"):
            return [Question("sizes", f"{error.what}\ninput sizes, such as 1,3,640,640:", paths=False)]
        if isinstance(error, DatasetError) and job.method == "build":
            # Asked for at the next build, with the same text to correct.
            self._suggested, self.dataset = self.dataset or "", None
        return [notice_of(error, self._log, self.path)]

    def _take(self, job: Job, value: Any) -> None:
        if job.method == "vendor_summary":
            self._take_vendor(job, value)
        elif isinstance(value, ModelSummary):
            self.summary = value
            if job.name == "load" and value.built:
                # A package brings its own settings.
                self.built_target = self.config["target_platform"] = value.target
            if job.name == "load" or (job.name.startswith("build") and value.built == "float16"):
                # Of a model that can be edited, all costs come with the answer to the first edits, too.
                self.costs.ask_anew(self.target)
            if job.name == "load" and value.built not in ("", "float16"):
                job.steps.append(("edits", {}))
            elif job.name.startswith("build"):
                self._begin_edits(value)
        elif isinstance(value, BuildSummary):
            self.build, self.built_target, self.report = value, self.target, None
            if job.method == "build":
                self._built_with = self._building
        elif isinstance(value, CfgReading) and self.summary is not None:
            self.editing.begin_with(self.summary, value)
            self._take_kept()
        elif isinstance(value, AccuracyReport):
            self.report = value
            self.editing.set_report(value)
        elif isinstance(value, LiveState):
            self.editing.begin_live(value)
            if len(self.editing.layers) <= self.settings.trace_layers:
                self.searches.trace(self.analysed, told=False)

    def _take_vendor(self, job: Job, summary: ModelSummary | None) -> None:
        """Show a vendor's file. The engine does not hold it: nothing may be asked of it from now on."""
        if summary is None:
            job.steps += self._load_steps()
            return
        self.summary, self.board_only, self.built_target = summary, True, summary.target
        self._again = None

    def _begin_edits(self, summary: ModelSummary) -> None:
        if summary.built == "float16":
            # It has none: they wait for the next one that has.
            self._keep_edits()
        self.text.forget()
        self.searches.forget()
        self.editing.begin(summary)
        self._take_kept()

    def _keep_edits(self) -> None:
        """Hold what a person did to the model, to be done again once it is built anew."""
        if self.editing.ready:
            kept = Kept(self.editing.state, self.editing.history.saved, self.text.left, self.editing.makers)
            self.kept = kept if kept != Kept(EditState()) else None

    def _take_kept(self) -> None:
        """Make the edits again that a model lost with its engine."""
        if self.kept is not None and self.editing.ready:
            kept, self.kept = self.kept, None
            self.take_back("edits kept from before", kept)

    def take_back(self, label: str, kept: Kept) -> None:
        """Put edits that were kept in force again, as a step. Biases of a search are gone."""
        if kept.text is not None and kept.text.path:
            self.editing.history.saved = kept.saved
        self.editing.do(label, kept.without_biases(), RECOVERY)
        if kept.text is not None:
            self.text.recover(kept.text, label)

    def without_model(self) -> Notice:
        """What to say where a model is wanted and none is there."""
        return Notice(f"no model is loaded: {self._ways_on()}", "warning")

    def without_source(self) -> Notice:
        """What to say where something is wanted that only the source of a vendor's file can give."""
        text = f"a vendor's .rknn runs only on a board: for that, open the source model ({self._key('open')})"
        return Notice(text, "warning")

    def _ways_on(self) -> str:
        again = f", {self._key('restart')} tries this one again" if self.path else ""
        return f"{self._key('open')} opens a model{again}"

    def _not_ready(self) -> Reply:
        if self.job is not None:
            return self._busy()
        if self.died is not None:
            return Notice(f"the engine has ended: {self._key('restart')} starts it again", "error")
        if self.board_only:
            return self.without_source()
        return None if self.summary is not None else self.without_model()

    def _busy(self) -> Reply:
        return Notice(
            f"{self.job.name if self.job else 'a job'} is running: {self._key('cancel')} cancels it", "warning"
        )
