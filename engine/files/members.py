"""The layout of the files that the engine makes up itself: a zip, stored, whose manifest names and checks its members.

The same members give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from engine.errors import EngineError, FileError

MANIFEST = "manifest.json"
AGAIN = "make it again"
# It lists a model's layers, and the names of a few thousand tensors at most.
_LARGEST_MANIFEST = 16 << 20
# Zip wants a date; a fixed one keeps equal builds equal.
_DATE = (1980, 1, 1, 0, 0, 0)
# What Python's zip and JSON readers raise on bytes that are neither.
_DAMAGE = (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, OverflowError)


@dataclasses.dataclass(frozen=True)
class Members:
    """An open file of a known format and version; `where` is its path in messages."""

    manifest: Mapping[str, Any]
    where: str
    _archive: zipfile.ZipFile

    def read(self, name: str, largest: int) -> bytes:
        """A member of at most `largest` bytes. Raises FileError if it is not what the manifest says."""
        data = _stored(self._archive, name, largest, self.where)
        if checksum(data) != self.manifest["members"][name]["sha256"]:
            raise FileError(f"member {name!r} does not match its checksum", where=self.where, hint=AGAIN)
        return data


def write(file: IO[bytes], manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Write `members` with a manifest of what `manifest` holds, and their sizes and sums."""
    listed = {name: {"bytes": len(data), "sha256": checksum(data)} for name, data in members.items()}
    text = json.dumps({**manifest, "members": listed}, indent=2, ensure_ascii=False).encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {MANIFEST: text, **members}.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


@contextlib.contextmanager
def opened(path: str | Path, kind: str, form: str, newest: int) -> Iterator[Members]:
    """The members of a file of the format `form`, in a version from 1 to `newest`.

    `kind` is what messages call such a file. Damage that shows in the block is told as such. Raises FileError.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
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
            yield Members(manifest, where, archive)
    except EngineError:
        raise
    except FileNotFoundError as error:
        raise FileError("does not exist", where=where, hint="check the path") from error
    except _DAMAGE as error:
        raise FileError(f"is not a {kind} of this tool, or is damaged: {error}", where=where, hint=AGAIN) from error


def has_manifest(path: str | Path) -> bool:
    """Whether the file is laid out like one of ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except _DAMAGE:
        return False


def checksum(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _stored(archive: zipfile.ZipFile, name: str, largest: int, where: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
        raise FileError(f"member {name!r} is compressed or too large", where=where, hint=AGAIN)
    return archive.read(info)
