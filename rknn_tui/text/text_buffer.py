"""A text as lines that are edited at a cursor: places in it, a selection, moves and replacements."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

from rknn_tui.text.text_changes import BREAKS, smallest_change, split_lines

_WORD = re.compile(r"\w+|[^\w\s]+")
_BLANKS = re.compile(r"[ \t]*")


class Place(NamedTuple):
    """Before which character of which line, both from 0; a line's last place is behind its last character."""

    line: int
    column: int


def line_after(line: int, start: Place, end: Place, stop: Place) -> int:
    """Which line the text of `line` is in, after what was from `start` to `end` became something that ends at `stop`.

    What stood in the replaced part goes to the nearest line of what is there now.
    """
    if line < start.line or (line == start.line and start.column):
        return line
    return line - end.line + stop.line if line >= end.line else min(line, stop.line)


class TextBuffer:
    """`lines` have their breaks, so that any text comes back as it was. `anchor` is where a selection began."""

    def __init__(self, text: str = "") -> None:
        self.lines = split_lines(text)
        self.cursor = Place(0, 0)
        self.anchor: Place | None = None
        self._text: str | None = text

    @property
    def text(self) -> str:
        """The whole text."""
        if self._text is None:
            self._text = "".join(self.lines)
        return self._text

    @property
    def line_break(self) -> str:
        """What a new line ends in: the same as the first."""
        return self.lines[0][len(self.content(0)) :] or "\n"

    @property
    def last(self) -> Place:
        """The end of the text."""
        return self.end_of(len(self.lines) - 1)

    @property
    def selection(self) -> tuple[Place, Place] | None:
        """Start and end of what is selected, or None."""
        if self.anchor is None or self.anchor == self.cursor:
            return None
        return min(self.anchor, self.cursor), max(self.anchor, self.cursor)

    def content(self, line: int) -> str:
        """A line without its break."""
        return self.lines[line].rstrip(BREAKS)

    def end_of(self, line: int) -> Place:
        """The place behind a line's last character."""
        return Place(line, len(self.content(line)))

    def clamped(self, line: int, column: int) -> Place:
        """The nearest place there is."""
        line = max(0, min(line, len(self.lines) - 1))
        return Place(line, max(0, min(column, len(self.content(line)))))

    def between(self, start: Place, end: Place) -> str:
        """The text from `start` to `end`."""
        if start.line == end.line:
            return self.lines[start.line][start.column : end.column]
        first, last = self.lines[start.line][start.column :], self.lines[end.line][: end.column]
        return "".join([first, *self.lines[start.line + 1 : end.line], last])

    def replace(self, start: Place, end: Place, text: str) -> Place:
        """Put `text` where start to end was, and return the place behind it. Cursor and anchor stay as they are."""
        if start.column == 0 and start.line and self.lines[start.line - 1].endswith("\r"):
            # A newline put behind a carriage return makes one break with it.
            start = Place(start.line - 1, len(self.lines[start.line - 1]))
        head, tail = self.lines[start.line][: start.column], self.lines[end.line][end.column :]
        lines = split_lines(head + text + tail)
        if end.line + 1 < len(self.lines) and not lines[-1]:
            lines.pop()
        self.lines[start.line : end.line + 1] = lines
        self._text = None
        return self._counted(start.line, len(head) + len(text))

    def change_to(self, text: str) -> tuple[Place, Place, Place] | None:
        """Become `text` by replacing as few lines as can be, cursor and anchor staying with theirs.

        Returns from where to where lines were replaced and where what came instead ends; None when nothing changed.
        """
        if text == self.text:
            return None
        first, last, _ = smallest_change(self.text, text)
        offsets = list(accumulate(map(len, self.lines), initial=0))
        start, stop = self._line_of(offsets, first), self._line_of(offsets, last) + 1
        if start and first == offsets[start] and self.lines[start - 1].endswith("\r"):
            start -= 1
        new = split_lines(text[offsets[start] : offsets[stop] + len(text) - len(self.text)])
        if stop < len(self.lines) and not new[-1]:
            new.pop()
        # Characters alone may say that a line came behind the indentation of the one that it came before.
        while start < stop and new and self.lines[start] == new[0]:
            start, new = start + 1, new[1:]
        while start < stop and new and self.lines[stop - 1] == new[-1]:
            stop -= 1
            new.pop()
        old = self.lines[start:stop]
        self.lines[start:stop] = new
        self._text = text
        self.cursor = self.clamped(*_kept(self.cursor, start, old, new))
        if self.anchor is not None:
            self.anchor = self.clamped(*_kept(self.anchor, start, old, new))
        return Place(start, 0), Place(stop, 0), Place(start + len(new), 0)

    def _line_of(self, offsets: list[int], offset: int) -> int:
        return min(bisect_right(offsets, offset), len(self.lines)) - 1

    def _counted(self, line: int, characters: int) -> Place:
        """The place so many characters behind the start of `line`."""
        while line + 1 < len(self.lines) and characters >= len(self.lines[line]):
            characters -= len(self.lines[line])
            line += 1
        return self.clamped(line, characters)

    # Moves

    def left(self, place: Place) -> Place:
        """One character back."""
        if place.column:
            return Place(place.line, place.column - 1)
        return self.end_of(place.line - 1) if place.line else place

    def right(self, place: Place) -> Place:
        """One character on."""
        if place.column < len(self.content(place.line)):
            return Place(place.line, place.column + 1)
        return Place(place.line + 1, 0) if place.line + 1 < len(self.lines) else place

    def word_left(self, place: Place) -> Place:
        """The start of the word before, or the end of the line before."""
        starts = [match.start() for match in _WORD.finditer(self.content(place.line), 0, place.column)]
        return Place(place.line, starts[-1]) if starts else self.left(Place(place.line, 0))

    def word_right(self, place: Place) -> Place:
        """The end of this word or the next, or the start of the line after."""
        match = _WORD.search(self.content(place.line), place.column)
        return Place(place.line, match.end()) if match else self.right(self.end_of(place.line))

    def home(self, place: Place) -> Place:
        """Behind the line's indentation, and from there its start."""
        indent = self.indent(place.line)
        return Place(place.line, 0 if place.column == indent else indent)

    def indent(self, line: int) -> int:
        """How many blanks the line begins with."""
        match = _BLANKS.match(self.content(line))
        return match.end() if match else 0

    # Search

    def find(self, part: str, step: int) -> tuple[Place, Place] | None:
        """Start and end of the next `part` after the cursor (1), before it (-1) or at it (0), around the ends.

        Without a capital letter in `part`, capitals do not matter.
        """
        if not part:
            return None
        fold = part == part.lower()
        from_, to = self.selection or (self.cursor, self.cursor)
        first = from_ if step < 0 else to if step > 0 else min(from_, to)
        count = len(self.lines)
        for distance in range(count + 1):
            line = (first.line + (distance if step >= 0 else -distance)) % count
            text = self._folded(line) if fold else self.content(line)
            if part not in text:
                continue
            low = first.column if step >= 0 and distance == 0 else 0
            high = first.column if step < 0 and distance == 0 else len(text)
            column = text.rfind(part, 0, high) if step < 0 else text.find(part, low)
            if column >= 0:
                return Place(line, column), Place(line, column + len(part))
        return None

    def _folded(self, line: int) -> str:
        text = self.content(line)
        lower = text.lower()
        # Lower case of some letters is longer: columns would not be the text's own.
        return lower if len(lower) == len(text) else text


def _kept(place: Place, start: int, old: list[str], new: list[str]) -> Place:
    """Where a place is after the lines `old`, from line `start` on, became `new`; it may be beyond the line's end."""
    line, column = place
    if line < start:
        return place
    if line >= start + len(old):
        return Place(line - len(old) + len(new), column)
    if len(old) == len(new) == 1:
        first, last, replacement = smallest_change(old[0], new[0])
        if column >= last:
            return Place(line, column + len(new[0]) - len(old[0]))
        return Place(line, min(column, first + len(replacement)))
    return Place(min(line, start + max(len(new) - 1, 0)), column)
