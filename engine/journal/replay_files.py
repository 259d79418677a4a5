"""Where the files lie that a journal's entries read and write, and which of them a replay may write."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import FileError
from engine.files.portable_paths import located
from engine.journal.entries import Entry

MODEL, DATA, CFG = ".model", ".data", ".quantization.cfg"
"""How the names of the files of hybrid quantization end."""


class ReplayFiles:
    """Files that entries read may lie anywhere, their relative paths begin in the journal's folder.

    Files that they write must lie in `folder`, by default the journal's own, and their relative paths begin there; what
    was written is then also read from there.
    """

    def __init__(self, journal: str | Path, folder: str | Path | None = None) -> None:
        self._journal = journal
        self._base = Path(journal).parent
        self._folder = self._base if folder is None else Path(folder)
        self._kept = {os.path.realpath(journal)}
        self._made: set[str] = set()

    def fresh(self) -> ReplayFiles:
        """The same before anything was read or written."""
        return ReplayFiles(self._journal, self._folder)

    def find(self, entry: Entry) -> Entry:
        """The entry with paths from the current folder. Raises FileError for what it may not write."""
        found = entry.with_paths(self._located)
        for path in written_by(found):
            self._check_written(path)
        if not (found.verb == "open" and found["model"].endswith(MODEL)):
            # The files of hybrid quantization are there to be written again.
            self._kept.update(os.path.realpath(path) for path in _read_by(found))
        return found

    def check_readable(self, found: Entry) -> None:
        """Raise FileError if an entry that was found reads a file that is not there, and will not be."""
        for path in _read_by(found):
            if not os.path.exists(path) and path not in self._made:  # noqa: PTH110, any text is a path here
                raise FileError("does not exist", where=path, hint="check the path")

    def made(self, found: Entry) -> None:
        """Note that an entry that was found has written its files."""
        self._made.update(written_by(found))

    def _located(self, path: str, out: bool) -> str:
        made = located(path, self._folder)
        return made if out or made in self._made else located(path, self._base)

    def _check_written(self, path: str) -> None:
        target, folder = Path(os.path.realpath(path)), Path(os.path.realpath(self._folder))
        if not target.is_relative_to(folder):
            raise FileError(
                f"lies outside of {self._folder}", where=path, hint="--folder names the folder that may be written to"
            )
        if not target.parent.is_dir():
            raise FileError("its folder does not exist", where=path, hint="make the folder first")
        if target.is_dir():
            raise FileError("is a folder, not a file", where=path, hint="name a file in it")
        if str(target) in self._kept and path not in self._made:
            raise FileError("is read before, and would be replaced", where=path, hint="name another file")


def written_by(entry: Entry) -> list[str]:
    """The files that an entry writes."""
    if entry.verb == "export":
        return [entry["path"]]
    if entry.verb != "save":
        return []
    file = Path(entry["cfg"])
    stem = file.name.removesuffix(file.suffix).removesuffix(".quantization") or file.name
    return [entry["cfg"], *(str(file.with_name(f"{stem}{suffix}")) for suffix in (MODEL, DATA))]


def _read_by(entry: Entry) -> list[str]:
    """The files that an entry reads."""
    found: list[str] = []

    def take(path: str, out: bool) -> str:
        if not out:
            found.append(path)
        return path

    entry.with_paths(take)
    return found
