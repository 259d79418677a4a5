"""A widget of a few lines of text that repaints only the cells that changed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from rknn_tui.palette import Palette
from rknn_tui.pieces import Line, changed_span, strip_of


class TextLines(Widget):
    """Shows the lines given to `show`; what does not fit is cut."""

    DEFAULT_CSS = "TextLines { height: 1; width: 1fr; }"

    class Resized(Message):
        """The lines came into sight, or have another size, and so may have more or less to tell."""

        def __init__(self, lines: TextLines) -> None:
            super().__init__()
            self.lines = lines

    def __init__(self, palette: Palette, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.palette = palette
        self._lines: list[Line] = []

    @property
    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def show(self, lines: Sequence[Line]) -> None:
        """Replace what is shown."""
        old, self._lines = self._lines, list(lines)
        width = self.size.width
        for y in range(max(len(old), len(self._lines))):
            before = old[y] if y < len(old) else ()
            after = self._lines[y] if y < len(self._lines) else ()
            span = changed_span(before, after, width)
            if span is not None:
                self.refresh(Region(span[0], y, span[1] - span[0], 1))

    def on_resize(self) -> None:
        self.post_message(self.Resized(self))

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else ()
        return strip_of(line, self.size.width, self.palette)
