"""From a loaded model and samples to a quantized model: the statistics, the ranges, the corrections, by one recipe."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from engine.config import Config
from engine.graph.layers import Layer, layers
from engine.progress import Progress
from engine.quantization.equalization import equalize
from engine.quantization.histograms import collect_histograms
from engine.quantization.quantize import quantize
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.recipes import Recipe
from engine.quantization.samples import Sample, Samples, spread
from engine.quantization.statistics import Statistics, collect
from engine.quantization.weight_clipping import clip_weights
from engine.tuning.bias_correction import BiasCorrector, correctable

# More samples correct no better and take longer.
CORRECTION_SAMPLES = 8


class Calibration:
    """What samples say of one float graph; statistics are taken when a recipe first asks for them.

    `seconds` adds up by stage.
    """

    def __init__(
        self, model: ir.Model, samples: Samples, config: Config, progress: Progress, *, equalized: bool = False
    ) -> None:
        self.pairs: tuple[tuple[str, str], ...] = ()
        self.model, self.samples, self.config = model, samples, config
        self.seconds: dict[str, float] = {}
        self._progress = progress
        if equalized:
            with self._timed("equalize"):
                found = equalize(model, self._few())
            self.model, self.pairs = found.model, tuple((pair.first, pair.second) for pair in found.pairs)
        self.layers: tuple[Layer, ...] = layers(self.model)
        self.correctable = any(correctable(node) for node in self.model.graph)
        self._statistics: Statistics | None = None
        self._known: dict[tuple[str, str, bool], Quantized] = {}
        self._corrector: BiasCorrector | None = None

    def statistics(self, *, histograms: bool) -> Statistics:
        """The exact ranges, with histograms where asked for."""
        if self._statistics is None:
            with self._timed("calibrate"):
                self._statistics = collect(self.model, self.samples, len(self.samples), self._progress)
        if histograms and not self._statistics.histograms:
            with self._timed("histograms"):
                self._statistics = collect_histograms(
                    self.model, self._statistics, self.samples, len(self.samples), self._progress
                )
        return self._statistics

    def quantized(self, recipe: Recipe) -> Quantized:
        """The model by `recipe`, without bias correction; `equalized` was decided when this was made."""
        wanted = recipe.ranges, recipe.weights, recipe.headroom
        if wanted not in self._known:
            statistics = self.statistics(histograms=recipe.ranges != "minmax")
            with self._timed("ranges"):
                table = quantize(
                    self.model, self.layers, statistics, self.config, recipe.ranges, headroom=recipe.headroom
                )
                method = self.config.quantized_method
                weights = clip_weights(self.model, method, self.config.precision) if recipe.weights == "mse" else {}
            self._known[wanted] = Quantized(self.model, self.layers, table, method, Corrections(weights=weights))
        return self._known[wanted]

    def corrected(self, quantized: Quantized) -> Quantized:
        """`quantized` with biases that take up the mean error on a few of the samples."""
        if not self.correctable:
            return quantized
        with self._timed("correct"):
            if self._corrector is None:
                self._corrector = BiasCorrector(quantized, self._few(), self._progress, keep=False)
            return self._corrector.corrected(quantized, self._progress)

    def _few(self) -> list[Sample]:
        return list(self.samples.part(spread(len(self.samples), CORRECTION_SAMPLES)))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """A quantized model, how it was made and what was seen on the way."""

    quantized: Quantized
    recipe: Recipe
    statistics: Statistics
    pairs: tuple[tuple[str, str], ...]
    seconds: dict[str, float]


def quantize_by(recipe: Recipe, model: ir.Model, samples: Samples, config: Config, progress: Progress) -> Outcome:
    """Quantize `model` by `recipe`. Raises DatasetError, QuantizationError and Cancelled."""
    calibration = Calibration(model, samples, config, progress, equalized=recipe.equalization)
    quantized = calibration.quantized(recipe)
    if recipe.bias_correction:
        quantized = calibration.corrected(quantized)
    # It says what was done, not what was asked for.
    done = dataclasses.replace(
        recipe, equalization=bool(calibration.pairs), bias_correction=bool(quantized.corrections.biases)
    )
    statistics = calibration.statistics(histograms=False)
    return Outcome(quantized, done, statistics, calibration.pairs, calibration.seconds)


def full_statistics(model: ir.Model, samples: Samples, progress: Progress) -> Statistics:
    """The exact ranges and the histograms of every float tensor of `model`."""
    statistics = collect(model, samples, len(samples), progress)
    return collect_histograms(model, statistics, samples, len(samples), progress)
