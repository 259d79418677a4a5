"""`RKNN` on a board: the guide's calls, their values and forms, and what they say when the board goes away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine.api
import engine.session_boards as session_boards
from engine.api import RKNN
from engine.boards import MeasuredLayer
from engine.devices.choosing import Runnable
from tests.engine.live_bench import Bench, bench_in
from tests.engine.scripted_boards import ScriptedBoard, connect
from tests.engine.test_session_boards import inputs, with_binary


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedBoard]:
    found = ScriptedBoard("515e9b401c060c0b", layers=(MeasuredLayer("Conv:a", "Conv", "NPU", 7.0),))
    connect(monkeypatch, found)
    yield found
    assert found.open == 0


@pytest.fixture
def rknn(bench: Bench, board: ScriptedBoard, tmp_path: Path) -> Iterator[RKNN]:
    """The model, compiled for rk3588, and no runtime yet; released at the end."""
    package = tmp_path / "model.rknn"
    with_binary(bench.fresh()).export(package)
    found = RKNN()
    assert found.load_rknn(str(package)) == 0
    yield found
    found.release()


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("E ")]
    assert len(lines) == 1, lines
    return lines[0]


def test_the_guides_calls_run_on_a_board(
    rknn: RKNN, bench: Bench, board: ScriptedBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rknn.init_runtime(target="rk3588", device_id=board.id, perf_debug=True, eval_mem=True) == 0
    outputs = rknn.inference(inputs=inputs())
    assert outputs is not None
    for ours, theirs in zip(bench.session.infer(inputs()), outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    capsys.readouterr()
    text = rknn.eval_perf(inputs=inputs(), is_print=True)
    assert text is not None and capsys.readouterr().out == f"{text}\n"
    assert "Total Time(us): 20.0" in text and "MEASURED on the NPU" in text and "Conv:a" not in text.split("Conv")[0]
    assert rknn.eval_memory(is_print=False) == {
        "total_weight_allocation": 300,
        "total_internal_allocation": 200,
        "total_model_allocation": 500,
    }
    version = rknn.get_sdk_version()
    assert version is not None
    assert re.fullmatch(r"=+\nRKNN VERSION:\n +API: 2\.3\.2 \(runtime\)\n +DRV: 0\.9\.8\n=+", version)


@pytest.mark.parametrize(
    ("arguments", "pinned"),
    [
        ({}, False),
        ({"fix_freq": False}, False),
        ({"is_print": False}, False),
        ({"inputs": False}, False),
        ({"fix_freq": True}, True),
        ({"inputs": False, "is_print": True}, True),
    ],
)
def test_the_clock_is_held_only_where_a_caller_says_so(
    arguments: dict[str, Any], pinned: bool, rknn: RKNN, board: ScriptedBoard
) -> None:
    assert rknn.init_runtime(target="rk3588") == 0
    assert rknn.eval_perf(**arguments) is not None
    assert (("pin",) in board.calls) == pinned


def test_memory_is_told_without_eval_mem_and_that_is_said(rknn: RKNN, capsys: pytest.CaptureFixture[str]) -> None:
    assert rknn.init_runtime(target="rk3588") == 0
    assert rknn.eval_memory() is not None
    captured = capsys.readouterr()
    assert "W eval_memory" in captured.err and "eval_mem=True" in captured.err
    assert "Total Weight Memory" in captured.out and "current model size" in captured.out


def test_a_lost_board_is_one_line_and_init_runtime_connects_again(
    rknn: RKNN, board: ScriptedBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rknn.init_runtime(target="rk3588") == 0
    board.lose("run")
    capsys.readouterr()
    for _ in range(2):
        assert rknn.inference(inputs=inputs()) is None
        assert "gone" in error_of(capsys) and board.open
    board.fails.clear()
    assert rknn.init_runtime(target="rk3588") == 0
    assert rknn.inference(inputs=inputs()) is not None
    rknn.release()
    assert board.open == 0


def test_a_failed_start_leaves_nothing_on_the_board(
    rknn: RKNN, board: ScriptedBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    board.lose("load")
    assert rknn.init_runtime(target="rk3588") == -1
    assert board.open == 0 and "gone" in error_of(capsys)
    assert rknn.inference(inputs=inputs()) is None
    assert rknn.init_runtime(target="rk3566") == -1
    assert rknn.init_runtime(target="rk3588", core_mask=9) == -1
    assert rknn.init_runtime(target="rk3588", device_id="another") == -1


def test_another_target_or_mask_leaves_the_runtime_that_there_is(rknn: RKNN) -> None:
    assert rknn.init_runtime(target="rk3588") == 0
    assert rknn.init_runtime(target="rk3566") == -1
    assert rknn.init_runtime(target="rk3588", core_mask=9) == -1
    assert rknn.inference(inputs=inputs()) is not None


def test_a_vendors_file_is_kept_for_a_board(
    bench: Bench,
    board: ScriptedBoard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from engine.files import vendor
    from tests.engine.scripted_boards import binary_of

    file = tmp_path / "vendor.rknn"
    file.write_bytes(binary_of(bench.base))
    monkeypatch.setattr(vendor, "is_vendor_file", lambda path: True)
    for module in (session_boards, engine.api):
        monkeypatch.setattr(
            module, "runnable_file", lambda path: Runnable(str(path), "rk3588", {"rk3588": lambda: path})
        )
    rknn = RKNN()
    assert rknn.load_rknn(str(file)) == 0
    assert rknn.init_runtime() == -1
    assert "runs only on a board" in error_of(capsys)
    assert rknn.init_runtime(target="rk3588") == 0
    assert rknn.inference(inputs=inputs()) is not None
    assert rknn.accuracy_analysis(["a.npy"], target="rk3588") == -1
    assert "cannot be analysed" in error_of(capsys)
    rknn.release()


def test_accuracy_analysis_writes_the_boards_tensors(rknn: RKNN, bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    assert rknn.accuracy_analysis(bench.sample, str(folder), target="rk3588") == 0
    assert {path.name for path in folder.iterdir()} >= {"golden", "simulator", "runtime", "error_analysis.txt"}


def test_devices_are_listed_in_the_guides_form(board: ScriptedBoard, capsys: pytest.CaptureFixture[str]) -> None:
    assert RKNN().list_devices() == ([board.id], [])
    stars = "*" * 25
    assert capsys.readouterr().out == f"{stars}\nall device(s) with adb mode:\n{board.id}\n{stars}\n"


def test_no_devices_are_two_empty_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    connect(monkeypatch)
    assert RKNN().list_devices() == ([], [])
    captured = capsys.readouterr()
    assert "None devices connected." in captured.out and "ssh: not asked" in captured.err
