"""How a layer's numbers look in a row: as digits in few cells, and as a bar of eighth blocks."""

from __future__ import annotations

import math

_EIGHTHS = " ▏▎▍▌▋▊▉"


def digits(cosine: float) -> str:
    """Five decimals, as the toolkit prints, but never rounded up to a perfect 1; blank for NaN."""
    if cosine != cosine:
        return ""
    return f"{min(cosine, 0.99999) if cosine < 1 else cosine:.5f}"


def flagged_digits(cosine: float, *, stale: bool = False, bad: bool = False) -> str:
    """A cosine (-1..1) in 8 cells: '~' before it when it is stale, '!' after it when it is bad; blank for NaN.

    A '~' and a sign take the place of the last decimals.
    """
    if cosine != cosine:
        return " " * 8
    before = "~" if stale else ""
    return f"{before}{digits(cosine)[: 7 - len(before)]}{'!' if bad else ' '}".rjust(8)


def percent(share: float) -> str:
    """A share (0..1) as '12.3%' in at most 5 cells; blank for NaN."""
    if share != share:
        return ""
    text = f"{100 * share:.1f}%"
    return text if len(text) <= 5 else f"{min(max(100 * share, -999), 9999):.0f}%"


def milliseconds(value: float, *, expected: bool = False) -> str:
    """A time in at most 5 cells, with three decimals where they fit, four below a microsecond; blank for NaN.

    A '~' before what is only expected takes the place of a leading 0, or of a decimal.
    """
    if not math.isfinite(value):
        return ""
    before = "~" if expected else ""
    if 0 < value < (0.9995 if expected else 0.001):
        return f"{before}{f'{value:.{4 - len(before)}f}'[1:]}"
    for decimals in (3, 2, 1):
        text = f"{before}{value:.{decimals}f}"
        if len(text) <= 5:
            return text
    return f"{before}{min(max(value, -9999), 99999):.0f}"[:5]


def size(value: float) -> str:
    """Bytes as '512B', '9.9K', '1.2M' (of 1024) in at most 4 cells; blank for NaN."""
    if not math.isfinite(value):
        return ""
    value = max(value, 0.0)
    for unit in "BKMG":
        if value < 9.95 and unit != "B":
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{min(value, 999):.0f}T"


def bar(value: float, low: float, high: float, width: int, *, unicode: bool = True) -> str:
    """A bar of exactly `width` cells for `value` in `low`..`high`; values outside are drawn at the ends, NaN as blank.

    Only a value of `high` or more fills the bar: whoever looks for a perfect layer is not misled by rounding.
    """
    if width <= 0 or value != value:
        return " " * max(width, 0)
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    if not unicode:
        full = int(share * width)
        return "#" * full + "." * (width - full)
    eighths = int(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
