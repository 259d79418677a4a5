"""What outlives the app: the model's project, the journal of what was done, and edits that are not saved yet."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.history import EditState, History
from engine.journal import keeping as journal
from engine.summaries import AccuracyReport, BuildSummary, ModelSummary
from rknn_tui.bench import project
from rknn_tui.bench.dialogue import Notice, Reply, counted
from rknn_tui.bench.job import Job
from rknn_tui.bench.kept import Kept
from rknn_tui.bench.paths import absolute
from rknn_tui.bench.recovery import Recovered, Recovery
from rknn_tui.bench.tuning_bench import TuningBench
from rknn_tui.settings import state_folder


class Memory:
    """Writes down what happens on a bench. Nothing is written for a model that is only looked at, nor read-only.

    `tell` hears what a person should know of the files.
    """

    def __init__(self, bench: TuningBench, tell: Callable[[Reply], object], *, read_only: bool, restore: bool) -> None:
        self._bench, self._tell = bench, tell
        self._read_only, self._restore = read_only, restore
        self._recovery: Recovery | None = None
        self._journal = journal.Journal(None)
        self._found: Recovered | None = None
        self._kept = False
        self._opened: list[tuple[str, dict[str, Any]]] = []
        self._before = EditState()
        self._steps = 0
        self._replaced: History | None = None
        self.saved_cfg: str | None = None

    # A model comes and goes

    def opening(self, path: str, given: Mapping[str, Any]) -> list[Notice]:
        """A model is about to be loaded: bring back what its project knows and `given`, the options, do not say."""
        self.leaving()
        self._recovery, self._kept = Recovery(path), False
        self._journal = journal.Journal(None if self._read_only else journal.beside(path))
        # What the bench has kept itself goes on by itself.
        self._found = self._recovery.found() if self._restore and self._bench.kept is None else None
        known, faults = project.load(path)
        self._take(known, given)
        return [Notice(fault, "warning") for fault in faults]

    def _take(self, known: project.Project, given: Mapping[str, Any]) -> None:
        bench = self._bench
        for name in project.LOAD_OPTIONS:
            value = getattr(known, name)
            if value is not None and not given.get(name):
                several = not isinstance(value, str)
                bench.load_options[name] = [_listed(one) for one in value] if several else value
        bench.dataset = given.get("dataset") or bench.dataset or known.dataset
        bench.sample = bench.sample or list(known.sample) or None
        bench.float16 = bool(given.get("float16") or known.float16)
        bench.batch = int(given.get("batch") or 1) if given.get("batch", 1) != 1 else known.batch
        # What was said on the command line, or kept from the model before, goes before what the project says.
        bench.config = {**known.config, **bench.config}
        bench.board_runs.chosen = known.board or bench.board_runs.chosen
        self.saved_cfg = known.cfg

    def leaving(self) -> None:
        """The model goes: what it was is written down already, or not wanted."""
        self._recovery = None
        self._journal.close()

    # What happens

    def done(self, job: Job, params: Mapping[str, Any], value: Any) -> None:
        """A request of a job ended well."""
        bench = self._bench
        if isinstance(value, ModelSummary) and job.name == "load":
            path = Path(absolute(bench.path))
            arguments: dict[str, Any] = {"model": str(path)}
            if value.framework == "hybrid":
                arguments["cfg"] = str(path.with_suffix(".quantization.cfg"))
            else:
                arguments |= {name: bench.load_options.get(name) for name in project.LOAD_OPTIONS}
            self._opened = [("open", arguments)]
            self._start(EditState())
        elif isinstance(value, BuildSummary) and job.method == "build":
            self._flush()
            if bench.config:
                self.note("config", settings=bench.config)
            given = {
                "dataset": params.get("dataset"),
                "do_quantization": params.get("do_quantization"),
                "batch": params.get("rknn_batch_size"),
            }
            self.note("build", **given)
            self._start(EditState())
            # What is edited until the new build's layers are there, is carried over to it in one step.
            self._replaced = bench.editing.history
            self.keep_project()
        elif isinstance(value, AccuracyReport):
            self.note("analyze", inputs=params.get("inputs"))
            self.keep_project()

    def _flush(self) -> None:
        for verb, arguments in self._opened:
            self.note(verb, **arguments)
        self._opened = []

    def _start(self, state: EditState) -> None:
        self._before, self._steps = state, 0

    def started_with(self, state: EditState) -> None:
        """A package brought edits of its own."""
        self._start(state)

    def edited(self, step: str) -> None:
        """Other edits are in force."""
        history = self._bench.editing.history
        if history is self._replaced:
            return
        now, before = history.state, self._before
        if step in ("undo", "redo"):
            self.note(step)
        else:
            try:
                entry = journal.change(before, now, joined=history.undoable == self._steps and bool(self._steps))
            except EngineError as error:
                # The engine refuses them too.
                self._tell(Notice(f"the journal misses a line: {error}", "warning"))
            else:
                self.note(entry.verb, **entry.arguments)
        self._before, self._steps = now, history.undoable

    def note(self, verb: str, **arguments: Any) -> None:
        """Add a line to the journal; the first one is preceded by the model's opening."""
        if self._opened and verb not in ("open",):
            self._flush()
        try:
            said = self._journal.add(verb, {name: value for name, value in arguments.items() if value is not None})
        except EngineError as error:
            said = f"the journal misses a line: {error}"
        if said:
            self._tell(Notice(said, "warning"))

    def write_script(self, path: str) -> Reply:
        """Write the fewest lines that come to the same."""
        entries = self._journal.compact()
        if not entries:
            return Notice("nothing was done yet", "warning")
        written = journal.write(path, entries)
        return Notice(f"wrote {written} ({counted(len(entries), 'line')}): rknn-tui replay does it again")

    # Files

    def keep_project(self) -> None:
        """Write the model's settings beside it."""
        bench = self._bench
        if self._read_only or not bench.path:
            return
        options = bench.load_options
        known = project.Project(
            inputs=_tuple(options.get("inputs")),
            input_size_list=_tuple(options.get("input_size_list")),
            outputs=_tuple(options.get("outputs")),
            weights=options.get("weights"),
            dataset=bench.dataset,
            sample=tuple(bench.sample or ()),
            config=bench.config,
            float16=bench.float16,
            batch=bench.batch,
            cfg=bench.text.path or self.saved_cfg,
            board=bench.board_runs.chosen or None,
        )
        try:
            _, said = project.save(bench.path, known)
        except EngineError as error:
            said = [str(error)]
        for text in said:
            self._tell(Notice(text, "warning"))

    def keep_unsaved(self) -> bool:
        """Write down edits that are not saved, for the next start; may be called in any thread."""
        bench, recovery = self._bench, self._recovery
        if recovery is None:
            return True
        if not bench.unsaved:
            # Edits that were taken back do not come again; those of an earlier start may not have been offered yet.
            if self._kept:
                recovery.drop()
            return True
        kept = bench.kept if not bench.editing.ready else None
        kept = kept or Kept(bench.editing.state, bench.editing.history.saved, bench.text.left)
        self._kept = recovery.keep(kept) or self._kept
        return self._kept

    def closed(self) -> None:
        """The app is left on purpose: what is not saved is not wanted, unless nobody was told of it yet."""
        if self._found is None:
            self.drop_unsaved()
        self.leaving()

    def put_aside(self, text: str) -> Path | None:
        """Write down a cfg's text that no build has any longer; returns the file, None where that cannot be done."""
        name = f"{Path(self._bench.path).stem}-{time.strftime('%Y%m%d-%H%M%S')}.cfg"
        path = state_folder() / "unsaved" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(text, errors="backslashreplace")
        except (OSError, ValueError):
            return None
        return path

    def drop_unsaved(self) -> None:
        """Nothing is unsaved any more, or it is not wanted."""
        if self._recovery is not None:
            self._recovery.drop()

    def recovered(self) -> Reply:
        """Edits of an earlier start that were never saved, made again on the model that was built; told once."""
        found, bench = self._found, self._bench
        if found is None or not bench.editing.ready:
            return None
        self._found = None
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.when))
        kept = dataclasses.replace(found.kept, makers=bench.editing.makers)
        text = " and the cfg's text" if kept.text is not None else ""
        edits = counted(kept.edits, "edit") + text if kept.edits else "changes of the cfg's text"
        other = "" if found.same_model else ", of another version of the model"
        biases = "; biases that a search corrected are gone" if found.kept.state.biases else ""
        bench.take_back(f"unsaved edits of {when}", found.kept)
        undo = bench.keymap.shown("undo")
        return Notice(
            f"{edits} of {when} that were not saved are back{other}{biases}: {undo} takes them away", "warning"
        )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuple(value: Any) -> Any:
    return tuple(_tuple(one) for one in value) if isinstance(value, (list, tuple)) else value
