"""What every way to a board can do: run a command there, put a file there, and open a stream to a port of it."""

from __future__ import annotations

import dataclasses
import socket
from typing import Protocol

from engine.errors import DeviceError

SECONDS = 10.0
"""The longest that a command on a board may take, where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Completed:
    """A command that ended: its exit code, and what it wrote."""

    code: int
    out: bytes
    err: bytes


class Transport(Protocol):
    """A way to one board. Every call ends within `seconds`, whatever the board does.

    Calls raise DeviceLostError where the board is gone or was never there, DeviceTimeoutError where it does not answer
    in time, and DeviceError for everything else that goes wrong on the way. They may be made from several threads.
    """

    id: str
    """What the board is called: see engine.boards.Board."""

    def run(self, command: str, *, seconds: float = SECONDS, data: bytes = b"") -> Completed:
        """Run a line of POSIX shell on the board, with `data` as its standard input."""

    def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
        """Write a file on the board; its folder exists. A disk that is full is an error that says so."""

    def connect(self, port: int, *, seconds: float = SECONDS) -> socket.socket:
        """A stream to `port` of the board's own loopback address; nothing listens for it on this computer."""

    def close(self) -> None:
        """Let go of the way to the board. Streams that are open go with it."""

    def __enter__(self) -> Transport: ...

    def __exit__(self, *failure: object) -> None: ...


def checked(transport: Transport, command: str, *, seconds: float = SECONDS, data: bytes = b"") -> str:
    """What a command wrote, as text. Raises DeviceError with what it wrote to standard error where it failed."""
    done = transport.run(command, seconds=seconds, data=data)
    if done.code:
        said = done.err.decode("utf-8", "replace").strip() or done.out.decode("utf-8", "replace").strip()
        raise DeviceError(f"a command failed with exit code {done.code}: {said[-500:]}", where=transport.id)
    return done.out.decode("utf-8", "replace")
