"""What a session holds: a model as it was loaded, what was built of it, and how a build is made."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

import onnx_ir as ir

from engine.config import Config
from engine.errors import ConfigError, DatasetError
from engine.files.provenance import provenance
from engine.files.stored import Stored
from engine.graph.batching import check_batch, with_batch
from engine.graph.given import given
from engine.graph.layers import Layer, layers
from engine.progress import Progress
from engine.quantization.preprocessing import InputSpec, input_specs
from engine.quantization.quantize import float_values, given_only, to_float16
from engine.quantization.quantized import Quantized
from engine.quantization.recipes import recipe_of
from engine.quantization.samples import Samples
from engine.quantization.statistics import Statistics
from engine.quantization.traffic import float16_notes
from engine.summaries import BuildSummary, RecipeScore, TensorSummary
from engine.tuning.automatic import choose
from engine.tuning.quantizing import quantize_by


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model as the front end gave it and the passes left it."""

    path: str
    framework: str
    model: ir.Model
    layers: tuple[Layer, ...]
    inputs: tuple[TensorSummary, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """What a build made of the loaded model, and the settings that it was made with.

    `stored` is for one sample; `quantized` is the same model for `stored.batch` of them at once. `statistics` are what
    its calibration saw, where it was calibrated in this process.
    """

    stored: Stored
    quantized: Quantized
    specs: tuple[InputSpec, ...]
    statistics: Statistics | None = None

    @property
    def single(self) -> Quantized:
        """The quantized model for one sample."""
        return self.stored.quantized

    @property
    def config(self) -> Config:
        """The settings of the build."""
        return self.stored.config

    def changed(self, single: Quantized) -> Built:
        """The same with other precisions, ranges or biases; what was compiled of it is left out."""
        return dataclasses.replace(
            self, stored=self.stored.changed(single), quantized=_batched(single, self.stored.batch)
        )


def assemble(stored: Stored, inputs: tuple[TensorSummary, ...], statistics: Statistics | None = None) -> Built:
    """A build from its parts. Raises ConfigError when the model cannot take the batch."""
    single, batch = stored.quantized, stored.batch
    check_batch(single.model, batch)
    specs = input_specs(stored.config, inputs)
    if batch > 1:
        specs = tuple(dataclasses.replace(s, shape=(s.shape[0] * batch, *s.shape[1:])) for s in specs)
    return Built(stored, _batched(single, batch), specs, statistics)


def _batched(single: Quantized, batch: int) -> Quantized:
    if batch == 1:
        return single
    model = with_batch(single.model, batch)
    return dataclasses.replace(single, model=model, layers=layers(model))


class _Made(NamedTuple):
    quantized: Quantized
    recipe: str = ""
    equalized: tuple[str, ...] = ()
    statistics: Statistics | None = None
    candidates: tuple[RecipeScore, ...] = ()
    notes: tuple[str, ...] = ()


def build(
    loaded: Loaded, config: Config, samples: Samples | None, do_quantization: bool, batch: int, progress: Progress
) -> tuple[Built, BuildSummary]:
    """Quantize the loaded model with `samples`, or make it float16; see Session.build."""
    check_batch(loaded.model, batch)
    seconds: dict[str, float] = {}
    own = [v for v in float_values(loaded.model) if given(v) is not None]
    if do_quantization and samples is not None:
        made = _calibrated(loaded, config, samples, seconds, progress)
    elif do_quantization and not own:
        raise DatasetError("quantization needs a dataset", where="dataset", hint="name a file that lists samples")
    else:
        made = _uncalibrated(loaded, config, bool(own))
    started = time.perf_counter()
    progress.step("build", 0, 1)
    precision = config.precision if do_quantization or own else "float16"
    used = len(samples) if samples is not None and do_quantization else 0
    source = provenance(loaded.path, loaded.framework)
    stored = Stored(made.quantized, config, precision, batch, made.recipe, made.equalized, used, source)
    built = assemble(stored, loaded.inputs, made.statistics)
    progress.step("build", 1, 1)
    seconds["build"] = time.perf_counter() - started
    notes = (*made.notes, *float16_notes(made.quantized, config.target))
    rows = len(made.quantized.table.rows)
    return built, BuildSummary(precision, used, rows, batch, seconds, notes, made.recipe, made.candidates)


def _calibrated(
    loaded: Loaded, config: Config, samples: Samples, seconds: dict[str, float], progress: Progress
) -> _Made:
    if config.quantized_algorithm == "auto":
        choice = choose(loaded.model, samples, config, progress)
        outcome, scores, notes = choice.outcome, choice.scores, choice.notes
    else:
        recipe = recipe_of(config.quantized_algorithm, config.equalization, config.bias_correction)
        outcome, scores, notes = quantize_by(recipe, loaded.model, samples, config, progress), (), ()
    seconds.update(outcome.seconds)
    equalized = tuple(dict.fromkeys(name for pair in outcome.pairs for name in pair))
    return _Made(outcome.quantized, str(outcome.recipe), equalized, outcome.statistics, scores, notes)


def _uncalibrated(loaded: Loaded, config: Config, own: bool) -> _Made:
    """By the parameters that the model brought, if it did, and in float16 for the rest."""
    table = given_only(loaded.model, loaded.layers) if own else to_float16(loaded.model)
    if "float16" not in config.target.precisions:
        if not own:
            raise ConfigError(
                f"{config.target_platform} has no float16", where="do_quantization", hint="quantize the model"
            )
        if any(row.dtype == "float16" for row in table.rows.values()):
            raise DatasetError(
                f"some tensors came without parameters, and {config.target_platform} has no float16",
                where="dataset",
                hint="name a file that lists samples",
            )
    return _Made(Quantized(loaded.model, loaded.layers, table, config.quantized_method))
