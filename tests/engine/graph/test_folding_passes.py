"""Levels 2 and 3: what convolutions and matrix products absorb into weights, bias and pads, and what they must not."""

from __future__ import annotations

import numpy as np
import pytest

from engine.graph.provenance import sources
from engine.graph.query import attribute
from tests.engine.graph.graph_building import Array, build, initializer, integers, node_of, number, optimized, random

IMAGE = {"x": (2, 4, 6, 6)}
CONV = "a = Conv <group = 2> (x, w, b)\n"
WEIGHTS: dict[str, Array] = {
    "w": random(6, 2, 3, 3),
    "b": random(6),
    "t": random(4, 3, 3, 3, seed=1),
    "c1": random(1, 6, 1, 1),
    "c3": random(6, 1, 1, seed=3),
    "s0": number(1.7),
    "s1": np.array([-0.3], np.float32),
    "gamma": random(6, seed=5),
    "beta": random(6, seed=6),
    "mean": random(6, seed=8),
    "variance": np.abs(random(6, seed=9)) + 0.1,
}


@pytest.mark.parametrize(
    "layer",
    ["Conv <group = 2> (x, w, b)", "Conv <group = 2> (x, w)", "ConvTranspose <group = 2, strides = [2, 2]> (x, t)",
     "ConvTranspose <group = 2> (x, t, b)"],
)  # fmt: skip
@pytest.mark.parametrize(
    "after",
    [
        "BatchNormalization (a, gamma, beta, mean, variance)",
        "Mul (a, s0)",
        "Mul (c1, a)",
        "Div (a, c3)",
        "Add (s1, a)",
        "Sub (a, c3)",
        "Sub (c3, a)",
    ],
)
def test_what_follows_a_convolution_per_channel_is_folded(layer: str, after: str) -> None:
    model = build(IMAGE, f"a = {layer}\ny = {after}", WEIGHTS)
    op = layer.split()[0]
    assert optimized(model, 3) == [op]
    assert sources(node_of(model, op)) == (f"{op}_a", f"{after.split()[0]}_y")
    assert "w" in model.graph.initializers or "t" in model.graph.initializers


def test_chains_fold_whole() -> None:
    body = (
        CONV
        + """m = Mul (s0, a)
        n = Add (m, s1)
        o = BatchNormalization (n, gamma, beta, mean, variance)
        p = Div (o, c3)
        y = Sub (p, c1)"""
    )
    model = build(IMAGE, body, WEIGHTS)
    assert optimized(model, 3) == ["Conv"]
    assert sources(node_of(model, "Conv")) == (
        "Conv_a", "Mul_m", "Add_n", "BatchNormalization_o", "Div_p", "Sub_y",
    )  # fmt: skip


def test_level_2_moves_an_add_to_the_bias_and_rewrites_no_weight() -> None:
    model = build(IMAGE, "a = Conv <group = 2> (x, w)\nd = Add (c1, a)\ny = Mul (d, s0)", WEIGHTS)
    assert optimized(model, 2) == ["Conv", "Mul"]
    assert np.array_equal(initializer(model, "w"), WEIGHTS["w"])
    bias = node_of(model, "Conv").inputs[2]
    assert bias is not None and np.array_equal(initializer(model, bias.name or ""), WEIGHTS["c1"].reshape(-1))


@pytest.mark.parametrize(
    ("after", "constants"),
    [
        ("Mul (a, c)", {"c": random(4)}),  # along the width
        ("Mul (a, c)", {"c": random(6, 4, 1)}),
        ("Add (a, c)", {"c": random(2, 1, 1, 1)}),
        ("Mul (a, c)", {"c": random(1, 1, 6, 1, 1)}),
        ("Div (c, a)", {"c": number(2)}),
        ("Div (a, c)", {"c": np.array([1, 2, 3, 4, 5, 0], np.float32).reshape(6, 1, 1)}),
        ("Mul (a, c)", {"c": number(1e38)}),
        ("Mul (a, a)", {}),
    ],
)
def test_what_is_not_per_channel_stays(after: str, constants: dict[str, Array]) -> None:
    model = build(IMAGE, f"{CONV}y = {after}\nz = Abs (y)", WEIGHTS | {"w": WEIGHTS["w"] * 100} | constants, ["y"])
    left = optimized(model, 3)
    assert left[0] == "Conv" and len(left) == 2
    assert np.array_equal(initializer(model, "w"), WEIGHTS["w"] * 100)


def test_a_constant_that_makes_the_output_larger_stays() -> None:
    model = build({"x": (1, 4, 6, 6)}, CONV + "y = Add (a, c)", WEIGHTS | {"c": random(3, 1, 1, 1)})
    assert optimized(model, 3) == ["Conv", "Add"]


def test_an_output_that_others_see_is_not_folded() -> None:
    body = CONV + "y = Mul (a, s0)"
    assert optimized(build(IMAGE, body, WEIGHTS, ["y", "a"]), 3) == ["Conv", "Mul"]
    read = build(IMAGE, body + "\nz = Relu (a)", WEIGHTS, ["y", "z"])
    assert optimized(read, 3) == ["Conv", "Mul", "Relu"]


def test_weights_that_two_convolutions_share_are_copied_before_folding() -> None:
    body = CONV + "y = Mul (a, s0)\nr = Relu (x)\nz = Conv <group = 2> (r, w, b)"
    model = build(IMAGE, body, WEIGHTS, ["y", "z"])
    assert sorted(optimized(model, 3)) == ["Conv", "Conv", "Relu"]
    assert np.array_equal(initializer(model, "w"), WEIGHTS["w"])


def test_weights_that_are_computed_are_not_folded() -> None:
    model = build({"x": (1, 4, 6, 6), "v": (6, 4, 3, 3)}, "a = Conv (x, v)\ny = Mul (a, s0)", WEIGHTS)
    assert optimized(model, 3) == ["Conv", "Mul"]


def test_a_batch_normalization_after_something_else_stays() -> None:
    body = CONV + "r = Relu (a)\ny = BatchNormalization (r, gamma, beta, mean, variance)"
    assert optimized(build(IMAGE, body, WEIGHTS), 3) == ["Conv", "Relu", "BatchNormalization"]
    one_number = "a = Flatten (x)\nr = Relu (a)\ny = Mul (r, s0)"
    assert optimized(build(IMAGE, one_number, WEIGHTS), 3) == ["Reshape", "Relu", "Mul"]


@pytest.mark.parametrize("first", ["Gemm (x, m)", "Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, n, r)"])
def test_a_gemm_that_stays_folds_what_follows(first: str) -> None:
    # transA keeps the product from becoming a convolution.
    first = first.replace("Gemm <", "Gemm <transA = 1, ").replace("Gemm (", "Gemm <transA = 1> (")
    body = f"a = {first}\nd = BatchNormalization (a, gamma, beta, mean, variance)\ny = Mul (d, g)"
    constants = WEIGHTS | {"m": random(5, 6), "n": random(6, 5), "r": random(3, 6), "g": random(1, 6)}
    model = build({"x": (5, 3)}, body, constants)
    assert optimized(model, 3) == ["Gemm"]


def test_leftover_arithmetic_goes_forward_into_an_unpadded_convolution() -> None:
    constants = WEIGHTS | {"shift": random(4, 1, 1)}
    body = "r = Relu (x)\nm = Mul (r, s0)\nn = Add (m, shift)\ny = Conv <group = 2> (n, w, b)"
    model = build(IMAGE, body, constants)
    assert optimized(model, 3) == ["Relu", "Conv"]
    assert set(sources(node_of(model, "Conv"))) == {"Conv_y", "Mul_m", "Add_n"}


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("n = Add (r, s0)", ["Relu", "Add", "Conv"]),
        ("n = Mul (r, s0)", ["Relu", "Conv"]),
        ("n = Mul (r, per)", ["Relu", "Mul", "Conv"]),
        ("n = Sub (s0, r)", ["Relu", "Sub", "Conv"]),
    ],
)
def test_before_a_padded_convolution_only_a_scale_can_go(line: str, left: list[str]) -> None:
    constants = WEIGHTS | {"per": random(4, 1, 1)}
    body = f"r = Relu (x)\n{line}\ny = Conv <group = 2, pads = [1, 1, 1, 1]> (n, w, b)"
    assert optimized(build(IMAGE, body, constants), 3) == left


def test_padding_with_zeros_becomes_pads() -> None:
    constants = WEIGHTS | {"p": integers(1, 2, 3, 0), "axes": integers(2, -1), "zero": number(0)}
    model = build(IMAGE, "a = Pad (x, p, zero, axes)\ny = Conv <group = 2, pads = [1, 0, 0, 1]> (a, w)", constants)
    assert optimized(model, 3, tolerance=1e-6) == ["Conv"]
    assert tuple(attribute(node_of(model, "Conv"), "pads")) == (2, 2, 3, 1)
    pool = build(IMAGE, "a = Pad (x, q)\ny = AveragePool <kernel_shape = [3, 3]> (a)", {
        "q": integers(0, 0, 1, 1, 0, 0, 1, 2)})  # fmt: skip
    assert optimized(pool, 3, tolerance=1e-6) == ["AveragePool"]
    assert sources(node_of(pool, "AveragePool")) == ("AveragePool_y", "Pad_a")


@pytest.mark.parametrize(
    ("pad", "layer"),
    [
        ("Pad (x, p, one)", "Conv <group = 2> (a, w)"),
        ('Pad <mode = "reflect"> (x, p)', "Conv <group = 2> (a, w)"),
        ("Pad (x, channels)", "Conv <group = 3> (a, w)"),
        ("Pad (x, crop)", "Conv <group = 2> (a, w)"),
        ("Pad (x, p)", 'Conv <group = 2, auto_pad = "SAME_UPPER"> (a, w)'),
        ("Pad (x, p)", "MaxPool <kernel_shape = [3, 3]> (a)"),
        ("Pad (x, p)", "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)"),
        ("Pad (x, p)", "AveragePool <kernel_shape = [1, 2]> (a)"),
    ],
)
def test_other_padding_stays(pad: str, layer: str) -> None:
    constants = WEIGHTS | {
        "one": number(1),
        "p": integers(0, 0, 1, 1, 0, 0, 1, 1),
        "channels": integers(0, 2, 0, 0, 0, 0, 0, 0),
        "crop": integers(0, 0, -1, 0, 0, 0, 0, 0),
    }
    model = build(IMAGE, f"a = {pad}\ny = {layer}", constants)
    assert optimized(model, 3) == ["Pad", layer.split()[0]]
