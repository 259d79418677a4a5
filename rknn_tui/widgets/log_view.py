"""The end of a log that grows, or any other part of it: only the lines in sight are read, whatever the file's size."""

from __future__ import annotations

import bisect
import os
import re
from pathlib import Path
from typing import BinaryIO

from textual.message import Message
from textual.timer import Timer

from rknn_tui.palette import Palette
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.widgets.text_lines import TextLines

BLOCK = 1 << 16
"""Bytes that are searched for line ends at a time."""
LONGEST_LINE = 4096
"""Bytes of a line that are read at most."""
MOST_LINES = 50_000
"""Line starts that are kept; those farthest from where one looks are forgotten."""
SECONDS_BETWEEN_LOOKS = 0.5

# Programs that show progress write over their line with a carriage return: each of these is a line of its own here.
_BREAK = re.compile(rb"\n|\r(?=[^\n])")


class LogFile:
    """Where the lines of a part of a file start. The part is extended block by block, at both ends, as it is needed.

    `starts` are offsets of lines in the part; the part ends before the offset `end`, and the file had `size` bytes when
    it was last looked at. A file that cannot be read has no lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts: list[int] = []
        self.end = 0
        self.size = 0
        self._file: BinaryIO | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def look(self) -> bool:
        """See how long the file is now. True where it is another file, or was cut: the part is empty then."""
        try:
            there = self.path.stat()
            if self._file is not None:
                mine = os.fstat(self._file.fileno())
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) and there.st_size >= self.end:
                    self.size = there.st_size
                    return False
                self.close()
            self._file = self.path.open("rb", buffering=0)
            self.size = there.st_size
        except OSError:
            self.close()
            self.size = 0
        self.starts, self.end = [], 0
        return True

    def begin_at(self, offset: int) -> None:
        """Make the part empty, at the start of a line, or at the end of the file."""
        self.end = min(offset, self.size)
        self.starts = [self.end] if self.end < self.size or not self.size else []

    def __len__(self) -> int:
        """Lines in the part; one that may go on behind it does not count."""
        if not self.starts:
            return 0
        incomplete = self.starts[-1] == self.end or self.end < self.size
        return len(self.starts) - incomplete

    def reach_back(self) -> bool:
        """Extend the part by a block towards the start of the file; False where it is there already."""
        first = self.starts[0] if self.starts else self.end
        if first <= 0:
            return False
        start = max(first - BLOCK, 0)
        found = [start + match.end() for match in _BREAK.finditer(self._read(start, first))]
        if self.starts:
            found = [place for place in found if place < first]
        if start == 0 or not found or found[0] == first:
            # The start of the file, or a line that is longer than a block.
            found.insert(0, start)
        self.starts[:0] = found
        if len(self.starts) > MOST_LINES:
            self.end = self.starts[MOST_LINES]
            del self.starts[MOST_LINES + 1 :]
        return True

    def reach_on(self) -> bool:
        """Extend the part by a block towards the end of the file; False where it is there already."""
        if self.end >= self.size or not self.starts:
            return False
        # From one byte before, since what follows a carriage return decides what it is.
        start, stop = max(self.end - 1, 0), min(self.end + BLOCK, self.size)
        data = self._read(start, stop)
        if not data:
            return False
        last = self.starts[-1]
        found = [place for match in _BREAK.finditer(data) if (place := start + match.end()) > last]
        if not found and stop - last > BLOCK:
            # A line that is longer than a block goes on as another: its end may be a gigabyte away.
            found.append(stop)
        self.starts += found
        self.end = stop
        if len(self.starts) > MOST_LINES:
            del self.starts[:-MOST_LINES]
        return True

    def line(self, index: int) -> str:
        """The text of a line of the part, without its end; the start of one that is longer than LONGEST_LINE."""
        start = self.starts[index]
        stop = self.starts[index + 1] if index + 1 < len(self.starts) else self.end
        data = self._read(start, min(stop, start + LONGEST_LINE))
        return data.rstrip(b"\r\n").decode("utf-8", "replace").expandtabs(4)

    def _read(self, start: int, stop: int) -> bytes:
        if self._file is None:
            return b""
        try:
            self._file.seek(start)
            data = b""
            while len(data) < stop - start and (more := self._file.read(stop - start - len(data))):
                data += more
        except OSError:
            return b""
        return data


class LogView(TextLines):
    """Shows a log from `open_log` until `close_log`, and costs nothing else. It follows the end unless scrolled up."""

    DEFAULT_CSS = "LogView { height: 1fr; width: 1fr; }"

    class Followed(Message):
        """Whether the end is followed has changed."""

    def __init__(self, palette: Palette, symbols: Symbols, *, id: str | None = None) -> None:
        super().__init__(palette, id=id)
        self.symbols = symbols
        self.following = True
        self._log: LogFile | None = None
        self._top = 0
        """The offset of the first line in sight, while the end is not followed."""
        self._timer: Timer | None = None

    @property
    def watching(self) -> bool:
        """Whether the file is open and looked at."""
        return self._log is not None

    def open_log(self, path: Path | None) -> None:
        """Show the log at `path`, where it was left or at its end, and what is added to it."""
        if self._log is not None and self._log.path == path:
            return
        self.close_log()
        if path is None:
            self.show([[(" there is no log: its folder cannot be written", "muted")]])
            return
        self._log = LogFile(path)
        self._log.look()
        self._log.begin_at(self._log.size if self.following else self._top)
        self._draw()
        self._timer = self.set_interval(SECONDS_BETWEEN_LOOKS, self._look)

    def close_log(self) -> None:
        """Close the file and stop looking."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def scroll_lines(self, lines: int) -> None:
        """Scroll down by as many lines, or up where they are negative; at the end, it is followed again."""
        log = self._log
        if log is None:
            return
        if len(log):
            self._top = log.starts[self._place(log)]
        while self._row(log) + lines < 0 and log.reach_back():
            pass
        while self._row(log) + lines + self.size.height > len(log) and log.reach_on():
            pass
        row = max(self._row(log) + lines, 0)
        self._follow(row + self.size.height >= len(log) and log.end >= log.size)
        if len(log):
            self._top = log.starts[min(row, len(log) - 1)]
        self._draw()

    def scroll_first(self) -> None:
        """Go to the start of the file."""
        if self._log is not None:
            self._log.begin_at(0)
            self._top = 0
            self._follow(False)
            self._draw()

    def scroll_last(self) -> None:
        """Go to the end of the file, and follow it."""
        if self._log is not None:
            self._log.begin_at(self._log.size)
            self._follow(True)
            self._draw()

    def on_resize(self) -> None:
        if self._log is not None:
            self._draw()

    def on_unmount(self) -> None:
        self.close_log()

    def _follow(self, following: bool) -> None:
        if following != self.following:
            self.following = following
            self.post_message(self.Followed())

    def _look(self) -> None:
        log = self._log
        if log is None:
            return
        size = log.size
        if log.look():
            self._follow(True)
            log.begin_at(log.size)
        elif log.size == size:
            return
        elif self.following and log.size - log.end > BLOCK:
            log.begin_at(log.size)
        self._draw()

    def _row(self, log: LogFile) -> int:
        """The index of the line where the view was left."""
        return min(bisect.bisect_left(log.starts, self._top), max(len(log) - 1, 0))

    def _place(self, log: LogFile) -> int:
        """The index of the first line in sight."""
        return max(len(log) - self.size.height, 0) if self.following else self._row(log)

    def _draw(self) -> None:
        """Read the lines in sight, and draw those that look different."""
        log, height = self._log, self.size.height
        if log is None or height < 1:
            return
        if self.following:
            if not log.starts:
                log.reach_back()
            while log.reach_on():
                pass
            while len(log) < height and log.reach_back():
                pass
        else:
            while len(log) - self._row(log) < height and log.reach_on():
                pass
        place = self._place(log)
        width = max(self.size.width - 1, 1)
        texts = [log.line(index) for index in range(place, min(place + height, len(log)))]
        lines = [[(f" {fit(drawable(text, self.symbols), width, self.symbols)}", "text")] for text in texts]
        self.show(lines or [[(" the log is empty", "muted")]])
