"""Live evaluation runs what a change reaches, and gives what a model built anew gives, to the last bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.analysis.accuracy import analyze
from engine.analysis.judging import Judge
from engine.errors import Cancelled, InputError, QuantizationError
from engine.progress import Progress
from engine.quantization.edits import Edits
from engine.simulator.stepwise import Stepwise
from engine.summaries import ErrorPair
from engine.targets import find_target
from engine.tuning.live import Live
from tests.engine.tuning.changing_networks import (
    Subject,
    between,
    branches,
    classifier,
    digits,
    edits_of,
    quantized_of,
    rebuilt,
    tokens,
)
from tests.small_networks import built, network, random
from tests.zoo import needs_zoo

RK3588 = find_target("rk3588")
NO_EDITS = Edits()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return branches(tmp_path_factory.mktemp("branches"))


@pytest.fixture()
def live(small: Subject) -> Live:
    return Live(small.quantized, small.samples, RK3588)


@pytest.fixture(
    scope="module",
    params=[
        branches,
        tokens,
        digits,
        pytest.param(classifier, marks=[pytest.mark.slow, needs_zoo]),
    ],
    ids=lambda make: make.__name__,
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    make: Callable[[Path], Subject] = request.param
    return make(tmp_path_factory.mktemp(make.__name__))


def check_equals_rebuilt(live: Live, subject: Subject) -> None:
    for index, sample in enumerate(subject.samples):
        for name, expected in rebuilt(live.quantized, sample).items():
            assert np.array_equal(live.value(index, name), expected, equal_nan=expected.dtype.kind == "f"), name


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_changes_and_undos_give_what_a_model_built_anew_gives(subject: Subject, data: st.DataObject) -> None:
    live = Live(subject.quantized, subject.samples, RK3588)
    done = [NO_EDITS]
    for _ in range(data.draw(st.integers(1, 4))):
        done.append(data.draw(st.one_of(edits_of(subject.quantized), st.sampled_from(done))))
        report = live.apply(done[-1])
        check_equals_rebuilt(live, subject)
        live.errors(data.draw(st.lists(st.sampled_from(between(subject.quantized)), max_size=3)))
        assert report.quality == Judge(subject.quantized, subject.samples).run(live.quantized)
    anew = Live(live.quantized, subject.samples, RK3588)
    assert live.errors() == anew.errors()
    assert live.quality == anew.quality


def test_the_float_model_is_what_one_session_of_it_gives(subject: Subject) -> None:
    stepwise = Stepwise(subject.quantized, subject.samples, only=frozenset())
    for index, sample in enumerate(subject.samples):
        for name, expected in rebuilt(subject.quantized, sample, frozenset()).items():
            assert np.array_equal(stepwise.value(index, name), expected), name


def test_errors_are_those_of_the_accuracy_report(subject: Subject) -> None:
    live = Live(subject.quantized, subject.samples[:1], RK3588)
    live.apply(Edits({name: "float16" for layer in subject.quantized.layers[2:4] for name in layer.outputs}))
    report = analyze(live.quantized, subject.samples[0])
    expected = {line.name: line.entire for line in report.layers if line.entire is not None}
    found = live.errors()
    assert list(found) == list(expected)
    for name, pair in expected.items():
        assert found[name].cosine == pytest.approx(pair.cosine, abs=2e-6), name
        assert found[name].euclidean == pytest.approx(pair.euclidean, rel=1e-4, abs=1e-6), name


def test_only_what_lies_downstream_runs(live: Live) -> None:
    assert live.apply(Edits({"scores": "int16"})).changed == ("scores", "z", "best")
    # `j` is read by four layers, and its range follows into none of those before it.
    changed = live.apply(Edits(ranges={"e": (-1.0, 3.0)})).changed
    assert changed[:2] == ("e", "j") and "q" not in changed
    assert live.apply(Edits(ranges={"e": (-1.0, 3.0)})).changed == ()


def test_errors_change_downstream_only(live: Live) -> None:
    before = live.errors()
    live.apply(Edits({"hs": "float16", "y": "float16"}))
    after = live.errors()
    assert after.pop("hs") != before.pop("hs")
    assert after == before


def test_a_higher_precision_brings_the_output_nearer(live: Live, small: Subject) -> None:
    tensors = [n for n in small.quantized.makers if n in small.quantized.table.rows]
    before = live.quality
    report = live.apply(Edits({**dict.fromkeys(tensors, "float16"), "x": "float16", "side": "float16"}))
    assert report.quality.noise < before.noise / 100
    assert live.quality == report.quality
    assert live.reset().quality == before


def test_edits_replace_each_other(live: Live, small: Subject) -> None:
    live.apply(Edits({"hs": "float16"}, {"j": (-1.0, 1.0)}))
    live.apply(Edits({"m": "int16"}))
    assert live.quantized.table.wishes == {"m": "int16"}
    assert live.quantized.table.rows == small.quantized.table.rows


def test_a_bad_edit_changes_nothing(live: Live) -> None:
    live.apply(Edits({"m": "int16"}))
    quantized, quality, errors = live.quantized, live.quality, live.errors()
    for bad in (Edits({"sums": "float16"}), Edits({"m": "float32"}), Edits(ranges={"j": (2.0, 1.0)})):
        with pytest.raises(QuantizationError):
            live.apply(bad)
    assert (live.quantized, live.quality, live.errors()) == (quantized, quality, errors)


@pytest.mark.parametrize("after", [1, 3, 12])
def test_a_cancelled_change_changes_nothing(after: int, live: Live, small: Subject) -> None:
    live.apply(Edits({"m": "int16"}))
    quality, errors = live.quality, live.errors()
    questions = iter(range(1000))
    with pytest.raises(Cancelled):
        live.apply(Edits({"x": "float16"}), Progress(cancelled=lambda: next(questions) >= after))
    assert live.quantized.table.wishes == {"m": "int16"}
    assert live.quality == quality
    assert live.errors() == errors
    check_equals_rebuilt(live, small)
    live.apply(Edits({"x": "float16"}))
    check_equals_rebuilt(live, small)


def test_after_a_cancelled_change_another_one_counts_at_once(live: Live, small: Subject) -> None:
    questions = iter(range(1000))
    with pytest.raises(Cancelled):
        live.apply(Edits({"x": "float16"}), Progress(cancelled=lambda: next(questions) >= 30))
    report = live.apply(Edits({"scores": "int16"}))
    assert "ar" in report.changed
    check_equals_rebuilt(live, small)


def test_another_quantization_of_the_graph_can_be_taken(live: Live, small: Subject) -> None:
    live.apply(Edits({"m": "int16"}))
    biases = {"a": random(8, seed=5), "r": random(8, seed=6)}
    corrected = small.quantized.changed(biases=biases)
    assert "act" in live.take(corrected).changed
    check_equals_rebuilt(live, small)
    live.apply(Edits({"hs": "float16"}))
    assert live.quantized.corrections.biases == biases
    check_equals_rebuilt(live, small)
    assert live.reset().quality == Live(corrected, small.samples, RK3588).quality


def test_other_weights_can_be_taken(live: Live, small: Subject) -> None:
    for seed in (7, 8):
        corrections = dataclasses.replace(
            small.quantized.corrections, weights={"a": random(8, 3, 3, 3, seed=seed), "y": random(5, 20, 1, 1)}
        )
        live.take(dataclasses.replace(small.quantized, corrections=corrections))
        check_equals_rebuilt(live, small)


def test_weights_by_layer_can_be_taken_after_those_by_channel(live: Live, small: Subject) -> None:
    live.take(dataclasses.replace(small.quantized, method="layer"))
    check_equals_rebuilt(live, small)


def test_another_graph_is_refused(live: Live, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="another graph"):
        live.take(branches(tmp_path).quantized)


def test_unknown_layers_are_refused_with_a_hint(live: Live) -> None:
    with pytest.raises(QuantizationError, match="'scores'"):
        live.errors(["score"])


def test_layers_of_integers_have_no_errors(live: Live) -> None:
    assert list(live.errors(["best", "z"])) == ["z"]


def test_samples_that_do_not_fit_are_refused(small: Subject) -> None:
    sample = dict(small.samples[0])
    with pytest.raises(InputError, match="sample"):
        Live(small.quantized, [], RK3588)
    with pytest.raises(InputError, match="'side'"):
        Live(small.quantized, [{"x": sample["x"]}], RK3588)
    with pytest.raises(InputError, match="'x'"):
        Live(small.quantized, [{**sample, "x": sample["x"][:, :, 1:]}], RK3588)


def test_samples_may_lie_in_memory_in_any_way(small: Subject, live: Live) -> None:
    turned = [{name: np.asfortranarray(array) for name, array in sample.items()} for sample in small.samples]
    assert Live(small.quantized, turned, RK3588).quality == live.quality


def test_values_beyond_float32_squares_have_errors(tmp_path: Path) -> None:
    mask = np.where(np.arange(8) < 6, 0, -3e38).astype(np.float32)
    proto = network({"x": (1, 8)}, "m = Add (x, mask)\ny = Softmax <axis = -1> (m)", {"mask": mask})
    samples = [(random(1, 8, seed=seed),) for seed in (1, 2)]
    session = built(tmp_path, proto, samples)
    live = Live(quantized_of(session), [{"x": samples[0][0]}], RK3588)
    assert 0.99 < live.errors()["m"].cosine <= 1.0
    # float16 ends at 65504.
    live.apply(Edits({"m": "float16"}))
    assert live.errors()["m"] == ErrorPair(0.0, np.inf)
    live.reset()
    assert live.errors()["m"].cosine > 0.99
