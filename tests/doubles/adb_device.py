"""The board's end of the adb protocol, over TCP, for a FakeBoard."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import threading
from pathlib import Path

from tests.doubles.fake_board import FakeBoard
from tests.doubles.own_adb_server import AdbServer, adb_found, free_port, running_adb_server, wait_for

__all__ = ["AdbDevice", "AdbServer", "adb_found", "free_port", "running_adb_server", "wait_for"]

MAX_PAYLOAD = 1 << 20
_HEADER = struct.Struct("<4sIIII4s")


class AdbDevice:
    """Listens on 127.0.0.1 as the adbd of `board`; `address` is what `adb connect` takes: its serial number.

    `shell_v2=False` is an old adbd; `authorized=False` one that accepts no key. Use it in a `with` block.
    """

    def __init__(self, board: FakeBoard, *, shell_v2: bool = True, authorized: bool = True) -> None:
        self.board, self.shell_v2, self.authorized = board, shell_v2, authorized
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        board.cut = self.unplug
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._plugged = True
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> AdbDevice:
        return self

    def __exit__(self, *failure: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.unplug()
        self._thread.join(5)

    def unplug(self) -> None:
        """Cut every connection, and take no new one."""
        with self._lock:
            self._plugged = False
            links = list(self._links)
        for link in links:
            link.end()

    def plug(self) -> None:
        """Take connections again; `adb connect` has to be run anew."""
        with self._lock:
            self._plugged = True

    def banner(self) -> bytes:
        features = "shell_v2,cmd" if self.shell_v2 else "cmd"
        name = self.board.chip
        fields = (f"name={name}", f"model={name}_evb", f"device={name}")
        return f"device::{';'.join('ro.product.' + field for field in fields)};features={features}".encode()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._plugged:
                    connection.close()
                    continue
                link = _Link(self, connection)
                self._links.add(link)
            threading.Thread(target=link.serve, daemon=True).start()

    def forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One connection of an adb server."""

    def __init__(self, device: AdbDevice, connection: socket.socket) -> None:
        self.device, self.board = device, device.board
        self._socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writing = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 1

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, command: bytes, first: int, second: int, data: bytes | memoryview = b"") -> None:
        magic = bytes(byte ^ 0xFF for byte in command)
        with self._writing, contextlib.suppress(OSError):
            self._socket.sendall(_HEADER.pack(command, first, second, len(data), 0, magic) + bytes(data))

    def serve(self) -> None:
        try:
            with self._socket, self._socket.makefile("rb", 1 << 20) as reader:
                while len(header := reader.read(24)) == 24:
                    command, first, second, size, _, _ = _HEADER.unpack(header)
                    self._take(command, first, second, reader.read(size))
        except (OSError, ValueError):
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.closed()
            self.device.forget(self)

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN" and self.device.authorized:
            self.send(b"CNXN", 0x01000001, MAX_PAYLOAD, self.device.banner())
        elif command in (b"CNXN", b"AUTH"):
            # Asks for another signature each time; a key that is offered is never accepted.
            if command == b"CNXN" or first == 2:
                self.send(b"AUTH", 1, 0, os.urandom(20))
        elif command == b"OPEN":
            self._open(first, data.rstrip(b"\0").decode("utf-8", "replace"))
        elif second in self._streams:
            stream = self._streams[second]
            if command == b"WRTE":
                stream.received(data)
            elif command == b"OKAY":
                stream.acknowledged.release()
            elif command == b"CLSE":
                stream.closed()

    def _open(self, remote: int, service: str) -> None:
        local, self._next = self._next, self._next + 1
        kind, _, rest = service.partition(":")
        stream: _Stream
        if kind == "sync":
            stream = _Sync(self, local, remote)
        elif kind == "tcp":
            try:
                stream = _Tcp(self, local, remote, int(rest))
            except OSError:
                self.send(b"CLSE", 0, remote)
                return
        elif kind.split(",")[0] == "shell":
            stream = _Shell(self, local, remote, rest, v2="v2" in kind.split(","))
        else:
            self.send(b"CLSE", 0, remote)
            return
        self._streams[local] = stream
        self.send(b"OKAY", local, remote)
        stream.run()

    def remove(self, local: int) -> None:
        self._streams.pop(local, None)


class _Stream:
    """One service. What it writes waits for the other end's acknowledgement, as the protocol wants."""

    def __init__(self, link: _Link, local: int, remote: int) -> None:
        self.link, self.board, self.local, self.remote = link, link.board, local, remote
        self.acknowledged = threading.Semaphore(1)
        self._over = threading.Event()
        self._order = threading.Lock()

    def run(self) -> None:
        """Begin; must not block."""

    def received(self, data: bytes) -> None:
        """Take in what came; acknowledge it."""

    def ready(self) -> None:
        self.link.send(b"OKAY", self.local, self.remote)

    def write(self, data: bytes | memoryview) -> None:
        with self._order:
            view = memoryview(data)
            for at in range(0, len(view), MAX_PAYLOAD):
                self.acknowledged.acquire()
                if self._over.is_set():
                    return
                self.link.send(b"WRTE", self.local, self.remote, view[at : at + MAX_PAYLOAD])

    def finish(self) -> None:
        """End the stream from this end, after what was written."""
        if not self._over.is_set():
            self._over.set()
            self.link.send(b"CLSE", self.local, self.remote)
        self.link.remove(self.local)

    def closed(self) -> None:
        """The other end has gone."""
        self._over.set()
        self.acknowledged.release(8)
        self.link.remove(self.local)
        self.ended()

    def ended(self) -> None:
        """Let go of what the service held."""


class _Shell(_Stream):
    def __init__(self, link: _Link, local: int, remote: int, command: str, *, v2: bool) -> None:
        super().__init__(link, local, remote)
        self._command, self._v2, self._waiting = command, v2, bytearray()
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self._process = self.board.start(self._command, merged=not self._v2)
        threading.Thread(target=self._work, args=(self._process,), daemon=True).start()
        threading.Thread(target=self._feed, daemon=True).start()

    def _work(self, process: subprocess.Popen[bytes]) -> None:
        pumps = [threading.Thread(target=self._pump, args=(process.stdout, 1), daemon=True)]
        if process.stderr is not None:
            pumps.append(threading.Thread(target=self._pump, args=(process.stderr, 2), daemon=True))
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        code = process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._v2:
            self.write(struct.pack("<BIB", 3, 1, code & 0xFF if code >= 0 else 128 - code))
        self._inbox.put(None)
        self.finish()

    def _pump(self, pipe: object, kind: int) -> None:
        while piece := os.read(pipe.fileno(), 1 << 16):  # type: ignore[attr-defined]
            told = self.board.told(piece)
            # The first protocol goes through a terminal.
            self.write(struct.pack("<BI", kind, len(told)) + told if self._v2 else told.replace(b"\n", b"\r\n"))

    def received(self, data: bytes) -> None:
        self._inbox.put(data)

    def _feed(self) -> None:
        while (data := self._inbox.get()) is not None:
            self._feed_one(data)
            self.ready()

    def _feed_one(self, data: bytes) -> None:
        self._waiting += data
        assert self._process is not None and self._process.stdin is not None
        while self._v2 and len(self._waiting) >= 5:
            kind, size = struct.unpack_from("<BI", self._waiting)
            if len(self._waiting) < 5 + size:
                break
            piece = bytes(self._waiting[5 : 5 + size])
            del self._waiting[: 5 + size]
            with contextlib.suppress(OSError, ValueError):
                if kind == 0:
                    self._process.stdin.write(piece)
                    self._process.stdin.flush()
                elif kind == 3:
                    self._process.stdin.close()

    def ended(self) -> None:
        self._inbox.put(None)
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, 1)


class _Tcp(_Stream):
    def __init__(self, link: _Link, local: int, remote: int, port: int) -> None:
        super().__init__(link, local, remote)
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()
        threading.Thread(target=self._feed, daemon=True).start()

    def _work(self) -> None:
        with self._socket:
            with contextlib.suppress(OSError):
                while piece := self._socket.recv(1 << 18):
                    self.write(piece)
            self.finish()
            self._inbox.put(None)

    def received(self, data: bytes) -> None:
        self._inbox.put(data)

    def _feed(self) -> None:
        while (data := self._inbox.get()) is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(data)
            self.ready()

    def ended(self) -> None:
        self._inbox.put(None)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _Sync(_Stream):
    """Files: SEND, RECV and STAT of the first version."""

    def __init__(self, link: _Link, local: int, remote: int) -> None:
        super().__init__(link, local, remote)
        self._waiting = bytearray()
        self._file: object = None
        self._path, self._mode, self._refused = Path(), 0, ""

    def received(self, data: bytes) -> None:
        self._waiting += data
        self.ready()
        at = 0
        while len(self._waiting) - at >= 8:
            name, size = struct.unpack_from("<4sI", self._waiting, at)
            content = 0 if name in (b"DONE", b"QUIT") else size
            if len(self._waiting) - at - 8 < content:
                break
            piece = self._waiting[at + 8 : at + 8 + content]
            at += 8 + content
            self._take(bytes(name), piece)
        del self._waiting[:at]

    def _take(self, name: bytes, piece: bytearray) -> None:
        if name == b"STAT":
            try:
                found = self._place(piece.decode()).stat()
                answer = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
            except OSError:
                answer = (0, 0, 0)
            self.write(struct.pack("<4sIII", b"STAT", *answer))
        elif name == b"SEND":
            path, _, mode = piece.decode().rpartition(",")
            self._path, self._mode, self._refused = self._place(path), int(mode) & 0o777, ""
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("wb")
            except OSError as error:
                self._fail(str(error.strerror))
        elif name == b"DATA" and not self._refused:
            if self.board.room(len(piece)):
                self._file.write(piece)  # type: ignore[attr-defined]
            else:
                self._fail("write failed: No space left on device")
                self._path.unlink(missing_ok=True)
        elif name == b"DONE" and not self._refused:
            self._file.close()  # type: ignore[attr-defined]
            if self._path.suffix == ".sh":
                # Paths in a script would otherwise be this machine's own.
                self._path.write_text(self.board.rewritten(self._path.read_text()))
            # adbd gives to group and others what the owner may.
            self._path.chmod(self._mode | self._mode >> 3 & 0o070 | self._mode >> 3 & 0o007)
            self.write(struct.pack("<4sI", b"OKAY", 0))
        elif name == b"RECV":
            try:
                content = self._place(piece.decode()).read_bytes()
            except OSError as error:
                self._fail(str(error.strerror))
                return
            threading.Thread(target=self._give, args=(content,), daemon=True).start()
        elif name == b"QUIT":
            self.finish()

    def _give(self, content: bytes) -> None:
        for at in range(0, len(content), 1 << 16):
            piece = content[at : at + (1 << 16)]
            self.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        self.write(struct.pack("<4sI", b"DONE", 0))

    def _place(self, path: str) -> Path:
        return self.board.path(path)

    def _fail(self, text: str) -> None:
        self._refused = text
        self.ended()
        # From a thread of its own: this one has to read the acknowledgement.
        said = struct.pack("<4sI", b"FAIL", len(text)) + text.encode()
        threading.Thread(target=self.write, args=(said,), daemon=True).start()

    def ended(self) -> None:
        if self._file is not None:
            self._file.close()  # type: ignore[attr-defined]
