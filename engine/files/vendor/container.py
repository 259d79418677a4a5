"""Takes files of the vendor's compiler apart: what kind a file is of, and where its model and its JSON lie."""

from __future__ import annotations

import dataclasses
import mmap
import struct
from pathlib import Path
from typing import Literal

from engine.errors import FileError
from engine.flatbuffers import Content

Kind = Literal["container", "flatbuffer", "encrypted", "RKNX", "NBG", "JSON", ""]

HINT = "the file is corrupt; copy it or build it again"
"""What to do about a file that contradicts itself."""

HEAD = 4096
"""Bytes from the beginning that `kind_of` needs."""

_IDENTIFIER = b"RKNN"
_NBG = b"VPMN"
# Below, reading is as fast as mapping, and a file that is written anew at the same time does no harm.
_MAPPED = 64 << 20

_FULL, _MINI = 0, 0x10
_REVISIONS = {"full": (1, 2, 6), "mini": range(0x100)}


@dataclasses.dataclass(frozen=True)
class Sections:
    """The parts of a file. `model` is its flatbuffer, None where it is of an unknown kind; `json` its JSON.

    `header` are the seven numbers before a 'mini' model: bytes of the flatbuffer and of the tasks, count of the tasks,
    bytes of the register commands, of the tensors between nodes, of the weights, and of what operators have besides.
    `faults` say what is wrong.
    """

    container: str
    revision: int
    family: str
    model: Content | None
    json: Content = b""
    header: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()


def kind_of(head: bytes) -> Kind:
    """What kind of vendor's file begins with `head`; '' for all others. Any file may begin with the brace of JSON."""
    if head.startswith(b"CYPTRKNN"):
        return "encrypted"
    if head.startswith(b"RKNX"):
        return "RKNX"
    if head.startswith(_IDENTIFIER):
        return "container"
    if head.startswith(_NBG):
        return "NBG"
    if head[4:8] == _IDENTIFIER:
        return "flatbuffer"
    if head[:1] == b"{" and b'"network_platform"' in head and b'"version"' in head:
        return "JSON"
    return ""


def head_of(path: Path) -> bytes:
    """The beginning of a file. Raises FileError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from error


def content_of(path: Path) -> Content:
    """The whole file; a large one is mapped, since most of it is weights that nobody reads. Raises FileError."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < _MAPPED:
                return file.read()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from error


def unreadable(kind: Kind, where: str) -> FileError | None:
    """Why a kind of file cannot be read, and what to do instead; None where it can."""
    if kind == "encrypted":
        return FileError(
            "is encrypted by the vendor's toolkit; only the vendor's runtime on a board can read it",
            where=where,
            hint="inspect the .rknn that it was made from",
        )
    if kind == "RKNX":
        return FileError(
            "is a model of the vendor's for the RK182x family, whose files this version cannot read",
            where=where,
            hint="it runs with the vendor's RKNN3 runtime only",
        )
    if kind in ("NBG", "JSON"):
        return _older("a model" if kind == "NBG" else "a graph in JSON", where)
    if kind == "":
        return FileError(
            "is not a file of the vendor's compiler", where=where, hint="expected the bytes RKNN at its beginning"
        )
    return None


def _older(what: str, where: str) -> FileError:
    return FileError(
        f"is {what} of the vendor's older RKNN-Toolkit 1 (RK1808, RK3399Pro, RV1126), which this version cannot read",
        where=where,
        hint="load the source model and build it for another target",
    )


def sections_of(data: Content, where: str) -> Sections:
    """The parts of a file. Raises FileError for a kind that cannot be read, or that is cut short."""
    kind = kind_of(bytes(data[:HEAD]))
    if kind == "flatbuffer":
        return Sections("flatbuffer", 0, "full", data)
    problem = unreadable(kind, where)
    if problem is not None:
        raise problem
    if len(data) < 24:
        raise FileError(f"is cut short: {len(data)} bytes", where=where, hint=HINT)
    version, size = struct.unpack_from("<QQ", data, 8)
    faults = [] if bytes(data[4:8]) == bytes(4) else ["the mark at its beginning is not followed by zeros"]
    start = 64 if version & 0xFF > 1 and size else 24
    end = start + size
    model = memoryview(data)[start:end]
    if bytes(model[:4]) == _NBG:
        raise _older("a model", where)
    if end + 8 > len(data):
        raise FileError(f"is cut short: {len(data):,} of more than {end + 8:,} bytes", where=where, hint=HINT)
    json_size = struct.unpack_from("<Q", data, end)[0]
    last = end + 8 + json_size
    if last > len(data):
        raise FileError(f"is cut short: {len(data):,} of {last:,} bytes", where=where, hint=HINT)
    if last < len(data):
        faults.append(f"{len(data) - last:,} bytes behind its end")
    family = {_FULL: "full", _MINI: "mini"}.get(version >> 8, "unknown")
    json = memoryview(data)[end + 8 : last]
    header: tuple[int, ...] = ()
    found: Content | None = model
    if family == "unknown" or version & 0xFF not in _REVISIONS[family]:
        faults.append(f"layout {version:#x} is not known here: only its JSON was read")
        found = None
    elif not size:
        faults.append("it holds no compiled model")
        found = None
    elif family == "mini":
        found, header, fault = _mini(model)
        faults += [fault] if fault else []
    if found is not None and bytes(found[4:8]) != _IDENTIFIER:
        faults.append("the compiled model is of an unknown kind")
        found = None
    return Sections("container", version & 0xFF, family, found, json, header, tuple(faults))


def _mini(block: Content) -> tuple[Content | None, tuple[int, ...], str]:
    """The flatbuffer of a block for RV1103 or RV1106, which lies behind tasks, register commands, weights and
    data of operators."""
    if len(block) < 64:
        return None, (), "the compiled model is cut short"
    header = struct.unpack_from("<7I", block, 0)
    flatbuffer, tasks, _, commands, _, weights, besides = header
    start = 64 + tasks + commands + weights + besides
    if start + flatbuffer > len(block):
        return None, header, "the parts of the compiled model are larger than it"
    fault = "" if start + flatbuffer == len(block) else "the parts of the compiled model do not fill it"
    return block[start : start + flatbuffer], header, fault
