"""A searchable list over the whole screen: the keys, the commands, the messages, and files to open."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Input

from rknn_tui.bench.dialogue import counted
from rknn_tui.completion import MODEL_SUFFIXES, entries
from rknn_tui.palette import Palette
from rknn_tui.settings import recent_files
from rknn_tui.symbols import Symbols, drawable, fit
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


@dataclasses.dataclass(frozen=True)
class RecentFile:
    """A file that was used before, and when (seconds since 1970; 0 where that is not known)."""

    path: str
    opened: float = 0.0


class PickScreen(ChooseScreen):
    """Files used before, and any other by its path; Enter returns the path as typed or listed, Escape None.

    `suffixes` are those of the files that are offered; a path typed in full may be any. `start` is the path to begin
    with, '' for none.
    """

    def __init__(
        self,
        title: str,
        suffixes: tuple[str, ...],
        start: str,
        recent: Sequence[RecentFile],
        palette: Palette,
        symbols: Symbols,
    ) -> None:
        super().__init__(title, "enter open   tab complete   up down choose   esc back", [], palette, symbols)
        self._suffixes = suffixes
        self._start = start
        self._recent = recent

    def on_mount(self) -> None:
        if self._start:
            self.prompt.set_text(self._start)

    def on_resize(self) -> None:
        # How long paths are cut depends on the width, which is known only after the layout that follows this event.
        self.call_after_refresh(lambda: self.list.show(self.choices(self.prompt.value)))

    def choices(self, text: str) -> Choices:
        typed = text.strip()
        if not typed and self._recent:
            return [self._row(one) for one in self._recent]
        found = entries(typed, self._suffixes)
        words = typed.lower().split()
        again = [
            one
            for one in self._recent
            if words and all(word in one.path.lower() for word in words) and one.path not in found
        ]
        return [*((name, name, "") for name in found), *map(self._row, again)]

    def _row(self, one: RecentFile) -> tuple[str, str, str]:
        when = ago(time.time() - one.opened) if one.opened else ""
        if not when:
            return one.path, one.path, ""
        # The list cuts the end of a left column, which is where a path tells most.
        path = drawable(one.path, self.symbols)
        room = max(self.list.size.width - len(when) - 6, 10)
        return one.path, fit(path, min(cell_len(path), room), self.symbols, keep_end=True), when

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
        self.prompt.complete_path(self._suffixes)

    def leave(self) -> None:
        if self.prompt.value:
            self.prompt.set_text("")
        else:
            self.dismiss(None)


class OpenScreen(PickScreen):
    """Models opened before, and any other by its path. `recent`: those of the state folder without it."""

    def __init__(self, palette: Palette, symbols: Symbols, recent: Sequence[RecentFile] | None = None) -> None:
        known = [RecentFile(path) for path in recent_files()] if recent is None else recent
        if known:
            what = "type a path, or choose one opened before"
        elif entries("", MODEL_SUFFIXES):
            what = "type a path, or choose a file"
        else:
            what = "type a path; for a bundled one leave, and start rknn-tui demo"
        super().__init__(f"open a model: {what}", MODEL_SUFFIXES, "", known, palette, symbols)


def ago(seconds: float) -> str:
    """How long ago, in its largest unit, rounded down: `just now`, `5 min ago`, `3 h ago`, `2 days ago`."""
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds / size)
            return f"{counted(count, unit) if unit == 'day' else f'{count} {unit}'} ago"
    return "just now"
