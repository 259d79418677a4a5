"""The session as the app uses it: edits by value, evaluated live on one sample, and what a person asks of a layer."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence

from engine.builds import Built
from engine.errors import QuantizationError, nearest
from engine.estimates import LayerCost
from engine.progress import Progress
from engine.quantization.edits import Edits
from engine.quantization.hybrid import apply_cfg
from engine.quantization.quantized import Array, Quantized
from engine.quantization.traffic import Traffic, traffic
from engine.session_cfg import Base, CfgSession, checked, edits_from, whole_layers
from engine.session_facts import tensor_facts, words_of
from engine.summaries import (
    Alternative,
    ErrorPair,
    Finding,
    LayerFacts,
    LiveState,
    SourceMap,
    TensorFacts,
    TuneRun,
)
from engine.tuning.live import Live
from engine.tuning.search import Wish


class WatchedLive(Live):
    """Live evaluation that shows the float model's tensors too."""

    def golden(self, tensor: str) -> Array:
        """A tensor of the float model on the first sample; not to be written to."""
        return self._golden_value(0, tensor)


@dataclasses.dataclass(frozen=True)
class _Told:
    """What was last told of all layers and model inputs; `stale` are those whose errors changed since they were."""

    traffic: Mapping[str, Traffic]
    words: Mapping[str, str]
    costs: Mapping[str, LayerCost]
    stale: Collection[str]


class LiveSession(CfgSession):
    """A session whose edits are told in full each time, so that to undo is to apply the earlier ones.

    A build or a load starts anew: live evaluation ends, and the biases that searches found are gone. Parameters and
    values are those that JSON has.
    """

    _live: WatchedLive | None = None
    _told: _Told | None = None

    def release(self) -> None:
        """Let go of the model and everything made from it."""
        super().release()
        self._renewed()

    def aside(self) -> LiveSession:
        """As CfgSession has it, without live evaluation."""
        found = super().aside()
        assert isinstance(found, LiveSession)
        found._live = found._told = None
        return found

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
        `errors` asks for the errors that changed since they were last told. With `whole`, another wish for a layer's
        output goes for the tensors within it too, unless there is another wish for those as well; otherwise every line
        means what it means in a cfg, and may part a layer.

        Raises QuantizationError for edits that cannot be, InputError, and Cancelled; nothing is changed then.
        """
        started, base = time.perf_counter(), self._current()
        target = base.built.config.target
        edits = edits_from(wishes, ranges)
        before = self._require_built("apply").single
        if whole:
            wishes = whole_layers(base.built.single, edits.wishes, before.table.wishes, target)
            edits = dataclasses.replace(edits, wishes=wishes)
        single = checked(base.model(biases), edits, target)
        changed: tuple[str, ...] = ()
        if self._live is not None:
            changed = self._live.take(single, progress).changed
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

    def layer_facts(self, name: str) -> LayerFacts:
        """The tensors that a layer or model input reads and makes, and what each precision of it would take.

        Raises QuantizationError for a name that the model does not have.
        """
        base, built = self._current(), self._require_built("layer_facts")
        self._check_name(base, name)
        options = self._options(base, name)
        return LayerFacts(
            name,
            tuple(self._facts(base, built, tensor) for tensor in base.tensors.reads(name)),
            tuple(self._facts(base, built, tensor) for tensor in base.tensors.makes(name)),
            tuple(Alternative(precision, base.cost.extra(one.table)) for precision, one in options),
        )

    def alternatives(self, name: str, *, progress: Progress | None = None) -> tuple[Alternative, ...]:
        """What each precision of a layer or model input would do, '' for no wish; measured where live evaluation runs.

        The model stays as it is. Raises QuantizationError for a name that the model does not have, and Cancelled.
        """
        base, built, progress = self._current(), self._require_built("alternatives"), progress or Progress()
        self._check_name(base, name)
        options, live = self._options(base, name), self._live
        found = []
        try:
            for done, (precision, single) in enumerate(options):
                progress.step("alternatives", done, len(options))
                quality = None if live is None else live.take(single, progress).quality
                found.append(Alternative(precision, base.cost.extra(single.table), quality))
        finally:
            if live is not None:
                live.take(built.single)
        progress.step("alternatives", len(options), len(options))
        return tuple(found)

    def compare_cfg(self, text: str, *, progress: Progress | None = None) -> LiveState:
        """What the build would be under another cfg: all precisions and errors. The built model stays as it is.

        Raises QuantizationError for a text that cannot be used, and Cancelled.
        """
        started, base, built = time.perf_counter(), self._current(), self._require_built("compare_cfg")
        single = apply_cfg(base.model(self._biases), text, base.built.config.target)
        found = traffic(single)
        quality, errors = None, dict[str, ErrorPair]()
        if self._live is not None:
            try:
                quality = self._live.take(single, progress).quality
                errors = self._errors(found)
            finally:
                self._live.take(built.single)
        costs = base.cost.model.costs(single.table)
        return LiveState(
            {name: one.computes for name, one in found.items()},
            words_of(found, found, base.tensors),
            base.cost.extra(single.table),
            time.perf_counter() - started,
            quality,
            errors,
            wishes=dict(single.table.wishes),
            lines=dict(base.lines),
            costs=costs.layers,
            totals=costs.totals,
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
        single, known, told = self._require_built("apply").single, base.tensors, self._told
        found, costs = traffic(single), base.cost.model.costs(single.table)
        new_costs = costs.layers
        if told is None:
            precisions = {name: one.computes for name, one in found.items()}
            words, stale = words_of(found, found, known), tuple(found)
            self._told = _Told(found, words, costs.layers, () if errors else stale)
        else:
            fresh = [name for name, one in found.items() if one != told.traffic[name]]
            precisions = {n: found[n].computes for n in fresh if found[n].computes != told.traffic[n].computes}
            # What a layer says of its readers may change although nothing else of it does.
            near = [known.maker(tensor) for name in fresh for tensor in known.reads(name)]
            words = words_of(dict.fromkeys((*fresh, *near)), found, known)
            words = {name: text for name, text in words.items() if text != told.words[name]}
            stale = tuple(dict.fromkeys((*told.stale, *_inputs_changed(before, single), *changed)))
            new_costs = {name: cost for name, cost in costs.layers.items() if cost != told.costs[name]}
            self._told = _Told(found, {**told.words, **words}, costs.layers, () if errors else stale)
        quality = None if self._live is None else self._live.quality
        found_errors = self._errors(stale) if errors else {}
        return LiveState(
            precisions,
            words,
            base.cost.extra(single.table),
            time.perf_counter() - started,
            quality,
            found_errors,
            changed,
            dict(single.table.wishes),
            dict(base.lines) if told is None else {},
            new_costs,
            costs.totals,
        )

    def _options(self, base: Base, name: str) -> list[tuple[str, Quantized]]:
        """The model with each precision that a layer can have, the other edits as they are."""
        built, model = self._require_built("alternatives"), base.model(self._biases)
        lines, edits = base.lines.get(name, ()), self._edits()
        others = {tensor: precision for tensor, precision in edits.wishes.items() if tensor not in lines}
        found = []
        for precision in ("", *(built.config.target.precisions if lines else ())):
            wishes = {**others, **(dict.fromkeys(lines, precision) if precision else {})}
            # A tensor that was never calibrated has no grid.
            with contextlib.suppress(QuantizationError):
                found.append((precision, checked(model, Edits(wishes, edits.ranges), built.config.target)))
        return found

    def _facts(self, base: Base, built: Built, tensor: str) -> TensorFacts:
        golden = None if self._live is None else self._live.golden(tensor)
        return tensor_facts(tensor, built.single, base.tensors.values[tensor], golden, built.statistics)

    def _check_name(self, base: Base, name: str) -> None:
        known = base.tensors
        if not isinstance(name, str) or (name not in known.layers and name not in known.inputs):
            hint = nearest(str(name), (*known.inputs, *known.layers))
            raise QuantizationError("the model has no such layer", where=f"layer {name!r}", hint=hint)

    def _errors(self, names: Collection[str]) -> dict[str, ErrorPair]:
        return {} if self._live is None else self._live.errors(names)


def _inputs_changed(before: Quantized, after: Quantized) -> list[str]:
    """Model inputs that are stored in another way."""
    names = [value.name or "" for value in after.model.graph.inputs]
    return [
        name
        for name in names
        if before.table.precision(name) != after.table.precision(name)
        or before.table.quantizer(name) != after.table.quantizer(name)
    ]
