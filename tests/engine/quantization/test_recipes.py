"""What each algorithm's recipe says, and what that makes of a table."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from engine.config import ALGORITHMS
from engine.quantization.recipes import RANGES, Recipe, candidates, recipe_of
from engine.quantization.table import GRIDS, Row
from tests.small_networks import built, integers, network, random

NAMED = [name for name in ALGORITHMS if name != "auto"]
CLIPPING = ["mmse", "kl_divergence", "percentile"]

# Tails of few values everywhere, so that whoever may clip does.
BODY = """
a = Conv <pads = [1, 1, 1, 1]> (x, w)
e = Elu (a)
b = Conv <pads = [1, 1, 1, 1]> (e, v)
gate = Sigmoid (b)
g = Mul (e, gate)
c = Conv (g, u)
flat = Reshape (c, shape)
scores = Softmax <axis = -1> (flat)
hidden = Softmax <axis = 1> (g)
z = Conv (hidden, u)
"""
CONSTANTS = {
    "w": random(8, 4, 3, 3), "v": random(8, 8, 3, 3), "u": random(8, 8, 1, 1), "shape": integers(1, 32768),
}  # fmt: skip
SAMPLES = [[random(1, 4, 64, 64, seed=seed) ** 5] for seed in range(2)]


@functools.cache
def rows(folder: Path, algorithm: str) -> dict[str, Row]:
    proto = network({"x": (1, 4, 64, 64)}, BODY, CONSTANTS, ["scores", "z"])
    return built(folder, proto, SAMPLES, quantized_algorithm=algorithm).table.rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tails")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_decides_is_never_clipped(folder: Path, algorithm: str) -> None:
    found = rows(folder, algorithm)
    # Inputs and outputs, what sigmoids and softmaxes read and make, and what shares its range with one of those.
    for name in ("x_int8", "z_int8", "gate", "hidden", "g", "c", "flat"):
        row = found[name]
        assert row.min <= row.ori_min and row.ori_max <= row.max, name
    # A sigmoid is flat beyond 7, with any algorithm.
    assert found["b"].min <= max(found["b"].ori_min, -7) and min(found["b"].ori_max, 7) <= found["b"].max


@pytest.mark.parametrize("algorithm", CLIPPING)
def test_tails_elsewhere_are(folder: Path, algorithm: str) -> None:
    row = rows(folder, algorithm)["e"]
    assert row.max < 0.995 * row.ori_max


def test_normal_uses_what_was_seen_to_the_last_bit(folder: Path) -> None:
    # The sigmoid's input excepted, whose range ends where the sigmoid does.
    for name, row in rows(folder, "normal").items():
        if row.dtype in GRIDS and name not in ("b", "w", "v", "u", "shape"):
            assert (row.min, row.max) == (min(row.ori_min, 0.0), max(row.ori_max, 0.0)), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ranges_seen_through_many_values_get_no_headroom(folder: Path, algorithm: str) -> None:
    for name, row in rows(folder, algorithm).items():
        # 32768 values of each of two samples; ranges that are wider than what was seen only contain 0.
        if row.dtype in GRIDS and name in ("a", "e", "g", "c", "z_int8", "flat"):
            assert row.min >= min(row.ori_min, 0.0) * 1.0101 and row.max <= max(row.ori_max, 0.0) * 1.0101, name


def few(folder: Path, algorithm: str) -> dict[str, Row]:
    body = "a = Conv (x, w)\np = GlobalAveragePool (a)\nf = Flatten (p)\ny = Gemm (f, v)"
    constants = {"w": random(6, 4, 1, 1), "v": random(6, 3)}
    proto = network({"x": (1, 4, 64, 64)}, body, constants)
    return built(folder, proto, SAMPLES, quantized_algorithm=algorithm).table.rows


@pytest.mark.parametrize("algorithm", CLIPPING)
def test_ranges_seen_through_few_values_do(tmp_path: Path, algorithm: str) -> None:
    found = few(tmp_path, algorithm)
    # Three scores, and six averages, of two samples each.
    for name in ("y_int8", "p"):
        row = found[name]
        expected = min(row.ori_min * 2, 0.0), max(row.ori_max * 2, 0.0)
        assert (row.min, row.max) == pytest.approx(expected, rel=1e-4), name
    assert (found["x_int8"].min, found["x_int8"].max) == (found["x_int8"].ori_min, found["x_int8"].ori_max)


def test_but_not_with_normal(tmp_path: Path) -> None:
    row = few(tmp_path, "normal")["y_int8"]
    assert (row.min, row.max) == (min(row.ori_min, 0.0), max(row.ori_max, 0.0))


class TestNames:
    @pytest.mark.parametrize("algorithm", NAMED)
    def test_a_named_algorithm_corrects_only_what_it_is_told_to(self, algorithm: str) -> None:
        plain = recipe_of(algorithm)
        assert plain.ranges in RANGES
        assert not plain.equalization and not plain.bias_correction
        assert recipe_of(algorithm, False, False) == plain
        asked = recipe_of(algorithm, True, True)
        assert asked.equalization and asked.bias_correction
        assert (asked.ranges, asked.weights) == (plain.ranges, plain.weights)

    def test_normal_is_the_plainest_recipe(self) -> None:
        assert recipe_of("normal") == Recipe()

    def test_words_tell_recipes_apart(self) -> None:
        assert str(recipe_of("mmse", True, True)) == "mse + mse weights + equalization + bias correction"
        assert str(recipe_of("kl_divergence")) == "KL divergence"
        words = [str(recipe) for recipe in candidates()]
        assert len(set(words)) == len(words)


class TestCandidates:
    def test_they_are_every_combination_and_the_plainest_is_normal(self) -> None:
        found = candidates()
        assert len(found) == len(set(found)) == 12
        assert recipe_of("normal") in found
        combinations = {(one.ranges, one.equalization, one.bias_correction) for one in found}
        assert len(combinations) == 12 and {ranges for ranges, _, _ in combinations} == {"minmax", "mse", "percentile"}

    @pytest.mark.parametrize("wanted", [True, False])
    def test_a_correction_that_was_decided_is_the_same_in_all(self, wanted: bool) -> None:
        assert {one.equalization for one in candidates(equalization=wanted)} == {wanted}
        assert {one.bias_correction for one in candidates(bias_correction=wanted)} == {wanted}
        assert len(candidates(wanted, wanted)) == 3
