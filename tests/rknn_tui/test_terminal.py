"""What really goes through the terminal's line: bytes a key, silence when idle, colours, and the way back out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

import pty
import termios

from tests.terminal import ROOT, Terminal, scripted


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.mark.slow
def test_five_thousand_layers_cost_few_bytes_a_key_and_none_at_rest(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "layers-5000.onnx"))
    terminals.append(terminal)
    terminal.sees("5000 layers")
    terminal.read(0.5)
    assert terminal.bytes <= 10_000

    moves = 12
    terminal.press(b"j")
    terminal.read(0.5)
    total = 0
    for _ in range(moves):
        terminal.press(b"j")
        move = terminal.read(0.06)
        assert 0 < len(move) <= 64, move
        total += len(move)
    # The detail strip follows once the cursor rests.
    total += len(terminal.read(0.5))
    assert total / moves <= 64

    terminal.press(b"j" * 30)
    burst = terminal.read(0.5)
    assert len(burst) <= 2 * 4_500, "thirty keys at once are not thirty paints"

    assert terminal.read(5.0) == b""


@pytest.mark.slow
def test_a_running_job_costs_few_bytes(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "steady.onnx"))
    terminals.append(terminal)
    terminal.sees("30 layers")
    terminal.press(b"F")
    terminal.sees("calibrate")
    shown = terminal.read_for(5.0)
    assert "%" in terminal.line(0)
    assert " s left" in terminal.line(0)
    assert 0 < len(shown) / 5 <= 150


def test_no_color_means_no_colour_and_the_terminal_is_given_back(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "layers-30.onnx"), NO_COLOR="1")
    terminals.append(terminal)
    screen = terminal.sees("30 layers")
    terminal.press(b"F")
    screen += terminal.sees("built float16")
    parameters = {code for group in re.findall(rb"\x1b\[([0-9;]*)m", screen) for code in group.split(b";")}
    colours = {code for code in parameters if re.fullmatch(rb"3[0-8]|4[0-8]|9[0-7]|10[0-7]", code)}
    assert colours == set()

    terminal.press(b"q")
    end = terminal.read(0.5)
    assert terminal.process.wait(10) == 0
    assert b"\x1b[?1049l" in end
    assert b"\x1b[?25h" in end
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_a_terminal_without_utf8_gets_ascii_only(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "layers-30.onnx"), LANG="C", LC_ALL="C", PYTHONUTF8="1")
    terminals.append(terminal)
    assert terminal.sees("30 layers").isascii()


def test_being_told_to_end_restores_the_terminal(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "layers-30.onnx"))
    terminals.append(terminal)
    terminal.sees("30 layers")
    terminal.process.terminate()
    assert terminal.process.wait(10) == 143
    assert b"\x1b[?1049l" in terminal.read(0.5)
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_a_terminal_that_cannot_place_the_cursor_gets_a_message_rather_than_an_app() -> None:
    master, slave = pty.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "rknn_tui"],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TERM": "dumb"},
            check=False,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert run.returncode == 2
    assert b"needs a terminal" in run.stderr


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps to see the engine's process")
def test_a_lost_terminal_ends_the_app_and_its_engine(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(scripted(tmp_path / "layers-30.onnx"))
    terminals.append(terminal)
    terminal.sees("30 layers")
    engines = _children(terminal.process.pid)
    assert engines
    terminal.hang_up()
    assert terminal.process.wait(10) == 129
    end = time.monotonic() + 10
    while any(_alive(pid) for pid in engines) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in engines)


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in found.splitlines()]
    return [int(pid) for pid, of in pairs if int(of) == parent]


def _alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(found.strip()) and not found.strip().startswith("Z")
