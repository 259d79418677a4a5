"""Compiling a built model: what the vendor's toolkit is given, which of its binaries is taken, and what fails how."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api import RKNN
from engine.compiler.errors import CompilerError
from engine.compiler.results import CompileSummary, layers_text, ways_text
from engine.errors import Cancelled, ConfigError
from engine.files import package
from engine.progress import Progress
from engine.quantization.edits import Edits
from engine.quantization.table import from_cfg
from engine.session import Session
from engine.session_live import LiveSession
from tests.small_networks import built, network, random

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the vendor's toolkit runs on Linux")

SAMPLES = [[random(1, 3, 8, 8, seed=seed, spread=40.0)] for seed in range(6)]


@pytest.fixture
def session(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Two convolutions, built for samples with a mean and a standard deviation of their own."""
    monkeypatch.setenv("RKNN_TUI_TOOLKIT", str(python))
    body = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
        b = Relu (a)
        c = Conv (b, w2)
        y = Sigmoid (c)
    """
    constants = {
        "w1": random(4, 3, 3, 3, seed=1),
        "b1": random(4, seed=2),
        "w2": random(2, 4, 1, 1, seed=3, spread=0.3),
    }
    proto = network({"x": (1, 3, 8, 8)}, body, constants)
    return built(tmp_path, proto, SAMPLES, mean_values=[[1, 2, 3]], std_values=[[20, 30, 40]], target_platform="rk3588")


def compiled(session: Session, output: Path, **more: Any) -> CompileSummary:
    samples = more.pop("samples", [[np.moveaxis(array, 1, 3)] for [array] in SAMPLES])
    return session.compile(output, samples, **more)


@pytest.mark.parametrize("best", ["qdq", "cfg", "corrected", "default"])
def test_takes_the_way_whose_outputs_come_nearest_on_the_toolkits_own_simulator(
    best: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = dict.fromkeys(("qdq", "cfg", "corrected", "default"), "0.2") | {best: "0"}
    monkeypatch.setenv("RKNN_DOUBLE_NOISE", ",".join(f"{way}={part}" for way, part in noise.items()))
    summary = compiled(session, tmp_path / "y.rknn")
    scores = {score.way: score.cosine for score in summary.ways}
    assert summary.way.startswith(best) and max(scores.values()) == scores[summary.way] > 0.999  # type: ignore[type-var]
    assert (tmp_path / "y.rknn").read_bytes().endswith(best.encode())
    assert summary.target == "rk3588" and summary.toolkit == "2.5.0"
    assert f"* {summary.way}" in ways_text(summary)


def test_hands_over_mean_and_std_so_that_both_read_the_same_samples(session: Session, tmp_path: Path) -> None:
    summary = compiled(session, tmp_path / "y.rknn", way="default")
    # The stand-in computes without rounding.
    assert summary.ways[0].cosine == pytest.approx(1.0, abs=1e-6)


def test_writes_our_ranges_and_precisions_into_the_toolkits_cfg(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.edit(Edits({"y": "float16"}, {"c": (-0.5, 0.75)}))
    monkeypatch.setenv("RKNN_DOUBLE_KEEP", str(tmp_path / "kept.cfg"))
    compiled(session, tmp_path / "y.rknn", way="cfg")
    kept = from_cfg((tmp_path / "kept.cfg").read_text())
    row = kept.rows["c"]
    assert kept.wishes == {"y": "float16"} and (row.min, row.max) == (-0.5, 0.75)
    # The toolkit refuses a cfg in which anything but the ends of ranges was changed.
    assert (row.ori_min, row.ori_max, row.scale, row.zero_point) == (-64.0, 63.5, 0.5, 0)


def test_shows_the_layers_as_both_simulators_see_them(session: Session, tmp_path: Path) -> None:
    summary = compiled(session, tmp_path / "y.rknn", way="cfg")
    pairs = {pair.name: pair for pair in summary.layers}
    pair = pairs["b"]
    assert pair.ours is not None and pair.theirs is not None and 0.99 < pair.theirs <= 1
    lines = layers_text(summary.layers).splitlines()
    assert any(line.split()[0] == "b" and line.endswith(f"{pair.ours:.5f}    {pair.theirs:.5f}") for line in lines)
    by_graph = compiled(session, tmp_path / "y.rknn", way="qdq")
    assert {pair.name for pair in by_graph.layers if pair.theirs is not None} >= {"b", "c", "y"}


@pytest.mark.parametrize("fault", ["crashes", "refuses", "raises"])
def test_goes_on_with_the_other_ways_where_one_fails(
    fault: str, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKNN_DOUBLE", f"hybrid_quantization_step1={fault}")
    summary = compiled(session, tmp_path / "y.rknn")
    problems = {score.way: score.problem for score in summary.ways}
    assert problems["cfg"] and not problems["default"] and summary.way != "cfg"


def test_leaves_an_old_binary_alone_where_nothing_works(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "y.rknn"
    output.write_bytes(b"old")
    monkeypatch.setenv("RKNN_DOUBLE", "build=minus,hybrid_quantization_step1=refuses")
    with pytest.raises(CompilerError, match=r"qdq.*cfg.*default"):
        compiled(session, output)
    assert output.read_bytes() == b"old"


def test_cancelling_leaves_an_old_binary_and_no_files_of_ours(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, temporary = tmp_path / "y.rknn", tmp_path / "temporary"
    output.write_bytes(b"old")
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("RKNN_DOUBLE", "build=hangs")
    seen: list[str] = []
    progress = Progress(lambda stage, done, total: seen.append(stage), lambda: any("building" in s for s in seen))
    with pytest.raises(Cancelled):
        compiled(session, output, progress=progress)
    assert output.read_bytes() == b"old" and not list(temporary.iterdir())


def test_a_float16_build_is_handed_over_as_floats(tmp_path: Path, python: Path, session: Session) -> None:
    session.build(do_quantization=False)
    summary = compiled(session, tmp_path / "y.rknn", samples=None)
    assert summary.way == "float16" and (tmp_path / "y.rknn").stat().st_size == summary.bytes


def test_a_quantized_build_needs_no_samples_for_the_way_that_reads_none(session: Session, tmp_path: Path) -> None:
    assert compiled(session, tmp_path / "y.rknn", samples=None).way.startswith("qdq")
    with pytest.raises(CompilerError, match="needs samples"):
        compiled(session, tmp_path / "y.rknn", samples=None, way="cfg")


def test_refuses_ways_that_there_are_not(session: Session, tmp_path: Path) -> None:
    for way in ("magic", "float16"):
        with pytest.raises(ConfigError, match="not a choice"):
            compiled(session, tmp_path / "y.rknn", way=way)


def test_names_the_step_to_take_where_the_toolkit_is_missing(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKNN_TUI_TOOLKIT")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(CompilerError) as caught:
        compiled(session, tmp_path / "y.rknn")
    assert "rknn-tui compiler install" in caught.value.hint


def test_the_toolkits_export_puts_the_binary_into_the_package_when_asked(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = RKNN()
    assert rknn.config(mean_values=[[1, 2, 3]], std_values=[[20, 30, 40]], target_platform="rk3588") == 0
    assert rknn.load_onnx(str(tmp_path / "model.onnx")) == 0
    assert rknn.build(dataset=str(tmp_path / "dataset.txt")) == 0
    assert rknn.export_rknn(str(tmp_path / "plain.rknn")) == 0
    assert not package.read_compiled(tmp_path / "plain.rknn")
    assert rknn.export_rknn(str(tmp_path / "m.rknn"), compile_npu=True) == 0
    (binary,) = package.read_compiled(tmp_path / "m.rknn")
    assert binary.target == "rk3588" and binary.read()


def test_edits_survive_compiling(session: Session, tmp_path: Path) -> None:
    edited = LiveSession(session.config)
    edited.load(tmp_path / "model.onnx")
    edited.build(dataset=tmp_path / "dataset.txt")
    text = edited.cfg_text().replace("custom_quantize_layers: {}", "custom_quantize_layers:\n    b: float16")
    edited.apply(edited.cfg_read(text).wishes, {}, whole=False)
    compiled(edited, tmp_path / "y.rknn", way="default")
    assert edited.edits().wishes == {"b": "float16"}
