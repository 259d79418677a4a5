"""Which columns of the layer table fit a terminal's width, and how wide each is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Column:
    """`start` and `width` in cells, counted from the left edge of the row; the marker has cell 0."""

    id: str
    title: str
    start: int
    width: int


# What a narrow terminal keeps first: what a person came for is where accuracy is lost. 'name 20' asks for that many
# cells for the name before anything else is added.
_PRIORITY = ("name", "precision", "cosine", "index", "op", "bar", "name 20", "single", "name 28", "op 16", "shape")
_ORDER = ("index", "op", "name", "shape", "precision", "cosine", "bar", "single")
_TITLES = {
    "index": "#",
    "op": "op",
    "name": "layer",
    "shape": "shape",
    "precision": "type",
    "cosine": "cosine",
    "bar": "",
    "single": "single",
}
_MARKER_CELLS = 2
_NUMBER = 8
"""Cells of a cosine: sign, digit, point and five decimals, which is what the toolkit prints."""


def columns(width: int, longest: Mapping[str, int], *, bar_title: str = "") -> tuple[Column, ...]:
    """The columns that fit `width` cells, in their order; every row takes at most `width` cells.

    `longest`: cells of the longest 'index', 'op', 'name' and 'shape' of the model; no column is wider than it needs.
    Room that is left goes to the name first, then to the others.
    """
    usual = {
        "index": 1,
        "op": 10,
        "name": 12,
        "shape": 14,
        "precision": 8,
        "cosine": _NUMBER,
        "bar": 5,
        "single": _NUMBER,
    }
    most = {name: max(longest.get(name, cells), len(_TITLES[name])) for name, cells in usual.items()} | {"bar": 12}
    least = {name: min(cells, most[name]) for name, cells in usual.items()} | {"index": most["index"]}
    chosen: list[str] = []
    used = _MARKER_CELLS
    for entry in _PRIORITY:
        name, _, cells = entry.partition(" ")
        if cells:
            more = max(min(int(cells), most[name]) - least[name], 0)
            more = min(more, width - used)
            least[name] += more
            used += more
        elif used + least[name] + (1 if chosen else 0) <= width:
            used += least[name] + (1 if chosen else 0)
            chosen.append(name)
    if not chosen:
        return (Column("name", _TITLES["name"], _MARKER_CELLS, max(width - _MARKER_CELLS, 0)),)
    spare = width - used
    for name in ("name", "op", "shape", "bar"):
        if name in chosen:
            more = min(spare, most[name] - least[name])
            least[name] += more
            spare -= more
    result: list[Column] = []
    start = _MARKER_CELLS
    for name in _ORDER:
        if name in chosen:
            title = bar_title if name == "bar" else _TITLES[name]
            result.append(Column(name, title, start, least[name]))
            start += least[name] + 1
    return tuple(result)
