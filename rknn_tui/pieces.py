"""Lines of styled text as plain data, and which cells differ between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from rknn_tui.palette import Palette

Piece = tuple[str, str]
"""Text and the role that it is drawn in."""
Line = Sequence[Piece]


def strip_of(line: Line, width: int, palette: Palette) -> Strip:
    """The line in exactly `width` cells."""
    # Blanks look the same in every style: in the plain one they need no escape codes of their own.
    segments = [Segment(text, palette["text" if text.isspace() else role]) for text, role in line if text]
    return Strip(segments).adjust_cell_length(width, palette["text"]).simplify()


def changed_span(old: Line, new: Line, width: int) -> tuple[int, int] | None:
    """The first changed cell and the cell after the last one, or None when both lines look the same."""
    before, after = _cells(old, width), _cells(new, width)
    if before == after:
        return None
    pairs = zip(before, after, strict=True)
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    pairs = zip(reversed(before), reversed(after), strict=True)
    return start, width - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def length(line: Iterable[Piece]) -> int:
    """Cells that the line takes."""
    return sum(cell_len(text) for text, _ in line)


def _cells(line: Line, width: int) -> list[Piece]:
    # A blank looks the same in every role, since no role has a background of its own.
    cells: list[Piece] = []
    for text, role in line:
        for character in text:
            cells.append((character, role if character != " " else ""))
            # The second half of a wide character is a cell too, and belongs to that character.
            cells.extend([(character, f"{role} wide")] * (cell_len(character) - 1))
    return (cells + [(" ", "")] * (width - len(cells)))[:width]
