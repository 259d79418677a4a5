"""Looks at a file without torch: is it TorchScript, is it whole, and with which shapes was it traced."""

from __future__ import annotations

import io
import math
import pickletools
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from engine.errors import FileError, ModelError
from engine.frontends.pytorch.values import DTYPES
from engine.frontends.reading import CORRUPT
from engine.ort import LARGEST_MODEL
from engine.progress import Progress

_EXPORT = "export it with torch.jit.trace(model.eval(), example).save(path), or torch.jit.script"
_MOST_ENTRIES = 200_000
_LONGEST_RECORD = 1 << 18
_LONGEST_SOURCE = 64 << 20
_MOST_VALUES = 10_000
# Loading carries out what the source says of its objects' states, and these operators reach files.
_BETWEEN = rb"(?:[\s\\]|#[^\n]*\n)*"
_TOUCHES_FILES = re.compile(rb"\bfrom_file\b|\b(?:torch|aten)" + _BETWEEN + rb"\." + _BETWEEN + rb"save\b")
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

Example = tuple[list[int], str]
"""Shape and type of an input that a model was traced with."""


def check(path: Path, progress: Progress | None = None) -> list[Example]:
    """Refuse what is not a whole TorchScript file; returns what the model was traced with, empty where it does not say.

    Raises FileError when it cannot be read, ModelError when it is something else, with what to do instead.
    """
    where = str(path)
    if path.is_dir():
        raise FileError("is a folder, not a model file", where=where)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
        if not head:
            raise ModelError("is empty", where=where, hint="export or download it again")
        if size > LARGEST_MODEL:
            raise ModelError(f"is larger than {LARGEST_MODEL >> 20} MB", where=where, hint="is it a model file?")
        if not head.startswith(b"PK\x03\x04"):
            raise _no_archive(head, where)
        with zipfile.ZipFile(path) as archive:
            return _check_entries(archive, size, where, progress or Progress())
    except FileNotFoundError as error:
        raise FileError("does not exist", where=where, hint="check the path") from error
    except PermissionError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=where) from error
    except (
        OSError,  # an archive may send its reader to places before its beginning
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        LookupError,
    ) as error:
        raise ModelError(f"is not a whole archive: {error}", where=where, hint=CORRUPT) from error


def _no_archive(head: bytes, where: str) -> ModelError:
    """What to say of a file that is no zip archive."""
    if head[257:262] == b"ustar" or b"sys_info" in head:
        return ModelError("is a file of PyTorch before 0.4 (tar), not TorchScript", where=where, hint=_EXPORT)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return ModelError("holds weights or a pickled module (torch.save), not TorchScript", where=where, hint=_EXPORT)
    if head[4:8] == b"PTMF":
        return ModelError(
            "is a lite-interpreter file of the flatbuffer kind, which has no graph",
            where=where,
            hint="save it without _use_flatbuffer, or " + _EXPORT,
        )
    return ModelError("is not a TorchScript file", where=where, hint="is it whole, and of PyTorch? " + _EXPORT)


def _check_entries(archive: zipfile.ZipFile, size: int, where: str, progress: Progress) -> list[Example]:
    entries = archive.infolist()
    if not entries or len(entries) > _MOST_ENTRIES:
        raise ModelError(f"is an archive of {len(entries)} files", where=where, hint=CORRUPT)
    whole = sum(entry.file_size for entry in entries)
    # PyTorch stores without compression; sources compress to a tenth at most.
    if whole > LARGEST_MODEL or whole > 4 * size + (64 << 20):
        raise ModelError(f"unpacks to {whole >> 20} MB from {size >> 20} MB", where=where, hint=CORRUPT)
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ModelError("holds a file twice", where=where, hint=CORRUPT)
    root = names[0].split("/", 1)[0]
    if not any(name.startswith(f"{root}/code/") for name in names):
        raise _no_script(names, root, where)
    for entry in entries:
        progress.check()
        is_source = entry.filename.endswith(".py")
        if is_source and entry.file_size > _LONGEST_SOURCE:
            raise ModelError(f"has {entry.file_size >> 20} MB of source code in one file", where=where, hint=CORRUPT)
        with archive.open(entry) as stream:
            text = stream.read() if is_source else b""
            while stream.read(1 << 20):  # which compares the checksum
                pass
        found = _TOUCHES_FILES.search(text)
        if found:
            name = found.group().decode("ascii", "replace")[:50]
            raise ModelError(f"reads or writes files as it is loaded: {name}", where=where, hint="do not trust it")
    record = f"{root}/traced_inputs.pkl"
    if record in names and archive.getinfo(record).file_size <= _LONGEST_RECORD:
        return _examples(archive.read(record))
    return []


def _no_script(names: list[str], root: str, where: str) -> ModelError:
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return ModelError("is a program of torch.export (.pt2), not TorchScript", where=where, hint=_EXPORT)
    if f"{root}/bytecode.pkl" in names:
        return ModelError("holds bytecode without its source", where=where, hint=_EXPORT)
    if f"{root}/data.pkl" in names:
        return ModelError("holds weights or a pickled module (torch.save), not TorchScript", where=where, hint=_EXPORT)
    return ModelError("is an archive, but not of PyTorch", where=where, hint=_EXPORT)


def _examples(data: bytes) -> list[Example]:
    """The tensors in the record of the inputs of `forward`; empty where it is of a kind that is not known.

    The record is a pickle; it is read without making any object of it.
    """
    try:
        content = _read_pickle(data)
        content = _without_type(content)
        inputs = _without_type(content["forward"]) if isinstance(content, dict) else None
        found: list[Example] = []
        if isinstance(inputs, (list, tuple)):
            _add_tensors(inputs, found, [_MOST_VALUES])
        return found
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []


def _without_type(value: Any) -> Any:
    """What a call wraps that only tells the type."""
    return value[2][0] if isinstance(value, tuple) and value[:1] == ("call",) else value


def _add_tensors(value: Any, found: list[Example], left: list[int]) -> None:
    """Add the tensors in a value. Raises ValueError after as many values as are left: they may hold each other."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("too many values")
    if isinstance(value, tuple) and value[:1] == ("call",):
        if "_rebuild_tensor" not in value[1]:
            _add_tensors(value[2][0], found, left)
            return
        storage, _, shape = value[2][:3]
        dtype = _STORAGES.get(storage[1][1].rpartition(" ")[2], "float32")
        if all(isinstance(dim, int) and 0 < dim < 1 << 31 for dim in shape) and math.prod(shape) < 1 << 31:
            found.append((list(shape), dtype if dtype in DTYPES else "float32"))
    elif isinstance(value, (list, tuple)):
        for one in value:
            _add_tensors(one, found, left)


def _read_pickle(data: bytes) -> Any:
    """The structure of a pickle: calls as ("call", name, arguments), outside objects as ("outside", key)."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for code, argument, _ in pickletools.genops(io.BytesIO(data)):
        name = code.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("GLOBAL", "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(argument)
        elif name in ("NEWTRUE", "NEWFALSE", "NONE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False, "NONE": None}[name])
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT"):
            stack.append({"EMPTY_LIST": [], "EMPTY_TUPLE": (), "EMPTY_DICT": {}}[name])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            last = tuple(stack[-count:])
            del stack[-count:]
            stack.append(last)
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "SETITEMS":
            items = since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "SETITEM":
            item = stack.pop()
            key = stack.pop()
            stack[-1][key] = item
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, str):
                raise ValueError("a call of no function")
            stack.append(("call", function, arguments))
        elif name == "BINPERSID":
            stack.append(("outside", stack.pop()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            raise ValueError(name)
    raise ValueError("no end")
