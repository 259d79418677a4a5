"""What really goes through the terminal's line: bytes a key, silence when idle, colours, and the way back out."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

import fcntl
import pty
import struct
import termios

ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; from rknn_tui.app import Workshop; "
    "app = Workshop(sys.argv[1], {}, engine_command=[sys.executable, sys.argv[2]]); "
    "sys.exit(app.run(mouse=False))"
)


class Terminal:
    """The app on a pseudo-terminal of its own."""

    def __init__(self, model: str, width: int = 80, height: int = 24, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.modes = termios.tcgetattr(self.slave)
        self.closed: set[int] = set()
        engine = Path(__file__).with_name("scripted_engine.py")
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, model, str(engine)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
            start_new_session=True,
        )

    def read(self, quiet: float, most: float = 20.0) -> bytes:
        """What is written until nothing came for `quiet` seconds."""
        data = bytearray()
        end = time.monotonic() + most
        while time.monotonic() < end and select.select([self.master], [], [], quiet)[0]:
            data += os.read(self.master, 1 << 16)
        return bytes(data)

    def read_until(self, text: bytes, most: float = 20.0) -> bytes:
        """What is written until `text` is among it, and the rest of that paint."""
        data = b""
        end = time.monotonic() + most
        while text not in data and time.monotonic() < end:
            data += self.read(0.2, 1.0)
        assert text in data, data[-2000:]
        return data

    def read_for(self, seconds: float) -> bytes:
        """What is written in the next seconds."""
        data = bytearray()
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], rest)[0]:
                data += os.read(self.master, 1 << 16)
        return bytes(data)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        for end in {self.master, self.slave} - self.closed:
            os.close(end)

    def hang_up(self) -> None:
        """The other end of the line goes away, as when an SSH link breaks."""
        os.close(self.slave)
        os.close(self.master)
        self.closed = {self.master, self.slave}


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_five_thousand_layers_cost_few_bytes_a_key_and_none_at_rest(terminals: list[Terminal]) -> None:
    terminal = Terminal("layers-5000.onnx")
    terminals.append(terminal)
    first = terminal.read_until(b"5000 layers")
    first += terminal.read(0.5)
    assert len(first) <= 10_000

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


def test_a_running_job_costs_few_bytes(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "steady.onnx"))
    terminals.append(terminal)
    terminal.read_until(b"30 layers")
    terminal.press(b"F")
    terminal.read_until(b"calibrate")
    shown = terminal.read_for(5.0)
    assert b"%" in shown
    assert b" s left" in shown
    assert len(shown) / 5 <= 150


def test_no_color_means_no_colour_and_the_terminal_is_given_back(terminals: list[Terminal]) -> None:
    terminal = Terminal("layers-30.onnx", NO_COLOR="1")
    terminals.append(terminal)
    screen = terminal.read_until(b"30 layers")
    terminal.press(b"F")
    screen += terminal.read_until(b"built float16")
    parameters = {code for group in re.findall(rb"\x1b\[([0-9;]*)m", screen) for code in group.split(b";")}
    colours = {code for code in parameters if re.fullmatch(rb"3[0-8]|4[0-8]|9[0-7]|10[0-7]", code)}
    assert colours == set()

    terminal.press(b"q")
    end = terminal.read(0.5)
    assert terminal.process.wait(10) == 0
    assert b"\x1b[?1049l" in end
    assert b"\x1b[?25h" in end
    assert termios.tcgetattr(terminal.slave) == terminal.modes


def test_a_terminal_without_utf8_gets_ascii_only(terminals: list[Terminal]) -> None:
    terminal = Terminal("layers-30.onnx", LANG="C", LC_ALL="C", PYTHONUTF8="1")
    terminals.append(terminal)
    assert terminal.read_until(b"30 layers").isascii()


def test_being_told_to_end_restores_the_terminal(terminals: list[Terminal]) -> None:
    terminal = Terminal("layers-30.onnx")
    terminals.append(terminal)
    terminal.read_until(b"30 layers")
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
def test_a_lost_terminal_ends_the_app_and_its_engine(terminals: list[Terminal]) -> None:
    terminal = Terminal("layers-30.onnx")
    terminals.append(terminal)
    terminal.read_until(b"30 layers")
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
