"""What a live session tells of a layer, and searches beside it, leave it as it is and find what they find alone."""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any

import numpy as np
import pytest

from engine.errors import Cancelled, QuantizationError
from engine.progress import Progress
from engine.quantization.edits import Edits, edited
from tests.engine.live_bench import SAMPLES, Bench, bench_in, counting, searched


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("live"))


@pytest.fixture
def bench(kept: Bench) -> Bench:
    """The same files, with a session that nothing was asked of."""
    return Bench(kept.folder, kept.fresh())


# One layer


def test_other_precisions_of_a_layer_are_measured_and_nothing_stays_of_it(bench: Bench) -> None:
    session, edits = bench.session, ({"m": "int16", "act": "float16"}, {"j": [-1.0, 2.0]})
    session.live_start(bench.sample)
    before = session.apply(*edits, whole=False)
    asked = {name: session.alternatives(name) for name in ("ar", "act", "x", "best")}
    again = session.apply(*edits, whole=False)
    assert (again.quality, again.changed, again.precisions, again.errors) == (before.quality, (), {}, {})
    assert [one.precision for one in asked["best"]] == [""]
    assert [one.precision for one in asked["ar"]] == ["", *session.config.target.precisions]
    for name, alternatives in asked.items():
        facts = session.layer_facts(name)
        assert [(one.precision, one.extra) for one in facts.alternatives] == [
            (one.precision, one.extra) for one in alternatives
        ]
        lines = session.live_start(bench.sample).lines[name]
        others = {tensor: wish for tensor, wish in edits[0].items() if tensor not in lines}
        for one in alternatives:
            state = session.apply(
                {**others, **(dict.fromkeys(lines, one.precision) if one.precision else {})}, edits[1], whole=False
            )
            assert (state.quality, state.extra) == (one.quality, one.extra)
        session.apply(*edits, whole=False)


@pytest.mark.parametrize("after", [1, 3, 6, 20])
def test_measuring_other_precisions_can_be_cancelled(after: int, bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    before = session.apply({"m": "int16"}, {})
    errors = session._errors(["ar", "hs"])
    with pytest.raises(Cancelled):
        session.alternatives("ar", progress=counting(after))
    again = session.apply({"m": "int16"}, {})
    assert (again.quality, again.changed) == (before.quality, ())
    assert session._errors(["ar", "hs"]) == errors


def test_without_live_evaluation_alternatives_tell_their_time_only(bench: Bench) -> None:
    alternatives = bench.session.alternatives("hs")
    assert [one.quality for one in alternatives] == [None] * len(alternatives)
    assert alternatives[0].extra == 0.0 < alternatives[-1].extra


def test_facts_of_a_layer_tell_its_tensors(bench: Bench) -> None:
    session = bench.session
    facts = session.layer_facts("j")
    assert [one.name for one in facts.reads] == ["p", "e", "side"]
    (joined,) = facts.makes
    row = session.table.rows["j"]
    assert (joined.stored, joined.shape, joined.row) == ("int8", (1, 20, 4, 4), "j")
    assert (joined.low, joined.high, joined.scale, joined.zero_point) == (row.min, row.max, row.scale, row.zero_point)
    assert (joined.seen_low, joined.seen_high) == (row.ori_min, row.ori_max)
    assert joined.counts == ()
    # A model input goes by the row of its quantized copy.
    (side,) = session.layer_facts("side").makes
    assert (side.row, side.stored) == ("side_int8", "int8")
    assert session.layer_facts("side").reads == ()
    (best,) = session.layer_facts("best").makes
    assert (best.stored, best.row, best.scale) == ("", "", None) and math.isnan(best.low)
    with pytest.raises(QuantizationError, match="'scores'"):
        session.layer_facts("score")


def test_facts_follow_the_edits(bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    session.apply({"m": "float16"}, {"j": [0.0, 0.5]})
    (joined,) = session.layer_facts("j").makes
    golden = session._live.golden("j") if session._live is not None else np.zeros(1)
    assert (joined.low, joined.high) == (0.0, 0.5)
    assert joined.outside == pytest.approx(float(np.mean((golden < 0.0) | (golden > 0.5))), abs=1e-12)
    assert (joined.first, joined.last) == (golden.min(), golden.max())
    assert sum(joined.counts) == golden.size
    assert list(joined.counts) == list(np.histogram(golden, 32)[0])
    (product,) = session.layer_facts("m").makes
    assert (product.stored, product.scale) == ("float16", None)


def test_without_live_evaluation_a_histogram_is_that_of_the_calibration(kept: Bench) -> None:
    session = kept.fresh(quantized_algorithm="kl_divergence")
    (joined,) = session.layer_facts("j").makes
    assert len(joined.counts) == 32 and sum(joined.counts) == SAMPLES * 20 * 4 * 4
    assert (joined.first, joined.last) == (joined.seen_low, joined.seen_high)
    assert 0.0 <= joined.outside < 0.1
    session.apply({}, {"j": [0.0, 0.01]})
    assert session.layer_facts("j").makes[0].outside > 0.3


# Searches beside


def test_a_candidate_comes_with_the_biases_that_were_corrected_for_it(bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    session.apply({"m": "int16"}, {})
    run = session.tune_run(bench.dataset, layers=3)
    for index, candidate in enumerate(run.report.candidates):
        state = session.apply({"m": "int16", **candidate.wishes}, {}, f"{run.number}.{index}", whole=False)
        assert session._tuned is not None
        assert state.quality == bench.judged(session._tuned.models[index]).quality
    assert (
        session.apply({"m": "int16"}, {}).quality
        == bench.judged(edited(bench.base, Edits({"m": "int16"}), session.config.target)).quality
    )
    assert session.tune_run(bench.dataset, layers=1).number == 2


def test_biases_of_another_build_are_refused(bench: Bench) -> None:
    session = bench.session
    wishes = searched(bench)
    session.apply(wishes, {}, "1.0")
    with pytest.raises(QuantizationError, match=r"'1\.99'"):
        session.apply(wishes, {}, "1.99")
    session.build(dataset=bench.dataset)
    with pytest.raises(QuantizationError, match="search again"):
        session.apply(wishes, {}, "1.0")
    assert session.tune_run(bench.dataset, layers=1).number == 1


def test_a_search_goes_by_the_model_as_it_was_when_it_was_asked_for(bench: Bench) -> None:
    session = bench.session
    session.apply({"m": "float16"}, {})
    aside = session.aside()
    session.apply({}, {})
    assert aside.table.wishes == {"m": "float16"} and session.table.wishes == {}
    wishes = {**aside.edits().wishes, **aside.tune_run(bench.dataset, layers=1).report.candidates[0].wishes}
    assert session.apply(wishes, {}, "1.0").wishes == wishes


def test_a_search_that_ends_after_another_build_is_told_and_its_biases_are_gone(bench: Bench) -> None:
    aside = bench.session.aside()
    bench.session.build(dataset=bench.dataset)
    bench.session.apply({}, {})
    run = aside.tune_run(bench.dataset, layers=1)
    assert run.number == 1 and run.report.candidates
    with pytest.raises(QuantizationError, match="search again"):
        bench.session.apply(run.report.candidates[0].wishes, {}, "1.0")


def test_edits_while_a_search_runs_give_what_they_give_alone_and_so_does_the_search(bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    steps = [
        ({"act": "float16"}, {}),
        ({"m": "int16"}, {"j": [-1.0, 2.0]}),
        ({"x": "float16", "r": "int16"}, {}),
        ({}, {}),
    ]
    alone = [session.apply(*step) for step in steps]
    facts = session.layer_facts("j")
    expected = session.aside().tune_run(bench.dataset, layers=3).report
    started, ended = threading.Event(), threading.Event()
    found: list[Any] = []

    def search() -> None:
        def heard(stage: str, done: int, total: int) -> None:
            started.set()

        try:
            for _ in range(2):
                found.append(aside.tune_run(bench.dataset, layers=3, progress=Progress(heard)).report)
            found.append(aside.trace(bench.sample))
            found.append(aside.findings(bench.dataset, bench.sample))
        finally:
            ended.set()

    aside = session.aside()
    thread = threading.Thread(target=search)
    thread.start()
    assert started.wait(60)
    rounds = 0
    while not ended.is_set() or rounds < 2:
        for step, before in zip(steps, alone, strict=True):
            state = session.apply(*step)
            assert (state.quality, state.changed) == (before.quality, before.changed) if rounds else True
            assert state.quality == before.quality
            assert {name: before.errors[name] for name in state.errors if name in before.errors} == {
                name: pair for name, pair in state.errors.items() if name in before.errors
            }
        assert session.layer_facts("j") == facts
        rounds += 1
    thread.join()
    for report in found[:2]:
        assert dataclasses.replace(report, seconds=0.0) == dataclasses.replace(expected, seconds=0.0)
    assert found[2].total == session.trace(bench.sample).total
    assert found[3] == session.findings(bench.dataset, bench.sample)
