"""Arrays written as text read, to the last digit, as C's %f prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.decimal_text import decimals, write_decimals

# Where the number of digits changes, where six decimals round up, and where the fast way ends.
EDGES = [
    0.0,
    -0.0,
    5e-7,
    0.5,
    0.9999995,
    9.9999999,
    999.99997,
    1000.0,
    4293.99,
    4294.0,
    1e6,
    999999.94,
    1e9,
    4294967040.0,
]


def printed(values: list[float]) -> bytes:
    return "".join(f"{np.float32(value):f}\n" for value in values).encode()


@given(st.lists(st.floats(width=32) | st.floats(-5000, 5000, width=32), max_size=40))
def test_any_float_reads_as_printf_writes_it(values: list[float]) -> None:
    assert decimals(np.array(values, np.float32)) == printed(values)


@pytest.mark.parametrize("largest", EDGES)
def test_small_numbers_beside_large_ones_have_no_padding(largest: float) -> None:
    values = [1.5, -largest, 0.0, largest, -12.25, 1000.0 if largest >= 1000 else 1.0, -0.000001]
    assert decimals(np.array(values, np.float32)) == printed(values)


def test_every_element_of_a_large_array_is_on_a_line_of_its_own_in_order(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(scale=100, size=(3, 200, 301)).astype(np.float32)
    write_decimals(tmp_path / "values.txt", array)
    assert (tmp_path / "values.txt").read_bytes() == printed(array.reshape(-1).tolist())
