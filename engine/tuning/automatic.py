"""The algorithm `auto`: tries recipes on part of the samples and takes the one that is nearest on the others."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from engine.config import Config
from engine.progress import Progress
from engine.quantization.recipes import Recipe, candidates
from engine.quantization.samples import Samples, held_out
from engine.summaries import Quality, RecipeScore
from engine.tuning.evidence import Evidence
from engine.tuning.quantizing import Calibration, Outcome, quantize_by

_JUDGED_SAMPLES = 8
# A recipe other than the plainest has to be this much better on samples that nobody calibrated with; less is luck.
_MARGIN = 0.95
# Corrections that leave so much more noise than others, all with exact ranges, hardly ever win with other ranges, and
# trying these takes as long.
_HOPELESS = 1.5
# What a correction that is left out counts for where the samples tell nothing: they help most models.
_PRIOR = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The recipe chosen, applied to all samples, and what each recipe scored, the best first."""

    outcome: Outcome
    scores: tuple[RecipeScore, ...]
    notes: tuple[str, ...]


def choose(model: ir.Model, samples: Samples, config: Config, progress: Progress) -> Choice:
    """Quantize `model` by the recipe that leaves the least noise in its outputs on held-out samples.

    Judged as `engine.tuning.evidence` does; the winner is calibrated again with all samples. Corrections that have
    nothing to correct are left out, and so are further ranges with corrections that do not pay (_HOPELESS). With fewer
    than 4 samples none is held out, and a note says so.
    """
    learned, judged = held_out(len(samples), _JUDGED_SAMPLES)
    notes = [] if len(samples) >= 4 else ["auto chose by the samples that it calibrated with: fewer than 4 were given"]
    part = samples.part(learned)
    wished = candidates(config.equalization, config.bias_correction)
    calibrations: dict[bool, Calibration] = {}
    for equalized in sorted({recipe.equalization for recipe in wished}):
        calibrations[equalized] = Calibration(model, part, config, progress, equalized=equalized)
    wished = tuple(recipe for recipe in wished if _applies(recipe, config, calibrations))
    evidence: Evidence | None = None
    found: dict[Recipe, Quality] = {}
    scores: dict[Recipe, float] = {}
    order = sorted(wished, key=lambda r: (r.ranges != "minmax", r.equalization, r.ranges, r.bias_correction))
    for done, recipe in enumerate(order):
        progress.step("choose", done, len(order))
        if _hopeless(recipe, scores):
            continue
        calibration = calibrations[recipe.equalization]
        quantized = calibration.quantized(recipe)
        if recipe.bias_correction:
            quantized = calibration.corrected(quantized)
        evidence = evidence or Evidence(quantized, list(samples.part(judged)))
        found[recipe], noise = evidence.measure(quantized)
        missing = 2 - recipe.equalization - recipe.bias_correction
        scores[recipe] = noise * _PRIOR ** (missing * (1.0 - evidence.trust))
    progress.step("choose", len(order), len(order))
    best = _best(scores)
    outcome = quantize_by(best, model, samples, config, progress)
    seconds = dict(outcome.seconds)
    for calibration in calibrations.values():
        for stage, spent in calibration.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    ranked = sorted(scores, key=lambda r: (r != best, scores[r]))
    listed = tuple(RecipeScore(str(r), found[r].cosine, found[r].lowest, found[r].noise) for r in ranked)
    return Choice(dataclasses.replace(outcome, seconds=seconds), listed, tuple(notes))


def _applies(recipe: Recipe, config: Config, calibrations: dict[bool, Calibration]) -> bool:
    """Whether the recipe's corrections find anything to correct, or were asked for."""
    calibration = calibrations[recipe.equalization]
    idle_equalization = recipe.equalization and config.equalization is None and not calibration.pairs
    idle_correction = recipe.bias_correction and config.bias_correction is None and not calibration.correctable
    return not idle_equalization and not idle_correction


def _hopeless(recipe: Recipe, scores: dict[Recipe, float]) -> bool:
    """Whether the same corrections, with exact ranges, left far more noise than others did."""
    exact = {(r.equalization, r.bias_correction): noise for r, noise in scores.items() if r.ranges == "minmax"}
    own = exact.get((recipe.equalization, recipe.bias_correction), 0.0)
    return recipe.ranges != "minmax" and own > _HOPELESS * min(exact.values())


def _best(scores: dict[Recipe, float]) -> Recipe:
    """The recipe with the least noise; of those within the margin of it, the one that changes least."""
    least = min(scores.values())
    near = [recipe for recipe, noise in scores.items() if noise * _MARGIN <= least]
    return min(near, key=lambda r: (r.equalization + r.bias_correction, r.ranges != "minmax", scores[r]))
