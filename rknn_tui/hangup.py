"""Ends the app when its terminal is gone (a lost SSH link, a closed window) or it is told to end.

Textual by itself would wait for keys for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

EXIT_CODE = 129
"""What a shell reports for a process that SIGHUP ended."""


def leave_on_hangup(clean_up: Callable[[], None]) -> None:
    """From now on end the process when its terminal goes away, after `clean_up`, which runs in a thread of its own.

    Costs nothing while the terminal is there. Does nothing without a terminal, or where polling one does not work.
    """
    if not hasattr(select, "poll") or not sys.__stdin__ or not sys.__stdin__.isatty():
        return
    poller = select.poll()
    # No event is asked for: a hang-up is told all the same, and a key press does not wake the thread.
    poller.register(sys.__stdin__.fileno(), 0)

    def wait() -> None:
        events = poller.poll()
        if any(event & select.POLLHUP for _, event in events):
            try:
                clean_up()
            finally:
                # Leaving in good order would write to the terminal.
                os._exit(EXIT_CODE)

    threading.Thread(target=wait, name="hang-up", daemon=True).start()


def leave_on_terminate(leave: Callable[[int], None]) -> None:
    """Let SIGTERM leave in good order, terminal restored: `leave` gets the exit code. Call while the app runs."""
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
        # 128 + 15, as a shell reports it. Not on Windows, nor outside the main thread.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave, 128 + signal.SIGTERM)
