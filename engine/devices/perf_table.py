"""Reads the runtime's table of layers: the text that it gives for RKNN_QUERY_PERF_DETAIL, of any version.

Columns differ from version to version, may be empty, and are pushed aside by long shapes; so they are found by their
titles, by where a value begins, and by what it may be. What makes no sense is left out: the text comes from a board.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from engine.boards import MeasuredLayer

_MOST_TEXT = 16 << 20
_MOST_ROWS = 10_000
_MOST_COLUMNS = 32
_MOST_LINE = 20_000
_FAR = 30.0
"""How far from its title a value may begin, in signs, to count as worse than nearer ones."""
_SKIPPED = 40.0
"""What an empty column costs: more than any distance, so that a text whose spaces are lost is still read."""

_WHOLE = re.compile(r"\d{1,18}")
_REAL = re.compile(r"\d{1,18}(\.\d{0,18})?([eE][+-]?\d{1,2})?")
_NUMBER = re.compile(rf"\\|-|{_REAL.pattern}")
_REALS = re.compile(r"\\|-|\d\S*")
_CYCLES = re.compile(r"\\|\d{1,18}(/\d{1,18}){0,2}")
_SHAPE = re.compile(r"\\|[(\[]\S*")
_BRACKETS = re.compile(r"\([^()]*\)")
_WORD = re.compile(r"\S+")
_TARGET = re.compile(r"[A-Za-z]\S*|\\|-")
_DTYPE = re.compile(r"[A-Za-z]\w*|\\|-")

# By the first letters of a title in lower case, without spaces; the first that fits.
_COLUMNS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("id", "id", _WHOLE),
    ("optype", "op", _WORD),
    ("op", "op", _WORD),
    ("datatype", "dtype", _DTYPE),
    ("dtype", "dtype", _DTYPE),
    ("target", "target", _TARGET),
    ("inputshape", "", _SHAPE),
    ("outputshape", "", _SHAPE),
    ("cycles(", "cycles", _CYCLES),
    ("cycles", "cycles_total", _CYCLES),
    ("ddrcycle", "cycles_ddr", _CYCLES),
    ("npucycle", "cycles_npu", _CYCLES),
    ("totalcycle", "cycles_total", _CYCLES),
    ("maxcycle", "cycles_total", _CYCLES),
    ("time(us)", "time_us", _NUMBER),
    ("time(ms)", "time_ms", _NUMBER),
    ("rw(kb)", "rw_kb", _NUMBER),
    ("fullname", "name", _WORD),
    ("layername", "name", _WORD),
    ("name", "name", _WORD),
)
_TITLE = re.compile(
    r"(?i)(?:(?:ddr|npu|total|max)\s(?=cycles?\b)\S+|(?:task|lut)\s(?=num)\S+|(?:data|op)\s(?=type)\S+"
    r"|(?:input|output)\s(?=shape)\S+|(?:full|layer)\s(?=name)\S+|\S+)"
)
_TOTAL = re.compile(r"(?i)total[^:\n]{0,80}\btime\s?\((us|ms)\)\s{0,20}[:=]\s{0,20}(\d{1,18}(?:\.\d{0,9})?)")


@dataclasses.dataclass(frozen=True)
class PerfTable:
    """What a table tells: its rows, and the microseconds of the whole run where it says them."""

    layers: tuple[MeasuredLayer, ...] = ()
    total_us: float | None = None


@dataclasses.dataclass(frozen=True)
class _Column:
    role: str
    start: int
    allowed: re.Pattern[str]


def parse_table(text: str) -> PerfTable:
    """The rows of the runtime's table, in its order; none where there is no table. Never raises.

    Rows without a time have 0; a last line that was cut is left out.
    """
    text = text[:_MOST_TEXT]
    rows: list[MeasuredLayer] = []
    columns: list[_Column] = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        line = line.rstrip("\r\0")[:_MOST_LINE].expandtabs()
        if not columns or "time(" in line.lower():
            found = _columns(line)
            if columns and found is None and rows:
                # Totals, and the ranking of operators, which has titles of its own.
                break
            columns = found or columns
            continue
        if len(rows) == _MOST_ROWS:
            break
        row = _row(line, columns, cut=number == len(lines) - 1)
        if row is not None:
            rows.append(row)
    total = _TOTAL.search(text)
    return PerfTable(tuple(rows), float(total[2]) * (1000 if total[1].lower() == "ms" else 1) if total else None)


def match_layers(rows: Iterable[MeasuredLayer], layers: Mapping[str, Sequence[str]]) -> tuple[MeasuredLayer, ...]:
    """The rows with `layer` filled where a row's name is known.

    `layers`: by the name of each of our layers, the names of what it was made of: source nodes and their tensors. The
    runtime's name is an operator, a colon, and a node or tensor, to which the compiler may have added an end of its
    own ('ConvRelu:/model.0/act/Relu_output_0_conv'); the longest known name that it begins with counts.
    """
    known: dict[str, str] = {}
    for layer, names in layers.items():
        for name in names:
            known.setdefault(name, layer)
    # A layer's own name comes before what another was made of.
    known.update((layer, layer) for layer in layers)
    return tuple(dataclasses.replace(row, layer=_layer_of(row.name, known)) for row in rows)


def _layer_of(name: str, known: Mapping[str, str]) -> str:
    # The name itself may have a colon too, such as 'output:0' of TensorFlow.
    for rest in (name.partition(":")[2], name):
        end = len(rest)
        while end > 0:
            if rest[:end] in known:
                return known[rest[:end]]
            # An end that was added begins with a sign that parts words.
            end = max(rest.rfind(sign, 0, end) for sign in "_:./-")
    return ""


def _columns(line: str) -> list[_Column] | None:
    """The columns of a line of titles; None for any other line."""
    found: list[_Column] = []
    for title in itertools.islice(_TITLE.finditer(line), _MOST_COLUMNS):
        words = re.sub(r"\s", "", title[0]).lower()
        for begin, role, allowed in _COLUMNS:
            if words.startswith(begin):
                found.append(_Column(role, title.start(), allowed))
                break
        else:
            # MacUsage, WorkLoad, task and look-up table numbers, and what later versions add.
            found.append(_Column("", title.start(), _REALS))
    roles = [one.role for one in found if one.role]
    needed = {"id", "op"} <= set(roles) and ("time_us" in roles or "time_ms" in roles)
    return found if needed and len(roles) == len(set(roles)) else None


def _row(line: str, columns: Sequence[_Column], *, cut: bool) -> MeasuredLayer | None:
    # A shape that is printed with spaces is one word nevertheless.
    joined = _BRACKETS.sub(lambda one: one[0].replace(" ", "_"), line)
    words = [(one.start(), one[0]) for one in itertools.islice(_WORD.finditer(joined), len(columns))]
    if not words or not _WHOLE.fullmatch(words[0][1]):
        return None
    places = _placed(words, columns)
    if places is None:
        return None
    cells = {}
    for (start, word), place in zip(words, places, strict=False):
        role = columns[place].role
        # A name is the last of a line, and may have spaces.
        cells[role] = line[start:].rstrip() if role == "name" and place == len(columns) - 1 else word
    name = cells.get("name", "")
    if "op" not in cells or (cut and not name):
        return None
    cycles = _cycles(cells)
    time = _number(cells.get("time_us")) or 1000 * (_number(cells.get("time_ms")) or 0.0)
    return MeasuredLayer(
        name,
        cells["op"],
        cells.get("target", "").upper().strip("\\-"),
        time,
        dtype=cells.get("dtype", "").strip("\\-"),
        cycles_ddr=cycles[0],
        cycles_npu=cycles[1],
        cycles_total=cycles[2],
        rw_kb=_number(cells.get("rw_kb")),
    )


def _placed(words: Sequence[tuple[int, str]], columns: Sequence[_Column]) -> list[int] | None:
    """The column of each word, from left to right, so that all are allowed there and begin near the titles.

    None where there is no such way. Words behind that of the last column belong to it.
    """
    # For each column that the words so far may end in: what that costs, and the way there.
    ways: dict[int, tuple[float, list[int]]] = {}
    if columns[0].allowed.fullmatch(words[0][1]):
        ways[0] = (0.0, [0])
    last = len(columns) - 1
    done: tuple[float, list[int]] | None = None
    for before, (start, word) in itertools.pairwise(words):
        reached: dict[int, tuple[float, list[int]]] = {}
        for place, (cost, way) in ways.items():
            for further in range(place + 1, len(columns)):
                if not columns[further].allowed.fullmatch(word):
                    continue
                total = cost + _distance(before, start, columns, place, further)
                if further not in reached or total < reached[further][0]:
                    reached[further] = (total, [*way, further])
        # What follows the last column's first word is part of it.
        if last in ways and (done is None or ways[last][0] < done[0]):
            done = ways[last]
        ways = reached
    ends = [*ways.values(), *([done] if done is not None and columns[last].role == "name" else [])]
    return min(ends, key=lambda one: one[0])[1] if ends else None


def _distance(before: tuple[int, str], start: int, columns: Sequence[_Column], place: int, further: int) -> float:
    """How far a word is from where its column begins, given the word before it, and what is empty between."""
    first = before[0] + columns[place + 1].start - columns[place].start
    # A word that is longer than its column pushes all that follow.
    pushed = max(first, before[0] + len(before[1]) + 1)
    expected = pushed + columns[further].start - columns[place + 1].start
    return min(float(abs(start - expected)), _FAR) + _SKIPPED * (further - place - 1)


def _cycles(cells: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    parts = cells.get("cycles", "").split("/")
    if len(parts) == 3 and all(_WHOLE.fullmatch(part) for part in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    found = [cells.get(role, "") for role in ("cycles_ddr", "cycles_npu", "cycles_total")]
    ddr, npu, total = (int(one) if _WHOLE.fullmatch(one) else None for one in found)
    return ddr, npu, total


def _number(text: str | None) -> float | None:
    if text is None or not _REAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
