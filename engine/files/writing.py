"""Writes files so that a crash, a full disk or a cancel never leaves half a file or loses the old one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from engine.errors import FileError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Raises FileError when the folder is missing or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise FileError("is a folder, not a file", where=str(target), hint="name a file in it")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise FileError(
            f"cannot be written: {error.strerror}", where=str(target), hint="choose a folder that exists and is yours"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it the rights that a plain open() would have.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise FileError(f"cannot be written: {error.strerror}", where=str(target)) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
