"""The tune screen: one row a layer; a status line above; detail, the cfg's text, messages and keys around it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.reactive import Reactive
from textual.timer import Timer
from textual.widget import Widget

from engine.summaries import ModelSummary
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.bench.facts import judged_words
from rknn_tui.bench.runs import Run
from rknn_tui.graph.layer_values import NOTHING, LayerValues
from rknn_tui.keymap import key_name
from rknn_tui.messages import EngineEnded, StepEnded, StepProgressed
from rknn_tui.pieces import Line, length
from rknn_tui.screens.tune_actions import TuneActions
from rknn_tui.status import job_line, key_line, status_line
from rknn_tui.symbols import drawable
from rknn_tui.widgets.chart import ChartView
from rknn_tui.widgets.graph_view import GraphView
from rknn_tui.widgets.layer_detail import detail_lines
from rknn_tui.widgets.measured_detail import measured_chunks
from rknn_tui.widgets.prompt import Prompt
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

LEAST_WIDTH, LEAST_HEIGHT = 60, 16
WIDE = 120
"""Cells from which the detail and the cfg stand beside the table."""
ROOMY_WIDTH, ROOMY_HEIGHT = 140, 36
"""From this size on the accuracy by layer is drawn below the detail."""
LOW = 20
"""Lines below which the detail keeps to two."""
SECONDS_OF_REST = 0.3
"""The detail follows once the cursor rests: a held key then costs the marker's bytes alone."""
SECONDS_BEFORE_MEASURING = 0.7
"""What other precisions of a layer would give is measured for whom stays on it."""
SECONDS_BETWEEN_PROGRESS = 0.5
COSTS = frozenset({"time", "memory"})
"""The columns of estimates: these have their room from the first paint on, and nothing moves when they come."""


class TuneScreen(TuneActions):
    """The layers of the model on the bench, and everything that is done to them."""

    # Typing goes to the prompt or the editor only while they have the focus; all other keys are the keymap's.
    AUTO_FOCUS = ""
    # Textual paints the whole screen when the focus moves; here only the prompt's and the editor's looks depend on it.
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)

    def __init__(self, app: Workshop) -> None:
        super().__init__(app)
        self.bench = app.bench
        self.bench.view = self
        self._drawn_at = 0.0
        self._rest: Timer | None = None
        self._composed = False
        # The layer of which the details show all that can be known.
        self._complete = ""
        self._shown_path = ""
        self._shown: ModelSummary | None = None
        self._detailed = ""

    def compose(self) -> ComposeResult:
        settings = self.app.settings
        yield TextLines(self.palette, id="too-small")
        with Container(id="top"):
            yield TextLines(self.palette, id="status")
            # Textual draws a changed line of a widget from its start: progress has a widget of its own.
            yield TextLines(self.palette, id="job")
        with Container(id="body"):
            with Container(id="table"):
                yield TextLines(self.palette, id="header")
                yield GraphView(self.palette, self.symbols, limit=settings.cosine_limit, bar_from=settings.bar_from)
            with Container(id="side"):
                yield TextLines(self.palette, id="detail")
                yield ChartView(self.palette, self.symbols, id="chart")
                with Container(id="cfg"):
                    yield TextLines(self.palette, id="cfg-title")
        yield TextLines(self.palette, id="message")
        with Container(id="bottom"):
            yield TextLines(self.palette, id="keys")
            yield Prompt(id="prompt")

    def on_mount(self) -> None:
        self.show_prompt(False)
        self._choose_layout(self.app.size)
        self._composed = True
        self.show_all()
        self.app.tune_ready()

    def on_resize(self, event: events.Resize) -> None:
        small = self.has_class("small")
        self._choose_layout(event.size)
        if small and not self.has_class("small") and self.question is not None and self.question.typed:
            # What is not seen has no focus.
            self.call_after_refresh(self.prompt.focus)
        if self._composed:
            # The parts have their new sizes only after the layout that follows this event.
            self.call_after_refresh(self.show_all)
            if self.question is None and self.has_class("editing") and not self.has_class("wide"):
                # There is no more room for both: keys are for the pane that is left.
                self.call_after_refresh(self.focus_editor)

    def on_screen_resume(self) -> None:
        if self._composed:
            self.show_all()

    def _choose_layout(self, size: Size) -> None:
        self.set_class(size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT, "small")
        self.set_class(size.width >= WIDE, "wide")
        self.set_class(size.height < LOW, "low")
        self.set_class(size.width >= ROOMY_WIDTH and size.height >= ROOMY_HEIGHT, "roomy")

    # What is shown

    def show_all(self) -> None:
        """Bring every line up to date; only cells that changed are drawn."""
        self.show_header()
        self.show_status()
        self.show_detail()
        self.show_chart()
        self.show_cfg_title()
        self.show_message()

    def show_message(self) -> None:
        super().show_message()
        size, key, question = self.app.size, self.keymap.shown, self.question
        way_out = f"{key('quit')} quits" if question is None else f"{key_name(key('back'))} goes back"
        text = f"{size.width}x{size.height} is too small: {LEAST_WIDTH}x{LEAST_HEIGHT} needed, {way_out}"
        if question is not None and not question.typed:
            text = " ".join(drawable(question.text.replace("\n", "  "), self.symbols).split())
        self.line("too-small").show([[(text, "text")]])

    def show_header(self) -> None:
        """The columns' titles."""
        self.line("header").show([self.graph.header()] if self.graph.table else [])

    def on_layer_table_header_changed(self) -> None:
        self.show_header()

    def show_status(self) -> None:
        """The top line, and the keys, which depend on the same things."""
        self.leave_without_build()
        graph, width = self.graph, self.app.size.width
        job, area = job_line(self.bench, width, self.symbols), self.line("job")
        if job and (area.styles.width is None or area.styles.width.value != length(job)):
            area.styles.width = length(job)
        area.display = bool(job)
        area.show([job])
        shown, total, marked = graph.layers_shown, len(graph.table), len(graph.marked)
        self.line("status").show([status_line(self.bench, shown, total, marked, width, self.symbols)])
        self.line("keys").show([key_line(self.bench, self.keymap, width, self.place)])

    def show_detail(self) -> None:
        """The strip about the layer under the cursor."""
        area, layer = self.line("detail"), self.graph.current
        seen = area.display and area.size.width
        self._detailed = layer.name if layer is not None else ""
        area.show(self._detail(area.size.width, area.size.height) if seen else [])

    def show_chart(self) -> None:
        """The accuracy by layer, where there is room for it and something is known."""
        view = self.query_one("#chart", ChartView)
        view.display = bool(self.has_class("roomy") and not self.has_class("editing") and self.bench.editing.errors)
        if view.display:
            from rknn_tui.charting.builders import CHARTS

            view.show(CHARTS["cosine"](self.bench, self.graph.limit))

    def all_of_layer(self, width: int) -> list[str]:
        """All that is known of the layer under the cursor, as lines of text."""
        lines = self._detail(width, 10_000)
        return ["".join(text for text, _ in line) for line in lines]

    def _detail(self, width: int, height: int) -> list[Line]:
        layer, bench, editing = self.graph.current, self.bench, self.bench.editing
        if layer is None:
            return []
        error = bench.error_of(layer.name)
        judged = judged_words(editing.quality, layer.outputs)
        converts = editing.words.get(layer.name, "") or (error.note if error is not None else "")
        return detail_lines(
            layer,
            self.graph.by_name,
            error,
            width,
            height,
            self.symbols,
            readers=self.graph.readers_of(layer.name),
            values=self.graph.values.get(layer.name, NOTHING),
            around=self.graph.values,
            facts=bench.layer_facts_of(layer.name),
            words="; ".join(filter(None, (judged, converts))),
            block=block.name if (block := self.graph.around) is not None else "",
            folded=block.size if (block := self.graph.block) is not None else 0,
            saved=editing.saved_precision(layer),
            times=bench.costs.times(layer.name),
            on_board=measured_chunks(bench.board_runs.of_layer(layer.name), self.symbols),
        )

    def on_text_lines_resized(self, message: TextLines.Resized) -> None:
        # After a pane came or went, these have their sizes only now.
        if message.lines.id == "detail":
            self.show_detail()
        elif message.lines.id == "cfg-title":
            self.show_cfg_title()

    def on_marked_list_moved(self) -> None:
        if self.graph.range_open:
            self.show_status()
        self.bench.facts.stop()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(SECONDS_OF_REST, self._rested)

    def _rested(self) -> None:
        self.show_chart()
        layer, bench = self.graph.current, self.bench
        if layer is None or not bench.editing.ready or not bench.idle:
            self.show_detail()
            return
        # Drawn once, with the facts, where they come within a moment.
        asked = bench.facts.ask(layer.name, lambda: self._know_more(layer.name))
        if not asked or (bench.editing.pending and layer.name != self._detailed):
            self.show_detail()
        self.follow_in_text(layer)
        if self._measures:
            self._rest = self.set_timer(SECONDS_BEFORE_MEASURING, self._measure)

    @property
    def _measures(self) -> bool:
        """Whether there is room for what other precisions would give."""
        return self.line("detail").size.height > 2

    def _know_more(self, name: str) -> None:
        layer = self.graph.current
        if layer is None or layer.name != name:
            return
        # After an edit of other layers, the numbers of before stand until there are new ones: no coming and going.
        if self._complete != name or not self._measures or not self.bench.editing.live:
            self.show_detail()

    def _measure(self) -> None:
        layer = self.graph.current
        if layer is not None and self.bench.idle:
            self.bench.facts.measure(layer.name, lambda: self._know_all(layer.name))

    def _know_all(self, name: str) -> None:
        self._complete = name
        self.show_detail()

    # The bench

    def values_changed(self, changes: Mapping[str, LayerValues]) -> None:
        """Numbers of some rows are others now."""
        self.graph.awaited = COSTS if self.bench.costs.awaited else frozenset()
        self.graph.update_values(changes)
        self.show_status()
        layer = self.graph.current
        if layer is not None and (layer.name in changes or not self.bench.facts.measured(layer.name)):
            # Its facts were those of the edits before, of whatever layers; the row tells of the change at once.
            self._complete = "" if layer.name in changes else self._complete
            self.on_marked_list_moved()
        self.app.numbers_changed()

    def show_layer_row(self, name: str) -> bool:
        """Put the cursor on a layer; a filter that hides it goes."""
        found = self.graph.select_layer(name)
        if not self.graph.filtered:
            self._filter = ""
        return found

    def compare_with(self, side: str, run: Run) -> None:
        """A cfg's file was evaluated for the comparison."""
        self.app.compare_with(side, run)

    def told(self, reply: Reply) -> None:
        """Say or ask something, on whatever screen is in front."""
        self.app.tell(reply)

    def job_ended(self, value: Any, replies: list[Reply]) -> None:
        """A request of the job ended: show what it brought."""
        bench, summary = self.bench, self.bench.summary
        if bench.path != self._shown_path:
            self._shown_path = bench.path
            self.set_filter("")
            self.graph.forget()
        self.graph.awaited = COSTS if bench.costs.awaited else frozenset()
        if summary is not self._shown or value is bench.report:
            self._shown = summary
            self.graph.show(summary.layers if summary else (), bench.values())
        if summary is not None and value is summary:
            self.app.loaded(bench.path)
        self.show_all()
        # Only the last is shown; a long one before it would move the table up and down for nothing.
        self.notices += [reply for reply in replies[:-1] if isinstance(reply, Notice)]
        for reply in replies[-1:]:
            self.told(reply)
        self.app.numbers_changed()

    def on_step_progressed(self, message: StepProgressed) -> None:
        job = self.bench.running
        stage = job.stage if job else ""
        if not self.bench.progressed(message.number, message.stage, message.done, message.total):
            return
        now = time.monotonic()
        if message.stage != stage or now - self._drawn_at >= SECONDS_BETWEEN_PROGRESS:
            self._drawn_at = now
            if self.app.screen is self:
                self.show_status()
            else:
                self.app.progress_changed()

    def on_step_ended(self, message: StepEnded) -> None:
        self.bench.calls.ended(message.number, message.value, message.error)
        self.show_status()
        self.app.numbers_changed()

    def on_engine_ended(self, message: EngineEnded) -> None:
        # The word of a process that another one has taken the place of meanwhile is old news.
        if not self.app.host.alive:
            self.told(self.bench.died_of(message.error))
