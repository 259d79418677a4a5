"""Marks unfinished files and folders as in use, so that those of killed processes can be told apart and removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# How `tempfile` fills the place between prefix and suffix.
_RANDOM_NAME = "[a-z0-9_]{8}"


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file or folder of one's own until the block ends or the process dies.

    Does nothing on Windows, where an open file can be neither renamed nor held this way.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path, prefix: str, suffix: str = "") -> None:
    """Remove what `tempfile` made in `folder` with these ends of the name and no living process holds."""
    name = re.compile(re.escape(prefix) + _RANDOM_NAME + re.escape(suffix))
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if name.fullmatch(path.name) and not path.is_symlink():
                _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock until the last copy of the descriptor is closed; whether it worked. Some network folders cannot."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
