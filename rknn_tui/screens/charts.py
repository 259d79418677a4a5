"""The charts over the whole screen, one at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.geometry import Size

from engine.errors import FileError
from rknn_tui.bench.dialogue import Notice, Reply, notice_of
from rknn_tui.bench.paths import absolute, current_folder
from rknn_tui.charting.builders import CHARTS, ChartData
from rknn_tui.charting.chart import Chart
from rknn_tui.charting.exporting import export
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.base import WorkScreen
from rknn_tui.symbols import drawable, fit
from rknn_tui.widgets.chart import ChartView
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

_WAYS = {
    "cosine": ("analyse", "analyses"),
    "sources": ("trace", "traces them"),
    "candidates": ("tune", "searches"),
}
"""What brings a chart that is empty: an action of the tune screen, and what its key does there."""


class ChartsScreen(WorkScreen):
    """Shows one of `data`'s charts; drawn when it is gone to, and when `numbers_changed` finds another one."""

    PLACE: ClassVar[str] = "charts"
    TITLE_TEXT: ClassVar[str] = "charts"

    def __init__(self, app: Workshop, data: ChartData) -> None:
        super().__init__(app)
        self._data = data
        self._shown = next(iter(CHARTS))

    def compose_body(self) -> ComposeResult:
        yield ChartView(self.palette, self.symbols)
        yield TextLines(self.palette, id="charts")

    @property
    def view(self) -> ChartView:
        """Where the chart is."""
        return self.query_one(ChartView)

    def title_line(self, size: Size) -> Line:
        name = drawable(Path(self._data.path).name, self.symbols)
        room = max(size.width - len(self.TITLE_TEXT) - 4, 1)
        return [(f" {self.TITLE_TEXT}  ", "muted"), (fit(name, room, self.symbols, keep_end=True).rstrip(), "title")]

    def show_frame(self) -> None:
        super().show_frame()
        self.show_chart()

    def numbers_changed(self) -> None:
        self.show_chart()

    def show_chart(self) -> None:
        """Bring the chart up to date; it is drawn only where it is another one."""
        if not self.query(ChartView):
            return
        if self._shown == "targets":
            self._data.compare_targets()
        chart = CHARTS[self._shown](self._data, self.app.settings.cosine_limit)
        if not chart.rows and chart.id in _WAYS:
            action, does = _WAYS[chart.id]
            chart = dataclasses.replace(
                chart, note=f"{chart.note}: {self.keymap.shown(action)} among the layers {does}"
            )
        self.view.show(chart)
        self.line("charts").show([self._list()])

    def _list(self) -> Line:
        pieces: list[Piece] = []
        for id in CHARTS:
            here = id == self._shown
            pieces += [(f" {self.symbols.marker if here else ' '}", "marker"), (id, "title" if here else "muted")]
        return pieces

    def _go(self, place: int) -> Reply:
        ids = list(CHARTS)
        self._shown = ids[place % len(ids)]
        self.show_chart()
        return None

    def do_next_chart(self) -> Reply:
        return self._go(list(CHARTS).index(self._shown) + 1)

    def do_previous_chart(self) -> Reply:
        return self._go(list(CHARTS).index(self._shown) - 1)

    # The movement keys, where there is no list to move in.
    do_down, do_up = do_next_chart, do_previous_chart

    def do_first(self) -> Reply:
        return self._go(0)

    def do_last(self) -> Reply:
        return self._go(-1)

    def do_export_chart(self) -> Reply:
        """Write the chart beside the model, or into this folder where that cannot be written to."""
        chart = self.view.chart
        if chart is None or not chart.rows:
            return Notice(f"nothing to export: {chart.note if chart is not None else 'no chart'}", "warning")
        path = Path(self._data.path or "rknn-tui")
        reply: Reply = None
        for folder in (path.parent, current_folder()):
            reply = self.bench.refuse_to_write_in(folder)
            if reply is None:
                try:
                    return _written(chart, folder, path.stem, self)
                except FileError as error:
                    reply = notice_of(error)
        return reply


def _written(chart: Chart, folder: Path, stem: str, screen: ChartsScreen) -> Notice:
    text, table = export(chart, folder, stem, screen.symbols)
    return Notice(f"wrote {text.name} and {table.name} to {absolute(text.parent)}")
