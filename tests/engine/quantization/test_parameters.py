"""Scales and zero points follow the toolkit's formula to the last bit, alone and through a whole build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.quantization.parameters import LIMITS, asymmetric, fake_quantize, step, symmetric
from engine.quantization.table import Row
from tests.small_networks import Array, built, network, random

FLOATS = st.floats(-(2.0**127), 2.0**127, width=32)


def half_even(value: float) -> int:
    """Round to the nearest whole number, to the even one of two that are equally near."""
    below = int(np.floor(value))
    beyond = value - below
    return below + int(beyond > 0.5 or (beyond == 0.5 and below % 2 == 1))


def expected(low: float, high: float) -> tuple[float, int]:
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0.0:
        return 2 / 255, 0
    scale = (high - low) / 255
    return scale, half_even(-128 - low / scale)


class TestTheFormula:
    @settings(deadline=None)
    @given(FLOATS, FLOATS)
    def test_it_holds_for_any_range(self, first: float, second: float) -> None:
        low, high = sorted((first, second))
        scale, zero_point = asymmetric(low, high)
        assert (scale, zero_point) == expected(low, high)
        assert scale > 0 and -128 <= zero_point <= 127

    @pytest.mark.parametrize(
        ("low", "zero_point"), [(-1.5, -126), (-0.5, -128), (-2.5, -126), (-126.5, -2), (-127.5, 0), (-128.5, 0)]
    )
    def test_half_a_step_rounds_to_the_even_zero_point(self, low: float, zero_point: int) -> None:
        assert asymmetric(low, low + 255) == (1.0, zero_point)

    @pytest.mark.parametrize(
        ("low", "high", "scale", "zero_point"),
        [(3.0, 10.0, 10 / 255, -128), (-10.0, -3.0, 10 / 255, 127), (0.0, 0.0, 2 / 255, 0), (5.0, 5.0, 5 / 255, -128)],
    )
    def test_a_range_is_widened_to_hold_0(self, low: float, high: float, scale: float, zero_point: int) -> None:
        assert asymmetric(low, high) == (scale, zero_point)

    def test_16_bits_have_65535_steps(self) -> None:
        assert asymmetric(-1.0, 3.0, "int16") == (4 / 65535, round(-32768 + 65535 / 4))

    @pytest.mark.parametrize(("low", "high", "scale"), [(-3.0, 2.0, 3.0), (1.0, 2.0, 2.0), (0.0, 0.0, 1.0)])
    def test_a_symmetric_grid_reaches_the_larger_end(self, low: float, high: float, scale: float) -> None:
        assert symmetric(low, high) == (scale / (2**31 - 1), 0)


class TestRounding:
    @settings(deadline=None)
    @given(
        arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
        st.just(0.0) | st.floats(-(2.0**20), -(2.0**-90), width=32),
        st.just(0.0) | st.floats(2.0**-90, 2.0**20, width=32),
        st.sampled_from(["int8", "int16"]),
    )
    def test_values_inside_the_range_move_by_half_a_step_at_most_and_others_to_its_end(
        self, values: Array, low: float, high: float, dtype: str
    ) -> None:
        scale, zero_point = asymmetric(low, high, dtype)
        smallest, largest = ((limit - zero_point) * scale for limit in LIMITS[dtype])
        rounded = fake_quantize(values, scale, zero_point, dtype).astype(np.float64)
        clipped = np.clip(values.astype(np.float64), smallest, largest)
        assert np.abs(rounded - clipped).max() <= float(step(scale)) * 0.5 * 1.02
        assert not fake_quantize(np.zeros(1, np.float32), scale, zero_point, dtype).any()

    @settings(deadline=None)
    @given(st.integers(-128, 127), st.floats(-100, 0), st.floats(0.125, 100))
    def test_a_grid_point_stays_where_it_is(self, point: int, low: float, high: float) -> None:
        scale, zero_point = asymmetric(low, high)
        real = np.array([(point - zero_point)], np.float32) * np.float32(scale)
        assert np.array_equal(fake_quantize(real, scale, zero_point), real)

    def test_half_a_step_rounds_to_even(self) -> None:
        values = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
        assert fake_quantize(values, 1.0, 0).tolist() == [-2.0, 0.0, 0.0, 2.0, 2.0]


# Both tensors keep what was observed: nothing that shares ranges reads or makes them.
BODY = """
m = LeakyRelu <alpha = 0.5> (x)
s = Mul (m, m)
y = LeakyRelu <alpha = 0.25> (s)
"""


def row_of(session_rows: dict[str, Row], tensor: str, values: list[Array]) -> Row:
    """The tensor's row, checked against all its values over the samples."""
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    row = session_rows[tensor]
    assert (row.ori_min, row.ori_max) == (low, high)
    assert (row.min, row.max) == (min(low, 0.0), max(high, 0.0))
    assert (row.scale, row.zero_point) == expected(low, high)
    assert (row.qtype, row.qmethod, row.dtype) == ("asym", "layer", "int8")
    return row


class TestThroughABuild:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.one_of(
                arrays.arrays(np.float32, (2, 6), elements=st.floats(-1e4, 1e4, width=32)),
                st.floats(-1e4, 1e4, width=32).map(lambda v: np.full((2, 6), v, np.float32)),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def test_every_activation_follows_the_formula(self, tmp_path: Path, samples: list[Array]) -> None:
        session = built(tmp_path, network({"x": (2, 6)}, BODY, {}), [[sample] for sample in samples])
        rows = session.table.rows
        leaky = [np.where(x < 0, x * np.float32(0.5), x) for x in samples]
        squares = [m * m for m in leaky]
        row_of({"x": rows["x_int8"]}, "x", samples)
        row_of(rows, "m", leaky)
        row_of(rows, "s", squares)
        row_of({"y": rows["y_int8"]}, "y", squares)

    @pytest.mark.parametrize(
        ("sample", "scale", "zero_point"),
        [
            ([3.0, 10.0], 10 / 255, -128),
            ([-10.0, -3.0], 10 / 255, 127),
            ([0.0, 0.0], 2 / 255, 0),
            ([-1.5, 253.5], 1.0, -126),
            ([-2.5, 252.5], 1.0, -126),
            ([-126.5, 128.5], 1.0, -2),
            ([4.0, 4.0], 4 / 255, -128),
        ],
    )
    def test_an_input_is_rounded_with_the_range_of_its_samples(
        self, tmp_path: Path, sample: list[float], scale: float, zero_point: int
    ) -> None:
        session = built(tmp_path, network({"x": (1, 2)}, "y = Mul (x, x)", {}), [[np.array([sample], np.float32)]])
        row = session.table.rows["x_int8"]
        assert (row.scale, row.zero_point) == (scale, zero_point)
        assert (row.ori_min, row.ori_max) == (sample[0], sample[1])

    @pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3)])
    def test_extremes_are_taken_over_all_samples_whatever_their_order(
        self, tmp_path: Path, order: tuple[int, ...]
    ) -> None:
        samples = [[np.array([[-1, 2, 0.5]], np.float32) * k] for k in order]
        session = built(tmp_path, network({"x": (1, 3)}, "y = LeakyRelu (x)", {}), samples)
        row = session.table.rows["x_int8"]
        assert (row.min, row.max, row.scale) == (-4.0, 8.0, 12 / 255)

    def test_one_outlier_among_ten_samples_counts_in_full(self, tmp_path: Path) -> None:
        samples = [[random(1, 8, seed=seed)] for seed in range(10)]
        samples[6][0][0, 3] = 1000.0
        session = built(tmp_path, network({"x": (1, 8)}, "y = LeakyRelu (x)", {}), samples)
        assert session.table.rows["x_int8"].max == 1000.0


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@given(scale=st.floats(1e30, float(np.finfo(np.float32).max)), zero=st.integers(-128, 127))
def test_the_ends_of_the_widest_grids_stay_finite(dtype: str, scale: float, zero: int) -> None:
    lowest = np.finfo(np.float32).min
    ends = fake_quantize(np.array([lowest, 0, -lowest], np.float32), scale, zero, dtype)
    assert np.isfinite(ends).all() and ends[1] == 0


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_the_lowest_float_stays_what_it_is(dtype: str) -> None:
    lowest = np.finfo(np.float32).min
    (rounded,) = fake_quantize(np.array([lowest]), *asymmetric(float(lowest), 0.0, dtype), dtype)
    assert rounded == pytest.approx(lowest, rel=1e-6)
