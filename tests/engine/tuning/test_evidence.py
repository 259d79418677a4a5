"""A recipe is judged by many values: by the outputs' own, or by those that a few scores are made of."""

from __future__ import annotations

from pathlib import Path

from engine.analysis.judging import Judge
from engine.graph.layers import layers
from engine.quantization.edits import Edits, edited
from engine.quantization.equalization import equalize
from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.targets import find_target
from engine.tuning.evidence import Evidence
from tests.small_networks import built, network, random

SIZE = (1, 4, 16, 16)
SAMPLES = [{"x": random(*SIZE, seed=seed)} for seed in range(4)]
MAP = "a = Conv (x, w)\nm = Relu (a)\n"
SCORES = MAP + "p = GlobalAveragePool (m)\nf = Flatten (p)\ny = Gemm (f, v)"
CONSTANTS = {"w": random(8, 4, 1, 1), "v": random(8, 2)}


def quantized(folder: Path, body: str) -> Quantized:
    used = {name: array for name, array in CONSTANTS.items() if f", {name})" in body}
    session = built(folder, network({"x": SIZE}, body, used), [[sample["x"]] for sample in SAMPLES])
    return session._require_built("test").single


def test_outputs_of_many_values_speak_for_themselves(tmp_path: Path) -> None:
    model = quantized(tmp_path, MAP + "y = Elu (m)")
    evidence = Evidence(model, SAMPLES)
    quality, noise = evidence.measure(model)
    assert evidence.trust == 1.0
    assert noise == quality.noise == Judge(model, SAMPLES).run(model).noise > 0


def test_two_scores_say_less_than_the_features_that_they_are_made_of(tmp_path: Path) -> None:
    model = quantized(tmp_path, SCORES)
    evidence = Evidence(model, SAMPLES)
    assert evidence.trust < 0.1
    row = model.table.rows["m"]
    worse = edited(model, Edits(ranges={"m": (0.0, 8 * row.max)}), find_target("rk3588"))
    fine, coarse = evidence.measure(model)[1], evidence.measure(worse)[1]
    # Steps that are 8 times as wide make 64 times the noise, beside that of the input and the weights.
    assert 10 * fine < coarse < 64 * fine


def test_channels_that_equalization_scaled_count_as_they_were(tmp_path: Path) -> None:
    body = "a = Conv (x, w)\nm = Relu (a)\nb = Conv (m, k)\np = GlobalAveragePool (b)\nf = Flatten (p)\ny = Gemm (f, v)"
    constants = {**CONSTANTS, "k": random(1, 8, 1, 1), "v": random(1, 2)}
    session = built(tmp_path, network({"x": SIZE}, body, constants), [[sample["x"]] for sample in SAMPLES])
    plain = session._require_built("test").single
    found = equalize(plain.model)
    assert found.pairs and Evidence(plain, SAMPLES).trust < 0.1
    # Nothing is rounded in a model without rows, so that only the rounding of float32 is left.
    equalized = Quantized(found.model, layers(found.model), Table())
    assert Evidence(plain, SAMPLES).measure(equalized)[1] < 1e-9
