"""One recipe applied to a model: what each correction changes in the float graph, and that it leaves as plain ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engine.config import Config
from engine.ort import make_session, run
from engine.progress import Progress
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import input_specs
from engine.quantization.recipes import Recipe, recipe_of
from engine.quantization.samples import Samples
from engine.session import Session
from engine.summaries import BuildSummary
from engine.tuning.quantizing import Calibration, full_statistics, quantize_by
from tests.small_networks import Array, built, network, random

# Channels that differ a hundredfold, weights that lean to one side: both corrections have something to do.
BODY = """
a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
r = Relu (a)
d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, w2, b2)
q = Relu (d)
c = Conv (q, w3)
e = Elu (c)
p = GlobalAveragePool (e)
f = Flatten (p)
y = Gemm (f, w4, b4)
"""
UNEVEN = np.geomspace(0.05, 5, 8).astype(np.float32)
CONSTANTS = {
    "w1": np.abs(random(8, 3, 3, 3)) * UNEVEN[:, None, None, None], "b1": random(8) * UNEVEN,
    "w2": random(8, 1, 3, 3), "b2": random(8), "w3": np.abs(random(6, 8, 1, 1)), "w4": random(6, 5), "b4": random(5),
}  # fmt: skip
WEIGHTS, BIASES = {"w1", "w2", "w3", "w4"}, {"b1", "b2", "b4"}
SAMPLES = [[random(1, 3, 12, 12, seed=seed)] for seed in range(6)]


def session_of(folder: Path, **settings: Any) -> tuple[Session, BuildSummary]:
    session = built(folder, network({"x": (1, 3, 12, 12)}, BODY, CONSTANTS), SAMPLES, **settings)
    return session, session.build(dataset=folder / "dataset.txt")


def exported(session: Session, folder: Path) -> onnx.ModelProto:
    path = session.export_onnx(folder / "corrected.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def nodes_of(model: onnx.ModelProto) -> list[tuple[str, list[str], list[str]]]:
    """What nodes there are and how they are joined; a bias that was added is left out."""
    constants = {one.name for one in model.graph.initializer}
    return [(n.op_type, [i for i in n.input if i not in constants], list(n.output)) for n in model.graph.node]


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}


def outputs(model: onnx.ModelProto) -> list[Array]:
    return [run(make_session(model), None, {"x": sample})[0] for (sample,) in SAMPLES]


def changed(before: onnx.ModelProto, after: onnx.ModelProto) -> set[str]:
    """Constants that differ or are new."""
    old, new = constants_of(before), constants_of(after)
    return {name for name, array in new.items() if name not in old or not np.array_equal(old[name], array)}


@pytest.fixture
def plain(tmp_path: Path) -> onnx.ModelProto:
    """The float graph, as a session exports it that corrected nothing."""
    session, summary = session_of(tmp_path)
    model = exported(session, tmp_path)
    assert summary.recipe == "minmax"
    assert not changed(ir.to_proto(session.model), model)
    assert nodes_of(model) == nodes_of(ir.to_proto(session.model))
    return model


def test_equalization_changes_weights_and_biases_and_not_what_the_float_model_computes(
    tmp_path: Path, plain: onnx.ModelProto
) -> None:
    session, summary = session_of(tmp_path, equalization=True)
    assert summary.recipe == "minmax + equalization"
    assert not session._require_built("test").single.corrections.biases
    model = exported(session, tmp_path)
    assert nodes_of(model) == nodes_of(plain)
    assert changed(plain, model) == {"w1", "b1", "w2", "b2", "w3"}
    for before, after in zip(outputs(plain), outputs(model), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_bias_correction_changes_biases_alone(tmp_path: Path, plain: onnx.ModelProto) -> None:
    session, summary = session_of(tmp_path, bias_correction=True)
    assert summary.recipe == "minmax + bias correction"
    model = exported(session, tmp_path)
    assert nodes_of(model) == nodes_of(plain)
    # The one that had none has got one.
    assert changed(plain, model) == BIASES | {"c.bias"}
    corrections = session._require_built("test").single.corrections
    assert corrections.biases.keys() == {"a", "d", "c", "y_conv"} and not corrections.weights
    for before, after in zip(outputs(plain), outputs(model), strict=True):
        assert not np.array_equal(after, before)
        np.testing.assert_allclose(after, before, atol=0.2 * float(np.abs(before).max()))


def test_mse_weights_are_weights_alone(tmp_path: Path, plain: onnx.ModelProto) -> None:
    session, summary = session_of(tmp_path, quantized_algorithm="mmse")
    assert summary.recipe == "mse + mse weights"
    model = exported(session, tmp_path)
    assert nodes_of(model) == nodes_of(plain)
    assert changed(plain, model) <= WEIGHTS and changed(plain, model)


@pytest.mark.parametrize("algorithm", ["normal", "mmse", "kl_divergence", "percentile", "auto"])
def test_all_corrections_together_leave_as_plain_onnx_that_quantizes_alike(tmp_path: Path, algorithm: str) -> None:
    session, summary = session_of(tmp_path, quantized_algorithm=algorithm, equalization=True, bias_correction=True)
    assert "equalization + bias correction" in summary.recipe
    model = exported(session, tmp_path)
    assert {node.op_type for node in model.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    single = session._require_built("test").single
    float_model = onnx.load_from_string(ir.to_proto(single.model).SerializeToString())
    names = changed(float_model, model)
    assert names - WEIGHTS == BIASES | {"c.bias"}


@pytest.mark.parametrize("algorithm", ["normal", "auto"])
def test_corrections_can_be_forbidden(tmp_path: Path, plain: onnx.ModelProto, algorithm: str) -> None:
    session, summary = session_of(tmp_path, quantized_algorithm=algorithm, equalization=False, bias_correction=False)
    assert "+" not in summary.recipe
    assert all("+" not in one.recipe for one in summary.candidates)
    assert not changed(plain, exported(session, tmp_path))


def test_normal_with_corrections_off_is_normal(tmp_path: Path) -> None:
    first = session_of(tmp_path)[0].table
    second = session_of(tmp_path, equalization=False, bias_correction=False)[0].table
    assert first == second


def test_what_was_corrected_stands_in_the_head_of_the_cfg(tmp_path: Path) -> None:
    session = Session(Config(equalization=True, bias_correction=True))
    session_of(tmp_path)
    session.load_onnx(tmp_path / "model.onnx")
    step = session.hybrid_step1(tmp_path / "dataset.txt", folder=tmp_path)
    head = [line for line in Path(step.cfg).read_text().splitlines() if line.startswith("#")]
    assert head == [
        "# quantized with minmax + equalization + bias correction, calibrated with 6 samples",
        "# equalized in 3 layers: a, d, c",
        "# bias corrected in 4 layers: a, d, c, y_conv",
    ]


class TestWithoutAnythingToCorrect:
    BODY = "m = LeakyRelu (x)\nn = Elu (m)\ny = Mul (n, n)"

    def summary(self, folder: Path, **settings: Any) -> BuildSummary:
        session = built(folder, network({"x": (1, 8)}, self.BODY, {}), [[random(1, 8, seed=s)] for s in range(5)])
        session.config = Config.from_mapping(settings)
        return session.build(dataset=folder / "dataset.txt")

    def test_the_recipe_does_not_claim_it(self, tmp_path: Path) -> None:
        summary = self.summary(tmp_path, equalization=True, bias_correction=True)
        assert summary.recipe == "minmax"

    def test_auto_tries_the_ranges_only(self, tmp_path: Path) -> None:
        summary = self.summary(tmp_path, quantized_algorithm="auto")
        assert sorted(one.recipe for one in summary.candidates) == ["minmax", "mse", "percentile"]

    def test_and_takes_what_was_asked_for(self, tmp_path: Path) -> None:
        summary = self.summary(tmp_path, quantized_algorithm="auto", equalization=True, bias_correction=True)
        assert "+" not in summary.recipe


class TestCalibration:
    def of(self, folder: Path, *, equalized: bool = False) -> Calibration:
        session, _ = session_of(folder)
        samples = Samples(Dataset(folder / "dataset.txt", input_specs(session.config, session.summary().inputs)))
        return Calibration(session.model, samples, session.config, Progress(), equalized=equalized)

    def test_statistics_are_taken_once(self, tmp_path: Path) -> None:
        calibration = self.of(tmp_path)
        extremes = calibration.statistics(histograms=False)
        assert not extremes.histograms and calibration.statistics(histograms=False) is extremes
        full = calibration.statistics(histograms=True)
        assert full.histograms and full.ranges == extremes.ranges
        assert calibration.statistics(histograms=False) is calibration.statistics(histograms=True) is full

    def test_one_calibration_serves_recipes_as_calibrations_of_their_own_do(self, tmp_path: Path) -> None:
        shared = self.of(tmp_path)
        for recipe in (Recipe("percentile"), Recipe("mse", bias_correction=True), recipe_of("normal", False, True)):
            own = quantize_by(recipe, shared.model, shared.samples, shared.config, Progress())
            found = shared.quantized(recipe)
            if recipe.bias_correction:
                found = shared.corrected(found)
            assert found.table == own.quantized.table
            biases, others = found.corrections.biases, own.quantized.corrections.biases
            assert biases.keys() == others.keys()
            assert all(np.array_equal(biases[name], others[name]) for name in biases)

    def test_the_time_of_every_stage_is_told(self, tmp_path: Path) -> None:
        calibration = self.of(tmp_path, equalized=True)
        calibration.corrected(calibration.quantized(Recipe("mse", "mse", True, True)))
        assert set(calibration.seconds) == {"equalize", "calibrate", "histograms", "ranges", "correct"}

    def test_full_statistics_know_every_tensor(self, tmp_path: Path) -> None:
        calibration = self.of(tmp_path)
        found = full_statistics(calibration.model, calibration.samples, Progress())
        assert found.ranges == calibration.statistics(histograms=False).ranges
        assert found.histograms.keys() <= found.ranges.keys() and "e" in found.histograms


def test_int16_has_the_same_corrections_in_finer_steps(tmp_path: Path) -> None:
    session, summary = session_of(
        tmp_path, quantized_dtype="asymmetric_quantized-16", equalization=True, bias_correction=True
    )
    assert (summary.precision, summary.recipe) == ("int16", "minmax + equalization + bias correction")
    single = session._require_built("test").single
    assert single.corrections.biases.keys() == {"a", "d", "c", "y_conv"}
    assert {dataclasses.replace(row).dtype for row in single.table.rows.values()} <= {"int16", "float32"}
