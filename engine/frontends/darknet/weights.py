"""Reads a Darknet weights file: a header, then float32 numbers in the order in which the layers take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.frontends.reading import read_bytes

Array = np.ndarray[Any, Any]

# From this version (major * 10 + minor) on the number of pictures seen takes 64 bits; versions above 1000 mark files of
# old whose matrices lie the other way round, and have 32.
_WIDE_COUNT, _TRANSPOSED = 2, 1000


class Weights:
    """The numbers of a weights file, handed out from its beginning on.

    `transposed` tells that matrices of connected layers lie input by input. Raises FileError and ModelError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        data = read_bytes(path)
        if len(data) < 16:
            raise ModelError(f"has {len(data)} bytes, less than its header", where=str(path), hint="download it again")
        major, minor, _ = (int(number) for number in np.frombuffer(data, "<i4", 3))
        self.transposed = major > _TRANSPOSED or minor > _TRANSPOSED
        header = 20 if major * 10 + minor >= _WIDE_COUNT and not self.transposed else 16
        count = max(len(data) - header, 0) // 4
        self._numbers = np.frombuffer(data, "<f4", count, min(header, len(data))).astype(np.float32, copy=False)
        self._odd = max(len(data) - header, 0) % 4
        self._taken = 0

    @property
    def left(self) -> int:
        """How many bytes nobody took."""
        return (self._numbers.size - self._taken) * 4 + self._odd

    def take(self, shape: tuple[int, ...], layer: str, what: str) -> Array:
        """The next numbers, as many as `shape` holds. Raises ModelError where there are too few, or where one is none:
        then the file is damaged, or of another network."""
        count = 1
        for size in shape:
            count *= size
        left = self._numbers.size - self._taken
        if count > left:
            raise ModelError(
                f"is too short: the {what} of {layer} are {count} numbers, and {left} of {self._numbers.size} are left",
                where=str(self._path),
                hint="is it of this cfg, and complete?",
            )
        found = self._numbers[self._taken : self._taken + count]
        if not np.isfinite(found).all():
            raise ModelError(
                f"the {what} of {layer} are not all finite numbers",
                where=str(self._path),
                hint="is it of this cfg, and undamaged?",
            )
        self._taken += count
        return found.reshape(shape)
