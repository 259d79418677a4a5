"""Marks on the rows of the layer table: what an edit acts on."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from engine.summaries import LayerSummary
from rknn_tui.palette import Palette
from rknn_tui.symbols import Symbols
from rknn_tui.widgets.layer_table import LayerTable


class MarkableLayers(LayerTable):
    """A layer table whose layers can be marked, alone, by what they have in common, and from here to there."""

    def __init__(self, palette: Palette, symbols: Symbols, *, limit: float, bar_from: float) -> None:
        super().__init__(palette, symbols, limit=limit, bar_from=bar_from)
        self._marks: set[int] = set()
        # The layer at which the open range starts.
        self._anchor: int | None = None

    @property
    def marked(self) -> tuple[str, ...]:
        """The names of the marked layers, in the order of the file."""
        return tuple(self.table[place].name for place in sorted(self._marked_places()))

    @property
    def range_open(self) -> bool:
        """Whether the rows up to the cursor count as marked."""
        return self._anchor is not None

    def selection(self) -> tuple[LayerSummary, ...]:
        """What an edit acts on: the marked layers, else those of the folded block or the layer under the cursor.

        An open range ends with that.
        """
        self.close_range()
        places: Collection[int] = self._marks
        if not places and self.row_count:
            places = self._rows.places(self.cursor)
        return tuple(self.table[place] for place in sorted(places))

    def toggle_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away."""
        if self.row_count:
            places = self._rows.places(self.cursor)
            with self.changing_marks():
                if self._marks.issuperset(places):
                    self._marks.difference_update(places)
                else:
                    self._marks.update(places)

    def mark_range(self) -> None:
        """Start a range at the cursor, or end the open one: the rows between are marked."""
        if self._anchor is not None:
            self.close_range()
        elif self.row_count:
            with self.changing_marks():
                self._anchor = self._rows.places(self.cursor)[0]

    def close_range(self) -> None:
        """Let the open range be marks like others."""
        if self._anchor is not None:
            with self.changing_marks():
                self._marks = self._marked_places()
                self._anchor = None

    def mark_same_op(self) -> None:
        """Mark the shown layers with the operator of the cursor's."""
        if layer := self.current:
            self._mark(place for place in self._shown_places() if self.table[place].op == layer.op)

    def mark_same_type(self) -> None:
        """Mark the shown layers with the precision of the cursor's."""
        if layer := self.current:
            precision = self._value(self._places[layer.name]).precision
            self._mark(place for place in self._shown_places() if self._value(place).precision == precision)

    def mark_block(self) -> bool:
        """Mark the layers of the innermost block around the cursor; False where there is none."""
        block = self.around
        if block is None:
            return False
        self._mark(self._rows.block_places(block))
        return True

    def clear_marks(self) -> None:
        """Take all marks away, and end an open range."""
        with self.changing_marks():
            self._marks = set()
            self._anchor = None

    def marked_row(self, row: int) -> bool:
        if self._anchor is not None and row in self._open_rows():
            return True
        return bool(self._marks) and not self._marks.isdisjoint(self._rows.places(row))

    def move_to(self, row: int) -> None:
        if self._anchor is None:
            super().move_to(row)
        else:
            with self.changing_marks():
                super().move_to(row)

    def _mark(self, places: Iterable[int]) -> None:
        with self.changing_marks():
            self._marks.update(places)

    def _marked_places(self) -> set[int]:
        return self._marks.union(*(self._rows.places(row) for row in self._open_rows()))

    def _open_rows(self) -> range:
        anchor = -1 if self._anchor is None else self._rows.row_of(self._anchor)
        return range(0) if anchor < 0 else range(min(anchor, self.cursor), max(anchor, self.cursor) + 1)
