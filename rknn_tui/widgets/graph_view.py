"""The layer table: one row a layer, in execution order, with precision and accuracy beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from engine.summaries import LayerError, LayerSummary
from rknn_tui.bars import bar, digits
from rknn_tui.columns import Column, columns
from rknn_tui.filters import Test, cosine
from rknn_tui.palette import ROLES, Palette
from rknn_tui.pieces import Line, Piece
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.widgets.marked_list import MarkedList


class GraphView(MarkedList):
    """Shows the layers that pass the filter. Values below `limit` carry a `!`."""

    def __init__(self, palette: Palette, symbols: Symbols, *, limit: float, bar_from: float) -> None:
        super().__init__(palette, symbols)
        self.limit = limit
        self.bar_from = bar_from
        self.table: Sequence[LayerSummary] = ()
        self.errors: Mapping[str, LayerError] = {}
        self.rows: list[int] = []
        self._columns: tuple[Column, ...] = ()
        self._longest: Mapping[str, int] = {}
        self._test: Test | None = None

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def current(self) -> LayerSummary | None:
        """The layer under the cursor, or None when no layer is shown."""
        return self.table[self.rows[self.cursor]] if self.rows else None

    def show(self, layers: Sequence[LayerSummary], errors: Mapping[str, LayerError]) -> None:
        """Show a model's layers; where they are the same layers as before, only changed cells are drawn."""
        same = [layer.name for layer in layers] == [layer.name for layer in self.table]
        self.table, self.errors = layers, errors
        if not same:
            self._longest = {
                "index": len(str(max((layer.index for layer in layers), default=0))),
                "op": max((len(layer.op) for layer in layers), default=0),
                "name": max((cell_len(layer.name) for layer in layers), default=0),
                "shape": max((len(self._shape(layer)) for layer in layers), default=0),
            }
        if not same or self._test is not None:
            self.set_filter(self._test)
        else:
            self._measure()
            self.redraw_changes()

    def forget(self) -> None:
        """Show nothing, unfiltered, for another model to come."""
        self._test, self.rows, self._worst_row = None, [], -1
        self.show((), {})
        self.reset()

    def set_filter(self, test: Test | None) -> None:
        """Show only layers that pass, keeping the cursor on its layer, or the next that is still there."""
        current = self.rows[self.cursor] if self.rows else 0
        self._test = test
        self.rows = [
            place for place, layer in enumerate(self.table) if test is None or test(layer, self.errors.get(layer.name))
        ]
        self._measure()
        self.reset(next((row for row, place in enumerate(self.rows) if place >= current), len(self.rows) - 1))

    def next_bad(self, step: int) -> bool:
        """Go to the nearest layer below the limit, onwards (1) or backwards (-1); False when there is none."""
        row = self.cursor + step
        while 0 <= row < self.row_count:
            if cosine(self._error(row)) < self.limit:
                self.move_to(row)
                return True
            row += step
        return False

    def next_worst(self) -> tuple[int, int] | None:
        """Go to the worst layer, or from the n-th worst to the next: (its rank from 1, ranked layers), or None.

        The worst is the one with the lowest single cosine: after it, others are bad in the entire model without a fault
        of their own.
        """
        ranked = [row for row in range(self.row_count) if not math.isnan(_single(self._error(row)))]
        if not ranked:
            return None
        ranked.sort(key=lambda row: _single(self._error(row)))
        rank = ranked.index(self.cursor) + 1 if self.cursor in ranked and self._on_worst else 0
        rank %= len(ranked)
        self.move_to(ranked[rank])
        self._worst_row = ranked[rank]
        return rank + 1, len(ranked)

    _worst_row = -1

    @property
    def _on_worst(self) -> bool:
        return self.cursor == self._worst_row

    def header(self) -> Line:
        """The columns' titles."""
        return [("  ", "muted"), *self._cells({column.id: (column.title, "muted") for column in self._columns})]

    def row_line(self, row: int) -> Line:
        layer, error = self.table[self.rows[row]], self._error(row)
        entire, single = cosine(error), _single(error)
        bad = entire < self.limit
        precision = layer.precision
        finest = precision.rpartition("+")[2]
        texts: dict[str, Piece] = {
            "index": (str(layer.index), "muted"),
            "op": (layer.op, "text"),
            "name": (layer.name, "text"),
            "shape": (self._shape(layer), "muted"),
            "precision": (precision, finest if finest in ROLES else "text"),
            "cosine": (digits(entire) + ("!" if bad else " "), "bad" if bad else "text"),
            "single": (digits(single), "muted"),
        }
        for column in self._columns:
            if column.id == "bar":
                text = bar(entire, self.bar_from, 1.0, column.width, unicode=self.symbols.unicode)
                texts["bar"] = (text, "bad" if bad else "muted")
        return self._cells(texts)

    def on_resize(self) -> None:
        self._measure()
        super().on_resize()

    def _measure(self) -> None:
        low = f"{self.bar_from:g}".lstrip("0")
        title = f"{low}{self.symbols.rule}1" if self.errors else ""
        self._columns = columns(self.size.width, self._longest, bar_title=title)

    def _cells(self, texts: Mapping[str, Piece]) -> list[Piece]:
        pieces: list[Piece] = []
        for column in self._columns:
            text, role = texts[column.id]
            text = drawable(text, self.symbols)
            if column.id in ("index", "cosine", "single"):
                text = text.rjust(column.width)
            pieces += [(fit(text, column.width, self.symbols, keep_end=column.id == "name"), role), (" ", "text")]
        return pieces[:-1]

    def _shape(self, layer: LayerSummary) -> str:
        return self.symbols.times.join(map(str, layer.shape))

    def _error(self, row: int) -> LayerError | None:
        return self.errors.get(self.table[self.rows[row]].name)


def _single(error: LayerError | None) -> float:
    return math.nan if error is None or error.single is None else error.single.cosine
