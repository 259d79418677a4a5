"""The boards that there are, as a process beside the app tells of them: it starts when somebody first looks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

from engine import own_process
from engine.boards import Board
from engine.host_protocol import decode, encode, rebuild

MAX_LINE_BYTES = 1 << 20
"""A longer line is no list of boards."""
MOST_FAULTS = 16
SECONDS_TO_END = 1.0
"""How long the process may take to end by itself when the app does; then it is killed."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The boards as they were told last, and why a way to boards could not be asked.

    `heard` is False until the process told of boards for the first time; `ended` says how it ended, '' while it runs.
    """

    boards: tuple[Board, ...] = ()
    faults: tuple[str, ...] = ()
    heard: bool = False
    ended: str = ""


class Boards:
    """The process that watches the boards, seen from the app.

    `listing` is what it told last. `changed` is called after each change of it, in a reading thread: hand over to the
    interface's own thread there. `command` starts the process; tests name another. What it prints goes to `log_path`.
    """

    def __init__(self, command: Sequence[str] | None = None, *, log_path: Path | None = None) -> None:
        self.listing = Listing()
        self.changed: Callable[[], object] = lambda: None
        self._command = list(command) if command is not None else None
        self._log_path = log_path
        self._life: _Life | None = None
        self._visible = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._life is not None and not self._life.over

    @property
    def pid(self) -> int | None:
        """The process's id, None where none was started."""
        return self._life.popen.pid if self._life is not None else None

    def look(self, visible: bool) -> None:
        """Somebody looks at the boards, or no longer does. Who looks first starts the process."""
        self._visible = visible
        if self._life is None and visible:
            self._start()
        elif self._life is not None:
            self._life.write({"visible": visible})

    def refresh(self) -> None:
        """Ask everything again; a process that ended is started again."""
        if self.alive and self._life is not None:
            self._life.write({"refresh": True})
        else:
            self._start()

    def end(self) -> None:
        """End the process, within a bounded time. Never raises."""
        if self._life is not None:
            self._life.end()
            self._life = None

    def _start(self) -> None:
        self.end()
        self.listing = Listing()
        try:
            life = _Life(own_command() if self._command is None else self._command, self._log_path, self._hear)
        except OSError as error:
            reason = error.strerror or str(error)
            self._hear(Listing(ended=f"the process that watches the boards cannot be started: {reason}"))
            return
        self._life = life
        life.write({"visible": self._visible})

    def _hear(self, listing: Listing) -> None:
        self.listing = listing
        self.changed()


class _Life:
    """One life of the process; `tell` gets each listing, in the thread that reads."""

    def __init__(self, command: Sequence[str], log_path: Path | None, tell: Callable[[Listing], object]) -> None:
        self._tell = tell
        self._told = Listing()
        self._stopping = False
        self.over = False
        with contextlib.ExitStack() as files:
            log: IO[bytes] | int = subprocess.DEVNULL
            if log_path is not None:
                with contextlib.suppress(OSError):
                    log = files.enter_context(log_path.open("ab"))
            # In a session of its own: Ctrl+C and a hang-up of the terminal reach the app, which decides.
            self.popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True
            )
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self._stdin: IO[bytes] = self.popen.stdin
        # A process that hangs reads no commands, and nobody may wait for that.
        os.set_blocking(self._stdin.fileno(), False)
        self._reader = threading.Thread(
            target=self._read, args=(cast(io.RawIOBase, self.popen.stdout),), name="boards", daemon=True
        )
        self._reader.start()

    def write(self, command: dict[str, Any]) -> None:
        # A broken pipe needs no word here: the reading thread meets the end of the stream and tells of it.
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(encode(command))

    def end(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            # Its end of input ends it.
            self._stdin.close()
        try:
            self.popen.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(SECONDS_TO_END)
        if threading.current_thread() is not self._reader:
            self._reader.join(SECONDS_TO_END)

    def _read(self, stdout: io.RawIOBase) -> None:
        with io.BufferedReader(stdout) as lines:
            while line := lines.readline(MAX_LINE_BYTES + 1):
                whole = line.endswith(b"\n")
                while line and not line.endswith(b"\n"):
                    line = lines.readline(MAX_LINE_BYTES)
                self._heard(_listing(line, self._told) if whole else _nonsense(self._told, "a line without end"))
        code = self.popen.wait()
        self.over = True
        self._heard(dataclasses.replace(self._told, ended=f"the process that watches the boards ended ({_way(code)})"))

    def _heard(self, listing: Listing) -> None:
        if listing != self._told and not self._stopping:
            self._told = listing
            self._tell(listing)


def _listing(line: bytes, before: Listing) -> Listing:
    try:
        event = decode(line)
        boards = rebuild(tuple[Board, ...], event.get("boards"))
        faults = rebuild(tuple[str, ...], event.get("faults"))
    except (ValueError, TypeError) as error:
        return _nonsense(before, str(error))
    # One row an id: rows are found again by it.
    return Listing(tuple({one.id: one for one in boards}.values()), faults[:MOST_FAULTS], heard=True)


def _nonsense(before: Listing, reason: str) -> Listing:
    # What was told before still holds: one line is missing.
    fault = f"what watches the boards told something that makes no sense: {reason[:200]}"
    if fault in before.faults:
        return before
    return dataclasses.replace(before, faults=(*before.faults[: MOST_FAULTS - 1], fault))


def _way(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def own_command() -> list[str]:
    """What starts the process that watches the boards."""
    return own_process.own_command("engine.devices.watch")
