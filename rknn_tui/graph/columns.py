"""Which columns of the layer table fit a terminal's width, and how wide each is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Column:
    """`start` and `width` in cells, counted from the left edge of the row; the marker and the mark have two cells."""

    id: str
    title: str
    start: int
    width: int


# What a narrow terminal keeps first: what a person came for is where accuracy is lost, and what can be done about it.
# 'name 20' asks for that many cells for the name before anything else is added.
_PRIORITY = (
    *(
        "precision",
        "name",
        "cosine",
        "index",
        "lanes",
        "measured",
        "board",
        "bar",
        "time",
        "share",
        "op",
        "name 20",
        "memory",
    ),
    *("precision 8", "single", "name 28", "op 16", "precision 13", "shape"),
)
_ORDER = (
    "index",
    "lanes",
    "op",
    "name",
    "shape",
    "precision",
    "cosine",
    "bar",
    "board",
    "single",
    "share",
    "time",
    "measured",
    "memory",
)
TITLES = {
    "index": "#",
    "lanes": "graph",
    "op": "op",
    "name": "layer",
    "shape": "shape",
    "precision": "type",
    "cosine": "cosine",
    "bar": "",
    "single": "single",
    "share": "error",
    "time": "ms",
    "memory": "mem",
    "measured": "ms",
    "board": "board",
}
MARKER_CELLS = 2
LANE_CAPS = ((140, 16), (100, 10), (0, 6))
"""From so many cells on, the graph may take so many lanes."""
_LEAST = {
    "op": 10,
    "name": 12,
    "shape": 14,
    "precision": 6,
    "cosine": 8,
    "bar": 5,
}
"""Cells with which a column is of use; all that it needs where none are given. A cosine has five decimals, as the
toolkit prints it, a sign before and one after."""
_FIXED = {"precision": 8, "cosine": 8, "bar": 12}


def lane_cap(width: int) -> int:
    """How many lanes the graph may take in a table of `width` cells."""
    return next(lanes for least, lanes in LANE_CAPS if width >= least)


def columns(width: int, longest: Mapping[str, int], titles: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """The columns that fit `width` cells, in their order; every row takes at most `width` cells.

    `longest`: cells of the longest text of each column that there is; 'precision', 'cosine' and 'bar' are there
    without it. No column is wider than it needs. Room that is left goes to the name first, then to the others.
    `titles` replaces some of TITLES.
    """
    shown = TITLES | dict(titles or {})
    # The graph's title is cut where the graph is narrower; an absent graph has no column.
    needs = {
        name: cells if name == "lanes" else max(cells, len(shown[name]))
        for name, cells in {**_FIXED, **longest}.items()
    }
    widths = {
        name: min(max(_LEAST.get(name, cells), len(shown[name])), cells) for name, cells in needs.items() if cells > 0
    }
    chosen: list[str] = []
    room = width - MARKER_CELLS + 1
    for entry in _PRIORITY:
        name, _, cells = entry.partition(" ")
        if name not in widths:
            continue
        if cells:
            more = max(min(int(cells), needs[name]) - widths[name], 0)
            if name not in chosen or (more > room and name != "name"):
                continue
            widths[name] += min(more, room)
            room -= min(more, room)
        elif widths[name] + 1 <= room:
            room -= widths[name] + 1
            chosen.append(name)
        elif name == "name":
            # Numbers of layers that nobody can tell apart say nothing.
            break
    if not chosen:
        return (Column("name", shown["name"], MARKER_CELLS, max(width - MARKER_CELLS, 0)),)
    for name in ("name", "op", "shape", "bar"):
        if name in chosen:
            more = min(room, needs[name] - widths[name])
            widths[name] += more
            room -= more
    result: list[Column] = []
    start = MARKER_CELLS
    for name in _ORDER:
        if name in chosen:
            result.append(Column(name, shown[name], start, widths[name]))
            start += widths[name] + 1
    return tuple(result)
