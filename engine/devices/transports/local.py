"""The board on which this program itself runs."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
import weakref
from pathlib import Path

from engine.devices.closing import Closing
from engine.devices.transport import SECONDS, Completed
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError

LOCAL = "local"
"""What the machine itself is called where a board is named."""


class LocalTransport(Closing):
    """The way to the machine itself: its shell, its files, its loopback address. See engine.devices.transport."""

    def __init__(self) -> None:
        self.id = LOCAL
        self._streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, command: str, *, seconds: float = SECONDS, data: bytes = b"") -> Completed:
        """Run a line of shell; it and what it started is killed where it takes longer than `seconds`."""
        self._check()
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"no shell can be started: {error}", where=self.id) from None
        with process:
            try:
                out, err = process.communicate(data, timeout=seconds)
            except subprocess.TimeoutExpired:
                raise DeviceTimeoutError(
                    f"a command did not end within {seconds:g} s: {command[:200]}", where=self.id
                ) from None
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        return Completed(process.returncode, out, err)

    def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
        """Write a file."""
        self._check()
        try:
            # Its mode from the first byte on, whatever was there before.
            Path(path).unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            what = "the disk is full" if full else f"cannot be written: {error.strerror}"
            raise DeviceError(f"{path}: {what}", where=self.id, hint="make room there" if full else "") from None

    def connect(self, port: int, *, seconds: float = SECONDS) -> socket.socket:
        """A stream to a port of this machine."""
        self._check()
        try:
            stream = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        except TimeoutError:
            raise DeviceTimeoutError(f"port {port} does not answer", where=self.id) from None
        except OSError as error:
            raise DeviceLostError(f"nothing listens on port {port}: {error.strerror}", where=self.id) from None
        with self._lock:
            self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End the streams that are open."""
        self._closed = True
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            # Wakes a thread that waits at it, which closing alone does not do.
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()

    def _check(self) -> None:
        if self._closed:
            raise DeviceLostError("the way to the board was closed", where=self.id)
