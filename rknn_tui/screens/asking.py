"""The message line and the prompt of the tune screen: what is said and asked there, and how an answer is typed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual import events
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from rknn_tui.bench.dialogue import Notice, Question, Reply
from rknn_tui.keymap import Keymap
from rknn_tui.palette import Palette
from rknn_tui.symbols import Symbols, drawable, wrap
from rknn_tui.widgets.prompt import Prompt
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

SECONDS_BEFORE_CONFIRMING = 0.3
"""Keys sooner after a question are the repeats of the key that raised it."""


class Asking(Screen[None]):
    """A screen with the lines #message and #keys and a Prompt in the keys' place.

    Subclasses do with answers what they are for: `answered` gets a question with what was typed or pressed, `typing`
    what stands in the prompt so far, and `taken_back` a question that nobody answered.
    """

    app: Workshop

    def __init__(self, app: Workshop) -> None:
        super().__init__()
        self.palette: Palette = app.palette
        self.symbols: Symbols = app.symbols
        self.keymap: Keymap = app.keymap
        self.notices: list[Notice] = []
        self.question: Question | None = None
        self.focused_before: Widget | None = None
        """What keys were typed into when the question came."""
        self._asked_at = 0.0
        self._waiting: list[Question] = []
        self._message: Notice | None = None

    def answered(self, question: Question, text: str) -> Reply:
        """Go on with an answer."""
        raise NotImplementedError

    def typing(self, question: Question, text: str) -> None:
        """The line that will be the answer is this now."""

    def taken_back(self, question: Question) -> Reply:
        """A question was left without an answer."""

    def show_status(self) -> None:
        """Bring what depends on questions up to date."""

    @property
    def prompt(self) -> Prompt:
        """Where answers are typed."""
        return self.query_one(Prompt)

    def line(self, id: str) -> TextLines:
        """One of the text areas, such as message and keys."""
        return self.query_one(f"#{id}", TextLines)

    def tell(self, reply: Reply) -> None:
        """Show a notice, or put a question."""
        if isinstance(reply, Notice):
            self.notices.append(reply)
            self._message = reply
            self.show_message()
        elif isinstance(reply, Question):
            if self.question is not None:
                self._waiting.append(reply)
                return
            self.question, self._asked_at = reply, time.monotonic()
            self.focused_before = self.focused
            if reply.typed:
                self.show_prompt(True)
                self.prompt.typed = self._typed
                self.prompt.set_text(reply.prefill)
                self.prompt.focus()
            else:
                # A text that is edited would take the answer's key for itself.
                self.set_focus(None)
            self.show_message()
        self.show_status()

    def went_on(self, since: Notice | None) -> None:
        """Something was done that has nothing to say: what was said before it is old news, but for warnings."""
        if since is not None and since is self._message and since.level == "info" and self.question is None:
            self.drop_message()

    def drop_message(self) -> None:
        """Show no message any longer."""
        self._message = None
        self.show_message()

    def show_message(self) -> None:
        """The question, or the last notice, in as many lines as it takes."""
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
        # A line is kept for it: rows that move up and down with every message cost a page each.
        height = max(len(lines), 1)
        if area.styles.height is None or area.styles.height.value != height:
            area.styles.height = height
        area.show([[(f" {line}", role)] for line in lines])

    def show_prompt(self, shown: bool) -> None:
        """Show the prompt in the place of the keys, or the keys."""
        # Not by a class on the screen: that would paint the whole screen for one line.
        self.line("keys").display = not shown
        self.prompt.display = self.prompt.can_focus = shown

    def close_question(self) -> Question | None:
        """Stop asking, and go on to a question that waits."""
        question, self.question = self.question, None
        self.show_prompt(False)
        if question is not None:
            self.set_focus(None)
            self.restore_focus()
        self._message = None
        self.show_message()
        if self._waiting:
            self.tell(self._waiting.pop(0))
        return question

    def restore_focus(self) -> None:
        """A question had the keys and gives them back."""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        question = self.close_question()
        if question is not None:
            self.tell(self.answered(question, event.value))

    def _typed(self, text: str) -> None:
        if self.question is not None and self.question.typed:
            self.typing(self.question, text)

    def answer_key(self, event: events.Key) -> None:
        """A key was pressed while something is asked."""
        question = self.question
        assert question is not None
        if question.typed:
            # Other keys go on to the input's own bindings, which the app looks up after this.
            if event.key == "escape":
                self.close_question()
                self.tell(self.taken_back(question))
            elif event.key == "tab" and question.paths:
                self.prompt.complete_path()
            elif event.key in ("up", "down"):
                self.beside(question, 1 if event.key == "down" else -1)
            else:
                return
            event.stop()
            return
        event.stop()
        if question.confirm and time.monotonic() - self._asked_at < SECONDS_BEFORE_CONFIRMING:
            return
        self.close_question()
        if event.character is not None and event.character in (question.choices or "y"):
            self.tell(self.answered(question, event.character))
        else:
            self.tell(self.taken_back(question))

    def beside(self, question: Question, step: int) -> None:
        """Up or down was pressed while a line is typed."""
