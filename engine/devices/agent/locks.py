"""Locks that hold for a whole board: one process at a time, and nothing is left of them when that process is killed."""

from __future__ import annotations

import errno
import hashlib
import socket
import time
from types import TracebackType

from .protocol import Fault

_PAUSE = 0.002


class BoardLock:
    """A lock by the name of an abstract Unix socket, which the kernel takes away with the process that holds it.

    `purpose` tells the locks of one board apart; `folder` is where agents of that board live, the same for all of
    them. As a context manager it waits for `seconds`, and then raises Fault of the kind 'busy' with `busy` as its text.
    """

    def __init__(self, purpose: str, folder: str, seconds: float, busy: str) -> None:
        name = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._address = f"\0rknn-tui-{purpose}-{name}"
        self.seconds = seconds
        self._busy = busy
        self._held: socket.socket | None = None

    def acquire(self, seconds: float) -> bool:
        """Take the lock; whether that was possible in time."""
        deadline = time.monotonic() + seconds
        while True:
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                holder.bind(self._address)
                holder.listen(64)
            except OSError as error:
                holder.close()
                if error.errno != errno.EADDRINUSE:
                    # A system without such sockets, or one that forbids them, is better used without turns than not.
                    return True
            else:
                self._held = holder
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._await_release(left)

    def _await_release(self, seconds: float) -> None:
        """Wait for the end of a connection to the holder, which never answers: it comes when the holder lets go."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
            waiting.settimeout(seconds)
            try:
                waiting.connect(self._address)
                waiting.recv(1)
            except OSError:
                time.sleep(min(_PAUSE, seconds))

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> BoardLock:
        if not self.acquire(self.seconds):
            raise Fault("busy", self._busy, "wait until it is done, or end it")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def npu_lock(folder: str, seconds: float) -> BoardLock:
    """What a process holds while it lets the NPU work, so that times are of one model alone."""
    return BoardLock("npu", folder, seconds, f"another program uses the board's NPU, for {seconds:.0f} s already")


def clock_lock(folder: str) -> BoardLock:
    """What an agent holds while it has changed the NPU's clock, so that each restores what the other did not set."""
    return BoardLock("clock", folder, 0.0, "another program holds the NPU's clock")
