"""Text under edit as cells: one sign for every character, the part of a line in sight, and the cells that changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from rknn_tui.palette import Palette
from rknn_tui.pieces import Line
from rknn_tui.symbols import Symbols

Cell = tuple[str, str, str]
"""A sign, its role, and what marks it: '', 'cursor', 'selected' or 'end' (the cursor while something is selected).

The second cell of a wide sign has the mark with ' half' behind it.
"""

_BLANK: Cell = (" ", "text", "")
_MARKS = {"cursor": Style(reverse=True), "selected": Style(reverse=True), "end": Style(underline=True)}


@lru_cache(maxsize=4096)
def sign(character: str, symbols: Symbols) -> str:
    """What stands for one character: itself, or a sign of one cell for what could command the terminal or has no cell.

    Unlike `drawable` it never joins characters: each keeps its place, for the cursor to stand on.
    """
    if character == "\t":
        return symbols.marker
    if character.isprintable() and (character.isascii() or (symbols.unicode and cell_len(character))):
        return character
    return "?"


def width_of(text: str, symbols: Symbols) -> int:
    """The cells that `text` takes."""
    if text.isascii() or not symbols.unicode:
        return len(text)
    return sum(cell_len(sign(character, symbols)) for character in text)


def column_at(text: str, x: int, symbols: Symbols, first: int = 0) -> int:
    """The column whose sign covers cell `x`, when `text` is drawn from column `first` on; at most its length."""
    for column in range(first, len(text)):
        x -= width_of(text[column], symbols)
        if x < 0:
            return column
    return max(len(text), first)


def first_shown(text: str, cursor: int, width: int, current: int, symbols: Symbols) -> int:
    """The column from which to draw `text` to have `cursor` in sight: 0 or else `current` where that does."""

    def fits(first: int) -> bool:
        part = text[first : cursor + 1]
        # What is cut off has a sign in the last cell.
        room = width - (len(text) > cursor + 1)
        return len(part) <= room and width_of(part, symbols) + (cursor >= len(text)) <= room

    if fits(0):
        return 0
    if 0 < current < cursor and fits(current):
        return current
    first, room = cursor, width * 2 // 3
    while first > 0 and room > 0:
        first -= 1
        room -= width_of(text[first], symbols)
    return first


def cells_of(
    line: Line,
    width: int,
    symbols: Symbols,
    *,
    first: int = 0,
    cursor: int = -1,
    selected: tuple[int, int] = (0, 0),
) -> list[Cell]:
    """At most `width` cells of a line from column `first` on, with a sign where something is cut off.

    cursor: the column to mark, -1 for none. selected: first column and the one after the last; the column behind the
    line's text stands for its break.
    """
    length = sum(len(text) for text, _ in line)
    if cursor == length or selected[1] > length:
        line = [*line, (" ", "text")]
    cells: list[Cell] = []
    column = 0
    for text, role in line:
        skipped = max(first - column, 0)
        for at, character in enumerate(text[skipped : skipped + width + 2], column + skipped):
            if len(cells) > width:
                break
            shown = sign(character, symbols)
            mark = "selected" if selected[0] <= at < selected[1] else ""
            if at == cursor:
                mark = "end" if selected[0] < selected[1] else "cursor"
            cells.append((shown, role, mark))
            if cell_len(shown) == 2:
                cells.append((shown, role, f"{mark} half"))
        column += len(text)
    return _with_cut_signs(cells, width, first > 0, symbols)


def _with_cut_signs(cells: list[Cell], width: int, cut: bool, symbols: Symbols) -> list[Cell]:
    mark: Cell = (symbols.ellipsis, "muted", "")
    if width < 1:
        return []
    if len(cells) > width:
        if cells[width - 1][2].endswith("half"):
            cells[width - 2] = _BLANK
        cells = [*cells[: width - 1], mark]
    if cut and cells:
        if len(cells) > 1 and cells[1][2].endswith("half"):
            cells[1] = _BLANK
        cells[0] = mark
    return cells


def padded(cells: list[Cell], width: int) -> list[Cell]:
    """Exactly `width` cells: blanks behind, or what is too much cut off."""
    return (cells + [_BLANK] * (width - len(cells)))[:width]


def changed_cells(old: Sequence[Cell], new: Sequence[Cell]) -> tuple[int, int] | None:
    """Where two rows of the same width differ: the first cell and the one after the last; None where they do not."""
    changed = [x for x, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    return (changed[0], changed[-1] + 1) if changed else None


def strip_of_cells(cells: Sequence[Cell], palette: Palette) -> Strip:
    """The cells as a strip, a segment for each look."""
    segments: list[Segment] = []
    for (role, mark), run in groupby(cells, lambda cell: (cell[1], cell[2].removesuffix(" half"))):
        text = "".join(shown for shown, _, found in run if not found.endswith("half"))
        # Blanks look the same in every style: in the plain one they need no escape codes of their own.
        style = palette["text" if text.isspace() else role]
        segments.append(Segment(text, style + _MARKS[mark] if mark else style))
    return Strip(segments, len(cells)).simplify()
