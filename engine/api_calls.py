"""How the calls of `RKNN` talk and fail: `I`, `W`, `E` lines on the screen and in a file, and failure values."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.errors import ConfigError, EngineError, FileError, InputError, OrderError, nearest
from engine.progress import Progress
from engine.summaries import BuildSummary, HybridSummary

ENGINE = logging.getLogger("engine")
LOG = logging.getLogger("engine.api")

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Console:
    """The screen and the log file of one `RKNN` object; `verbose` and `verbose_file` as it was given them."""

    def __init__(self, verbose: bool | str = False, verbose_file: str | None = None) -> None:
        self.verbose = bool(verbose)
        self.debug = isinstance(verbose, str) and verbose.lower() == "debug"
        self.closed = False
        self._level = logging.DEBUG if self.debug else logging.INFO if self.verbose else logging.WARNING
        self._screen = _prepare(_ScreenHandler(), self._level)
        self._file: logging.Handler | None = None
        self._close_file: Callable[[], object] = _nothing
        with self.talking():
            if isinstance(verbose, str) and not self.debug:
                LOG.warning("RKNN: verbose=%r is not a choice; taken as True (False, True or 'Debug')", verbose)
            if verbose_file is not None and not self.verbose:
                LOG.warning("RKNN: verbose_file is only written with verbose=True")
            elif verbose_file is not None:
                try:
                    self._file = _open_file(verbose_file, self._level)
                except FileError as error:
                    log_error("RKNN", error)
                else:
                    # Closes the file also where a script forgets release().
                    self._close_file = weakref.finalize(self, self._file.close)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Listen to the engine's log while one call lasts, so that objects do not repeat each other's lines."""
        handlers = [self._screen] if self._file is None else [self._screen, self._file]
        with _listening(handlers, self._level):
            yield

    def close(self) -> None:
        """Close the log file; what is said from now on goes to the screen only."""
        self.closed, self._file = True, None
        self._close_file()


class _LetterFormatter(logging.Formatter):
    """Lines as the toolkit's users know them: `I text`, `W text`, `E text`."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname[0]} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _ScreenHandler(logging.StreamHandler[Any]):
    """Writes to whatever standard error is at the time, so that a script may redirect it later."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _open_file(path: str, level: int) -> logging.Handler:
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(time.strftime("-- %Y-%m-%d %H:%M:%S\n"))
        return _prepare(logging.FileHandler(path, mode="a", encoding="utf-8"), level)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "every line is still shown on the screen"
        raise FileError(f"the log file cannot be opened: {reason}", where=str(path), hint=hint) from error


def log_error(call: str, error: EngineError, *, traceback: bool = False) -> None:
    """One line `call: what (where; hint)` at the level of errors."""
    where = f"{error.where}; {error.hint}" if error.where and error.hint else error.where or error.hint
    text = f"{call}: {error.what} ({where})" if where else f"{call}: {error.what}"
    LOG.error("%s", " ".join(text.split()), exc_info=traceback)


def log_check(name: str, cosine: float, euclidean: float) -> None:
    """The line of one graph pass under verbose='Debug'."""
    LOG.debug("check results: %s cosine %.6f euclidean %.6f", name, cosine, euclidean)


def log_build(call: str, built: BuildSummary) -> None:
    """How a model was built, and what else there is to say of it."""
    recipe = f" by {built.recipe}" if built.recipe else ""
    LOG.info("%s: %s%s, %d tensors, %d samples", call, built.precision, recipe, built.tensors, built.samples)
    for one in built.candidates:
        LOG.info("%s: tried %s: cosine %.5f, noise %.5f", call, one.recipe, one.cosine, one.noise)
    for note in built.notes:
        LOG.info("%s: %s", call, note)


def log_proposal(call: str, summary: HybridSummary) -> None:
    """The files that step 1 of hybrid quantization wrote, and the layers that it proposed."""
    report = summary.proposal
    if report is not None and report.chosen >= 0:
        best = report.candidates[report.chosen]
        text = "%s: proposed %d layers, cosine %.5f to %.5f"
        LOG.info(text, call, len(best.layers), report.base.cosine, best.quality.cosine)
    elif report is not None:
        LOG.info("%s: proposed nothing, cosine %.5f", call, report.base.cosine)
    LOG.info("%s: wrote %s, %s, %s", call, summary.model, summary.data, summary.cfg)


@contextmanager
def stages(call: str) -> Iterator[Progress]:
    """Progress that logs each stage of a call with the seconds it took."""
    stage, began = "", time.perf_counter()

    def report(name: str, done: int, total: int) -> None:
        nonlocal stage, began
        if name != stage:
            finish()
            stage, began = name, time.perf_counter()

    def finish() -> None:
        if stage:
            LOG.info("%s: %s %.2f s", call, stage, time.perf_counter() - began)

    yield Progress(report)
    finish()


def _prepare(handler: logging.Handler, level: int) -> logging.Handler:
    handler.setLevel(level)
    handler.setFormatter(_LetterFormatter())
    return handler


def _nothing() -> None:
    """Stands in for closing a file that was never opened."""


_listeners_lock = threading.Lock()
_listening_levels: list[int] = []


@contextmanager
def _listening(handlers: Sequence[logging.Handler], level: int) -> Iterator[None]:
    """Attach `handlers` to the engine's logger, opened to `level` until the last listener has gone."""
    with _listeners_lock:
        _listening_levels.append(level)
        ENGINE.setLevel(min(_listening_levels))
    for handler in handlers:
        ENGINE.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            ENGINE.removeHandler(handler)
        with _listeners_lock:
            _listening_levels.remove(level)
            ENGINE.setLevel(min(_listening_levels, default=logging.NOTSET))


def toolkit_call(failure: Any) -> Callable[[_Method], _Method]:
    """Let a method of an object with a `_console` log its errors in one line and return `failure`; it never raises.

    Wrong arguments are errors like any other, with the nearest right name.
    """

    def decorate(method: _Method) -> _Method:
        name = method.__name__
        signature = inspect.signature(method)

        @functools.wraps(method)
        def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
            console: Console = self._console
            with console.talking():
                try:
                    if console.closed:
                        raise OrderError("this RKNN object was released", hint="make a new one")
                    _check_arguments(name, signature, args, kwargs)
                    return method(self, *args, **kwargs)
                except EngineError as error:
                    log_error(name, error)
                except Exception as error:
                    what = f"unexpected {type(error).__name__}: {error}"
                    hint = "" if console.verbose else "RKNN(verbose=True) shows the traceback"
                    log_error(name, EngineError(what, hint=hint), traceback=console.verbose)
                return copy.deepcopy(failure)

        return cast(_Method, guarded)

    return decorate


def _check_arguments(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    known = [p for p in signature.parameters if p != "self"]
    for key in kwargs:
        if key not in known:
            raise ConfigError(f"there is no argument {key!r}", hint=nearest(key, known))
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        raise InputError(str(error), hint=f"{name}({', '.join(known)})") from error
