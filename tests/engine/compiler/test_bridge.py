"""How the vendor's toolkit is driven in a process of its own, against a stand-in that can fail in every way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.compiler.bridge import Toolkit
from engine.compiler.errors import CompilerError
from engine.compiler.log import LARGEST_LOG
from engine.errors import Cancelled
from engine.progress import Progress
from tests.engine.compiler.conftest import stand_in
from tests.small_networks import network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the vendor's toolkit runs on Linux")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(network({"x": (1, 4)}, "y = Relu (x)", {}).SerializeToString())
    return path


@pytest.fixture
def toolkit(python: Path, tmp_path: Path) -> Iterator[Toolkit]:
    folder = tmp_path / "work"
    folder.mkdir()
    with Toolkit(python, folder) as found:
        yield found


def loaded(toolkit: Toolkit, model: Path) -> Toolkit:
    toolkit.call("open")
    toolkit.call("config", target_platform="rk3588")
    toolkit.call("load_onnx", model=str(model))
    return toolkit


def failing(monkeypatch: pytest.MonkeyPatch, faults: str) -> None:
    monkeypatch.setenv("RKNN_DOUBLE", faults)


def test_tells_what_the_environment_has_and_compiles(toolkit: Toolkit, model: Path, tmp_path: Path) -> None:
    assert toolkit.call("versions")["rknn-toolkit2"] == "2.5.0"
    loaded(toolkit, model).call("build", do_quantization=False)
    toolkit.call("export_rknn", path=str(tmp_path / "out.rknn"))
    assert (tmp_path / "out.rknn").read_bytes().startswith(b"RKNN")


def test_shows_the_toolkits_own_progress_bars(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "build=hangs")
    seen: list[tuple[str, int, int]] = []
    begun = time.monotonic()

    def cancelled() -> bool:
        return any(total == 10 for _, _, total in seen) or time.monotonic() > begun + 20

    folder = tmp_path / "work"
    folder.mkdir()
    progress = Progress(lambda *step: seen.append(step), cancelled)
    with Toolkit(python, folder, progress=progress) as toolkit, pytest.raises(Cancelled):
        loaded(toolkit, model).call("build", do_quantization=False, stage="compile")
    assert seen[-1] == ("toolkit: compile, building", 10, 10)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("minus", "refuses"),
        ("refuses", "refuses: Unkown op target: 0"),
        ("raises", "fails: ValueError: the graph has no such thing"),
        ("exits", "fails: "),
    ],
)
def test_a_call_that_fails_says_why_and_the_process_lives_on(
    fault: str, said: str, toolkit: Toolkit, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: Path
) -> None:
    failing(monkeypatch, f"build={fault}")
    folder = tmp_path / "other"
    folder.mkdir()
    with Toolkit(python, folder) as failing_one:
        with pytest.raises(CompilerError) as caught:
            loaded(failing_one, model).call("build", do_quantization=False)
        assert said in str(caught.value) and "\x1b" not in str(caught.value)
        assert failing_one.call("versions")


@pytest.mark.parametrize(("fault", "said"), [("ends", "exit status 7"), ("crashes", "crashed (SIGABRT)")])
def test_a_process_that_dies_is_one_clear_error_and_a_new_one_can_be_started(
    fault: str, said: str, python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, f"build={fault}")
    folder = tmp_path / "work"
    folder.mkdir()
    with Toolkit(python, folder) as toolkit:
        with pytest.raises(CompilerError, match="vendor's toolkit") as caught:
            loaded(toolkit, model).call("build", do_quantization=False)
        assert said in caught.value.what
        assert fault != "ends" or "the last words" in caught.value.hint
        with pytest.raises(CompilerError):
            toolkit.call("versions")
        assert not toolkit.alive
        toolkit.start()
        assert toolkit.call("versions")


def test_a_hang_is_ended_with_all_that_it_started(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "child"
    monkeypatch.setenv("RKNN_DOUBLE_KEEP", str(note))
    failing(monkeypatch, "build=hangs")
    folder = tmp_path / "work"
    folder.mkdir()
    with Toolkit(python, folder) as toolkit, pytest.raises(CompilerError, match="longer than 1 s"):
        loaded(toolkit, model).call("build", limit=1.0, do_quantization=False)
    assert is_gone(int(note.read_text()))


def test_leaving_in_the_middle_of_a_call_leaves_nothing_running(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "child"
    monkeypatch.setenv("RKNN_DOUBLE_KEEP", str(note))
    failing(monkeypatch, "build=hangs")
    folder = tmp_path / "work"
    folder.mkdir()

    def interrupt() -> bool:
        if note.exists() and note.read_text():
            raise KeyboardInterrupt
        return False

    toolkit = Toolkit(python, folder, progress=Progress(None, interrupt))
    with pytest.raises(KeyboardInterrupt), toolkit:
        loaded(toolkit, model).call("build", do_quantization=False)
    assert is_gone(int(note.read_text())) and not toolkit.alive
    zombies = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True)
    assert not any(line.startswith("Z") for line in zombies.stdout.splitlines())


def test_what_the_toolkit_prints_is_never_taken_for_an_answer(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "build=babbles,config=reads")
    folder = tmp_path / "work"
    folder.mkdir()
    with Toolkit(python, folder) as toolkit:
        assert loaded(toolkit, model).call("build", do_quantization=False) is None
        assert toolkit.call("versions")["rknn-toolkit2"] == "2.5.0"
    assert b"forged too" in toolkit.log_path.read_bytes()


def test_a_flood_of_output_stays_within_the_logs_size(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "build=floods")
    folder = tmp_path / "work"
    folder.mkdir()
    with Toolkit(python, folder) as toolkit:
        loaded(toolkit, model).call("build", do_quantization=False)
    assert toolkit.log_path.stat().st_size == LARGEST_LOG


def test_names_the_step_to_take_where_the_environment_is_missing_or_broken(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(CompilerError) as caught, Toolkit(tmp_path / "nowhere" / "python", folder):
        pass
    assert "rknn-tui compiler install" in caught.value.hint
    with pytest.raises(CompilerError) as caught, Toolkit(stand_in(tmp_path / "empty", version=""), folder) as toolkit:
        toolkit.call("open")
    assert "No module named 'rknn'" in caught.value.what and "rknn-tui compiler install" in caught.value.hint


def test_our_own_packages_are_not_seen_there(toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = tmp_path / "probe"
    probe.write_text('#!/bin/sh\nenv >"$0.txt"\n')
    probe.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PYTHONSTARTUP", "/ours/start.py")
    folder = tmp_path / "other"
    folder.mkdir()
    with pytest.raises(CompilerError), Toolkit(probe, folder) as started:
        started.call("versions")
    assert "/ours" not in (tmp_path / "probe.txt").read_text()


def is_gone(process: int) -> bool:
    """Whether the process ends within some seconds; one that waits to be reaped by somebody else has ended too."""
    for _ in range(100):
        try:
            status = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return True
        if status.rpartition(")")[2].split()[0] in ("Z", "X"):
            return True
        time.sleep(0.05)
    return False
