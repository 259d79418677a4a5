"""A row of the cfg editor as cells: the gutter, the line in its colours, and what is wrong with it."""

from __future__ import annotations

from rknn_tui.pieces import Line
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.text.cfg_lines import pieces_of
from rknn_tui.text.text_cells import Cell, cells_of, padded, width_of

GUTTER = 2
"""Cells before the text: `!` before a line with a fault, and the cursor's line while the keys go elsewhere."""

# Less of a message than this tells nothing beside the text.
_LEAST_MESSAGE = 12


def row_cells(
    content: str,
    width: int,
    symbols: Symbols,
    *,
    fault: str | None = None,
    marked: bool = False,
    first: int = 0,
    cursor: int = -1,
    selected: tuple[int, int] = (0, 0),
) -> list[Cell]:
    """A line in exactly `width` cells, drawn from column `first` on, with the message `fault` behind it.

    marked: the marker of lists stands in the gutter. cursor, selected: as for `cells_of`.
    """
    gutter = [(" " if fault is None else "!", "error"), (symbols.marker if marked else " ", "marker")]
    line = pieces_of(content) if fault is None else _faulty(content)
    cells = cells_of(gutter, GUTTER, symbols)
    cells += cells_of(line, width - GUTTER, symbols, first=first, cursor=cursor, selected=selected)
    if fault is not None and (room := _room(content, width, symbols, first)) >= _LEAST_MESSAGE:
        text = drawable(fault, symbols)
        text = fit(text, min(room, width_of(text, symbols)), symbols)
        cells = padded(cells, width - room) + cells_of([(text, "error")], room, symbols)
    return padded(cells, width)


def shows_all_of(fault: str, content: str, width: int, symbols: Symbols, first: int = 0) -> bool:
    """Whether the whole message has room behind the line."""
    return width_of(drawable(fault, symbols), symbols) <= _room(content, width, symbols, first)


def message_cells(fault: str, width: int, symbols: Symbols) -> list[Cell]:
    """A message in a row of its own, cut to `width` cells."""
    text = fit(f"! {drawable(fault, symbols)}", width, symbols)
    return padded(cells_of([(text, "error")], width, symbols), width)


def _room(content: str, width: int, symbols: Symbols, first: int) -> int:
    # One cell behind the text is the cursor's, one a blank.
    return width - GUTTER - width_of(content[first : first + width], symbols) - 2


def _faulty(content: str) -> Line:
    text = content.strip()
    start = content.index(text)
    return [(content[:start], "text"), (text, "fault"), (content[start + len(text) :], "text")]
