"""Level 2: activations, norms and pools that are found in their spelled-out forms, and look-alikes that are not."""

from __future__ import annotations

import numpy as np
import pytest

from engine.graph.provenance import sources
from engine.graph.query import attribute
from tests.engine.graph.graph_building import Array, build, initializer, integers, node_of, number, optimized, random

IMAGE = {"x": (1, 3, 4, 5)}
NUMBERS: dict[str, Array] = {
    "zero": number(0),
    "one": number(1),
    "half": number(0.5),
    "three": np.full((1,), 3, np.float32),
    "minus_three": number(-3),
    "six": number(6),
    "sixes": np.full((1, 1, 1, 1), 6, np.float32),
    "sixth": number(1 / 6),
    "fifth": number(0.2),
    "nearly_six": number(6.01),
}
CLIPPED = "a = Add (x, three)\nc = Clip (a, zero, six)\n"


@pytest.mark.parametrize(
    "body",
    [
        CLIPPED + "m = Mul (x, c)\ny = Div (m, sixes)",
        CLIPPED + "m = Mul (c, x)\ny = Mul (m, sixth)",
        CLIPPED + "m = Mul (c, x)\ny = Mul (sixth, m)",
        CLIPPED + "d = Div (c, six)\ny = Mul (x, d)",
        CLIPPED + "d = Mul (sixth, c)\ny = Mul (d, x)",
        CLIPPED + "d = Div (x, six)\ny = Mul (d, c)",
        "a = Sub (x, minus_three)\nc = Clip (a, zero, six)\nm = Mul (x, c)\ny = Div (m, six)",
        "a = Add (three, x)\nl = Max (a, zero)\nc = Min (six, l)\nm = Mul (x, c)\ny = Div (m, six)",
        "a = Add (three, x)\nl = Relu (a)\nc = Min (l, six)\nm = Mul (x, c)\ny = Div (m, six)",
        "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)\ny = Mul (h, x)",
        "s = Mul (x, sixth)\na = Add (s, half)\nc = Clip (a, zero, one)\ny = Mul (x, c)",
    ],
)
def test_hard_swish_is_found_in_every_spelling(body: str) -> None:
    model = build(IMAGE, body, NUMBERS)
    labels = {sources(node)[0] for node in model.graph}
    assert optimized(model, 2) == ["HardSwish"]
    assert set(sources(node_of(model, "HardSwish"))) == labels


@pytest.mark.parametrize(
    "body",
    [
        CLIPPED + "m = Mul (x, c)\ny = Div (m, nearly_six)",
        "a = Add (x, one)\nc = Clip (a, zero, six)\nm = Mul (x, c)\ny = Div (m, six)",
        "a = Add (x, three)\nc = Clip (a, one, six)\nm = Mul (x, c)\ny = Div (m, six)",
        "a = Add (x, three)\nc = Clip (a, zero, nearly_six)\nm = Mul (x, c)\ny = Div (m, six)",
        "h = HardSigmoid (x)\ny = Mul (h, x)",
        # Gated by another tensor than the one that is multiplied.
        "r = Relu (x)\n" + CLIPPED + "m = Mul (r, c)\ny = Div (m, six)",
        CLIPPED + "m = Mul (x, c)\ny = Div (six, m)",
    ],
)
def test_what_only_looks_like_hard_swish_is_left(body: str) -> None:
    assert "HardSwish" not in optimized(build(IMAGE, body, NUMBERS), 2)


def test_a_clip_that_is_read_elsewhere_keeps_the_hard_swish_spelled_out() -> None:
    body = CLIPPED + "m = Mul (x, c)\ny = Div (m, six)"
    assert "HardSwish" not in optimized(build(IMAGE, body, NUMBERS, outputs=["y", "c"]), 2)
    assert "HardSwish" not in optimized(build(IMAGE, body + "\nz = Sqrt (c)", NUMBERS, outputs=["y", "z"]), 2)


@pytest.mark.parametrize(
    ("body", "alpha"),
    [
        (CLIPPED + "y = Div (c, six)", 1 / 6),
        (CLIPPED + "y = Mul (sixth, c)", 1 / 6),
        ("m = Mul (fifth, x)\na = Add (half, m)\ny = Clip (a, zero, one)", 0.2),
        ("m = Mul (x, sixth)\na = Add (m, half)\nr = Relu (a)\ny = Min (r, one)", 1 / 6),
        ("m = Div (x, six)\na = Add (m, half)\ny = Clip (a, zero, one)", 1 / 6),
    ],
)
def test_hard_sigmoid_is_found(body: str, alpha: float) -> None:
    model = build(IMAGE, body, NUMBERS)
    assert optimized(model, 2) == ["HardSigmoid"]
    node = node_of(model, "HardSigmoid")
    assert attribute(node, "alpha") == pytest.approx(alpha) and attribute(node, "beta") == pytest.approx(0.5)


@pytest.mark.parametrize(
    "body",
    [
        CLIPPED + "y = Div (c, three)",
        "m = Mul (x, half)\na = Add (m, half)\ny = Clip (a, zero, one)",
        "m = Mul (x, fifth)\na = Add (m, three)\ny = Clip (a, zero, one)",
    ],
)
def test_what_only_looks_like_hard_sigmoid_is_left(body: str) -> None:
    assert "HardSigmoid" not in optimized(build(IMAGE, body, NUMBERS), 2)


def test_swish_is_left_for_the_layer_view() -> None:
    assert optimized(build(IMAGE, "s = Sigmoid (x)\ny = Mul (x, s)", {}), 3) == ["Sigmoid", "Mul"]


def test_bounds_become_a_clip_unless_they_cross_or_are_no_scalars() -> None:
    model = build(IMAGE, "a = Min (x, six)\ny = Relu (a)", NUMBERS)
    assert optimized(model, 2) == ["Clip"]
    clip = node_of(model, "Clip")
    assert [float(initializer(model, v.name or "")) for v in clip.inputs[1:] if v is not None] == [0.0, 6.0]
    crossing = build(IMAGE, "a = Max (x, six)\ny = Min (a, three)", NUMBERS)
    assert optimized(crossing, 2) == ["Max", "Min"]
    rows = build(IMAGE, "a = Max (x, zero)\ny = Min (a, rows)", NUMBERS | {"rows": random(4, 1)})
    assert optimized(rows, 2) == ["Max", "Min"]
    two_lower = build(IMAGE, "a = Max (x, zero)\ny = Max (a, one)", NUMBERS)
    assert optimized(two_lower, 2) == ["Max", "Max"]


@pytest.mark.parametrize(("reduction", "pool"), [("ReduceMean", "GlobalAveragePool"), ("ReduceMax", "GlobalMaxPool")])
def test_a_reduction_over_the_image_is_a_global_pool(reduction: str, pool: str) -> None:
    kept = build(IMAGE, f"y = {reduction} (x, axes)", {"axes": integers(-1, 2)})
    assert optimized(kept, 2) == [pool]
    flat = build(IMAGE, f"y = {reduction} <keepdims = 0> (x, axes)", {"axes": integers(2, 3)})
    assert optimized(flat, 2) == [pool, "Reshape"]
    assert initializer(flat, node_of(flat, "Reshape").inputs[1].name).tolist() == [0, 3]  # type: ignore[union-attr, arg-type]
    assert {sources(node) for node in flat.graph} == {(f"{reduction}_y",)}


@pytest.mark.parametrize(("shape", "axes"), [((1, 3, 4, 5), (3,)), ((1, 3, 4, 5), (1, 2)), ((1, 3, 4), (2,))])
def test_other_reductions_stay(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    model = build({"x": shape}, "y = ReduceMean (x, axes)", {"axes": integers(*axes)})
    assert optimized(model, 2) == ["ReduceMean"]


NORM = """
    mean = ReduceMean (x, last)
    d = Sub (x, mean)
    s = {square}
    v = ReduceMean (s, last)
    e = Add (v, epsilon)
    r = Sqrt (e)
    {quotient}
"""
NORM_CONSTANTS = {
    "last": integers(-1),
    "epsilon": number(1e-5),
    "two": number(2),
    "gamma": random(8),
    "beta": random(1, 1, 8),
}


@pytest.mark.parametrize("square", ["Mul (d, d)", "Pow (d, two)"])
@pytest.mark.parametrize("quotient", ["q = Div (d, r)", "i = Reciprocal (r)\nq = Mul (i, d)"])
def test_layer_normalization_is_found_with_scale_and_shift(square: str, quotient: str) -> None:
    body = NORM.format(square=square, quotient=quotient) + "g = Mul (gamma, q)\ny = Add (g, beta)"
    model = build({"x": (1, 6, 8)}, body, NORM_CONSTANTS)
    assert optimized(model, 2) == ["LayerNormalization"]
    node = node_of(model, "LayerNormalization")
    assert attribute(node, "axis") == -1 and attribute(node, "epsilon") == pytest.approx(1e-5)
    assert {"ReduceMean_mean", "Sub_d", "Add_y"} <= set(sources(node))


def test_layer_normalization_needs_neither_scale_nor_shift() -> None:
    body = NORM.format(square="Mul (d, d)", quotient="y = Div (d, r)")
    assert optimized(build({"x": (1, 6, 8)}, body, NORM_CONSTANTS), 2) == ["LayerNormalization"]


def test_what_only_looks_like_layer_normalization_is_left() -> None:
    cubed = NORM.format(square="Pow (d, three)", quotient="y = Div (d, r)")
    constants = NORM_CONSTANTS | {"three": number(3), "middle": integers(1)}
    assert "LayerNormalization" not in optimized(build({"x": (1, 6, 8)}, cubed, constants, ["v"]), 2)
    other_axes = NORM.replace("v = ReduceMean (s, last)", "v = ReduceMean (s, middle)")
    other_axes = other_axes.format(square="Mul (d, d)", quotient="y = Div (d, r)")
    assert "LayerNormalization" not in optimized(build({"x": (1, 6, 8)}, other_axes, constants), 2)
    read = NORM.format(square="Mul (d, d)", quotient="y = Div (d, r)")
    assert "LayerNormalization" not in optimized(build({"x": (1, 6, 8)}, read, constants, ["y", "d"]), 2)


def test_a_scale_of_another_shape_stays_behind_the_norm() -> None:
    body = NORM.format(square="Mul (d, d)", quotient="q = Div (d, r)") + "y = Mul (q, rows)"
    model = build({"x": (1, 6, 8)}, body, NORM_CONSTANTS | {"rows": random(6, 1)})
    assert optimized(model, 2) == ["LayerNormalization", "Mul"]


def test_constant_arithmetic_is_respelled_where_it_is_exact() -> None:
    constants = {"c": random(3, 1, 1), "four": number(4), "three": number(3), "nil": np.zeros((1, 3, 1, 1), np.float32)}
    assert optimized(build(IMAGE, "y = Sub (x, c)", constants), 2, tolerance=0) == ["Add"]
    assert optimized(build(IMAGE, "y = Div (x, four)", constants), 2, tolerance=0) == ["Mul"]
    assert optimized(build(IMAGE, "y = Div (x, three)", constants), 2) == ["Div"]
    assert optimized(build(IMAGE, "y = Div (x, three)", constants), 3) == ["Mul"]
    assert optimized(build(IMAGE, "a = Abs (x)\ny = Add (nil, a)", constants), 2, tolerance=0) == ["Abs"]
    assert optimized(build(IMAGE, "y = Sub (c, x)", constants), 3) == ["Sub"]
    assert optimized(build(IMAGE, "y = Div (three, x)", constants), 3) == ["Div"]


def test_integers_and_zeros_are_not_divided_differently() -> None:
    whole = "a = Cast <to = 7> (x)\nb = Div (a, c)\ny = Cast <to = 1> (b)"
    assert "Div" in optimized(build(IMAGE, whole, {"c": integers(2)}), 3)
    zero = build(IMAGE, "a = Div (x, c)\ny = Sigmoid (a)", {"c": np.array([1, 2, 0, 4, 5], np.float32)})
    assert "Div" in optimized(zero, 3)
