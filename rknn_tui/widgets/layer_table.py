"""The layer table's rows: what stands in them, in which columns, and which cells are drawn when it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.cells import cell_len
from textual.message import Message

from engine.summaries import LayerSummary
from rknn_tui.graph.blocks import Block
from rknn_tui.graph.columns import TITLES, Column, columns, lane_cap
from rknn_tui.graph.graph_rows import GraphRows
from rknn_tui.graph.layer_cells import bar_piece, number_piece, precision_pieces, summary, with_precision
from rknn_tui.graph.layer_values import NOTHING, LayerValues
from rknn_tui.graph.ordering import descending
from rknn_tui.palette import Palette
from rknn_tui.pieces import Line, Piece
from rknn_tui.symbols import Symbols, drawable, fit
from rknn_tui.widgets.marked_list import MarkedList

_CELLS = {"single": 7, "share": 5, "time": 5, "memory": 4, "measured": 6, "board": 8}
"""Cells of the numbers that have no column while none of them is known."""
_RIGHT = ("index", "cosine", "single", "share", "time", "memory", "measured", "board")
_PARTED = len("int8+float16*")


class LayerTable(MarkedList):
    """Shows the rows of a GraphRows. Cosines below `limit` carry a `!`; `bar_from` is the cosine of an empty bar."""

    class HeaderChanged(Message):
        """The columns are others now, or at other places."""

    def __init__(self, palette: Palette, symbols: Symbols, *, limit: float, bar_from: float) -> None:
        super().__init__(palette, symbols)
        self.limit = limit
        self.bar_from = bar_from
        self.table: Sequence[LayerSummary] = ()
        self.by_name: Mapping[str, LayerSummary] = {}
        self.values: dict[str, LayerValues] = {}
        self.sorting: tuple[str, bool] | None = None
        """By what the rows are sorted, and whether the other way round; None in the order of the graph."""
        self.awaited: frozenset[str] = frozenset()
        """The columns that have room although no number of theirs is known yet."""
        self._rows = GraphRows(())
        self._places: Mapping[str, int] = {}
        self._longest: dict[str, int] = {}
        # How many layers have a number of each kind: see _known.
        self._known: Counter[str] = Counter()
        self._columns: tuple[Column, ...] = ()
        self._header: Line = ()

    @property
    def row_count(self) -> int:
        return len(self._rows.rows)

    @property
    def current(self) -> LayerSummary | None:
        """The layer under the cursor, the first one of a folded block; None where no row is shown."""
        return self.table[self._rows.places(self.cursor)[0]] if self.row_count else None

    @property
    def block(self) -> Block | None:
        """The folded block under the cursor."""
        return self._rows.block(self.cursor) if self.row_count else None

    @property
    def around(self) -> Block | None:
        """The folded block under the cursor, or the innermost that holds the layer there."""
        return self._rows.block_around(self.cursor) if self.row_count else None

    @property
    def layers_shown(self) -> int:
        """How many layers the rows stand for."""
        # Blocks fold only where no layer is left out.
        return self.row_count if self._rows.filtered else len(self.table)

    def shown_layers(self) -> tuple[LayerSummary, ...]:
        """The layers that the rows stand for, from above to below."""
        return tuple(self.table[place] for place in self._shown_places())

    def find_row(self, name: str) -> int | None:
        """The row that shows a layer, alone or in its folded block; None where none does."""
        place = self._places.get(name)
        row = -1 if place is None else self._rows.row_of(place)
        return row if row >= 0 else None

    def readers_of(self, name: str) -> tuple[str, ...]:
        """The names of the layers that read what a layer makes."""
        place = self._places.get(name)
        return () if place is None else tuple(self.table[reader].name for reader in self._rows.readers(place))

    def update_values(self, changes: Mapping[str, LayerValues]) -> None:
        """Other numbers for some layers: their rows stay where they are, and only changed cells are drawn."""
        found = {name: value for name, value in changes.items() if name in self._places}
        all_others = len(found) == len(self.table)
        for name, value in () if all_others else found.items():
            self._known.subtract(_known(self.values.get(name, NOTHING)))
            self._known.update(_known(value))
        self.values.update(found)
        if all_others:
            self._known = self._counted()
        if self._measure() or all_others:
            self.redraw_changes()
        else:
            self.redraw_rows(sorted({self._rows.row_of(self._places[name]) for name in found}))

    def header(self) -> Line:
        """The columns' titles; an arrow shows by which the rows are sorted."""
        line: list[Piece] = [("  ", "muted")]
        for column in self._columns:
            title = column.title if len(column.title) <= column.width else ""
            # Over the digits: behind them is a cell for a flag.
            title = f"{title} " if column.id == "cosine" and len(title) < column.width else title
            title = title.rjust(column.width) if column.id in _RIGHT else title.ljust(column.width)
            line += [(title, "muted"), (" ", "text")]
        return line[:-1]

    def row_line(self, row: int) -> Line:
        places, block = self._rows.places(row), self._rows.block(row)
        layer = self.table[places[0]]
        values = self._value(places[0]) if block is None else summary(map(self._value, places))
        line: list[Piece] = []
        for column in self._columns:
            line += self._cell(column, row, layer, block, values)
            line.append((" ", "text"))
        return line[:-1]

    def on_resize(self) -> None:
        self._rows.use_cap(lane_cap(self.size.width))
        self._measure()
        super().on_resize()

    def _use(self, layers: Sequence[LayerSummary], values: Mapping[str, LayerValues], rows: GraphRows) -> None:
        self.table, self._rows = layers, rows
        self.by_name = {layer.name: layer for layer in layers}
        self._places = {layer.name: place for place, layer in enumerate(layers)}
        self.values = {layer.name: values[layer.name] for layer in layers if layer.name in values}
        self._known = self._counted()
        # Not kept up with later edits: a column that grows would draw the whole screen anew for one key.
        parted = any("+" in layer.precision for layer in layers) or self._known["parted"]
        self._longest = {
            "index": len(str(max((layer.index for layer in layers), default=0))),
            "op": max((cell_len(layer.op) for layer in layers), default=0),
            "name": max((cell_len(layer.name) for layer in layers), default=0),
            "shape": max((len(self._shape(layer)) for layer in layers), default=0),
            "precision": _PARTED if parted else 0,
        }
        rows.use_cap(lane_cap(self.size.width))

    def _counted(self) -> Counter[str]:
        return Counter(word for value in self.values.values() for word in _known(value))

    def _rearrange(self, change: Callable[[], object], place: int | None = None) -> bool:
        """Do what may change the rows, with the cursor staying on its layer, or going to `place`; whether it did."""
        rows = self._rows
        if place is None and rows.rows:
            place = rows.places(self.cursor)[0]
        before = rows.rows, rows.order, rows.filtered, rows.sorted
        change()
        measured = self._measure()
        changed = (rows.rows, rows.order, rows.filtered, rows.sorted) != before
        if changed or measured:
            self.reset(self._nearest_row(place))
        return changed

    def _nearest_row(self, place: int | None) -> int:
        """The row of a layer, else that of the next layer that is shown, else the last row."""
        if place is None or place >= len(self.table):
            return 0
        if self._rows.sorted:
            return max(self._rows.row_of(place), 0)
        shown = (row for other in range(place, len(self.table)) if (row := self._rows.row_of(other)) >= 0)
        return next(shown, self.row_count - 1)

    def _shown_places(self) -> Iterator[int]:
        return (place for row in range(self.row_count) for place in self._rows.places(row))

    def _value(self, place: int) -> LayerValues:
        layer = self.table[place]
        return with_precision(self.values.get(layer.name, NOTHING), layer.precision)

    def _measure(self) -> bool:
        """Choose the columns for the rows and the width that there are; whether they are others now."""
        if not self.size.width:
            return False
        known = self._known
        mixed = 0 < known["unestimated"] < known["costed"]
        longest = self._longest | {
            name: cells for name, cells in _CELLS.items() if known[name] > 0 or name in self.awaited
        }
        longest |= {name: longest[name] + mixed for name in ("time", "memory") if name in longest}
        longest["lanes"] = self._rows.lane_cells
        if fold := self._rows.largest_fold:
            longest["op"] = max(longest["op"], len(self._folded(fold)))
        found = columns(self.size.width, longest, self._titles())
        changed, self._columns = found != self._columns, found
        header = self.header()
        if header != self._header:
            self._header = header
            self.post_message(self.HeaderChanged())
        return changed

    def _titles(self) -> dict[str, str]:
        titles: dict[str, str] = {}
        if self._known["cosine"] > 0:
            titles["bar"] = f"{self.bar_from:g}".lstrip("0") + f"{self.symbols.rule}1"
        if not self._known["unestimated"] > 0:
            titles |= {"time": "~ms", "memory": "~mem"}
        if self._known["old"] > 0:
            titles["measured"] = "old ms"
        if self.sorting is not None:
            key, reverse = self.sorting
            name = "precision" if key == "type" else key
            arrow = self.symbols.down if descending(key, reverse) else self.symbols.up
            titles[name] = titles.get(name, TITLES[name]) + arrow
        return titles

    def _cell(
        self, column: Column, row: int, layer: LayerSummary, block: Block | None, values: LayerValues
    ) -> list[Piece]:
        width, symbols = column.width, self.symbols
        if column.id == "lanes":
            return self._graph(row, width)
        if column.id == "precision":
            return precision_pieces(values.precision, values.changed, width)
        if column.id == "bar":
            return [bar_piece(values, self.bar_from, self.limit, width, unicode=symbols.unicode)]
        if column.id == "name":
            if block is not None:
                told = any(other.id == "op" for other in self._columns)
                name = self._block_name(block) if told else f"{symbols.folded} {self._block_name(block)}"
                return [(fit(name, width, symbols), "title")]
            return [(fit(drawable(layer.name, symbols), width, symbols, keep_end=True), "text")]
        if column.id == "op":
            text = layer.op if block is None else self._folded(block.size)
            if block is not None and len(text) > width:
                text = text.replace(" ", "", 1) if len(text) == width + 1 else text.removesuffix(" layers")
            return [(fit(drawable(text, symbols), width, symbols), "text")]
        if column.id == "shape":
            return [(fit(self._shape(layer) if block is None else "", width, symbols), "muted")]
        if column.id == "index":
            return [(str(layer.index).rjust(width), "muted")]
        estimated = not self._known["unestimated"] > 0
        text, role = number_piece(column.id, values, self.limit, all_estimated=estimated)
        return [(fit(text.rjust(width), width, symbols), role)]

    def _graph(self, row: int, width: int) -> list[Piece]:
        lanes, at = self._rows.lanes, self._rows.lane_row(row)
        text, node, used = lanes.text(at, self.symbols), 2 * lanes.nodes[at], lanes.used(at)
        stubs = lanes.stub_text(at, width - used - 1, self._rows.label)
        rail, strong = ("muted", "muted") if self._rows.filtered else ("lane", "text")
        after = text[node + 1 : used] + (" " if stubs else "")
        blank = " " * (width - node - 1 - len(after) - len(stubs))
        return [(text[:node], rail), (text[node], strong), (after, rail), (stubs + blank, strong)]

    def _folded(self, layers: int) -> str:
        return f"{self.symbols.folded} {layers} layers"

    def _block_name(self, block: Block) -> str:
        name = block.name
        if not self.symbols.unicode:
            name = name.translate(str.maketrans("·×…", self.symbols.dot + self.symbols.times + self.symbols.ellipsis))
        return drawable(name, self.symbols)

    def _shape(self, layer: LayerSummary) -> str:
        return self.symbols.times.join(map(str, layer.shape))


def _known(values: LayerValues) -> list[str]:
    """The kinds of numbers that are there; 'costed': a time or memory, 'unestimated': and it is no estimate; 'old': a
    measured time from before the last edits."""
    numbers = {
        "cosine": values.entire,
        "single": values.single,
        "share": values.share,
        "time": values.milliseconds,
        "memory": values.bytes,
        "measured": values.measured,
        "board": values.board,
    }
    words = [name for name, number in numbers.items() if number == number]
    if "time" in words or "memory" in words:
        words.append("costed")
        if not values.estimated:
            words.append("unestimated")
    if "measured" in words and values.measured_old:
        words.append("old")
    if "+" in values.precision:
        words.append("parted")
    return words
