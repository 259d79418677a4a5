"""The model's layers, and the keys that build, measure and look around."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.reactive import Reactive
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from engine.errors import FileError
from engine.summaries import AccuracyReport, ModelSummary
from rknn_tui import filters
from rknn_tui.dialogue import Notice, Question, Reply
from rknn_tui.messages import EngineEnded, StepEnded, StepProgressed
from rknn_tui.pieces import length
from rknn_tui.screens.moves import MOVES
from rknn_tui.screenshot import write_screenshot
from rknn_tui.status import job_line, key_line, status_line
from rknn_tui.symbols import drawable, wrap
from rknn_tui.widgets.graph_view import GraphView
from rknn_tui.widgets.layer_detail import detail_lines
from rknn_tui.widgets.prompt import Prompt
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

LEAST_WIDTH, LEAST_HEIGHT = 60, 16
WIDE = 120
"""Cells from which the detail stands beside the table."""
LOW = 20
"""Lines below which the detail keeps to two."""
SECONDS_OF_REST = 0.15
"""The detail follows once the cursor rests: a held key then costs the marker's bytes alone."""
SECONDS_BETWEEN_PROGRESS = 0.5
SECONDS_BEFORE_CONFIRMING = 0.3
"""Keys sooner after a question are the repeats of the key that raised it."""


class TuneScreen(Screen[None]):
    """One row a layer; a status line above; detail, messages and keys below."""

    # Typing goes to the prompt only while something is asked; all other keys are the keymap's.
    AUTO_FOCUS = ""
    # Textual paints the whole screen when the focus moves; here only the prompt's own look depends on it.
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    app: Workshop

    def __init__(self, app: Workshop) -> None:
        super().__init__()
        self.palette, self.symbols, self.keymap = app.palette, app.symbols, app.keymap
        self.bench = app.bench
        self.notices: list[Notice] = []
        self.question: Question | None = None
        self._asked_at = 0.0
        self._drawn_at = 0.0
        self._waiting: list[Question] = []
        self._rest: Timer | None = None
        self._filter = ""
        self._message: Notice | None = None
        self._composed = False
        self._shown_path = ""
        self._shown: tuple[ModelSummary | None, AccuracyReport | None] = (None, None)

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
            yield TextLines(self.palette, id="detail")
        yield TextLines(self.palette, id="message")
        with Container(id="bottom"):
            yield TextLines(self.palette, id="keys")
            yield Prompt(id="prompt")

    @property
    def graph(self) -> GraphView:
        """The layer table."""
        return self.query_one(GraphView)

    @property
    def prompt(self) -> Prompt:
        """Where answers are typed."""
        return self.query_one(Prompt)

    def line(self, id: str) -> TextLines:
        """One of the text areas: status, job, header, detail, message, keys."""
        return self.query_one(f"#{id}", TextLines)

    def on_mount(self) -> None:
        self._show_prompt(False)
        self._choose_layout(self.app.size)
        self._composed = True
        self.show_all()
        self.app.tune_ready()

    def on_resize(self, event: events.Resize) -> None:
        self._choose_layout(event.size)
        if self._composed:
            # The parts have their new sizes only after the layout that follows this event.
            self.call_after_refresh(self.show_all)

    def _choose_layout(self, size: Size) -> None:
        self.set_class(size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT, "small")
        self.set_class(size.width >= WIDE, "wide")
        self.set_class(size.height < LOW, "low")

    def show_all(self) -> None:
        """Bring every line up to date; only cells that changed are drawn."""
        size, leave = self.app.size, self.keymap.shown("quit")
        text = f"{size.width}x{size.height} is too small: {LEAST_WIDTH}x{LEAST_HEIGHT} needed, {leave} quits"
        self.line("too-small").show([[(text, "text")]])
        self.line("header").show([self.graph.header()] if self.graph.table else [])
        self.show_status()
        self.show_detail()
        self._show_message()

    def show_status(self) -> None:
        """The top line, and the keys, which depend on the same things."""
        graph, width = self.graph, self.app.size.width
        job, area = job_line(self.bench, width, self.symbols), self.line("job")
        if job and (area.styles.width is None or area.styles.width.value != length(job)):
            area.styles.width = length(job)
        area.display = bool(job)
        area.show([job])
        self.line("status").show([status_line(self.bench, graph.row_count, len(graph.table), width, self.symbols)])
        self.line("keys").show([key_line(self.bench, self.keymap, width)])

    def show_detail(self) -> None:
        """The strip about the layer under the cursor."""
        area, layer = self.line("detail"), self.graph.current
        layers = {one.name: one for one in self.graph.table} if layer else {}
        error = self.graph.errors.get(layer.name) if layer else None
        area.show(detail_lines(layer, layers, error, area.size.width, area.size.height, self.symbols))

    def on_marked_list_moved(self) -> None:
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(SECONDS_OF_REST, self.show_detail)

    # What is said and asked

    def tell(self, reply: Reply) -> None:
        """Show a notice, or put a question."""
        if isinstance(reply, Notice):
            self.notices.append(reply)
            self._message = reply
            self._show_message()
        elif isinstance(reply, Question):
            if self.question is not None:
                self._waiting.append(reply)
                return
            self.question, self._asked_at = reply, time.monotonic()
            if not reply.confirm:
                self._show_prompt(True)
                self.prompt.set_text(reply.prefill)
                self.prompt.focus()
            self._show_message()
        self.show_status()

    def _show_message(self) -> None:
        area = self.line("message")
        width, most = max(self.app.size.width - 2, 10), max(self.app.size.height // 3, 1)
        role, text = "text", ""
        if self.question is not None:
            role, text = "warning", self.question.text
        elif self._message is not None:
            role = {"info": "text"}.get(self._message.level, self._message.level)
            text = self._message.text
        lines = wrap("\n".join(drawable(part, self.symbols) for part in text.splitlines()), width)
        if len(lines) > most:
            lines = [*lines[: most - 1], f"{self.symbols.ellipsis} {self.keymap.first('messages')} shows all"]
        if area.styles.height is None or area.styles.height.value != len(lines):
            area.styles.height = len(lines)
        area.show([[(f" {line}", role)] for line in lines])

    def _show_prompt(self, shown: bool) -> None:
        # Not by a class on the screen: that would paint the whole screen for one line.
        self.line("keys").display = not shown
        self.prompt.display = self.prompt.can_focus = shown

    def _close_question(self) -> Question | None:
        question, self.question = self.question, None
        self._show_prompt(False)
        self.set_focus(None)
        self._message = None
        self._show_message()
        if self._waiting:
            self.tell(self._waiting.pop(0))
        return question

    def on_input_submitted(self, event: Input.Submitted) -> None:
        question = self._close_question()
        if question is None or question.topic == "filter":
            return
        self.tell(self.bench.answer(question, event.value))

    def on_input_changed(self, event: Input.Changed) -> None:
        if self.question is not None and self.question.topic == "filter":
            self._set_filter(event.value)

    def _set_filter(self, text: str) -> None:
        if text.strip() == self._filter:
            return
        self._filter = text.strip()
        self.graph.set_filter(filters.parse(self._filter) if self._filter else None)
        self.show_status()

    # Keys

    def on_key(self, event: events.Key) -> None:
        if self.question is not None:
            self._answer_key(event)
            return
        action = self.keymap.action(event.key, event.character)
        if action is not None and (not self.has_class("small") or action == "quit"):
            event.stop()
            self.perform(action)

    def _answer_key(self, event: events.Key) -> None:
        question = self.question
        assert question is not None
        if not question.confirm:
            # Other keys go on to the input's own bindings, which the app looks up after this.
            if event.key == "escape":
                if question.topic == "filter":
                    self._set_filter("")
                self._close_question()
                if question.topic == "sizes":
                    self.tell(self.bench.without_model())
            elif event.key == "tab" and question.paths:
                self.prompt.complete_path()
            elif event.key in ("up", "down") and question.topic == "filter":
                self.graph.move_by(1 if event.key == "down" else -1)
            else:
                return
            event.stop()
            return
        event.stop()
        if time.monotonic() - self._asked_at < SECONDS_BEFORE_CONFIRMING:
            return
        self._close_question()
        if event.character == "y":
            if question.topic == "quit":
                self.app.exit(0)
            else:
                self.tell(self.bench.answer(question, "y"))

    def perform(self, action: str) -> None:
        """Do what the action table's id says."""
        if action in MOVES:
            self.graph.move_to(MOVES[action](self.graph))
            return
        handler: Callable[[], Reply] = getattr(self, f"do_{action}")
        self.tell(handler())

    def do_build_int8(self) -> Reply:
        return self.bench.build_int8()

    def do_build_float16(self) -> Reply:
        return self.bench.build_float16()

    def do_analyse(self) -> Reply:
        return self.bench.analyse()

    def do_cancel(self) -> Reply:
        return self.bench.cancel()

    def do_export(self) -> Reply:
        return self.bench.export()

    def do_target(self) -> Reply:
        return self.bench.next_target()

    def do_dataset(self) -> Reply:
        return self.bench.ask_dataset()

    def do_sample(self) -> Reply:
        return self.bench.ask_sample()

    def do_restart(self) -> Reply:
        return self.bench.restart()

    def do_filter(self) -> Reply:
        return Question(
            "filter", "show layers with:  conv  op:add  type:int8  cos<.99  !not", self._filter, paths=False
        )

    def do_next_bad(self) -> Reply:
        return None if self.graph.next_bad(1) else self._no_bad("below")

    def do_previous_bad(self) -> Reply:
        return None if self.graph.next_bad(-1) else self._no_bad("above")

    def _no_bad(self, where: str) -> Notice:
        if not self.graph.errors:
            return Notice(f"no accuracy is known yet: {self.keymap.shown('analyse')} analyses")
        return Notice(f"no layer {where} has a cosine under {self.graph.limit:g}")

    def do_worst(self) -> Reply:
        place = self.graph.next_worst()
        if place is None:
            return self._no_bad("")
        return Notice(f"worst by its single cosine: {place[0]} of {place[1]}")

    def do_open(self) -> Reply:
        self.app.choose_file()
        return None

    def do_screenshot(self) -> Reply:
        try:
            path = write_screenshot(self.app, Path(self.bench.path or "rknn-tui").stem, Path.cwd())
        except FileError as error:
            return Notice(str(error), "error")
        return Notice(f"wrote {path}")

    def do_messages(self) -> Reply:
        self.app.show_messages(self.notices)
        return None

    def do_commands(self) -> Reply:
        self.app.choose_action("commands: type to search, enter runs")
        return None

    def do_keys(self) -> Reply:
        self.app.choose_action("keys: type to search, enter runs")
        return None

    def do_back(self) -> Reply:
        if self._filter:
            self._set_filter("")
        self._message = None
        self._show_message()
        return None

    def do_quit(self) -> Reply:
        if self.bench.job is None:
            self.app.exit(0)
            return None
        return Question(
            "quit", f"{self.bench.job.name} is running and would be lost. y quits, other keys stay", confirm=True
        )

    # The engine

    def on_step_progressed(self, message: StepProgressed) -> None:
        job = self.bench.job
        stage = job.stage if job else ""
        if not self.bench.progressed(message.number, message.stage, message.done, message.total):
            return
        now = time.monotonic()
        if message.stage != stage or now - self._drawn_at >= SECONDS_BETWEEN_PROGRESS:
            self._drawn_at = now
            self.show_status()

    def on_step_ended(self, message: StepEnded) -> None:
        replies = self.bench.ended(message.number, message.value, message.error)
        summary, report = self.bench.summary, self.bench.report
        if self.bench.path != self._shown_path:
            self._shown_path, self._filter = self.bench.path, ""
            self.graph.forget()
        if summary is not self._shown[0] or report is not self._shown[1]:
            self._shown = summary, report
            errors = {error.name: error for error in report.layers} if report else {}
            self.graph.show(summary.layers if summary else (), errors)
        if summary is not None and message.value is summary:
            self.app.loaded(self.bench.path)
        self.show_all()
        # Only the last is shown; a long one before it would move the table up and down for nothing.
        self.notices += [reply for reply in replies[:-1] if isinstance(reply, Notice)]
        for reply in replies[-1:]:
            self.tell(reply)

    def on_engine_ended(self, message: EngineEnded) -> None:
        self.tell(self.bench.died_of(message.error))
