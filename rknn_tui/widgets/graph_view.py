"""The layer table of a model: filtered, sorted, folded, and walked along the graph that stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.summaries import LayerSummary
from rknn_tui.graph.filters import Subject, Test
from rknn_tui.graph.graph_rows import ORDERS, GraphRows
from rknn_tui.graph.layer_values import NOTHING, LayerValues
from rknn_tui.graph.ordering import SORT_KEYS, sorted_places
from rknn_tui.palette import Palette
from rknn_tui.symbols import Symbols
from rknn_tui.widgets.layer_marks import MarkableLayers


class GraphView(MarkableLayers):
    """Shows a model's layers. Filters, sorting and folds take effect at once; new numbers alone never move rows."""

    def __init__(self, palette: Palette, symbols: Symbols, *, limit: float, bar_from: float) -> None:
        super().__init__(palette, symbols, limit=limit, bar_from=bar_from)
        self._test: Test | None = None
        self._last_test: Test | None = None
        # What filters look at, made when the first is typed.
        self._subjects: list[Subject] = []
        # By row, which of its cut edges was followed last.
        self._jumps: dict[int, int] = {}
        self._worst = -1

    @property
    def order(self) -> str:
        """Which of ORDERS the rows are in."""
        return self._rows.order

    @property
    def filtered(self) -> bool:
        """Whether a filter is in force."""
        return self._test is not None

    @property
    def folded(self) -> bool:
        """Whether any block is folded."""
        return self._rows.folded

    def matching(self, test: Test) -> tuple[LayerSummary, ...]:
        """The layers of the model that pass a test."""
        return tuple(self.table[place] for place in self._passing(test))

    def mark_matching(self, test: Test) -> None:
        """Mark all layers of the model that pass a test."""
        self._mark(self._passing(test))

    def show(self, layers: Sequence[LayerSummary], values: Mapping[str, LayerValues]) -> None:
        """Show a model's layers; where they are the same as before, only changed cells are drawn.

        With other layers, folds and marks are gone, while the order, the filter and the sorting stay.
        """
        rows, here = self._rows, self.current
        same = _same(layers, self.table)
        if same:
            rows.layers = layers
        else:
            rows = GraphRows(layers)
            rows.use_order(self.order)
            self._marks, self._anchor, self._worst = set(), None, -1
            self._jumps.clear()
        self._use(layers, values, rows)
        self._subjects = []
        if same and self._test is None and self.sorting is None:
            self._measure()
            self.redraw_changes()
            return
        self._filter_and_sort()
        self._measure()
        self.reset(self._nearest_row(self._places.get(here.name, 0) if here is not None else None))

    def update_values(self, changes: Mapping[str, LayerValues]) -> None:
        for name in changes if self._subjects else ():
            if (place := self._places.get(name)) is not None:
                self._subjects[place].values = changes[name]
        super().update_values(changes)

    def forget(self) -> None:
        """Show nothing, unfiltered and unsorted, for another model to come."""
        self._test = self._last_test = self.sorting = None
        self.show((), {})

    # Which rows

    def set_filter(self, test: Test | None, near: str = "") -> None:
        """Show only layers that pass, keeping the cursor on its layer, or the next that is still there.

        near: the layer to stay at instead of the cursor's, such as that from which a filter is being typed.
        """
        self._test = test
        if test is not None:
            self._last_test = test
        self._arrange(self._places.get(near))

    def sort_by(self, key: str | None, reverse: bool = False) -> None:
        """Sort by one of SORT_KEYS and go to the first row, or back to the graph (None, 'graph'): see `sorted_places`.

        The graph is not drawn beside sorted rows, and blocks are not folded.
        """
        self.sorting = (key, reverse) if key is not None and key in SORT_KEYS else None
        self._arrange()
        if self.sorting is not None:
            self.move_to(0)

    def reverse_sort(self) -> bool:
        """Turn sorted rows round; False in the order of the graph."""
        if self.sorting is None:
            return False
        self.sort_by(self.sorting[0], not self.sorting[1])
        return True

    def use_order(self, order: str) -> None:
        """Show the rows in the order of the 'file', in which they run, or 'greedy', with few lanes."""
        self._rearrange(lambda: self._rows.use_order(order))

    def next_order(self) -> str:
        """Show the rows in the other order, and tell which."""
        self.use_order(ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)])
        return self.order

    def fold(self) -> bool:
        """Fold the innermost block around the cursor; on a folded block the next one out. False where there is none."""
        return self._refold(lambda: self._rows.fold(self.cursor))

    def unfold(self) -> bool:
        """Unfold the block under the cursor; False where it is none."""
        return self._refold(lambda: self._rows.unfold(self.cursor))

    def toggle_fold(self) -> bool:
        """Unfold the block under the cursor, or fold the innermost around it; False where there is none."""
        return self.unfold() or self.fold()

    def fold_all(self) -> bool:
        """Fold every block; False where there are none, or rows are filtered or sorted."""
        return self._refold(self._rows.fold_all)

    def unfold_all(self) -> bool:
        """Unfold every block; False where none is folded."""
        return self._refold(self._rows.unfold_all)

    def toggle_fold_all(self) -> bool:
        """Unfold every block where one is folded, else fold them all; False where there are none."""
        return self.unfold_all() or self.fold_all()

    def _refold(self, change: Callable[[], bool]) -> bool:
        if not self.row_count or not self._rearrange(change):
            return False
        self._jumps.clear()
        return True

    def _arrange(self, place: int | None = None) -> None:
        self._rearrange(self._filter_and_sort, place)
        self._jumps.clear()

    def _filter_and_sort(self) -> None:
        self._rows.keep(None if self._test is None else self._passing(self._test))
        sorting = self.sorting
        places = None if sorting is None else sorted_places(self.table, self.values, sorting[0], reverse=sorting[1])
        self._rows.sort(places)

    def _passing(self, test: Test) -> list[int]:
        if not self._subjects:
            self._subjects = [
                Subject(layer, layer.name.lower(), layer.op.lower(), self.values.get(layer.name, NOTHING), self.limit)
                for layer in self.table
            ]
        if test.asks_marks:
            marked = self._marked_places()
            for place, subject in enumerate(self._subjects):
                subject.marked = place in marked
        if test.asks_blocks:
            for subject, names in zip(self._subjects, self._rows.block_names(), strict=True):
                subject.blocks = names
        passes = test.passes
        return [place for place, subject in enumerate(self._subjects) if passes(subject)]

    # Ways through the rows

    def select_layer(self, name: str) -> bool:
        """Put the cursor on a layer; its block is unfolded, and the filter given up, where they hide it.

        False when the model has no such layer.
        """
        place = self._places.get(name)
        if place is None:
            return False
        self._reveal(place)
        return True

    def next_bad(self, step: int) -> bool:
        """Go to the nearest row below the limit, onwards (1) or backwards (-1); False when there is none."""
        row = self.cursor + step
        while 0 <= row < self.row_count:
            names = (self.table[place].name for place in self._rows.places(row))
            if any(self.values.get(name, NOTHING).entire < self.limit for name in names):
                self.move_to(row)
                return True
            row += step
        return False

    def next_match(self, step: int) -> bool:
        """Go to the nearest row that passes the last filter, which may be cleared by now; False when there is none."""
        if self._last_test is None:
            return False
        passing = set(self._passing(self._last_test))
        row = self.cursor + step
        while 0 <= row < self.row_count:
            if not passing.isdisjoint(self._rows.places(row)):
                self.move_to(row)
                return True
            row += step
        return False

    def next_worst(self) -> tuple[int, int] | None:
        """Go to the worst layer, or from the n-th worst to the next: (its rank from 1, ranked layers), or None.

        The worst is the one with the largest share of the outputs' error, where shares are known, else the one with
        the lowest single cosine: after it, others are bad in the entire model without a fault of their own.
        """
        key = "share" if self._known["share"] > 0 else "single"
        known = sorted_places(self.table, self.values, key)[: self._known[key]]
        ranked = [place for place in known if self._rows.row_of(place) >= 0]
        if not ranked:
            return None
        here = self._worst in ranked and self._rows.row_of(self._worst) == self.cursor
        rank = (ranked.index(self._worst) + 1) % len(ranked) if here else 0
        self._worst = ranked[rank]
        self._reveal(self._worst)
        return rank + 1, len(ranked)

    def walk(self, step: int) -> bool:
        """Go along an edge: to the layer that is read first (-1), or to the first that reads (1); False at the ends."""
        if not self.row_count:
            return False
        row = self._rows.producer(self.cursor) if step < 0 else self._rows.reader(self.cursor)
        if row is None:
            return False
        self.move_to(row)
        return True

    def jump_stub(self) -> bool:
        """Go to the other end of an edge that is cut here, next time to that of the next; False where none is."""
        rows = self._rows.stub_rows(self.cursor) if self.row_count else []
        if not rows:
            return False
        here = self.cursor
        turn = self._jumps.get(here, 0)
        self._jumps[here] = turn + 1
        self.move_to(rows[turn % len(rows)])
        return True

    def _reveal(self, place: int) -> None:
        if self._rows.row_of(place) < 0:
            self.set_filter(None)
        if self._rows.reveal(place):
            self._jumps.clear()
            self._measure()
            self.reset(self._rows.row_of(place))
        self.move_to(self._rows.row_of(place))


def _same(layers: Sequence[LayerSummary], others: Sequence[LayerSummary]) -> bool:
    """Whether the rows and the graph look the same, whatever the precisions."""
    return len(layers) == len(others) and all(
        one is other or (one.name, one.op, one.shape, one.reads) == (other.name, other.op, other.shape, other.reads)
        for one, other in zip(layers, others, strict=True)
    )
