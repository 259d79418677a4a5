"""Paths as people type them and files that may not be what they are thought to be: questions that always answer."""

from __future__ import annotations

from pathlib import Path

from engine.errors import FileError


def typed_path(text: str) -> str:
    """A typed path with the home folder in place of `~`. Raises FileError."""
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise FileError("there is no such home folder", where=text, hint="write the path in full") from error


def exists(path: str | Path) -> bool:
    """Whether there is anything; False where that cannot be told, as for a name that is too long."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether it is a file; False where that cannot be told."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether it is a folder; False where that cannot be told."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def absolute(path: str | Path) -> str:
    """The path from the root; as it is where the current folder was removed."""
    try:
        return str(Path(path).absolute())
    except OSError:
        return str(path)


def current_folder() -> Path:
    """Where the app was started; '.' where that was removed."""
    return Path(absolute("."))
