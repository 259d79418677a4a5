"""The way to a board over adb: commands, files and streams through the adb server that runs already."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import socket
import stat
import struct
import threading
import time
import weakref

from engine.devices.adb_server import Address, Connection, server_address
from engine.devices.closing import Closing
from engine.devices.transport import SECONDS, Completed
from engine.errors import DeviceError

MAX_OUTPUT_BYTES = 64 << 20
"""The most that a command may write: a board is not trusted with this computer's memory."""
CHUNK_BYTES = 64 << 10
"""The most that adb takes in one piece of a file."""
SCRATCH = ("/data/local/tmp", "/tmp", "/userdata")
LONG_COMMAND = 1000
"""Boards with the first adb protocol take 4096 bytes for all of a command."""

_OUT, _ERR, _EXIT, _CLOSE_INPUT = 1, 2, 3, 3
_FAILED_TEXT = 4096


class AdbTransport(Closing):
    """A board that adb lists as `serial`. Nothing is asked before the first call."""

    def __init__(self, serial: str, address: Address | None = None) -> None:
        self.id = serial
        self._address = address
        self._features: frozenset[str] | None = None
        self._lock = threading.Lock()
        self._streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def close(self) -> None:
        """End the streams that are open."""
        with self._lock:
            streams = list(self._streams)
            self._streams.clear()
        for stream in streams:
            # Closing alone wakes no thread that waits for the stream.
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()

    def features(self, seconds: float = SECONDS) -> frozenset[str]:
        """What the board's adbd says that it can, such as 'shell_v2'."""
        if self._features is None:
            connection = self._server(seconds)
            try:
                connection.ask(f"host-serial:{self.id}:features")
                self._features = frozenset(connection.block().decode("utf-8", "replace").strip().split(","))
            finally:
                connection.close()
        return self._features

    def run(self, command: str, *, seconds: float = SECONDS, data: bytes = b"") -> Completed:
        """Run a line of POSIX shell; see Transport. Boards with adb's first protocol write both streams to one."""
        if "\0" in command:
            raise DeviceError("a command for the board holds a NUL character", where=self.id)
        end = time.monotonic() + seconds
        if "shell_v2" in self.features(seconds):
            return self._run(command, data, end)
        return self._run_first(command, data, end)

    def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
        """Write a file; see Transport. Its size is compared with what the board has afterwards."""
        end = time.monotonic() + seconds
        self._send(data, path, mode, end)
        # adbd widens the mode to all users by what the owner may.
        quoted = shlex.quote(path)
        done = self.run(f"chmod {mode:o} {quoted} && wc -c < {quoted}", seconds=_left(end))
        size = done.out.strip()
        if done.code or size != b"%d" % len(data):
            told = (done.err or done.out).decode("utf-8", "replace").strip()[-300:]
            raise DeviceError(
                f"{path} did not arrive as it was sent: {told or 'nothing'} instead of {len(data)} bytes",
                where=self.id,
                hint="is the board's disk full?",
            )

    def connect(self, port: int, *, seconds: float = SECONDS) -> socket.socket:
        """A stream to `port` of the board's loopback address; its time-out is `seconds`."""
        if not 0 < port < 1 << 16:
            raise DeviceError(f"{port} is no port", where=self.id)
        connection = self._board(seconds)
        try:
            connection.ask(f"tcp:{port}")
        except BaseException:
            connection.close()
            raise
        stream = connection.taken()
        stream.settimeout(seconds)
        with self._lock:
            self._streams.add(stream)
        return stream

    def _server(self, seconds: float) -> Connection:
        return Connection(self._address or server_address(), seconds, device=self.id)

    def _board(self, seconds: float) -> Connection:
        """A connection that speaks with the board."""
        connection = self._server(seconds)
        try:
            connection.ask(f"host:transport:{self.id}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _run(self, command: str, data: bytes, end: float) -> Completed:
        connection = self._board(_left(end))
        try:
            connection.ask(f"shell,v2,raw:{command}")
            pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
            # Sent while the output is read: a command that writes before it has read all would block both ends.
            waiting = memoryview(
                b"".join(struct.pack("<BI", 0, len(piece)) + piece for piece in pieces)
                + struct.pack("<BI", _CLOSE_INPUT, 0)
            )
            out, err = bytearray(), bytearray()
            received = bytearray()
            stream = connection.taken()
            while True:
                readable, writable = connection.ready(writing=bool(waiting))
                if writable and waiting:
                    try:
                        waiting = waiting[stream.send(waiting[:CHUNK_BYTES]) :]
                    except OSError:
                        # The command's end closes its input; what it wrote is still to come.
                        waiting = waiting[len(waiting) :]
                if not readable:
                    continue
                piece = connection.some(1 << 18)
                if not piece:
                    raise connection.lost()
                received += piece
                at = 0
                while len(received) - at >= 5:
                    kind, size = struct.unpack_from("<BI", received, at)
                    if size > MAX_OUTPUT_BYTES:
                        raise DeviceError("the board's adbd writes what is not its protocol", where=self.id)
                    if len(received) - at - 5 < size:
                        break
                    part = received[at + 5 : at + 5 + size]
                    at += 5 + size
                    if kind == _EXIT:
                        return Completed(part[0] if part else 255, bytes(out), bytes(err))
                    if kind in (_OUT, _ERR):
                        (out if kind == _OUT else err).extend(part)
                    if len(out) + len(err) > MAX_OUTPUT_BYTES:
                        raise DeviceError("a command wrote more than 64 MB", where=self.id)
                del received[:at]
        finally:
            connection.close()

    def _run_first(self, command: str, data: bytes, end: float) -> Completed:
        """By the first protocol: a terminal without exit codes, and no end of input."""
        marker = secrets.token_hex(8)
        line, files = command, []
        if data or len(command) > LONG_COMMAND:
            folder = self._scratch(end)
            name = f"{folder}/rknn-tui-{secrets.token_hex(6)}"
            files = [f"{name}.sh", f"{name}.in"]
            for path, content in zip(files, (command.encode("utf-8"), data), strict=True):
                self._send(content, path, 0o600, end)
            line = f"sh {files[0]} < {files[1]}"
        else:
            line = f"sh -c {shlex.quote(command)} < /dev/null"
        remove = f"; rm -f {' '.join(files)}" if files else ""
        connection = self._board(_left(end))
        try:
            connection.ask(f"shell:{line}; echo {marker}$?{remove}")
            out = bytearray()
            while piece := connection.some(1 << 16):
                out += piece
                if len(out) > MAX_OUTPUT_BYTES:
                    raise DeviceError("a command wrote more than 64 MB", where=self.id)
            # The terminal ends lines with both characters.
            text = bytes(out).replace(b"\r\n", b"\n")
            found = re.search(rb"%b(\d{1,3})\s*\Z" % marker.encode("ascii"), text)
            if found is None:
                raise connection.lost()
            return Completed(int(found[1]), text[: found.start()], b"")
        finally:
            connection.close()

    def _scratch(self, end: float) -> str:
        """A folder for the files of a command. adbd would make one that is not there."""
        for folder in SCRATCH:
            connection = self._board(_left(end))
            try:
                connection.ask("sync:")
                path = f"{folder}/".encode()
                connection.write(b"STAT" + struct.pack("<I", len(path)) + path)
                _, mode, _, _ = struct.unpack("<4sIII", connection.exactly(16))
            finally:
                connection.close()
            if stat.S_ISDIR(mode):
                return folder
        raise DeviceError(f"the board has none of {', '.join(SCRATCH)}", where=self.id)

    def _send(self, data: bytes, path: str, mode: int, end: float) -> None:
        connection = self._board(_left(end))
        try:
            connection.ask("sync:")
            target = f"{path},{stat.S_IFREG | mode}".encode()
            connection.write(b"SEND" + struct.pack("<I", len(target)) + target)
            view = memoryview(data)
            for at in range(0, len(data), CHUNK_BYTES):
                piece = view[at : at + CHUNK_BYTES]
                connection.write(b"DATA" + struct.pack("<I", len(piece)) + piece)
                if connection.waiting():
                    # The board refuses in the middle, as with a full disk.
                    break
            else:
                connection.write(b"DONE" + struct.pack("<I", int(time.time())))
            status, size = struct.unpack("<4sI", connection.exactly(8))
            if status == b"OKAY":
                return
            told = connection.exactly(min(size, _FAILED_TEXT)).decode("utf-8", "replace") if status == b"FAIL" else ""
        finally:
            connection.close()
        full = "no space" in told.lower()
        raise DeviceError(
            f"{path} cannot be written: {'the disk is full' if full else told or 'adbd answers amiss'}",
            where=self.id,
            hint="make room on the board" if full else "",
        )


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())
