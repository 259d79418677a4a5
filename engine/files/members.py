"""The layout of the files that the engine makes up itself: a zip, stored, whose manifest names and checks its members.

The same members give the same bytes. What a member holds begins at a multiple of 64 bytes, and of a page where it is
arrays, so that it can be mapped into memory as it lies in the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import stat
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import EngineError, FileError
from engine.files.arrays import Arrays

Array = np.ndarray[Any, Any]

MANIFEST = "manifest.json"
AGAIN = "make it again"
# It lists a model's layers, and the names of a few thousand tensors at most.
_LARGEST_MANIFEST = 16 << 20
# Zip wants a date; a fixed one keeps equal builds equal.
_DATE = (1980, 1, 1, 0, 0, 0)
# What Python's zip and JSON readers raise on bytes that are neither.
_DAMAGE = (
    zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, OverflowError, struct.error,
)  # fmt: skip
_ALIGNMENT, _PAGE = 64, 4096
# The extra field that other writers of aligned zips use: its number, its size, the alignment, and zeros.
_PADDING = struct.Struct("<HHH")
_PADDING_KIND = 0xD935
_LOCAL = struct.Struct("<4s22xHH")
_END = struct.Struct("<4sHHHHIIH")
# Zip's own limit without the extension that no file of ours needs.
_LARGEST_FILE = (1 << 32) - 1
_LARGEST_DIRECTORY = 16 << 20


@dataclasses.dataclass(frozen=True)
class Members:
    """An open file of a known format and version; `where` is its path in messages."""

    manifest: Mapping[str, Any]
    where: str
    _archive: zipfile.ZipFile
    _starts: Mapping[str, int]

    @property
    def version(self) -> int:
        """Of the format."""
        return int(self.manifest["version"])

    @property
    def names(self) -> tuple[str, ...]:
        """All members but the manifest, in the file's order."""
        return tuple(name for name in self._archive.namelist() if name != MANIFEST)

    def read(self, name: str, largest: int) -> bytes:
        """A member of at most `largest` bytes. Raises FileError if it is not what the manifest says."""
        data = _stored(self._archive, name, largest, self.where)
        self._check(name, data)
        return data

    def mapped(self, name: str, largest: int, *, checked: bool = True) -> Array:
        """A member's bytes as a read-only array that lies in the file, and stays readable when the file is closed.

        Files that cannot be mapped are read. Where not `checked`, the caller compares the sum. Raises as `read`.
        """
        info = _plain(self._archive, name, largest, self.where)
        file = self._archive.fp
        assert file is not None
        array = np.empty(0, np.uint8)
        if info.file_size:
            array = _map(file, self._starts[name], info.file_size)
        if checked:
            self._check(name, array)
        return array

    def _check(self, name: str, data: bytes | Array) -> None:
        if checksum(data) != self.manifest["members"][name]["sha256"]:
            raise FileError(f"member {name!r} does not match its checksum", where=self.where, hint=AGAIN)


def write(file: IO[bytes], manifest: Mapping[str, Any], members: Mapping[str, bytes | Arrays]) -> None:
    """Write `members` with a manifest of what `manifest` holds, and their sizes and sums. Raises FileError."""
    listed = {name: {"bytes": _size(data), "sha256": checksum(data)} for name, data in members.items()}
    text = json.dumps({**manifest, "members": listed}, indent=2, ensure_ascii=False).encode()
    if sum(map(_size, members.values())) + len(text) > _LARGEST_FILE - _LARGEST_DIRECTORY:
        raise FileError("would be larger than 4 GB", hint="cut the model with `inputs` and `outputs`")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: text, **members}.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # as on Unix everywhere, so that the bytes are the same
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = _size(data)
            alignment = _PAGE if isinstance(data, Arrays) else _ALIGNMENT
            info.extra = _padding(file.tell() + _LOCAL.size + len(name.encode()), alignment)
            with archive.open(info, "w") as member:
                for piece in _pieces(data):
                    member.write(piece)
            info.extra = b""  # only the member's own header needs it


@contextlib.contextmanager
def opened(path: str | Path, kind: str, form: str, newest: int, complete_from: int = 1 << 30) -> Iterator[Members]:
    """The members of a file of the format `form`, in a version from 1 to `newest`.

    `kind` is what messages call such a file. From the version `complete_from` on it holds what the manifest lists and
    nothing else. Damage that shows in the block is told as such. Raises FileError.
    """
    where = str(path)
    try:
        with _archive(path) as archive:
            starts = _starts(archive, where)
            manifest = json.loads(_stored(archive, MANIFEST, _LARGEST_MANIFEST, where))
            if not isinstance(manifest, dict) or manifest.get("format") != form:
                raise FileError(f"is not a {kind} of this tool", where=where)
            version = manifest.get("version")
            if type(version) is not int or not 1 <= version <= newest:
                raise FileError(
                    f"has format version {version!r:.40}; this program reads up to {newest}",
                    where=where,
                    hint="update the program",
                )
            if version >= complete_from:
                _check_complete(archive, manifest["members"], where)
            yield Members(manifest, where, archive, starts)
    except EngineError:
        raise
    except FileNotFoundError as error:
        raise FileError("does not exist", where=where, hint="check the path") from error
    except _DAMAGE as error:
        raise FileError(f"is not a {kind} of this tool, or is damaged: {error}", where=where, hint=AGAIN) from error


def has_manifest(path: str | Path) -> bool:
    """Whether the file is laid out like one of ours."""
    try:
        with _archive(path) as archive:
            return MANIFEST in archive.namelist()
    except (*_DAMAGE, FileError):
        return False


def checksum(data: bytes | Array | Arrays) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    found = hashlib.sha256()
    for piece in _pieces(data):
        found.update(piece)
    return found.hexdigest()


def _pieces(data: bytes | Array | Arrays) -> Iterable[bytes | memoryview]:
    if isinstance(data, Arrays):
        return data
    return (data if isinstance(data, bytes) else data.data,)


def _size(data: bytes | Arrays) -> int:
    return data.size if isinstance(data, Arrays) else len(data)


def _padding(position: int, alignment: int) -> bytes:
    """An extra field behind which, as it lies at `position`, is a multiple of `alignment`."""
    size = -position % alignment
    if 0 < size < _PADDING.size:
        size += alignment
    if not size:
        return b""
    return _PADDING.pack(_PADDING_KIND, size - 4, alignment) + bytes(size - _PADDING.size)


@contextlib.contextmanager
def _archive(path: str | Path) -> Iterator[zipfile.ZipFile]:
    with Path(path).open("rb") as file:
        # Python's reader takes as much memory as the directory says; ours are small, and nothing follows them.
        size = file.seek(0, 2)
        file.seek(max(size - _END.size, 0))
        mark, _, _, _, count, directory, _, comment = _END.unpack(file.read(_END.size))
        if mark != b"PK\x05\x06" or comment or directory > _LARGEST_DIRECTORY or size > _LARGEST_FILE:
            raise zipfile.BadZipFile("it does not end as one")
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) != count:
                raise zipfile.BadZipFile("it has another number of members than it says")
            yield archive


def _starts(archive: zipfile.ZipFile, where: str) -> dict[str, int]:
    """Where the content of each member begins. Raises FileError where a name is there twice, or members overlap."""
    found: dict[str, int] = {}
    file = archive.fp
    assert file is not None
    end = 0
    members = sorted(archive.infolist(), key=lambda one: one.header_offset)
    if members and members[0].header_offset:
        raise FileError("begins with something else than a member", where=where, hint=AGAIN)
    for info in members:
        file.seek(info.header_offset)
        mark, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        start = info.header_offset + _LOCAL.size + name + extra
        if mark != b"PK\x03\x04" or info.header_offset < end or info.filename in found:
            raise FileError(f"has a member {info.filename!r:.60} twice, or over another", where=where, hint=AGAIN)
        found[info.filename], end = start, start + info.compress_size
        if end > archive.start_dir:
            raise FileError(f"member {info.filename!r:.60} is cut short", where=where, hint=AGAIN)
    return found


def _check_complete(archive: zipfile.ZipFile, listed: Any, where: str) -> None:
    names = [name for name in archive.namelist() if name != MANIFEST]
    if not isinstance(listed, dict) or sorted(names) != sorted(listed):
        strange = next((name for name in names if not isinstance(listed, dict) or name not in listed), "")
        what = f"holds {strange!r:.60}, which its manifest does not list" if strange else "lacks members that it lists"
        raise FileError(what, where=where, hint=AGAIN)
    for info in archive.infolist():
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise FileError(f"member {info.filename!r:.60} is a link, or no file", where=where, hint=AGAIN)


def _plain(archive: zipfile.ZipFile, name: str, largest: int, where: str) -> zipfile.ZipInfo:
    info = archive.getinfo(name)
    if (
        info.compress_type != zipfile.ZIP_STORED
        or info.file_size != info.compress_size
        or info.file_size > largest
        or info.flag_bits & 1
    ):
        raise FileError(f"member {name!r} is compressed or too large", where=where, hint=AGAIN)
    return info


def _stored(archive: zipfile.ZipFile, name: str, largest: int, where: str) -> bytes:
    return archive.read(_plain(archive, name, largest, where))


def _map(file: IO[bytes], start: int, size: int) -> Array:
    # Windows does not let a mapped file be replaced, which an export over the package that was loaded does.
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return np.memmap(file, np.uint8, "r", start, (size,)).view(np.ndarray)
    file.seek(start)
    return np.frombuffer(file.read(size), np.uint8)
