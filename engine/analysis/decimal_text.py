"""Writes arrays as text, one value a line with six decimals, many times faster than formatting each number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Small enough for the steps in between to stay in a processor's cache.
_CHUNK = 1 << 15
# Beyond this a value times a million is not exact in the float64 that the digits are taken from.
_LARGEST = 2.0**32
# Up to this a value times a million fits an unsigned 32-bit integer, which divides faster.
_SMALL = 4294.0


def _four_letters(*columns: Array | bytes) -> Array:
    """The texts of 0 to 999 in four bytes each, as one uint32 a number."""
    text = np.empty((1000, 4), np.uint8)
    for index, column in enumerate(columns):
        text[:, index] = ord(column) if isinstance(column, bytes) else column
    return text.reshape(-1).view(np.uint32)


_NUMBERS = np.arange(1000)
_DIGITS = [(_NUMBERS // place % 10 + ord("0")).astype(np.uint8) for place in (100, 10, 1)]
# Unused places hold zero bytes, which are taken out at the end.
_POINT = _four_letters(b".", *_DIGITS)
_END = _four_letters(*_DIGITS, b"\n")
_INNER = _four_letters(b"\0", *_DIGITS)
_FIRST = _four_letters(
    b"\0", *(np.where(least <= _NUMBERS, digit, 0) for least, digit in zip((100, 10, 0), _DIGITS, strict=True))
)


def write_decimals(path: Path, array: Array) -> None:
    """Write the flattened `array` as C's %f would print it, a line a value."""
    flat = np.asarray(array, np.float32).reshape(-1)
    with path.open("wb") as file:
        for start in range(0, flat.size, _CHUNK):
            file.write(decimals(flat[start : start + _CHUNK]))


def decimals(values: Array) -> bytes:
    """The text of a flat float32 array."""
    wide = values.astype(np.float64)
    signs = np.signbit(wide)
    np.abs(wide, out=wide)
    largest = wide.max(initial=0.0)
    if not largest < _LARGEST:
        return "".join(f"{v:f}\n" for v in values.tolist()).encode()
    # A float32 times 10^6 has at most 44 significant bits, so the product is exact and rint ties like printf.
    wide *= 1e6
    millionths = np.rint(wide, out=wide).astype(np.uint32 if largest < _SMALL else np.int64)
    thousandths, millionths = _split(millionths)
    whole, thousandths = _split(thousandths)
    groups = [whole]
    while groups[0].max(initial=0) > 999:
        groups[:1] = _split(groups[0])
    # One row a value, three digits a group, of which only the last ones are used by smaller values.
    text = np.empty((values.size, len(groups) + 2), np.uint32)
    text[:, -2] = _POINT[thousandths]
    text[:, -1] = _END[millionths]
    text[:, 0] = _FIRST[groups[0]]
    above = groups[0] > 0
    for column, group in enumerate(groups[1:], start=1):
        text[:, column - 1] *= above
        text[:, column] = np.where(above, _INNER[group], _FIRST[group])
        above |= group > 0
    letters = text.view(np.uint8)
    letters[:, 0] = signs * np.uint8(ord("-"))
    return letters.tobytes().translate(None, b"\0")


def _split(numbers: Array) -> tuple[Array, Array]:
    """Whole thousands and the rest; faster than numpy.divmod."""
    thousands = numbers // 1000
    return thousands, numbers - thousands * 1000
