"""Which rows the layer table has: the order of layers, folded blocks, what is filtered or sorted, and the lanes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.summaries import LayerSummary
from rknn_tui.graph.blocks import Block, find_blocks
from rknn_tui.graph.lanes import Lanes, greedy_order, layout

ORDERS = ("file", "greedy")
"""Rows as the model runs its layers, or so that few values are live at a time."""


class GraphRows:
    """The rows of a model, each a layer or a folded block.

    A layer's *place* is its index in `layers`, its *position* the one in the chosen order, its *row* where it is shown
    now. While layers are filtered or sorted, folds are undone.
    """

    def __init__(self, layers: Sequence[LayerSummary]) -> None:
        self.layers = layers
        self.order = ORDERS[0]
        self.rows: list[tuple[int, int]] = []
        """The first and last position of each row."""
        self._reads, self._makes = _values(layers)
        self._places = list(range(len(layers)))
        self._positions = self._places
        self._greedy: list[int] | None = None
        self._cap = 1
        self._folded: set[Block] = set()
        self._kept: Sequence[int] | None = None
        self._sorted: Sequence[int] | None = None
        self._row_of: list[int] = []
        self._block_rows: dict[int, Block] = {}
        self._blocks: tuple[Block, ...] | None = None
        self._names: list[tuple[str, ...]] | None = None
        self._lanes: Lanes | None = None
        self._plain_lanes: Lanes | None = None
        self._arrange()

    @property
    def filtered(self) -> bool:
        """Whether some layers may be left out."""
        return self._kept is not None

    @property
    def sorted(self) -> bool:
        """Whether the rows follow numbers or names rather than the graph."""
        return self._sorted is not None

    @property
    def folding(self) -> bool:
        """Whether blocks can be folded now."""
        return not self.filtered and not self.sorted

    @property
    def folded(self) -> bool:
        """Whether a block is folded, or would be without the filter or the sorting."""
        return bool(self._folded)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks in the chosen order, by positions."""
        if self._blocks is None:
            layers = [self.layers[place] for place in self._places]
            self._blocks = find_blocks(
                [layer.name for layer in layers], [layer.op for layer in layers], [layer.index for layer in layers]
            )
        return self._blocks

    @property
    def lanes(self) -> Lanes:
        """The lanes of the rows, or of all layers where they are filtered or sorted: see `lane_row`."""
        if not self.folding or not self._folded:
            if self._plain_lanes is None:
                reads = [self._reads[place] for place in self._places]
                makes = [self._makes[place] for place in self._places]
                self._plain_lanes = layout(reads, makes, self._cap)
            return self._plain_lanes
        if self._lanes is None:
            self._lanes = layout(*self._folded_values(), self._cap)
        return self._lanes

    def lane_row(self, row: int) -> int:
        """The row of `lanes` that belongs to a row."""
        return row if self.folding else self.rows[row][0]

    def label(self, lane_row: int) -> str:
        """What a row of `lanes` is called: the index of its first layer."""
        position = self.rows[lane_row][0] if self.folding else lane_row
        return str(self.layers[self._places[position]].index)

    @property
    def lane_cells(self) -> int:
        """Cells that the graph needs; 0 where the rows do not follow it."""
        if self.sorted or not self.layers:
            return 0
        return max(2 * self.lanes.width - 1, self.lanes.stub_room(self.label))

    @property
    def largest_fold(self) -> int:
        """How many layers the largest folded row has; 0 where none is."""
        return max((block.size for block in self._block_rows.values()), default=0)

    # Rows and layers

    def places(self, row: int) -> Sequence[int]:
        """The layers of a row, in their order."""
        first, last = self.rows[row]
        return self._places[first : last + 1]

    def row_of(self, place: int) -> int:
        """The row that shows a layer, alone or in its block; -1 where none does."""
        return self._row_of[self._positions[place]]

    def block(self, row: int) -> Block | None:
        """The folded block of a row, None for a layer."""
        return self._block_rows.get(row)

    def block_around(self, row: int) -> Block | None:
        """The folded block of a row, or the innermost that holds its layer."""
        return self.block(row) or self._outside(row)

    def block_places(self, block: Block) -> Sequence[int]:
        """The layers of a block."""
        return self._places[block.first : block.last + 1]

    def block_names(self) -> Sequence[tuple[str, ...]]:
        """By place, the names (in lower case) of the blocks that hold a layer."""
        if self._names is None:
            names: list[tuple[str, ...]] = [()] * len(self.layers)
            for block in self.blocks:
                for place in self.block_places(block):
                    names[place] = (*names[place], block.name.lower())
            self._names = names
        return self._names

    def producer(self, row: int) -> int | None:
        """The row that makes what a row reads first; where that is not shown, the nearest above it that is."""
        return self._along(row, upwards=True)

    def reader(self, row: int) -> int | None:
        """The first row that reads what a row makes; where that is not shown, the nearest below it that is."""
        return self._along(row, upwards=False)

    def readers(self, place: int) -> list[int]:
        """The layers that read what a layer makes, in the order of the file."""
        made = set(self._makes[place])
        return [other for other, values in enumerate(self._reads) if not made.isdisjoint(values)]

    def stub_rows(self, row: int) -> list[int]:
        """The rows at the other ends of the edges that are cut at a row, as far as they are shown."""
        if self.sorted:
            return []
        found = [stub.row for stub in self.lanes.stubs(self.lane_row(row))]
        return list(
            dict.fromkeys(found if self.folding else [r for r in map(self._row_of.__getitem__, found) if r >= 0])
        )

    # What is shown

    def use_cap(self, cap: int) -> bool:
        """Give the graph at most so many lanes; whether that is a change."""
        if cap == self._cap:
            return False
        self._cap = cap
        self._lanes = self._plain_lanes = None
        return True

    def use_order(self, order: str) -> None:
        """Show the rows in one of ORDERS; blocks that are blocks in this order too stay folded."""
        if order == self.order:
            return
        self.order = order
        count = len(self.layers)
        if order != ORDERS[0] and self._greedy is None:
            self._greedy = greedy_order(self._reads, self._makes)
        self._places = list(range(count)) if order == ORDERS[0] or self._greedy is None else self._greedy
        self._positions = [0] * count
        for position, place in enumerate(self._places):
            self._positions[place] = position
        self._lanes = self._plain_lanes = self._blocks = self._names = None
        names = {block.name for block in self._folded}
        self._folded = {block for block in self.blocks if block.name in names} if names else set()
        self._arrange()

    def keep(self, places: Sequence[int] | None) -> None:
        """Show only these layers, or all (None)."""
        self._kept = places
        self._arrange()

    def sort(self, places: Sequence[int] | None) -> None:
        """Show the layers in this order, or in that of the graph (None)."""
        if places is self._sorted is None:
            return
        self._sorted = places
        self._arrange()

    def fold(self, row: int) -> bool:
        """Fold the innermost block around a row; False where there is none."""
        block = self._outside(row) if self.folding else None
        if block is None:
            return False
        self._fold(self._folded | {block})
        return True

    def unfold(self, row: int) -> bool:
        """Unfold the block of a row; False where it is none."""
        block = self.block(row)
        if block is None:
            return False
        self._fold(self._folded - {block})
        return True

    def fold_all(self) -> bool:
        """Fold every block, in others too; False where there are none."""
        if not self.folding or not self.blocks:
            return False
        self._fold(set(self.blocks))
        return True

    def unfold_all(self) -> bool:
        """Unfold every block; False where none is folded."""
        if not self.folding or not self._folded:
            return False
        self._fold(set())
        return True

    def reveal(self, place: int) -> bool:
        """Unfold the blocks that hide a layer; whether the rows changed."""
        position = self._positions[place]
        hiding = {block for block in self._folded if block.first <= position <= block.last}
        if not hiding or not self.folding:
            return False
        self._fold(self._folded - hiding)
        return True

    def _fold(self, folded: set[Block]) -> None:
        self._folded = folded
        self._lanes = None
        self._arrange()

    def _outside(self, row: int) -> Block | None:
        first, last = self.rows[row]
        alone = first == last
        around = [
            block
            for block in self.blocks
            if block.first <= first and last <= block.last and (alone or block.last - block.first > last - first)
        ]
        return around[-1] if around else None

    def _arrange(self) -> None:
        count = len(self.layers)
        self._row_of = [-1] * count
        self._block_rows = {}
        if self.folding:
            self.rows = []
            folded = sorted(self._folded, key=lambda block: (block.first, -block.last))
            position = 0
            for block in [*folded, None]:
                until = block.first if block is not None else count
                if until < position:
                    continue
                self.rows += [(p, p) for p in range(position, until)]
                if block is not None:
                    self._block_rows[len(self.rows)] = block
                    self.rows.append((block.first, block.last))
                    position = block.last + 1
            for row, (first, last) in enumerate(self.rows):
                self._row_of[first : last + 1] = [row] * (last + 1 - first)
            return
        places: Iterable[int] = self._places if self._sorted is None else self._sorted
        if self._kept is not None:
            kept = set(self._kept)
            places = [place for place in places if place in kept]
        self.rows = [(self._positions[place],) * 2 for place in places]
        for row, (position, _) in enumerate(self.rows):
            self._row_of[position] = row

    def _folded_values(self) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        reads: list[Sequence[int]] = []
        makes: list[Sequence[int]] = []
        for first, last in self.rows:
            places = self._places[first : last + 1]
            made = [value for place in places for value in self._makes[place]]
            inside = set(made) if last > first else set()
            reads.append([value for place in places for value in self._reads[place] if value not in inside])
            makes.append(made)
        return reads, makes

    def _along(self, row: int, *, upwards: bool) -> int | None:
        lanes, at = self.lanes, self.lane_row(row)
        while True:
            ends = lanes.producers(at) if upwards else lanes.readers(at)
            if not ends:
                return None
            if self.folding:
                return ends[0]
            shown = [self._row_of[position] for position in ends if self._row_of[position] >= 0]
            if shown:
                return shown[0]
            at = ends[0]


def _values(layers: Sequence[LayerSummary]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Numbers for the tensors that the layers read and make; what no layer above makes is left out."""
    numbers: dict[str, int] = {}
    count = 0
    reads: list[Sequence[int]] = []
    makes: list[Sequence[int]] = []
    for layer in layers:
        reads.append([numbers[name] for name in layer.reads or layer.inputs if name in numbers])
        outputs = layer.outputs or (layer.name,)
        makes.append(range(count, count + len(outputs)))
        numbers.update(zip(outputs, makes[-1], strict=True))
        count += len(outputs)
    return reads, makes
