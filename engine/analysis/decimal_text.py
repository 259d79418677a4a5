"""Writes arrays as text, one value a line with six decimals, many times faster than formatting each number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 18
# Beyond this a value times a million is not exact in the float64 that the digits are taken from.
_LARGEST = 2.0**32


def write_decimals(path: Path, array: Array) -> None:
    """Write the flattened `array` as C's %f would print it, a line a value."""
    flat = np.asarray(array, np.float32).reshape(-1)
    with path.open("wb") as file:
        for start in range(0, flat.size, _CHUNK):
            file.write(decimals(flat[start : start + _CHUNK]))


def decimals(values: Array) -> bytes:
    """The text of a flat float32 array."""
    wide = values.astype(np.float64)
    if not np.all(np.abs(wide) < _LARGEST):
        return "".join(f"{v:f}\n" for v in wide.tolist()).encode()
    # A float32 times 10^6 has at most 44 significant bits, so the product is exact and rint ties like printf.
    millionths = np.rint(np.abs(wide) * 1e6).astype(np.int64)
    whole, fraction = np.divmod(millionths, 1_000_000)
    digits = max(1, len(str(int(whole.max(initial=0)))))
    # One row a value: sign, whole digits, point, six decimals, newline; unused places are removed at the end.
    text = np.empty((values.size, digits + 9), np.uint8)
    text[:, 0] = ord("-")
    text[:, -1] = ord("\n")
    text[:, digits + 1] = ord(".")
    rest = fraction.astype(np.int32)
    for column in range(6):
        rest, digit = np.divmod(rest, 10)
        text[:, -2 - column] = digit + ord("0")
    keep = np.ones(text.shape, bool)
    keep[:, 0] = np.signbit(wide)
    rest = whole
    for column in range(digits):
        keep[:, digits - column] = (rest > 0) | (column == 0)
        rest, digit = np.divmod(rest, 10)
        text[:, digits - column] = digit + ord("0")
    return text[keep].tobytes()
