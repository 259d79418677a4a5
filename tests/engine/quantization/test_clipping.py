"""A clipped range lies within what was seen, and is better than all of it by the criterion that chose it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.quantization.clipping import clip, divergence, squared_error
from engine.quantization.histograms import BINS, Histogram
from engine.quantization.parameters import asymmetric, fake_quantize
from tests.small_networks import Array

CRITERIA = ["mse", "kl_divergence", "percentile"]


def histogram(values: Array) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values.astype(np.float64), BINS, (low, high))[0])


def measured_error(values: Array, low: float, high: float, dtype: str = "int8") -> float:
    difference = fake_quantize(values, *asymmetric(low, high, dtype), dtype).astype(np.float64) - values
    return float(np.mean(difference**2))


@st.composite
def tensors(draw: Any) -> Array:
    """Tensors of the shapes that activations have: bells, long tails, one side only, with zeros, with outliers."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(2, 5000))
    kind = draw(st.sampled_from(["standard_normal", "standard_cauchy", "standard_exponential", "random"]))
    values: Array = getattr(generator, kind)(size)
    values = values + draw(st.sampled_from([0.0, 0.0, 3.0, -3.0, 100.0]))
    if draw(st.booleans()):
        values = np.maximum(values, 0.0)
    values = (values * draw(st.sampled_from([1.0, 1e-6, 1e4, -1.0]))).astype(np.float32)
    values[0] += np.float32(draw(st.sampled_from([0.0, 1.0, 1000.0])))
    assume(values.min() < values.max())
    return values


class TestEveryCriterion:
    @pytest.mark.parametrize("precision", ["int8", "int16"])
    @pytest.mark.parametrize("criterion", CRITERIA)
    @settings(deadline=None, max_examples=40)
    @given(values=tensors())
    def test_the_range_lies_within_what_was_seen(self, criterion: str, precision: str, values: Array) -> None:
        low, high = clip(histogram(values), criterion, precision)
        assert values.min() <= low <= high <= values.max()
        assert float(np.float32(low)) == low and float(np.float32(high)) == high

    @pytest.mark.parametrize("criterion", CRITERIA)
    @pytest.mark.parametrize("bounds", [(0.0, 0.0), (2.5, 2.5), (-1.0, 3.0)])
    def test_without_extent_or_values_nothing_is_cut(self, criterion: str, bounds: tuple[float, float]) -> None:
        assert clip(Histogram(*bounds, np.zeros(BINS, np.int64)), criterion) == bounds

    @pytest.mark.parametrize("criterion", ["kl_divergence", "percentile"])
    def test_one_outlier_among_very_many_values_goes(self, criterion: str) -> None:
        values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
        values[7] = 40
        low, high = clip(histogram(values), criterion)
        assert 3 < high < 6 and -8 < low < -2.5

    @pytest.mark.parametrize("criterion", CRITERIA)
    def test_an_even_spread_stays(self, criterion: str) -> None:
        values = np.linspace(-1, 2, 100_000, dtype=np.float32)
        low, high = clip(histogram(values), criterion)
        assert low == pytest.approx(-1, abs=0.01) and high == pytest.approx(2, abs=0.01)

    @pytest.mark.parametrize("criterion", CRITERIA)
    def test_what_lies_on_one_side_of_zero_is_cut_at_its_far_end_only(self, criterion: str) -> None:
        values = np.random.default_rng(1).exponential(size=50_000).astype(np.float32) + 1
        low, high = clip(histogram(values), criterion)
        assert low == values.min() and high < values.max()
        low, high = clip(histogram(-values), criterion)
        assert high == (-values).max() and low > (-values).min()


class TestSquaredError:
    @settings(deadline=None, max_examples=40)
    @given(values=tensors())
    def test_the_chosen_range_is_not_worse_on_the_values_than_all_of_it(self, values: Array) -> None:
        whole = histogram(values)
        low, high = clip(whole, "mse")
        # A histogram cannot tell where in its step a value lies, and the zero point's rounding may move the ends.
        step = (max(whole.high, 0) - min(whole.low, 0)) / 255
        assert measured_error(values, low, high) <= measured_error(values, whole.low, whole.high) + step**2

    @settings(deadline=None, max_examples=40)
    @given(values=tensors(), precision=st.sampled_from(["int8", "int16"]))
    def test_nor_by_the_expected_error(self, values: Array, precision: str) -> None:
        whole = histogram(values)
        low, high = np.array(clip(whole, "mse", precision))
        before = squared_error(whole, np.array(whole.low), np.array(whole.high), precision)
        # Sums of squares in double precision know no more of values far from 0.
        rounding = 1e-12 * max(whole.high, -whole.low) ** 2
        assert squared_error(whole, low, high, precision) <= before * (1 + 1e-5) + rounding

    @pytest.mark.parametrize(("low", "high"), [(-4.5, 4.0), (-2.0, 2.0), (-1.0, 3.0), (-0.25, 0.5)])
    @pytest.mark.parametrize("behind_relu", [False, True])
    def test_it_expects_what_is_measured(self, low: float, high: float, behind_relu: bool) -> None:
        values = np.random.default_rng(2).normal(size=100_000).astype(np.float32)
        if behind_relu:
            values, low = np.maximum(values, 0), 0.0
        high = min(high, float(values.max()))
        low = max(low, float(values.min()))
        expected = float(squared_error(histogram(values), np.array(low), np.array(high)))
        assert expected == pytest.approx(measured_error(values, low, high), rel=0.03)

    def test_a_long_tail_gains_much(self) -> None:
        values = np.random.default_rng(3).laplace(size=1_000_000).astype(np.float32)
        whole = histogram(values)
        chosen = measured_error(values, *clip(whole, "mse"))
        assert chosen < 0.75 * measured_error(values, whole.low, whole.high)

    def test_an_outlier_stays_where_losing_it_would_cost_more_than_finer_steps_gain(self) -> None:
        values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
        values[7] = 40
        assert clip(histogram(values), "mse")[1] > 35

    def test_int16_has_steps_fine_enough_to_keep_nearly_all(self) -> None:
        values = np.random.default_rng(4).normal(size=100_000).astype(np.float32)
        low, high = clip(histogram(values), "mse", "int16")
        eight = clip(histogram(values), "mse", "int8")
        assert low < eight[0] and high > eight[1] and high > 0.95 * values.max()


class TestDivergence:
    def test_thresholds_are_the_toolkits(self) -> None:
        values = np.random.default_rng(5).laplace(size=100_000).astype(np.float32)
        low, high = clip(histogram(values), "kl_divergence")
        bound = float(np.abs(values).max())
        place = max(-low, high) / bound * 1024 - 0.5
        assert place == pytest.approx(round(place), abs=1e-3) and 128 <= place < 1023
        assert low == -high or low == values.min() or high == values.max()

    @settings(deadline=None, max_examples=40)
    @given(values=tensors())
    @example(values=np.array([3, 3.5, 10], np.float32))
    def test_the_chosen_range_diverges_no_more_than_all_of_it(self, values: Array) -> None:
        whole = histogram(values)
        low, high = clip(whole, "kl_divergence")
        ranges = divergence(whole, np.array([low, whole.low]), np.array([high, whole.high]))
        assert np.isfinite(ranges).all() and ranges[0] <= ranges[1] + 1e-6

    def test_it_is_what_the_definition_gives(self) -> None:
        # Four bins a level, and levels that begin in the middle of one: 256 levels over 1020 bins.
        counts = np.random.default_rng(6).integers(0, 9, 1020)
        counts[0] = 0  # the bin of 0 does not count
        whole = Histogram(0.0, 255.0, counts)
        borders = np.clip(np.arange(257) * 4 - 2, 0, 1020)
        spread = np.zeros(1020)
        for start, stop in itertools.pairwise(borders):
            used = counts[start:stop] > 0
            spread[start:stop] = np.where(used, counts[start:stop].sum() / max(used.sum(), 1), 0)
        share, spread = counts[counts > 0] / counts.sum(), spread[counts > 0] / spread.sum()
        expected = float(np.sum(share * np.log(share / spread)))
        assert divergence(whole, np.array([0.0]), np.array([255.0]))[0] == pytest.approx(expected)

    def test_16_bits_keep_all(self) -> None:
        values = np.random.default_rng(5).laplace(size=10_000).astype(np.float32)
        assert clip(histogram(values), "kl_divergence", "int16") == (values.min(), values.max())


class TestPercentile:
    def test_one_in_ten_thousand_values_lies_outside(self) -> None:
        values = np.random.default_rng(6).normal(size=1_000_000).astype(np.float32)
        low, high = clip(histogram(values), "percentile")
        assert np.sum(values < low) == pytest.approx(50, abs=8) and np.sum(values > high) == pytest.approx(50, abs=8)
        low, high = clip(histogram(np.maximum(values, 0)), "percentile")
        assert low == 0 and np.sum(values > high) == pytest.approx(100, abs=8)

    def test_an_end_does_not_cross_zero(self) -> None:
        values = np.random.default_rng(7).exponential(size=100_000).astype(np.float32)
        values[0] = -1
        low, high = clip(histogram(values), "percentile")
        assert low == pytest.approx(0, abs=0.01) and high > 5
