"""Lint rule on outputs, and parts of joined outputs, that carry no information."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from engine.analysis.judging import Judged, JudgedRun, judged
from engine.graph.query import static_shape
from engine.summaries import Finding
from engine.tuning.lint.subject import Subject, counted, extent

# Enough to tell an output that is always the same from one that a quiet sample leaves so, and quick.
SAMPLES = 4


def watched(subject: Subject) -> tuple[Judged, ...]:
    """The model's float outputs, or the parts of a join that they come from."""
    return tuple(dict.fromkeys(j if j.part else Judged(j.output, j.output) for j in judged(subject.quantized)))


def flat_outputs(subject: Subject) -> Iterator[Finding]:
    """Outputs that the float model itself never changes."""
    sizes = {v.name or "": math.prod(static_shape(v)) for v in subject.quantized.model.graph.outputs}
    for one in watched(subject):
        low, high = subject.seen.get(one.part or one.output, (-math.inf, math.inf))
        samples = subject.statistics.samples if subject.statistics is not None else 1
        if low == high and (sizes[one.output] > 1 or samples > 1):
            yield Finding(
                "dead-output",
                _layer(subject, one),
                f"{_place(one)} is {low:.4g} everywhere on all calibration samples, in the float model already",
                "check the samples and the model's mean and std, or leave this output out if nothing needs it",
            )


def lost_parts(subject: Subject) -> dict[Judged, float]:
    """What the quantized model gives everywhere in outputs and parts that the float model fills with more.

    Only where the float model's values differ by more than a step of a grid of their own.
    """
    samples = list(subject.samples)[:SAMPLES]
    places = watched(subject)
    if not samples or not places:
        return {}
    tensors = tuple(dict.fromkeys(one.tensor for one in places))
    before, after = (JudgedRun(subject.quantized, tensors, as_float=flag) for flag in (True, False))
    runs = [(before.run(sample), after.run(sample)) for sample in samples]
    lost = {}
    for one in places:
        golden, found = (np.concatenate([one.of(run[which][one.tensor]) for run in runs]) for which in (0, 1))
        own_step = extent(*subject.seen.get(one.part or one.output, (0.0, 0.0))) / 255
        if found.min() == found.max() and golden.max() - golden.min() > own_step:
            lost[one] = float(found[0])
    return lost


def dead_outputs(subject: Subject, lost: dict[Judged, float]) -> Iterator[Finding]:
    """Outputs that quantization robbed of all they say."""
    for one, value in lost.items():
        low, high = subject.seen.get(one.part or one.output, (math.nan, math.nan))
        yield Finding(
            "dead-output",
            _layer(subject, one),
            f"{_place(one)} is {value:.4g} everywhere on {counted(min(len(subject.samples), SAMPLES), 'sample')} in "
            f"the quantized model, where the float model's spans {low:.4g} to {high:.4g} in calibration",
            f"give the layers before it more precision ({subject.finer}); a search finds which",
        )


def _place(one: Judged) -> str:
    return f"part {one.part!r} of {one.tensor!r}" if one.part else f"output {one.output!r}"


def _layer(subject: Subject, one: Judged) -> str:
    maker = subject.quantized.makers.get(one.tensor)
    return maker.name if maker is not None else one.tensor
