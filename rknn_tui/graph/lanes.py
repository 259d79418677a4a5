"""The graph beside the rows: which lane each live value takes, what is drawn in each row, and a good order of rows."""

from __future__ import annotations

import dataclasses
import heapq
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from rknn_tui.symbols import Symbols


@dataclasses.dataclass(frozen=True)
class Stub:
    """One end of an edge that is cut: the row at its other end, above (`up`) or below, and the edge's value."""

    row: int
    up: bool
    value: int


@dataclasses.dataclass(frozen=True)
class Lanes:
    """Rails, nodes and joins of each row. Bit n of a mask stands for lane n, counted from the left.

    width: lanes that the widest row takes. nodes: each row's own lane. above: the lanes with a rail that comes from
    the row above; one entry more than rows, so that `above[row + 1]` are the rails that leave a row downwards. joined:
    the lanes that the row reads. makers: value to row. uses: value to the rows that read it. reads, makes: as given,
    without repetitions. lives: see `live`. ups: row to the values that it reads although their rails are cut. downs:
    row to the values whose rails end there although they are read further down.

    A rail belongs to one value from the row that makes it to its last reader. Only in the node's own lane may one value
    end and another begin.
    """

    width: int
    nodes: Sequence[int]
    above: Sequence[int]
    joined: Sequence[int]
    reads: Sequence[Sequence[int]]
    makes: Sequence[Sequence[int]]
    makers: Sequence[int]
    uses: Sequence[Sequence[int]]
    lives: Sequence[int]
    ups: dict[int, list[int]]
    downs: dict[int, list[int]]

    def text(self, row: int, symbols: Symbols) -> str:
        """The row's drawing in exactly 2 * width - 1 cells; lane n is cell 2n.

        A node has a rail below it unless it is drawn as an end (nobody reads what it makes) or as cut (somebody does,
        but a stub says where). A rail that is crossed keeps its own sign, so that crossing never looks like joining.
        """
        node, above, below, joined = self.nodes[row], self.above[row], self.above[row + 1], self.joined[row]
        involved = joined | 1 << node | below & ~above
        first, last = (involved & -involved).bit_length() - 1, involved.bit_length() - 1
        cells: list[str] = []
        for lane in range(self.width):
            bit = 1 << lane
            if lane:
                cells.append(symbols.across if first < lane <= last else " ")
            if lane == node:
                cells.append(self._node(row, symbols))
            elif involved & bit:
                signs = symbols.starts if not above & bit else symbols.joins if below & bit else symbols.last_reads
                # Joined to the right, to the left, to both sides.
                cells.append(signs[0 if lane == first else 1 if lane == last else 2])
            elif above & bit:
                cells.append(symbols.rail)
            else:
                cells.append(symbols.across if first < lane < last else " ")
        return "".join(cells)

    def _node(self, row: int, symbols: Symbols) -> str:
        if not self.above[row + 1] >> self.nodes[row] & 1:
            return symbols.cut if any(self.uses[value] for value in self.makes[row]) else symbols.output
        return symbols.node if self.reads[row] else symbols.input

    def used(self, row: int) -> int:
        """Cells of the row's drawing up to the last that is not blank."""
        return 2 * (self.above[row] | self.above[row + 1] | 1 << self.nodes[row]).bit_length() - 1

    def stubs(self, row: int) -> tuple[Stub, ...]:
        """The other ends of the edges cut at this row: first the makers of what it reads, then readers below."""
        found = [Stub(self.makers[value], True, value) for value in self.ups.get(row, ())]
        for value in self.downs.get(row, ()):
            uses = self.uses[value]
            found += [Stub(use, False, value) for use in uses[bisect_right(uses, row) :]]
        return tuple(found)

    def stub_text(self, row: int, room: int, label: Callable[[int], str] = str) -> str:
        """The row's stubs as '^12 v153' in at most `room` cells, with a '+' where not all are shown.

        Of a value that has several readers below, the first is shown. `label` tells what a row is called.
        """
        stubs = self.stubs(row)
        text, hidden = "", len(stubs)
        for place, stub in enumerate(stubs):
            if place and stub.value == stubs[place - 1].value:
                continue
            part = ("^" if stub.up else "v") + label(stub.row)
            longer = f"{text} {part}" if text else part
            if len(longer) + (hidden > 1) > room:
                break
            text, hidden = longer, hidden - 1
        return text + "+" if hidden and len(text) < room else text

    def stub_room(self, label: Callable[[int], str] = str) -> int:
        """Cells in which every row's drawing, a blank and its first stub can be shown; 0 where nothing is cut."""
        room = 0
        for row in self.ups.keys() | self.downs.keys():
            stubs = self.stubs(row)
            text = 1 + len(label(stubs[0].row)) + (len(stubs) > 1)
            room = max(room, self.used(row) + 1 + text)
        return room

    @property
    def cuts(self) -> int:
        """How many values have a cut rail."""
        return sum(map(len, self.downs.values()))

    def live(self, row: int) -> int:
        """Values that have to be kept while the row runs: read here or below, or made here and read."""
        return self.lives[row]

    def producers(self, row: int) -> list[int]:
        """The rows that make what the row reads, in the order in which it reads."""
        return list(dict.fromkeys(self.makers[value] for value in self.reads[row]))

    def readers(self, row: int) -> list[int]:
        """The rows that read what the row makes, from above to below."""
        return sorted({use for value in self.makes[row] for use in self.uses[value]})


def layout(reads: Sequence[Sequence[int]], makes: Sequence[Sequence[int]], cap: int) -> Lanes:
    """Lanes for rows in the order in which they are shown, at most `cap` (from 1 on).

    `reads` and `makes` are each row's values, numbered from 0 on. One row makes a value, above all that read it. The
    node takes the lane of a value that it reads last, else the lowest free one, as a compiler gives out registers.
    Where there are too few, the rail whose next use is farthest ends where it was last touched; whoever reads its
    value further down has a stub.
    """
    scan = _Layout(reads, makes, max(cap, 1))
    lanes = scan.run()
    # Once it is known which rails end early, others can take their lanes.
    return scan.run() if lanes.downs else lanes


class _Layout:
    """The scan from the first row to the last; `ends` keeps from one to the next where each value's rail ends."""

    def __init__(self, reads: Sequence[Sequence[int]], makes: Sequence[Sequence[int]], cap: int) -> None:
        self.reads = [values if len(values) < 2 else tuple(dict.fromkeys(values)) for values in reads]
        self.makes = makes
        count = max((max(values) for values in makes if values), default=-1) + 1
        self.makers = [-1] * count
        self.uses: list[list[int]] = [[] for _ in range(count)]
        for row, values in enumerate(makes):
            for value in values:
                self.makers[value] = row
        for row, values in enumerate(self.reads):
            for value in values:
                self.uses[value].append(row)
        self.ends = [uses[-1] if uses else -1 for uses in self.uses]
        self.all = (1 << min(cap, count + 1)) - 1

    def _start(self) -> None:
        # Each value's lane, -1 while or once it has none; each lane's value, which counts while the lane is in `above`.
        self.lanes = [-1] * len(self.makers)
        self.held = [-1] * self.all.bit_length()
        # The last row in which a value was made or joined.
        self.touched = self.makers.copy()
        self.above = [0] * (len(self.makes) + 1)
        self.ups: dict[int, list[int]] = {}
        self.downs: dict[int, list[int]] = {}

    def run(self) -> Lanes:
        self._start()
        above, uses, lanes, ends = self.above, self.uses, self.lanes, self.ends
        nodes: list[int] = []
        joins: list[int] = []
        for row, values in enumerate(self.reads):
            joined = dying = 0
            for value in values:
                lane = lanes[value]
                if lane < 0:
                    self.ups.setdefault(row, []).append(value)
                    continue
                joined |= 1 << lane
                self.touched[value] = row
                if ends[value] == row:
                    dying |= 1 << lane
                    if uses[value][-1] > row:
                        self._leave(row, value)
            if not dying and above[row] == self.all:
                dying = self._make_room(row, joined)
            node = dying & -dying or ~above[row] & (above[row] + 1)
            made = 0
            for value in self.makes[row]:
                if ends[value] > row:
                    made |= self._begin(row, value, node, joined, made)
                elif ends[value] == row:
                    self._leave(row, value)
            above[row + 1] = above[row] & ~dying | made
            nodes.append(node.bit_length() - 1)
            joins.append(joined)
        width = 0
        for row, lane in enumerate(nodes):
            width |= above[row] | 1 << lane
        return Lanes(
            width=width.bit_length(),
            nodes=nodes,
            above=above,
            joined=joins,
            reads=self.reads,
            makes=self.makes,
            makers=self.makers,
            uses=uses,
            lives=self._lives(),
            ups=self.ups,
            downs=self.downs,
        )

    def _begin(self, row: int, value: int, node: int, joined: int, made: int) -> int:
        """The lane (as a mask) that a value made in this row gets; 0 when it is the one that gets none."""
        if not made:
            free = node
        else:
            # Only cells with nothing from above: where one value ends and another begins, a join would look like both.
            taken = self.above[row] | node | made
            free = ~taken & (taken + 1) & self.all
        if not free:
            first = self.uses[value][0]
            lane, use = self._farthest(row, self.above[row] & ~joined | made)
            if use <= first:
                self._leave(row, value)
                return 0
            self._cut(row, lane)
            free = 1 << lane
        self.lanes[value] = free.bit_length() - 1
        self.held[self.lanes[value]] = value
        return free

    def _make_room(self, row: int, joined: int) -> int:
        """Cut a rail so that the row's node has a cell; the lane (as a mask) when the row itself joins it last."""
        lane, _ = self._farthest(row, self.all)
        self._cut(row, lane)
        return joined & 1 << lane

    def _farthest(self, row: int, candidates: int) -> tuple[int, int]:
        """Of these lanes the one whose value is needed last again, and in which row that is; -1 where there is none."""
        best, farthest = -1, -1
        for lane in range(candidates.bit_length()):
            if candidates >> lane & 1:
                uses = self.uses[self.held[lane]]
                use = uses[bisect_right(uses, row)]
                if use >= farthest:
                    best, farthest = lane, use
        return best, farthest

    def _cut(self, row: int, lane: int) -> None:
        """End a lane's rail where it was last touched: further down it would lead nowhere."""
        value = self.held[lane]
        last = self.touched[value]
        self._leave(last, value)
        for passed in range(last + 1, row + 1):
            self.above[passed] &= ~(1 << lane)

    def _leave(self, row: int, value: int) -> None:
        """Let a value's rail end in this row although the value is read further down."""
        self.lanes[value] = -1
        self.ends[value] = row
        self.downs.setdefault(row, []).append(value)

    def _lives(self) -> list[int]:
        changes = [0] * (len(self.makes) + 1)
        for maker, uses in zip(self.makers, self.uses, strict=True):
            if uses:
                changes[maker] += 1
                changes[uses[-1] + 1] -= 1
        return list(accumulate(changes[:-1]))


def greedy_order(reads: Sequence[Sequence[int]], makes: Sequence[Sequence[int]]) -> list[int]:
    """An order of rows, each after the makers of what it reads, in which few values are live at a time.

    Among the rows that are ready comes the one that frees most lanes, and among those the one that became ready last.
    """
    makers = {value: row for row, values in enumerate(makes) for value in values}
    readers: dict[int, list[int]] = {value: [] for value in makers}
    inputs = [tuple(dict.fromkeys(values)) for values in reads]
    missing = [0] * len(inputs)
    for row, values in enumerate(inputs):
        missing[row] = len(values)
        for value in values:
            readers[value].append(row)
    left = {value: len(rows) for value, rows in readers.items()}
    # What each row would free now: the values of which it is the last reader, less those that it makes.
    freed = [
        sum(1 for value in values if left[value] == 1) - sum(1 for value in makes[row] if left[value])
        for row, values in enumerate(inputs)
    ]
    serial = 0
    turn = [0] * len(inputs)
    heap: list[tuple[int, int, int]] = []

    def put(row: int) -> None:
        heapq.heappush(heap, (-freed[row], -turn[row], row))

    def ready(rows: Sequence[int]) -> None:
        nonlocal serial
        # Of rows that become ready together, the first of the file is taken first.
        for row in reversed(rows):
            serial += 1
            turn[row] = serial
            put(row)

    ready([row for row, count in enumerate(missing) if not count])
    order: list[int] = []
    done = [False] * len(inputs)
    while heap:
        _, _, row = heapq.heappop(heap)
        if done[row]:
            continue
        done[row] = True
        order.append(row)
        for value in inputs[row]:
            left[value] -= 1
            if left[value] == 1:
                last = next(reader for reader in readers[value] if not done[reader])
                freed[last] += 1
                if not missing[last]:
                    put(last)
        found: list[int] = []
        for value in makes[row]:
            for reader in readers[value]:
                missing[reader] -= 1
                if not missing[reader]:
                    found.append(reader)
        ready(sorted(found))
    return order
