"""Memory for the tensors that a simulation keeps, cut from few large blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = np.ndarray[Any, Any]

# Blocks of this many bytes come in large pages, which take a tenth of the time to get; parts never used cost nothing.
_BLOCK = 32 << 20
# Bytes. ONNX Runtime's own tensors lie at least so: where a kernel begins its vectors changes the order of its sums.
_ALIGNMENT = 64


class Buffers:
    """Hands out arrays that live as long as anything refers to their block."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._next = 0

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """An array of any content, aligned for vector instructions."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._next + size > self._block.size:
            self._block = np.empty(max(_BLOCK, size) + _ALIGNMENT, np.uint8)
            self._next = -self._block.ctypes.data % _ALIGNMENT
        start = self._next
        self._next += -(-size // _ALIGNMENT) * _ALIGNMENT
        return self._block[start : start + size].view(dtype).reshape(shape)
