"""Level 2: a sum that is scaled to a mean is a mean, whatever its axes, and look-alikes stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.graph.passes.means import RecogniseMean
from engine.graph.provenance import sources
from engine.graph.query import attribute, static_shape
from tests.engine.graph.graph_building import Array, build, integers, node_of, number, operators, optimized, random

ROWS = {"x": (2, 3, 4)}
CONSTANTS: dict[str, Array] = {
    "last": integers(-1),
    "middle": integers(1),
    "two_axes": integers(0, 2),
    "none": np.zeros(0, np.int64),
    "three": number(3),
    "four": np.full((1, 1), 4, np.float32),
    "third": number(1 / 3),
    "quarter": np.full((1,), 0.25, np.float32),
    "eighth": number(0.125),
    "whole": number(1 / 24),
    "one": number(1),
}


@pytest.mark.parametrize(
    "body",
    [
        "s = ReduceSum (x, last)\ny = Mul (s, quarter)",
        "s = ReduceSum (x, last)\ny = Mul (quarter, s)",
        "s = ReduceSum (x, last)\ny = Div (s, four)",
        "s = ReduceSum <keepdims = 0> (x, last)\ny = Mul (s, quarter)",
        "s = ReduceSum <keepdims = 0> (x, middle)\ny = Div (s, three)",
        "s = ReduceSum (x, middle)\ny = Mul (third, s)",
        "s = ReduceSum <noop_with_empty_axes = 1> (x, two_axes)\ny = Mul (s, eighth)",
        "s = ReduceSum <keepdims = 0> (x)\ny = Mul (s, whole)",
        "s = ReduceSum (x, none)\ny = Mul (s, whole)",
    ],
)
def test_a_scaled_sum_is_a_mean(body: str) -> None:
    model = build(ROWS, body, CONSTANTS)
    assert optimized(model, 2) == ["ReduceMean"]
    assert len(sources(node_of(model, "ReduceMean"))) == 2


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("s = ReduceSum (x, last)\ny = Mul (s, third)", ["y"]),
        ("s = ReduceSum (x, last)\ny = Div (four, s)", ["y"]),
        ("s = ReduceSum (x, last)\ny = Mul (s, quarter)", ["y", "s"]),
        ("s = ReduceSum (x, last)\ny = Mul (s, quarter)\nz = Relu (s)", ["y", "z"]),
        ("s = ReduceSum (x, last)\ny = Mul (s, row)", ["y"]),
        ("s = ReduceSumSquare (x, last)\ny = Mul (s, quarter)", ["y"]),
        ("a = Cast <to = 7> (x)\ns = ReduceSum (a, last)\nb = Div (s, whole_four)\ny = Cast <to = 1> (b)", ["y"]),
    ],
)
def test_what_only_looks_like_a_mean_is_left(body: str, outputs: list[str]) -> None:
    model = build(ROWS, body, CONSTANTS | {"row": random(3, 1), "whole_four": np.int64(4)}, outputs)
    assert "ReduceMean" not in optimized(model, 2)


def test_a_mean_over_the_image_becomes_a_pool() -> None:
    constants: Mapping[str, Array] = {"axes": integers(2, 3), "n": number(20)}
    model = build({"x": (1, 3, 4, 5)}, "s = ReduceSum (x, axes)\ny = Div (s, n)", constants)
    assert optimized(model, 2) == ["GlobalAveragePool"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.booleans(), st.data())
def test_any_axes_and_any_order_of_operands(dims: list[int], keep: bool, divide: bool, data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.integers(0, len(dims) - 1), unique=True, min_size=1))
    count = int(np.prod([dims[axis] for axis in axes]))
    scaled = "Div (s, n)" if divide else data.draw(st.sampled_from(["Mul (s, f)", "Mul (f, s)"]))
    constants = {"a": integers(*axes), "n": number(count), "f": number(1 / count)}
    model = build({"x": dims}, f"s = ReduceSum <keepdims = {int(keep)}> (x, a)\ny = {scaled}", constants)
    shape = static_shape(model.graph.outputs[0])
    RecogniseMean()(model)
    assert operators(model) == ["ReduceMean"]
    assert attribute(node_of(model, "ReduceMean"), "keepdims") == int(keep)
    assert static_shape(model.graph.outputs[0]) == shape
