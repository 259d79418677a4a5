"""The app with the real engine on the bundled demo model, each in a folder and on a terminal of its own."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from engine import demo
from tests.rknn_tui.test_app import User, opened
from tests.terminal import ROOT, Terminal, real

END = b"\x1b[F"
ESCAPE = b"\x1b"


class Place:
    """A person's machine: `models` has the demo's model and dataset, the rest of `folder` the app's own files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.models.mkdir(exist_ok=True)
        self.model = self.models / "digits.onnx"
        shutil.copy(demo.MODEL, self.model)
        self.cfg = self.models / "digits.quantization.cfg"
        self.journal = self.models / "digits.rknn-tui.jsonl"
        self._opened: list[Terminal] = []

    def app(self, *words: str | Path, width: int = 80, height: int = 24, **environment: str) -> Terminal:
        """The app on the model, as a person starts it."""
        options = ("--mean", "0", "--std", "255", "--dataset", demo.DATASET, *words)
        return self.started(real(self.model, *options), width, height, **environment)

    def started(self, command: list[str], width: int = 80, height: int = 24, **environment: str) -> Terminal:
        """Any command, with the app's files in this place."""
        own = {
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
        }
        terminal = Terminal(command, width, height, folder=self.models, **(own | environment))
        self._opened.append(terminal)
        return terminal

    def built(self, *words: str | Path, told: str = "built int8", **environment: str) -> Terminal:
        """The app with the model built, when it has told so, or what there was to say then."""
        terminal = self.app(*words, **environment)
        terminal.sees("layers, ")
        terminal.press("b")
        terminal.sees(told)
        return terminal

    def opened(self, **options: Any) -> AbstractAsyncContextManager[User]:
        """The app on the model without a terminal, with the real engine."""
        config = {"mean_values": [[0]], "std_values": [[255]]}
        return opened(None, self.model, dataset=str(demo.DATASET), config=config, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        """End every app, and whatever engine outlived one."""
        for terminal in self._opened:
            engines = engines_of(terminal)
            terminal.close()
            for engine in engines:
                if is_alive(engine):
                    os.kill(engine, signal.SIGKILL)

    def left_over(self) -> list[str]:
        """Names of half-written files."""
        return [path.name for path in self.folder.rglob("*") if path.name.endswith(".part")]


def engines_of(terminal: Terminal) -> list[int]:
    """The processes that the app in the terminal has started."""
    parent = str(terminal.process.pid)
    return [pid for pid, of in _processes() if of == parent]


def kill_engine(terminal: Terminal) -> None:
    """SIGKILL, as the kernel does where memory runs out."""
    (engine,) = engines_of(terminal)
    os.kill(engine, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    return _state(pid) not in ("", "Z")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def tells(terminal: Terminal, text: str) -> None:
    """Wait until `text` is on the screen, wherever its lines are broken."""
    wanted = "".join(text.split())
    terminal.waits(lambda: wanted in "".join(terminal.text.split()), f"{text!r} to be told")


def cosine_of(terminal: Terminal) -> str:
    """The outputs' cosine in the status line."""
    words = terminal.line(0).split()
    return words[words.index("cos") + 1] if "cos" in words else ""


def _processes() -> list[tuple[int, str]]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (stat := _stat(int(path.name))) and stat[0] != "Z":
            found.append((int(path.name), stat[1]))
    return found


def _state(pid: int) -> str:
    stat = _stat(pid)
    return stat[0] if stat else ""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
