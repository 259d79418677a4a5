"""The terminal as Textual drives it, made to bear bytes that are no text."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, cast

from textual.driver import Driver

if TYPE_CHECKING:
    from rknn_tui.app import Workshop


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
        def _run_input_thread(self) -> None:
            try:
                self.run_input_thread()
            except BaseException as error:
                # Textual would show a traceback.
                app = cast("Workshop", self._app)
                app.call_later(app.end_by_fault, error)
