"""How a cosine looks in a row: as digits, and as a bar of eighth blocks."""

from __future__ import annotations

_EIGHTHS = " ▏▎▍▌▋▊▉"


def digits(cosine: float) -> str:
    """Five decimals, as the toolkit prints, but never rounded up to a perfect 1; blank for NaN."""
    if cosine != cosine:
        return ""
    return f"{min(cosine, 0.99999) if cosine < 1 else cosine:.5f}"


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
