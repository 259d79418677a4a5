"""Reads protobuf's text format without a schema: forks of Caffe gave their layers fields that no schema lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from engine.errors import ModelError, nearest

_DEEPEST = 64
_LARGEST = 1 << 31
# A comment ends with its line, so that nothing behind it can make the pattern go back into it.
_BETWEEN = r"(?:[\s;,]|\#[^\n]*(?:\n|\Z))*"
_TOKEN = re.compile(
    _BETWEEN
    + r"""(?:(?P<word>[A-Za-z0-9_.+\-]+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>[:{}<>\[\]/])
    |(?P<end>\Z))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_BOOLEANS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
_CLOSING = {"{": "}", "<": ">"}


class Message:
    """The fields of one message by name, each a list of scalars (as they are spelled) and messages in file order.

    What a field means is for its reader to say: `integer("axis", 1)`. Readers raise ModelError with the line where a
    value is not of their kind; fields that nobody read are told by `unread`.
    """

    def __init__(self, where: str, line: int) -> None:
        self.fields: dict[str, list[str | Message]] = {}
        self._file, self._line = where, line
        self._read: set[str] = set()

    @staticmethod
    def like(other: Message) -> Message:
        """An empty message that stands where `other` does."""
        return Message(other._file, other._line)

    @property
    def where(self) -> str:
        """The file and the line where the message begins."""
        return f"{self._file}: line {self._line}"

    def add(self, name: str, value: str | Message) -> None:
        """Put another value behind those that the field has."""
        self.fields.setdefault(name, []).append(value)

    def has(self, name: str) -> bool:
        """Whether the field was given."""
        self._read.add(name)
        return name in self.fields

    def ignore(self, *names: str) -> None:
        """Take these fields as read."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Names of fields that no reader asked for, those of inner messages as `inner.field`."""
        found: list[str] = []
        for name, values in self.fields.items():
            if name not in self._read:
                found.append(name)
            else:
                found += [
                    f"{name}.{inner}" for value in values if isinstance(value, Message) for inner in value.unread()
                ]
        return list(dict.fromkeys(found))

    def scalars(self, name: str) -> list[str]:
        """What the field's values say, unquoted."""
        self._read.add(name)
        values = self.fields.get(name, [])
        return [value if isinstance(value, str) else self._refuse(name, "a message", "a value") for value in values]

    def messages(self, name: str) -> list[Message]:
        """The field's values, which are messages."""
        self._read.add(name)
        values = self.fields.get(name, [])
        return [value if isinstance(value, Message) else self._refuse(name, value, "a message") for value in values]

    def message(self, name: str) -> Message:
        """The field's only value, or an empty message."""
        values = self.messages(name)
        if len(values) > 1:
            self._refuse(name, f"{len(values)} messages", "one")
        return values[0] if values else Message(self._file, self._line)

    def text(self, name: str, default: str = "") -> str:
        """The field's only value."""
        values = self.scalars(name)
        if len(values) > 1:
            self._refuse(name, f"{len(values)} values", "one")
        return values[0] if values else default

    def integers(self, name: str) -> list[int]:
        """The field's values as whole numbers of 32 bits."""
        return [self._integer(name, value) for value in self.scalars(name)]

    def integer(self, name: str, default: int = 0) -> int:
        """The field's only value as a whole number of 32 bits."""
        value = self.text(name)
        return self._integer(name, value) if value else default

    def numbers(self, name: str) -> list[float]:
        """The field's values as numbers."""
        return [self._number(name, value) for value in self.scalars(name)]

    def number(self, name: str, default: float = 0.0) -> float:
        """The field's only value as a finite number."""
        value = self.text(name)
        return self._number(name, value) if value else default

    def flag(self, name: str, default: bool = False) -> bool:
        """The field's only value, which is true or false."""
        value = self.text(name)
        if not value:
            return default
        if value not in _BOOLEANS:
            self._refuse(name, value, "true or false")
        return _BOOLEANS[value]

    def choice(self, name: str, known: Mapping[str, int], default: str) -> str:
        """The field's only value, which is one of `known` names or its number."""
        value = self.text(name, default)
        word = next((key for key, number in known.items() if value in (key, str(number))), None)
        if word is None:
            raise ModelError(f"{name} is {value!r}", where=self.where, hint=nearest(value, known))
        return word

    def _integer(self, name: str, value: str) -> int:
        try:
            octal = re.fullmatch(r"[+-]?0[0-7]+", value)
            number = int(value, 8 if octal else 0)
        except ValueError:
            number = _LARGEST
        if not -_LARGEST <= number < _LARGEST:
            self._refuse(name, value[:40], "a whole number of 32 bits")
        return number

    def _number(self, name: str, value: str) -> float:
        try:
            number = float(int(value, 16)) if value[:2].lower() == "0x" else float(value.rstrip("fF") or value)
        except (ValueError, OverflowError):
            number = float("inf")
        if not abs(number) < float("inf"):
            self._refuse(name, value[:40], "a finite number")
        return number

    def _refuse(self, name: str, found: str, wanted: str) -> NoReturn:
        raise ModelError(f"{name} is {found}, not {wanted}", where=self.where)


def parse(text: str, where: str) -> Message:
    """The message that `text` spells. `where` is the file, for errors: ModelError with the line for what is not in
    protobuf's text format."""
    reader = _Reader(text, where)
    top = Message(where, 1)
    open_messages: list[tuple[Message, str]] = [(top, "")]
    while True:
        message, closing = open_messages[-1]
        kind, token = reader.next()
        if kind == "end":
            if closing:
                reader.refuse(f"ends before the {closing!r} of line {message.where.rsplit(' ', 1)[-1]}'s message")
            return top
        if kind == "mark" and token == closing:
            open_messages.pop()
            continue
        inner, token = _field(reader, message, kind, token)
        if inner is not None:
            if len(open_messages) > _DEEPEST:
                reader.refuse(f"messages lie in each other more than {_DEEPEST} deep")
            open_messages.append((inner, _CLOSING[token]))


def _field(reader: _Reader, message: Message, kind: str, token: str) -> tuple[Message | None, str]:
    """Read a field whose name is `token`; if a message begins, it and its bracket."""
    if kind == "mark" and token == "[":
        name = _extension(reader)
    elif kind == "word" and (token[0].isalpha() or token[0] == "_"):
        name = token
    else:
        reader.refuse(f"a field's name should stand where {token!r} does")
    kind, value = reader.next()
    colon = kind == "mark" and value == ":"
    if colon:
        kind, value = reader.next()
    if kind == "mark" and value in _CLOSING:
        inner = Message(reader.where, reader.line)
        message.add(name, inner)
        return inner, value
    if not colon:
        reader.refuse(f"a colon or a bracket is missing behind {name!r}")
    if kind == "mark" and value == "[":
        kind, value = reader.next()
        while not (kind == "mark" and value == "]"):
            message.add(name, _scalar(reader, name, kind, value))
            kind, value = reader.next()
    else:
        message.add(name, _scalar(reader, name, kind, value))
    return None, value


def _scalar(reader: _Reader, name: str, kind: str, value: str) -> str:
    if kind == "word":
        if value == "-":  # a sign may stand apart
            kind, value = reader.next()
            value = f"-{value}"
        return value
    if kind != "text":
        reader.refuse(f"{name!r} has no value" if kind == "end" else f"{name!r} cannot be {value!r}")
    parts = [_unquoted(value)]
    while reader.peek_text():  # strings that follow each other are one
        parts.append(_unquoted(reader.next()[1]))
    return "".join(parts)


def _extension(reader: _Reader) -> str:
    name = ""
    while True:
        kind, token = reader.next()
        if kind == "mark" and token == "]":
            return name
        if kind == "end" or kind == "text":
            reader.refuse("a name in square brackets does not end")
        name += token


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    if "\\" not in inner:
        return inner
    # Octal and hexadecimal escapes are bytes of UTF-8.
    plain = _ESCAPE.sub(_unescaped, inner)
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _unescaped(match: re.Match[str]) -> str:
    octal, hexadecimal, letter = match.groups()
    if letter is not None:
        return _ESCAPED.get(letter, letter)
    return bytes([(int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF]).decode("utf-8", "surrogateescape")


class _Reader:
    """The tokens of a text, one after the other."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._text, self._at = text, 0
        self._counted, self._line = 0, 1

    @property
    def line(self) -> int:
        """The line of the token that was read last."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = max(self._counted, self._at)
        return self._line

    def next(self) -> tuple[str, str]:
        """The next token's kind ('word', 'text', 'mark' or 'end') and its spelling."""
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            between = re.match(_BETWEEN, self._text[self._at :])
            self._at += between.end() if between else 0
            self.refuse(f"cannot be read at {self._text[self._at : self._at + 20]!r}")
        self._at = match.end()
        kind = match.lastgroup or "end"
        return kind, match[kind]

    def peek_text(self) -> bool:
        """Whether a string comes next."""
        match = _TOKEN.match(self._text, self._at)
        return match is not None and match.lastgroup == "text"

    def refuse(self, what: str) -> NoReturn:
        """Raise ModelError with the line."""
        raise ModelError(what, where=f"{self.where}: line {self.line}", hint="is it a prototxt file?")
