"""Reads the YAML of a cfg file as nested text with line and column, and nothing of YAML that a cfg has no use for.

Tensor names stay as they are written (a tensor may be called `1.10` or `no`), no tag is obeyed, and neither depth nor
aliases can make a small file cost much, since files come from anywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from engine.errors import QuantizationError

# A cfg has three levels; the parser in C has no bound of its own.
_DEEPEST = 8
_NULLS = {"", "~", "null", "Null", "NULL"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A value and where it stands. `content` is text, a list or a mapping; `plain` tells text without quotes."""

    content: str | list[Entry] | dict[str, Entry]
    where: str
    plain: bool = False

    @property
    def empty(self) -> bool:
        """Whether this is YAML's null, as behind a key without a value."""
        return self.plain and self.content in _NULLS

    def number(self) -> float | None:
        """The number that the text spells, infinities and `.nan` included, or None."""
        if not isinstance(self.content, str) or not self.plain:
            return None
        text = self.content.lower()
        try:
            return float({".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}.get(text, text))
        except ValueError:
            return None


def read_yaml(text: str, where: str) -> Entry:
    """The document in `text`. Raises QuantizationError naming line and column."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader(where)
    try:
        # Events rather than yaml.load: that one recurses in C, and a line of brackets overflows its stack.
        for event in yaml.parse(text, Loader=loader):
            reader.take(event)
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise QuantizationError(f"is not YAML: {getattr(error, 'problem', None) or error}", where=place) from error
    return reader.top if reader.top is not None else Entry("", where, plain=True)


class _Reader:
    """Builds entries from parser events. `_open` holds the unfinished lists and mappings, the innermost last."""

    def __init__(self, where: str) -> None:
        self.top: Entry | None = None
        self._where = where
        self._anchors: dict[str, Entry] = {}
        self._open: list[tuple[Entry, str | None]] = []
        self._keys: list[Entry | None] = []

    def take(self, event: Any) -> None:
        """Add what `event` tells. Raises QuantizationError."""
        where = f"{self._where} line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"
        if isinstance(event, yaml.ScalarEvent):
            self._add(Entry(event.value, where, plain=event.implicit[0]), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                raise QuantizationError(f"alias *{event.anchor} has no anchor before it", where=where)
            self._add(known, None)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(self._open) == _DEEPEST:
                raise QuantizationError("is nested too deeply for a cfg", where=where)
            entry = Entry([] if isinstance(event, yaml.SequenceStartEvent) else {}, where)
            self._open.append((entry, event.anchor))
            self._keys.append(None)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            entry, anchor = self._open.pop()
            self._keys.pop()
            self._add(entry, anchor)
        elif isinstance(event, yaml.DocumentStartEvent) and self.top is not None:
            raise QuantizationError("holds a second document", where=where)

    def _add(self, entry: Entry, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = entry
        if not self._open:
            self.top = entry
            return
        parent = self._open[-1][0].content
        if isinstance(parent, list):
            parent.append(entry)
            return
        assert isinstance(parent, dict)
        key = self._keys[-1]
        if key is None:
            if not isinstance(entry.content, str):
                raise QuantizationError("has a list or mapping for a key", where=entry.where)
            if entry.content in parent:
                raise QuantizationError(f"{entry.content!r} appears twice", where=entry.where)
            self._keys[-1] = entry
        else:
            assert isinstance(key.content, str)
            parent[key.content] = entry
            self._keys[-1] = None
