"""Lint rules on samples: too few, all the same, or unlike those that the application gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.errors import QuantizationError
from engine.graph.query import static_shape
from engine.progress import Progress
from engine.quantization.ranges import Range
from engine.quantization.statistics import collect
from engine.summaries import Finding
from engine.tuning.lint.subject import Array, Subject, counted, extent

# The guide asks for 20 to 100 samples; below 10, the extremes of most tensors still grow with every one.
FEW = 10
# An input beyond the calibrated range by a quarter of its extent is none of the pictures' own variety.
BEYOND = 0.25
# A sample that fills less than this of the calibrated range was divided by something once more, or is near to empty.
FILLED = 1 / 16
# Forgotten standard deviations are 40 to 255.
FACTOR = 16.0
# A tensor that needs twice the calibrated range loses the better part of what it says to clipping.
SATURATED = 2.0


def few_samples(subject: Subject) -> Iterator[Finding]:
    """Calibration with next to no samples."""
    number = subject.statistics.samples if subject.statistics is not None else len(subject.samples)
    if 0 < number < FEW:
        yield Finding(
            "few-samples",
            "",
            f"calibration saw {counted(number, 'sample')}; ranges are what these reach",
            "list 20 to 100 samples that are like what the application sees",
        )


def constant_samples(subject: Subject) -> Iterator[Finding]:
    """Samples that do not differ, and inputs that never change."""
    samples = subject.samples
    alike = len(samples) > 1 and all(
        all(np.array_equal(array, samples[0][name]) for name, array in sample.items()) for sample in samples[1:]
    )
    if alike:
        yield Finding(
            "constant-samples",
            "",
            f"all {len(samples)} samples are the same",
            "list samples that differ; check the paths of the dataset file",
        )
    for value in subject.quantized.model.graph.inputs:
        low, high = subject.seen.get(value.name or "", (-np.inf, np.inf))
        # A single number, such as a sampling rate, may well be the same in every sample.
        if low == high and np.prod(static_shape(value)) > 1:
            yield Finding(
                "constant-samples",
                value.name or "",
                f"input {value.name!r} is {low:.4g} everywhere in all samples, and its range is calibrated to that",
                "give it values that it has in use; for a state that the model hands on, some of those",
            )


def input_mismatch(subject: Subject) -> Iterator[Finding]:
    """An inference sample whose inputs lie elsewhere than the calibration's."""
    for value in subject.quantized.model.graph.inputs:
        name = value.name or ""
        array = (subject.inference or {}).get(name)
        if array is None or name not in subject.seen or not array.size:
            continue
        seen, given = subject.seen[name], (float(array.min()), float(array.max()))
        cause = _cause(seen, given, array)
        if cause:
            yield Finding(
                "input-mismatch",
                name,
                f"input {name!r} spans {given[0]:.4g} to {given[1]:.4g} in this sample, "
                f"and {seen[0]:.4g} to {seen[1]:.4g} in calibration: {cause}",
                "prepare both alike: mean_values and std_values count for the dataset and for what inference is given",
            )


def _cause(seen: Range, given: Range, array: Array) -> str:
    """Why an input differs from the calibrated range, in words; '' where it does not."""
    if not np.isfinite(given).all():
        return "it is not finite"
    width, own = seen[1] - seen[0], given[1] - given[0]
    beyond = max(seen[0] - given[0], given[1] - seen[1])
    if width <= 0.0 or (beyond <= BEYOND * width and (own >= FILLED * width or own == 0.0)):
        return ""
    largest, calibrated = (max(abs(low), abs(high)) for low, high in (given, seen))
    if largest > FACTOR * calibrated:
        return f"{largest / calibrated:.3g} times larger, as if not divided by std"
    if largest * FACTOR < calibrated:
        return f"{calibrated / largest:.3g} times smaller, as if divided by std twice, or calibrated without std"
    if given[0] >= 0.0 > seen[0]:
        return "not below 0, as if no mean was subtracted"
    if seen[0] >= 0.0 > given[0]:
        return "below 0, as if a mean was subtracted that calibration did without"
    return "it does not fit"


def saturated(subject: Subject) -> Iterator[Finding]:
    """Tensors that need far more on an inference sample than calibration saw."""
    if subject.inference is None:
        return
    try:
        reached = collect(subject.quantized.model, [subject.inference], 1, Progress()).ranges
    except QuantizationError as error:
        yield Finding("saturated", "", f"on this sample, {error.what}", error.hint)
        return
    wider = {
        name: extent(*reached[name]) / extent(*subject.seen[name])
        for name in subject.stored
        if name in reached
        and subject.grid(name) is not None
        and extent(*reached[name]) > SATURATED * extent(*subject.seen.get(name, (0.0, 0.0))) > 0.0
    }
    if wider:
        first, worst = next(iter(wider)), max(wider, key=wider.__getitem__)
        maker = subject.stored[first]
        yield Finding(
            "saturated",
            maker.name if maker else first,
            f"this sample needs more than twice the calibrated range in {counted(len(wider), 'tensor')}, the first "
            f"of them {first!r}; {worst!r} spans {reached[worst][0]:.4g} to {reached[worst][1]:.4g}, "
            f"{wider[worst]:.3g} times what calibration saw",
            "add samples like this one to the dataset",
        )
