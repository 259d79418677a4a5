"""What the app and the engine's process say to each other: methods, JSON lines, and summaries made whole again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from typing import Any

from engine import errors
from engine.boards import BoardMemory, BoardPerf
from engine.errors import EngineError
from engine.estimates import ModelCosts
from engine.summaries import (
    LARGEST_TEXT,
    AccuracyReport,
    Alternative,
    BuildSummary,
    CfgReading,
    Finding,
    LayerFacts,
    LiveState,
    ModelSummary,
    SourceMap,
    TuneRun,
)

METHODS: dict[str, Any] = {
    "load": ModelSummary,
    "hybrid_step2": BuildSummary,
    "configure": None,
    "build": BuildSummary,
    "analyze": AccuracyReport,
    "export": None,
    "summary": ModelSummary,
    "costs": ModelCosts,
    "vendor_summary": ModelSummary | None,
    "apply": LiveState,
    "live_start": LiveState,
    "live_stop": None,
    "edits": CfgReading,
    "cfg_text": None,
    "cfg_read": CfgReading,
    "cfg_write": None,
    "cfg_open": None,
    "save_cfg": None,
    "compare_cfg": LiveState,
    "layer_facts": LayerFacts,
    "alternatives": tuple[Alternative, ...],
    "tune_run": TuneRun,
    "trace": SourceMap,
    "findings": tuple[Finding, ...],
    "board_perf": BoardPerf,
    "board_memory": BoardMemory,
    "board_accuracy": AccuracyReport,
}
"""Every request's method, with the type that its value has, or None where the value is plain already.

Events carry the request's `id`: `progress` (stage, done, total), then one `result` (value) or `error` (kind, what,
where, hint). `ready` comes once, first, without an id.
"""

BACKGROUND = frozenset({"tune_run", "trace", "findings", "board_perf", "board_memory", "board_accuracy"})
"""Methods that run beside others, on the model as it is when their turn comes, and wait while those have work."""

MAX_REQUEST_BYTES = 6 * LARGEST_TEXT + (1 << 20)
"""A longer line is no request of ours. JSON writes one byte of a text in up to six."""


class EngineDiedError(EngineError):
    """The engine's process ended while it was needed; `hint` holds the last lines that it wrote."""


class InternalError(EngineError):
    """A fault in the engine itself, not in what the user gave it."""


def encode(message: dict[str, Any]) -> bytes:
    """One line of JSON. Lone surrogates, as in undecodable file names, survive as escapes."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises ValueError when it is anything else."""
    # Deep nesting makes json raise RecursionError: to a reader of lines that is one more malformed line.
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def error_event(request: Any, error: BaseException) -> dict[str, Any]:
    """The event that tells of `error`; faults of our own become an InternalError that names them."""
    if not isinstance(error, EngineError):
        what = "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        error = InternalError(what, where="engine", hint="this is a fault of the program; the log has the details")
    return {
        "id": request,
        "event": "error",
        "kind": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "hint": error.hint,
    }


def error_from(event: dict[str, Any]) -> EngineError:
    """The exception that an error event tells of; an unknown kind becomes a plain EngineError."""
    what, where, hint = (str(event.get(key, "")) for key in ("what", "where", "hint"))
    kind = str(event.get("kind", ""))
    if kind == "Cancelled":
        return errors.Cancelled(where)
    known = {"InternalError": InternalError, "EngineDiedError": EngineDiedError}.get(kind) or getattr(
        errors, kind, None
    )
    if isinstance(known, type) and issubclass(known, EngineError):
        return known(what, where=where, hint=hint)
    return EngineError(what, where=where, hint=hint)


def value_from(method: str, plain: Any) -> Any:
    """A result's value as the summary that `method` returns. Raises ValueError when it does not fit."""
    kind = METHODS[method]
    return plain if kind is None else rebuild(kind, plain)


def rebuild(kind: Any, plain: Any) -> Any:
    """What `to_plain` made plain, as `kind` again: a dataclass, tuple, dict, optional or scalar type.

    None becomes NaN where a float belongs, since JSON has no other number for it. Raises ValueError.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(plain, dict):
            raise ValueError(f"expected an object for {kind.__name__}")
        fields = _field_types(kind)
        if not plain.keys() <= fields.keys():
            raise ValueError(f"unknown fields for {kind.__name__}: {sorted(plain.keys() - fields.keys())}")
        try:
            return kind(**{name: rebuild(fields[name], value) for name, value in plain.items()})
        except TypeError as error:
            raise ValueError(str(error)) from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(plain, list):
            raise ValueError("expected a list")
        return tuple(rebuild(arguments[0], item) for item in plain)
    if origin is dict:
        if not isinstance(plain, dict):
            raise ValueError("expected an object")
        return {sys.intern(key): rebuild(arguments[1], item) for key, item in plain.items()}
    if origin in (typing.Union, types.UnionType):
        return None if plain is None else rebuild(next(a for a in arguments if a is not type(None)), plain)
    if kind is float:
        if plain is None:
            return math.nan
        if isinstance(plain, bool) or not isinstance(plain, (int, float)):
            raise ValueError(f"expected a number, got {plain!r}")
        return float(plain)
    if not isinstance(plain, kind):
        raise ValueError(f"expected {kind.__name__}, got {plain!r}")
    # The names of layers come again and again, in every answer: kept once, they take a third of the memory.
    return sys.intern(plain) if kind is str else plain


@functools.cache
def _field_types(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
