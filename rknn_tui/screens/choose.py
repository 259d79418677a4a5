"""A searchable list over the whole screen: the keys, the commands, the messages, and files to open."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Input

from rknn_tui.completion import MODEL_SUFFIXES, entries
from rknn_tui.palette import Palette
from rknn_tui.settings import recent_files
from rknn_tui.symbols import Symbols
from rknn_tui.widgets.marked_list import ChoiceList
from rknn_tui.widgets.prompt import Prompt
from rknn_tui.widgets.text_lines import TextLines

Choices = list[tuple[str, str, str]]

_MOVES = {"up": -1, "down": 1, "ctrl+p": -1, "ctrl+n": 1}


class ChooseScreen(Screen[str | None]):
    """Lists choices of (id, left, right) that contain what is typed; Enter returns the id, Escape None."""

    def __init__(self, title: str, help: str, choices: Choices, palette: Palette, symbols: Symbols) -> None:
        super().__init__()
        self._title = title
        self._help = help
        self._choices = choices
        self.palette = palette
        self.symbols = symbols

    def compose(self) -> ComposeResult:
        yield TextLines(self.palette, id="title")
        yield Prompt(id="search")
        yield ChoiceList(self.palette, self.symbols, id="choices")
        yield TextLines(self.palette, id="help")

    @property
    def list(self) -> ChoiceList:
        """The choices in sight."""
        return self.query_one(ChoiceList)

    @property
    def prompt(self) -> Prompt:
        """Where the search is typed."""
        return self.query_one(Prompt)

    def on_mount(self) -> None:
        self.query_one("#title", TextLines).show([[(f" {self._title}", "title")]])
        self.query_one("#help", TextLines).show([[(f" {self._help}", "muted")]])
        self.list.show(self.choices(""))
        self.prompt.focus()

    def choices(self, text: str) -> Choices:
        """What to list for the typed text: every word must be in the row."""
        words = text.lower().split()
        return [row for row in self._choices if all(word in " ".join(row).lower() for word in words)]

    def on_input_changed(self, event: Input.Changed) -> None:
        self.list.show(self.choices(event.value))

    def on_input_submitted(self) -> None:
        self.accept()

    def accept(self) -> None:
        """Enter was pressed."""
        if self.list.chosen is not None:
            self.dismiss(self.list.chosen)

    def on_key(self, event: events.Key) -> None:
        moves = _MOVES | {"pageup": -self.list.page, "pagedown": self.list.page}
        if event.key in moves:
            self.list.move_by(moves[event.key])
        elif event.key == "escape":
            self.leave()
        elif event.key == "tab":
            self.on_tab()
        else:
            return
        event.stop()

    def on_tab(self) -> None:
        """Tab was pressed."""
        self.list.move_by(1)

    def leave(self) -> None:
        """Escape was pressed."""
        self.dismiss(None)


class OpenScreen(ChooseScreen):
    """Files opened before, and any other by its path."""

    def __init__(self, palette: Palette, symbols: Symbols) -> None:
        self._recent = recent_files()
        self._here = entries("", MODEL_SUFFIXES)
        if self._recent:
            what = "type a path, or choose one opened before"
        elif self._here:
            what = "type a path, or choose a file"
        else:
            what = "type a path; for a bundled one leave, and start rknn-tui demo"
        super().__init__(
            f"open a model: {what}",
            "enter open   tab complete   up down choose   esc back",
            [],
            palette,
            symbols,
        )

    def choices(self, text: str) -> Choices:
        if not text.strip():
            return [(name, name, "") for name in self._recent or self._here]
        return [(name, name, "") for name in entries(text, MODEL_SUFFIXES)]

    def accept(self) -> None:
        typed = self.prompt.value.strip()
        chosen = self.list.chosen
        if chosen is None:
            # Nothing matches: let the engine say what is wrong with the path, so that any file can be tried.
            if typed:
                self.dismiss(typed)
        elif chosen.endswith("/"):
            self.prompt.set_text(chosen)
        else:
            self.dismiss(chosen)

    def on_tab(self) -> None:
        self.prompt.complete_path(MODEL_SUFFIXES)

    def leave(self) -> None:
        if self.prompt.value:
            self.prompt.set_text("")
        else:
            self.dismiss(None)
