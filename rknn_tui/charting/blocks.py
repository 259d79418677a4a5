"""Columns of block characters, side by side: heights as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_PLAIN = " .:-=+*#"


def stacked(heights: Sequence[float], rows: int, *, unicode: bool = True, sign: str = "") -> list[str]:
    """Columns of these heights (0..1) in `rows` lines, the uppermost first; only 0 or less is nothing at all.

    `sign` fills whole cells with one character instead of eighths.
    """
    steps = 8 if unicode and not sign else 1
    most = rows * steps
    filled = [
        max(1, min(round(height * most), most)) if math.isfinite(height) and height > 0 else 0 for height in heights
    ]
    full = sign or ("█" if unicode else "#")
    lines = []
    for row in range(rows - 1, -1, -1):
        parts = [min(max(cells - row * steps, 0), steps) for cells in filled]
        lines.append("".join(full if part == steps else _EIGHTHS[part] if steps == 8 else " " for part in parts))
    return lines


def row_of_columns(counts: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """A histogram in one line of at most `width` cells. Heights go by the square root, so that rare values are seen."""
    heights = gathered(counts, min(width, len(counts)))
    largest = max(heights, default=0.0)
    if not largest > 0 or not math.isfinite(largest):
        return " " * len(heights)
    levels = _EIGHTHS if unicode else _PLAIN
    last = len(levels) - 1
    return "".join(levels[max(1, round(math.sqrt(value / largest) * last)) if value > 0 else 0] for value in heights)


def gathered(counts: Sequence[float], places: int) -> list[float]:
    """Bins of equal width as `places` bins over the same range: counts that a border cuts are shared out."""
    if places < 1 or not counts:
        return []
    sums = [0.0]
    for count in counts:
        sums.append(sums[-1] + max(float(count), 0.0))
    bins = len(counts)

    def up_to(edge: float) -> float:
        whole = min(int(edge), bins)
        return sums[whole] + (sums[whole + 1] - sums[whole]) * (edge - whole) if whole < bins else sums[bins]

    edges = [up_to(bins * place / places) for place in range(places + 1)]
    return [max(after - before, 0.0) for before, after in pairwise(edges)]
