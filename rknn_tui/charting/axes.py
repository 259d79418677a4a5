"""Axes: which range to show, where its ticks are, and how numbers are written beside them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rknn_tui.graph.bars import digits

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_FEWEST_FOR_OUTLIERS = 20
"""With fewer values than these, each is worth the room that it asks for."""
_ORDINARY = 0.05
"""The share of the values that may lie below a cosine axis, so that the others can be told apart."""

_COSINE_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Of what an axis shows under a cosine of 1: close steps, for little of it to stay empty."""


def finite(values: Sequence[float]) -> list[float]:
    """The values that can be drawn."""
    return [value for value in values if math.isfinite(value)]


def short(value: float, unit: str = "") -> str:
    """A number in few characters, as `unit` has it: see Chart."""
    if unit == "cosine":
        return digits(value) or "nan"
    if not math.isfinite(value):
        return str(value)
    if unit == "share":
        if 0 < value < 0.0005:
            return "<0.1 %"
        return f"{value * 100:.1f} %" if abs(value) < 1e4 else f"{value:.2e}"
    if unit == "bytes":
        return f"{_scaled(value, 1e3, ' ')}B"
    return f"{_scaled(value, 1e4, '')} {unit}".rstrip()


def _scaled(value: float, least: float, gap: str) -> str:
    """Four digits, and a prefix from `least` on; powers of ten where prefixes end."""
    size, prefix = next((pair for pair in _PREFIXES if abs(value) >= max(pair[0], least) * 0.99995), (1.0, ""))
    scaled = value / size
    if value and not 1e-3 <= abs(scaled) < 9999.5:
        return f"{value:.2e}{gap}"
    return f"{scaled:.4g}{gap}{prefix}"


def round_up(value: float, factors: Sequence[float] = (1.0, 2.0, 5.0)) -> float:
    """The next of these times a power of ten; values that have none, such as 0, stay as they are."""
    if not sys.float_info.min <= value < math.inf:
        return value
    power = 10.0 ** math.floor(math.log10(value))
    # The last digits of a division must not push a round number to the next.
    step = next((factor for factor in factors if value <= factor * power * (1 + 1e-9)), 10.0) * power
    return step if step > 0 and math.isfinite(step) else value


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most `most` round values from `low` to `high`, at equal distances; `whole` ones where those are counted."""
    span = high - low
    if most < 1 or not (span > 0 and math.isfinite(span)):
        return [low] if math.isfinite(low) and most > 0 else []
    step = round_up(span / most)
    if whole:
        step = max(step, 1.0)
    if not step > 0 or not math.isfinite(low / step):
        return [low]
    inside = _multiples(low, high, step, most)
    if len(inside) > most:
        inside = _multiples(low, high, round_up(step * 1.1), most)[:most]
    # Where doubles are too coarse for the step, ticks fall together.
    return inside if len(set(inside)) == len(inside) else [low]


def _multiples(low: float, high: float, step: float, most: int) -> list[float]:
    first, near = math.ceil(low / step - 1e-9), (high - low) * 1e-6
    found = ((first + count) * step for count in range(most + 2))
    return [tick for tick in found if low - near <= tick <= high + near]


def tick_labels(values: Sequence[float], unit: str = "") -> list[str]:
    """The ticks in writing, all with as many decimals as their distance needs."""
    step = values[1] - values[0] if len(values) > 1 else 0.0
    largest = max(map(abs, values), default=0.0)
    if unit in ("share", "bytes") or not step >= 1e-6 or largest >= 1e5:
        return [short(value, "" if unit == "cosine" else unit) for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]


def place(value: float, low: float, high: float) -> float:
    """Where the value lies between the ends of an axis, 0..1; values outside are put at the ends."""
    span = high - low
    if not math.isfinite(span):
        # Ends as far apart as doubles go.
        value, low, span = value / 4, low / 4, high / 4 - low / 4
    if not span > 0:
        return 0.5
    return min(max((value - low) / span, 0.0), 1.0)


def extent(values: Sequence[float], *, margin: float = 0.0) -> tuple[float, float]:
    """The range of the finite values, wider by a share of itself at both ends; 0..1 without any."""
    known = finite(values)
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low == high:
        return _around(low)
    more = (high - low) * margin
    if not math.isfinite(high - low + 2 * more):
        return low, high
    return low - more, high + more


def cosine_extent(values: Sequence[float]) -> tuple[float, float]:
    """From a round value under the lowest cosine to 1.

    A few that lie far below all others are left under the axis: they would press the others together at its top.
    """
    lost = sorted((1 - min(max(value, -1.0), 1.0) for value in finite(values)), reverse=True)
    most = lost[0] if lost else 0.0
    if len(lost) >= _FEWEST_FOR_OUTLIERS:
        ordinary = 2 * lost[int(len(lost) * _ORDINARY)]
        if 0 < ordinary < most / 2:
            most = ordinary
    return 1.0 - round_up(max(most, 1e-5), _COSINE_FACTORS), 1.0


def _around(value: float) -> tuple[float, float]:
    half = abs(value) / 2 or 0.5
    low, high = value - half, value + half
    return (low, high) if low < value < high and math.isfinite(high - low) else (value, value)
