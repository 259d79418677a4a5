"""What goes to the terminal: only cells that look other than what it shows already.

Textual sends a line of a widget from its start up to the last changed cell, and what is laid out anew in full, often
twice: opening the prompt would cost 6 kB in 80x24, and every number at the end of a row the whole row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

Cell = tuple[str, str, str]
"""A character with what combines with it, and the escape codes before and behind it; the second half of a wide
character is '' in the same codes."""
Colours = tuple[str, str]
Run = tuple[int, int, Sequence[Cell]]
"""A line, its first column, and the cells from there on."""

BLANK: Cell = (" ", "", "")
_PLAIN: Colours = ("", "")
_SELECTED = re.compile(r"\x1b\[([0-9;]+)m")
_JUMP = 6
"""Bytes of a move within a line."""
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
        pen = Pen()
        for y, x, cells in runs:
            line = self._shown.get(y, [])
            for start, changed, erases in changes(line[x : x + len(cells)], cells, to_edge=x + len(cells) == width):
                pen.draw(y, x + start, changed, erases=erases)
        return Difference(pen.text, self, runs)

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


class Pen:
    """Writes cells with the fewest codes: colours stay as they are from one place to the next."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._line = -1
        self._colours = _PLAIN

    @property
    def text(self) -> str:
        """All that was drawn, and the plain colours after it."""
        return "".join([*self._parts, _turn(self._colours, _PLAIN)])

    def draw(self, y: int, x: int, cells: Iterable[Cell], *, erases: bool) -> None:
        """Show `cells` in a line from a column on, and where it `erases` nothing behind them."""
        self._parts.append(f"\x1b[{x + 1}G" if y == self._line else f"\x1b[{y + 1};{x + 1}H")
        self._line = y
        for colours, group in groupby(cells, itemgetter(1, 2)):
            self._parts += [self._turned(colours), *(cell[0] for cell in group)]
        if erases:
            self._parts += [self._turned(_PLAIN), "\x1b[K"]

    def _turned(self, colours: Colours) -> str:
        before, self._colours = self._colours, colours
        return _turn(before, colours)


@functools.cache
def _turn(before: Colours, after: Colours) -> str:
    """The shortest way from one pair of codes to another."""
    if before == after:
        return ""
    old, new = (_SELECTED.fullmatch(codes[0]) for codes in (before, after))
    if not before[0] or old is None or new is None or "8;" in old[1] + new[1]:
        # Either side may be more than colours, such as a link.
        return before[1] + after[0]
    kept = set(old[1].split(";"))
    added = [code for code in new[1].split(";") if code not in kept]
    if kept <= set(new[1].split(";")):
        return f"\x1b[{';'.join(added)}m"
    return f"\x1b[0;{new[1]}m"


def changes(
    shown: Sequence[Cell], cells: Sequence[Cell], *, to_edge: bool
) -> Iterator[tuple[int, Sequence[Cell], bool]]:
    """What to draw in a line that shows `shown` for it to show `cells`: places, cells, and whether the rest is blank.

    What is not known is drawn. `to_edge`: the last cell is the last one of the screen's line.
    """
    if shown == cells:
        return
    changed = [place for place, cell in enumerate(cells) if place >= len(shown) or shown[place] != cell]
    blank = len(cells)
    while to_edge and blank and cells[blank - 1] == BLANK:
        blank -= 1
    place = 0
    while place < len(changed):
        first = last = changed[place]
        place += 1
        while place < len(changed) and _bytes(cells[last + 1 : changed[place]]) <= _JUMP:
            last = changed[place]
            place += 1
        # The head of a wide character may be the same where its second half is not known.
        while first > 0 and not cells[first][0]:
            first -= 1
        if last + 1 - max(first, blank) >= _LEAST_BLANKS:
            yield first, cells[first : max(first, blank)], True
            return
        yield first, cells[first : last + 1], False


def _bytes(cells: Sequence[Cell]) -> int:
    """What cells take that are drawn for what comes behind them; more than a jump where there are many."""
    if len(cells) > _JUMP:
        return len(cells)
    colours = sum(len(cell[1]) for cell, other in pairwise(cells) if cell[1:] != other[1:])
    return colours + sum(len(cell[0].encode()) for cell in cells)
