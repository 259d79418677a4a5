"""Does again, on a session of its own, what a journal says."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import ConfigError, FileError, OrderError, QuantizationError
from engine.history import EditState
from engine.journal.entries import STEPS, Entry
from engine.journal.replay_files import CFG, DATA, MODEL, ReplayFiles
from engine.journal.steps import EntrySteps, taken
from engine.progress import Progress
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import input_specs
from engine.session_hybrid import HybridSession
from engine.summaries import Candidate, LiveState, Quality, TuneRun

log = logging.getLogger("engine")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of an entry: `text` in a few words, `details` as plain data or summaries, by the entry's verb.

    `quality` and `extra` (estimated extra time, as in LiveState) are of the model with the edits that are then in
    force; None where they are not measured.
    """

    entry: Entry
    text: str
    seconds: float
    quality: Quality | None = None
    extra: float | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


class Replay:
    """Follows the entries of the journal at `journal`, which write files in `folder` only; see ReplayFiles."""

    def __init__(self, journal: str | Path, folder: str | Path | None = None) -> None:
        self.session = HybridSession()
        self._files = ReplayFiles(journal, folder)
        self._dataset: str | None = None
        self._begin()

    def check(self, entries: Sequence[Entry]) -> None:
        """Say before the work that an entry reads what is not there, or writes where it may not. Raises FileError."""
        files = self._files.fresh()
        for entry in entries:
            try:
                found = files.find(entry)
                files.check_readable(found)
            except FileError as error:
                error.where = f"line {entry.line}: {error.where}"
                raise
            files.made(found)

    def do(self, entry: Entry, following: Entry | None = None, progress: Progress | None = None) -> Outcome:
        """Do what an entry says. Edits that the engine refuses pass if the entry after it takes them back, as a person
        has then seen.

        Raises EngineError.
        """
        started, progress = time.perf_counter(), progress or Progress()
        found = self._files.find(entry)
        if entry.verb in (*STEPS, "undo", "redo"):
            text, details = self._edit(entry, following, progress)
        else:
            work: Callable[[Entry, Progress], tuple[str, dict[str, Any]]] = getattr(self, f"_{entry.verb}")
            text, details = work(found, progress)
        self._files.made(found)
        return Outcome(entry, text, time.perf_counter() - started, self.quality, self.extra, details)

    def measure(self, progress: Progress | None = None) -> None:
        """Where nothing was analysed, but a dataset is known, measure the model on the dataset's first sample."""
        if self.quality is None and self._dataset is not None and self.edits is not None:
            specs = input_specs(self.session.config, self.session.summary().inputs)
            sample = [str(file) for file in Dataset(self._dataset, specs).files(0)]
            self._take(self.session.live_start(sample, errors=False, progress=progress))

    @property
    def edits(self) -> EditState | None:
        """The edits in force; None without a quantized model."""
        return self._steps.state if self._quantized else None

    def _begin(self) -> None:
        """Another model, or another build of it: its edits begin, and what was found of the one before is gone."""
        self._runs: dict[int, TuneRun] = {}
        self._searched_from: dict[int, EditState] = {}
        self.quality: Quality | None = None
        self.extra: float | None = None
        start = EditState()
        self._quantized = False
        with contextlib.suppress(OrderError):
            reading = self.session.edits()
            start, self._quantized = EditState(reading.wishes, reading.ranges), True
        self._steps = EntrySteps(start)

    def _take(self, state: LiveState) -> None:
        self.quality, self.extra = state.quality, state.extra

    # Entries

    def _open(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        path, cuts = Path(entry["model"]), (entry["inputs"], entry["input_size_list"], entry["outputs"])
        self._dataset = None
        if path.suffix == MODEL:
            cfg = entry["cfg"] or path.with_suffix(CFG)
            self.session.hybrid_step2(path, path.with_suffix(DATA), cfg, progress=progress)
        elif entry["cfg"]:
            raise ConfigError("a cfg is opened with a .model", where="cfg", hint="leave it out")
        else:
            self.session.load(path, *cuts, weights=entry["weights"], progress=progress)
        self._begin()
        model = self.session.summary()
        built = f", built {model.built}" if model.built else ""
        text = f"{len(model.layers)} layers, {model.parameters:,} parameters{built}"
        return text, {"layers": len(model.layers), "parameters": model.parameters, "built": model.built}

    def _config(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        self.session.config = Config.from_mapping(entry["settings"])
        return "", {}

    def _build(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        built = self.session.build(
            do_quantization=entry["do_quantization"] is not False,
            dataset=entry["dataset"],
            rknn_batch_size=entry["batch"] or 1,
            progress=progress,
        )
        self._dataset = entry["dataset"]
        self._begin()
        recipe = f" by {built.recipe}" if built.recipe else ""
        samples = f", {built.samples} samples" if built.samples else ""
        return f"{built.precision}{recipe}{samples}", {"build": built}

    def _analyze(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        report = self.session.analyze(list(entry["inputs"]), progress=progress)
        self._take(self.session.live_start(list(entry["inputs"]), errors=False, progress=progress))
        pairs = {line.name: line.entire.cosine for line in report.layers if line.entire is not None}
        worst = min(pairs, key=lambda name: pairs[name], default="")
        text = f"worst layer {worst} {pairs[worst]:.5f}" if worst else ""
        return text, {"outputs": report.outputs, "warnings": report.warnings}

    def _edit(self, entry: Entry, following: Entry | None, progress: Progress) -> tuple[str, dict[str, Any]]:
        self.session.edits()  # an error where nothing is there to edit
        self._steps.do(entry, self._candidate(entry) if entry.verb == "take" else None)
        state = self._steps.state
        try:
            live = self.session.apply(
                state.wishes, state.ranges, self._biases(state.biases), errors=False, whole=False, progress=progress
            )
        except QuantizationError as error:
            if following is None or following.verb != "undo":
                raise
            return f"refused: {error}; the next entry takes it back", {"refused": str(error)}
        self._take(live)
        return "", {"ran": len(live.changed)}

    def _tune(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        wish = {name: entry[name] for name in ("cosine", "cost", "layers", "precision")}
        found = self.session.tune_run(entry["dataset"], **wish, progress=progress)
        number = entry["run"] or max(self._runs, default=0) + 1
        self._runs[number], self._searched_from[number] = found, self._steps.state
        report = found.report
        best = max((one.quality.cosine for one in report.candidates), default=report.base.cosine)
        text = f"search {number}: candidates: {len(report.candidates)}, cosine {report.base.cosine:.5f} to {best:.5f}"
        return text, {"run": number, "report": report}

    def _save(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        state, path = self._steps.state, entry["cfg"]
        text, known = self.session.cfg_text(), None
        if Path(path).exists():
            there = self.session.cfg_open(path)
            text, known = there["text"], there["sha256"]
        text = self.session.cfg_write(text, state.wishes, state.ranges)
        return self._wrote(self.session.save_cfg(path, text, known))

    def _export(self, entry: Entry, progress: Progress) -> tuple[str, dict[str, Any]]:
        return self._wrote([str(self.session.export(entry["path"]))])

    def _wrote(self, files: list[str]) -> tuple[str, dict[str, Any]]:
        return f"wrote {', '.join(files)}", {"files": files}

    def _candidate(self, entry: Entry) -> EditState:
        """The edits with the candidate that an entry takes: the one that has its lines, where it tells them."""
        run, wanted = entry["run"], entry["candidate"]
        found, begun = self._search(run), self._searched_from[run]
        candidates, before = found.report.candidates, self._steps.state

        def has(candidate: Candidate) -> bool:
            return entry["wishes"] in (candidate.wishes, {**begun.wishes, **candidate.wishes})

        index: int | None = wanted if wanted < len(candidates) else None
        if entry["wishes"] is not None and (index is None or not has(candidates[index])):
            index = next((place for place, one in enumerate(candidates) if has(one)), None)
        if index is None and entry["wishes"] is None:
            raise OrderError(f"search {run} found {len(candidates)} candidates only", where="take: candidate")
        if index is None:
            log.warning("search %d did not find candidate %d again: its layers, without its biases", run, wanted)
            return EditState(entry["wishes"], before.ranges)
        wishes = {**begun.wishes, **candidates[index].wishes} if entry["wishes"] is None else entry["wishes"]
        return dataclasses.replace(taken(entry, before, wishes), biases=f"{run}.{index}")

    def _biases(self, name: str) -> str:
        """The session's name of biases; it counts searches anew."""
        if not name:
            return ""
        run, _, index = name.partition(".")
        return f"{self._search(int(run)).number}.{index}"

    def _search(self, run: int) -> TuneRun:
        if run not in self._runs:
            raise OrderError(f"no search {run} was made before", where="run", hint="a tune entry makes it")
        return self._runs[run]
