"""A person's edits of the built model: what they change at once, and what the engine then measures of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from engine.errors import Cancelled, EngineError
from engine.history import EditState, History
from engine.host_protocol import EngineDiedError
from engine.summaries import (
    AccuracyReport,
    CfgReading,
    ErrorPair,
    LayerError,
    LayerSummary,
    LiveState,
    ModelSummary,
    Quality,
    SourceMap,
)
from engine.targets import TARGETS
from rknn_tui.bench.calls import Calls
from rknn_tui.bench.costs import Costs
from rknn_tui.bench.dialogue import Notice, Reply, counted, notice_of
from rknn_tui.bench.estimates import NoiseEstimate, estimated_cosine
from rknn_tui.bench.runs import Run
from rknn_tui.graph.layer_values import LayerValues

MOST_RUNS = 20
FEW_LAYERS = 8
"""Up to so many layers that change together, each row tells at once what it is expected to take."""


class Hearer(Protocol):
    """What hears of the edits."""

    def values_changed(self, changes: Mapping[str, LayerValues]) -> object:
        """The rows of some layers show something else now."""

    def edits_changed(self, step: str) -> object:
        """Other edits are in force: a person made `step`, or took it back."""

    def told(self, reply: Reply) -> object:
        """There is something to say."""


class Editing:
    """The edits in force, as steps that can be undone, and the numbers of the model with them.

    An edit changes precisions, and the estimate of the outputs' cosine, at once; the engine is sent the latest edits
    as soon as it has answered those before, so that a held key never queues up work.
    """

    def __init__(
        self,
        calls: Calls,
        hearer: Hearer,
        before: str = "a model is quantized before it is edited",
        costs: Costs | None = None,
    ) -> None:
        """`before` is what to say to a change while nothing is built; `costs` are those of the model."""
        self._before = before
        self._calls = calls
        self._hearer = hearer
        self.costs = costs if costs is not None else Costs(calls)
        self.history = History()
        self.layers: Sequence[LayerSummary] = ()
        self.runs: list[Run] = []
        self.forget()

    def forget(self) -> None:
        """Nothing is built: there is nothing to edit."""
        self.history = History()
        self.layers = ()
        self.by_name: dict[str, LayerSummary] = {}
        self.makers: dict[str, str] = {}
        self.precisions: dict[str, str] = {}
        self.words: dict[str, str] = {}
        self.lines: dict[str, tuple[str, ...]] = {}
        self.errors: dict[str, ErrorPair] = {}
        self.report: AccuracyReport | None = None
        self.quality: Quality | None = None
        self.saved_quality: Quality | None = None
        self.estimate: float | None = None
        self.extra = 0.0
        self.live = False
        self.sources: SourceMap | None = None
        self.runs = []
        self._built_precisions: dict[str, str] = {}
        self._noise: NoiseEstimate | None = None
        # The layers whose precision may be another than when the noise was traced.
        self._touched: dict[str, None] = {}
        self._left: float | None = None
        self.stepped: tuple[str, str | None] | None = None
        self._label = ""
        self._lines: dict[str, LayerError] = {}
        self._measured: EditState | None = self.history.state
        self._sent: EditState | None = None
        self._target = ""

    # What is known

    @property
    def ready(self) -> bool:
        """Whether there is a quantized model to edit."""
        return bool(self._built_precisions)

    @property
    def state(self) -> EditState:
        """The edits in force."""
        return self.history.state

    @property
    def pending(self) -> bool:
        """Whether the engine has not answered the latest edits yet."""
        return self.ready and self._measured is not self.state and self._measured != self.state

    @property
    def cosine(self) -> float | None:
        """The worst output's cosine, as measured last; None before an analysis."""
        if self.quality is not None:
            return self.quality.cosine
        pairs = [pair.cosine for pair in self.report.outputs.values()] if self.report else []
        return min(pairs, default=None)

    @property
    def unsaved(self) -> int:
        """How many layers are otherwise than saved; one where only the biases are."""
        changed = self.state.differing(self.history.saved)
        return len({self.layer_of(tensor) or tensor for tensor in changed}) or int(self.history.unsaved > 0)

    def values(self, names: Iterable[str] | None = None) -> dict[str, LayerValues]:
        """What the rows of some layers show, by default of all."""
        wanted = self.by_name if names is None else [name for name in names if name in self.by_name]
        return {name: self._values(self.by_name[name]) for name in wanted}

    def line_of(self, layer: str) -> LayerError | None:
        """The layer's line in the report of the last analysis, without what is only true of another precision."""
        line = self._lines.get(layer)
        now = self.precisions.get(layer, "").rpartition("+")[2]
        return line if line is None or now in ("", line.precision) else dataclasses.replace(line, single=None)

    def saved_precision(self, layer: LayerSummary) -> str:
        """What the saved cfg wishes for a layer, where that is something else now; '' elsewhere."""
        now, saved = (
            next((wishes[tensor] for tensor in layer.outputs if tensor in wishes), "")
            for wishes in (self.state.wishes, self.history.saved.wishes)
        )
        return "" if now == saved else saved or self._built_precisions.get(layer.name, "")

    def layer_of(self, tensor: str) -> str:
        """The layer that makes a tensor; the cfg's copies on another grid go by their tensor's name."""
        return self.makers.get(tensor) or next(
            (
                self.makers[tensor.removesuffix(end)]
                for end in ("_int8", "_int16")
                if tensor.removesuffix(end) in self.makers
            ),
            "",
        )

    def _values(self, layer: LayerSummary) -> LayerValues:
        state, saved = self.state, self.history.saved
        wished = next((state.wishes[name] for name in layer.outputs if name in state.wishes), "")
        pair, line, noise = self.errors.get(layer.name), self.line_of(layer.name), self._noise
        milliseconds, memory, bound, expected = self.costs.shown(layer.name)
        return LayerValues(
            precision=self.precisions.get(layer.name, layer.precision),
            wished=wished,
            changed=any(
                state.wishes.get(name) != saved.wishes.get(name) or state.ranges.get(name) != saved.ranges.get(name)
                for name in layer.outputs
            ),
            entire=pair.cosine if pair is not None else math.nan,
            single=line.single.cosine if line is not None and line.single is not None else math.nan,
            share=noise.left_of(layer.name, self.precisions) if noise is not None else math.nan,
            milliseconds=milliseconds,
            bytes=memory,
            expected=expected,
            bound=bound,
            fused=line is not None and line.entire is None,
        )

    # What the engine found

    def begin(self, summary: ModelSummary) -> None:
        """A model was built: edits start from it, and a float16 build has none.

        Precisions that were wished for the same layers before are wished again; ranges were those of the old build.
        """
        same = [layer.name for layer in summary.layers] == [layer.name for layer in self.layers]
        runs, wishes = (self.runs, self.state.wishes) if same else ([], {})
        self._start_with(summary)
        self.runs = runs
        if not self.ready:
            return
        if wishes:
            self.do("edits of the build before", EditState(wishes))
        self._send()

    def begin_with(self, summary: ModelSummary, reading: CfgReading) -> None:
        """A package was opened that brings edits of its own: they are in force, and saved."""
        self._start_with(summary)
        self.history = History(EditState(reading.wishes, reading.ranges))
        self._send()

    def _start_with(self, summary: ModelSummary) -> None:
        self.forget()
        self.layers = summary.layers
        self.by_name = {layer.name: layer for layer in summary.layers}
        self.makers = {tensor: layer.name for layer in summary.layers for tensor in layer.outputs}
        self._target = summary.target
        if summary.built not in ("", "float16"):
            self._built_precisions = {layer.name: layer.precision for layer in summary.layers}
            self.precisions = dict(self._built_precisions)
            # What the engine tells of the model as it is, is wanted as well.
            self._measured = None

    def set_report(self, report: AccuracyReport) -> None:
        """An analysis ended; it was made with the edits in force when it was asked for."""
        self.report = report
        self._lines = {line.name: line for line in report.layers}
        self.errors = {line.name: line.entire for line in report.layers if line.entire is not None}
        if report.quality is not None:
            self.quality = report.quality
        self.estimate = None

    def begin_live(self, state: LiveState) -> None:
        """From now on the engine measures every edit."""
        self.live = True
        # What it started from are the edits of that moment; later ones are sent now.
        self._take(state)
        self.saved_quality = self.saved_quality or (state.quality if not self.history.unsaved else None)
        self.keep_run("as built" if self.state == EditState() else self._label)
        self._send()

    def set_sources(self, sources: SourceMap, precisions: Mapping[str, str]) -> None:
        """The outputs' error was traced while the layers were in these precisions."""
        self.sources = sources
        self._noise = NoiseEstimate(sources, self.layers, precisions)
        now = self.precisions
        self._touched = {name: None for name, before in precisions.items() if now.get(name, before) != before}
        self._hearer.values_changed(self.values())

    # What a person changes

    def set_precision(self, layers: Sequence[LayerSummary], precision: str) -> Reply:
        """Put layers into 'int8', 'int16', 'float16', or with '' take their wishes back."""
        if refusal := self._not_ready():
            return refusal
        target = TARGETS.get(self._target)
        if precision and target is not None and precision not in target.precisions:
            has = ", ".join(target.precisions)
            return Notice(f"{self._target} cannot run a layer in {precision}: it has {has}", "warning")
        able = [layer for layer in layers if self._built_precisions.get(layer.name)]
        if not able:
            return Notice("nothing there has a precision: integers stay as they are", "warning")
        changes = {tensor: precision for layer in able for tensor in self.lines.get(layer.name, layer.outputs)}
        what = able[0].name if len(able) == 1 else counted(len(able), "layer")
        return self.do(f"{what} to {precision or 'its default'}", self.state.with_wishes(changes))

    def cycle(self, layers: Sequence[LayerSummary]) -> Reply:
        """The next precision that the target has, for all of them the one after the first's."""
        if refusal := self._not_ready():
            return refusal
        target = TARGETS.get(self._target)
        known = target.precisions if target is not None else ("int8", "float16")
        now = self.precisions.get(layers[0].name, "").rpartition("+")[2] if layers else ""
        following = known[(known.index(now) + 1) % len(known)] if now in known else known[0]
        return self.set_precision(layers, following)

    def set_range(self, row: str, ends: tuple[float, float] | None) -> Reply:
        """Change the range of a row of the cfg; None goes back to the build's."""
        if refusal := self._not_ready():
            return refusal
        what = "the built range" if ends is None else f"{ends[0]:g} to {ends[1]:g}"
        return self.do(f"range of {row}: {what}", self.state.with_ranges({row: ends}))

    def do(self, label: str, state: EditState, group: str = "", **texts: str | None) -> Reply:
        """Put other edits in force as a step."""
        before = self.state
        if not self.history.do(label, state, group, **texts):
            return Notice(f"{label}: it is so already")
        self.stepped = None
        self._changed(before, label)
        return None

    def undo(self) -> Reply:
        """Take the last step back."""
        before, step = self.state, self.history.undo()
        self.stepped = (step.label, step.text_before) if step is not None else None
        if step is None:
            return Notice("nothing to undo")
        self._changed(before, "undo")
        return Notice(f"undone: {step.label}")

    def redo(self) -> Reply:
        """Make the step again that was taken back last."""
        before, step = self.state, self.history.redo()
        self.stepped = (step.label, step.text) if step is not None else None
        if step is None:
            return Notice("nothing to redo")
        self._changed(before, "redo")
        return Notice(f"done again: {step.label}")

    def settle_group(self) -> None:
        """Let the next edit be a step of its own."""
        self.history.settle()

    def mark_saved(self, state: EditState | None = None) -> None:
        """The edits in force, or those of an earlier moment, are in the file."""
        before = self.history.saved
        saved = self.history.saved = self.state if state is None else state
        self.saved_quality = self.quality if self._measured == saved else None
        changed = dict.fromkeys((*before.differing(self.state), *saved.differing(self.state)))
        self._hearer.values_changed(self.values(self._layers_of(changed)))

    def keep_run(self, label: str) -> None:
        """Keep what was measured last, to be compared with others."""
        if (run := self.as_run(label)) is not None:
            others = [one for one in self.runs if one.label != label]
            self.runs = [*others[-MOST_RUNS + 1 :], run]

    def as_run(self, label: str) -> Run | None:
        """What was measured last, under a name; None before anything was."""
        if self.quality is None:
            return None
        precisions, errors = dict(self.precisions), dict(self.errors)
        # Those of another target say nothing of the model that was built.
        time = self.costs.total_milliseconds if self.costs.looks_at(self._target) else math.nan
        return Run(label, self._target, self.quality, self.extra, precisions, errors, self.state.wishes, time)

    def _not_ready(self) -> Reply:
        return None if self.ready else Notice(f"nothing is quantized yet: {self._before}", "warning")

    def _changed(self, before: EditState, label: str) -> None:
        names = self._layers_of(before.differing(self.state))
        self._label = label
        if self._noise is not None and self.estimate is None:
            self._left = self._noise.left(self.precisions, self._touched)
        self._expect(names)
        if self._noise is not None and self.quality is not None and self._left is not None:
            left = self._noise.left(self.precisions, self._touched)
            self.estimate = None if left is None else estimated_cosine(self.quality.cosine, self._left, left)
        self._tell(names)
        # The engine answers in turn: the numbers that a person waits for come before what others ask for.
        self._send()
        self._hearer.edits_changed(label)

    def _expect(self, layers: Iterable[str]) -> None:
        """What the edits in force make of some layers, as far as that is clear before the engine has told."""
        wishes, layers = self.state.wishes, list(layers)
        # Layers that change together convert less between them than each alone: that is worth a total, not their rows.
        seen = len(layers) <= FEW_LAYERS
        for name in layers:
            wish = next((wishes[tensor] for tensor in self.by_name[name].outputs if tensor in wishes), "")
            self.precisions[name] = wish or self._built_precisions[name] or self.precisions[name]
            self.costs.expect(name, self.precisions[name], seen=seen)
            self._touched[name] = None

    def expect_untold(self) -> None:
        """The engine told of edits before those in force: what these change is still only expected."""
        if self.pending and self._measured is not None:
            self._expect(self._layers_of(self._measured.differing(self.state)))

    def _layers_of(self, tensors: Iterable[str]) -> list[str]:
        return [name for tensor in tensors if (name := self.layer_of(tensor))]

    def send_latest(self) -> None:
        """Send the latest edits before the engine is asked for something that depends on them, such as a search."""
        self._send(even_now=True)

    def _send(self, even_now: bool = False) -> None:
        if not self.pending or self._sent == self.state or (self._sent is not None and not even_now):
            return
        state = self.state
        params = {
            "wishes": dict(state.wishes),
            "ranges": {row: list(ends) for row, ends in state.ranges.items()},
            "biases": state.biases,
            "whole": False,
        }

        def answer(value: Any, error: EngineError | None) -> None:
            # Where edits were sent after these, theirs is the answer that counts.
            self._sent = None if self._sent is state else self._sent
            if error is None:
                self._measured = state
                self._take(value)
            elif isinstance(error, (Cancelled, EngineDiedError)):
                return
            else:
                self._measured = state if state is self.state else None
                self._hearer.told(notice_of(error))
                if state is self.state and self.history.undoable:
                    # What the engine cannot do is not kept: the step goes, and so does its mark on the screen.
                    before = self.state
                    self.history.undo()
                    self._measured = self.stepped = None
                    self._changed(before, "undo")
            self._send()

        self._sent = state
        self._calls.start("apply", params, answer)

    def _take(self, state: LiveState) -> None:
        self.precisions.update(state.precisions)
        self._touched.update(dict.fromkeys(state.precisions))
        self.words.update(state.words)
        if state.lines:
            self.lines = state.lines
            self.makers.update((tensor, name) for name, tensors in state.lines.items() for tensor in tensors)
        self.errors.update(state.errors)
        self.extra = state.extra
        costed = self.costs.told(state.costs, state.totals, self._target)
        self.expect_untold()
        if state.quality is not None:
            self.quality = state.quality
            if not self.pending:
                self.estimate = None
            if self.saved_quality is None and not self.history.unsaved:
                self.saved_quality = state.quality
        self._tell((*state.precisions, *state.errors, *state.changed, *costed))

    def _tell(self, layers: Iterable[str]) -> None:
        """Rows show something else, and with them the shares of the layers before them."""
        names = dict.fromkeys(layers)
        self._hearer.values_changed(self.values(names if self._noise is None else self._noise.sharing(names)))


def edit_changes(before: EditState, after: EditState) -> tuple[dict[str, str], dict[str, Any]]:
    """What differs, as the journal writes it: wishes ('' for one that went), and ranges (None for one that went)."""
    wishes = {
        n: after.wishes.get(n, "") for n in before.differing(after) if before.wishes.get(n) != after.wishes.get(n)
    }
    ranges = {
        n: list(after.ranges[n]) if n in after.ranges else None
        for n in before.differing(after)
        if before.ranges.get(n) != after.ranges.get(n)
    }
    return wishes, ranges
