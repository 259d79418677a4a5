"""Reads files that anybody may have written: whole, bounded, with an error that says what is wrong."""

from __future__ import annotations

from pathlib import Path

from engine.errors import FileError, ModelError
from engine.ort import LARGEST_MODEL

CORRUPT = "the file is corrupt; export or download it again"
"""What to do about a file that contradicts itself."""


def read_bytes(path: Path, *, limit: int = LARGEST_MODEL) -> bytes:
    """The content of a model file. Raises FileError when it cannot be read, ModelError when it is empty or larger than
    `limit` bytes."""
    if path.is_dir():
        raise FileError("is a folder, not a model file", where=str(path))
    try:
        if path.stat().st_size > limit:
            raise ModelError(f"is larger than {limit >> 20} MB", where=str(path), hint="is it a model file?")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"cannot be read: {reason}", where=str(path)) from error
    if not data:
        raise ModelError("is empty", where=str(path), hint="export or download it again")
    return data


def read_text(path: Path, *, limit: int = 16 << 20) -> str:
    """The content of a text file in UTF-8, or in Latin-1 where that does not fit. Raises like `read_bytes`, and
    ModelError when it holds zero bytes, which no text does."""
    data = read_bytes(path, limit=limit)
    if b"\0" in data:
        raise ModelError("is not a text file", where=str(path), hint="is it the file of the weights?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
