"""What a built model was made of and by what, as its file tells it: no times and no folders, so that it is the same
wherever and whenever it is made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import FileError

_LONGEST = 1 << 10
_CHUNK = 1 << 20
_SUM = re.compile(r"(?:[0-9a-f]{64})?")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """tool: name and version of the program that built it. source: the model file's name, without its folder, and
    `sha256` of it, '' where it is not one file. framework: what the model was written in."""

    tool: str = ""
    source: str = ""
    sha256: str = ""
    framework: str = ""

    def to_mapping(self) -> dict[str, str]:
        """Names and values that `from_mapping` takes back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_mapping(facts: Any, where: str) -> Provenance:
        """What a manifest says. Raises FileError where it is no such thing."""
        names = [field.name for field in dataclasses.fields(Provenance)]
        if not isinstance(facts, Mapping):
            raise FileError("says nothing of where it comes from", where=where)
        found = {name: facts.get(name, "") for name in names}
        if any(not isinstance(text, str) or len(text) > _LONGEST for text in found.values()):
            raise FileError("says no words of where it comes from", where=where)
        if not _SUM.fullmatch(found["sha256"]):
            raise FileError("says a sum of its source that is none", where=where)
        return Provenance(**found)


def provenance(path: str | Path, framework: str) -> Provenance:
    """Of a model built by this program from the file `path`; its sum is left out where it is no file to be read."""
    found = hashlib.sha256()
    # A name of bytes that are no text cannot be told as text.
    name = Path(path).name.encode("utf-8", "replace").decode()
    try:
        if not Path(path).is_file():
            return Provenance(tool(), name, "", framework)
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except (OSError, ValueError):
        return Provenance(tool(), name, "", framework)
    return Provenance(tool(), name, found.hexdigest(), framework)


@functools.cache
def tool() -> str:
    """This program's name and version."""
    try:
        return f"rknn-tui {importlib.metadata.version('rknn-tui')}"
    except importlib.metadata.PackageNotFoundError:
        return "rknn-tui"
