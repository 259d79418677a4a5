"""Damages model files by chance, as bytes and by what their formats are made of: protobuf, text, archives."""

from __future__ import annotations

import dataclasses
import io
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Literal

Form = Literal["bytes", "protobuf", "text", "archive"]

_STEPS = (1, 1, 1, 1, 2, 4)
"""How many damages a file may have; with one, it is read further."""

_HUGE = (0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_NUMBERS = (0, 1, 2, 3, 7, 4096, *_HUGE, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e38, 3.5e38, float("inf"), float("-inf"), float("nan"))
_TEXT_NUMBERS = (
    *("0", "-1", "1", "2", "-2147483648", "2147483648", "4294967296", "9223372036854775808", "1000000", "100000000"),
    *("65536", "1e30", "-1e30", "1e999", "nan", "inf", "0.5", "1e-40", "999999999999999999999999", "0x10", "1,1", ""),
)
_TEXT_NOISE = (*"{}[]:=,#\"'\\\n\t-", "{{{{{{", "}}}}}}", "\x00", "é", "\ud7ff", "][", "name:", "\n[net]\n", "{" * 5000)


def mutate(data: bytes, form: Form, source: random.Random) -> bytes:
    """One damage or several, those of the form and those of bytes mixed."""
    for _ in range(source.choice(_STEPS)):
        step = source.choice(_BY_FORM[form])
        data = step(data, source)
    return data


# Of bytes


def _flip_bits(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randint(1, 8) if changed else 0):
        changed[_place(changed, source)] ^= 1 << source.randrange(8)
    return bytes(changed)


def _overwrite_run(data: bytes, source: random.Random) -> bytes:
    start, length = _place(data, source), source.choice((1, 2, 4, 8, 16, 64, 1024))
    fill = source.choice((b"\0", b"\xff", b"\x80", b"\x7f", b""))
    run = fill * length if fill else source.randbytes(length)
    return data[:start] + run + data[start + length :]


def _truncate(data: bytes, source: random.Random) -> bytes:
    return data[: _place(data, source)]


def _insert(data: bytes, source: random.Random) -> bytes:
    start = _place(data, source)
    return data[:start] + source.randbytes(source.choice((1, 2, 4, 16, 256))) + data[start:]


def _remove(data: bytes, source: random.Random) -> bytes:
    start = _place(data, source)
    return data[:start] + data[start + source.choice((1, 2, 4, 16, 256)) :]


def _duplicate(data: bytes, source: random.Random) -> bytes:
    start, length = _place(data, source), source.choice((4, 16, 64, 512, 4096))
    return data[: start + length] + data[start : start + length] * source.choice((1, 1, 1, 30)) + data[start + length :]


def _swap(data: bytes, source: random.Random) -> bytes:
    length = source.choice((4, 16, 64, 512))
    first, second = sorted((_place(data, source), _place(data, source)))
    if first + length > second:
        return data
    middle = data[first + length : second]
    return (
        data[:first] + data[second : second + length] + middle + data[first : first + length] + data[second + length :]
    )


def _replace_number(data: bytes, source: random.Random) -> bytes:
    """A whole number or a float of two, four or eight bytes, where such numbers stand: aligned."""
    size, kind = source.choice(((2, "<H"), (4, "<I"), (4, "<I"), (8, "<Q"), (4, "<f")))
    start = _place(data, source) // size * size
    if start + size > len(data):
        return data
    value = source.choice(_FLOATS) if kind == "<f" else source.choice(_NUMBERS) % (1 << 8 * size)
    with_sign = -value % (1 << 8 * size) if kind != "<f" and source.random() < 0.3 else value
    try:
        packed = struct.pack(kind, with_sign)
    except OverflowError:
        packed = b"\xff" * size
    return data[:start] + packed + data[start + size :]


def _nudge_number(data: bytes, source: random.Random) -> bytes:
    """A number of four bytes that becomes a little larger or smaller, as offsets and counts that are off by few."""
    start = _place(data, source) // 4 * 4
    if start + 4 > len(data):
        return data
    value = struct.unpack_from("<I", data, start)[0] + source.choice((-16, -8, -4, -1, 1, 4, 8, 16))
    return data[:start] + struct.pack("<I", value % (1 << 32)) + data[start + 4 :]


def _place(data: Sequence[int], source: random.Random) -> int:
    """A place in the data; the beginning, where headers are, more often than the rest."""
    if not data:
        return 0
    return source.randrange(min(len(data), 256) if source.random() < 0.15 else len(data))


# Of protobuf messages


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field of a message: its key begins at `key`, its content is `start` to `end`, `parent` is its message's."""

    key: int
    start: int
    end: int
    number: int
    wire: int
    parent: int | None


def _varint(value: int) -> bytes:
    found = bytearray()
    value %= 1 << 64
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _read_varint(data: bytes, place: int, end: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            return None
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return value, place
    return None


def _fields(data: bytes, start: int, end: int, parent: int | None, first: int, depth: int) -> list[_Field] | None:
    """The fields of the message in a range, each followed by those inside; None where there is no message."""
    found: list[_Field] = []
    place = start
    while place < end:
        key = _read_varint(data, place, end)
        if key is None or not 1 <= key[0] >> 3 < 20000:
            return None
        wire, content = key[0] & 7, key[1]
        if wire == 0:
            number = _read_varint(data, content, end)
            if number is None:
                return None
            after = number[1]
        elif wire in (1, 5):
            after = content + (8 if wire == 1 else 4)
        elif wire == 2:
            length = _read_varint(data, content, end)
            if length is None:
                return None
            content, after = length[1], length[1] + length[0]
        else:
            return None
        if after > end:
            return None
        index = first + len(found)
        found.append(_Field(place, content, after, key[0] >> 3, wire, parent))
        if wire == 2 and depth and content < after:
            found += _fields(data, content, after, index, index + 1, depth - 1) or []
        place = after
    return found


def _with_content(data: bytes, fields: Sequence[_Field], index: int, whole: bytes) -> bytes:
    """The data in which `whole`, key and all, stands for a field; the lengths of the messages around it fit."""
    field = fields[index]
    while field.parent is not None:
        outer = fields[field.parent]
        content = data[outer.start : field.key] + whole + data[field.end : outer.end]
        whole, field = _varint(outer.number << 3 | 2) + _varint(len(content)) + content, outer
    return data[: field.key] + whole + data[field.end :]


def _change_field(data: bytes, source: random.Random) -> bytes:
    """One field takes another value, goes, comes again, becomes another's, or takes another's number."""
    fields = _fields(data, 0, len(data), None, 0, 8)
    if not fields:
        return _flip_bits(data, source)
    index = source.randrange(len(fields))
    field = fields[index]
    key = _varint(field.number << 3 | field.wire)
    whole, content = data[field.key : field.end], data[field.start : field.end]
    kind = source.random()
    if kind < 0.1:
        new = b""
    elif kind < 0.2:
        new = whole * source.choice((2, 2, 3, 200))
    elif kind < 0.35:
        other = source.choice(fields)
        new = data[other.key : other.end]
    elif kind < 0.45:
        rest = whole[len(_varint(field.number << 3 | field.wire)) :]
        new = _varint(source.randint(1, 40) << 3 | field.wire) + rest
    elif field.wire == 0:
        new = key + _varint(source.choice((1, 1, -1)) * source.choice(_NUMBERS))
    elif field.wire == 5:
        new = key + (struct.pack("<f", value) if (value := source.choice(_FLOATS)) != 3.5e38 else source.randbytes(4))
    elif field.wire == 1:
        new = key + struct.pack("<d", source.choice(_FLOATS))
    else:
        other = source.choice([one for one in fields if one.wire == 2])
        inside = source.choice(
            (
                b"",
                data[other.start : other.end],
                source.randbytes(len(content) % 64),
                content[: len(content) // 2],
                content + content,
                _varint(source.choice(_NUMBERS)) * source.randint(1, 8),  # a packed list of numbers
                _nested(field.number, 300),
                b"\xff\xfe" + content,
            )
        )
        new = key + _varint(len(inside)) + inside
    return _with_content(data, fields, index, new)


def _nested(number: int, depth: int) -> bytes:
    """A message in a message in a message ..."""
    content = b""
    for _ in range(depth):
        content = _varint(number << 3 | 2) + _varint(len(content)) + content
    return content


# Of text

_TOKEN = re.compile(r"[\w.+-]+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.]*(?:[eE][-+]?\d+)?")


def _as_text(change: Callable[[str, random.Random], str]) -> Callable[[bytes, random.Random], bytes]:
    def step(data: bytes, source: random.Random) -> bytes:
        return change(data.decode("latin-1"), source).encode("utf-8", "surrogatepass")

    return step


def _replace_token(pattern: re.Pattern[str], words: Sequence[str]) -> Callable[[str, random.Random], str]:
    """One match of the pattern becomes one of the words, or another match where there are none."""

    def change(text: str, source: random.Random) -> str:
        found = list(pattern.finditer(text))
        if not found:
            return text
        match = source.choice(found)
        word = source.choice(words) if words else source.choice(found).group()
        return text[: match.start()] + word + text[match.end() :]

    return change


def _change_lines(text: str, source: random.Random) -> str:
    lines = text.splitlines()
    if not lines:
        return text
    first, second = source.randrange(len(lines)), source.randrange(len(lines))
    kind = source.randrange(4)
    if kind == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == 1:
        del lines[first : first + source.choice((1, 1, 5))]
    elif kind == 2:
        lines[second:second] = lines[first : first + source.choice((1, 3, 12))]
    else:
        lines[second:second] = lines[first : first + 1] * 2000
    return "\n".join(lines)


def _add_noise(text: str, source: random.Random) -> str:
    place = source.randrange(len(text) + 1)
    return text[:place] + source.choice(_TEXT_NOISE) + text[place:]


# Of archives


def _change_member(data: bytes, source: random.Random) -> bytes:
    """One file inside a zip archive is damaged, as what it is; the archive around it stays whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # of archives that are damaged already
        return _flip_bits(data, source)
    if not members:
        return data
    code = [index for index, (name, _) in enumerate(members) if name.endswith((".py", ".pkl"))]
    index = source.choice(code) if code and source.random() < 0.8 else source.randrange(len(members))
    name, content = members[index]
    kind = source.random()
    if kind < 0.06:
        del members[index]
    elif kind < 0.1:
        members[index] = (source.choice((f"../{name}", f"/{name}", name.upper(), "")) or "x", content)
    elif kind < 0.14:
        members[index] = (name, source.choice(members)[1])
    else:
        members[index] = (name, mutate(content, "text" if name.endswith(".py") else "bytes", source))
    packing = zipfile.ZIP_DEFLATED if source.random() < 0.1 else zipfile.ZIP_STORED
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", packing) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return written.getvalue()


_Step = Callable[[bytes, random.Random], bytes]
_BYTES: tuple[_Step, ...] = (
    _flip_bits,
    _overwrite_run,
    _truncate,
    _insert,
    _remove,
    _duplicate,
    _swap,
    _replace_number,
    _replace_number,
    _nudge_number,
)
_TEXT: tuple[_Step, ...] = (
    _as_text(_replace_token(_NUMBER, _TEXT_NUMBERS)),
    _as_text(_replace_token(_NUMBER, _TEXT_NUMBERS)),
    _as_text(_replace_token(_NUMBER, ())),
    _as_text(_replace_token(_TOKEN, ())),
    _as_text(_change_lines),
    _as_text(_change_lines),
    _as_text(_add_noise),
    _flip_bits,
    _truncate,
)
_BY_FORM: dict[Form, tuple[_Step, ...]] = {
    "bytes": _BYTES,
    "protobuf": (*(_change_field,) * 40, *_BYTES),
    "text": _TEXT,
    "archive": (*(_change_member,) * 40, *_BYTES),
}
