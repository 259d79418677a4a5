"""The model on the bench: its settings, what was built and measured, and the one job that runs; no screen in sight."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Cancelled, DatasetError, EngineError, FileError
from engine.host_client import EngineHost, Request
from engine.host_protocol import EngineDiedError
from engine.summaries import AccuracyReport, BuildSummary, ModelSummary
from engine.targets import TARGETS
from rknn_tui.bars import digits
from rknn_tui.dialogue import Notice, Question, Reply, counted, first_sample, notice_of, parse_sizes, split_paths
from rknn_tui.job import Job
from rknn_tui.keymap import DEFAULT, Keymap

SECONDS_BEFORE_CANCEL_ASKS = 60.0

ProgressHearer = Callable[[int, str, int, int], object]
EndHearer = Callable[[int, Any, "EngineError | None"], object]


class Workbench:
    """Turns what the user wants into requests, and the engine's answers into state, notices and questions.

    `on_progress` and `on_end` are called in the reading thread; hand their arguments to `progressed` and `ended` in
    the thread that owns the workbench. `options`: inputs, input_size_list, outputs, dataset, config, float16, batch.
    Notices name keys as `keymap` has them.
    """

    def __init__(
        self,
        host: EngineHost,
        options: Mapping[str, Any],
        on_progress: ProgressHearer,
        on_end: EndHearer,
        log: Path | None = None,
        keymap: Keymap = DEFAULT,
    ) -> None:
        self.host = host
        self._key = keymap.shown
        self._on_progress = on_progress
        self._on_end = on_end
        self._log = log
        self.load_options = {key: options.get(key) for key in ("inputs", "input_size_list", "outputs")}
        self.config: dict[str, Any] = dict(options.get("config") or {})
        self.path = ""
        self.dataset: str | None = options.get("dataset")
        self.float16 = bool(options.get("float16"))
        self.batch = int(options.get("batch") or 1)
        self._suggested = ""
        self.sample: list[str] | None = None
        self._forget()

    def _forget(self) -> None:
        self.summary: ModelSummary | None = None
        self.build: BuildSummary | None = None
        self.built_target = ""
        self.report: AccuracyReport | None = None
        self.job: Job | None = None
        self.died: EngineDiedError | None = None

    @property
    def target(self) -> str:
        """The chip that is built for."""
        known = self.summary.target if self.summary else ""
        return str(self.config.get("target_platform") or known or "rk3566")

    @property
    def built(self) -> str:
        """The precision of what was built, or '' before."""
        return self.summary.built if self.summary is not None else ""

    @property
    def output_cosine(self) -> float | None:
        """The lowest cosine of the model's outputs, or None before an analysis."""
        values = [pair.cosine for pair in self.report.outputs.values()] if self.report else []
        return min(values, default=None)

    def open(self, path: str) -> Reply:
        """Load another model; sizes, batch, dataset and sample are its own, other settings are kept and named."""
        if self.job is not None and not self.died:
            return self._busy()
        kept: list[str] = []
        if self.path and path != self.path:
            kept = sorted(set(self.config) - {"target_platform"})
            self.load_options = dict.fromkeys(self.load_options)
            self.sample = self.dataset = None
            self._suggested, self.float16, self.batch = "", False, 1
        self.path = path
        refusal = self._restart() if self.died else self._load()
        return Notice(f"settings kept from before: {', '.join(kept)}", "warning") if kept else refusal

    def _load(self) -> Reply:
        self._forget()
        params = {"path": self.path} | {key: value for key, value in self.load_options.items() if value}
        return self._start("load", ("configure", {"config": self.config, "reset": True}), ("load", params))

    def build_int8(self) -> Reply:
        """Quantize; asks for the dataset when none is known."""
        if refusal := self._not_ready():
            return refusal
        if self.dataset is None:
            return self.ask_dataset("build_int8")
        return self._build({"do_quantization": True, "dataset": self.dataset}, "build int8")

    def build_float16(self) -> Reply:
        """Build without quantization."""
        return self._not_ready() or self._build({"do_quantization": False}, "build float16")

    def _build(self, params: dict[str, Any], name: str) -> Reply:
        if self.batch > 1:
            params["rknn_batch_size"] = self.batch
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
        return self._start("analyse", ("analyze", {"inputs": sample}))

    def ask_dataset(self, then: str = "") -> Reply:
        """Ask which dataset file to calibrate with; `then` names the action to go on with."""
        beside = Path(self.path).parent / "dataset.txt"
        known = self.dataset or self._suggested or (str(beside) if beside.is_file() else "")
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
        return Question("export", "write to:", prefill=str(Path(self.path).with_suffix(".rknn")))

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
            return self._start("target", change, ("summary", {}))
        changing.steps += [change, ("summary", {})]
        return None

    def cancel(self) -> Reply:
        """Ask the running job to stop; when it does not, offer to end the engine."""
        job = self.job
        if job is None:
            return Notice("nothing is running")
        if job.cancelling:
            return Question("kill", "still cancelling. End the engine and load the model anew? y ends it", confirm=True)
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
        self._forget()
        try:
            self.host.restart()
        except EngineDiedError as error:
            return self.died_of(error)
        return self._load() if self.path else None

    def died_of(self, error: EngineDiedError) -> Reply:
        """The engine's process ended; heard from its request and from its death, told once."""
        if self.died is not None:
            return None
        self.died = error
        self.job = None
        return Notice(f"{error}\nWhat was built is lost. {self._key('restart')} starts the engine again.", "error")

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
            self.dataset = str(Path(text).expanduser())
            return self.build_int8() if question.subject else Notice(f"dataset: {self.dataset}")
        if topic == "sample":
            self.sample = split_paths(text)
            return self.analyse() if question.subject else Notice(f"sample: {' '.join(self.sample)}")
        path = str(Path(text).expanduser())
        if Path(path).is_dir():
            raise FileError("is a folder, not a file", where=path, hint="name a file in it")
        if Path(path).exists():
            return Question("replace", f"{path} exists. y replaces it, other keys keep it", subject=path, confirm=True)
        return self._start("export", ("export", {"path": path}))

    def progressed(self, number: int, stage: str, done: int, total: int) -> bool:
        """Note progress; False when it is old news."""
        if self.job is None or self.job.number != number:
            return False
        self.job.progressed(stage, done, total)
        return True

    def ended(self, number: int, value: Any, error: EngineError | None) -> list[Reply]:
        """Take in a request's end, start the job's next step, and return what to tell or ask."""
        job = self.job
        if job is None or job.number != number:
            return []
        if error is None:
            self._take(job, value)
            if job.steps and not job.cancelling:
                self._next(job)
                return []
            self.job = None
            return self._tell(job, value)
        self.job = None
        if isinstance(error, EngineDiedError):
            return [self.died_of(error)]
        if isinstance(error, Cancelled):
            again = f"; {self._ways_on()}" if job.name == "load" else ""
            return [Notice(f"{job.name}: cancelled{again}")]
        if job.method == "load" and error.where.startswith("input_size_list"):
            return [Question("sizes", f"{error.what}\ninput sizes, such as 1,3,640,640:", paths=False)]
        if isinstance(error, DatasetError) and job.method == "build":
            # Asked for at the next build, with the same text to correct.
            self._suggested, self.dataset = self.dataset or "", None
        return [notice_of(error, self._log, self.path)]

    def _take(self, job: Job, value: Any) -> None:
        if isinstance(value, ModelSummary):
            self.summary = value
            if job.method == "load" and value.built:
                # A package brings its own settings.
                self.built_target = self.config["target_platform"] = value.target
        elif isinstance(value, BuildSummary):
            self.build, self.built_target, self.report = value, self.target, None
        elif isinstance(value, AccuracyReport):
            self.report = value

    def _tell(self, job: Job, value: Any) -> list[Reply]:
        seconds = time.monotonic() - job.started
        key, kind = self._key, "note"
        notes: tuple[str, ...] = ()
        if job.name == "load" and self.summary is not None:
            text = (
                f"{len(self.summary.layers)} layers, {_count(self.summary.parameters)} parameters: {self._next_step()}"
            )
            notes = self.summary.notes
        elif job.name.startswith("build") and self.build is not None:
            build = self.build
            samples = f" with {build.samples} samples" if build.samples else ""
            batch = f", batch {build.batch}," if build.batch > 1 else ""
            analyse = f"{key('analyse')} analyses, " if build.precision != "float16" else ""
            text = f"built {build.precision}{samples}{batch} in {seconds:.1f} s: {analyse}{key('export')} exports"
            notes = build.notes
        elif job.name == "analyse" and self.report is not None:
            worst = self.output_cosine
            layers = sum(error.entire is not None for error in self.report.layers)
            text = f"analysed {layers} layers in {seconds:.1f} s"
            text += f", output cosine {digits(worst)}" if worst is not None else ""
            notes, kind = self.report.warnings, "warning"
        elif job.name == "export":
            text = f"written: {value}"
        else:
            text = f"target {self.target}"
            if self.built and self.built_target != self.target:
                text += f"; what was built is for {self.built_target}: build again"
        if notes:
            text += f"; {key('messages')} shows {counted(len(notes), kind)}"
        level = "warning" if notes and kind == "warning" else "info"
        return [*(Notice(note, "warning") for note in notes), Notice(text, level)]

    def _next_step(self) -> str:
        """What to do with a model that was just loaded."""
        key = self._key
        if self.built == "float16":
            return f"built float16, {key('build_int8')} quantizes to int8"
        if self.built:
            return f"built {self.built}, {key('analyse')} analyses"
        batch = f", in batches of {self.batch}" if self.batch > 1 else ""
        # --float16 is about what to build: it names the key that does, rather than giving the other key its work.
        action = f"{key('build_float16')} builds float16" if self.float16 else f"{key('build_int8')} quantizes to int8"
        return action + batch

    def without_model(self) -> Notice:
        """What to say where a model is wanted and none is there."""
        return Notice(f"no model is loaded: {self._ways_on()}", "warning")

    def _ways_on(self) -> str:
        again = f", {self._key('restart')} tries this one again" if self.path else ""
        return f"{self._key('open')} opens a model{again}"

    def _not_ready(self) -> Reply:
        if self.job is not None:
            return self._busy()
        if self.died is not None:
            return Notice(f"the engine has ended: {self._key('restart')} starts it again", "error")
        return None if self.summary is not None else self.without_model()

    def _busy(self) -> Reply:
        return Notice(
            f"{self.job.name if self.job else 'a job'} is running: {self._key('cancel')} cancels it", "warning"
        )

    def _start(self, name: str, *steps: tuple[str, dict[str, Any]]) -> Reply:
        self.job = Job(name, list(steps))
        self._next(self.job)
        return None

    def _next(self, job: Job) -> None:
        job.method, params = job.steps.pop(0)
        job.progressed("", 0, 0)
        numbers: list[int] = []

        # The number exists only once the request was made, and its progress may be faster than that: 0 is no job's.
        def progress(stage: str, done: int, total: int) -> None:
            self._on_progress(numbers[0] if numbers else 0, stage, done, total)

        request = self.host.request(job.method, params, progress)
        job.number = request.number
        numbers.append(request.number)
        request.add_done_callback(self._report)

    def _report(self, request: Any) -> None:
        assert isinstance(request, Request)
        error = request.exception()
        if error is None:
            self._on_end(request.number, request.result(), None)
        elif isinstance(error, EngineError):
            self._on_end(request.number, None, error)


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
