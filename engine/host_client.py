"""The app's end of the engine's process: starts it, sends requests, hears events, and notices when it dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from engine.errors import Cancelled, EngineError, InputError
from engine.host_protocol import METHODS, EngineDiedError, InternalError, decode, encode, error_from, value_from
from engine.own_process import own_command
from engine.progress import ProgressCallback

LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 6
_NOWHERE = Path(os.devnull)


class Request(Future[Any]):
    """A request under way: resolves to the value or raises the EngineError. Cancel it with `EngineHost.cancel`."""

    def __init__(self, number: int, method: str, on_progress: ProgressCallback | None) -> None:
        super().__init__()
        self.number = number
        self.method = method
        self.on_progress = on_progress
        # Marked as running, so that Future.cancel refuses: only the engine can say that the work has stopped.
        self.set_running_or_notify_cancel()


class EngineHost:
    """The engine's process, seen from the app.

    Callbacks and a request's done-callbacks run in a reading thread: hand over to the interface's own thread there.
    `on_death` hears when the process ends unasked. `command` starts the process; tests name another. What the process
    prints goes to `log_path`, or to a temporary file that is removed with the process.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        log_path: str | Path | None = None,
        on_death: Callable[[EngineDiedError], None] | None = None,
    ) -> None:
        self.on_death = on_death
        self._command = list(command) if command is not None else own_command("engine.host")
        self._log_path = Path(log_path) if log_path is not None else None
        self._process: _Process | None = None
        self._numbers = itertools.count(1)

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """The process's id, or None when there is none."""
        return self._process.popen.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process unless it runs already. Raises EngineDiedError when it cannot be started."""
        if not self.alive:
            self._process = _Process(self._command, self._log_path, self._died)

    def request(self, method: str, params: dict[str, Any], on_progress: ProgressCallback | None = None) -> Request:
        """Send a request; it runs after those sent before it."""
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}")
        request = Request(next(self._numbers), method, on_progress)
        if self._process is None:
            request.set_exception(EngineDiedError("the engine was not started"))
        else:
            self._process.send(request, params)
        return request

    def cancel(self, number: int) -> None:
        """Ask for the end of a request; it then raises Cancelled, or still succeeds when it was too late."""
        if self._process is not None:
            self._process.write({"cancel": number})

    def kill(self) -> None:
        """End the process at once; requests under way raise Cancelled. The session's state is lost."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """A fresh process with an empty session, whether or not the old one lives."""
        self.kill()
        self.start()

    def _died(self, error: EngineDiedError) -> None:
        if self.on_death is not None:
            self.on_death(error)


class _Process:
    """One life of the process."""

    def __init__(self, command: list[str], log_path: Path | None, died: Callable[[EngineDiedError], None]) -> None:
        self._died = died
        self._lock = threading.Lock()
        self._pending: dict[int, Request] = {}
        self._stopping = False
        self._end: EngineError | None = None
        self._temporary = log_path is None
        self._log_path = _writable(log_path)
        try:
            with self._log_path.open("ab") as log:
                self._log_start = log.tell()
                # In a session of its own: Ctrl+C and a hang-up of the terminal reach the app, which decides.
                self.popen = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise EngineDiedError(f"the engine cannot be started: {error}", where=str(error.filename or "")) from error
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self._stdin: IO[bytes] = self.popen.stdin
        self._stdout: IO[bytes] = self.popen.stdout
        # A process that is busy, or was stopped, may not read for a while: nobody else should wait for that.
        self._unsent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._write_all, name="engine requests", daemon=True).start()
        self._reader = threading.Thread(target=self._read, name="engine events", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._end is None and not self._stopping

    def send(self, request: Request, params: dict[str, Any]) -> None:
        try:
            line = encode({"id": request.number, "method": request.method, "params": params})
        except (TypeError, ValueError) as error:
            request.set_exception(InputError(f"cannot be asked of the engine: {error}", where=request.method))
            return
        with self._lock:
            if self._end is None:
                self._pending[request.number] = request
        if self._end is not None:
            request.set_exception(self._end)
            return
        self._unsent.put(line)

    def write(self, message: dict[str, Any]) -> None:
        self._unsent.put(encode(message))

    def _write_all(self) -> None:
        # A broken pipe needs no word here: the reading thread meets the end of the stream and tells all who wait.
        with contextlib.suppress(OSError, ValueError):
            while (line := self._unsent.get()) is not None:
                self._stdin.write(line)
                self._stdin.flush()

    def kill(self) -> None:
        self._stopping = True
        self.popen.kill()
        if threading.current_thread() is not self._reader:
            self._reader.join(5)

    def _read(self) -> None:
        for line in self._stdout:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._hear(decode(line))
            # A long answer is not kept until the next one comes.
            del line
        self.popen.wait()
        self._unsent.put(None)
        for stream in (self._stdout, self._stdin):
            with contextlib.suppress(OSError):
                stream.close()
        error: EngineError
        if self._stopping:
            error = Cancelled("the engine was stopped")
        else:
            error = EngineDiedError(_ending(self.popen.returncode), hint=self._log_tail())
        with self._lock:
            self._end = error
            pending, self._pending = list(self._pending.values()), {}
        if self._temporary and self._log_path != _NOWHERE:
            with contextlib.suppress(OSError):
                self._log_path.unlink(missing_ok=True)
        for request in pending:
            request.set_exception(error)
        if isinstance(error, EngineDiedError):
            self._died(error)

    def _hear(self, event: dict[str, Any]) -> None:
        kind, number = event.get("event"), event.get("id")
        if kind == "progress":
            request = self._pending.get(number) if isinstance(number, int) else None
            if request is not None and request.on_progress is not None:
                request.on_progress(str(event["stage"]), int(event["done"]), int(event["total"]))
        elif kind in ("result", "error"):
            with self._lock:
                request = self._pending.pop(number, None) if isinstance(number, int) else None
            if request is None:
                return
            if kind == "error":
                request.set_exception(error_from(event))
                return
            try:
                request.set_result(value_from(request.method, event.get("value")))
            except ValueError as error:
                request.set_exception(InternalError(f"the engine's answer makes no sense: {error}", where="engine"))

    def _log_tail(self) -> str:
        try:
            with self._log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - LOG_TAIL_BYTES))
                lines = log.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-LOG_TAIL_LINES:])


def _writable(log_path: Path | None) -> Path:
    """The log, a temporary one where none is named, or nowhere: the engine works without one."""
    try:
        if log_path is None:
            handle, name = tempfile.mkstemp(prefix="rknn-tui-engine-", suffix=".log")
            os.close(handle)
            return Path(name)
        with log_path.open("ab"):
            return log_path
    except OSError:
        return _NOWHERE


def _ending(code: int) -> str:
    if code >= 0:
        return f"the engine ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"the engine was ended by {name}{reason}"
