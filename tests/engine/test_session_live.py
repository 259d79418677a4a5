"""A live session takes edits by value: any order of them ends where a fresh build would, and nothing is half done."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Config
from engine.errors import Cancelled, FileError, InputError, OrderError, QuantizationError
from engine.progress import Progress
from engine.quantization.edits import Edits, edited, layer_wishes
from engine.quantization.quantized import Quantized
from engine.quantization.traffic import in_words, traffic
from engine.session_live import LiveSession
from engine.summaries import ErrorPair, LiveState
from engine.tuning.live import Live
from tests.engine.tuning.changing_networks import BRANCH_CONSTANTS, BRANCHES, edits_of
from tests.small_networks import built, network, random

SAMPLES = 6


@dataclasses.dataclass
class Bench:
    """A folder with the model of many branches, its samples and a session with it."""

    folder: Path
    session: LiveSession

    @property
    def dataset(self) -> str:
        return str(self.folder / "dataset.txt")

    @property
    def sample(self) -> list[str]:
        return [str(self.folder / f"sample-0-{position}.npy") for position in range(2)]

    @property
    def base(self) -> Quantized:
        return self.session._current().built.single

    def fresh(self, **settings: Any) -> LiveSession:
        session = LiveSession(Config.from_mapping({"target_platform": "rk3588", **settings}))
        session.load(self.folder / "model.onnx")
        session.build(dataset=self.dataset)
        return session

    def judged(self, model: Quantized) -> Live:
        """The model as it is evaluated anew."""
        return Live(model, [self.session._sample(self.sample, self.session.config)], self.session.config.target)


def bench_in(folder: Path) -> Bench:
    proto = network(
        {"x": (1, 3, 8, 8), "side": (1, 4, 4, 4)},
        BRANCHES,
        BRANCH_CONSTANTS,
        ["hs", "z", "best", "mean", "side", "ar"],
    )
    samples = [(random(1, 3, 8, 8, seed=seed), random(1, 4, 4, 4, seed=seed)) for seed in range(SAMPLES)]
    built(folder, proto, samples)
    bench = Bench(folder, LiveSession())
    bench.session = bench.fresh()
    return bench


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


def parameters(edits: Edits) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Edits as they come over the border."""
    return dict(edits.wishes), {row: list(ends) for row, ends in edits.ranges.items()}


def counting(after: int) -> Progress:
    """Cancelled once it was asked so many times."""
    questions = iter(range(10**6))
    return Progress(cancelled=lambda: next(questions) >= after)


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


# A cfg's text


def test_the_text_says_what_the_edits_are(bench: Bench) -> None:
    session = bench.session
    state = session.apply({"act": "float16", "m": "int16"}, {"j": [-1.0, 2.5]})
    reading = session.cfg_read(session.cfg_text())
    assert (reading.wishes, reading.ranges, reading.faults) == (state.wishes, {"j": (-1.0, 2.5)}, ())
    assert session.edits() == reading


def test_writing_edits_into_a_text_leaves_the_rest_as_it_is(bench: Bench) -> None:
    session = bench.session
    lines = session.cfg_text().splitlines()
    lines[lines.index("custom_quantize_layers: {}")] = "custom_quantize_layers:  # mine\n    m: int16   # the product"
    text = "# by hand\n" + "\n".join(lines) + "\n# the end\n"
    changed = session.cfg_write(text, {"m": "float16", "hs": "float16"}, {"j": [-1.0, 2.5]})
    reading = session.cfg_read(changed)
    assert (reading.wishes, reading.ranges) == ({"m": "float16", "hs": "float16"}, {"j": (-1.0, 2.5)})
    for comment in ("# by hand", "# mine", "# the product", "# the end"):
        assert comment in changed
    assert session.cfg_write(changed, {"m": "int16"}, {}) == text


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_edits_survive_being_written_and_read(kept: Bench, data: st.DataObject) -> None:
    text = kept.session.cfg_text()
    for _ in range(2):
        edits = data.draw(edits_of(kept.base))
        text = kept.session.cfg_write(text, *parameters(edits))
        anew = kept.fresh().cfg_read(text) if data.draw(st.booleans()) else kept.session.cfg_read(text)
        rows = kept.base.table.rows
        other = {row: ends for row, ends in edits.ranges.items() if ends != (rows[row].min, rows[row].max)}
        assert (anew.wishes, anew.ranges, anew.faults) == (edits.wishes, other, ())


def test_faults_tell_their_lines_and_what_to_do(bench: Bench) -> None:
    text = bench.session.cfg_text().replace(
        "custom_quantize_layers: {}", "custom_quantize_layers:\n    score: float16\n    m: float32\n    hs: float16"
    )
    lines = text.splitlines()
    at = lines.index("    j:")
    place = next(index for index in range(at, len(lines)) if lines[index] == "        min:")
    lines[place + 1] = "        -   low"
    reading = bench.session.cfg_read("\n".join(lines))
    first = lines.index("    score: float16") + 1
    assert [(fault.line, fault.column) for fault in reading.faults] == [(first, 5), (first + 1, 8), (place + 2, 9)]
    assert reading.faults[0].message == (
        "'score': the model has no such tensor (did you mean 'scores' or 'scores_conv'?)"
    )
    assert "use int8" in reading.faults[1].message
    assert "list of one number" in reading.faults[2].message
    assert reading.wishes == {"hs": "float16"}


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("custom_quantize_layers:\n    m: [float16\n", 3, 1),
        ("- a\n", 1, 1),
        ("a: *b\n", 1, 4),
        ("a: \x00", 1, 4),
        ("é: 1\nb: \x07\n", 2, 4),
        ("a: \ud800\n", 1, 4),
        ("[" * 100, 1, 9),
        ("", 1, 1),
    ],
)
def test_a_text_that_is_no_cfg_has_one_fault_where_it_is(text: str, line: int, column: int, bench: Bench) -> None:
    reading = bench.session.cfg_read(text)
    assert [(fault.line, fault.column) for fault in reading.faults] == [(line, column)]
    assert (reading.wishes, reading.ranges) == ({}, {})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_text_is_more_than_a_reading_can_bear(kept: Bench, data: st.DataObject) -> None:
    text = kept.session.cfg_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    filling = data.draw(st.text(st.characters() | st.sampled_from("\n\t -[]{}:,#&*!|>'\"%@`?0."), max_size=12))
    reading = kept.session.cfg_read(text[:start] + filling + text[end:])
    places = [(fault.line, fault.column) for fault in reading.faults]
    assert all(fault.message for fault in reading.faults)
    assert all(line > 0 and column > 0 for line, column in places)


def test_what_another_cfg_would_do_is_told_and_not_done(bench: Bench) -> None:
    session = bench.session
    session.live_start(bench.sample)
    other = session.cfg_write(session.cfg_text(), {"act": "float16"}, {"j": [-1.0, 2.0]})
    before = session.apply({"m": "int16"}, {})
    told = session.compare_cfg(other)
    assert session.edits().wishes == {"m": "int16"}
    again = session.apply({"m": "int16"}, {})
    assert (again.quality, again.precisions, again.errors) == (before.quality, {}, {})
    session.apply({"act": "float16"}, {"j": [-1.0, 2.0]}, whole=False)
    full = session.live_start(bench.sample)
    assert dataclasses.replace(told, seconds=0.0, changed=()) == dataclasses.replace(full, seconds=0.0, changed=())
    with pytest.raises(QuantizationError, match="line 1"):
        session.compare_cfg("- a")


# Files


def searched(bench: Bench) -> dict[str, str]:
    """The lines of a candidate of a search whose biases are '1.0'."""
    run = bench.session.tune_run(bench.dataset)
    assert run.number == 1 and run.report.candidates
    return run.report.candidates[0].wishes


def test_saved_files_build_the_model_that_was_live(bench: Bench, tmp_path: Path) -> None:
    session = bench.session
    wishes = searched(bench)
    session.live_start(bench.sample)
    state = session.apply(wishes, {"j": [-1.0, 2.0]}, "1.0")
    assert state.quality != session.apply(wishes, {"j": [-1.0, 2.0]}).quality
    state = session.apply(wishes, {"j": [-1.0, 2.0]}, "1.0")
    text = "# mine\n" + session.cfg_text()
    paths = session.save_cfg(str(tmp_path / "net.quantization.cfg"), text)
    assert [Path(path).name for path in paths] == ["net.model", "net.data", "net.quantization.cfg"]
    again = LiveSession()
    again.hybrid_step2(*paths)
    assert again.live_start(bench.sample).quality == state.quality
    assert again.cfg_open(paths[2])["text"] == text
    saved = again.cfg_open(paths[2])
    changed = again.cfg_write(saved["text"], {}, {})
    assert again.save_cfg(paths[2], changed, saved["sha256"]) == paths
    third = LiveSession()
    third.hybrid_step2(*paths)
    assert third.live_start(bench.sample).quality == again.apply({}, {"j": [-1.0, 2.0]}).quality
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(path).name for path in paths)


def test_a_cfg_that_changed_on_disk_is_not_written_over(bench: Bench, tmp_path: Path) -> None:
    session, path = bench.session, tmp_path / "net.quantization.cfg"
    text = session.cfg_text()
    session.save_cfg(path, text)
    known = session.cfg_open(path)["sha256"]
    session.save_cfg(path, text)
    path.write_text("# another hand\n" + text)
    contents = {file: file.read_bytes() for file in tmp_path.iterdir()}
    session.apply({"m": "int16"}, {})
    with pytest.raises(FileError, match="changed on disk"):
        session.save_cfg(path, session.cfg_text(), known)
    with pytest.raises(FileError, match="exists already"):
        session.save_cfg(path, session.cfg_text())
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == contents
