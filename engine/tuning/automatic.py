"""The algorithm `auto`: tries recipes on part of the samples and takes the one that is nearest on the others."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from engine.analysis.judging import Judge
from engine.config import Config
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.recipes import Recipe, candidates
from engine.quantization.samples import Samples, held_out
from engine.summaries import Quality, RecipeScore
from engine.tuning.quantizing import Calibration, Outcome, quantize_by

_JUDGED_SAMPLES = 8
# A recipe other than the plainest has to be this much better on samples that nobody calibrated with; less is luck.
_MARGIN = 0.95


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The recipe chosen, applied to all samples, and what each recipe scored, the best first."""

    outcome: Outcome
    scores: tuple[RecipeScore, ...]
    notes: tuple[str, ...]


def choose(model: ir.Model, samples: Samples, config: Config, progress: Progress) -> Choice:
    """Quantize `model` by the recipe that leaves the least noise in its outputs on held-out samples.

    Judged as `engine.analysis.judging` does; the winner is calibrated again with all samples. With fewer than 4
    samples none is held out, and a note says so.
    """
    learned, judged = held_out(len(samples), _JUDGED_SAMPLES)
    notes = [] if len(samples) >= 4 else ["auto chose by the samples that it calibrated with: fewer than 4 were given"]
    part = samples.part(learned)
    wished = candidates(config.equalization, config.bias_correction)
    calibrations: dict[bool, Calibration] = {}
    for equalized in sorted({recipe.equalization for recipe in wished}):
        calibrations[equalized] = Calibration(model, part, config, progress, equalized=equalized)
    if True in calibrations and not calibrations[True].pairs and False in calibrations:
        wished = tuple(recipe for recipe in wished if not recipe.equalization)
    judge: Judge | None = None
    scores: dict[Recipe, Quality] = {}
    plain: Quantized | None = None
    for recipe in sorted(wished, key=lambda r: (r.equalization, r.ranges, r.bias_correction)):
        progress.step("choose", len(scores), len(wished))
        calibration = calibrations[recipe.equalization]
        if not recipe.bias_correction or plain is None:
            plain = calibration.quantized(recipe)
        quantized = calibration.corrected(plain) if recipe.bias_correction else plain
        if recipe.bias_correction:
            plain = None
        judge = judge or Judge(quantized, list(samples.part(judged)))
        scores[recipe] = judge.run(quantized)
    progress.step("choose", len(wished), len(wished))
    best = _best(scores)
    outcome = quantize_by(best, model, samples, config, progress)
    seconds = dict(outcome.seconds)
    for calibration in calibrations.values():
        for stage, spent in calibration.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    ranked = sorted(scores, key=lambda r: (r != best, scores[r].noise))
    found = tuple(RecipeScore(str(r), scores[r].cosine, scores[r].lowest, scores[r].noise) for r in ranked)
    return Choice(dataclasses.replace(outcome, seconds=seconds), found, tuple(notes))


def _best(scores: dict[Recipe, Quality]) -> Recipe:
    """The recipe with the least noise; of those within the margin of it, the one that changes least."""
    least = min(quality.noise for quality in scores.values())
    near = [recipe for recipe, quality in scores.items() if quality.noise * _MARGIN <= least]
    return min(near, key=lambda r: (r.equalization + r.bias_correction, r.ranges != "minmax", scores[r].noise))
