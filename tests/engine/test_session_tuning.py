"""A session's calls that measure and repair: in order, out of order, cancelled, and over files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import Config
from engine.errors import (
    Cancelled,
    ConfigError,
    DatasetError,
    EngineError,
    FileError,
    InputError,
    OrderError,
    QuantizationError,
)
from engine.progress import Progress
from engine.quantization.edits import Edits
from engine.session import Session
from engine.tuning.search import Wish
from tests.small_networks import Array, infer, network, random, typed

SIZE = (1, 3, 8, 8)
# Boxes in pixels and scores in 0..1 share one output: in int8 all scores are 0.
BODY = """
a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
r = Relu (a)
box = Conv (r, w2, b2)
pixels = Mul (box, size)
class = Conv (r, w3, b3)
scores = Sigmoid (class)
y = Concat <axis = 1> (pixels, scores)
"""
CONSTANTS = {
    "w1": random(8, 3, 3, 3) / 3, "b1": random(8), "w2": random(4, 8, 1, 1), "b2": random(4), "w3": random(2, 8, 1, 1),
    "b3": random(2), "size": np.array(400, np.float32),
}  # fmt: skip
COUNT = 12


def image(seed: int) -> Array:
    """In the model's layout."""
    return random(*SIZE, seed=seed)


def rows(*seeds: int) -> list[list[Array]]:
    """Samples as a caller gives them: one array an input, NHWC."""
    return [[image(seed).transpose(0, 2, 3, 1)] for seed in seeds]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and a dataset."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "net.onnx").write_bytes(typed(network({"x": SIZE}, BODY, CONSTANTS)).SerializeToString())
    for seed in range(COUNT):
        np.save(folder / f"{seed}.npy", rows(seed)[0][0])
    (folder / "dataset.txt").write_text("".join(f"{seed}.npy\n" for seed in range(COUNT)))
    return folder


def loaded(files: Path, **settings: Any) -> Session:
    session = Session(Config.from_mapping({"target_platform": "rk3588", **settings}))
    session.load(files / "net.onnx")
    return session


def built(files: Path, batch: int = 1, **settings: Any) -> Session:
    session = loaded(files, **settings)
    session.build(dataset=files / "dataset.txt", rknn_batch_size=batch)
    return session


def answer(session: Session) -> Array:
    return infer(session, image(100))[0]


def scores(session: Session) -> Array:
    return answer(session)[:, 4:]


FLOAT16_TAIL = {"scores": "float16", "y": "float16"}


class TestEdits:
    def test_an_edit_changes_the_build_and_the_next_replaces_it(self, files: Path) -> None:
        session = built(files)
        before = answer(session)
        assert not before[:, 4:].any()
        session.edit(Edits(FLOAT16_TAIL))
        assert scores(session).any()
        assert session.table.wishes == FLOAT16_TAIL
        session.edit(Edits(ranges={"r": (0.0, 1.0)}))
        assert not session.table.wishes and session.table.rows["r"].max == 1.0
        session.edit(Edits(ranges={"r": (0.0, session.table.rows["r"].ori_max)}))
        assert np.array_equal(answer(session), before)

    @pytest.mark.parametrize(
        "edits",
        [
            Edits({"nothing": "float16"}),
            Edits({"r": "int4"}),
            Edits(ranges={"r": (1.0, -1.0)}),
            Edits(ranges={"z": (0, 1)}),
        ],
        ids=str,
    )
    def test_what_cannot_be_changes_nothing(self, files: Path, edits: Edits) -> None:
        session = built(files)
        session.edit(Edits(FLOAT16_TAIL))
        before, table = answer(session), session.table
        with pytest.raises(QuantizationError):
            session.edit(edits)
        assert session.table is table and np.array_equal(answer(session), before)

    def test_a_chip_without_float16_refuses_it(self, files: Path) -> None:
        session = built(files, target_platform="rv1106")
        with pytest.raises(QuantizationError, match="rv1106"):
            session.edit(Edits(FLOAT16_TAIL))
        session.edit(Edits({"scores": "int16", "y": "int16"}))
        assert scores(session).any()

    def test_another_build_forgets_them(self, files: Path) -> None:
        session = built(files)
        before = answer(session)
        session.edit(Edits(FLOAT16_TAIL))
        session.build(dataset=files / "dataset.txt")
        assert not session.table.wishes and np.array_equal(answer(session), before)

    @pytest.mark.parametrize("algorithm", ["normal", "auto"])
    def test_a_batch_does_with_each_sample_what_one_alone_would(self, files: Path, algorithm: str) -> None:
        settings = {"quantized_algorithm": algorithm, "bias_correction": True}
        session, batched = built(files, **settings), built(files, 3, **settings)
        edits = Edits({**FLOAT16_TAIL, "a": "int16", "class": "float16"}, {"r": (0.0, 1.5)})
        for one in (session, batched):
            one.edit(edits)
        alone = [infer(session, image(seed))[0] for seed in (100, 101, 102)]
        (together,) = infer(batched, np.concatenate([image(seed) for seed in (100, 101, 102)]))
        assert np.array_equal(together, np.concatenate(alone))


class TestLive:
    def test_what_was_found_live_is_what_an_edit_makes(self, files: Path) -> None:
        session = built(files, quantized_algorithm="auto")
        before = answer(session)
        live = session.live(rows(100, 101))
        report = live.apply(Edits(FLOAT16_TAIL))
        assert report.quality.cosine > 0.9 and set(report.changed) == {"scores", "y"}
        assert np.array_equal(answer(session), before)
        session.edit(Edits(FLOAT16_TAIL))
        again = session.live(rows(100, 101))
        assert again.quality == report.quality
        assert np.array_equal(again.value(0, "y"), answer(session))

    def test_a_dataset_file_serves_too(self, files: Path) -> None:
        session = built(files)
        assert session.live(files / "dataset.txt").quality == session.live(rows(*range(COUNT))).quality

    def test_the_batch_is_left_aside(self, files: Path) -> None:
        assert built(files, 4).live(rows(100)).quality == built(files).live(rows(100)).quality

    @pytest.mark.parametrize("samples", [[], [[]], [[np.zeros((1, 4, 4, 3), np.float32)]], [["missing.npy"]], 7])
    def test_samples_that_do_not_fit_are_refused(self, files: Path, samples: Any) -> None:
        with pytest.raises((InputError, DatasetError)):
            built(files).live(samples)


class TestSourceMap:
    def test_the_join_is_where_the_scores_are_lost(self, files: Path) -> None:
        session = built(files)
        found = session.source_map(rows(100, 101))
        assert found.samples == 2 and found.parts == ("pixels", "scores")
        assert found.sources[0].name == "y" and found.sources[0].layer == "y"
        assert sum(one.share for one in found.sources) == pytest.approx(1.0)
        assert found.total.cosine == 0.0
        assert dataclasses.replace(session.source_map(rows(100, 101)), seconds=found.seconds) == found


class TestTune:
    def test_take_makes_the_session_what_was_reported(self, files: Path) -> None:
        session = built(files)
        before = answer(session)
        report = session.tune(files / "dataset.txt", wish=Wish(cosine=0.99))
        assert report.reached and report.complete and report.base.cosine == 0.0
        assert np.array_equal(answer(session), before)
        session.take()
        candidate = report.candidates[report.chosen]
        assert session.table.wishes == candidate.wishes
        assert scores(session).any()
        # The samples that were judged by are among those of the dataset, and no worse to a session of its own.
        assert session.live(files / "dataset.txt").quality.cosine >= 0.98

    def test_any_candidate_can_be_taken_and_no_other(self, files: Path) -> None:
        session = built(files)
        report = session.tune(files / "dataset.txt", wish=Wish(cosine=None))
        for index, candidate in enumerate(report.candidates):
            session.take(index)
            assert session.table.wishes == candidate.wishes
        for index in (len(report.candidates), -1, 99):
            with pytest.raises(OrderError):
                session.take(index)
        assert session.table.wishes == report.candidates[-1].wishes

    def test_biases_stay_where_the_config_says_so(self, files: Path) -> None:
        session = built(files, bias_correction=False)
        session.tune(files / "dataset.txt", wish=Wish(cosine=0.99))
        session.take()
        assert session.table.wishes and not session._require_built("test").single.corrections.biases
        session = built(files)
        session.tune(files / "dataset.txt", wish=Wish(cosine=0.99))
        session.take()
        assert session._require_built("test").single.corrections.biases

    def test_there_is_nothing_to_take_from_a_model_that_needs_nothing(self, files: Path) -> None:
        session = built(files, quantized_dtype="asymmetric_quantized-16")
        report = session.tune(files / "dataset.txt", wish=Wish(cosine=0.9))
        assert report.reached and report.chosen == -1
        with pytest.raises(OrderError, match="nothing to take"):
            session.take()

    @pytest.mark.parametrize("after", ["build", "load", "hybrid_step1", "load_rknn"])
    def test_what_was_tuned_before_cannot_be_taken_after(self, files: Path, tmp_path: Path, after: str) -> None:
        session = built(files)
        session.export(tmp_path / "net.rknn")
        session.tune(files / "dataset.txt", wish=Wish(cosine=0.9))
        {
            "build": lambda: session.build(dataset=files / "dataset.txt"),
            "load": lambda: session.load(files / "net.onnx"),
            "hybrid_step1": lambda: session.hybrid_step1(files / "dataset.txt", folder=tmp_path),
            "load_rknn": lambda: session.load_rknn(tmp_path / "net.rknn"),
        }[after]()
        with pytest.raises(OrderError):
            session.take()

    def test_int16_repairs_a_chip_without_float16(self, files: Path) -> None:
        session = built(files, target_platform="rv1103")
        report = session.tune(files / "dataset.txt", wish=Wish(cosine=0.99))
        assert report.reached
        assert {p for one in report.candidates for p in one.wishes.values()} == {"int16"}
        with pytest.raises(QuantizationError, match="rv1103"):
            session.tune(files / "dataset.txt", precision="float16")
        session.take()
        assert scores(session).any()


class TestLint:
    def test_before_and_after_the_build(self, files: Path) -> None:
        session = loaded(files)
        before = session.lint(files / "dataset.txt")
        assert any(one.layer == "y" and "scores" in one.message for one in before)
        session.build(dataset=files / "dataset.txt")
        after = session.lint()
        assert {one.layer for one in after if one.wishes} >= {"y"}
        wishes = next(one.wishes for one in after if one.layer == "y" and one.wishes)
        session.edit(Edits(wishes))
        assert scores(session).any()
        assert not any(one.layer == "y" and one.wishes for one in session.lint())

    def test_a_sample_of_the_application_in_another_range(self, files: Path) -> None:
        session = built(files)
        wrong = [array * 255 for array in rows(100)[0]]
        rules = {one.rule for one in session.lint(inputs=wrong)} - {
            one.rule for one in session.lint(inputs=rows(100)[0])
        }
        assert len(rules) == 1

    def test_a_model_that_is_not_built_needs_samples(self, files: Path) -> None:
        with pytest.raises(DatasetError, match="needs a dataset"):
            loaded(files).lint()

    def test_a_float16_build_is_judged_as_if_it_were_quantized(self, files: Path) -> None:
        session = loaded(files)
        session.build(do_quantization=False)
        before = answer(session)
        assert any(one.layer == "y" for one in session.lint(files / "dataset.txt"))
        assert np.array_equal(answer(session), before)


class TestFiles:
    @pytest.mark.parametrize("settings", [{"quantized_algorithm": "mmse"}, {"quantized_algorithm": "auto"}], ids=str)
    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_package_keeps_corrections_wishes_and_ranges(
        self, files: Path, tmp_path: Path, settings: dict[str, str], batch: int
    ) -> None:
        session = built(files, batch, equalization=True, bias_correction=True, **settings)
        session.edit(Edits(FLOAT16_TAIL, {"r": (0.0, 2.0)}))
        session.export(tmp_path / "net.rknn")
        again = Session()
        again.load(tmp_path / "net.rknn")
        feeds = np.concatenate([image(100 + index) for index in range(batch)])
        assert np.array_equal(infer(again, feeds)[0], infer(session, feeds)[0])
        assert again.table == session.table
        mine, theirs = (one._require_built("test").single.corrections for one in (session, again))
        assert mine.biases.keys() == theirs.biases.keys() and mine.weights.keys() == theirs.weights.keys()
        # It goes on from there as if it had been built here.
        assert again.live(rows(100)).quality == session.live(rows(100)).quality
        again.edit(Edits())
        session.edit(Edits())
        assert np.array_equal(infer(again, feeds)[0], infer(session, feeds)[0])
        assert (tmp_path / "net.rknn").read_bytes() != again.export(tmp_path / "other.rknn").read_bytes()

    def test_a_float16_build_exports_the_float_graph(self, files: Path, tmp_path: Path) -> None:
        session = loaded(files)
        session.build(do_quantization=False)
        first = session.export_onnx(tmp_path / "a.onnx").read_bytes()
        session.build(dataset=files / "dataset.txt")
        assert session.export_onnx(tmp_path / "b.onnx").read_bytes() == first

    def test_step_2_continues_where_step_1_ended(self, files: Path, tmp_path: Path) -> None:
        session = loaded(files, quantized_algorithm="auto")
        step = session.hybrid_step1(files / "dataset.txt", folder=tmp_path, rknn_batch_size=2, proposal=True)
        assert step.proposal is not None and step.proposal.reached
        assert session.table.wishes == step.proposal.candidates[step.proposal.chosen].wishes
        again = Session()
        summary = again.hybrid_step2(step.model, step.data, step.cfg)
        assert (summary.batch, summary.samples, summary.recipe) == (2, COUNT, step.build.recipe)
        feeds = np.concatenate([image(100), image(101)])
        assert np.array_equal(infer(again, feeds)[0], infer(session, feeds)[0])
        assert infer(again, feeds)[0][:, 4:].any()

    def test_without_a_proposal_nothing_is_wished(self, files: Path, tmp_path: Path) -> None:
        step = loaded(files).hybrid_step1(files / "dataset.txt", folder=tmp_path)
        assert step.proposal is None and "custom_quantize_layers: {}" in Path(step.cfg).read_text()

    @pytest.mark.parametrize("size", [0, -1, True, "2", 1.5])
    def test_a_proposal_from_no_samples_is_refused_and_nothing_written(
        self, files: Path, tmp_path: Path, size: Any
    ) -> None:
        session = loaded(files)
        with pytest.raises(ConfigError, match="proposal_dataset_size"):
            session.hybrid_step1(files / "dataset.txt", folder=tmp_path, proposal=True, proposal_dataset_size=size)
        assert not list(tmp_path.iterdir())

    def test_a_bad_cfg_leaves_the_session_with_what_it_had(self, files: Path, tmp_path: Path) -> None:
        session = built(files)
        step = loaded(files).hybrid_step1(files / "dataset.txt", folder=tmp_path)
        cfg = Path(step.cfg)
        cfg.write_text(
            cfg.read_text().replace("custom_quantize_layers: {}", "custom_quantize_layers:\n    nothing: float16")
        )
        before = answer(session)
        with pytest.raises(QuantizationError, match="nothing"):
            session.hybrid_step2(step.model, step.data, cfg)
        assert np.array_equal(answer(session), before)


CALLS: dict[str, Callable[[Session, Path], Any]] = {
    "edit": lambda session, files: session.edit(Edits()),
    "live": lambda session, files: session.live(rows(0)),
    "source_map": lambda session, files: session.source_map(rows(0)),
    "tune": lambda session, files: session.tune(rows(0)),
    "take": lambda session, files: session.take(),
    "analyze": lambda session, files: session.analyze(rows(0)[0]),
    "export": lambda session, files: session.export(files / "never.rknn"),
    "export_onnx": lambda session, files: session.export_onnx(files / "never.onnx"),
    "hybrid_step1": lambda session, files: session.hybrid_step1(files / "dataset.txt", folder=files / "never"),
    "lint": lambda session, files: session.lint(files / "dataset.txt"),
}


@pytest.mark.parametrize("call", CALLS)
def test_nothing_goes_before_a_model_is_loaded(files: Path, call: str) -> None:
    with pytest.raises(OrderError, match="no model is loaded"):
        CALLS[call](Session(), files)


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"hybrid_step1", "lint"}))
def test_most_goes_after_a_build_only(files: Path, call: str) -> None:
    with pytest.raises(OrderError, match="not built"):
        CALLS[call](loaded(files), files)


@pytest.mark.parametrize("call", ["edit", "live", "source_map", "tune", "take", "analyze"])
def test_a_float16_build_cannot_be_repaired(files: Path, call: str) -> None:
    session = loaded(files)
    session.build(do_quantization=False)
    before = answer(session)
    with pytest.raises(OrderError, match="nothing was tuned" if call == "take" else "float16 build"):
        CALLS[call](session, files)
    assert np.array_equal(answer(session), before)


LONG: dict[str, Callable[[Session, Path, Path, Progress], Any]] = {
    "build": lambda s, files, out, p: s.build(dataset=files / "dataset.txt", progress=p),
    "hybrid_step1": lambda s, files, out, p: s.hybrid_step1(
        files / "dataset.txt", folder=out, proposal=True, progress=p
    ),
    "hybrid_step2": lambda s, files, out, p: s.hybrid_step2(
        files / "net.model", files / "net.data", files / "net.quantization.cfg", progress=p
    ),
    "live": lambda s, files, out, p: s.live(rows(1, 2), progress=p),
    "source_map": lambda s, files, out, p: s.source_map(rows(1), progress=p),
    "lint": lambda s, files, out, p: s.lint(files / "dataset.txt", progress=p),
}


@pytest.mark.parametrize("call", LONG)
@pytest.mark.slow
def test_cancelled_at_any_step_the_session_is_as_before(files: Path, tmp_path: Path, call: str) -> None:
    loaded(files).hybrid_step1(files / "dataset.txt", folder=files)
    session = built(files)
    session.edit(Edits(ranges={"r": (0.0, 0.5)}))
    session.tune(files / "dataset.txt", wish=Wish(cosine=0.9))
    # Other settings, so that what the call would make differs.
    session.config = Config(quantized_algorithm="auto", target_platform="rk3588")
    before, table, summary = answer(session), session.table, session.summary()
    for checks in range(2000):
        left = iter(range(checks))
        progress = Progress(cancelled=lambda left=left: next(left, None) is None)  # type: ignore[misc]
        try:
            LONG[call](session, files, tmp_path, progress)
        except Cancelled:
            assert session.table is table and session.config.quantized_algorithm == "auto"
            assert not list(tmp_path.iterdir())
            if checks % 16 == 0:
                assert session.summary() == summary and np.array_equal(answer(session), before)
        else:
            break
    assert checks >= 2
    if call in ("live", "source_map", "lint"):
        assert np.array_equal(answer(session), before)
        session.take()
        assert scores(session).any()
    else:
        assert not np.array_equal(answer(session), before)


def test_a_tune_that_is_cancelled_leaves_what_there_was_or_the_best_so_far(files: Path) -> None:
    session = built(files)
    before, first = answer(session), session.tune(files / "dataset.txt", wish=Wish(cosine=0.9))
    partial = 0
    for checks in range(1000):
        left = iter(range(checks))
        progress = Progress(cancelled=lambda left=left: next(left, None) is None)  # type: ignore[misc]
        try:
            report = session.tune(files / "dataset.txt", wish=Wish(cosine=None), progress=progress)
        except Cancelled:
            assert not partial
            if checks == 0:
                session.take()
                assert session.table.wishes == first.candidates[first.chosen].wishes
                session = built(files)
        else:
            if report.complete:
                break
            partial += 1
        assert np.array_equal(answer(session), before)
    assert partial > 3


@pytest.mark.parametrize("call", ["live", "source_map", "tune", "build", "hybrid_step1", "lint"])
def test_a_dataset_that_is_missing_changes_nothing(files: Path, tmp_path: Path, call: str) -> None:
    session, missing = built(files), tmp_path / "missing.txt"
    before = answer(session)
    calls: dict[str, Callable[[], Any]] = {
        "live": lambda: session.live(missing),
        "source_map": lambda: session.source_map(missing),
        "tune": lambda: session.tune(missing),
        "build": lambda: session.build(dataset=missing),
        "hybrid_step1": lambda: session.hybrid_step1(missing, folder=tmp_path),
        "lint": lambda: session.lint(missing),
    }
    with pytest.raises(EngineError, match=r"missing\.txt") as caught:
        calls[call]()
    assert isinstance(caught.value, (DatasetError, FileError))
    assert np.array_equal(answer(session), before) and not list(tmp_path.iterdir())
