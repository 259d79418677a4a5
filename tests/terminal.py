"""The app on a pseudo-terminal of its own: keys go in, bytes come out, an emulator tells what a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[1]
SCRIPTED_ENGINE = ROOT / "tests" / "rknn_tui" / "scripted_engine.py"
_SCRIPTED = (
    "import sys; from rknn_tui.app import Workshop; "
    "app = Workshop(sys.argv[1], {}, engine_command=[sys.executable, sys.argv[2]]); "
    "sys.exit(app.run(mouse=False))"
)


def scripted(model: str | Path) -> list[str]:
    """The command that opens the app on a made-up model, with the engine that follows a script."""
    return [sys.executable, "-c", _SCRIPTED, str(model), str(SCRIPTED_ENGINE)]


def real(*words: str | Path) -> list[str]:
    """The command that a person types, with the real engine."""
    return [sys.executable, "-m", "rknn_tui", *map(str, words)]


FRAME_BEGINS, FRAME_ENDS = b"\x1b[?2026h", b"\x1b[?2026l"


def frames(data: bytes) -> list[bytes]:
    """What was drawn at once each time, of what a terminal that marks frames was sent."""
    return [one for one in data.split(FRAME_ENDS) if FRAME_BEGINS in one]


def readable(data: bytes) -> str:
    """What was sent, a line each time that it goes on elsewhere or in other colours."""
    return data.decode("utf-8", "replace").replace("\x1b[", "\n[").replace("\x1b", "ESC")


class Terminal:
    """A program on a pseudo-terminal. `bytes` counts what it has written; `screen` is what is to be seen.

    `environment` adds variables, or takes those away that are None. `framed` answers as terminals do that can show a
    frame at once: the program then marks frames, see `frames`.
    """

    def __init__(
        self,
        command: Sequence[str],
        width: int = 80,
        height: int = 24,
        *,
        folder: str | Path = ROOT,
        framed: bool = False,
        **environment: str | None,
    ) -> None:
        self.master, self.slave = pty.openpty()
        self._set_size(width, height)
        self.modes = termios.tcgetattr(self.slave)
        self.closed: set[int] = set()
        self.bytes = 0
        self._framed = framed
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        settings = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
        self.process = subprocess.Popen(
            list(command),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=folder,
            env={name: value for name, value in settings.items() if value is not None},
            start_new_session=True,
        )

    # What comes out

    def read(self, quiet: float, most: float = 20.0) -> bytes:
        """What is written until nothing came for `quiet` seconds."""
        data = bytearray()
        end = time.monotonic() + most
        while time.monotonic() < end and select.select([self.master], [], [], quiet)[0]:
            data += self.take()
        return bytes(data)

    def read_for(self, seconds: float) -> bytes:
        """What is written in the next seconds."""
        data = bytearray()
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], rest)[0]:
                data += self.take()
        return bytes(data)

    def read_until(self, code: bytes, most: float = 20.0) -> bytes:
        """What is written until `code` is among it, and the rest of that paint. For text see `sees`: of that, only what
        is not on the screen already is written."""
        data = b""
        end = time.monotonic() + most
        while code not in data and time.monotonic() < end:
            data += self.read(0.2, 1.0)
        assert code in data, data[-2000:]
        return data

    def answer_to(self, keys: bytes | str, quiet: float, most: float = 20.0) -> bytes:
        """What is written after keys that have an answer, until nothing came for `quiet` seconds."""
        self.press(keys)
        # However busy the machine is: what is slow is no silence.
        assert select.select([self.master], [], [], most)[0], f"{keys!r} was not answered:\n{self.text}"
        return self.read(quiet, most)

    def take(self) -> bytes:
        """What there is, or else what comes next."""
        data = os.read(self.master, 1 << 16)
        self.bytes += len(data)
        if self._framed and b"\x1b[?2026$p" in data:
            self.press(b"\x1b[?2026;2$y")
        self.feed(data)
        return data

    def feed(self, data: bytes) -> None:
        """Show what was written."""
        # The emulator knows no private modes with a '<' or '=', which only ask for other kinds of keys.
        self._stream.feed(
            data.replace(b"\x1b[>", b"\x1b[?").replace(b"\x1b[<", b"\x1b[?").replace(b"\x1b[=", b"\x1b[?")
        )

    @property
    def text(self) -> str:
        """The screen's lines."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def look(self) -> list[list[object]]:
        """What a person sees in each cell; blanks look the same in all colours that leave the background alone."""
        lines = [[self.screen.buffer[y][x] for x in range(self.screen.columns)] for y in range(self.screen.lines)]
        return [
            [" " if cell.data == " " and cell.bg == "default" and not cell.reverse else cell for cell in line]
            for line in lines
        ]

    @property
    def resident(self) -> int | None:
        """Bytes of memory that the program's first process holds, without its engine; None where nobody knows."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def line(self, index: int) -> str:
        """One of the screen's lines; -1 is the last."""
        return self.screen.display[index].rstrip()

    def sees(self, text: str, most: float = 30.0) -> bytes:
        """Wait until `text` is on the screen; returns what was written until then."""
        return self.waits(lambda: text in self.text, f"{text!r} to be seen", most)

    def loses(self, text: str, most: float = 30.0) -> bytes:
        """Wait until `text` is on the screen no longer; returns what was written until then."""
        return self.waits(lambda: text not in self.text, f"{text!r} to go", most)

    def waits(self, condition: Callable[[], object], what: str, most: float = 30.0) -> bytes:
        """Wait until `condition()` holds, reading what is written, and return that."""
        end = time.monotonic() + most
        data = b""
        while not condition():
            assert time.monotonic() < end, f"waited {most:g} s for {what}:\n{self.text}"
            assert self.process.poll() is None or select.select([self.master], [], [], 0)[0], (
                f"the app ended while waiting for {what}:\n{self.text}"
            )
            data += self.read_for(0.02)
        return data

    # What goes in

    def press(self, keys: bytes | str) -> None:
        """Send keys as a terminal does."""
        os.write(self.master, keys if isinstance(keys, bytes) else keys.encode())

    def type(self, text: str) -> None:
        """Replace what stands in the prompt and press Enter."""
        self.press(b"\x1b[F\x15")  # end of the line, and delete to its start
        self.read(0.05, 1.0)
        self.press(text + "\r")

    def resize(self, width: int, height: int) -> None:
        """The window gets another size."""
        self.screen.resize(height, width)
        self._set_size(width, height)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    # The end

    def close(self) -> None:
        """End the program whatever it does."""
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
