"""The YAML of a cfg file: read as nested text with its places, and names and numbers written so that they come back.

Nothing of YAML is read that a cfg has no use for. Tensor names stay as they are written (a tensor may be called `1.10`
or `no`), no tag is obeyed, and neither depth nor aliases can make a small file cost much, since files come from
anywhere.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, NamedTuple

import yaml

from engine.errors import QuantizationError

# A cfg has three levels; the parser in C has no bound of its own.
_DEEPEST = 8
BYTE_ORDER_MARK = "\ufeff"
_NULLS = {"", "~", "null", "Null", "NULL"}


# Named tuples: a cfg has thousands of these, and frozen dataclasses take several times as long to make.
class Place(NamedTuple):
    """Where something stands in a text: `line` and `column` count from 1, `start` and `end` are indices of characters.

    `end` says nothing of lists and mappings without brackets.
    """

    line: int
    column: int
    start: int
    end: int


class Entry(NamedTuple):
    """A value and where it stands. `content` is text, a list or a mapping.

    plain: text without quotes. brackets: a list or mapping in brackets. key: where the key stands whose value this is.
    anchor: a number that tells this anchor from all others, 0 without one. alias: the anchor of what is repeated here;
    the content is then that entry's own.
    """

    content: str | list[Entry] | dict[str, Entry]
    file: str
    place: Place
    plain: bool = False
    brackets: bool = False
    key: Place | None = None
    anchor: int = 0
    alias: int = 0

    @property
    def where(self) -> str:
        """The value's place in words."""
        return in_words(self.file, self.place)

    @property
    def key_where(self) -> str:
        """The key's place in words; the value's own where it has none."""
        return in_words(self.file, self.key or self.place)

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


def in_words(file: str, place: Place) -> str:
    """A place as messages name it."""
    return f"{file} line {place.line}, column {place.column}"


def read_yaml(text: str, where: str) -> Entry:
    """The document in `text`; a byte order mark before it does not count. Raises QuantizationError naming the place."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader(where)
    try:
        # Events rather than yaml.load: that one recurses in C, and a line of brackets overflows its stack.
        for event in yaml.parse(text.removeprefix(BYTE_ORDER_MARK), Loader=loader):
            reader.take(event)
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where} line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise QuantizationError(f"is not YAML: {getattr(error, 'problem', None) or error}", where=place) from error
    return reader.top if reader.top is not None else Entry("", where, Place(1, 1, 0, 0), plain=True)


@dataclasses.dataclass
class _Open:
    """A list or mapping that is still being read; `key` is the mapping's key that waits for its value."""

    content: list[Entry] | dict[str, Entry]
    place: Place
    anchor: str | None
    brackets: bool
    key: tuple[str, Place] | None = None


class _Reader:
    """Builds entries from parser events. `_open` holds the unfinished lists and mappings, the innermost last."""

    def __init__(self, where: str) -> None:
        self.top: Entry | None = None
        self._where = where
        self._anchors: dict[str, Entry] = {}
        self._anchor_count = 0
        self._open: list[_Open] = []

    def take(self, event: Any) -> None:
        """Add what `event` tells. Raises QuantizationError."""
        mark = event.start_mark
        place = Place(mark.line + 1, mark.column + 1, mark.index, event.end_mark.index)
        if isinstance(event, yaml.ScalarEvent):
            self._add(event.value, place, event.anchor, plain=event.implicit[0])
        elif isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                where = in_words(self._where, place)
                raise QuantizationError(f"alias *{event.anchor} has no anchor before it", where=where)
            self._add(known.content, place, None, plain=known.plain, alias=known.anchor)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(self._open) == _DEEPEST:
                raise QuantizationError("is nested too deeply for a cfg", where=in_words(self._where, place))
            content: list[Entry] | dict[str, Entry] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            self._open.append(_Open(content, place, event.anchor, bool(event.flow_style)))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done = self._open.pop()
            place = done.place._replace(end=place.end)
            self._add(done.content, place, done.anchor, brackets=done.brackets)
        elif isinstance(event, yaml.DocumentStartEvent) and self.top is not None:
            raise QuantizationError("holds a second document", where=in_words(self._where, place))

    def _add(
        self,
        content: str | list[Entry] | dict[str, Entry],
        place: Place,
        anchor: str | None,
        *,
        plain: bool = False,
        brackets: bool = False,
        alias: int = 0,
    ) -> None:
        parent = self._open[-1] if self._open else None
        name, key = parent.key if parent is not None and parent.key is not None else ("", None)
        number = 0
        if anchor is not None:
            number = self._anchor_count = self._anchor_count + 1
        entry = Entry(content, self._where, place, plain, brackets, key, number, alias)
        if anchor is not None:
            self._anchors[anchor] = entry
        if parent is None:
            self.top = entry
        elif isinstance(parent.content, list):
            parent.content.append(entry)
        elif key is not None:
            parent.content[name] = entry
            parent.key = None
        elif not isinstance(content, str):
            raise QuantizationError("has a list or mapping for a key", where=entry.where)
        elif content in parent.content:
            raise QuantizationError(f"{content!r} appears twice", where=entry.where)
        else:
            parent.key = content, place


_PLAIN_NAME = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
# YAML allows a key of at most 1024 characters before its colon; a longer one needs a question mark.
_LONGEST_PLAIN_KEY = 1000


def written_key(name: str, indent: str = "    ", *, brackets: bool = False) -> str:
    """An entry's beginning, with its colon; `name` is quoted only where plain text would be read as something else.

    brackets: the entry stands in a mapping in brackets, where more text needs quotes.
    """
    text = name
    if not _PLAIN_NAME.fullmatch(name) or name.lower() in _YAML_WORDS:
        text = yaml.safe_dump(name, allow_unicode=True, width=1 << 30).removesuffix("...\n").removesuffix("\n")
        if brackets or not text.isprintable():
            text = quoted(name)
    if len(text) <= _LONGEST_PLAIN_KEY:
        return f"{indent}{text}:"
    return f"{indent}? {text} :" if brackets else f"{indent}? {text}\n{indent}:"


def quoted(text: str) -> str:
    """`text` in quotes, on one line, whatever is in it."""
    return yaml.safe_dump(text, default_style='"', width=1 << 30).removesuffix("\n")


def written_number(value: float) -> str:
    """A number in full, written so that YAML 1.1 reads it as one: it wants a point before an exponent."""
    if isinstance(value, int):
        return repr(value)
    text = repr(float(value))
    if not math.isfinite(value):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    return text if "." in text else text.replace("e", ".0e")


def written_comment(text: str) -> str:
    """`text` as a comment of one line; what YAML or a terminal would take for something else is left out."""
    return "# " + "".join(c if c.isprintable() else "?" for c in text)
