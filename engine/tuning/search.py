"""Repairs a quantized model: finds the few layers that are worth a higher precision, and measures what they give."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence

from engine.analysis.judging import Judge, judged
from engine.cost.relative import RelativeCost
from engine.errors import Cancelled, DatasetError, QuantizationError
from engine.graph.query import static_shape, tensors
from engine.progress import Progress
from engine.quantization.quantized import Array, Quantized
from engine.quantization.samples import Sample, held_out, spread
from engine.quantization.table import Table
from engine.summaries import Candidate, Quality, TuneReport
from engine.targets import Target
from engine.tuning.bias_correction import BiasCorrector
from engine.tuning.bundles import Bundles, Units
from engine.tuning.jobs import Executor, Parcel, run_jobs
from engine.tuning.sources import error_sources, measure_sources

# Sets that are measured at each step, the most promising first. Predictions know nothing of errors that cancel each
# other, and are right about the order of candidates only by and large.
_TRIED = 2
# Steps that may pass without an improvement: of two roundings that each spoil an output, the first one's end shows
# nothing.
_PATIENCE = 2
# What one more layer to look after is worth in time, so that of two equally quick repairs the shorter list wins.
_LAYER = 0.005
# By how much the predicted noise must fall at each step: correcting biases moves the measured noise by some per cent.
_STEP = 0.1
# How often a set that fulfils the wish is thinned out.
_THINNED = 2
# Layers that a search without other limits may change, as a share of all.
_MOST_LAYERS = 0.25
# Fewer samples make means of channels that hold for no others.
_CORRECTED = 4
# Sources are traced on as few samples as give so many judged values: a pair of scores says little of what moves it.
_TRACED_VALUES = 1000


@dataclasses.dataclass(frozen=True)
class Wish:
    """When a search may end: at this cosine of the worst part (None: when nothing helps any more), and what it may
    take: extra time as a share of the model's own, and layers."""

    cosine: float | None = 0.999
    cost: float | None = None
    layers: int | None = None


@dataclasses.dataclass(frozen=True)
class SampleSplit:
    """Normalized samples (inputs by name) by what they serve: to search by, to correct biases with, and to judge what
    was found. The three should share none."""

    search: Sequence[Sample]
    correction: Sequence[Sample]
    judge: Sequence[Sample]

    @classmethod
    def of(cls, samples: Sequence[Sample], searched: int = 4) -> SampleSplit:
        """`samples` shared out: up to 8 (a quarter) to judge by, `searched` to search by, up to 8 to correct with.

        With too few for that, those that are searched by also correct.
        """
        learned, judged = held_out(len(samples), 8)
        search = spread(len(learned), searched)
        rest = [place for place in range(len(learned)) if place not in search]
        rest = rest if len(rest) >= _CORRECTED else list(range(len(learned)))
        correction = [rest[place] for place in spread(len(rest), 8)]

        def those(places: Sequence[int]) -> tuple[Sample, ...]:
            return tuple(samples[place] for place in places)

        return cls(those([learned[i] for i in search]), those([learned[i] for i in correction]), those(judged))


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A search's report, and for each of its candidates the model, with biases corrected for it."""

    report: TuneReport
    models: tuple[Quantized, ...]

    @property
    def chosen(self) -> Quantized | None:
        """The model of the candidate that the wish asks for."""
        return self.models[self.report.chosen] if self.report.chosen >= 0 else None


def tune(
    quantized: Quantized,
    samples: SampleSplit,
    target: Target,
    *,
    wish: Wish = Wish(),
    precision: str | None = None,
    bias_correction: bool = True,
    remedies: Sequence[Mapping[str, str]] = (),
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Tuned:
    """Find layers of `quantized` that are worth `precision`, by default float16 or, where the target has none, int16.

    Each error source is traced alone. Then sets of layers that together remove one are added one after the other, the
    largest predicted gain for its time first; the best few are measured on `samples.search`, with biases corrected anew
    for each (`bias_correction`), and the best is kept. Once the wish is fulfilled on `samples.judge`, layers that it
    does not need are taken out again. `remedies` are further sets, as lines of custom_quantize_layers. What the report
    says of candidates was measured on `samples.judge`, which decide only whether a set fulfils the wish.

    When cancelled after the model as it is was measured, the best so far is returned with complete=False. Raises
    Cancelled before that, DatasetError without samples, and QuantizationError for a precision that the target lacks.
    """
    if not (samples.search and samples.judge and (samples.correction or not bias_correction)):
        raise DatasetError("holds too few samples to search by", where="dataset", hint="list at least one")
    precision = precision or ("float16" if "float16" in target.precisions else "int16")
    if precision not in target.precisions or precision == "int8":
        finer = ", ".join(name for name in target.precisions if name != "int8")
        raise QuantizationError(f"{target.name} cannot repair layers with {precision!r}", hint=f"use {finer}")
    search = _Search(quantized, samples, target, wish, bias_correction, progress or Progress(), executor)
    complete = True
    try:
        search.run(precision, remedies)
    except Cancelled:
        if search.base is None:
            raise
        search.keep_best()
        complete = False
    return search.tuned(complete)


@dataclasses.dataclass(frozen=True)
class _Tried:
    """A set of units, and the model with it as it did on the samples of the search."""

    units: Units
    model: Quantized
    quality: Quality


class _Search:
    def __init__(
        self,
        quantized: Quantized,
        samples: SampleSplit,
        target: Target,
        wish: Wish,
        bias_correction: bool,
        progress: Progress,
        executor: Executor | None,
    ) -> None:
        self._started = time.perf_counter()
        self._quantized = quantized
        self._samples = samples
        self._target = target
        self._wish = wish
        self._progress = progress
        self._executor = executor
        self._cost = RelativeCost(quantized, target)
        self._extra = functools.cache(lambda units: self._cost.extra(self._table(units)))
        self._parcel = Parcel(quantized, samples.search, samples.correction if bias_correction else (), samples.judge)
        self._correct = bias_correction
        self._tried: dict[Units, _Tried] = {}
        self._verified: dict[Units, tuple[Candidate, Quantized]] = {}
        self.base: Quality | None = None

    def run(self, precision: str, remedies: Sequence[Mapping[str, str]]) -> None:
        """Search until the wish is fulfilled or nothing helps; what was found lies in `tuned`."""
        self._progress.step("measure", 0, 1)
        (self.base,) = run_jobs(_verify, [(self._parcel, None, None)], self._executor)
        self._progress.step("measure", 1, 1)
        if self._fulfils(self.base):
            return
        self._bundles = Bundles(self._quantized, precision, self._target)
        (best,) = self._try([frozenset()])
        if self._fulfils(self._verify(best)):
            return
        self._bundles = self._traced(precision)
        self._sets = self._bundles.sets(remedies)
        now, waited = best, 0
        while not self._fulfils(self._verify(best)) and waited <= _PATIENCE:
            promising = self._promising(now.units)
            if not promising:
                break
            tried = self._try(promising)
            now = min(tried, key=lambda one: self._rank(best, one))
            if now.quality.noise < best.quality.noise:
                best, waited = now, 0
            else:
                now, waited = tried[0], waited + 1
        if self._fulfils(self._verify(best)):
            self._thin_out(best)

    def _traced(self, precision: str) -> Bundles:
        shapes = {v.name: static_shape(v) for v in tensors(self._quantized.model.graph)}
        values = sum(math.prod(shapes[name]) for name in {one.tensor for one in judged(self._quantized)})
        samples = self._samples.search[: max(1, math.ceil(_TRACED_VALUES / max(1, values)))]
        noises = measure_sources(
            self._quantized, samples, self._progress, corrected=self._correct, executor=self._executor
        )
        return Bundles(self._quantized, precision, self._target, error_sources(self._quantized), noises)

    def keep_best(self) -> None:
        """Make a candidate of the best set so far, though the search was cancelled before it came to that."""
        if self._tried:
            self._verify(min(self._tried.values(), key=lambda one: one.quality.noise))

    def _promising(self, units: Units) -> list[Units]:
        """The sets that go beyond `units` with the most predicted gain for their effort, grown to where it counts."""
        starts = self._wider(units)[:_TRIED]
        enough = self._bundles.noise(units) * (1.0 - _STEP)
        found: dict[Units, None] = {}
        for grown in starts:
            while self._bundles.noise(grown) > enough and (wider := self._wider(grown)):
                grown = wider[0]
            found[grown] = None
        return [one for one in found if one not in self._tried]

    def _wider(self, units: Units) -> list[Units]:
        """`units` with one more set each, the most predicted gain for its effort first."""
        left, scores = self._bundles.noise(units), dict[Units, float]()
        for more in self._sets:
            wider = units | more
            if wider != units and wider not in scores and self._allowed(wider):
                gain = left - self._bundles.noise(wider)
                scores[wider] = gain / max(self._effort(wider) - self._effort(units), _LAYER)
        return sorted((one for one in scores if scores[one] > 0), key=lambda one: -scores[one])

    def _thin_out(self, best: _Tried) -> None:
        """Take out layers that the wish does not need, as many as prediction allows, or some of them."""
        for _ in range(_THINNED):
            fewer = self._fewer(best)
            options = [fewer[index] for index in sorted({0, len(fewer) // 2, len(fewer) - 1})] if fewer else []
            tried = sorted(self._try(options), key=lambda one: self._effort(one.units))
            thinner = next((one for one in tried if self._fulfils(self._verify(one))), None)
            if thinner is None:
                return
            best = thinner

    def _fewer(self, best: _Tried) -> list[Units]:
        """`best` with one unit less each time, while the predicted noise leaves the wish fulfilled."""
        assert self._wish.cosine is not None
        # Next to 1, what is missing in cosine is in proportion to the noise.
        room = (1.0 - self._wish.cosine) / max(1.0 - self._verify(best).cosine, 1e-12)
        allowed = self._bundles.noise(best.units) * room
        found, units = list[Units](), best.units
        while units:
            losses = {units - {unit}: self._bundles.noise(units - {unit}) for unit in sorted(units)}
            saved = {less: self._effort(units) - self._effort(less) for less in losses}
            possible = [less for less in losses if losses[less] <= allowed and saved[less] > 0]
            if not possible:
                break
            now = self._bundles.noise(units)
            units = min(possible, key=lambda less: (losses[less] - now) / saved[less])
            found.append(units)
        return found

    def _rank(self, before: _Tried, after: _Tried) -> float:
        """The lower the better: noise gone for each bit of effort, as a negative number."""
        effort = self._effort(after.units) - self._effort(before.units)
        return (after.quality.noise - before.quality.noise) / max(effort, _LAYER)

    def _effort(self, units: Units) -> float:
        return self._extra(units) + _LAYER * len(units)

    def _table(self, units: Units) -> Table:
        table = self._quantized.table
        return Table(table.rows, {**table.wishes, **self._bundles.wishes(units)})

    def _allowed(self, units: Units) -> bool:
        count = len(self._bundles.layers(units))
        most = (
            self._wish.layers if self._wish.layers is not None else max(8, _MOST_LAYERS * len(self._quantized.layers))
        )
        return count <= most and (self._wish.cost is None or self._extra(units) <= self._wish.cost)

    def _fulfils(self, quality: Quality) -> bool:
        return self._wish.cosine is not None and quality.cosine >= self._wish.cosine

    def _try(self, sets: Sequence[Units]) -> list[_Tried]:
        """Measure each of `sets` on the samples of the search, with biases corrected for it."""
        new = [one for one in dict.fromkeys(sets) if one not in self._tried]
        tables = [self._table(units) for units in new]

        def take(index: int, result: tuple[Quality, dict[str, Array]]) -> None:
            quality, biases = result
            model = self._quantized.changed(table=tables[index], biases=biases)
            self._tried[new[index]] = _Tried(new[index], model, quality)
            self._progress.step("search", len(self._tried), 0)

        self._progress.step("search", len(self._tried), 0)
        run_jobs(_try, [(self._parcel, table.wishes) for table in tables], self._executor, take)
        return [self._tried[units] for units in sets]

    def _verify(self, tried: _Tried) -> Quality:
        """The quality on samples that the search did not see; the set becomes a candidate."""
        if tried.units not in self._verified:
            model = tried.model
            arguments = (self._parcel, model.table.wishes, model.corrections.biases)
            (quality,) = run_jobs(_verify, [arguments], self._executor)
            wishes, layers = self._bundles.wishes(tried.units), self._bundles.layers(tried.units)
            extra = self._extra(tried.units)
            candidate = Candidate(wishes, layers, extra, quality, (1.0 + extra) * self._cost.base_us)
            self._verified[tried.units] = candidate, model
        return self._verified[tried.units][0].quality

    def tuned(self, complete: bool) -> Tuned:
        """The candidates that none beats, cheapest first, and which of them is wished for."""
        assert self.base is not None
        found = list(self._verified.values())
        front = [one for one in found if not self._beaten(one[0], [candidate for candidate, _ in found])]
        front.sort(key=lambda one: (one[0].cost, one[0].quality.noise))
        candidates = tuple(candidate for candidate, _ in front)
        fulfilling = [index for index, one in enumerate(candidates) if self._fulfils(one.quality)]
        enough = self._fulfils(self.base)
        # Where nothing fulfils the wish, the best that there is.
        quietest = sorted(range(len(candidates)), key=lambda index: candidates[index].quality.noise)
        chosen = -1 if enough else next(iter([*fulfilling, *quietest]), -1)
        seconds = time.perf_counter() - self._started
        report = TuneReport(
            self.base,
            candidates,
            chosen,
            enough or bool(fulfilling),
            complete,
            len(self._samples.judge),
            seconds,
            self._cost.base_us,
        )
        return Tuned(report, tuple(model for _, model in front))

    def _beaten(self, one: Candidate, all_of_them: Sequence[Candidate]) -> bool:
        """Whether another, or the model as it is, takes no more time and is no worse in noise and cosine."""
        assert self.base is not None
        rivals = [(other.cost, other.quality) for other in all_of_them if other is not one]
        return any(
            cost <= one.cost
            and quality.noise <= one.quality.noise
            and quality.cosine >= one.quality.cosine
            and (cost, quality) != (one.cost, one.quality)
            for cost, quality in [(0.0, self.base), *rivals]
        )


class _Bench:
    """What a worker needs to measure one set after the other."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._search, self._correction, self._judge = parcel.samples

    @functools.cached_property
    def search(self) -> Judge:
        """Judges on the samples of the search."""
        return Judge(self._parcel.quantized, self._search)

    @functools.cached_property
    def held_out(self) -> Judge:
        """Judges on samples that the search does not see."""
        return Judge(self._parcel.quantized, self._judge)

    @functools.cached_property
    def corrector(self) -> BiasCorrector | None:
        """Corrects biases, where it is to be done."""
        return BiasCorrector(self._parcel.quantized, self._correction) if self._correction else None


def _try(parcel: Parcel, wishes: dict[str, str]) -> tuple[Quality, dict[str, Array]]:
    """The job: the model under `wishes` on the samples of the search, and the biases that it has there."""
    bench = parcel.state(_Bench)
    quantized = parcel.quantized.changed(table=Table(parcel.quantized.table.rows, wishes))
    if bench.corrector is not None:
        quantized = bench.corrector.corrected(quantized)
    return bench.search.run(quantized), dict(quantized.corrections.biases)


def _verify(parcel: Parcel, wishes: dict[str, str] | None, biases: Mapping[str, Array] | None) -> Quality:
    """The job: the model under `wishes` and `biases`, None for its own, on samples that the search does not see."""
    bench = parcel.state(_Bench)
    quantized = parcel.quantized
    if wishes is not None:
        quantized = quantized.changed(table=Table(quantized.table.rows, wishes), biases=biases)
    return bench.held_out.run(quantized)
