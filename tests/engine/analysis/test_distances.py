"""Distances between tensors, against plain arithmetic in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.distances import error_pair, sum_squared_differences, sum_squares, sums_of_products
from engine.summaries import ErrorPair

sizes = st.one_of(st.integers(0, 20), st.sampled_from([4095, 4096, 8191, 8192, 8193, 65535, 65537, 150_000]))


@given(size=sizes, seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 1e6, 1e18, 1e37]))
def test_sums_are_those_of_plain_arithmetic(size: int, seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    first = (generator.normal(size=size) * scale).astype(np.float32)
    second = (first + generator.normal(size=size) * scale * 0.01).astype(np.float32)
    f, q = first.astype(np.float64), second.astype(np.float64)
    assert sum_squares(first) == pytest.approx(f @ f, rel=1e-5)
    # A float32 difference has the digits that its terms have left.
    assert sum_squared_differences(first, second) == pytest.approx((f - q) @ (f - q), rel=1e-5)
    assert sums_of_products(first, second) == pytest.approx((f @ f, q @ q, f @ q, (f - q) @ (f - q)), rel=1e-9)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_a_tensor_that_is_not_finite_is_infinitely_far(wrong: float) -> None:
    golden, stored = np.ones(5000, np.float32), np.ones(5000, np.float32)
    stored[4500] = wrong
    difference = sum_squared_differences(golden, stored)
    assert not math.isfinite(difference)
    assert error_pair(sum_squares(golden), sum_squares(stored), difference) == ErrorPair(0.0, math.inf)


def test_zeros_agree_with_zeros_only() -> None:
    assert error_pair(0.0, 0.0, 0.0) == ErrorPair(1.0, 0.0)
    assert error_pair(0.0, 4.0, 4.0) == ErrorPair(0.0, 2.0)
    assert error_pair(4.0, 0.0, 4.0) == ErrorPair(0.0, 2.0)
    assert error_pair(4.0, 4.0, 16.0) == ErrorPair(-1.0, 4.0)
