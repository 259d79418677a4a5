"""What the screens beside the tune screen have in common: a title, a body, a message, the keys, and how a key acts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.screen import Screen

from rknn_tui.actions import ACTIONS, BY_ID, EVERYWHERE
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.keymap import Keymap, key_name
from rknn_tui.pieces import Line, Piece, length
from rknn_tui.screens.moves import MOVES
from rknn_tui.symbols import drawable, fit
from rknn_tui.widgets.marked_list import MarkedList
from rknn_tui.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from rknn_tui.app import Workshop


class WorkScreen(Screen[None]):
    """A full screen with the keys of its `PLACE`. Subclasses give `compose_body`, and `do_{action}` for each action.

    An action that a screen has no method for is done by the tune screen, if it works everywhere. The movement keys go
    to the first list in the body.
    """

    PLACE: ClassVar[str] = ""
    TITLE_TEXT: ClassVar[str] = ""
    AUTO_FOCUS = ""
    app: Workshop

    def __init__(self, app: Workshop) -> None:
        super().__init__()
        self.palette, self.symbols, self.keymap = app.palette, app.symbols, app.keymap
        self.bench = app.bench
        self.ready = False
        self._untold: list[Reply] = []

    def compose(self) -> ComposeResult:
        yield TextLines(self.palette, id="title")
        with Container(id="content"):
            yield from self.compose_body()
        yield TextLines(self.palette, id="message")
        yield TextLines(self.palette, id="keys")

    def compose_body(self) -> ComposeResult:
        """The widgets between the title and the message."""
        yield from ()

    def on_mount(self) -> None:
        self.ready = True
        self.show_frame()
        untold, self._untold = self._untold, []
        for reply in untold:
            self.tell(reply)

    def on_screen_resume(self) -> None:
        self.show_frame()

    def on_resize(self, event: events.Resize) -> None:
        # The parts have their new sizes only after the layout that follows this event.
        self.call_after_refresh(self.show_frame)

    def title_line(self, size: Size) -> Line:
        """The line at the top."""
        return [(f" {self.TITLE_TEXT}", "title")]

    def numbers_changed(self) -> None:
        """Something that the screen may show changed while it is in front."""

    def progress_changed(self) -> None:
        """A job went on while the screen is in front; at most twice a second."""

    def useless(self) -> frozenset[str]:
        """The actions that would do nothing now: their keys are not shown below."""
        return frozenset()

    def show_frame(self) -> None:
        """Bring the title and the keys up to date."""
        self.line("title").show([self.title_line(self.app.size)])
        self.show_keys()

    def show_keys(self) -> None:
        """The line at the bottom."""
        self.line("keys").show([place_keys(self.keymap, self.PLACE, self.app.size.width, self.useless())])

    def line(self, id: str) -> TextLines:
        """One of the text areas: title, message, keys."""
        return self.query_one(f"#{id}", TextLines)

    def tell(self, reply: Reply) -> None:
        """Show a notice here; a question is for the tune screen, which has a line to answer it in."""
        if not self.ready:
            # It was gone to a moment ago, and has no lines yet.
            self._untold.append(reply)
        elif isinstance(reply, Notice):
            text = " ".join(drawable(reply.text.replace("\n", "  "), self.symbols).split())
            role = {"info": "text"}.get(reply.level, reply.level)
            self.line("message").show([[(f" {self._cut(text, max(self.app.size.width - 2, 1))}", role)]])
            self.app.tune.notices.append(reply)
        elif reply is not None:
            self.app.go_to("tune")
            self.app.tune.tell(reply)

    def _cut(self, text: str, width: int) -> str:
        # What is about a file begins with its path, and ends with what is wrong.
        head = width // 5 if cell_len(text) > width else 0
        return set_cell_size(text, head) + fit(text, width - head, self.symbols, keep_end=True)

    def on_key(self, event: events.Key) -> None:
        action = self.keymap.action(event.key, event.character, self.PLACE)
        if action is not None:
            event.stop()
            self.perform(action)

    def perform(self, action: str) -> None:
        """Do what the action table's id says."""
        if action in MOVES and (lists := self.query(MarkedList)):
            rows = lists.first()
            rows.move_to(MOVES[action](rows))
            return
        handler: Callable[[], Reply] | None = getattr(self, f"do_{action}", None)
        if handler is not None:
            self.tell(handler())
        elif EVERYWHERE in BY_ID[action].places:
            self.app.tune.perform(action)

    def do_back(self) -> Reply:
        self.app.go_to("tune")
        return None


def place_keys(keymap: Keymap, place: str, width: int, useless: Collection[str] = ()) -> Line:
    """The labelled actions of a screen with their keys, as many as fit, without those that are useless now; the way to
    all keys and out always do."""
    always = ("back", "keys", "quit")
    room = width - 2 - sum(len(keymap.first(name)) + len(name) + 3 for name in always)
    line: list[Piece] = []
    for action in ACTIONS:
        here = action.id == f"screen_{place}"
        if (
            here
            or action.id in useless
            or not action.label
            or not keymap.first(action.id)
            or not action.works_in(place)
        ):
            continue
        item: list[Piece] = [(f" {key_name(keymap.first(action.id))}", "key"), (f" {action.label} ", "muted")]
        if action.id in always or length([*line, *item]) <= room:
            line += item
    return line
