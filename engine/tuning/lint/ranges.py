"""Lint rules on the ranges of tensors: joined parts, masks, rare extremes, and what float16 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np

from engine.analysis.accuracy import masked_scores
from engine.graph.layers import Layer
from engine.graph.operators import SELECTIONS
from engine.quantization.histograms import Histogram
from engine.quantization.ranges import Range
from engine.quantization.table import Row
from engine.quantization.traffic import keeping
from engine.summaries import Finding
from engine.tuning.lint.subject import Subject, counted, extent, listed, steps

# A part of a join that spans 1/16 of the widest keeps 16 of 255 steps, hardly 30 dB for values spread evenly.
JOIN_RATIO = 16.0
# The largest finite float16.
LARGEST_HALF = 65504.0
# Values that most tensors would not miss, as many as the percentile algorithm leaves outside.
RARE_SHARE = 1e-4
# Only where the rest would get a grid twice as fine, ...
RARE_SHRINK = 2.0
# ... and has a signal-to-noise ratio below 30 dB on the grid as it is, does that matter.
RARE_NOISE = 1e-3

# Operators after which the parts of a join still lie apart, so that one scale for all of them still hurts.
_APART = SELECTIONS | {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "LeakyRelu", "Max", "MaxPool", "Min",
    "Mul", "Neg", "PRelu", "Pad", "Relu", "Resize", "Slice", "Sub", "Where",
}  # fmt: skip


def join_ranges(subject: Subject, dead: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Joins whose widest part sets a scale that is too coarse for others.

    `dead` are pairs of a join and a part that comes out constant in the quantized model.
    """
    for layer in subject.quantized.layers:
        row = subject.grid(layer.name)
        if layer.last.op_type != "Concat" or row is None:
            continue
        parts = {name: width for name in layer.inputs if (width := _extent_within(subject, name, row)) > 0.0}
        if not parts:
            continue
        widest, limit = max(parts, key=parts.__getitem__), JOIN_RATIO * steps(row) / 255
        small = sorted((name for name in parts if parts[name] * limit < parts[widest]), key=parts.__getitem__)
        if not small:
            continue
        needed = [
            *_coarse_makers(subject, small, parts, limit),
            *_coarse_readers(subject, layer, parts[small[0]], limit),
        ]
        finest, *others = small
        gone = [name for name in small if (layer.name, name) in dead]
        yield Finding(
            "join-ranges",
            layer.name,
            f"{layer.op} {layer.name!r} puts {widest!r}, which spans {parts[widest]:.4g}, and {finest!r}, which spans "
            f"{parts[finest]:.4g}, on one {row.dtype} scale: {parts[widest] / parts[finest]:.4g} times less, so that "
            f"{parts[finest] / (row.scale or 1.0):.3g} of {steps(row)} steps are left for it"
            + (f", and few for {listed(others)}" if others else "")
            + (f"; {listed(gone)} {'come' if len(gone) > 1 else 'comes'} out constant" if gone else ""),
            f"keep the parts apart as outputs of their own, or run the join and what reads it in {subject.finer} "
            f"({counted(len({n.name for n in needed}), 'layer')})",
            subject.wishes(needed),
        )


def _extent_within(subject: Subject, tensor: str, row: Row) -> float:
    """The extent of what the row keeps of the tensor's values; 0 for constants, which need no steps."""
    low, high = subject.seen.get(tensor, (0.0, 0.0))
    if low == high:
        return 0.0
    return extent(min(max(low, row.min), row.max), min(max(high, row.min), row.max))


def _coarse_readers(subject: Subject, join: Layer, finest: float, limit: float) -> list[Layer]:
    """The join and what follows it as long as parts lie apart on a scale too coarse for an extent of `finest`."""
    return _reached(
        join,
        lambda layer: [
            reader
            for name in layer.outputs
            if _apart(layer) and _too_coarse(subject, name, finest * limit)
            for reader in subject.readers.get(name, ())
        ],
    )


def _coarse_makers(subject: Subject, small: list[str], extents: dict[str, float], limit: float) -> list[Layer]:
    """The layers that make the small parts, where these are rounded on a scale as coarse as the join's already."""
    makers = subject.quantized.makers
    found: list[Layer] = []
    for part in small:
        bound = extents[part] * limit

        def before(layer: Layer, bound: float = bound) -> list[Layer]:
            coarse = [name for name in layer.inputs if name in makers and _too_coarse(subject, name, bound)]
            return [makers[name] for name in coarse] if _apart(layer) else []

        if part in makers and _too_coarse(subject, part, bound):
            found += _reached(makers[part], before)
    return found


def _reached(start: Layer, next_ones: Callable[[Layer], list[Layer]]) -> list[Layer]:
    found, waiting = {start.name: start}, [start]
    while waiting:
        for layer in next_ones(waiting.pop()):
            if layer.name not in found:
                found[layer.name] = layer
                waiting.append(layer)
    return list(found.values())


def _too_coarse(subject: Subject, tensor: str, bound: float) -> bool:
    row = subject.grid(tensor)
    return row is not None and extent(row.min, row.max) > bound


def _apart(layer: Layer) -> bool:
    return all(node.op_type in _APART for node in layer.nodes)


def masked(subject: Subject) -> Iterator[Finding]:
    """Scores before a softmax that share their scale with a mask far below them."""
    for layer, row in masked_scores(subject.quantized.layers, subject.quantized.table):
        low, scale = row.min, row.scale or 0.0

        def behind(one: Layer) -> list[Layer]:
            ended = one.last.op_type == "Softmax"
            return [] if ended else [r for name in one.outputs for r in subject.readers.get(name, ())]

        chain = _reached(layer, behind)
        holds = low > -LARGEST_HALF and subject.finer == "float16"
        yield Finding(
            "masked-scores",
            layer.name,
            f"{layer.op} {layer.name!r} holds scores and a mask of {low:.4g} on one scale, "
            f"one step of which is {scale:.3g}",
            "use a mask of about -100 in the source model or quantized_algorithm 'mmse'"
            + (f", or run the {counted(len(chain), 'layer')} up to the softmax in float16" if holds else ""),
            subject.wishes(chain) if holds else {},
        )


def half_overflow(subject: Subject) -> Iterator[Finding]:
    """Layers in float16 that read or make values which it cannot hold."""
    for layer in subject.quantized.layers:
        if "float16" not in subject.precisions(layer):
            continue
        for name in (*layer.inputs, *layer.inner, *layer.outputs):
            low, high = subject.seen.get(name, (0.0, 0.0))
            if max(-low, high) > LARGEST_HALF:
                yield Finding(
                    "half-overflow",
                    layer.name,
                    f"{layer.op} {layer.name!r} is in float16, which ends at 65504, "
                    f"but {name!r} spans {low:.4g} to {high:.4g}",
                    "use int16 for this layer, or scale its values down in the source model",
                    subject.wishes([layer], "int16"),
                )
                break


def rare_ranges(subject: Subject) -> Iterator[Finding]:
    """Tensors whose scale is set by values so rare that they would not be missed.

    Left out are those that no algorithm clips: there, what is rare is the signal.
    """
    histograms = subject.statistics.histograms if subject.statistics is not None else {}
    told: set[str] = set()
    for name, maker in subject.stored.items():
        histogram, row = histograms.get(name), subject.grid(name)
        if histogram is None or row is None or row.scale is None or name in subject.never_clipped:
            continue
        low, high = usual_range(histogram)
        usual = extent(max(low, row.min), min(high, row.max))
        noise = rounding_noise(histogram, low, high, row.scale)
        if usual * RARE_SHRINK >= extent(row.min, row.max) or noise < RARE_NOISE:
            continue
        told.add(name)
        if maker is not None and len(maker.inputs) == 1 and maker.inputs[0] in told and _apart(maker):
            continue  # the same values, perhaps with a constant factor: told where they arise
        yield Finding(
            "rare-range",
            maker.name if maker else name,
            f"{maker.op if maker else 'Input'} {name!r} spans {row.min:.4g} to {row.max:.4g}, but fewer than 1 in "
            f"{1 / RARE_SHARE:.0f} of its values lie outside of {low:.4g} to {high:.4g}; those inside get "
            f"{usual / row.scale:.3g} of {steps(row)} steps, and keep {-10 * math.log10(noise):.3g} dB",
            "use quantized_algorithm 'mmse', 'percentile' or 'kl_divergence', narrow its min and max, or run what "
            f"makes and reads it in {subject.finer}",
            keeping(subject.quantized, name, subject.finer),
        )


def usual_range(histogram: Histogram) -> Range:
    """The narrowest range around 0 that holds all but RARE_SHARE of the values, in whole bins."""
    counts, edges = histogram.counts, histogram.edges
    spare = RARE_SHARE * counts.sum()
    below = np.concatenate([[0], np.cumsum(counts)])  # values under each edge
    above = counts.sum() - below
    starts = np.flatnonzero((below <= spare) & (edges <= max(0.0, histogram.low)))
    # The most that may go above, when all below each start has gone.
    ends = np.searchsorted(-above, -(spare - below[starts]))
    lows, highs = np.minimum(edges[starts], 0.0), np.maximum(edges[ends], 0.0)
    best = int(np.argmin(highs - lows))
    return float(lows[best]), float(highs[best])


def rounding_noise(histogram: Histogram, low: float, high: float, scale: float) -> float:
    """Noise-to-signal power ratio of the values in low..high at steps of `scale`."""
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    inside = np.where((centres >= low) & (centres <= high), histogram.counts, 0)
    # What is rounded to 0 loses itself; the zeros that a Relu leaves lose nothing.
    noise = float(inside @ np.where(np.abs(centres) < scale / 2, centres**2, scale**2 / 12))
    power = float(inside @ centres**2)
    return noise / power if power > 0.0 else 0.0
