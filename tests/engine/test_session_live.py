"""A live session takes edits by value: any order of them ends where a fresh build would, and nothing is half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Cancelled, EngineError, InputError, OrderError, QuantizationError
from engine.quantization.edits import Edits, edited, layer_wishes
from engine.quantization.traffic import in_words, traffic
from engine.session_live import LiveSession
from engine.summaries import ErrorPair, LiveState
from tests.engine.live_bench import Bench, bench_in, counting, parameters
from tests.engine.tuning.changing_networks import edits_of
from tests.small_networks import built, network, random


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("live"))


@pytest.fixture
def bench(kept: Bench) -> Bench:
    """The same files, with a session that nothing was asked of."""
    return Bench(kept.folder, kept.fresh())


class Seen:
    """What the app knows after some answers: each tells what is new."""

    def __init__(self, first: LiveState) -> None:
        self.precisions: dict[str, str] = {}
        self.words: dict[str, str] = {}
        self.errors: dict[str, ErrorPair] = {}
        self.take(first)

    def take(self, state: LiveState) -> None:
        self.precisions.update(state.precisions)
        self.words.update(state.words)
        self.errors.update(state.errors)
        self.quality = state.quality

    @property
    def all(self) -> Any:
        return self.precisions, self.words, self.errors, self.quality


# Edits


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_edits_in_any_order_end_where_a_fresh_build_with_them_would(kept: Bench, data: st.DataObject) -> None:
    session, base = kept.session, kept.base
    session.apply({}, {})
    seen = Seen(session.live_start(kept.sample))
    done = [Edits()]
    for _ in range(data.draw(st.integers(1, 4))):
        done.append(data.draw(st.one_of(edits_of(base), st.sampled_from(done))))
        state = session.apply(*parameters(done[-1]), errors=data.draw(st.booleans()), whole=False)
        expected = edited(base, done[-1], session.config.target)
        assert state.quality == kept.judged(expected).quality
        assert state.wishes == expected.table.wishes == session.table.wishes
        seen.take(state)
    seen.take(session.apply(*parameters(done[-1]), whole=False))
    anew = kept.judged(expected)
    found = traffic(expected)
    assert seen.quality == anew.quality
    assert seen.errors == {name: pair for name, pair in anew.errors().items() if name in found}
    assert seen.precisions == {name: one.computes for name, one in found.items()}
    assert seen.words == {name: in_words(name, found) if one.converted else "" for name, one in found.items()}


def test_undo_gives_back_the_very_same_numbers(bench: Bench) -> None:
    seen = Seen(bench.session.live_start(bench.sample))
    seen.take(bench.session.apply({"m": "int16"}, {"j": [-1.0, 2.0]}))
    before = [dict(part) if isinstance(part, dict) else part for part in seen.all]
    seen.take(bench.session.apply({"x": "float16", "act": "float16"}, {}))
    assert list(seen.all) != before
    seen.take(bench.session.apply({"m": "int16"}, {"j": [-1.0, 2.0]}))
    assert list(seen.all) == before


def test_without_live_evaluation_precisions_and_time_are_told_at_once(bench: Bench) -> None:
    first = bench.session.apply({}, {})
    assert list(first.precisions) == [layer.name for layer in bench.session.summary().layers]
    assert (first.extra, first.quality, first.errors, first.changed) == (0.0, None, {}, ())
    state = bench.session.apply({"hs": "float16"}, {})
    assert state.precisions == {"hs": "float16"}
    assert state.extra > 0.0
    assert "computes in float16" in state.words["hs"]
    assert bench.session.apply({"hs": "float16"}, {}).precisions == {}


def test_what_the_app_shows_agrees_with_the_summary(bench: Bench) -> None:
    seen = Seen(bench.session.apply({}, {}))
    seen.take(bench.session.apply({"r": "float16", "q": "int16", "side": "float16"}, {}, whole=False))
    assert seen.precisions == {layer.name: layer.precision for layer in bench.session.summary().layers}


@pytest.mark.parametrize(
    ("wishes", "ranges", "says"),
    [
        ({"score": "float16"}, {}, "'scores'"),
        ({"m": "float32"}, {}, "float32"),
        ({}, {"jj": [0.0, 1.0]}, "'j'"),
        ({}, {"j": [2.0, 1.0]}, "above max"),
        ({}, {"j": [float("nan"), 1.0]}, "not finite"),
        ({}, {"w1": [0.0, 1.0]}, "no such row"),
    ],
)
def test_a_refused_edit_changes_nothing(wishes: Any, ranges: Any, says: str, bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    before = session.apply({"m": "int16"}, {"j": [-1.0, 1.0]})
    reading, text = session.edits(), session.cfg_text()
    with pytest.raises(QuantizationError, match=says):
        session.apply(wishes, ranges)
    assert (session.edits(), session.cfg_text()) == (reading, text)
    after = session.apply({"m": "int16"}, {"j": [-1.0, 1.0]})
    assert (after.quality, after.changed, after.precisions) == (before.quality, (), {})


@pytest.mark.parametrize(
    ("wishes", "ranges"),
    [([], {}), ({"m": 1}, {}), ({}, {"j": 1.0}), ({}, {"j": [1.0]}), ({}, {"j": ["a", "b"]}), ({}, {"j": "ab"})],
)
def test_edits_of_another_shape_are_refused(wishes: Any, ranges: Any, bench: Bench) -> None:
    with pytest.raises(InputError):
        bench.session.apply(wishes, ranges)


@pytest.mark.parametrize("after", [1, 4, 12])
def test_a_cancelled_edit_changes_nothing_and_live_evaluation_goes_on(after: int, bench: Bench) -> None:
    session = bench.session
    first = session.live_start(bench.sample)
    with pytest.raises(Cancelled):
        session.apply({"x": "float16"}, {}, progress=counting(after))
    assert session.edits().wishes == {}
    assert session.apply({}, {}).quality == first.quality
    expected = edited(bench.base, Edits({"scores": "int16"}), session.config.target)
    assert session.apply({"scores": "int16"}, {}).quality == bench.judged(expected).quality


def test_an_edit_of_a_range_to_what_it_was_is_none(bench: Bench) -> None:
    row = bench.base.table.rows["j"]
    bench.session.apply({}, {"j": [row.min, row.max]})
    assert bench.session.table.rows["j"] is row
    assert bench.session.edits().ranges == {}


def test_edits_of_what_is_not_quantized_are_refused(kept: Bench) -> None:
    session = LiveSession()
    with pytest.raises(OrderError):
        session.apply({}, {})
    session.load(kept.folder / "model.onnx")
    session.build(do_quantization=False)
    with pytest.raises(OrderError, match="float16 build"):
        session.apply({}, {})


def test_the_edited_model_is_what_the_session_runs_exports_and_analyses(bench: Bench, tmp_path: Path) -> None:
    session = bench.session
    state = session.live_start(bench.sample)
    state = session.apply({"act": "float16", "scores": "int16"}, {"j": [-1.0, 2.0]})
    assert session.analyze(bench.sample).quality == state.quality
    session.export(tmp_path / "model.rknn")
    package = LiveSession()
    package.load(tmp_path / "model.rknn")
    assert package.edits().wishes == session.edits().wishes == state.wishes
    assert package.live_start(bench.sample).quality == state.quality


def test_a_package_s_own_wishes_are_edits_like_others(bench: Bench, tmp_path: Path) -> None:
    plain = bench.session.live_start(bench.sample).quality
    bench.session.apply({"act": "float16"}, {})
    bench.session.export(tmp_path / "model.rknn")
    session = LiveSession()
    session.load(tmp_path / "model.rknn")
    assert session.apply(session.edits().wishes, {}, whole=False).extra == 0.0
    session.live_start(bench.sample)
    state = session.apply({}, {})
    assert (state.quality, state.wishes) == (plain, {})
    assert state.extra < 0.0


def test_a_build_for_several_samples_at_once_is_edited_for_each_of_them(tmp_path: Path) -> None:
    body = "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)\nr = Relu (c)\ny = Sigmoid (r)"
    proto = network({"x": (1, 3, 8, 8)}, body, {"w": random(4, 3, 3, 3)})
    built(tmp_path, proto, [(random(1, 3, 8, 8),)])
    session = LiveSession()
    session.load(tmp_path / "model.onnx")
    x = random(2, 3, 8, 8, seed=1)
    found = {}
    for batch in (1, 2):
        session.build(dataset=tmp_path / "dataset.txt", rknn_batch_size=batch)
        plain = session.infer([x[:batch]], data_format="nchw")[0]
        session.apply({"r": "float16", "y": "float16"}, {})
        found[batch] = session.infer([x[:batch]], data_format="nchw")[0]
        assert not np.array_equal(found[batch], plain)
    assert np.array_equal(found[2][:1], found[1])


# Layers of several tensors


def test_wishing_a_layer_s_outputs_puts_all_of_it_into_the_precision(bench: Bench) -> None:
    base = bench.base
    for layer in base.layers:
        lines = layer_wishes(layer, base.table, "float16")
        wishes = {name: "float16" for name in layer.outputs if name in base.table.rows}
        state = bench.session.apply(wishes, {})
        assert state.wishes == lines
        assert bench.session.apply({}, {}).wishes == {}


def test_the_lines_of_a_layer_are_told_with_the_first_answer(bench: Bench) -> None:
    lines = bench.session.apply({}, {}).lines
    assert lines["ar"] == ("a", "ar")
    assert lines["x"] == ("x",)
    assert lines["best"] == ()
    assert bench.session.apply({}, {}).lines == {}
    assert bench.session.live_start(bench.sample).lines == lines


def test_another_wish_for_an_output_takes_the_tensors_within_along(bench: Bench) -> None:
    whole = bench.session.apply({"ar": "float16"}, {}).wishes
    assert whole == {"a": "float16", "ar": "float16"}
    assert bench.session.apply({**whole, "ar": "int16"}, {}).wishes == {"a": "int16", "ar": "int16"}
    without = {name: wish for name, wish in whole.items() if name != "ar"}
    bench.session.apply(whole, {})
    assert bench.session.apply(without, {}).wishes == {}


def test_a_layer_that_a_person_parted_stays_so(bench: Bench) -> None:
    parted = {"a": "float16", "ar": "int8"}
    assert bench.session.apply(parted, {}).wishes == parted
    assert bench.session.apply({**parted, "hs": "float16"}, {}).wishes["a"] == "float16"
    assert bench.session.apply({"ar": "float16"}, {}, whole=False).wishes == {"ar": "float16"}
    assert bench.session.summary().layers[2].precision == "int8+float16"


# The life of a session


@pytest.mark.parametrize("way", ["build", "load", "release"])
def test_another_model_ends_live_evaluation(way: str, bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    if way == "build":
        session.build(dataset=bench.dataset)
    elif way == "load":
        session.load(bench.folder / "model.onnx")
        session.build(dataset=bench.dataset)
    else:
        session.release()
        with pytest.raises(OrderError):
            session.apply({}, {})
        return
    state = session.apply({"m": "int16"}, {})
    assert state.quality is None
    assert len(state.precisions) == len(session.summary().layers)


def test_a_sample_that_cannot_be_read_leaves_live_evaluation_as_it_was(bench: Bench) -> None:
    session = bench.session
    quality = session.live_start(bench.sample).quality
    with pytest.raises(EngineError, match="nothing"):
        session.live_start(["nothing.npy", bench.sample[1]])
    with pytest.raises(Cancelled):
        session.live_start(bench.sample, progress=counting(3))
    assert session.apply({}, {}).quality == quality
    session.live_stop()
    assert session.apply({}, {}).quality is None
