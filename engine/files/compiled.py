"""A binary of the vendor's compiler that a package carries beside the model, as it came: nothing here looks into it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import FileError
from engine.files.members import AGAIN, Members, checksum
from engine.targets import find_target

Array = np.ndarray[Any, Any]

# What a board could hold in its memory.
LARGEST_COMPILED = 1 << 30
_MOST_FACTS, _LONGEST = 64, 1 << 10
_SUM = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """target: the chip that it runs on. compiler: the compiler's version, in its own words. sha256: of its bytes.
    size: in bytes. facts: whatever else is to be kept of how it was made, as texts by name."""

    target: str
    compiler: str
    sha256: str
    facts: Mapping[str, str]
    where: str
    _content: bytes | Array

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self._content)

    @property
    def member(self) -> str:
        """Where it lies in a package."""
        return member(self.target)

    def read(self) -> bytes:
        """The binary, compared with its sum. Raises FileError."""
        data = bytes(self._content)
        if checksum(data) != self.sha256:
            raise FileError(f"member {self.member!r} does not match its checksum", where=self.where, hint=AGAIN)
        return data

    def to_mapping(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"target": self.target, "compiler": self.compiler, "facts": dict(self.facts)}


def compiled(data: bytes, target: str, compiler: str, facts: Mapping[str, str] | None = None) -> Compiled:
    """A binary to be put into a package.

    Raises ConfigError for an unknown chip, FileError for what no package keeps.
    """
    name, facts = find_target(target).name, dict(facts or {})
    if not 0 < len(data) <= LARGEST_COMPILED:
        raise FileError(f"a compiled model cannot have {len(data)} bytes")
    _check(compiler, facts, "compiled model")
    return Compiled(name, compiler, checksum(data), facts, "", data)


def member(target: str) -> str:
    """The name of the member that holds the binary for a chip."""
    return f"npu/{target}.rknn"


def compiled_in(members: Members, listed: Any) -> tuple[Compiled, ...]:
    """The binaries that the manifest lists; each is read when somebody asks for it. Raises FileError."""
    if not isinstance(listed, list):
        raise FileError("lists no compiled models", where=members.where, hint=AGAIN)
    found: dict[str, Compiled] = {}
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("target"), str):
            raise FileError("lists a compiled model without a target", where=members.where, hint=AGAIN)
        target, compiler, facts = find_target(entry["target"]).name, entry.get("compiler", ""), entry.get("facts", {})
        _check(compiler, facts, members.where)
        name = member(target)
        said = members.manifest["members"][name]["sha256"]
        if target in found or target != entry["target"] or not isinstance(said, str) or not _SUM.fullmatch(said):
            raise FileError(f"lists compiled models for {target!r:.40} that cannot be", where=members.where, hint=AGAIN)
        content = members.mapped(name, LARGEST_COMPILED, checked=False)
        found[target] = Compiled(target, compiler, said, facts, members.where, content)
    return tuple(found.values())


def _check(compiler: Any, facts: Any, where: str) -> None:
    texts = [compiler, *facts, *facts.values()] if isinstance(facts, dict) else [None]
    if len(texts) > 2 * _MOST_FACTS or any(not isinstance(text, str) or len(text) > _LONGEST for text in texts):
        raise FileError("says things of a compiled model that are no short texts", where=where, hint=AGAIN)
