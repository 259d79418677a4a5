"""The journal that the app keeps: what a person did with a model, added to a file line by line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.errors import EngineError, FileError
from engine.files.writing import replacing
from engine.journal.compaction import compact
from engine.journal.entries import (
    HEADER,
    LARGEST_JOURNAL,
    MOST_LINES,
    VERBS,
    Entry,
    change,
    check_header,
    parse,
    read,
    written,
)

__all__ = ["SUFFIX", "VERBS", "Entry", "Journal", "beside", "change", "compact", "parse", "read", "write", "written"]

SUFFIX = ".rknn-tui.jsonl"
_CHUNK = 1 << 20
_FULL = "it is full; rename it to begin another one"


def beside(model: str | Path) -> Path:
    """Where the journal of a model is kept: beside it, under its name without the last suffix."""
    return Path(model).with_name(f"{Path(model).stem}{SUFFIX}")


def write(path: str | Path, entries: Iterable[Entry]) -> Path:
    """Write a journal of some entries, with portable paths; an existing file is replaced. Raises FileError."""
    target = Path(path)
    lines = [written(entry, target.parent) for entry in entries]
    with replacing(target) as file:
        file.write("".join([HEADER, "\n", *lines]).encode())
    return target


class Journal:
    """What is done from now on, in memory and at the end of the file at `path`; None is for memory only.

    A line is written in one go, so that a crash loses the last one at most. Where the file cannot be written, is none
    of ours, is full, or is another process's at the moment, `add` says so once, and memory goes on.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._entries: list[Entry] = []
        self._file: int | None = None
        self._broken = self.path is None
        self._lines = 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was added so far."""
        return tuple(self._entries)

    def add(self, verb: str | Entry, arguments: Mapping[str, object] | None = None) -> str:
        """Add an entry, or one of this verb with these arguments; paths are meant from the current folder.

        Returns what a person should know of the file, '' for nothing new. Raises InputError for what is no entry.
        """
        entry = verb if isinstance(verb, Entry) else Entry(verb, arguments or {})
        self._entries.append(entry)
        if self._broken:
            return ""
        assert self.path is not None
        try:
            self._append(written(entry, self.path.parent))
        except (OSError, ValueError, EngineError) as error:
            self.close()
            self._broken = True
            reason = getattr(error, "strerror", None) or (error.what if isinstance(error, EngineError) else str(error))
            return f"{self.path}: the journal is not written: {reason}"
        return ""

    def compact(self) -> tuple[Entry, ...]:
        """The fewest entries that come to the same, see `engine.journal.compaction.compact`."""
        return compact(self._entries)

    def close(self) -> None:
        """Let go of the file. The next entry opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: str) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        size = os.fstat(self._file).st_size
        text = line if size else f"{HEADER}\n{line}"
        if size + len(text) > LARGEST_JOURNAL or self._lines >= MOST_LINES:
            raise FileError(_FULL)
        content = text.encode()
        done = 0
        try:
            done = os.write(self._file, content)
        finally:
            if done < len(content):
                # A part of a line would spoil the next one.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
        if done < len(content):
            raise FileError("the disk is full")
        self._lines += text.count("\n")

    def _open(self) -> None:
        """Open the file to add to it. Raises OSError and FileError."""
        assert self.path is not None
        # Without waiting, should it be a pipe that nobody reads.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(self.path, flags | getattr(os, "O_BINARY", 0), 0o666)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise FileError("it is no file")
        _lock(self._file)
        content = b""
        while part := os.read(self._file, _CHUNK):
            content += part
            if len(content) > LARGEST_JOURNAL:
                raise FileError(_FULL)
        if content:
            head, _, rest = content.partition(b"\n")
            if rest or not HEADER.encode().startswith(head):
                check_header(head.decode(errors="replace"), str(self.path))
            self._mend(content[content.rfind(b"\n") + 1 :], len(content))
        self._lines = content.count(b"\n")

    def _mend(self, end: bytes, size: int) -> None:
        """Give the last line its break; one that a crash cut short would spoil the next, and goes."""
        assert self._file is not None
        if not end:
            return
        try:
            json.loads(end)
        except (ValueError, RecursionError):
            os.ftruncate(self._file, size - len(end))
        else:
            os.write(self._file, b"\n")


def _lock(descriptor: int) -> None:
    """Keep other processes from adding to the file, as lines of two make no sense. Raises FileError if one does."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError("another process is writing it") from error
    except OSError:
        # Some network folders cannot.
        return
