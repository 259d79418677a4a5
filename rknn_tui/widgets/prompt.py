"""The one-line input at the bottom of a screen."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input

from rknn_tui.completion import complete
from rknn_tui.symbols import drawable


class Prompt(Input):
    """Textual's own widget without its frame and its blinking, which would cost 2 kB a second over a link.

    With the terminal's own colours its cursor would be black on white: not to be seen on white, nor without colours.
    """

    DEFAULT_CSS = """
    Prompt { border: none; height: 1; padding: 0; background: $background; }
    Prompt:focus { border: none; background: $background; }
    Prompt:ansi > .input--cursor, Prompt:ansi > .input--selection {
        background: ansi_default; color: ansi_default; text-style: reverse;
    }
    """

    # Its place depends on no text: Textual would lay out the whole screen for every key.
    virtual_size: Reactive[Size] = Reactive(Size(0, 0))

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, select_on_focus=False, compact=True)
        self.cursor_blink = False
        self.typed: Callable[[str], object] = lambda text: None
        """Hears of every change at once; the message `Changed` comes when the key was drawn already."""

    @property
    def _value(self) -> Text:
        # A path may hold any character, and one that controls the terminal would do so.
        return Text("".join(map(drawable, self.value)), no_wrap=True, overflow="ignore", end="")

    def watch_value(self, value: str) -> None:
        self.typed(value)

    def set_text(self, text: str) -> None:
        """Replace the text and put the cursor behind it."""
        self.value = text
        self.cursor_position = len(text)

    def complete_path(self, suffixes: tuple[str, ...] = ()) -> None:
        """Go on with the path as far as it is clear."""
        self.set_text(complete(self.value, suffixes))
