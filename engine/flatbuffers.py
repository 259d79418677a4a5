"""Reads FlatBuffers tables by a list of their fields, checking every offset: no byte of the file is trusted."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import EngineError, ModelError

_SCALARS = {
    "bool": ("<?", False),
    "byte": ("<b", 0),
    "ubyte": ("<B", 0),
    "int": ("<i", 0),
    "uint": ("<I", 0),
    "long": ("<q", 0),
    "ulong": ("<Q", 0),
    "float": ("<f", 0.0),
}
_ARRAYS = {
    "byte": "<i1",
    "ubytes": "<u1",
    "ushort": "<u2",
    "int": "<i4",
    "uint": "<u4",
    "long": "<i8",
    "float": "<f4",
}
# The largest real models have some ten thousand operators.
MOST_TABLES = 1 << 17

Content = bytes | memoryview
"""What a file holds, or the part of it that is a FlatBuffer."""

Fields = Mapping[str, tuple[int, str, Any]]
"""For each field its place in the table, its type, and its default."""


def fields(text: str) -> Fields:
    """Fields from a list such as `stride_w int, dilation_w int 1, shape [int], scale [float], tensors [Tensor]`, in the
    order of the schema; `-` stands for a field that nobody reads, `length` for the number of bytes of a [ubyte]."""
    found: dict[str, tuple[int, str, Any]] = {}
    for place, entry in enumerate(text.split(",")):
        name, *rest = entry.split()
        if name == "-":
            continue
        kind = rest[0]
        default = 0 if kind == "length" else _SCALARS[kind][1] if kind in _SCALARS else None
        if len(rest) > 1:
            default = rest[1] == "true" if kind == "bool" else float(rest[1]) if kind == "float" else int(rest[1])
        found[name] = (place, kind, default)
    return found


class File:
    """The bytes of a file, and the tables that may be in it, by name. `where` is for messages.

    `error` is what is raised where the file is wrong, with `hint`. Lists may lie over each other, so that a small file
    could stand for a huge content: `most_tables` limits the tables in all lists that are read, `most_numbers` the
    numbers, `most_text` the bytes of all strings.
    """

    def __init__(
        self,
        data: Content,
        tables: Mapping[str, Fields],
        where: str,
        *,
        error: type[EngineError] = ModelError,
        hint: str = "",
        most_tables: int = MOST_TABLES,
        most_numbers: int | None = None,
        most_text: int | None = None,
    ) -> None:
        self.data = data
        self.tables = tables
        self.where = where
        self._error = error
        self._hint = hint
        self._most_tables = self._tables_left = most_tables
        self._numbers_left = most_numbers
        self._text_left = most_text

    def root(self, name: str) -> Table:
        """The table that the file begins with. Raises `error`."""
        return Table(self, self.unpack("<I", 0), name)

    def unpack(self, form: str, at: int) -> Any:
        """The number at a position. Raises `error`."""
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise self.error("an offset leads out of the file")
        return struct.unpack_from(form, self.data, at)[0]

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Where the elements of a vector begin, and how many there are. Raises `error`."""
        count = self.unpack("<I", at)
        if count * width > len(self.data) - at - 4:
            raise self.error(f"a list of {count} elements leads out of the file")
        return at + 4, count

    def numbers(self, at: int, form: str) -> tuple[Any, ...]:
        """The numbers of a vector, of numpy's type `form`. Raises `error`."""
        begin, count = self.vector(at, np.dtype(form).itemsize)
        if self._numbers_left is not None:
            self._numbers_left -= count
            if self._numbers_left < 0:
                raise self.error("has more numbers than any model")
        return tuple(np.frombuffer(self.data, form, count, begin).tolist())

    def text(self, at: int) -> str:
        """A string; bytes that are not UTF-8 become U+FFFD. Raises `error`."""
        begin, count = self.vector(at, 1)
        if self._text_left is not None:
            self._text_left -= count
            if self._text_left < 0:
                raise self.error("has more text than any model")
        return str(self.data[begin : begin + count], "utf-8", "replace")

    def count_tables(self, count: int) -> None:
        """Raise `error` where lists of tables lead to more of them than any model has."""
        self._tables_left -= count
        if self._tables_left < 0:
            raise self.error(f"has more than {self._most_tables} parts")

    def error(self, what: str) -> EngineError:
        """An error that names the file."""
        return self._error(what, where=self.where, hint=self._hint)


class Table:
    """One table of a file; its fields are attributes. Fields that are not there have their defaults: 0, false, None
    for strings and tables, and empty lists. Reading one raises the file's error where the file is wrong."""

    def __init__(self, file: File, at: int, name: str) -> None:
        self._file = file
        self._at = at
        self._fields = file.tables[name]
        self._vtable = at - file.unpack("<i", at)
        self._length = file.unpack("<H", self._vtable)
        if self._length < 4 or self._length % 2:
            raise file.error(f"has a wrong table {name}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(name)
        value = self._read(*self._fields[name])
        self.__dict__[name] = value
        return value

    def _read(self, place: int, kind: str, default: Any) -> Any:
        file = self._file
        slot = 4 + 2 * place
        offset = file.unpack("<H", self._vtable + slot) if slot < self._length else 0
        if kind in _SCALARS:
            return file.unpack(_SCALARS[kind][0], self._at + offset) if offset else default
        if not offset:
            return default if kind == "length" else () if kind.startswith("[") else None
        at = self._at + offset
        at += file.unpack("<I", at)
        if kind == "string":
            return file.text(at)
        if kind == "length":
            return file.vector(at, 1)[1]
        if kind == "[ubyte]":
            begin, count = file.vector(at, 1)
            return memoryview(file.data)[begin : begin + count]
        if kind.startswith("["):
            inner = kind[1:-1]
            if inner in _ARRAYS:
                return file.numbers(at, _ARRAYS[inner])
            begin, count = file.vector(at, 4)
            file.count_tables(count)
            places = [begin + 4 * index for index in range(count)]
            return tuple(Table(file, place + file.unpack("<I", place), inner) for place in places)
        return Table(file, at, kind)

    def view(self, name: str, field: str = "union") -> Table | None:
        """The table in a field, whose type another field tells, as a table of that name."""
        place = self._fields[field][0]
        slot = 4 + 2 * place
        offset = self._file.unpack("<H", self._vtable + slot) if slot < self._length else 0
        if not offset:
            return None
        at = self._at + offset
        return Table(self._file, at + self._file.unpack("<I", at), name)


def absent(table: Fields) -> Any:
    """What stands for a table that is not there: all its fields have their defaults."""
    values = {name: (() if kind.startswith("[") else default) for name, (_, kind, default) in table.items()}
    return _Absent(values)


class _Absent:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)
