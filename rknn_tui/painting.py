"""How changed cells go to the terminal: only those, where Textual sends a line from the start of its widget."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from textual._compositor import ChopsUpdate


class CellsUpdate(ChopsUpdate):
    """The paint of some regions.

    Textual leaves out what is right of a changed cell, but not what is left of it in the same widget: a new number at
    the end of a table's row would cost the whole row.
    """

    def render_segments(self, console: Console) -> str:
        parts: list[str] = []
        for y, first, after in self.spans:
            for end, (start, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or start >= after or end <= first:
                    continue
                left, right = max(first, start), min(after, end)
                # Half of a wide character cannot be drawn: where there are any, the line is drawn from its start.
                if left > start and len(strip.text) != strip.cell_length:
                    left = start
                if (left, right) != (start, end):
                    strip = strip.crop(left - start, right - start)
                parts.append(f"\x1b[{y + 1};{left + 1}H{strip.render(console)}")
        return "".join(parts)


def exact(update: Any) -> Any:
    """What Textual wants to paint, in as few bytes as its regions need."""
    if type(update) is ChopsUpdate:
        return CellsUpdate(update.chops, update.spans, update.chop_ends)
    return update
