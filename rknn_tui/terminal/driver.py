"""The terminal as Textual drives it, made to bear bytes that are no text and sizes that no screen has."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Any, cast

from textual.driver import Driver
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

MOST_COLUMNS, MOST_LINES = 2000, 1000
"""More of a terminal than this stays blank: each cell takes memory and time."""


def driver_for(standard: type[Driver]) -> type[Driver]:
    """Textual's driver for this system, mended where it can be."""
    if sys.platform == "win32" or standard.__name__ != "LinuxDriver":
        return standard
    from textual.drivers import linux_driver

    # A terminal of another encoding, or a paste of any bytes, sends what is no UTF-8: Textual would end the app with
    # a traceback. Sequences that are cut in two by the reading are put together all the same.
    vars(linux_driver)["getincrementaldecoder"] = _forgiving_decoder
    return _WorkshopDriver


def _forgiving_decoder(encoding: str) -> type[codecs.IncrementalDecoder]:
    kind = codecs.getincrementaldecoder(encoding)

    def make(errors: str = "replace") -> codecs.IncrementalDecoder:
        return kind(errors)

    return cast("type[codecs.IncrementalDecoder]", make)


if sys.platform != "win32":
    from textual.drivers.linux_driver import LinuxDriver

    class _WorkshopDriver(LinuxDriver):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            # A terminal that says it has no cells is taken for one of 80x24 everywhere: with two opinions of that,
            # the app would lay itself out for ever.
            self._size = self._size or self._get_terminal_size()

        def _get_terminal_size(self) -> tuple[int, int]:
            width, height = super()._get_terminal_size()
            return min(width, MOST_COLUMNS), min(height, MOST_LINES)

        def process_message(self, message: Message) -> None:
            if isinstance(message, Resize):
                width, height = message.size
                size = Size(min(width, MOST_COLUMNS), min(height, MOST_LINES))
                message = Resize(size, size, pixel_size=message.pixel_size)
            super().process_message(message)

        def _run_input_thread(self) -> None:
            try:
                self.run_input_thread()
            except BaseException as error:
                # Textual would show a traceback.
                app = cast("Workshop", self._app)
                app.call_later(app.end_by_fault, error)
