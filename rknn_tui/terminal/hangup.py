"""Ends the app when its terminal is gone (a lost SSH link, a closed window) or it is told to end.

Textual by itself would wait for keys for ever, or be gone before anything was written down.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator

HUNG_UP = 129
TERMINATED = 143
"""What a shell reports for a process that SIGHUP, or SIGTERM, ended."""
SECONDS_TO_LEAVE = 5.0
"""For leaving in good order: a terminal that takes no more bytes would hold that up for ever."""


@contextlib.contextmanager
def leaving_when_told(clean_up: Callable[[], object], leave: Callable[[int], object]) -> Iterator[None]:
    """While inside, end the process when its terminal goes away, or on SIGHUP or SIGTERM.

    `clean_up` is called first, in a thread of its own, since the app's may be waiting for the terminal. On SIGTERM the
    app is then asked to `leave` with an exit code, which restores the terminal. Costs nothing while nothing happens.
    """
    if not hasattr(select, "poll") or threading.current_thread() is not threading.main_thread():
        yield
        return
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    left = threading.Event()

    def told(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(tell, bytes([number]))

    def wait() -> None:
        number = _first_word(hear)
        if number is None:
            return
        try:
            clean_up()
            if number == signal.SIGTERM:
                leave(TERMINATED)
                left.wait(SECONDS_TO_LEAVE)
        finally:
            if not left.is_set():
                # Leaving in good order would write to the terminal, which is not there, or does not listen.
                os._exit(TERMINATED if number == signal.SIGTERM else HUNG_UP)

    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    # A process that was started to outlive its terminal, as by nohup, does.
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, told)
    thread = threading.Thread(target=wait, name="hang-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
        os.close(tell)
        thread.join(SECONDS_TO_LEAVE)
        os.close(hear)


def _first_word(hear: int) -> int | None:
    """Wait for a signal's number on the pipe, or the end of the terminal, told as SIGHUP; None when the pipe closes."""
    poller = select.poll()
    poller.register(hear, select.POLLIN)
    if sys.__stdin__ is not None and sys.__stdin__.isatty():
        # No event is asked for: a hang-up is told all the same, and a key press does not wake the thread.
        poller.register(sys.__stdin__.fileno(), 0)
    while True:
        for descriptor, event in poller.poll():
            if descriptor == hear:
                return next(iter(os.read(hear, 1)), None)
            if event & select.POLLHUP:
                return signal.SIGHUP
            poller.unregister(descriptor)
