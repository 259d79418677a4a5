"""Reads a Darknet cfg: sections in order, each with its options as text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.errors import ModelError
from engine.frontends.reading import read_text

MOST_SECTIONS = 4000
"""The deepest published networks have some 400."""

_WHOLE = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Section:
    """One section. `name` is its index among the layers, from 0, and its type, as in '003_convolutional'; `where` names
    file and line, for messages."""

    type: str
    index: int
    options: Mapping[str, str]
    where: str

    @property
    def name(self) -> str:
        """What the layer and its output are called."""
        return f"{self.index:03d}_{self.type}"

    def text(self, key: str, default: str = "") -> str:
        """An option as it stands."""
        return self.options.get(key, default)

    def whole(self, key: str, default: int = 0) -> int:
        """An option that is a whole number; what stands behind the number is left out, as Darknet does."""
        return default if key not in self.options else self._whole(key, self.options[key])

    def positive(self, key: str, default: int = 0) -> int:
        """A whole number that must be at least 1. Raises ModelError."""
        number = self.whole(key, default)
        if number < 1:
            raise ModelError(f"{key}={number}, which must be at least 1", where=self.where)
        return number

    def decimal(self, key: str, default: float) -> float:
        """An option that is a number with a fraction."""
        if key not in self.options:
            return default
        match = _DECIMAL.match(self.options[key])
        number = float(match.group()) if match else math.nan
        if not math.isfinite(number):
            raise ModelError(f"{key}={self.options[key][:40]!r} is not a number", where=self.where)
        return number

    def wholes(self, key: str) -> list[int]:
        """An option that must be there and is whole numbers with commas between them."""
        if key not in self.options:
            raise ModelError(f"has no {key!r}", where=self.where, hint=f"add a line {key}=...")
        parts = self.options[key].partition("#")[0].split(",")
        if len(parts) > MOST_SECTIONS:
            raise ModelError(f"{key} has {len(parts)} numbers", where=self.where)
        return [self._whole(key, part) for part in parts if part]

    def _whole(self, key: str, text: str) -> int:
        match = _WHOLE.match(text)
        if match is None or len(match.group()) > 11 or abs(int(match.group())) > _LARGEST:
            raise ModelError(f"{key}={text[:40]!r} is not a whole number", where=self.where)
        return int(match.group())


def read_cfg(path: Path) -> tuple[Section, list[Section]]:
    """The [net] section (with the index -1) and the layers behind it.

    As in Darknet, blanks do not count, lines that begin with '#' or ';' are comments, and the first of several equal
    options counts. Raises FileError and ModelError.
    """
    sections: list[Section] = []
    options: dict[str, str] = {}
    for number, line in _lines(read_text(path)):
        where = f"{path}: line {number}"
        if line.startswith("["):
            kind, bracket, _ = line[1:].partition("]")
            if not bracket or not kind:
                raise ModelError(f"{line[:40]!r} is not a section", where=where, hint="sections are written [name]")
            if len(sections) > MOST_SECTIONS:
                raise ModelError(f"has more than {MOST_SECTIONS} sections", where=str(path), hint="is it a cfg?")
            options = {}
            section = Section(kind, len(sections) - 1, options, where)
            sections.append(dataclasses.replace(section, where=f"{where}: {section.name}" if sections else where))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not sections:
            hint = "a cfg has [sections] and lines of key=value; is it a Darknet cfg?"
            raise ModelError(f"{line[:40]!r} is not an option of a section", where=where, hint=hint)
        options.setdefault(key, value)
    if not sections or sections[0].type not in ("net", "network"):
        raise ModelError("does not begin with a [net] section", where=str(path), hint="is it a Darknet cfg?")
    return sections[0], sections[1:]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines by number, without blanks and comments."""
    for number, line in enumerate(text.split("\n"), 1):
        line = "".join(line.split())
        if line and line[0] not in "#;":
            yield number, line
