"""Where the movement keys lead in a list."""

from __future__ import annotations

from collections.abc import Callable

from rknn_tui.widgets.marked_list import MarkedList

MOVES: dict[str, Callable[[MarkedList], int]] = {
    "down": lambda rows: rows.cursor + 1,
    "up": lambda rows: rows.cursor - 1,
    "half_page_down": lambda rows: rows.cursor + max(rows.page // 2, 1),
    "half_page_up": lambda rows: rows.cursor - max(rows.page // 2, 1),
    "page_down": lambda rows: rows.cursor + rows.page,
    "page_up": lambda rows: rows.cursor - rows.page,
    "first": lambda rows: 0,
    "last": lambda rows: rows.row_count - 1,
}
"""By action id, the row to go to; the list keeps it within its ends."""
