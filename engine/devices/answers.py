"""What an agent's answers mean: each is checked, since what comes from a board is not to be trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.devices.agent.protocol import Fault
from engine.errors import DeviceError, DeviceTimeoutError

Array = np.ndarray[Any, Any]

_MOST_TENSORS = 4096
_MOST_DIMS = 32
_MOST_NAME = 4096
_DTYPES = frozenset(
    ["float32", "float16", "float64", "bool"] + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
_PRINTED = 1500


@dataclasses.dataclass(frozen=True)
class Hello:
    """What an agent tells of itself: the SHA-256 of its file, its Python and processor, whether the vendor's library
    is where the board was said to have it, and the version of onnxruntime ('' for none)."""

    agent: str
    python: str
    machine: str
    library: bool
    onnxruntime: str


@dataclasses.dataclass(frozen=True)
class BoardTensor:
    """An input or output as the runtime tells of it: `fmt` 'nchw', 'nhwc', 'nc1hwc2' or '', `dtype` in numpy's words,
    `qnt` 'none', 'dfp' or 'affine' with `scale` and `zero_point`, and `size` in bytes (0 where it is not told)."""

    name: str
    dims: tuple[int, ...]
    fmt: str = ""
    dtype: str = ""
    qnt: str = ""
    scale: float = 1.0
    zero_point: int = 0
    size: int = 0


@dataclasses.dataclass(frozen=True)
class MemorySizes:
    """Bytes that a model takes on a board; None for what the runtime does not tell."""

    weight: int | None = None
    internal: int | None = None
    dma: int | None = None
    sram: int | None = None
    sram_free: int | None = None


@dataclasses.dataclass(frozen=True)
class ModelAbout:
    """What an agent tells of a model that it has opened: its number and process there, and the runtime's own words."""

    number: int
    pid: int
    inputs: tuple[BoardTensor, ...]
    outputs: tuple[BoardTensor, ...]
    api: str
    driver: str
    custom_string: str


def hello_of(told: Mapping[str, Any]) -> Hello:
    """The agent's first answer."""
    words = {name: _plain(told.get(name)) for name in ("agent", "python", "machine", "onnxruntime")}
    return Hello(library=told.get("library") is True, **words)


def model_of(told: Mapping[str, Any]) -> ModelAbout:
    """The answer to a model that was loaded."""
    return ModelAbout(
        _whole(told.get("model")),
        _whole(told.get("pid")),
        _tensors(told.get("inputs")),
        _tensors(told.get("outputs")),
        _plain(told.get("api")),
        _plain(told.get("driver")),
        _plain(told.get("custom_string")),
    )


def _tensors(told: object) -> tuple[BoardTensor, ...]:
    found = told if isinstance(told, list) else []
    return tuple(_tensor(one) for one in found[:_MOST_TENSORS] if isinstance(one, dict))


def _tensor(told: Mapping[str, Any]) -> BoardTensor:
    dims = told.get("dims")
    return BoardTensor(
        _plain(told.get("name")),
        tuple(_whole(one) for one in (dims if isinstance(dims, list) else [])[:_MOST_DIMS]),
        _plain(told.get("fmt")),
        _plain(told.get("dtype")),
        _plain(told.get("qnt")),
        number_of(told.get("scale"), 1.0),
        _integer(told.get("zero_point")),
        _whole(told.get("size")),
    )


def arrays_of(told: object, content: Sequence[bytearray], where: str) -> list[Array]:
    """The arrays that came with an answer. Raises DeviceError where they are not what the answer says."""
    wrong = DeviceError("the board's outputs are not what its answer says", where=where)
    if not isinstance(told, list) or len(told) != len(content):
        raise wrong
    found = []
    for one, raw in zip(told, content, strict=True):
        if not isinstance(one, dict) or str(one.get("dtype")) not in _DTYPES or not isinstance(one.get("shape"), list):
            raise wrong
        shape = tuple(_whole(dim) for dim in one["shape"][:_MOST_DIMS])
        dtype = np.dtype(str(one["dtype"]))
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise wrong
        found.append(np.frombuffer(raw, dtype).reshape(shape))
    return found


def times_of(told: object, most: int, where: str) -> list[float]:
    """Microseconds, one a run."""
    found = told if isinstance(told, list) else []
    times = [number_of(one, -1.0) for one in found]
    if any(one < 0 for one in times) or len(times) > most:
        raise DeviceError("the board's times are none", where=where)
    return times


def sizes_of(told: object) -> MemorySizes:
    """The answer to what a model takes of memory."""
    given = told if isinstance(told, dict) else {}
    names = [field.name for field in dataclasses.fields(MemorySizes)]
    return MemorySizes(**{name: given[name] for name in names if type(given.get(name)) is int and given[name] >= 0})


def error_of(fault: Fault, where: str) -> DeviceError:
    """The error that a fault on the board is here, with the end of what the library printed."""
    what = _plain(fault.what) or "the agent on the board failed"
    printed = _plain(fault.printed, lines=True).strip()
    if printed and fault.kind in ("model", "died", "timeout", "stuck"):
        what = f"{what}; the runtime printed: {printed[-_PRINTED:]}"
    kind = DeviceTimeoutError if fault.kind in ("timeout", "stuck") else DeviceError
    return kind(what, where=where, hint=_plain(fault.hint))


def _plain(told: object, *, lines: bool = False) -> str:
    """Text from a board without what would move a terminal's cursor or colour it."""
    text = told if isinstance(told, str) else ""
    kept = "".join(one if one.isprintable() or (lines and one == "\n") else " " for one in text)
    return kept if lines else kept[:_MOST_NAME]


def number_of(told: object, otherwise: float) -> float:
    """A number from a board, or `otherwise` where it is none, or not finite."""
    fits = isinstance(told, float) or (isinstance(told, int) and abs(told) < 1 << 64)
    number = float(told) if fits and isinstance(told, (int, float)) else otherwise
    return number if math.isfinite(number) else otherwise


def _integer(told: object) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) else 0


def _whole(told: object) -> int:
    return max(_integer(told), 0)
