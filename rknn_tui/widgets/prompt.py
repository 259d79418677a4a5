"""The one-line input at the bottom of a screen."""

from __future__ import annotations

from textual.widgets import Input

from rknn_tui.completion import complete


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

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, select_on_focus=False, compact=True)
        self.cursor_blink = False

    def set_text(self, text: str) -> None:
        """Replace the text and put the cursor behind it."""
        self.value = text
        self.cursor_position = len(text)

    def complete_path(self, suffixes: tuple[str, ...] = ()) -> None:
        """Go on with the path as far as it is clear."""
        self.set_text(complete(self.value, suffixes))
