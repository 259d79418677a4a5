"""What goes to the terminal: only cells that look other than what it shows already.

Textual sends a line of a widget from its start up to the last changed cell, and what is laid out anew in full, often
twice: opening the prompt would cost 6 kB in 80x24, and every number at the end of a row the whole row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

Cell = tuple[str, str, str]
"""A character with what combines with it, and the escape codes before and behind it; the second half of a wide
character is '' in the same codes."""
Run = tuple[int, int, Sequence[Cell]]
"""A line, its first column, and the cells from there on."""

BLANK: Cell = (" ", "", "")
_LEAST_GAP = 7
"""Unchanged cells over which a jump is shorter than drawing them again."""
_LEAST_BLANKS = 4
"""Blanks up to the right edge that are longer than the code that erases them."""


class Painter:
    """Remembers what the terminal shows, and finds what to send for it to show something else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._codes: dict[Style | None, tuple[str, str]] = {None: ("", "")}
        self._shown: dict[int, list[Cell]] = {}

    def forget(self) -> None:
        """Nothing is known of what the terminal shows: other programs wrote there, or its size is another."""
        self._shown.clear()

    def difference(self, update: object, width: int) -> Difference | None:
        """What is to be sent for `update` to be seen on a screen of so many columns; None for an unknown kind of it."""
        if type(update) is ChopsUpdate:
            runs = self._runs_of_regions(update)
        elif type(update) is LayoutUpdate:
            runs = self._runs_of_all(update)
        else:
            return None
        parts: list[str] = []
        for y, x, cells in runs:
            line = self._shown.get(y, [])
            parts += changes(line[x : x + len(cells)], cells, x, y, width)
        return Difference("".join(parts), self, runs)

    def drawn(self, runs: Iterable[Run]) -> None:
        """The terminal shows these cells now."""
        for y, x, cells in runs:
            line = self._shown.setdefault(y, [])
            line += [("", "?", "")] * (x - len(line))
            line[x : x + len(cells)] = cells

    def _runs_of_regions(self, update: ChopsUpdate) -> list[Run]:
        runs: list[Run] = []
        for y, first, after in update.spans:
            for end, (start, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                if strip is not None and start < after and end > first:
                    cells = self.cells(strip)[: end - start]
                    left, right = max(first - start, 0), min(after, end) - start
                    # A wide character is drawn as a whole.
                    while 0 < left < len(cells) and not cells[left][0]:
                        left -= 1
                    while right < len(cells) and not cells[right][0]:
                        right += 1
                    runs.append((y, start + left, cells[left:right]))
        return runs

    def _runs_of_all(self, update: LayoutUpdate) -> list[Run]:
        x, top = update.region.offset
        return [
            (y, x, [cell for strip in strips for cell in self.cells(strip)])
            for y, strips in enumerate(update.strips, top)
        ]

    def cells(self, segments: Iterable[Segment]) -> list[Cell]:
        """One after the other what stands in the cells of a line."""
        cells: list[Cell] = []
        for text, style, _ in segments:
            before, behind = self._codes.get(style) or self._codes_of(style)
            if text.isascii():
                cells += [(character, before, behind) for character in text]
                continue
            for character in text:
                width = get_character_cell_size(character)
                if width:
                    cells += [(character, before, behind), ("", before, behind)][:width]
                elif cells:
                    whole, *codes = cells[-1]
                    cells[-1] = (whole + character, codes[0], codes[1])
        return cells

    def _codes_of(self, style: Style | None) -> tuple[str, str]:
        assert style is not None
        rendered = style.render("\0", color_system=self._console._color_system)
        before, _, behind = rendered.partition("\0")
        self._codes[style] = before, behind
        return before, behind


class Difference(CompositorUpdate):
    """An update that Textual sends as `text`; what it draws is remembered when that happens."""

    def __init__(self, text: str, painter: Painter, runs: Sequence[Run]) -> None:
        self.text = text
        self._painter, self._runs = painter, runs

    def render_segments(self, console: Console) -> str:
        self._painter.drawn(self._runs)
        return self.text


def changes(shown: Sequence[Cell], cells: Sequence[Cell], x: int, y: int, width: int) -> list[str]:
    """What makes line `y`, which shows `shown` from column `x` on, show `cells`; what is not known is drawn."""
    if shown == cells:
        return []
    changed = [place for place, cell in enumerate(cells) if place >= len(shown) or shown[place] != cell]
    blank = len(cells)
    if x + blank == width:
        while blank and cells[blank - 1] == BLANK:
            blank -= 1
    parts: list[str] = []
    place = 0
    while place < len(changed):
        first = last = changed[place]
        place += 1
        while place < len(changed) and changed[place] - last <= _LEAST_GAP:
            last = changed[place]
            place += 1
        # The head of a wide character may be the same where its second half is not known.
        while first > 0 and not cells[first][0]:
            first -= 1
        erases = last + 1 - max(first, blank) >= _LEAST_BLANKS
        end = max(first, blank) if erases else last + 1
        move = f"\x1b[{x + first + 1}G" if parts else f"\x1b[{y + 1};{x + first + 1}H"
        parts += [move, _drawn(cells[first:end])]
        if erases:
            parts.append("\x1b[K")
            break
    return parts


def _drawn(cells: Sequence[Cell]) -> str:
    texts = []
    for (before, behind), group in groupby(cells, itemgetter(1, 2)):
        texts.append(f"{before}{''.join(cell[0] for cell in group)}{behind}")
    # Colours end with a code of their own before the next begin: both fit into one.
    return "".join(texts).replace("\x1b[0m\x1b[", "\x1b[0;")
