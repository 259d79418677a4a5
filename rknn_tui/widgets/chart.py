"""A chart that fills its place on the screen."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from rknn_tui.charting.chart import Chart
from rknn_tui.charting.drawing import as_text
from rknn_tui.palette import Palette
from rknn_tui.pieces import Line, changed_span, strip_of
from rknn_tui.symbols import Symbols


class ChartView(Widget):
    """Shows the chart given to `show`. It is drawn when it or the size is another one, and kept as lines until then."""

    DEFAULT_CSS = "ChartView { height: 1fr; width: 1fr; }"

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.palette = palette
        self.symbols = symbols
        self.chart: Chart | None = None
        self._lines: list[Line] = []

    @property
    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def show(self, chart: Chart) -> None:
        """Replace the chart; only cells that look different are drawn."""
        if chart == self.chart:
            return
        self.chart = chart
        old = self._lines
        self._draw()
        for y in range(self.size.height):
            before = old[y] if y < len(old) else ()
            after = self._lines[y] if y < len(self._lines) else ()
            span = changed_span(before, after, self.size.width)
            if span is not None:
                self.refresh(Region(span[0], y, span[1] - span[0], 1))

    def on_resize(self) -> None:
        self._draw()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else ()
        return strip_of(line, self.size.width, self.palette)

    def _draw(self) -> None:
        self._lines = as_text(self.chart, *self.size, self.symbols) if self.chart is not None else []
