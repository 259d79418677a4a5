"""What each key of the tune screen does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual import events

from engine.errors import FileError
from rknn_tui.bench.dialogue import Notice, Question, Reply, counted
from rknn_tui.bench.paths import current_folder
from rknn_tui.graph import filters
from rknn_tui.screens.cfg_pane import CfgPane
from rknn_tui.screens.moves import MOVES
from rknn_tui.terminal.clipboard import CHOICES, copied_text
from rknn_tui.terminal.screenshot import write_screenshot

SORTS = {
    "g": "graph",
    "c": "cosine",
    "1": "single",
    "e": "share",
    "t": "time",
    "m": "memory",
    "n": "name",
    "o": "op",
    "p": "type",
    "T": "measured",
    "b": "board",
}
_SORT_WORDS = "g graph  c cosine  1 single  e error share  t time  m memory  n name  o op  p precision"
_SORT_MEASURED = "  T measured time  b board"
MOST_REPEATS = 9999
_REPEATED = {
    *("next_bad", "previous_bad", "next_match", "previous_match", "worst", "undo", "redo"),
    *("previous_on_lane", "next_on_lane", "jump", "cycle"),
}
_OF_A_SOURCE = {
    *("build_int8", "build_float16", "analyse", "trace", "tune", "candidates", "lint", "export", "target", "journal"),
    *("dataset", "sample", "config", "cycle", "set_int8", "set_int16", "set_float16", "set_default", "set_where"),
    *("range", "undo", "redo", "save", "save_as", "editor", "difference", "reload", "open_cfg", "external"),
    *("next_fault", "other_pane", "next_bad", "previous_bad", "worst", "screen_charts", "screen_compare"),
}
"""What there is nothing for in a vendor's file: numbers, changes, and the settings of a build."""


class TuneActions(CfgPane):
    """The actions of the places "tune" and "cfg", by the ids of the action table."""

    _filter = ""
    _filtered_at = ""
    _count: str | None = None

    def show_header(self) -> None:
        """The columns' titles."""
        raise NotImplementedError

    def on_key(self, event: events.Key) -> None:
        if self.question is not None:
            self.answer_key(event)
            return
        if self._count is not None and self._count_key(event):
            event.stop()
            return
        place = self.place
        action = self.keymap.action(event.key, None if place == "cfg" else event.character, place)
        if place == "cfg" and event.is_printable:
            return
        if action is not None and (not self.has_class("small") or action == "quit"):
            event.stop()
            times, self._count = min(int(self._count or 1), MOST_REPEATS), None
            self.perform(action, times)

    def _count_key(self, event: events.Key) -> bool:
        """Whether the key went into the number that is being typed."""
        character = event.character or ""
        if character.isdecimal() and character.isascii():
            self._count = (self._count or "") + character
            self.tell(Notice(f"{self._count} times: a movement, or a change"))
            return True
        if event.key == "escape":
            self._count = None
            self.drop_message()
            return True
        return False

    def perform(self, action: str, times: int = 1) -> None:
        """Do what the action table's id says, so many times where that makes sense."""
        if action in MOVES:
            target = MOVES[action](self.graph)
            self.graph.move_to(self.graph.cursor + (target - self.graph.cursor) * times)
            return
        measured = action == "screen_charts" and self.bench.board_runs.perf is not None
        if self.bench.board_only and action in _OF_A_SOURCE and not measured:
            # From whatever screen is in front: some of these keys work on all of them.
            self.app.tell(self.bench.without_source())
            return
        handler: Callable[[], Reply] = getattr(self, f"do_{action}")
        before = self._message
        reply = handler()
        for _ in range(times - 1 if action in _REPEATED else 0):
            reply = handler()
        if reply is None:
            self.went_on(before)
        self.tell(reply)

    # Jobs

    def do_build_int8(self) -> Reply:
        return self.bench.build_int8()

    def do_build_float16(self) -> Reply:
        return self.bench.build_float16()

    def do_analyse(self) -> Reply:
        return self.bench.analyse()

    def do_trace(self) -> Reply:
        return self.bench.trace()

    def do_tune(self) -> Reply:
        return self.bench.ask_tune()

    def do_lint(self) -> Reply:
        reply = self.bench.lint()
        if reply is None or isinstance(reply, Notice):
            self.app.go_to("findings")
        return reply

    def do_candidates(self) -> Reply:
        self.app.go_to("candidates")
        return None

    def do_cancel(self) -> Reply:
        return self.bench.cancel()

    def do_export(self) -> Reply:
        return self.bench.export()

    def do_target(self) -> Reply:
        return self.bench.next_target()

    def do_dataset(self) -> Reply:
        return self._pick(self.bench.ask_dataset(), (".txt", ".list"))

    def do_sample(self) -> Reply:
        return self.bench.ask_sample()

    def do_config(self) -> Reply:
        return self._pick(self.bench.ask_config(), (".yaml", ".yml"))

    def _pick(self, reply: Reply, suffixes: tuple[str, ...]) -> Reply:
        """Have a question for a path answered from a list of files."""
        if not isinstance(reply, Question):
            return reply
        self.app.pick_file(reply, suffixes)
        return None

    def do_restart(self) -> Reply:
        return self.bench.restart()

    def do_open(self) -> Reply:
        self.app.choose_file()
        return None

    def do_journal(self) -> Reply:
        return self.bench.ask_journal()

    # Boards

    def do_board_time(self) -> Reply:
        return self.bench.board_runs.time()

    def do_board_memory(self) -> Reply:
        return self.bench.board_runs.memory()

    def do_board_accuracy(self) -> Reply:
        return self.bench.board_runs.accuracy()

    # Edits

    def do_set_int8(self) -> Reply:
        return self._set("int8")

    def do_set_int16(self) -> Reply:
        return self._set("int16")

    def do_set_float16(self) -> Reply:
        return self._set("float16")

    def do_set_default(self) -> Reply:
        return self._set("")

    def do_cycle(self) -> Reply:
        return self.bench.editing.cycle(self.graph.selection())

    def _set(self, precision: str) -> Reply:
        return self.bench.editing.set_precision(self.graph.selection(), precision)

    def do_set_where(self) -> Reply:
        text = "set layers by a filter:  op:conv cos<.99 float16  (or int8, int16, default)"
        return Question("set_where", text, paths=False)

    def do_range(self) -> Reply:
        layer = self.graph.current
        return self.bench.ask_range(layer) if layer is not None else None

    def do_undo(self) -> Reply:
        return self.bench.undo()

    def do_redo(self) -> Reply:
        return self.bench.redo()

    # Finding one's way

    def do_filter(self) -> Reply:
        self._stay_here()
        return Question("filter", f"show layers with:  {self._filter_help()}", self._filter, paths=False)

    def _filter_help(self) -> str:
        return filters.describe(measured=self.bench.board_runs.has_layers)

    def _stay_here(self) -> None:
        """Let the cursor stay near its layer while a filter is typed: half a filter may hide it, or everything."""
        if self.graph.current is not None:
            self._filtered_at = self.graph.current.name

    def set_filter(self, text: str, near: str = "") -> None:
        """Show only what the filter line says; near: the layer to stay at."""
        if text.strip() == self._filter:
            return
        self._filter = text.strip()
        self.graph.set_filter(filters.parse(self._filter) if self._filter else None, near)
        self.show_status()

    def do_next_match(self) -> Reply:
        return None if self.graph.next_match(1) else self._no_match("below")

    def do_previous_match(self) -> Reply:
        return None if self.graph.next_match(-1) else self._no_match("above")

    def _no_match(self, where: str) -> Notice:
        return Notice(f"no layer {where} matches: {self.keymap.shown('filter')} filters")

    def do_next_bad(self) -> Reply:
        return None if self.graph.next_bad(1) else self._no_bad("below")

    def do_previous_bad(self) -> Reply:
        return None if self.graph.next_bad(-1) else self._no_bad("above")

    def _no_bad(self, where: str) -> Notice:
        if not self.bench.editing.ready:
            return Notice(f"nothing is quantized yet: {self.keymap.shown('build_int8')} quantizes to int8", "warning")
        if self.bench.report is None:
            return Notice(f"no accuracy is known yet: {self.keymap.shown('analyse')} analyses")
        return Notice(f"no layer {where} has a cosine under {self.graph.limit:g}")

    def do_worst(self) -> Reply:
        place = self.graph.next_worst()
        if place is None:
            return self._no_bad("")
        by = "share of the error" if self.bench.editing.sources is not None else "single cosine"
        return Notice(f"worst by its {by}: {place[0]} of {place[1]}")

    def do_previous_on_lane(self) -> Reply:
        return None if self.graph.walk(-1) else Notice("nothing is read there: this is an input")

    def do_next_on_lane(self) -> Reply:
        return None if self.graph.walk(1) else Notice("nothing reads this: it is an output")

    def do_jump(self) -> Reply:
        if not self.graph.jump_stub():
            return self.app.show_layer()
        return None

    def do_fold(self) -> Reply:
        return None if self.graph.toggle_fold() else Notice("no block holds this layer")

    def do_fold_all(self) -> Reply:
        self.graph.toggle_fold_all()
        self.show_all()
        return None

    def do_order(self) -> Reply:
        order = self.graph.next_order()
        self.show_header()
        return Notice({"file": "rows as executed", "greedy": "rows with the fewest lanes"}[order])

    def do_sort(self) -> Reply:
        more = _SORT_MEASURED if self.bench.board_runs.has_layers else ""
        return Question("sort", f"sort by:  {_SORT_WORDS}{more}", choices="".join(SORTS))

    def do_sort_reverse(self) -> Reply:
        self.graph.reverse_sort()
        return None

    def do_count(self) -> Reply:
        self._count = ""
        return Notice("how many times? type a number, then a movement or a change")

    # Marks

    def do_mark(self) -> Reply:
        self.graph.toggle_mark()
        self.show_status()
        return None

    def do_mark_range(self) -> Reply:
        self.graph.mark_range()
        if not self.graph.range_open:
            return self._marked()
        self.show_status()
        return Notice(f"marking from here: go to the other end, then {self.keymap.shown('mark_range')} or an edit")

    def do_mark_op(self) -> Reply:
        self.graph.mark_same_op()
        return self._marked()

    def do_mark_type(self) -> Reply:
        self.graph.mark_same_type()
        return self._marked()

    def do_mark_block(self) -> Reply:
        self.graph.mark_block()
        return self._marked()

    def do_mark_where(self) -> Reply:
        return Question("mark_where", f"mark layers with:  {self._filter_help()}", self._filter, paths=False)

    def do_unmark(self) -> Reply:
        self.graph.clear_marks()
        return self._marked()

    def _marked(self) -> Reply:
        self.show_status()
        return Notice(f"{counted(len(self.graph.marked), 'layer')} marked")

    # The rest

    def do_copy(self) -> Reply:
        return Question("copy", f"copy:  {CHOICES}", choices="nrtcl")

    def do_screenshot(self) -> Reply:
        folder = current_folder()
        if refusal := self.bench.refuse_to_write_in(folder):
            return refusal
        try:
            path = write_screenshot(self.app, Path(self.bench.path or "rknn-tui").stem, folder)
        except FileError as error:
            return Notice(str(error), "error")
        return Notice(f"wrote {path}")

    def do_redraw(self) -> Reply:
        self.app.redraw()
        return None

    def do_messages(self) -> Reply:
        self.app.show_messages(self.notices)
        return None

    def do_theme(self) -> Reply:
        return self.app.next_theme()

    def do_commands(self) -> Reply:
        self.app.choose_action("commands: type to search, enter runs", everywhere=True)
        return None

    def do_keys(self) -> Reply:
        self.app.choose_action(f"keys here ({self.place}): type to search, enter runs", everywhere=False)
        return None

    def do_screen_tune(self) -> Reply:
        self.app.go_to("tune")
        return None

    def do_screen_charts(self) -> Reply:
        self.app.go_to("charts")
        return None

    def do_screen_devices(self) -> Reply:
        self.app.go_to("devices")
        return None

    def do_screen_jobs(self) -> Reply:
        self.app.go_to("jobs")
        return None

    def do_screen_compare(self) -> Reply:
        self.app.go_to("compare")
        return None

    def do_back(self) -> Reply:
        if self.editing_text:
            return self.do_other_pane()
        if self._filter:
            self.set_filter("")
        elif self.graph.marked and self._message is None:
            self.graph.clear_marks()
            self.show_status()
        elif self.has_class("editing") and self._message is None:
            return self.do_editor()
        self.drop_message()
        return None

    def do_quit(self) -> Reply:
        return self.app.leave()

    # Answers

    def answered(self, question: Question, text: str) -> Reply:
        topic = question.topic
        if topic == "filter":
            return None
        if topic == "sort":
            self.graph.sort_by(None if text == "g" else SORTS[text])
            self.show_header()
            return None
        if topic == "copy":
            return self._copy(text)
        if topic == "mark_where":
            self.graph.mark_matching(filters.parse(text))
            return self._marked()
        if topic == "set_where":
            return self._set_where(question, text)
        if topic == "quit":
            self.app.end()
            return None
        if topic == "compare":
            return self.app.compare_file(question.subject, text)
        return self.bench.answer(question, text)

    def _copy(self, choice: str) -> Reply:
        def copy() -> Reply:
            return self.app.copy(copied_text(self.bench, self.graph, choice))

        if choice == "c" and self.bench.editing.ready:
            # It may never have been shown, or be older than the edits.
            self.bench.text.bring_up_to_date(lambda: self.tell(copy()))
            return None
        return copy()

    def _set_where(self, question: Question, text: str) -> Reply:
        words, _, precision = text.strip().rpartition(" ")
        if precision not in ("int8", "int16", "float16", "default") or not words:
            import dataclasses

            hint = "end with a precision: int8, int16, float16 or default"
            return dataclasses.replace(question, text=f"{hint}\n{question.text}", prefill=text)
        layers = self.graph.matching(filters.parse(words))
        if not layers:
            return Notice(f"no layer matches {words!r}", "warning")
        return self.bench.editing.set_precision(layers, "" if precision == "default" else precision)

    def typing(self, question: Question, text: str) -> None:
        if question.topic == "filter":
            self.set_filter(text, self._filtered_at)

    def beside(self, question: Question, step: int) -> None:
        if question.topic == "filter":
            self.graph.move_by(step)
            self._stay_here()

    def taken_back(self, question: Question) -> Reply:
        if question.topic == "filter":
            self.set_filter("", self._filtered_at)
        elif question.topic == "sizes":
            return self.bench.without_model()
        return None
