"""What keys do to a text that is edited: where they move the cursor, and what they put in or take out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rknn_tui.text.text_buffer import Place, TextBuffer

INDENT = 4
"""What the toolkit indents a cfg by."""

RUNS = ("type", "back", "delete")
"""Kinds of edits that go on with one another where they meet."""


class Edit(NamedTuple):
    """Put `text` where start to end is. kind: one of RUNS, or 'word', 'line', 'cut', 'paste' for what stands alone."""

    start: Place
    end: Place
    text: str
    kind: str

    @property
    def empty(self) -> bool:
        """Whether it would change nothing."""
        return self.start == self.end and not self.text


def insertion(buffer: TextBuffer, text: str, kind: str) -> Edit:
    """Put `text` at the cursor, or in place of what is selected."""
    return Edit(*(buffer.selection or (buffer.cursor, buffer.cursor)), text, kind)


def line_at_cursor(buffer: TextBuffer) -> tuple[Place, Place]:
    """The cursor's line with its break."""
    line = buffer.cursor.line
    return Place(line, 0), Place(line + 1, 0) if line + 1 < len(buffer.lines) else buffer.end_of(line)


def _erased(move: Callable[[TextBuffer, Place], Place], kind: str) -> Callable[[TextBuffer], Edit]:
    def edit(buffer: TextBuffer) -> Edit:
        place = move(buffer, buffer.cursor)
        span = buffer.selection or (min(place, buffer.cursor), max(place, buffer.cursor))
        return Edit(*span, "", kind)

    return edit


def _back(buffer: TextBuffer, place: Place) -> Place:
    # In an indentation, to the level before: tab is not there to go the other way.
    if place.column and not buffer.content(place.line)[: place.column].strip(" "):
        return Place(place.line, (place.column - 1) // INDENT * INDENT)
    return buffer.left(place)


def _rest_of_line(buffer: TextBuffer, place: Place) -> Place:
    end = buffer.end_of(place.line)
    return end if place != end else buffer.right(place)


def _new_line(buffer: TextBuffer) -> Edit:
    start, _ = buffer.selection or (buffer.cursor, buffer.cursor)
    before = buffer.content(start.line)[: start.column]
    indent = before[: len(before) - len(before.lstrip(" "))]
    if before.rstrip().endswith(":"):
        indent += " " * INDENT
    return insertion(buffer, buffer.line_break + indent, "line")


MOVES: Mapping[str, Callable[[TextBuffer, Place], Place]] = {
    "left": TextBuffer.left,
    "right": TextBuffer.right,
    "home": TextBuffer.home,
    "ctrl+a": TextBuffer.home,
    "end": lambda buffer, place: buffer.end_of(place.line),
    "ctrl+e": lambda buffer, place: buffer.end_of(place.line),
    "ctrl+home": lambda buffer, place: Place(0, 0),
    "ctrl+end": lambda buffer, place: buffer.last,
    "ctrl+left": TextBuffer.word_left,
    "alt+b": TextBuffer.word_left,
    "ctrl+right": TextBuffer.word_right,
    "alt+f": TextBuffer.word_right,
}
"""Where a key takes the cursor; with shift it selects on the way."""

EDITS: Mapping[str, Callable[[TextBuffer], Edit]] = {
    **dict.fromkeys(("enter", "shift+enter"), _new_line),
    **dict.fromkeys(("backspace", "shift+backspace", "ctrl+h"), _erased(_back, "back")),
    **dict.fromkeys(("delete", "ctrl+d"), _erased(TextBuffer.right, "delete")),
    **dict.fromkeys(("ctrl+w", "ctrl+backspace", "alt+backspace"), _erased(TextBuffer.word_left, "word")),
    **dict.fromkeys(("ctrl+delete", "alt+d"), _erased(TextBuffer.word_right, "word")),
    "ctrl+u": _erased(lambda buffer, place: Place(place.line, 0), "line"),
    "ctrl+k": _erased(_rest_of_line, "line"),
}
"""What a key changes; where something is selected, that goes first."""
