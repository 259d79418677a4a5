"""How far a quantized tensor is from its float counterpart: sums of squares, and the errors made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.summaries import ErrorPair

Array = np.ndarray[Any, Any]

# Numbers that are summed in float32, before float64 takes over: few enough for six digits.
_ROW = 4096
# Numbers that are taken to float64 at once: they stay in the processor's cache, and their products in one thread.
_BLOCK = 8192
# Rows whose difference is taken at once: it stays in the processor's cache.
_ROWS = 16


def error_pair(ff: float, qq: float, dd: float) -> ErrorPair:
    """Cosine and euclidean distance from the sums of f^2, q^2 and (f - q)^2.

    cos = (ff + qq - dd) / (2 sqrt(ff qq)) and euc = sqrt(dd). Two tensors that are both zero agree (cosine 1); one that
    is zero beside one that isn't has cosine 0. A quantized tensor that is not finite has cosine 0 and an infinite
    distance.
    """
    if not math.isfinite(qq + dd):
        return ErrorPair(0.0, math.inf)
    if ff == 0.0 or qq == 0.0:
        return ErrorPair(1.0 if ff == qq else 0.0, math.sqrt(dd))
    cosine = (ff + qq - dd) / (2.0 * math.sqrt(ff) * math.sqrt(qq))
    return ErrorPair(min(1.0, max(-1.0, cosine)), math.sqrt(dd))


def sum_squares(array: Array) -> float:
    """The sum of squares of a float32 array; always the same for the same numbers."""
    total = _sum_squares(array.reshape(-1))
    return total if math.isfinite(total) else _sum_squares(array.reshape(-1).astype(np.float64))


def sum_squared_differences(first: Array, second: Array) -> float:
    """The sum of squares of the differences of two float32 arrays of one shape."""
    first, second = first.reshape(-1), second.reshape(-1)
    total = _sum_squared_differences(first, second)
    # Squares of numbers beyond 1.8e19, such as those of masks, fit float64 only.
    return (
        total if math.isfinite(total) else _sum_squared_differences(first.astype(np.float64), second.astype(np.float64))
    )


def sums_of_products(first: Array, second: Array) -> tuple[float, float, float, float]:
    """The sums of f^2, q^2, f q and (f - q)^2 of two flat arrays, in float64."""
    squares = other_squares = products = differences = 0.0
    wide, other_wide = np.empty((2, min(_BLOCK, first.size)))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, first.size, _BLOCK):
            size = min(_BLOCK, first.size - start)
            f, q = wide[:size], other_wide[:size]
            f[...], q[...] = first[start : start + size], second[start : start + size]
            squares += float(f @ f)
            other_squares += float(q @ q)
            products += float(f @ q)
            f -= q
            differences += float(f @ f)
    return squares, other_squares, products, differences


def _sum_squared_differences(first: Array, second: Array) -> float:
    total, step = 0.0, _ROW * _ROWS
    difference = np.empty(min(step, first.size), first.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, first.size, step):
            part = difference[: min(step, first.size - start)]
            np.subtract(first[start : start + step], second[start : start + step], out=part)
            total += _sum_squares(part)
    return total


def _sum_squares(array: Array) -> float:
    whole = array.size - array.size % _ROW
    rows, rest = array[:whole].reshape(-1, _ROW), array[whole:]
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sum(np.vecdot(rows, rows), dtype=np.float64)) + float(np.vecdot(rest, rest))
