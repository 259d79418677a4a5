"""What the vendor's toolkit prints: kept in a file of bounded size, and read for progress and for its own errors."""

from __future__ import annotations

import re
import threading
from collections import deque
from pathlib import Path
from typing import IO

LARGEST_LOG = 16 << 20
_LONGEST_LINE = 2000
_KEPT_LINES = 400
_COLOURS = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
# `I Quantizating :  40%|####    | 58/144 [00:00<00:00, ...]`
_BAR = re.compile(r"^(?:I\s+)?([A-Za-z][\w. -]{0,60}?)\s*:\s*\d{1,3}%\|[^|]*\|\s*(\d{1,9})/(\d{1,9})")
_ERROR = re.compile(r"^E (?:RKNN: \[[^\]]*\] ?)?(.+)")
_NO_REASON = re.compile(r"=====|Traceback|^\w+: *$|WARN: .*|Meet unsupport|Please feedback|Catch exception")


class ToolkitLog:
    """Reads a process's output to its end, in a thread of its own."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.path = path
        self._stream = stream
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._bar: tuple[str, int, int] | None = None
        self._thread = threading.Thread(target=self._read, name="toolkit output", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """A new call begins: forget what was said before it."""
        with self._lock:
            self._lines.clear()
            self._bar = None

    def bar(self) -> tuple[str, int, int] | None:
        """The last progress bar: its title, steps done and steps in all. None where there was none in this call."""
        with self._lock:
            return self._bar

    def reason(self) -> str:
        """What the toolkit itself says went wrong in this call, else its last line."""
        with self._lock:
            lines = list(self._lines)
        errors = [found[1].strip() for line in lines if (found := _ERROR.match(line)) and found[1].strip()]
        said = [text for text in errors if not _NO_REASON.search(text) and not text.startswith('File "')]
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return (said or errors or [last])[-1][:500]

    def tail(self, lines: int = 6) -> str:
        """The last few lines."""
        with self._lock:
            return "\n".join(list(self._lines)[-lines:])

    def finish(self, seconds: float = 2.0) -> None:
        """Wait for the end of the output."""
        self._thread.join(seconds)

    def _read(self) -> None:
        written, rest = 0, b""
        with self._stream, self.path.open("wb") as file:
            while chunk := self._stream.read1(1 << 16):  # type: ignore[attr-defined]
                room = LARGEST_LOG - written
                if room > 0:
                    file.write(chunk[:room])
                    file.flush()
                    written += len(chunk)
                *lines, rest = re.split(rb"[\r\n]", rest + chunk)
                rest = rest[-_LONGEST_LINE:]
                self._hear(lines)
            self._hear([rest])

    def _hear(self, lines: list[bytes]) -> None:
        with self._lock:
            # A flood of lines is not worth the time to look at each.
            for line in lines[-_KEPT_LINES:]:
                text = _COLOURS.sub(b"", line[:_LONGEST_LINE]).decode("utf-8", "replace").rstrip()
                if not text:
                    continue
                bar = _BAR.match(text)
                if bar is None:
                    self._lines.append(text)
                elif int(bar[3]) > 0:
                    self._bar = (bar[1].strip(), min(int(bar[2]), int(bar[3])), int(bar[3]))
