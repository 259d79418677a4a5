"""What a headless command shows: its result on standard output, progress and log lines on standard error."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from engine.progress import Progress
from engine.summaries import to_plain
from engine.text_tables import printable

SECONDS_BETWEEN_REDRAWS = 0.25
_BAR_CELLS = 20


class Console(logging.Handler):
    """Owns both streams for as long as a command runs; use it in a `with` block.

    On a terminal progress is one line that is redrawn in place; elsewhere each stage is one line. `verbose` adds the
    seconds of each stage and the engine's informative lines; `quiet` leaves warnings and errors only.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        verbose: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO if verbose else logging.WARNING)
        self.as_json = as_json
        self._verbose = verbose
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._stage = ""
        self._began = 0.0
        self._drawn_at = float("-inf")
        self._line_shown = False

    def __enter__(self) -> Console:
        log = logging.getLogger("engine")
        log.addHandler(self)
        log.setLevel(self.level)
        return self

    def __exit__(self, *failure: object) -> None:
        self.finish_stage(done=failure[0] is None)
        log = logging.getLogger("engine")
        log.removeHandler(self)
        log.setLevel(logging.NOTSET)

    def progress(self) -> Progress:
        """Progress that is shown here."""
        return Progress(self.report)

    def report(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps (0 when unknown) of `stage` are finished."""
        if self._quiet:
            return
        now = self._clock()
        if stage != self._stage:
            self.finish_stage()
            self._stage, self._began, self._drawn_at = stage, now, float("-inf")
            if not self._terminal and not self._verbose:
                self._write(f"{printable(stage)} ...\n")
        if self._terminal and now - self._drawn_at >= SECONDS_BETWEEN_REDRAWS:
            self._drawn_at = now
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{progress_line(stage, done, total, now - self._began)[:width]}")
            self._line_shown = True

    def finish_stage(self, *, done: bool = True) -> None:
        """Clear the progress line; verbose says how long the stage took."""
        self._clear()
        if self._stage and done and self._verbose:
            self._write(f"{printable(self._stage)}: {self._clock() - self._began:.2f} s\n")
        self._stage = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line of the engine's log above the progress line."""
        self._clear()
        self._drawn_at = float("-inf")
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self._write(f"{level}{printable(record.getMessage())}\n")

    def warn(self, text: str) -> None:
        """Say what a person should know although the command goes on."""
        logging.getLogger("engine").warning("%s", text)

    def result(self, document: dict[str, Any], text: str) -> None:
        """Print what the command is for: `document` under --json, else `text`."""
        self.finish_stage()
        print_result(json.dumps(to_plain(document), indent=2, allow_nan=False) if self.as_json else text)

    def _clear(self) -> None:
        if self._line_shown:
            self._write("\r\x1b[K")
            self._line_shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def progress_line(stage: str, done: int, total: int, seconds: float) -> str:
    """`stage  [#####-----]  5/10  12 s left`, as far as it is known; `seconds` is how long the stage has run."""
    if total <= 0:
        return f"{printable(stage)}  {done}" if done else printable(stage)
    part = min(max(done / total, 0.0), 1.0)
    filled = round(part * _BAR_CELLS)
    line = f"{printable(stage)}  [{'#' * filled}{'-' * (_BAR_CELLS - filled)}]  {done}/{total}"
    # The first second is start-up; an estimate from it would jump about.
    if 0 < done < total and seconds >= 1:
        line += f"  {duration(seconds / done * (total - done))} left"
    return line


def duration(seconds: float) -> str:
    """`9 s`, `2 min 05 s` or `1 h 02 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def print_result(text: str) -> None:
    """Print on standard output, with characters that it cannot show escaped."""
    try:
        sys.stdout.write(f"{text}\n")
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def screen_width() -> int | None:
    """Cells in a line of the terminal that standard output goes to; None when it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
