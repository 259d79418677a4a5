"""`auto` takes the recipe that is nearest to the float model on samples that it did not calibrate with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine.analysis.judging import Judge
from engine.config import Config
from engine.errors import Cancelled, DatasetError
from engine.graph.given import GivenParameters, given, keep
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.recipes import Recipe
from engine.quantization.samples import Samples, held_out
from engine.session import Session
from engine.summaries import BuildSummary
from engine.tuning.automatic import Choice, choose
from engine.tuning.quantizing import quantize_by
from tests.engine.tuning.test_quantizing import BODY, CONSTANTS
from tests.small_networks import Array, built, network, random
from tests.zoo import FOLDER, needs_zoo

# Up to its last map, which has so many values that they alone decide.
MAP = BODY.split("\np = ")[0].replace("\ne = ", "\ny = ")
MAP_CONSTANTS = {name: CONSTANTS[name] for name in ("w1", "b1", "w2", "b2", "w3")}
SIZE = (1, 3, 24, 24)
SETTINGS: dict[str, Any] = {"quantized_algorithm": "auto"}


def images(count: int) -> list[list[Array]]:
    return [[random(*SIZE, seed=seed)] for seed in range(count)]


def auto(folder: Path, proto: onnx.ModelProto, samples: list[list[Array]], **settings: Any) -> BuildSummary:
    """What a build by `auto` tells; the outputs are looked at, too."""
    session = built(folder, proto, samples, **{**SETTINGS, **settings})
    assert all(np.isfinite(found).all() for found in session.infer(samples[0], data_format="nchw"))
    return session.build(dataset=folder / "dataset.txt")


def chosen(folder: Path, count: int = 8, **settings: Any) -> tuple[Choice, Session, Samples]:
    """The choice among all recipes for the uneven network."""
    session = built(folder, network({"x": SIZE}, MAP, MAP_CONSTANTS), images(1))
    samples = Samples([{"x": x} for (x,) in images(count)])
    config = dataclasses.replace(session.config, quantized_algorithm="auto", **settings)
    return choose(session.model, samples, config, Progress()), session, samples


def assert_same(one: Quantized, other: Quantized) -> None:
    assert one.table == other.table
    for mine, theirs in (
        (one.corrections.biases, other.corrections.biases),
        (one.corrections.weights, other.corrections.weights),
    ):
        assert {name: array.tobytes() for name, array in mine.items()} == {
            name: array.tobytes() for name, array in theirs.items()
        }


def test_the_winner_is_the_recipe_with_the_least_noise_or_a_plainer_one_next_to_it(tmp_path: Path) -> None:
    choice, _, _ = chosen(tmp_path)
    assert str(choice.outcome.recipe) == choice.scores[0].recipe
    least = min(score.noise for score in choice.scores)
    assert choice.scores[0].noise * 0.95 <= least
    assert [score.noise for score in choice.scores[1:]] == sorted(score.noise for score in choice.scores[1:])
    assert "minmax" in [score.recipe for score in choice.scores]
    assert not choice.notes


def test_scores_are_of_samples_that_nobody_calibrated_with(tmp_path: Path) -> None:
    choice, session, samples = chosen(tmp_path)
    learned, judged = held_out(len(samples), 8)
    assert not set(learned) & set(judged)
    # The winner, calibrated with the others only, does on them what the report says.
    config = dataclasses.replace(session.config, quantized_algorithm="auto")
    alone = quantize_by(choice.outcome.recipe, session.model, samples.part(learned), config, Progress())
    plain = quantize_by(Recipe(), session.model, samples.part(learned), config, Progress())
    found = Judge(plain.quantized, list(samples.part(judged))).run(alone.quantized)
    assert (found.cosine, found.lowest, found.noise) == _numbers(choice, choice.scores[0].recipe)
    normal = Judge(plain.quantized, list(samples.part(judged))).run(plain.quantized)
    assert (normal.cosine, normal.lowest, normal.noise) == _numbers(choice, "minmax")
    assert found.noise <= normal.noise


def _numbers(choice: Choice, recipe: str) -> tuple[float, float, float]:
    (score,) = (score for score in choice.scores if score.recipe == recipe)
    return score.cosine, score.lowest, score.noise


def test_it_is_calibrated_again_with_all_samples(tmp_path: Path) -> None:
    choice, session, samples = chosen(tmp_path)
    assert choice.outcome.statistics.samples == len(samples)
    again = quantize_by(choice.outcome.recipe, session.model, samples, session.config, Progress())
    assert_same(choice.outcome.quantized, again.quantized)


def test_the_same_samples_give_the_same_model(tmp_path: Path) -> None:
    first, second = chosen(tmp_path)[0], chosen(tmp_path)[0]
    assert first.scores == second.scores
    assert_same(first.outcome.quantized, second.outcome.quantized)


def test_uneven_channels_and_one_sided_weights_are_corrected(tmp_path: Path) -> None:
    choice, _, _ = chosen(tmp_path, 4)
    assert choice.outcome.recipe.equalization or choice.outcome.recipe.bias_correction
    assert choice.scores[0].noise < 0.8 * _numbers(choice, "minmax")[2]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_samples_do(tmp_path: Path, count: int) -> None:
    choice = chosen(tmp_path, count)[0]
    assert choice.outcome.statistics.samples == count
    assert bool(choice.notes) == (count < 4)
    if choice.notes:
        assert "fewer than 4" in choice.notes[0]
    assert choice.scores[0].noise <= _numbers(choice, "minmax")[2]


def test_without_samples_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no samples"):
        chosen(tmp_path, 0)


def test_where_rounding_loses_nothing_the_plainest_is_taken(tmp_path: Path) -> None:
    proto = network({"x": (1, 4)}, "y = Relu (x)", {})
    summary = auto(tmp_path, proto, [[np.array([[0, 64, 128, 255]], np.float32)]] * 5)
    assert summary.recipe == "minmax" and summary.candidates[0].noise == 0.0


def test_it_can_be_cancelled_all_along(tmp_path: Path) -> None:
    session = built(tmp_path, network({"x": SIZE}, BODY, CONSTANTS), images(4))
    samples = Samples([{"x": x} for (x,) in images(4)])
    for checks in range(0, 1000, 7):
        left = iter(range(checks))
        progress = Progress(cancelled=lambda left=left: next(left, None) is None)  # type: ignore[misc]
        try:
            choose(session.model, samples, session.config, progress)
        except Cancelled:
            continue
        assert checks > 50
        return
    raise AssertionError("it never ends")


def test_progress_never_goes_back_within_a_stage(tmp_path: Path) -> None:
    session = built(tmp_path, network({"x": SIZE}, BODY, CONSTANTS), images(4))
    seen: list[int] = []
    totals: set[int] = set()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "choose":
            seen.append(done)
            totals.add(total)

    samples = Samples([{"x": x} for (x,) in images(4)])
    choose(session.model, samples, session.config, Progress(report))
    assert seen == sorted(seen) and totals == {seen[-1]}


class TestModels:
    def test_without_any_convolution(self, tmp_path: Path) -> None:
        body = "m = MatMul (x, w)\ne = Elu (m)\nn = MatMul (e, v)\ny = Softmax <axis = -1> (n)"
        proto = network({"x": (1, 16)}, body, {"w": random(16, 24), "v": random(24, 5)})
        summary = auto(tmp_path, proto, [[random(1, 16, seed=seed)] for seed in range(6)])
        assert len(summary.candidates) >= 1

    def test_several_inputs_and_outputs(self, tmp_path: Path) -> None:
        body = "a = Conv (x, w)\nb = Conv (z, v)\ns = Add (a, b)\nr = Relu (s)\ny = Conv (r, u)\ng = Sigmoid (a)"
        constants = {"w": random(4, 3, 1, 1), "v": random(4, 2, 1, 1), "u": random(2, 4, 1, 1)}
        proto = network({"x": (1, 3, 6, 6), "z": (1, 2, 6, 6)}, body, constants, ["y", "g"])
        samples = [[random(1, 3, 6, 6, seed=seed), random(1, 2, 6, 6, seed=seed)] for seed in range(5)]
        assert auto(tmp_path, proto, samples).samples == 5

    def test_integer_inputs_and_outputs(self, tmp_path: Path) -> None:
        body = "e = Gather (table, x)\nm = MatMul (e, w)\nr = Relu (m)\nb = ArgMax <axis = -1> (r)"
        proto = network({"x": (1, 6)}, body, {"table": random(20, 8), "w": random(8, 4)}, ["r", "b"])
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        rng = np.random.default_rng(0)
        summary = auto(tmp_path, proto, [[rng.integers(0, 20, (1, 6))] for _ in range(5)])
        assert summary.candidates

    def test_outputs_of_integers_alone_leave_nothing_to_judge_by(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "m = MatMul (x, w)\ny = ArgMax <axis = -1> (m)", {"w": random(8, 4)})
        summary = auto(tmp_path, proto, [[random(1, 8, seed=seed)] for seed in range(5)])
        assert summary.recipe == "minmax"

    @pytest.mark.parametrize(
        "settings", [{"quantized_dtype": "asymmetric_quantized-16"}, {"quantized_method": "layer"}]
    )
    @pytest.mark.parametrize("target", ["rk3588", "rv1106"])
    def test_other_precisions_methods_and_chips(self, tmp_path: Path, settings: dict[str, str], target: str) -> None:
        proto = network({"x": SIZE}, BODY.replace("y = Gemm", "s = Gemm") + "y = Softmax <axis = -1> (s)", CONSTANTS)
        summary = auto(tmp_path, proto, images(4), target_platform=target, **settings)
        assert summary.precision == ("int16" if "quantized_dtype" in settings else "int8")

    def test_a_batch_of_several(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": SIZE}, BODY, CONSTANTS), images(5), **SETTINGS)
        alone = [session.infer([x], data_format="nchw")[0] for (x,) in images(3)]
        session.build(dataset=tmp_path / "dataset.txt", rknn_batch_size=3)
        together = np.concatenate([x for (x,) in images(3)])
        np.testing.assert_array_equal(session.infer([together], data_format="nchw")[0], np.concatenate(alone))

    def test_a_model_that_brought_all_its_grids_keeps_them(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": SIZE}, BODY, CONSTANTS), images(4))
        for node in session.model.graph:
            keep(node.outputs[0], GivenParameters("int8", (0.5,), (3,)))
            for value in node.inputs[1:]:
                if value is not None and value.is_initializer():
                    keep(value, GivenParameters("int8", (0.1,), (0,)))
        session.config = Config(quantized_algorithm="auto")
        summary = session.build(dataset=tmp_path / "dataset.txt")
        assert "+" not in summary.recipe
        rows = session.table.rows
        assert {(rows[name].scale, rows[name].zero_point) for name in ("a", "r", "d", "e", "p")} == {(0.5, 3)}
        assert all(given(node.outputs[0]) is not None for node in session._require_built("test").single.model.graph)


@needs_zoo
@pytest.mark.parametrize("name", ["dtln_1", "magika"])
def test_models_that_see_nothing_do(tmp_path: Path, name: str) -> None:
    (path,) = (FOLDER / "onnx" / name).glob("*.onnx")
    with np.load(path.parent / "io.npz") as stored:
        inputs = {key.partition("|")[2]: stored[key] for key in stored.files if key.startswith("in|")}
    rng = np.random.default_rng(0)
    lines = []
    for index in range(4):
        files = []
        for place, array in enumerate(inputs.values()):
            sample = np.roll(array, index, axis=-1)
            if sample.dtype.kind == "f":
                sample = sample * np.float32(rng.uniform(0.5, 1.5))
            files.append(f"{index}-{place}.npy")
            np.save(tmp_path / files[-1], sample.transpose(0, 2, 3, 1) if sample.ndim == 4 else sample)
        lines.append(" ".join(files))
    (tmp_path / "dataset.txt").write_text("\n".join(lines) + "\n")
    session = Session(Config(quantized_algorithm="auto"))
    session.load_onnx(path, list(inputs), [list(array.shape) for array in inputs.values()])
    summary = session.build(dataset=tmp_path / "dataset.txt")
    scores = {one.recipe: one for one in summary.candidates}
    assert summary.candidates[0].noise <= scores["minmax"].noise
    assert all(np.isfinite(found).all() for found in session.infer(inputs, data_format="nchw"))
