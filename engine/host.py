"""The engine in a process of its own: requests come in as JSON lines, progress, results and errors go out.

A request is `{"id", "method", "params"}` or `{"cancel": id}`. Requests run one at a time, in order, in a worker
thread, so that a cancel is heard while one runs. The end of input ends the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, Any

from engine.errors import Cancelled, EngineError, OrderError, nearest
from engine.host_protocol import MAX_REQUEST_BYTES, METHODS, decode, encode, error_event
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


class _Worker(threading.Thread):
    """Owns the session and runs the requests."""

    def __init__(self, factory: SessionFactory, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(name="engine", daemon=True)
        self._factory = factory
        self._send = send
        self._session: Any = None
        self._requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._pending: dict[Any, threading.Event] = {}

    def put(self, request: dict[str, Any]) -> None:
        self._pending[request.get("id")] = threading.Event()
        self._requests.put(request)

    def cancel(self, request: Any) -> None:
        flag = self._pending.get(request)
        if flag is not None:
            flag.set()

    def finish(self) -> None:
        """Cancel everything and end once the current request has noticed."""
        for flag in list(self._pending.values()):
            flag.set()
        self._requests.put(None)

    def run(self) -> None:
        # Made before it is asked for: the imports behind it take most of a second. A failure is told with a request.
        with contextlib.suppress(Exception):
            self._session = self._factory()
        while (request := self._requests.get()) is not None:
            name = request.get("id")
            flag = self._pending[name]
            progress = ThrottledProgress(
                lambda stage, done, total, name=name: self._send(  # type: ignore[misc]
                    {"id": name, "event": "progress", "stage": stage, "done": done, "total": total}
                )
            )
            try:
                if flag.is_set():
                    raise Cancelled()
                if self._session is None:
                    self._session = self._factory()
                value = to_plain(dispatch(self._session, request, Progress(progress, flag.is_set)))
                progress.flush()
                self._send({"id": name, "event": "result", "value": value})
            except Exception as error:
                if not isinstance(error, EngineError):
                    traceback.print_exc()
                self._send(error_event(name, error))
            finally:
                self._pending.pop(name, None)


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
    return getattr(session, method)(**params, progress=progress)


_PARAMETERS: dict[str, tuple[set[str], set[str]]] = {
    "load": ({"path"}, {"inputs", "input_size_list", "outputs"}),
    "configure": ({"config"}, {"reset"}),  # settings that are not given stay, or with reset are the defaults
    "build": (set(), {"do_quantization", "dataset", "rknn_batch_size"}),
    "analyze": ({"inputs"}, {"output_dir"}),
    "export": ({"path"}, set()),
    "summary": (set(), set()),
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
    worker = _Worker(factory, send)
    worker.start()
    while line := reader.readline(MAX_REQUEST_BYTES + 1):
        if len(line) > MAX_REQUEST_BYTES:
            send(error_event(None, OrderError("the request is too long", where="engine")))
            break
        try:
            message = decode(line)
        except ValueError as error:
            send(error_event(None, OrderError(f"not a request: {error}", where="engine")))
            continue
        if "cancel" in message:
            worker.cancel(message["cancel"])
        else:
            worker.put(message)
    worker.finish()
    worker.join(SECONDS_TO_CLEAN_UP)


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
    sys.stdout = sys.stderr
    serve(factory, reader, writer)
    # A native computation cannot be interrupted, and nobody waits for it.
    os._exit(0)


def _session() -> Any:
    from engine.session import Session

    return Session()


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
