"""Files for a short time whose content nobody else may read, and that leave nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engine.files.holding import held, remove_abandoned

_FOLDER_PREFIX = "rknn-tui-private-"
_DESCRIPTORS = Path("/proc/self/fd")

log = logging.getLogger("engine")


@contextlib.contextmanager
def private_file(write: Callable[[IO[bytes]], None]) -> Iterator[Path]:
    """The path of a new file that `write` has filled; it is gone when the block ends.

    On Linux it is a file in memory that no folder lists: it never reaches a disk (but for swap), cannot be written to
    any more, and ends with the process even if that is killed. Its path, in /proc, is good for this process only.
    Elsewhere it is a file of rights 0600 in a folder of rights 0700 where the system keeps such, removed at the end of
    the block; what a killed process left is removed by the next call.

    Raises OSError, and what `write` raises.
    """
    descriptor = _memory_file()
    with _in_folder(write) if descriptor is None else _in_memory(descriptor, write) as path:
        yield path


def _memory_file() -> int | None:
    """A file in memory, where the system has such and lets them be opened by a path."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create") or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.memfd_create("rknn-tui", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # some sandboxes forbid the call
        return None


@contextlib.contextmanager
def _in_memory(descriptor: int, write: Callable[[IO[bytes]], None]) -> Iterator[Path]:
    try:
        os.chmod(descriptor, 0o600)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            write(file)
        _seal(descriptor)
        yield _DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _in_folder(write: Callable[[IO[bytes]], None]) -> Iterator[Path]:
    remove_abandoned(Path(tempfile.gettempdir()), _FOLDER_PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    try:
        with held(folder):
            path, binary = folder / "file", getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o600), "wb") as file:
                write(file)
            yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            log.warning("%s holds a private file and cannot be removed: remove it", folder)


def _seal(descriptor: int) -> None:
    """Let nobody write to a file in memory any more."""
    if sys.platform == "linux":
        import fcntl

        # Not every system that calls itself Linux has them.
        with contextlib.suppress(OSError):
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
