"""Level 2: matrix products become 1x1 convolutions, where they can."""

from __future__ import annotations

import numpy as np
import pytest

from engine.graph.provenance import sources
from tests.engine.graph.graph_building import (
    Array,
    build,
    initializer,
    node_of,
    number,
    optimized,
    outputs_of,
    random,
    with_batch,
)

CONSTANTS: dict[str, Array] = {
    "w": random(8, 5),
    "wt": random(5, 8),
    "b": random(5),
    "row": random(1, 5, seed=2),
    "s": number(0.7),
    "column": random(3, 1),
    "full": random(3, 5),
}
DENSE = ["Reshape", "Conv", "Reshape"]


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul (x, w)",
        "y = Gemm (x, w)",
        "y = Gemm <transB = 1> (x, wt, b)",
        "y = Gemm <alpha = 0.5, beta = 2.0> (x, w, row)",
        "y = Gemm (x, w, s)",
        "p = MatMul (x, w)\ny = Add (p, b)",
        "p = MatMul (x, w)\ny = Add (row, p)",
        "p = Gemm (x, w)\ny = Add (b, p)",
    ],
)
def test_a_matrix_times_weights_is_a_convolution_for_any_batch(body: str) -> None:
    model = build({"x": (3, 8)}, body, CONSTANTS)
    labels = {sources(node)[0] for node in model.graph}
    larger = outputs_of(with_batch(build({"x": (3, 8)}, body, CONSTANTS), 7))[0]
    assert optimized(model, 2) == DENSE
    assert set(sources(node_of(model, "Conv"))) == labels
    assert np.allclose(outputs_of(with_batch(model, 7))[0], larger, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 8), (1, 1, 1, 8), (8,)])
def test_a_vector_of_any_rank_is_a_convolution_with_its_bias(shape: tuple[int, ...]) -> None:
    model = build({"x": shape}, "p = MatMul (x, w)\ny = Add (b, p)", CONSTANTS)
    assert optimized(model, 2) == DENSE
    bias = node_of(model, "Conv").inputs[2]
    assert bias is not None and np.array_equal(initializer(model, bias.name or ""), CONSTANTS["b"])


@pytest.mark.parametrize(
    ("shape", "body", "left"),
    [
        ((8, 3), "y = Gemm <transA = 1> (x, w)", ["Gemm"]),
        ((3, 8), "y = Gemm (x, w, column)", ["Gemm"]),
        ((3, 8), "y = Gemm (x, w, full)", ["Gemm"]),
        ((1, 3, 8), "y = MatMul (x, w)", ["MatMul"]),
        ((8, 3), "y = MatMul (wt, x)", ["MatMul"]),
        ((4, 3, 8), "p = MatMul (x, w)\ny = Add (p, b)", ["MatMul", "Add"]),
    ],
)
def test_other_products_stay(shape: tuple[int, ...], body: str, left: list[str]) -> None:
    assert optimized(build({"x": shape}, body, CONSTANTS), 2) == left


def test_a_product_of_two_computed_matrices_takes_its_bias_only() -> None:
    model = build({"x": (3, 8), "z": (8, 5)}, "p = MatMul (x, z)\ny = Add (p, b)", CONSTANTS)
    assert optimized(model, 2) == ["Gemm"]
    growing = build({"x": (1, 8), "z": (8, 5)}, "p = MatMul (x, z)\ny = Add (p, full)", CONSTANTS)
    assert optimized(growing, 2) == ["MatMul", "Add"]


def test_weights_that_two_products_share_are_copied() -> None:
    model = build({"x": (3, 8), "z": (2, 3, 8)}, "y = MatMul (x, w)\nq = MatMul (z, w)", CONSTANTS, ["y", "q"])
    assert sorted(optimized(model, 2)) == ["Conv", "MatMul", "Reshape", "Reshape"]
    assert np.array_equal(initializer(model, "w"), CONSTANTS["w"])


def test_a_perceptron_behind_a_global_pool_is_convolutions_and_one_reshape() -> None:
    body = """
        p = GlobalAveragePool (x)
        f = Flatten (p)
        a = Gemm <transB = 1> (f, v1, c1)
        r = Relu (a)
        y = Gemm <transB = 1> (r, v2, c2)"""
    constants = {"v1": random(6, 4), "c1": random(6), "v2": random(3, 6), "c2": random(3)}
    model = build({"x": (2, 4, 5, 5)}, body, constants)
    assert optimized(model, 2) == ["GlobalAveragePool", "Conv", "Relu", "Conv", "Reshape"]


def test_batch_normalization_and_scale_behind_a_product_fold_before_it_is_a_convolution() -> None:
    norm = {name: np.abs(random(5, seed=i)) + 0.1 for i, name in enumerate(("g", "h", "m", "v"))}
    body = "p = MatMul (x, w)\nq = Add (p, b)\nn = BatchNormalization (q, g, h, m, v)\ny = Mul (n, s)"
    assert optimized(build({"x": (3, 8)}, body, CONSTANTS | norm), 3) == DENSE


def test_level_1_leaves_products_alone() -> None:
    model = build({"x": (3, 8)}, "p = MatMul (x, w)\ny = Add (p, b)", CONSTANTS)
    assert optimized(model, 1) == ["MatMul", "Add"]
