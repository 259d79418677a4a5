"""The bench with everything that is done to a built model: edits, the cfg's files, searches, candidates."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError, FileError, InputError
from engine.summaries import Finding, LayerError, LayerSummary
from rknn_tui.bench.board_runs import ACCURACY_ON, BoardRuns
from rknn_tui.bench.dialogue import Notice, Question, Reply, counted, first_sample, notice_of
from rknn_tui.bench.facts import Facts
from rknn_tui.bench.job import Job
from rknn_tui.bench.paths import absolute, exists, is_file, is_folder, typed_path
from rknn_tui.bench.searches import parse_wish
from rknn_tui.bench.workbench import Workbench
from rknn_tui.graph.layer_values import LayerValues

WISH = "0.999"


class TuningBench(Workbench):
    """A workbench whose model is edited, searched and saved."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.board_runs = BoardRuns(self)
        super().__init__(*arguments, **named)
        self.facts = Facts(self.calls, self.editing)
        self.costs.changed = self._costs_told
        self.read_only = False
        self._to_build: tuple[dict[str, Any], str] = {}, ""

    def _forget(self) -> None:
        super()._forget()
        self.board_runs.forget()

    # What is known

    @property
    def running(self) -> Job | None:
        """The job that runs, or else the search beside."""
        return self.job or self.searches.job

    @property
    def idle(self) -> bool:
        """Whether the engine would answer a small question at once."""
        return self.job is None and self.died is None and self.summary is not None

    @property
    def unsaved(self) -> int:
        """How many layers are otherwise than in the file; one where only the biases, or the text, are."""
        if not self.editing.ready:
            return self.kept.unsaved if self.kept is not None else 0
        return self.editing.unsaved or int(self.text.unsaved)

    def closed(self) -> None:
        """The app ends in good order."""

    def values(self) -> Mapping[str, LayerValues]:
        """What every row shows."""
        if self.editing.layers:
            return self.board_runs.shown(self.editing.values())
        values = {}
        for layer in self.summary.layers if self.summary is not None else ():
            milliseconds, memory, bound, _ = self.costs.shown(layer.name)
            values[layer.name] = LayerValues(layer.precision, milliseconds=milliseconds, bytes=memory, bound=bound)
        return self.board_runs.shown(values)

    def values_changed(self, changes: Mapping[str, LayerValues]) -> None:
        super().values_changed(self.board_runs.shown(changes))

    def measured_changed(self) -> None:
        """There are other measurements to show."""
        self.values_changed(self.values())

    def edits_changed(self, step: str) -> None:
        if self.board_runs.edited():
            self.measured_changed()
        super().edits_changed(step)

    def _costs_told(self) -> None:
        self.editing.expect_untold()
        if self.costs.fault is not None and self.job is None:
            # Else it is told with what the job comes to.
            self.told(Notice(self.costs.without_estimate, "warning"))
        self.values_changed(self.values())

    def error_of(self, layer: str) -> LayerError | None:
        """The layer's line in the report, with the numbers that were measured since."""
        line = self.editing.line_of(layer)
        pair = self.editing.errors.get(layer)
        return dataclasses.replace(line, entire=pair) if line is not None and pair is not None else line

    def cfg_path(self) -> str:
        """Where the cfg is saved unless another place is named."""
        path = Path(self.path)
        return self.text.path or str(path.with_name(f"{path.stem}.quantization.cfg"))

    def command_line(self) -> str:
        """The headless command that builds what is on the bench, or shows it where there is nothing to build."""
        if self.board_only:
            return shlex.join(["rknn-tui", "inspect", self.path])
        if self.text.path and not self.text.unsaved:
            path = Path(self.text.path)
            stem = path.name.removesuffix(".quantization.cfg")
            words = ["build", str(path.with_name(f"{stem}.model")), "--cfg", str(path)]
        else:
            words = ["build", self.path]
            for option, name in (("--input", "inputs"), ("--output", "outputs")):
                for tensor in self.load_options.get(name) or ():
                    words += [option, tensor]
            for size in self.load_options.get("input_size_list") or ():
                words += ["--input-size", ",".join(map(str, size))]
            if weights := self.load_options.get("weights"):
                words += ["--weights", weights]
            if self.dataset and not self.float16:
                words += ["--dataset", self.dataset]
            elif self.float16 or not (self.summary and self.summary.quantized):
                words += ["--float16"]
            words += ["--target", self.target]
        return shlex.join(["rknn-tui", *words])

    # Searches

    def sample_to_look_at(self) -> list[str] | Reply:
        """The sample to look at, or why there is none."""
        sample = self.analysed or self.sample
        if not sample and self.dataset is not None:
            try:
                sample = first_sample(self.dataset, len(self.summary.inputs) if self.summary else 1)
            except EngineError as error:
                return notice_of(error)
        return sample or None

    def refuse_unless_idle(self) -> Reply:
        """Why nothing can be asked about the model now, which may be a vendor's file."""
        refusal = self._not_ready()
        idle = self.board_only and self.job is None and self.died is None
        return None if idle else refusal

    def _not_quantized(self) -> Reply:
        if refusal := self._not_ready():
            return refusal
        if not self.editing.ready:
            return Notice(f"nothing is quantized yet: {self._key('build_int8')} quantizes to int8", "warning")
        return None

    def trace(self) -> Reply:
        """Trace where the error of the outputs comes from."""
        if refusal := self._not_quantized():
            return refusal
        sample = self.sample_to_look_at()
        if not isinstance(sample, list):
            return sample or self.ask_sample("trace")
        return self.searches.trace(sample)

    def lint(self) -> Reply:
        """Look for what costs accuracy."""
        if refusal := self._not_ready():
            return refusal
        if self.dataset is None and not self.editing.ready:
            return self.ask_dataset("lint")
        sample = self.sample
        return self.searches.lint(self.dataset, sample)

    def ask_tune(self) -> Reply:
        """Ask what a search should reach."""
        if refusal := self._not_quantized():
            return refusal
        if self.dataset is None:
            return self.ask_dataset("tune")
        text = "search until the worst cosine is  (may follow: cost 0.2  layers 8  int16):"
        return Question("tune", text, WISH, paths=False)

    def preview_candidate(self, index: int) -> Reply:
        """Put a candidate in force for now; -1 for none."""
        return self.searches.preview(index)

    def take_candidate(self, index: int) -> Reply:
        """Put a candidate in force for good."""
        return self.searches.take(index)

    def apply_finding(self, finding: Finding) -> Reply:
        """Make the lines of the cfg that cure a finding."""
        if not finding.wishes:
            return Notice("this finding has no lines for the cfg: its remedy is for you", "warning")
        if refusal := self._not_quantized():
            return refusal
        return self.editing.do(f"remedy of {finding.rule}", self.editing.state.with_wishes(finding.wishes))

    # Edits

    def ask_range(self, layer: LayerSummary) -> Reply:
        """Ask for the range of a layer's output."""
        if refusal := self._not_quantized():
            return refusal
        facts = self.facts.of(layer.name)
        made = next((one for one in facts.makes if one.row), None) if facts is not None else None
        row = made.row if made is not None else layer.name
        prefill = f"{made.low:.7g} {made.high:.7g}" if made is not None else ""
        text = f"range of {row}: smallest and largest value, or nothing for the built one"
        return Question("range", text, prefill, subject=row, paths=False)

    def _build(self, params: dict[str, Any], name: str) -> Reply:
        if self.text.typed_at_all and self.text.unsaved and params["do_quantization"]:
            self._to_build = params, name
            text = (
                "the cfg was changed by hand and is not saved. Building begins another one, with its precisions alone"
            )
            return Question("rebuild", f"{text}. y builds, other keys keep it", confirm=True)
        return super()._build(params, name)

    def undo(self) -> Reply:
        """Take the last change back, of the graph or of the text."""
        self.text.settle()
        return self._stepped(self.editing.undo())

    def redo(self) -> Reply:
        """Make the change again that was taken back."""
        self.text.settle()
        return self._stepped(self.editing.redo())

    def _stepped(self, reply: Reply) -> Reply:
        step = self.editing.stepped
        if step is not None and step[1] is not None:
            self.text.step_back(step[1])
        return reply

    # Files

    def save(self) -> Reply:
        """Save the cfg where it was saved or read before; the first time ask where."""
        if refusal := self._refuse_to_save():
            return refusal
        if not self.text.path:
            return self.save_as()
        return self._save(self.text.path)

    def save_as(self) -> Reply:
        """Ask where to save the cfg."""
        return self._refuse_to_save() or Question("save_cfg", "save the cfg as:", self.cfg_path())

    def export(self) -> Reply:
        """Ask where to write the built model."""
        return self._refuse_to_write() or super().export()

    def refuse_to_write_in(self, folder: Path) -> Reply:
        """Why no file may be written in a folder; beside a model that is read-only none may."""
        beside = self.path and absolute(folder) == absolute(Path(self.path).parent)
        return self._refuse_to_write() if beside else None

    def _refuse_to_write(self) -> Reply:
        return Notice("opened read-only: nothing is written", "warning") if self.read_only else None

    def _refuse_to_save(self) -> Reply:
        if refusal := self._refuse_to_write():
            return refusal
        return None if self.editing.ready else Notice("nothing is quantized yet: there is no cfg to save", "warning")

    def _save(self, path: str, *, overwrite: bool = False) -> Reply:
        def saved(files: list[str]) -> None:
            names = ", ".join(Path(name).name for name in files)
            self.cfg_saved(path)
            text = f"saved {names} in {Path(path).resolve().parent}"
            if self.text.faults:
                self.told(Notice(f"{text}, with its faults: nothing is built from it until they are mended", "warning"))
            else:
                self.told(Notice(f"{text}: rknn-tui build builds from them"))

        self.text.save(path, saved, overwrite=overwrite)
        return None

    def cfg_saved(self, path: str) -> None:
        """The cfg lies in this file now."""
        self.editing.keep_run(f"saved as {Path(path).name}")

    def ask_cfg(self) -> Reply:
        """Ask which cfg to read for this model."""
        return self._not_quantized() or Question("open_cfg", "read the cfg:", self.cfg_path())

    def ask_config(self) -> Reply:
        """Ask for a file of settings."""
        if self.job is not None:
            return self._busy()
        beside = Path(self.path).with_suffix(".yaml")
        return Question("config", "settings of the conversion, a YAML file:", str(beside) if is_file(beside) else "")

    def ask_journal(self) -> Reply:
        """Ask where to write what was done."""
        if refusal := self._refuse_to_write():
            return refusal
        path = Path(self.path or "model")
        return Question("journal", "write what was done as a script to:", str(path.with_suffix(".replay.jsonl")))

    # Answers

    def _answer(self, question: Question, text: str) -> Reply:
        topic = question.topic
        if topic == "rebuild":
            return super()._build(*self._to_build)
        if topic == "tune":
            wish = parse_wish(text or WISH)
            self.tune_asked(wish)
            return self.searches.tune(self.dataset or "", wish)
        if topic == "range":
            return self.editing.set_range(question.subject, _ends(text) if text else None)
        if topic == "overwrite_cfg" or topic == "save_faulty":
            return self._save(question.subject, overwrite=True)
        if topic == "save_cfg" and text:
            path = _file_path(text)
            if path != self.text.path and exists(path):
                return Question("overwrite_cfg", f"{path} exists. y replaces it, other keys keep it", path, path, True)
            return self._save(path)
        if topic == "open_cfg" and text:
            self.text.open(_file_path(text))
            return None
        if topic == "journal" and text:
            return self.write_script(_file_path(text))
        if topic == "config" and text:
            return self._read_config(_file_path(text))
        if topic in ("dataset", "sample") and text and question.subject in ("tune", "trace", "lint"):
            super()._answer(dataclasses.replace(question, subject=""), text)
            return {"tune": self.ask_tune, "trace": self.trace, "lint": self.lint}[question.subject]()
        if topic == "sample" and text and question.subject.startswith(f"{ACCURACY_ON} "):
            super()._answer(dataclasses.replace(question, subject=""), text)
            return self.board_runs.accuracy(question.subject.partition(" ")[2])
        return super()._answer(question, text)

    def tune_asked(self, wish: Mapping[str, Any]) -> None:
        """A search begins."""

    def write_script(self, path: str) -> Reply:
        """Write what was done as a journal that can be replayed."""
        raise NotImplementedError

    def _read_config(self, path: str) -> Reply:
        from engine.cli_options import read_config_file

        settings, fields = read_config_file(path)
        self.config.update(settings)
        self.dataset = fields.pop("dataset", self.dataset)
        self.batch = int(fields.pop("batch", self.batch))
        self.float16 = bool(fields.pop("float16", self.float16))
        for name, value in fields.items():
            self.load_options[name] = [list(one) if isinstance(one, tuple) else one for one in value]
        read = counted(len(settings) + len(fields), "setting")
        if self.path and not self.died:
            self.told(Notice(f"{read} read from {path}"))
            return self._load()
        return Notice(f"{read} read from {path}")


def _ends(text: str) -> tuple[float, float]:
    """Two numbers as typed. Raises InputError."""
    parts = text.replace(",", " ").replace("..", " ").split()
    try:
        low, high = (float(part) for part in parts)
    except ValueError as error:
        raise InputError(f"{text!r} is no range", hint="two numbers, such as -1.5 6") from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{text!r} is no range", hint="both ends are finite numbers, such as -1.5 6")
    if not low <= high:
        raise InputError(f"{text!r} has its ends the wrong way round", hint="the smaller number first")
    return low, high


def _file_path(text: str) -> str:
    """A typed path to a file. Raises FileError for a folder."""
    path = typed_path(text)
    if is_folder(path):
        raise FileError("is a folder, not a file", where=path, hint="name a file in it")
    return path
