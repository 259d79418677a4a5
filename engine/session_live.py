"""The session as the app uses it: edits by value, evaluated live on one sample, and what a person asks of a layer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence

from engine.progress import Progress
from engine.quantization.hybrid import apply_cfg
from engine.quantization.quantized import Array, Quantized
from engine.quantization.traffic import Traffic, in_words, traffic
from engine.session_cfg import Base, CfgSession, completed, edited_checked, edits_from
from engine.summaries import (
    ErrorPair,
    Finding,
    LiveState,
    SourceMap,
    TuneRun,
)
from engine.tuning.live import Live
from engine.tuning.search import Wish


class WatchedLive(Live):
    """Live evaluation that shows the float model's tensors too."""

    def golden(self, tensor: str) -> Array:
        """A tensor of the float model on the first sample; not to be written to."""
        return self._golden_value(0, tensor)


class LiveSession(CfgSession):
    """A session whose edits are told in full each time, so that to undo is to apply the earlier ones.

    A build or a load starts anew: live evaluation ends, and the biases that searches found are gone. Parameters and
    values are those that JSON has.
    """

    _live: WatchedLive | None = None
    _told: Mapping[str, Traffic] | None = None

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        super().release()
        self._renewed()

    def apply(
        self,
        wishes: Mapping[str, str],
        ranges: Mapping[str, Sequence[float]],
        biases: str = "",
        errors: bool = True,
        whole: bool = True,
        *,
        progress: Progress | None = None,
    ) -> LiveState:
        """Make the built model the build with these edits, and tell what they do.

        `wishes` are lines of custom_quantize_layers (tensor -> precision) in place of all others, `ranges` minima and
        maxima by row. `biases` are the build's own or, by `{number}.{index}`, those of a candidate of `tune_run`.
        `errors` asks for the errors of layers that changed. `whole`: a wish for a layer's output goes for the tensors
        within the layer too, unless the wishes say something of those; otherwise it parts the layer, as it does in a
        cfg's text.

        Raises QuantizationError for edits that cannot be, InputError, and Cancelled; nothing is changed then.
        """
        started, base = time.perf_counter(), self._current()
        target = base.built.config.target
        edits = edits_from(wishes, ranges)
        if whole:
            edits = dataclasses.replace(edits, wishes=completed(base.built.single, edits.wishes, target))
        single = edited_checked(base.model(biases), edits, target)
        changed: tuple[str, ...] = ()
        if self._live is not None:
            changed = self._live.take(single, progress).changed
        before = self._require_built("apply").single
        self._take_edited(single, biases)
        return self._state(base, before, changed, errors, started)

    def live_start(self, inputs: Sequence[str], errors: bool = True, *, progress: Progress | None = None) -> LiveState:
        """Evaluate what `apply` makes of the model from now on, on one sample: a file (jpg, png, bmp, npy) an input.

        Tells all of the model as it is. Raises InputError, DatasetError and Cancelled.
        """
        started, base = time.perf_counter(), self._current()
        built = self._require_built("live_start")
        sample = self._sample(inputs, built.config)
        self._live = WatchedLive(built.single, [sample], built.config.target, progress)
        self._told = None
        return self._state(base, built.single, tuple(layer.name for layer in built.single.layers), errors, started)

    def live_stop(self) -> None:
        """End live evaluation and let go of its tensors."""
        self._live = None

    def compare_cfg(self, text: str, *, progress: Progress | None = None) -> LiveState:
        """What the build would be under another cfg: all precisions and errors. The built model stays as it is.

        Raises QuantizationError for a text that cannot be used, and Cancelled.
        """
        started, base, built = time.perf_counter(), self._current(), self._require_built("compare_cfg")
        single = apply_cfg(base.built.single, text, base.built.config.target)
        found = traffic(single)
        quality, errors = None, dict[str, ErrorPair]()
        if self._live is not None:
            try:
                quality = self._live.take(single, progress).quality
                errors = self._errors(found)
            finally:
                self._live.take(built.single)
        return LiveState(
            {name: one.computes for name, one in found.items()},
            _words(found, single, found),
            base.cost.extra(single.table),
            time.perf_counter() - started,
            quality,
            errors,
            wishes=dict(single.table.wishes),
            lines=dict(base.lines),
        )

    def tune_run(
        self,
        dataset: str,
        cosine: float | None = None,
        cost: float | None = None,
        layers: int | None = None,
        precision: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> TuneRun:
        """Search for layers of the built model that are worth a higher precision, see `tune`, by the samples that the
        file `dataset` lists. Every candidate's biases are kept, by the search's number and the candidate's index."""
        base = self._current()
        report = self.tune(dataset, wish=Wish(cosine, cost, layers), precision=precision, progress=progress)
        assert self._tuned is not None
        return TuneRun(base.keep(self._tuned.models), report)

    def trace(self, inputs: Sequence[str], *, progress: Progress | None = None) -> SourceMap:
        """Where the error of the built model's outputs comes from, on one sample."""
        return self.source_map([inputs], progress=progress)

    def findings(
        self,
        dataset: str | None = None,
        inputs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> tuple[Finding, ...]:
        """What costs accuracy, see `lint`."""
        return self.lint(dataset, inputs, progress=progress)

    def _renewed(self) -> None:
        self._live = self._told = None

    def _state(
        self, base: Base, before: Quantized, changed: tuple[str, ...], errors: bool, started: float
    ) -> LiveState:
        """What is new since the last time; all of it the first time."""
        single = self._require_built("apply").single
        found, told = traffic(single), self._told
        if told is None:
            fresh: Collection[str] = found
            names: Collection[str] = found
        else:
            fresh = [name for name, one in found.items() if one != told[name]]
            names = [*_inputs_changed(before, single), *changed]
        self._told = found
        return LiveState(
            {name: found[name].computes for name in fresh},
            _words(found, single, fresh),
            base.cost.extra(single.table),
            time.perf_counter() - started,
            None if self._live is None else self._live.quality,
            self._errors(names) if errors else {},
            changed,
            dict(single.table.wishes),
            dict(base.lines) if told is None else {},
        )

    def _errors(self, names: Collection[str]) -> dict[str, ErrorPair]:
        return {} if self._live is None else self._live.errors(names)


def _words(found: Mapping[str, Traffic], quantized: Quantized, fresh: Collection[str]) -> dict[str, str]:
    return {name: in_words(name, found) if found[name].converted else "" for name in fresh}


def _inputs_changed(before: Quantized, after: Quantized) -> list[str]:
    """Model inputs that are stored in another way."""
    names = [value.name or "" for value in after.model.graph.inputs]
    return [
        name
        for name in names
        if before.table.precision(name) != after.table.precision(name)
        or before.table.quantizer(name) != after.table.quantizer(name)
    ]
