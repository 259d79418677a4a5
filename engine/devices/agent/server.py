"""What the agent does for its clients: it takes connections, and answers the requests of each."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import select
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Callable  # noqa: UP035 - Python 3.7 has it there

from .dump_files import collect
from .frequency import Clock
from .models import Model, free_memory
from .packages import version_of
from .protocol import (
    BLOB_LIMIT,
    HANDSHAKE_SECONDS,
    PROTOCOL,
    Blobs,
    Ended,
    Fault,
    Frames,
    Header,
    Late,
    Refused,
    greet,
)
from .uploads import Uploads

SILENT_SECONDS = 3600.0
"""A client that has asked nothing for so long counts as gone: a cut cable is not always told of."""
MOST_CONNECTIONS = 16
MOST_STRANGERS = 4
"""Connections that have not shown the token; they end after HANDSHAKE_SECONDS."""
MOST_MODELS = 16
_SMALL = 1 << 20
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an agent was started with.

    `folder` is its own; `command` starts the process of a model; `library` is the vendor's, '' for none; `devices` and
    `meminfo` are the kernel's. `digest` is the SHA-256 of the agent's own file.
    """

    folder: Path
    command: tuple[str, ...]
    library: str
    devices: str
    meminfo: str
    idle: float
    digest: str = ""


class Server:
    """Serves on a socket of the loopback address until a client says so, nobody comes any more, or `stop` is called."""

    def __init__(self, settings: Settings, token: bytes, listener: socket.socket) -> None:
        self.settings = settings
        self.clock = Clock(settings.folder, settings.devices)
        self.uploads = Uploads(settings.folder)
        self._token, self._listener = token, listener
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._known = 0
        self._left = time.monotonic()
        self._stopping = False
        self._ended = False
        self._end_lock = threading.Lock()
        self._models: set[Model] = set()

    def serve(self) -> None:
        """Take connections until it is over. Then nothing of the agent is left on the board."""
        try:
            while not self._stopping:
                with self._lock:
                    idle = self.settings.idle - (time.monotonic() - self._left) if not self._known else None
                if idle is not None and idle <= 0:
                    break
                found, _, _ = select.select([self._listener, self._woken], [], [], idle)
                if self._woken in found:
                    self._woken.recv(1024)
                if self._listener in found:
                    self._accept()
        finally:
            self._listener.close()
            self.end()
            with self._lock:
                left = dict(self._connections)
            for stream in left.values():
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RD)
            for thread in left:
                thread.join(2.0)
            self._wake.close()
            self._woken.close()

    def stop(self) -> None:
        """End `serve` soon; may be called by a signal's handler."""
        self._stopping = True
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def end(self) -> None:
        """End every model, give back the clock, and remove the agent's folder."""
        with self._end_lock:
            if self._ended:
                return
            self._ended = True
            self._stopping = True
            with self._lock:
                models = list(self._models)
            _end_all(models)
            self.clock.restore()
            shutil.rmtree(self.settings.folder, ignore_errors=True)

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        with self._lock:
            strangers = len(self._connections) - self._known
            if len(self._connections) >= MOST_CONNECTIONS or strangers >= MOST_STRANGERS:
                stream.close()
                return
            thread = threading.Thread(target=self._connection, args=(stream,), daemon=True)
            self._connections[thread] = stream
        thread.start()

    def _connection(self, stream: socket.socket) -> None:
        known = False
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            frames = greet(stream, self._token, time.monotonic() + HANDSHAKE_SECONDS)
            known = True
            with self._lock:
                self._known += 1
            # The loop waits for the end of idleness no more.
            self._nudge()
            Connection(self, frames).serve()
        except (Ended, Late, Refused, OSError):
            pass
        finally:
            stream.close()
            with self._lock:
                del self._connections[threading.current_thread()]
                if known:
                    self._known -= 1
                    self._left = time.monotonic()
            self._nudge()

    def started(self, model: Model) -> None:
        """Take note of a model, which ends with the agent. Raises Fault where the agent is ending."""
        with self._lock:
            if not self._ended and len(self._models) < MOST_MODELS:
                self._models.add(model)
                return
        model.end()
        raise Fault("request", f"there are {MOST_MODELS} models open already", "close one of them")

    def ended(self, models: list[Model]) -> None:
        """End models, all at once."""
        _end_all(models)
        with self._lock:
            self._models.difference_update(models)

    def too_many(self, size: int) -> str:
        """Why so many bytes cannot be taken, '' if they can."""
        if size <= _SMALL:
            return ""
        free = free_memory(self.settings.meminfo)
        return f"{free} bytes are free on the board" if free is not None and size > free // 2 else ""


class Connection:
    """The requests of one client, and what ends with it."""

    def __init__(self, server: Server, frames: Frames) -> None:
        self._server, self._frames, self._settings = server, frames, server.settings
        self._models: dict[int, Model] = {}
        self._dumps: dict[int, Path] = {}
        self._next = 1
        self._pinned = False
        self._over = False
        self._calls: dict[str, Callable[[Header, list[bytearray]], tuple[Header, Blobs]]] = {
            "hello": self._hello,
            "have": self._have,
            "upload": self._upload,
            "load": self._load,
            "run": self._relay,
            "measure": self._relay,
            "layers": self._relay,
            "memory": self._relay,
            "dump": self._dump,
            "fetch": self._fetch,
            "pin": self._pin,
            "unload": self._unload,
            "shutdown": self._shutdown,
        }
        self._upload_key = f"{id(self):x}"

    def serve(self) -> None:
        """Answer until the client goes."""
        try:
            while not self._over:
                self._one()
        finally:
            self._server.uploads.drop(self._upload_key)
            self._server.ended(list(self._models.values()))
            if self._pinned:
                self._server.clock.restore()

    def _one(self) -> None:
        try:
            header, blobs = self._frames.receive(time.monotonic() + SILENT_SECONDS, self._server.too_many)
        except Refused as refused:
            self._frames.send(Fault("request", str(refused)).header(), (), time.monotonic() + 1.0)
            _drain(self._frames.socket)
            raise
        told, content = self._answer(header, blobs)
        told["id"] = header.get("id")
        size = sum(len(one) for one in content)
        if size > BLOB_LIMIT:
            told, content = Fault("agent", f"the answer has {size} bytes, over the limit of {BLOB_LIMIT}").header(), []
            told["id"] = header.get("id")
        self._frames.send(told, content, time.monotonic() + SILENT_SECONDS)

    def _answer(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        try:
            call = self._calls.get(str(header.get("call")))
            if call is None:
                raise Fault("request", f"there is no call {header.get('call')!r}")
            return call(header, blobs)
        except Fault as fault:
            return fault.header(), []
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return Fault("request", f"a request of no sense: {error!r}").header(), []
        except OSError as error:
            return Fault("agent", f"the board's system refuses: {error}").header(), []

    def _hello(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        library = self._settings.library
        return {
            "protocol": PROTOCOL,
            "agent": self._settings.digest,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "library": bool(library) and Path(library).is_file(),
            "onnxruntime": version_of("onnxruntime"),
        }, []

    def _have(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        return {"have": self._server.uploads.path_of(header["sha256"]) is not None}, []

    def _upload(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        size = int(header["size"])
        self._server.uploads.take(self._upload_key, header["sha256"], size, int(header["offset"]), blobs[0])
        return {}, []

    def _load(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        path = self._server.uploads.path_of(header["sha256"])
        if path is None:
            raise Fault("request", "the model was not sent")
        self._check_memory(path.stat().st_size)
        number, self._next = self._next, self._next + 1
        options = dict(header["options"])
        environment = {}
        if options.get("dump"):
            self._dumps[number] = self._settings.folder / f"dump-{self._upload_key}-{number}"
            self._dumps[number].mkdir(0o700)
            environment["RKNN_DUMP_DIR"] = str(self._dumps[number])
        model = Model(self._settings.command, environment)
        self._server.started(model)
        self._models[number] = model
        request = {
            "call": "open",
            "kind": header["kind"],
            "path": str(path),
            "library": self._settings.library,
            "options": options,
        }
        try:
            told, _ = model.ask(request, (), _seconds(header), self._frames.socket)
        except Fault:
            self._close(number)
            raise
        return dict(told, model=number, pid=model.pid), []

    def _check_memory(self, size: int) -> None:
        """A runtime keeps a copy of the file besides the file; what does not fit would end other programs."""
        free = free_memory(self._settings.meminfo)
        if free is not None and free < 2 * size:
            raise Fault(
                "memory",
                f"the model has {size} bytes and takes about twice that, but {free} bytes are free on the board",
                "end other programs there",
            )

    def _relay(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        number = int(header["model"])
        if number not in self._models:
            raise Fault("request", "the model is not open any more", "load it again")
        model = self._models[number]
        try:
            return model.ask(header, blobs, _seconds(header), self._frames.socket)
        except Fault:
            if not model.alive:
                self._close(number)
            raise

    def _dump(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        folder = self._dumps.get(int(header["model"]))
        if folder is None:
            raise Fault("request", "the model was not loaded for dumps")
        self._relay(dict(header, call="run"), blobs)
        return {"files": collect(folder)}, []

    def _fetch(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        folder = self._dumps[int(header["model"])]
        name = dict(collect(folder)).get(header["name"])
        if name is None:
            raise Fault("request", "there is no such dump")
        path = folder / header["name"]
        with path.open("rb") as file:
            content = file.read(BLOB_LIMIT + 1)
        path.unlink()
        return {}, [content]

    def _pin(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        hertz = header.get("hertz")
        held = self._server.clock.pin(None if hertz is None else int(hertz))
        self._pinned = True
        return {"hertz": held}, []

    def _unload(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        self._close(int(header["model"]))
        return {}, []

    def _close(self, number: int) -> None:
        model = self._models.pop(number, None)
        if model is not None:
            self._server.ended([model])
        folder = self._dumps.pop(number, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _shutdown(self, header: Header, blobs: list[bytearray]) -> tuple[Header, Blobs]:
        self._over = True
        self._server.end()
        self._server.stop()
        return {}, []


def _seconds(header: Header) -> float:
    """How long a client gives a request; a day at most, whatever it says."""
    return min(max(float(header["seconds"]), 0.001), 86400.0)


def _end_all(models: list[Model]) -> None:
    """End models at once, since each may take seconds."""
    threads = [threading.Thread(target=model.end, daemon=True) for model in models[1:]]
    for thread in threads:
        thread.start()
    for model in models[:1]:
        model.end()
    for thread in threads:
        thread.join()


def _drain(stream: socket.socket) -> None:
    """Take what a refused client goes on sending, for a moment: a close in the midst of it would take away the answer
    that is on its way to the client."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    left = _DRAIN_BYTES
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_WR)
        while left > 0 and time.monotonic() < deadline:
            stream.settimeout(max(deadline - time.monotonic(), 0.001))
            part = stream.recv(_SMALL)
            if not part:
                return
            left -= len(part)
