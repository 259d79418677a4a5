"""A quantized model is a value: changing it makes another, which shares what did not change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Table
from tests.simulated import checked, wished
from tests.small_networks import built, network, random

BODY = """
c = Conv (x, w, b)
r = Relu (c)
d = Conv (r, w)
best = ArgMax <axis = 1> (d)
y = Tanh (d)
"""
X = {"x": random(1, 4, 5, 5)}


@pytest.fixture
def quantized(tmp_path: Path) -> Quantized:
    proto = network({"x": (1, 4, 5, 5)}, BODY, {"w": random(4, 4, 1, 1), "b": random(4)}, ["y", "best"])
    return wished(built(tmp_path, proto, [[X["x"]]]))


def test_tensors_know_their_makers_and_whether_they_are_integers(quantized: Quantized) -> None:
    assert {name: layer.name for name, layer in quantized.makers.items()} == {
        "c": "r", "r": "r", "d": "d", "best": "best", "y": "y",
    }  # fmt: skip
    assert quantized.integers == {"best"}


def test_a_change_leaves_the_original_and_shares_quantized_weights(quantized: Quantized) -> None:
    node = quantized.layers[0].nodes[0]
    weight = quantized.constants.weight(node, "int8")
    before = checked(quantized, X)["y"]
    changed = quantized.changed(table=Table(quantized.table.rows, {"d": "float16"}), biases={"c": random(4, seed=8)})
    assert changed.constants.weight(node, "int8") is weight
    assert not np.array_equal(checked(changed, X)["y"], before)
    assert np.array_equal(checked(quantized, X)["y"], before)
    assert quantized.table.wishes == {} and quantized.corrections.biases == {}
    # What was weighed for the copy is there for the original too.
    finer = changed.constants.weight(node, "int16")
    assert quantized.constants.weight(node, "int16") is finer


def test_a_change_keeps_what_it_does_not_name(quantized: Quantized) -> None:
    biases = {"c": random(4, seed=8)}
    corrected = quantized.changed(biases=biases)
    assert corrected.table is quantized.table
    table = Table(quantized.table.rows, {"y": "float16"})
    assert corrected.changed(table=table).corrections.biases is biases
    assert corrected.changed(biases={}).corrections.biases == {}
    weights = {"c": np.clip(random(4, 4, 1, 1), -0.5, 0.5)}
    replaced = dataclasses.replace(quantized, corrections=Corrections(weights=weights))
    assert replaced.changed(biases=biases).corrections == Corrections(weights, biases)
    assert not np.array_equal(
        replaced.changed(biases=biases).constants.weight(quantized.layers[0].nodes[0], "int8").real,
        quantized.constants.weight(quantized.layers[0].nodes[0], "int8").real,
    )


def test_the_bias_in_force_is_the_corrected_one(quantized: Quantized) -> None:
    first, second = quantized.layers[0].nodes[0], quantized.layers[1].nodes[0]
    assert quantized.constants.bias(second) is None
    assert np.array_equal(quantized.constants.bias(first), random(4))  # type: ignore[arg-type]
    corrected = quantized.changed(biases={"c": random(4, seed=1), "d": random(4, seed=2)})
    assert np.array_equal(corrected.constants.bias(first), random(4, seed=1))  # type: ignore[arg-type]
    assert np.array_equal(corrected.constants.bias(second), random(4, seed=2))  # type: ignore[arg-type]
    assert quantized.constants.corrected_bias(first) is None
