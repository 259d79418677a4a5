"""The child process in which the vendor's toolkit runs, and how it is asked: one JSON line a request and an answer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.compiler.errors import CompilerError
from engine.compiler.log import ToolkitLog
from engine.errors import Cancelled
from engine.progress import Progress

INSTALL_HINT = "install it with: rknn-tui compiler install"
CHECK_HINT = "see: rknn-tui compiler status"
LONGEST_CALL = 3600.0
"""Seconds that a call may take; quantizing a large model with a slow algorithm takes some minutes."""

_WORKER = Path(__file__).with_name("worker.py")
_LONGEST_ANSWER = 1 << 20
_SECONDS_BETWEEN_LOOKS = 0.05
_TITLES = {"Quantizating": "quantizing", "Building": "building"}


class Toolkit:
    """A process of the vendor's environment; use it in a `with` block, which ends it and all that it started.

    `python` is that environment's interpreter. `folder` exists and is ours: the toolkit works and prints there, and its
    temporary files go there. Progress is that of the toolkit's own bars; cancelling ends the process.
    """

    def __init__(self, python: Path, folder: Path, *, progress: Progress | None = None) -> None:
        self.folder = folder
        self.log_path = folder / "toolkit.log"
        self._python = python
        self._progress = progress or Progress()
        self.place = folder / "work"
        """The folder in which the toolkit runs, and writes files that it names itself."""

    def __enter__(self) -> Toolkit:
        self.start()
        return self

    @property
    def alive(self) -> bool:
        """Whether calls can be made: the process was not ended here, nor found dead."""
        return self._process.returncode is None

    def start(self) -> None:
        """Start the process; also a new one, after `kill`. Raises CompilerError."""
        temporary = self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        self.place.mkdir(exist_ok=True)
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        ours, theirs = os.pipe()
        try:
            # In a session of its own, so that the whole group can be ended, and Ctrl+C reaches only us.
            self._process = subprocess.Popen(
                [str(self._python), "-s", str(_WORKER), str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
                cwd=self.place,
                env=environment(temporary),
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            raise CompilerError(
                f"the vendor's environment cannot be started: {error.strerror or error}",
                where=str(self._python),
                hint=INSTALL_HINT,
            ) from error
        finally:
            os.close(theirs)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests = self._process.stdin
        self._log = ToolkitLog(self._process.stdout, self.log_path)
        self._reader = threading.Thread(target=_read, args=(ours, self._answers), name="toolkit answers", daemon=True)
        self._reader.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process and all that it started, at once, and wait until it is gone."""
        if self._process.returncode is None:
            # Not waited for yet, so the group's number can be nobody else's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._log.finish()
        self._reader.join(2)

    def call(self, name: str, *, limit: float = LONGEST_CALL, stage: str = "", **arguments: Any) -> Any:
        """The value of a call of `engine.compiler.worker`.

        `stage` names it in progress; `limit` is in seconds. Raises CompilerError when the call fails, takes longer, or
        the process ends; Cancelled.
        """
        line = json.dumps({"call": name, "arguments": arguments}).encode() + b"\n"
        stage = stage or name.replace("_", " ")
        self._log.start()
        self._progress.step(stage, 0, 0)
        try:
            self._requests.write(line)
            self._requests.flush()
        except (OSError, ValueError):  # the second after `kill`
            raise self._died(name) from None
        answer = self._wait(name, stage, limit)
        error = answer.get("error")
        if error is None:
            return answer.get("value")
        raise self._refused(name, error)

    def _wait(self, name: str, stage: str, limit: float) -> dict[str, Any]:
        deadline, shown = time.monotonic() + limit, None
        while True:
            try:
                line = self._answers.get(timeout=_SECONDS_BETWEEN_LOOKS)
                break
            except queue.Empty:
                pass
            try:
                self._progress.check()
                bar = self._log.bar()
                if bar is not None and bar != shown:
                    shown = bar
                    title = _TITLES.get(bar[0], bar[0])
                    self._progress.step(f"toolkit: {stage}, {title}", bar[1], bar[2])
            except Cancelled:
                self.kill()
                raise
            if time.monotonic() > deadline:
                self.kill()
                raise CompilerError(
                    f"the vendor's toolkit took longer than {limit:.0f} s and was ended", where=name, hint=self._tail()
                )
        if line is None:
            raise self._died(name)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            raise CompilerError("the vendor's environment answers with something else", where=name, hint=CHECK_HINT)
        return answer

    def _died(self, name: str) -> CompilerError:
        if self._process.returncode is not None:
            return CompilerError("the vendor's toolkit was ended before", where=name)
        # It may be about to end with a status of its own.
        for _ in range(40):
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        self.kill()
        code = self._process.returncode or 0
        if code < 0:
            with contextlib.suppress(ValueError):
                ending = f"crashed ({signal.Signals(-code).name})"
                return CompilerError(f"the vendor's toolkit {ending}", where=name, hint=self._tail())
        return CompilerError(f"the vendor's toolkit ended with exit status {code}", where=name, hint=self._tail())

    def _refused(self, name: str, error: Any) -> CompilerError:
        kind, message = (str(error.get(key, "")) if isinstance(error, dict) else "" for key in ("kind", "message"))
        # What the toolkit printed before it answered may still be on its way.
        time.sleep(0.1)
        if kind in ("ModuleNotFoundError", "ImportError"):
            return CompilerError(f"the vendor's environment is broken: {_first(message)}", hint=INSTALL_HINT)
        if kind == "Refused":
            said = self._log.reason()
            return CompilerError(f"the vendor's toolkit refuses: {said or message}", where=name)
        return CompilerError(f"the vendor's toolkit fails: {_first(message) or kind}", where=name, hint=self._tail(2))

    def _tail(self, lines: int = 3) -> str:
        text = self._log.tail(lines)
        return f"it said last: {text}" if text else ""


def _read(descriptor: int, answers: queue.SimpleQueue[bytes | None]) -> None:
    with os.fdopen(descriptor, "rb") as lines, contextlib.suppress(OSError):
        while line := lines.readline(_LONGEST_ANSWER):
            answers.put(line)
    answers.put(None)


def environment(temporary: Path) -> dict[str, str]:
    """The variables of a process of the vendor's environment: without what would bring our packages into it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "TMPDIR": str(temporary),
        "TERM": "dumb",
    }


def _first(message: str) -> str:
    """The line of a message that says what is wrong: the last one of a traceback, else the first."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    return (lines[-1] if "Traceback" in message else lines[0])[:500]
