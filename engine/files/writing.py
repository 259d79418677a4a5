"""Writes files so that a crash, a full disk or a cancel never leaves half a file or loses the old one."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from engine.errors import FileError
from engine.files.holding import held, remove_abandoned

# Leaves room in a file name's 255 bytes, however many bytes a character takes.
_NAME_CHARACTERS = 50
_SUFFIX = ".part"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    A link is followed, and an existing file's rights are kept. A device or pipe, which no file should replace, is
    written to directly. What a killed process left of its own try is removed. Raises FileError when the folder is
    missing or something cannot be written.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise FileError("is a folder, not a file", where=str(path), hint="name a file in it")
    if mode and not stat.S_ISREG(mode):
        # Whole, at the end: writers of archives go back and forth, which a device only seems to allow.
        whole = io.BytesIO()
        yield whole
        with _explained(path), Path(path).open("wb") as device:
            device.write(whole.getbuffer())
        return
    with _explained(path, hint="choose a folder that exists and is yours"):
        target = Path(os.path.realpath(path))
        remove_abandoned(target.parent, _prefix(target), _SUFFIX)
        descriptor, name = tempfile.mkstemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent)
    part = Path(name)
    try:
        with _explained(path), held(part):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes the file private.
            part.chmod(stat.S_IMODE(mode) if mode else 0o666 & ~_umask())
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _mode(path: str | Path) -> int:
    """The file's type and rights; 0 where there is none yet."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0
    except ValueError as error:  # a name with a zero byte
        raise FileError(f"cannot be written: {error}", where=str(path)) from error


@contextlib.contextmanager
def _explained(path: str | Path, hint: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror or error}", where=str(path), hint=hint) from error


def _prefix(target: Path) -> str:
    return f".{target.name[:_NAME_CHARACTERS]}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
