"""The engine in a process of its own: requests come in as JSON lines, progress, results and errors go out.

A request is `{"id", "method", "params"}` or `{"cancel": id}`. Requests run one at a time, in order, in a thread of
their own, so that a cancel is heard while one runs; searches run in a second one, and pause while the first has
something to do. The end of input ends the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import io
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, Any

from engine.errors import Cancelled, EngineError, OrderError, nearest
from engine.host_protocol import BACKGROUND, MAX_REQUEST_BYTES, METHODS, decode, encode, error_event
from engine.progress import Progress
from engine.summaries import to_plain

SECONDS_BETWEEN_PROGRESS = 0.25
SECONDS_TO_CLEAN_UP = 1.0
"""How long a cancelled job may take to remove its unfinished files once nobody listens any more."""

SessionFactory = Callable[[], Any]


class ThrottledProgress:
    """Passes on at most four reports a second, and always the first and the last of each stage."""

    def __init__(self, report: Callable[[str, int, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._stage: str | None = None
        self._sent_at = 0.0
        self._held: tuple[str, int, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.flush()
            due = True
        else:
            due = done == total or self._clock() - self._sent_at >= SECONDS_BETWEEN_PROGRESS
        self._stage = stage
        self._held = (stage, done, total)
        if due:
            self.flush()

    def flush(self) -> None:
        """Send the report that was held back, if any."""
        if self._held is not None:
            held, self._held = self._held, None
            self._sent_at = self._clock()
            self._report(*held)


@dataclasses.dataclass(frozen=True, eq=False)
class _Request:
    """A message that asks for something, and whether it is wanted no longer."""

    message: dict[str, Any]
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def name(self) -> Any:
        """The id by which it is answered."""
        return self.message.get("id")


class _Lanes:
    """Runs requests in order in one thread, and those of BACKGROUND in another, which waits while the first has work.

    The first owns the session. A background request gets a session of its own over the model as it is when its turn in
    the first would have come.
    """

    def __init__(self, factory: SessionFactory, send: Callable[[dict[str, Any]], None]) -> None:
        self._factory = factory
        self._send = send
        self._session: Any = None
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._aside: queue.SimpleQueue[tuple[Any, _Request] | None] = queue.SimpleQueue()
        self._pending: dict[Any, _Request] = {}
        # Guards the number of requests that the first thread has yet to finish.
        self._turn = threading.Condition()
        self._unfinished = 0
        self._threads = [
            threading.Thread(target=self._run, name="engine", daemon=True),
            threading.Thread(target=self._run_aside, name="engine background", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, message: dict[str, Any]) -> None:
        request = self._pending[message.get("id")] = _Request(message)
        with self._turn:
            self._unfinished += 1
        self._requests.put(request)

    def cancel(self, name: Any) -> None:
        request = self._pending.get(name)
        if request is not None:
            with self._turn:
                request.cancelled.set()
                self._turn.notify_all()

    def finish(self, seconds: float) -> None:
        """Cancel everything, and wait until what runs has noticed, at most so many seconds."""
        for name in list(self._pending):
            self.cancel(name)
        self._requests.put(None)
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        # Made before it is asked for: the imports behind it take most of a second. A failure is told with a request.
        with contextlib.suppress(Exception):
            self._session = self._factory()
        while (request := self._requests.get()) is not None:
            if request.message.get("method") in BACKGROUND:
                self._set_aside(request)
            else:
                self._answer(request, self._ready, request.cancelled.is_set)
            with self._turn:
                self._unfinished -= 1
                self._turn.notify_all()
        self._aside.put(None)

    def _run_aside(self) -> None:
        while (taken := self._aside.get()) is not None:
            session, request = taken
            self._answer(request, lambda session=session: session, self._waits(request))  # type: ignore[misc]

    def _waits(self, request: _Request) -> Callable[[], bool]:
        """Whether the request was cancelled, told once nothing else is to be done."""

        def cancelled() -> bool:
            with self._turn:
                self._turn.wait_for(lambda: not self._unfinished or request.cancelled.is_set())
            return request.cancelled.is_set()

        return cancelled

    def _ready(self) -> Any:
        if self._session is None:
            self._session = self._factory()
        return self._session

    def _set_aside(self, request: _Request) -> None:
        try:
            session = self._ready().aside()
        except Exception as error:
            self._fail(request, error)
        else:
            self._aside.put((session, request))

    def _answer(self, request: _Request, session: Callable[[], Any], cancelled: Callable[[], bool]) -> None:
        def report(stage: str, done: int, total: int) -> None:
            self._send({"id": request.name, "event": "progress", "stage": stage, "done": done, "total": total})

        progress = ThrottledProgress(report)
        try:
            if cancelled():
                raise Cancelled()
            value = to_plain(dispatch(session(), request.message, Progress(progress, cancelled)))
            progress.flush()
            self._send({"id": request.name, "event": "result", "value": value})
        except Exception as error:
            self._fail(request, error)
        self._forget(request)

    def _fail(self, request: _Request, error: Exception) -> None:
        if not isinstance(error, EngineError):
            traceback.print_exception(error)
        self._send(error_event(request.name, error))
        self._forget(request)

    def _forget(self, request: _Request) -> None:
        if self._pending.get(request.name) is request:
            del self._pending[request.name]


def dispatch(session: Any, request: dict[str, Any], progress: Progress) -> Any:
    """Call the session's method that `request` names and return its value. Raises EngineError."""
    method, params = request.get("method"), request.get("params") or {}
    if not isinstance(method, str) or method not in METHODS:
        raise OrderError(f"unknown request {method!r}", where="engine", hint=nearest(str(method), METHODS))
    if not isinstance(params, dict):
        raise OrderError("parameters are not an object", where=method)
    required, optional = _PARAMETERS[method]
    for key in params.keys() - required - optional:
        raise OrderError(f"unknown parameter {key!r}", where=method, hint=nearest(key, required | optional))
    for key in required - params.keys():
        raise OrderError(f"parameter {key!r} is missing", where=method)
    if method == "configure":
        if not isinstance(params["config"], dict):
            raise OrderError("the settings are not an object", where=method)
        from engine.config import Config

        kept = {} if params.get("reset") else session.config.to_mapping()
        session.config = Config.from_mapping({**kept, **params["config"]})
        return session.config.to_mapping()
    if method == "summary":
        return session.summary()
    if method == "export":
        return str(session.export(params["path"]))
    if method in _SHORT:
        return getattr(session, method)(**params)
    return getattr(session, method)(**params, progress=progress)


_SHORT = frozenset(
    {
        *("live_stop", "edits", "cfg_text", "cfg_read", "cfg_write", "cfg_open", "save_cfg"),
        *("layer_facts", "costs", "vendor_summary"),
    }
)
# Methods whose time is not worth a report.

_PARAMETERS: dict[str, tuple[set[str], set[str]]] = {
    "load": ({"path"}, {"inputs", "input_size_list", "outputs", "weights"}),
    "configure": ({"config"}, {"reset"}),  # settings that are not given stay, or with reset are the defaults
    "build": (set(), {"do_quantization", "dataset", "rknn_batch_size"}),
    "analyze": ({"inputs"}, {"output_dir", "text", "sources"}),
    "export": ({"path"}, set()),
    "summary": (set(), set()),
    "costs": (set(), {"target"}),
    "vendor_summary": ({"path"}, set()),
    "hybrid_step2": ({"model_input", "data_input", "model_quantization_cfg"}, set()),
    "apply": ({"wishes", "ranges"}, {"biases", "errors", "whole"}),
    "live_start": ({"inputs"}, {"errors"}),
    "live_stop": (set(), set()),
    "edits": (set(), set()),
    "cfg_text": (set(), set()),
    "cfg_read": ({"text"}, set()),
    "cfg_write": ({"text", "wishes", "ranges"}, set()),
    "cfg_open": ({"path"}, set()),
    "save_cfg": ({"path", "text"}, {"known"}),
    "compare_cfg": ({"text"}, set()),
    "layer_facts": ({"name"}, set()),
    "alternatives": ({"name"}, set()),
    "tune_run": ({"dataset"}, {"cosine", "cost", "layers", "precision"}),
    "trace": ({"inputs"}, set()),
    "findings": (set(), {"dataset", "inputs"}),
    # `path` names a .rknn of the vendor's compiler, which runs instead of the session's model
    "board_perf": ({"device"}, {"path", "target", "runs", "warmup", "core_mask", "layers", "pin"}),
    "board_memory": ({"device"}, {"path", "target", "core_mask"}),
    "board_accuracy": ({"device", "inputs"}, {"output_dir", "text", "sources", "target", "core_mask"}),
}


def serve(factory: SessionFactory, reader: IO[bytes], writer: IO[bytes]) -> None:
    """Answer the requests on `reader` with events on `writer` until input ends."""
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        # A closed pipe means that nobody listens any more; the reader sees the end of input at the same moment.
        with lock, contextlib.suppress(BrokenPipeError, ValueError):
            writer.write(encode(message))
            writer.flush()

    send({"event": "ready"})
    lanes = _Lanes(factory, send)
    lanes.start()
    while line := reader.readline(MAX_REQUEST_BYTES + 1):
        if len(line) > MAX_REQUEST_BYTES:
            send(error_event(None, OrderError("the request is too long", where="engine")))
            break
        try:
            message = decode(line)
        except ValueError as error:
            send(error_event(None, OrderError(f"not a request: {error}", where="engine")))
            continue
        name = message.get("cancel", message.get("id"))
        if isinstance(name, (dict, list)):
            send(error_event(None, OrderError("not a request: its id is no number or text", where="engine")))
        elif "cancel" in message:
            lanes.cancel(name)
        else:
            lanes.put(message)
    lanes.finish(SECONDS_TO_CLEAN_UP)


def run(factory: SessionFactory) -> None:
    """Serve on this process's standard input and output, then end the process."""
    faulthandler.enable()
    # Libraries print: from here on, descriptor 1 leads to the log (descriptor 2); the events have their own way out.
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _log()
    serve(factory, reader, writer)
    # A native computation cannot be interrupted, and nobody waits for it.
    os._exit(0)


class _Descriptor(io.FileIO):
    """A file whose disk may be full: what cannot be written is dropped, and fails nothing."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _log() -> IO[str]:
    binary = io.BufferedWriter(_Descriptor(2, "w", closefd=False))
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _session() -> Any:
    from engine.session_hybrid import HybridSession

    return HybridSession()


def main() -> None:
    """Serve a real session; with `--log FILE`, everything that libraries print goes there."""
    if len(sys.argv) == 3 and sys.argv[1] == "--log":
        log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.close(log)
    elif len(sys.argv) != 1:
        sys.exit("usage: python -m engine.host [--log FILE]")
    run(_session)


if __name__ == "__main__":
    main()
