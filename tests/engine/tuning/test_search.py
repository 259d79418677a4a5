"""`tune` finds few layers that repair a model, says honestly what they give, and stops where it is told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

from engine.analysis.judging import Judge
from engine.config import Config
from engine.cost.relative import RelativeCost
from engine.errors import Cancelled, DatasetError, QuantizationError
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.session import Session
from engine.simulator.runner import Simulator
from engine.targets import TARGETS
from engine.tuning.bundles import Bundles
from engine.tuning.search import SampleSplit, Tuned, Wish, tune
from engine.tuning.sources import error_sources
from tests.detectors import detections, detector, image
from tests.engine.tuning.changing_networks import Subject, branches, digits, samples_of
from tests.engine.tuning.test_sources import EXECUTORS
from tests.simulated import wished
from tests.small_networks import Array, built, network, random
from tests.zoo import FOLDER, needs_zoo

RK3588 = TARGETS["rk3588"]
EVERYTHING = Wish(cosine=None)


def pictures(first: int, count: int) -> tuple[dict[str, Array], ...]:
    return tuple({"x": image(seed)[0]} for seed in range(first, first + count))


SPLIT = SampleSplit(pictures(100, 3), pictures(200, 4), pictures(300, 4))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """The detector of bright squares in int8."""
    session = built(tmp_path_factory.mktemp("detector"), detector(), [[image(seed)[0]] for seed in range(6)])
    return wished(session)


@pytest.fixture(scope="module")
def repaired(squares: Quantized) -> Tuned:
    return tune(squares, SPLIT, RK3588, wish=Wish(cosine=0.9995))


def output(quantized: Quantized, seed: int) -> Array:
    (found,) = Simulator(quantized).run({"x": image(seed)[0]})
    return found


def test_scores_that_were_all_zero_come_back(squares: Quantized, repaired: Tuned) -> None:
    assert not output(squares, 400)[0, 4:].any(), "boxes of 0..640 leave no step for a score"
    report, model = repaired.report, repaired.chosen
    assert report.reached and report.complete and model is not None
    assert report.base.cosine == 0.0
    chosen = report.candidates[report.chosen]
    assert len(chosen.layers) <= 6
    assert len(chosen.quality.parts) == 2
    assert all(part.cosine >= 0.9995 for part in chosen.quality.parts)
    session = InferenceSession(detector().SerializeToString(), providers=["CPUExecutionProvider"])
    seen = 0
    for seed in range(400, 404):
        (wanted,) = session.run(None, {"x": image(seed)[0]})
        # Scores next to the threshold may fall on either side of it.
        sure, found = detections(wanted, 0.6), detections(output(model, seed), 0.5)
        for kind, corners in sure:
            assert any(kind == other and np.abs(corners - place).max() < 8 for other, place in found)
        seen += len(sure)
    assert seen > 10


def test_the_report_says_what_the_models_do(squares: Quantized, repaired: Tuned) -> None:
    judge, cost = Judge(squares, SPLIT.judge), RelativeCost(squares, RK3588)
    assert repaired.report.base == judge.run(squares)
    assert len(repaired.models) == len(repaired.report.candidates)
    for candidate, model in zip(repaired.report.candidates, repaired.models, strict=True):
        assert judge.run(model) == candidate.quality
        assert model.table.wishes == candidate.wishes
        assert {model.makers[tensor].name for tensor in candidate.wishes if tensor != "x"} == set(candidate.layers)
        assert cost.extra(model.table) == candidate.cost


def test_no_candidate_is_beaten(repaired: Tuned) -> None:
    found = repaired.report.candidates
    assert [one.cost for one in found] == sorted(one.cost for one in found)
    for one in found:
        for other in found:
            better = (
                other.cost <= one.cost
                and other.quality.noise <= one.quality.noise
                and other.quality.cosine >= one.quality.cosine
            )
            assert other is one or not better


def without_seconds(tuned: Tuned) -> object:
    return dataclasses.replace(tuned.report, seconds=0.0)


@pytest.mark.parametrize("make", EXECUTORS)
def test_any_executor_finds_the_same(squares: Quantized, repaired: Tuned, make: Callable[[], Executor]) -> None:
    with make() as executor:
        found = tune(squares, SPLIT, RK3588, wish=Wish(cosine=0.9995), executor=executor)
    assert without_seconds(found) == without_seconds(repaired)
    for model, other in zip(found.models, repaired.models, strict=True):
        biases, others = model.corrections.biases, other.corrections.biases
        assert biases.keys() == others.keys()
        assert all(np.array_equal(biases[name], others[name]) for name in biases)


def test_it_keeps_to_the_layers_and_the_cost_it_may_take(squares: Quantized) -> None:
    none = tune(squares, SPLIT, RK3588, wish=Wish(cosine=1.0, layers=0)).report
    assert not none.reached
    assert all(not one.layers for one in none.candidates)
    two = tune(squares, SPLIT, RK3588, wish=Wish(cosine=1.0, layers=2)).report
    assert {len(one.layers) for one in two.candidates} <= {0, 1, 2}
    assert two.candidates[two.chosen].quality.cosine > 0.99 and not two.reached
    cheap = tune(squares, SPLIT, RK3588, wish=Wish(cosine=1.0, cost=0.001)).report
    assert cheap.candidates and all(one.cost <= 0.001 for one in cheap.candidates)


def test_a_model_that_is_good_enough_is_left_alone(squares: Quantized) -> None:
    tuned = tune(squares, SPLIT, RK3588, wish=Wish(cosine=-1.0))
    assert tuned.report.reached and tuned.report.chosen == -1
    assert tuned.chosen is None and not tuned.report.candidates


def test_a_chip_without_float16_gets_int16(squares: Quantized) -> None:
    tuned = tune(squares, SPLIT, TARGETS["rv1106"], wish=Wish(cosine=0.99))
    assert tuned.report.reached
    assert set(tuned.report.candidates[tuned.report.chosen].wishes.values()) == {"int16"}
    with pytest.raises(QuantizationError, match="rv1106 cannot repair layers with 'float16'"):
        tune(squares, SPLIT, TARGETS["rv1106"], precision="float16")
    with pytest.raises(QuantizationError, match="'int8'"):
        tune(squares, SPLIT, RK3588, precision="int8")


def test_it_needs_samples(squares: Quantized) -> None:
    with pytest.raises(DatasetError):
        tune(squares, SampleSplit((), (), ()), RK3588)
    without = SampleSplit(SPLIT.search, (), SPLIT.judge)
    with pytest.raises(DatasetError):
        tune(squares, without, RK3588)
    assert tune(squares, without, RK3588, wish=Wish(cosine=0.99), bias_correction=False).report.reached


def test_biases_stay_where_they_are_not_to_be_corrected(squares: Quantized) -> None:
    tuned = tune(squares, SPLIT, RK3588, wish=Wish(cosine=0.99), bias_correction=False)
    assert tuned.models and all(not model.corrections.biases for model in tuned.models)


@pytest.mark.parametrize("stages", [["search"], ["trace errors", "search"]])
def test_cancelling_keeps_the_best_so_far(squares: Quantized, stages: Sequence[str]) -> None:
    told: list[str] = []
    left = {"search": 3, "trace errors": 1}

    def tell(stage: str, done: int, total: int) -> None:
        told.append(stage)

    def cancelled() -> bool:
        return any(told.count(stage) > left[stage] for stage in stages)

    tuned = tune(squares, SPLIT, RK3588, wish=Wish(cosine=1.0), progress=Progress(tell, cancelled))
    assert not tuned.report.complete and not tuned.report.reached
    assert tuned.report.base.cosine == 0.0
    assert len(tuned.models) == len(tuned.report.candidates)
    if stages == ["search"]:
        assert tuned.report.candidates[tuned.report.chosen].quality.cosine > 0.9


def test_cancelling_before_anything_is_known_raises(squares: Quantized) -> None:
    with pytest.raises(Cancelled):
        tune(squares, SPLIT, RK3588, progress=Progress(None, lambda: True))


def test_what_was_wished_for_before_stays(squares: Quantized) -> None:
    before = squares.changed(table=Table(squares.table.rows, {"f0": "float16", "y": "int8"}))
    tuned = tune(before, SPLIT, RK3588, wish=Wish(cosine=0.99))
    assert tuned.chosen is not None
    assert tuned.chosen.table.wishes["f0"] == "float16"
    assert tuned.chosen.table.wishes["y"] == "float16", "but not where the search found better"


@pytest.mark.parametrize("make", [branches, digits])
def test_it_goes_on_until_nothing_helps(make: Callable[[Path], Subject], tmp_path: Path) -> None:
    subject = make(tmp_path)
    samples = tuple(subject.samples)
    report = tune(subject.quantized, SampleSplit(samples, samples, samples), RK3588, wish=EVERYTHING).report
    assert not report.reached and report.complete
    best = report.candidates[report.chosen]
    assert best.quality.noise < report.base.noise / 5
    assert best.quality.noise == min(one.quality.noise for one in report.candidates)


BRANCHED = """
a = Conv <kernel_shape = [1, 1]> (x, w1)
b = Relu (a)
c = Conv <kernel_shape = [1, 1]> (b, w2)
d = Conv <kernel_shape = [1, 1]> (b, w3)
n = Neg (x)
k = ArgMax <axis = 1> (d)
y = Add (c, n)
"""


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    constants = {"w1": random(4, 3, 1, 1), "w2": random(3, 4, 1, 1), "w3": random(3, 4, 1, 1, seed=1)}
    proto = network({"x": (1, 3, 4, 4)}, BRANCHED, constants, ["y", "k"])
    return wished(built(tmp_path_factory.mktemp("branched"), proto, [[random(1, 3, 4, 4)]]))


def needed(quantized: Quantized, precision: str = "float16", noise: float = 1.0) -> dict[str, frozenset[str]]:
    """What it takes to be rid of each tensor's rounding: the smallest set without which its noise stays."""
    sources = error_sources(quantized)
    found = {}
    for index, source in enumerate(sources):
        noises = [(noise if other == index else 0.0,) for other in range(len(sources))]
        bundles = Bundles(quantized, precision, RK3588, sources, noises)
        fitting = [units for units in bundles.sets() if bundles.noise(units) == 0.0]
        found[f"{source.source.kind} {source.source.name}"] = min(fitting, key=len, default=frozenset())
    return found


def test_a_rounding_is_gone_with_all_that_make_and_read_the_tensor(branched: Quantized) -> None:
    layers = {layer.name for layer in branched.layers}
    assert {"b", "d", "n", "y", "k"} <= layers
    found = needed(branched)
    assert found["tensor x"] == {"x", "b", "n"}
    assert found["tensor b"] == {"b", "y", "d"}
    assert found["tensor d"] == {"d"}, "a layer of integers reads what there is"
    assert found["tensor y"] == {"y"}
    assert found["weights b"] == {"b"}


def test_what_overflows_float16_is_not_wished_into_it(branched: Quantized) -> None:
    row = branched.table.rows["b"]
    wide = dataclasses.replace(row, max=1e5, scale=1e5 / 255)
    quantized = branched.changed(table=Table({**branched.table.rows, "b": wide}, {}))
    found = needed(quantized)
    assert not found["tensor b"] and not found["weights b"]
    assert found["tensor y"] == {"y"}
    assert needed(quantized, "int16")["weights b"] == {"b"}


def test_remedies_are_further_sets(branched: Quantized) -> None:
    bundles = Bundles(branched, "float16", RK3588)
    remedies: list[Mapping[str, str]] = [{"n": "float16", "x": "float16"}, {"k": "float16"}, {}]
    assert bundles.sets(remedies) == [frozenset({"n", "x"})]
    assert bundles.wishes(frozenset({"n", "x"})) == {"x": "float16", "n": "float16"}
    assert bundles.layers(frozenset({"n", "x"})) == ("n",)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20, 100])
def test_samples_are_shared_out_by_purpose(count: int) -> None:
    samples = [{"x": np.array([index])} for index in range(count)]
    split = SampleSplit.of(samples)
    search, correction, judge = (
        {int(sample["x"][0]) for sample in group} for group in (split.search, split.correction, split.judge)
    )
    assert search and correction and judge
    assert max(len(search), len(correction), len(judge)) <= 8
    if count >= 4:
        assert judge.isdisjoint(search | correction)
    if count >= 20:
        assert search.isdisjoint(correction)
    assert len(SampleSplit.of(samples, 1).search) == 1


DETECTOR = FOLDER / "onnx" / "ch_PP-OCRv4_det_infer" / "ch_PP-OCRv4_det_infer.onnx"


@pytest.mark.slow
@needs_zoo
def test_a_text_detector_reaches_three_nines_with_few_layers(tmp_path: Path) -> None:
    photos = sorted((FOLDER / "photos").glob("*.jpg"))
    dataset, others = tmp_path / "calibration.txt", tmp_path / "others.txt"
    dataset.write_text("".join(f"{photo}\n" for photo in photos[:10]))
    others.write_text("".join(f"{photo}\n" for photo in photos[10:]))
    session = Session(Config(mean_values=((127.5,) * 3,), std_values=((127.5,) * 3,)))
    session.load_onnx(DETECTOR, ["x"], [[1, 3, 480, 480]], ["p2o.Add.281"])
    session.build(dataset=dataset)
    learned, judged = samples_of(session, dataset, 8), samples_of(session, others, 6)
    split = SampleSplit(learned[:4], learned[4:], judged)
    report = tune(wished(session), split, RK3588, wish=Wish(cosine=0.9994, layers=8)).report
    chosen = report.candidates[report.chosen]
    assert report.reached and len(chosen.layers) <= 8 and chosen.quality.cosine >= 0.9994
