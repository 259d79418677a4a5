"""Arrays one behind the other in a member of a file: little-endian, by rows, each at a multiple of 64 bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import FileError

Array = np.ndarray[Any, Any]

# Bytes. As ONNX Runtime's own tensors lie: where a kernel begins its vectors changes the order of its sums.
ALIGNMENT = 64
# As numpy's arrays have.
MOST_AXES = 64


class Arrays:
    """Arrays to be written; none of them is copied that lies as it is written."""

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self.size = 0
        """Bytes of all."""

    def add(self, array: Array) -> int:
        """Put `array` behind the others; returns where it begins."""
        start = _aligned(self.size)
        self._arrays.append(array)
        self.size = start + array.nbytes
        return start

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The bytes to be written, piece by piece."""
        end = 0
        for array in self._arrays:
            start = _aligned(end)
            if start > end:
                yield bytes(start - end)
            plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            yield plain.reshape(-1).view(np.uint8).data
            end = start + array.nbytes


class ArraysIn:
    """Arrays that are read from a member, one after the other as they were added; they lie in `content`.

    `where` names the member in messages.
    """

    def __init__(self, content: Array, where: str) -> None:
        self._content = content
        self._end = 0
        self._where = where

    def take(self, offset: Any, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """The next array, which is said to begin at `offset`. Raises FileError where it cannot.

        In turn, so that a small member never holds many large arrays that overlap.
        """
        kind = np.dtype(dtype).newbyteorder("<")
        # The product of many large sizes alone would take hours.
        if len(shape) > MOST_AXES:
            raise FileError(f"holds no array of {len(shape)} axes", where=self._where)
        start, size = _aligned(self._end), math.prod(shape) * kind.itemsize
        if type(offset) is not int or offset != start or size > self._content.size - start:
            raise FileError(f"holds no array of {tuple(shape)} at {offset!r:.40}", where=self._where)
        self._end = start + size
        array: Array = self._content[start : self._end].view(kind).reshape(shape)
        return array

    def finish(self) -> None:
        """Raise FileError where something is left."""
        if self._end != self._content.size:
            raise FileError(f"holds {self._content.size - self._end} bytes too many", where=self._where)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
