"""The ways to quantize, by name: how ranges are chosen, and what is corrected in the weights and biases."""

from __future__ import annotations

import dataclasses

RANGES = ("minmax", "mse", "kl_divergence", "percentile")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to get from statistics to a quantized model.

    ranges: what is made of each tensor's statistics, one of RANGES. weights: 'minmax' or 'mse'. equalization: weights
    of neighbouring layers are brought to similar ranges first. bias_correction: biases take up the mean error.
    headroom: ranges that were seen through few values are widened, and what a Sigmoid reads is not cut where that is
    flat: the toolkit cuts it, which costs nothing in probabilities and much in scores.
    """

    ranges: str = "minmax"
    weights: str = "minmax"
    equalization: bool = False
    bias_correction: bool = False
    headroom: bool = False

    def __str__(self) -> str:
        words = [self.ranges.replace("kl_divergence", "KL divergence")]
        if self.weights != "minmax":
            words.append(f"{self.weights} weights")
        if self.equalization:
            words.append("equalization")
        if self.bias_correction:
            words.append("bias correction")
        return " + ".join(words)


_BY_ALGORITHM = {
    "normal": Recipe(),
    "mmse": Recipe("mse", "mse", headroom=True),
    "kl_divergence": Recipe("kl_divergence", headroom=True),
    "percentile": Recipe("percentile", headroom=True),
}


def recipe_of(algorithm: str, equalization: bool | None = None, bias_correction: bool | None = None) -> Recipe:
    """The recipe of a named algorithm other than 'auto'; None leaves a correction out."""
    recipe = _BY_ALGORITHM[algorithm]
    return dataclasses.replace(recipe, equalization=bool(equalization), bias_correction=bool(bias_correction))


def candidates(equalization: bool | None = None, bias_correction: bool | None = None) -> tuple[Recipe, ...]:
    """What `auto` chooses from; a correction that is True or False is the same in all of them.

    The plainest is what `normal` does.
    """
    return tuple(
        Recipe(ranges, "minmax", equalized, corrected, headroom=ranges != "minmax" or equalized or corrected)
        for ranges in ("minmax", "mse", "percentile")
        for equalized in ((False, True) if equalization is None else (equalization,))
        for corrected in ((False, True) if bias_correction is None else (bias_correction,))
    )
