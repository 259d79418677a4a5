"""The files of tensors that a runtime has left in a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_FILES = 4096
_MOST_NAME = 200


def collect(folder: Path) -> list[tuple[str, int]]:
    """The names of the .npy files below `folder`, relative to it, and their sizes in bytes; at most MOST_FILES.

    Links are left out: what is sent is what the runtime has written there.
    """
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            relative = str(path.relative_to(folder))
            try:
                told = path.lstat()
            except OSError:
                continue
            if name.endswith(".npy") and stat.S_ISREG(told.st_mode) and len(relative) <= _MOST_NAME:
                found.append((relative, told.st_size))
    return sorted(found)[:MOST_FILES]
