"""Paths as files keep them: relative to the file's own folder where they lie below it, so that both move together."""

from __future__ import annotations

import os
from pathlib import Path


def portable(path: str, folder: str | Path) -> str:
    """`path` as a file in `folder` keeps it: relative to that folder where it lies in or below it, else absolute.

    A relative `path` is meant from the current folder.
    """
    # Behind a link, `..` leads elsewhere than the text of the path says.
    where = Path(os.path.realpath(path)) if ".." in Path(path).parts else Path(path).absolute()
    for base in (Path(folder).absolute(), Path(os.path.realpath(folder))):
        if where.is_relative_to(base):
            return where.relative_to(base).as_posix()
    return str(where)


def located(path: str, folder: str | Path) -> str:
    """Where a path that a file in `folder` keeps leads to, from the current folder."""
    return str(Path(folder) / path)
