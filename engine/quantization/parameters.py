"""The arithmetic of quantization parameters: from a range to a scale and a zero point, and there and back again.

All formulas are the toolkit's, measured on its outputs: real = (q - zero_point) * scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1)}


def widen(low: float, high: float) -> tuple[float, float]:
    """The range that also contains 0, so that 0 (padding, Relu) is represented exactly."""
    return min(low, 0.0), max(high, 0.0)


def asymmetric(low: float, high: float, dtype: str = "int8") -> tuple[float, int]:
    """Scale (double precision, > 0) and zero point of the range low..high widened to contain 0.

    scale = (high - low) / (levels - 1); zero_point = round half to even(smallest - low / scale). A tensor that is
    always 0 gets the parameters of -1..1: scale 2 / (levels - 1) and zero point 0.
    """
    smallest, largest = LIMITS[dtype]
    low, high = widen(float(low), float(high))
    steps = largest - smallest
    scale = (high - low) / steps
    if scale == 0.0:
        return 2.0 / steps, 0
    return scale, round(smallest - low / scale)


def symmetric(low: float, high: float, dtype: str = "int32") -> tuple[float, int]:
    """Scale of -absmax..absmax on the positive half of the grid; the zero point is 0."""
    bound = max(abs(float(low)), abs(float(high)))
    return (bound or 1.0) / LIMITS[dtype][1], 0


_SMALLEST_STEP = np.float32(np.finfo(np.float32).tiny)
# One float32 below what is exact, so that no rounding of the product of steps and width leaves float32.
_LARGEST_STEPS = {
    dtype: np.nextafter(np.finfo(np.float32).max / np.float32(high - low), np.float32(0), dtype=np.float32)
    for dtype, (low, high) in LIMITS.items()
}


def step(scale: float, dtype: str = "int8") -> np.float32:
    """The scale as the float32 that arithmetic uses: not so small that it underflows, nor so large that the ends of
    the grid of `dtype` overflow, as they would where a mask holds the lowest float32."""
    return min(max(np.float32(scale), _SMALLEST_STEP), _LARGEST_STEPS[dtype])


def fake_quantize(values: Array, scale: float, zero_point: int, dtype: str = "int8") -> Array:
    """`values` rounded to the grid and back, in float32: the plain form of a QuantizeLinear/DequantizeLinear pair."""
    smallest, largest = LIMITS[dtype]
    if dtype == "int32":  # float32 cannot count that far
        grid = np.clip(np.rint(values.astype(np.float64) / scale) + zero_point, smallest, largest)
        result: Array = ((grid - zero_point) * scale).astype(np.float32)
        return result
    width = step(scale, dtype)
    with np.errstate(over="ignore"):  # what overflows is clipped
        grid = np.clip(np.rint(values.astype(np.float32) / width) + np.float32(zero_point), smallest, largest)
    rounded: Array = ((grid - np.float32(zero_point)) * width).astype(np.float32)
    return rounded
