"""Chooses the range of a tensor from its histogram: how much to cut off for finer steps on what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.quantization.histograms import Histogram
from engine.quantization.parameters import LIMITS

Array = np.ndarray[Any, Any]
Range = tuple[float, float]

# Values that may lie outside, in all.
_OUTSIDE = 1e-4
# Candidates for each end in each round: first from the whole range down to a 64th, then between the neighbours of the
# best.
_CANDIDATES = 32
_SMALLEST_PART = 1 / 64
_ROUNDS = 2
# What is cut off counts as much as so much rounding error. Errors of rounding are independent and average out in the
# sums of the next layer, those of cutting off have one sign and come together.
_CUT_WEIGHT = 4.0
# Thresholds are centres of as many bins of |x|, the toolkit's grid; every eighth is tried.
_THRESHOLD_BINS = 1024
_EVERY = 8
# Of the values other than 0. The criterion alone would call a range perfect that holds only what is near its ends.
_LARGEST_CUT = 1e-3


def clip(histogram: Histogram, criterion: str, precision: str = "int8") -> Range:
    """The range (float32 values, inside of the observed one) by one of 'mse', 'kl_divergence' and 'percentile'.

    `precision` is 'int8' or 'int16'. Nothing is cut off a histogram without extent or values. The range need not
    contain 0, but is judged as if it was widened to.
    """
    if histogram.low == histogram.high or histogram.total == 0:
        return histogram.low, histogram.high
    low, high = (float(np.float32(end)) for end in _CRITERIA[criterion](histogram, precision))
    return max(low, histogram.low), min(high, histogram.high)


def squared_error(
    histogram: Histogram, low: Array, high: Array, precision: str = "int8", cut_weight: float = 1.0
) -> Array:
    """The mean squared error to expect when ranges low..high (which broadcast) become a grid. Takes no empty extent.

    A value inside is off by step^2 / 12 on average, one that is cut off by its distance from the end, which counts
    `cut_weight` times. One within half a step of 0 is off by itself, since 0 is on every grid.
    """
    return _squared_error(_Moments(histogram), low, high, precision, cut_weight)


def _squared_error(moments: _Moments, low: Array, high: Array, precision: str, cut_weight: float) -> Array:
    steps = LIMITS[precision][1] - LIMITS[precision][0]
    step = (np.maximum(high, 0.0) - np.minimum(low, 0.0)) / steps
    half = step / 2
    below, upto_high, whole = moments.upto(low), moments.upto(high), moments.upto(moments.end)
    below_small, upto_small = moments.upto(np.clip(-half, low, high)), moments.upto(np.clip(half, low, high))
    above = [every - part for every, part in zip(whole, upto_high, strict=True)]
    large = upto_high[0] - below[0] - (upto_small[0] - below_small[0])
    rounded = step * step / 12 * large + upto_small[2] - below_small[2]
    cut_low = below[2] - 2 * low * below[1] + low * low * below[0]
    cut_high = above[2] - 2 * high * above[1] + high * high * above[0]
    error: Array = np.maximum(rounded + cut_weight * (cut_low + cut_high), 0.0) / max(moments.total, 1)
    return error


class _Moments:
    """Sums of 1, x and x^2 over the values other than 0 up to a point, which are spread evenly within each bin."""

    def __init__(self, histogram: Histogram) -> None:
        counts = histogram.counts.copy()
        zero = _bin_of_zero(histogram)
        if zero is not None:
            # Behind a Relu, most of a tensor is exactly 0, which is on every grid: what stands out counts as that.
            counts[zero] = counts[max(zero - 1, 0) : zero + 2].min()
        self._edges = histogram.edges
        self._width = (histogram.high - histogram.low) / len(counts)
        self._density = counts / self._width
        self._sums = [np.concatenate([[0.0], np.cumsum(self._density * np.diff(p))]) for p in _integrals(self._edges)]
        self.end = self._edges[-1]
        self.total = histogram.total

    def upto(self, point: Array) -> list[Array]:
        """The three sums; `point` lies in the histogram's range."""
        index = np.clip((point - self._edges[0]) // self._width, 0, len(self._density) - 1).astype(np.intp)
        edge, density = self._edges[index], self._density[index]
        return [
            sums[index] + density * (at_point - at_edge)
            for sums, at_point, at_edge in zip(self._sums, _integrals(point), _integrals(edge), strict=True)
        ]


def _integrals(x: Array) -> tuple[Array, Array, Array]:
    """Of 1, x and x^2."""
    square = x * x
    return x, square / 2, square * x / 3


def _mse(histogram: Histogram, precision: str) -> Range:
    """The range of the least expected squared error, what is cut off counting _CUT_WEIGHT times."""
    # Where all values lie on one side of 0, widening would undo a cut on the other.
    lows = _cuts(histogram.low) if histogram.low < 0.0 else np.array([histogram.low])
    highs = _cuts(histogram.high) if histogram.high > 0.0 else np.array([histogram.high])
    moments = _Moments(histogram)
    best = histogram.low, histogram.high
    for _ in range(_ROUNDS):
        low, high = np.minimum(lows, histogram.high)[:, None], np.maximum(highs, histogram.low)[None, :]
        errors = _squared_error(moments, low, high, precision, _CUT_WEIGHT)
        row, column = np.unravel_index(int(np.argmin(errors)), errors.shape)
        best = float(low[row, 0]), float(high[0, column])
        lows, highs = _between(lows, int(row)), _between(highs, int(column))
    return best


def _cuts(end: float) -> Array:
    """Candidates for an end of a range, from `end` towards 0."""
    return end * np.geomspace(1.0, _SMALLEST_PART, _CANDIDATES)


def _between(ends: Array, index: int) -> Array:
    """Candidates around the one at `index`, itself among them, up to its neighbours."""
    half = _CANDIDATES // 2
    before, after = ends[max(index - 1, 0)], ends[min(index + 1, len(ends) - 1)]
    return np.concatenate([np.linspace(before, ends[index], half), np.linspace(ends[index], after, half + 1)[1:]])


def _kl_divergence(histogram: Histogram, precision: str) -> Range:
    """The range whose grid keeps most of the distribution's information.

    Thresholds T = (m + 0.5) A / 1024 are tried, A being the largest magnitude, and ranges max(low, -T)..min(high, T);
    m goes from 128, below which steps are finer than bins. As in TensorRT's calibration, what lies outside counts as
    lying at the ends, and each level spreads its values evenly over its bins that hold any. The bin of 0, which every
    grid represents, is left out, and more than a thousandth of the rest is never cut off. At 16 bits nothing is, since
    steps are finer than bins.
    """
    if precision != "int8":
        return histogram.low, histogram.high
    bound = max(abs(histogram.low), abs(histogram.high))
    thresholds = np.append((np.arange(128, _THRESHOLD_BINS, _EVERY) + 0.5) * bound / _THRESHOLD_BINS, bound)
    low = np.minimum(np.maximum(histogram.low, -thresholds), histogram.high)
    high = np.maximum(np.minimum(histogram.high, thresholds), histogram.low)
    best = int(np.argmin(divergence(histogram, low, high)))
    return float(low[best]), float(high[best])


def divergence(histogram: Histogram, low: Array, high: Array) -> Array:
    """The Kullback-Leibler divergence (nats) of the values on int8 grids of the ranges low..high (vectors); infinite
    where too much lies outside."""
    counts = histogram.counts.astype(np.float64)
    width = (histogram.high - histogram.low) / len(counts)
    zero = _bin_of_zero(histogram)
    if zero is not None:
        counts[zero] = 0.0
    total = counts.sum()
    if total == 0.0:
        return np.zeros(len(low))

    def position(point: Array) -> Array:
        return np.clip((point - histogram.low) / width, 0, len(counts))

    def sums(values: Array, point: Array) -> Array:
        """The sum of the bins' `values` up to `point`, the bin that it lies in counting in part."""
        place = position(point)
        index = np.minimum(place.astype(np.intp), len(values) - 1)
        upto: Array = (np.cumsum(values) - values)[index] + (place - index) * values[index]
        return upto

    grid_low = np.minimum(low, 0.0)
    step = (np.maximum(high, 0.0) - grid_low) / 255
    borders = grid_low[:, None] + step[:, None] * (np.arange(257) - 0.5)
    borders = np.clip(borders, low[:, None], high[:, None])
    mass, bins = np.diff(sums(counts, borders)), np.diff(sums((counts > 0).astype(np.float64), borders))
    density = np.divide(mass, bins, out=np.zeros_like(mass), where=bins > 0.0)
    inside = mass.sum(axis=1)
    information = _times_log(counts)
    own = sums(information, high) - sums(information, low)
    for level, end, outside in ((0, low, sums(counts, low)), (-1, high, total - sums(counts, high))):
        in_end = counts[np.minimum(position(end), len(counts) - 1).astype(np.intp)]
        own += _times_log(in_end + outside) - _times_log(in_end)
        mass[:, level] += outside
    # An end level in a gap between values and outliers counts as if it held one value.
    shared = (mass * np.log(np.maximum(density, 1.0))).sum(axis=1)
    found: Array = (own - shared) / total + np.log(np.maximum(inside, 1.0) / total)
    found[inside < (1.0 - _LARGEST_CUT) * total] = np.inf
    return found


def _bin_of_zero(histogram: Histogram) -> int | None:
    if not histogram.low <= 0.0 <= histogram.high:
        return None
    bins = len(histogram.counts)
    return min(int(-histogram.low / (histogram.high - histogram.low) * bins), bins - 1)


def _times_log(values: Array) -> Array:
    """x log x, which is 0 at 0."""
    product: Array = values * np.log(np.where(values > 0.0, values, 1.0))
    return product


def _percentile(histogram: Histogram, precision: str) -> Range:
    """The range that 1e-4 of the values lie outside of: half on either side of 0, or all on the only side with values.

    Ends are found within bins as if these were filled evenly, and never move across 0.
    """
    edges, total = histogram.edges, histogram.total
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    share = _OUTSIDE if histogram.low >= 0.0 or histogram.high <= 0.0 else _OUTSIDE / 2
    low, high = np.interp([share * total, (1 - share) * total], below, edges)
    return (
        min(float(low), 0.0) if histogram.low < 0.0 else histogram.low,
        max(float(high), 0.0) if histogram.high > 0.0 else histogram.high,
    )


_CRITERIA: dict[str, Callable[[Histogram, str], Range]] = {
    "mse": _mse,
    "kl_divergence": _kl_divergence,
    "percentile": _percentile,
}
