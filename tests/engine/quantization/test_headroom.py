"""Ranges that calibration saw in few places grow, and no others."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.graph.query import tensors
from engine.quantization.headroom import with_headroom
from engine.quantization.ranges import Range
from tests.small_networks import integers, network, random, typed

SEEN = (-1.0, 3.0)


def widened(body: str, shape: tuple[int, ...] = (1, 4), samples: int = 2, **further: object) -> dict[str, Range]:
    """By tensor, what becomes of the range -1..3."""
    constants = {"w": random(4, 4), "flat": integers(4, 1), "table": random(9, 4)}
    used = {name: array for name, array in constants.items() if name in body}
    proto = network({"x": shape}, body, used)
    model = ir.from_proto(typed(proto))
    return with_headroom(model, {v.name or "": SEEN for v in tensors(model.graph)}, samples)


@given(st.integers(1, 3000), st.integers(1, 40))
def test_a_range_grows_by_four_over_the_places_that_were_seen(size: int, samples: int) -> None:
    low, high = widened("y = Elu (x)", (1, 7, size), samples)["y"]
    share = min(1.0, 4 / (size * samples))
    if share > 0.01:
        assert (low, high) == pytest.approx((-1 - share, 3 + 3 * share))
    else:
        assert (low, high) == SEEN


def test_an_end_at_zero_stays() -> None:
    model = ir.from_proto(typed(network({"x": (1, 4)}, "y = Relu (x)", {})))
    assert with_headroom(model, {"x": (-1.0, 3.0), "y": (0.0, 3.0)}, 1) == {"x": (-1.0, 3.0), "y": (0.0, 6.0)}


@pytest.mark.parametrize("operator", ["Sigmoid", "HardSigmoid", "Softmax <axis = -1>", "Tanh"])
def test_what_a_function_bounds_stays(operator: str) -> None:
    assert widened(f"y = {operator} (x)")["y"] == SEEN


@pytest.mark.parametrize("operator", ["Reshape (s, flat)", "Transpose (s)", "Identity (s)"])
@pytest.mark.parametrize("source", ["s = Sigmoid (x)", "s = Identity (x)"])
def test_also_reordered_and_so_do_inputs(operator: str, source: str) -> None:
    assert set(widened(f"{source}\ny = {operator}").values()) == {SEEN}


def test_what_is_reordered_grows_as_its_source_does() -> None:
    found = widened("m = MatMul (x, w)\nt = Transpose (m)\ny = Reshape (t, flat)")
    assert found["m"] == found["t"] == found["y"] == (-2.0, 6.0)
    assert found["x"] == SEEN


def test_rows_of_a_table_grow_since_others_may_be_read() -> None:
    proto = network({"x": (1,)}, "y = Gather (table, x)", {"table": random(9, 4)})
    proto.graph.input[0].type.tensor_type.elem_type = 7
    assert with_headroom(ir.from_proto(typed(proto)), {"y": SEEN}, 2)["y"] == (-2.0, 6.0)


def test_tensors_without_a_range_get_none() -> None:
    model = ir.from_proto(typed(network({"x": (1, 4)}, "m = Elu (x)\ny = Elu (m)", {})))
    assert with_headroom(model, {"y": SEEN}, 1) == {"y": (-2.0, 6.0)}
