"""Bias correction gives each channel of the quantized model the float model's mean, whatever was corrected before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.judging import Judge
from engine.config import Config
from engine.errors import Cancelled
from engine.graph.given import GivenParameters, keep
from engine.graph.layers import layers
from engine.ort import make_simulation, run
from engine.progress import Progress
from engine.quantization.edits import edited
from engine.quantization.quantized import Corrections, Quantized
from engine.session import Session
from engine.simulator.lowering import Source, lower
from engine.targets import find_target
from engine.tuning.bias_correction import BiasCorrector
from tests.engine.tuning.changing_networks import Subject, branches, digits, edits_of, quantized_of, samples_of, tokens
from tests.small_networks import Array, built, network, random
from tests.zoo import FOLDER, needs_zoo

BODY = """
a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
r = Relu (a)
m = ConvTranspose <strides = [2, 2]> (r, w2)
l = LeakyRelu (m)
p = GlobalAveragePool (l)
f = Flatten (p)
y = Gemm (f, w3, b3)
"""
# The weights of a channel lean to one side, so that what rounding does to its inputs adds up.
CONSTANTS = {
    "w1": np.abs(random(8, 3, 3, 3)), "b1": random(8), "w2": np.abs(random(8, 6, 2, 2)), "w3": random(6, 5),
    "b3": random(5),
}  # fmt: skip
CORRECTED = {"a", "m", "y"}


def subject(folder: Path, samples: int = 4) -> Subject:
    arrays = [(random(1, 3, 16, 16, seed=seed),) for seed in range(samples)]
    session = built(folder, network({"x": (1, 3, 16, 16)}, BODY, CONSTANTS, ["y", "l"]), arrays, optimization_level=0)
    return Subject(quantized_of(session), [{"x": x} for (x,) in arrays])


def wished(quantized: Quantized, wishes: Mapping[str, str]) -> Quantized:
    return quantized.changed(table=dataclasses.replace(quantized.table, wishes=dict(wishes)))


def assert_same_biases(one: Quantized, other: Quantized) -> None:
    assert {name: bias.tobytes() for name, bias in one.corrections.biases.items()} == {
        name: bias.tobytes() for name, bias in other.corrections.biases.items()
    }


def mean_errors(quantized: Quantized, samples: Sequence[Mapping[str, Array]], tensor: str) -> Array:
    """How much larger the mean of each channel is than the float model's."""

    def means(only: frozenset[Source] | None) -> Array:
        proto = lower(quantized, further=[tensor], only=only)
        session = make_simulation(proto)
        arrays = np.stack([run(session, [proto.graph.output[-1].name], dict(sample))[0] for sample in samples])
        found: Array = arrays.mean(axis=tuple(axis for axis in range(arrays.ndim) if axis != 2), dtype=np.float64)
        return found

    return means(None) - means(frozenset())


@pytest.mark.parametrize("wishes", [{}, {"m": "float16", "l": "float16"}, {"a": "int16", "r": "int16"}])
def test_channels_get_the_float_models_means(tmp_path: Path, wishes: dict[str, str]) -> None:
    found = subject(tmp_path, 1)
    quantized = wished(found.quantized, wishes)
    corrected = BiasCorrector(quantized, found.samples).corrected(quantized)
    assert set(corrected.corrections.biases) == CORRECTED
    assert corrected.table is quantized.table and corrected.corrections.weights == {}
    # A channel of one value cannot come nearer than the steps of its grid; in that of many, rounding evens out.
    for tensor, steps in (("m", 0.1), ("y", 1.0)):
        row = quantized.table.quantizer(tensor, "int8")
        assert row is not None and row.scale is not None
        before, after = (np.abs(mean_errors(q, found.samples, tensor)).max() for q in (quantized, corrected))
        assert after < min(before, steps * row.scale)


def test_a_correction_that_all_samples_agree_on_is_made_in_full(tmp_path: Path) -> None:
    found = subject(tmp_path, 1)
    once = BiasCorrector(found.quantized, found.samples).corrected(found.quantized)
    thrice = BiasCorrector(found.quantized, list(found.samples) * 3).corrected(found.quantized)
    for name, bias in once.corrections.biases.items():
        np.testing.assert_allclose(thrice.corrections.biases[name], bias, rtol=1e-5, atol=1e-6)


def test_what_samples_do_not_agree_on_is_corrected_in_part(tmp_path: Path) -> None:
    proto = network({"x": (1, 6)}, "y = Gemm (x, w, b)", {"w": random(6, 5), "b": random(5)})
    session = built(tmp_path, proto, [[random(1, 6)]], optimization_level=0)
    quantized, samples = quantized_of(session), [{"x": random(1, 6, seed=seed)} for seed in range(4)]
    alone = [BiasCorrector(quantized, [sample]).corrected(quantized).corrections.biases["y"] for sample in samples]
    mean = np.mean(alone, axis=0, dtype=np.float64) - random(5)
    together = BiasCorrector(quantized, samples).corrected(quantized).corrections.biases["y"] - random(5)
    assert (np.sign(together) == np.sign(mean)).all() and (np.abs(together) < np.abs(mean)).all()


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "chain": subject,
    "branches": branches,
    "tokens": tokens,
    "digits": digits,
}


@pytest.fixture(scope="module", params=SUBJECTS)
def any_subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return SUBJECTS[request.param](tmp_path_factory.mktemp("model"))


@settings(max_examples=6)
@given(st.data())
def test_the_result_does_not_depend_on_what_was_corrected_before(any_subject: Subject, data: st.DataObject) -> None:
    base, samples, target = any_subject.quantized, any_subject.samples, find_target("rk3588")
    corrector = BiasCorrector(base, samples)
    forgetful = BiasCorrector(base, samples, keep=False)
    for _ in range(data.draw(st.integers(1, 3))):
        quantized = edited(base, data.draw(edits_of(base)), target)
        corrected = corrector.corrected(quantized)
        assert_same_biases(corrected, BiasCorrector(base, samples).corrected(quantized))
        assert_same_biases(corrected, forgetful.corrected(quantized))


def test_biases_that_were_corrected_before_do_not_count(tmp_path: Path) -> None:
    found = subject(tmp_path)
    corrector = BiasCorrector(found.quantized, found.samples)
    corrected = corrector.corrected(found.quantized)
    assert_same_biases(corrector.corrected(corrected), corrected)
    wrong = found.quantized.changed(biases={"a": np.full(8, 9, np.float32), "stale": np.ones(1, np.float32)})
    assert_same_biases(corrector.corrected(wrong), corrected)


def test_other_weights_get_other_biases(tmp_path: Path) -> None:
    found = subject(tmp_path)
    corrector = BiasCorrector(found.quantized, found.samples)
    for factor in (1.0, 0.5, 1.0):
        weights = {"m": CONSTANTS["w2"] * np.float32(factor)}
        quantized = dataclasses.replace(found.quantized, corrections=Corrections(weights=weights))
        fresh = BiasCorrector(quantized, found.samples).corrected(quantized)
        assert_same_biases(corrector.corrected(quantized), fresh)


def test_only_what_a_change_reaches_is_done_again(tmp_path: Path) -> None:
    found = subject(tmp_path)
    corrector = BiasCorrector(found.quantized, found.samples)
    seen: list[int] = []
    progress = Progress(lambda stage, done, total: seen.append(done))
    corrector.corrected(found.quantized, progress)
    assert seen == [*range(len(found.quantized.layers)), len(found.quantized.layers)]
    seen.clear()
    corrector.corrected(wished(found.quantized, {"y": "float16"}), progress)
    assert seen == [len(found.quantized.layers) - 1, len(found.quantized.layers)]


def test_a_cancelled_correction_leaves_nothing_behind(tmp_path: Path) -> None:
    found = subject(tmp_path)
    changed = wished(found.quantized, {"a": "float16", "r": "float16"})
    corrector = BiasCorrector(found.quantized, found.samples)
    corrector.corrected(found.quantized)
    with pytest.raises(Cancelled):
        corrector.corrected(changed, cancelled_after(3))
    expected = [BiasCorrector(q, found.samples).corrected(q) for q in (found.quantized, changed)]
    assert_same_biases(corrector.corrected(found.quantized), expected[0])
    assert_same_biases(corrector.corrected(changed), expected[1])


def cancelled_after(steps: int) -> Progress:
    count = iter(range(1000))
    return Progress(cancelled=lambda: next(count) >= steps)


@pytest.mark.parametrize("constant", ["w2", "b1", "b3"])
def test_nodes_that_came_with_grids_are_left_alone(tmp_path: Path, constant: str) -> None:
    found = subject(tmp_path)
    model = found.quantized.model
    keep(model.graph.initializers[constant], GivenParameters("int8", (0.01,), (0,)))
    quantized = Quantized(model, layers(model), found.quantized.table)
    corrected = BiasCorrector(quantized, found.samples).corrected(quantized)
    assert set(corrected.corrections.biases) == CORRECTED - {{"w2": "m", "b1": "a", "b3": "y"}[constant]}


def test_what_is_not_finite_is_not_corrected(tmp_path: Path) -> None:
    found = subject(tmp_path)
    broken = {"m": np.full((8, 6, 2, 2), np.inf, np.float32)}
    quantized = dataclasses.replace(found.quantized, corrections=Corrections(weights=broken))
    half = wished(quantized, {"a": "float16", "r": "float16"})
    with np.errstate(invalid="ignore"):
        corrected = BiasCorrector(half, found.samples).corrected(half)
    assert "a" in corrected.corrections.biases and "m" not in corrected.corrections.biases


def test_a_model_without_convolutions_stays_as_it_is(tmp_path: Path) -> None:
    session = built(tmp_path, network({"x": (1, 4)}, "y = Relu (x)", {}), [[random(1, 4)]])
    quantized = quantized_of(session)
    corrected = BiasCorrector(quantized, [{"x": random(1, 4)}]).corrected(quantized)
    assert corrected.corrections.biases == {} and corrected.table is quantized.table


@needs_zoo
def test_a_text_detector_gains_on_photos_that_it_was_not_corrected_with(tmp_path: Path) -> None:
    photos = sorted((FOLDER / "photos").glob("*.jpg"))
    dataset = tmp_path / "photos.txt"
    dataset.write_text("".join(f'"{photo}"\n' for photo in photos[::2]))
    name = "ch_PP-OCRv4_det_infer"
    session = Session(Config(mean_values=((127.5,) * 3,), std_values=((127.5,) * 3,)))
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", ["x"], [[1, 3, 160, 160]], ["p2o.Add.281"])
    session.build(dataset=dataset)
    quantized = quantized_of(session)
    corrected = BiasCorrector(quantized, samples_of(session, dataset, 4), keep=False).corrected(quantized)
    dataset.write_text("".join(f'"{photo}"\n' for photo in photos[1::4]))
    judge = Judge(quantized, samples_of(session, dataset, 5))
    assert judge.run(corrected).noise < 0.75 * judge.run(quantized).noise
