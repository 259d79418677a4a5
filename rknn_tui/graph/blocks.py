"""Which rows belong together, by their names' scopes or by operators that repeat, so that they can be one row."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

LONGEST_REPEAT = 48
"""Operators of the longest sequence that is looked for twice or more in a row: a large network's stage."""
LONGEST_PHRASE = 12
"""Operators of the longest sequence that is looked for in several places."""
_SHOWN_OPERATORS = 3

_Span = tuple[str, int, int]
"""A block to be: name, first row, last row."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows `first` to `last` (2 or more) that belong together. `level` counts the blocks around it."""

    name: str
    first: int
    last: int
    level: int

    @property
    def size(self) -> int:
        """How many rows it has."""
        return self.last - self.first + 1


def find_blocks(names: Sequence[str], ops: Sequence[str], numbers: Sequence[int] | None = None) -> tuple[Block, ...]:
    """The blocks of rows with these names and operators, each before those inside it.

    Where most rows' names have scopes ('/model.2/m.0/cv1' is in '/model.2/m.0' and '/model.2'), the scopes are the
    blocks. Else they are sequences of operators that come several times. `numbers` are what the rows are called in the
    names of such blocks, their places where not given.
    """
    spans = _scopes(names, ops)
    covered = {row for _, first, last in spans for row in range(first, last + 1)}
    if 2 * len(covered) < len(names):
        spans = _repeats(ops, range(len(ops)) if numbers is None else numbers)
    return _nested(spans)


def _nested(spans: Iterable[_Span]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    around: list[int] = []
    for name, first, last in sorted(spans, key=lambda span: (span[1], -span[2])):
        while around and around[-1] < first:
            around.pop()
        blocks.append(Block(name, first, last, len(around)))
        around.append(last)
    return tuple(blocks)


def _scopes(names: Sequence[str], ops: Sequence[str]) -> list[_Span]:
    """Runs of rows in one scope; of scopes with the same rows the innermost."""
    paths = [_path(name) for name in names]
    rows_in = Counter(scope for path in paths for scope in path)
    everything = sum(1 for op in ops if op != "Input")
    runs: list[_Span] = []
    open_scopes: list[tuple[str, int]] = []
    for row, path in enumerate([*paths, ()]):
        kept = 0
        while kept < min(len(path), len(open_scopes)) and path[kept] == open_scopes[kept][0]:
            kept += 1
        while len(open_scopes) > kept:
            scope, first = open_scopes.pop()
            runs.append((scope, first, row - 1))
        open_scopes += [(scope, row) for scope in path[kept:]]
    longest: Counter[str] = Counter()
    for scope, first, last in runs:
        longest[scope] = max(longest[scope], last - first + 1)
    found: dict[tuple[int, int], str] = {}
    for scope, first, last in runs:
        # A prefix that names a kind of layer comes everywhere; a scope has most of its rows in one place.
        if last > first and rows_in[scope] < everything and 2 * longest[scope] >= rows_in[scope]:
            # Inner scopes end first.
            found.setdefault((first, last), scope)
    return [(scope, first, last) for (first, last), scope in found.items()]


def _path(name: str) -> tuple[str, ...]:
    """The scopes that a name is in, the outermost first: '/a.0/b/c' gives '/a.0' and '/a.0/b'."""
    # A number belongs to what stands before it: 'm.0' is one of several 'm'.
    ends = [match.start() for match in re.finditer(r"[/.](?!\d+(?:[/.]|$))", name)]
    return tuple(name[:end] for end in ends if end)


def _repeats(ops: Sequence[str], numbers: Sequence[int]) -> list[_Span]:
    letters = {op: chr(0x4E00 + place) for place, op in enumerate(dict.fromkeys(ops))}
    convolutions = {letter for op, letter in letters.items() if op.startswith("Conv")}
    text = "".join(letters[op] for op in ops)
    spans: list[_Span] = []
    # The innermost repetition that a row is in, 0 for none.
    unit_of = [0] * len(text)
    units: set[str] = set()

    def add(first: int, length: int, times: int = 1) -> None:
        number = f" ×{times} #{numbers[first]}" if times > 1 else f" #{numbers[first]}"
        spans.append((_sequence(ops[first : first + length]) + number, first, first + length * times - 1))

    for start, stop, length in _in_a_row(text):
        for first, end in _parts(unit_of, start, stop):
            times = (end - first) // length
            if times < 2:
                continue
            # Where it can start at several rows: as the same sequence did elsewhere, else with a convolution.
            first = max(
                range(first, end - times * length + 1),
                key=lambda row: (text[row : row + length] in units, text[row] in convolutions, -row),
            )
            add(first, length, times)
            for row in range(first, first + length * times, length):
                units.add(text[row : row + length])
                unit_of[row : row + length] = [len(spans)] * length
                add(row, length)
    found = {(first, last) for _, first, last in spans}
    for first, length in _phrases(text, unit_of):
        if (first, first + length - 1) not in found:
            add(first, length)
    return spans


def _sequence(ops: Sequence[str]) -> str:
    parts = [(op, sum(1 for _ in same)) for op, same in groupby(ops)]
    shown = [f"{op}×{times}" if times > 1 else op for op, times in parts[:_SHOWN_OPERATORS]]
    return "·".join([*shown, *["…"] * (len(parts) > _SHOWN_OPERATORS)])


def _parts(unit_of: Sequence[int], start: int, stop: int) -> list[tuple[int, int]]:
    """Where `start` to `stop` stays in one repetition."""
    borders = [row for row in range(start + 1, stop) if unit_of[row] != unit_of[row - 1]]
    return list(pairwise([start, *borders, stop]))


def _in_a_row(text: str) -> list[tuple[int, int, int]]:
    """Where sequences follow themselves: (first row, row after the last, length), the longest stretches first."""
    found: list[tuple[int, int, int]] = []
    for length in range(2, min(LONGEST_REPEAT, len(text) // 2) + 1):
        for match in re.finditer(rf"(.{{{length}}})\1+", text):
            stop = match.end()
            while stop < len(text) and text[stop] == text[stop - length]:
                stop += 1
            # What repeats something shorter is found with that.
            if (match[1] * 2).find(match[1], 1) == length:
                found.append((match.start(), stop, length))
    return sorted(found, key=lambda stretch: (stretch[0] - stretch[1], stretch[2], stretch[0]))


def _phrases(text: str, unit_of: Sequence[int]) -> list[tuple[int, int]]:
    """Sequences that come again elsewhere, none across another or the border of a repetition: (first, length)."""
    # How many rows from each one on are in the same repetition.
    room = [1] * len(text)
    for row in range(len(text) - 2, -1, -1):
        if unit_of[row] == unit_of[row + 1]:
            room[row] = room[row + 1] + 1
    taken = bytearray(len(text))
    found: list[tuple[int, int]] = []
    for length in range(min(LONGEST_PHRASE, len(text) // 2), 1, -1):
        places: dict[str, list[int]] = {}
        for first in range(len(text) - length + 1):
            if room[first] < length or taken[first] or taken[first + length - 1] or any(taken[first : first + length]):
                continue
            rows = places.setdefault(text[first : first + length], [])
            if not rows or first >= rows[-1] + length:
                rows.append(first)
        # A pair that comes twice is chance.
        often = 3 if length == 2 else 2
        for phrase, rows in sorted(places.items(), key=lambda place: (-len(place[1]), place[1][0])):
            free = [first for first in rows if not any(taken[first : first + length])]
            if len(free) >= often and len(set(phrase)) > 1:
                for first in free:
                    taken[first : first + length] = b"\1" * length
                    found.append((first, length))
    return found
