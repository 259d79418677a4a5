"""Lint: what about a model, its samples or its precisions costs accuracy, and what to do about it.

Each module lint_*.py holds some of the rules; here they are run and their findings ordered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from engine.config import Config
from engine.graph.layers import Layer
from engine.progress import Progress
from engine.quantization.quantize import quantize
from engine.quantization.quantized import Quantized
from engine.quantization.statistics import Statistics
from engine.summaries import Finding
from engine.targets import Target
from engine.tuning.lint.outputs import dead_outputs, flat_outputs, lost_parts
from engine.tuning.lint.precisions import undone_precisions
from engine.tuning.lint.ranges import half_overflow, join_ranges, masked, rare_ranges
from engine.tuning.lint.samples import constant_samples, few_samples, input_mismatch, saturated
from engine.tuning.lint.subject import Sample, Subject
from engine.tuning.lint.weights import outlier_weights

RULES = (
    "dead-output",
    "input-mismatch",
    "join-ranges",
    "masked-scores",
    "half-overflow",
    "constant-samples",
    "saturated",
    "undone-precision",
    "outlier-weights",
    "rare-range",
    "few-samples",
)
"""The names of the rules, the gravest first."""

_SIMPLE_RULES: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    flat_outputs, masked, half_overflow, constant_samples, undone_precisions, outlier_weights, rare_ranges, few_samples,
)  # fmt: skip


def lint(
    quantized: Quantized,
    target: Target,
    *,
    statistics: Statistics | None = None,
    samples: Sequence[Sample] = (),
    inference: Sample | None = None,
    progress: Progress | None = None,
) -> tuple[Finding, ...]:
    """What the rules find, by gravity and then in execution order; a rule that lacks its evidence is skipped.

    statistics: what calibration saw, with histograms for rare-range; without, the table tells the ranges. samples:
    normalized calibration samples (inputs by name, in the model's layout), for constant-samples; the first few are
    simulated for dead-output. inference: a normalized sample as the application gives it, for input-mismatch and
    saturated. The wishes of a finding are in a precision that `target` has. Raises Cancelled.
    """
    subject = Subject(quantized, target, statistics, samples, inference)
    progress = progress or Progress()
    progress.step("lint", 0, len(_SIMPLE_RULES) + 1)
    lost = lost_parts(subject)
    found = list(join_ranges(subject, {(one.tensor, one.part) for one in lost}))
    # What the ranges of its join explain is told there.
    joins = {finding.layer for finding in found}
    found += dead_outputs(subject, {one: value for one, value in lost.items() if one.tensor not in joins})
    # An input that does not fit takes all other tensors along.
    found += list(input_mismatch(subject)) or saturated(subject)
    for done, rule in enumerate(_SIMPLE_RULES, start=1):
        progress.step("lint", done, len(_SIMPLE_RULES) + 1)
        found += rule(subject)
    place = {layer.name: index for index, layer in enumerate(quantized.layers)}
    return tuple(sorted(found, key=lambda finding: (RULES.index(finding.rule), place.get(finding.layer, -1))))


def lint_float(
    model: ir.Model,
    layers: tuple[Layer, ...],
    statistics: Statistics,
    config: Config,
    *,
    samples: Sequence[Sample] = (),
    inference: Sample | None = None,
    progress: Progress | None = None,
) -> tuple[Finding, ...]:
    """What `lint` finds before anything is quantized: as if it were with exact ranges. Raises as `quantize` does."""
    config = dataclasses.replace(config, quantized_algorithm="normal")
    quantized = Quantized(model, layers, quantize(model, layers, statistics, config), config.quantized_method)
    return lint(
        quantized, config.target, statistics=statistics, samples=samples, inference=inference, progress=progress
    )
