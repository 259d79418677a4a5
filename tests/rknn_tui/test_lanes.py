"""The graph beside the rows: what is drawn says exactly what the graph is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rknn_tui.graph.lanes import Lanes, greedy_order, layout
from rknn_tui.symbols import ASCII, UNICODE, Symbols

Graph = tuple[list[list[int]], list[list[int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Rows that read near and far values, several or none, and make 0 to 3, some of which nobody reads."""
    reads: list[list[int]] = []
    makes: list[list[int]] = []
    count = 0
    for _ in range(draw(st.integers(1, 24))):
        near = st.integers(max(count - 3, 0), max(count - 1, 0))
        far = st.integers(0, max(count - 1, 0))
        reads.append(draw(st.lists(near | far, max_size=4)) if count else [])
        outputs = draw(st.sampled_from([1, 1, 1, 2, 3, 0]))
        makes.append(list(range(count, count + outputs)))
        count += outputs
    return reads, makes


def drawn(lanes: Lanes, symbols: Symbols = UNICODE) -> list[str]:
    """Every row's drawing with its stubs."""
    count = len(lanes.nodes)
    return [f"{lanes.text(row, symbols)} {lanes.stub_text(row, 99)}".rstrip() for row in range(count)]


def rails_of(texts: Sequence[str], symbols: Symbols) -> dict[tuple[int, int], list[int]]:
    """Reads the drawing alone: for each rail, by the row and the lane where it starts, the rows that join it."""
    readers: dict[tuple[int, int], list[int]] = {}
    above: dict[int, tuple[int, int]] = {}
    for row, text in enumerate(texts):
        below: dict[int, tuple[int, int]] = {}
        involved = []
        for lane, sign in enumerate(text[::2]):
            node = sign in (symbols.node, symbols.input, symbols.output, symbols.cut)
            if node or sign in symbols.joins + symbols.last_reads + symbols.starts:
                involved.append(lane)
            if sign in symbols.joins + symbols.last_reads or (node and lane in above):
                assert sign != symbols.input
                readers[above[lane]].append(row)
            if sign in symbols.joins + symbols.rail:
                below[lane] = above[lane]
            elif sign in symbols.starts + symbols.node + symbols.input:
                assert node or lane not in above
                below[lane] = (row, lane)
                readers[row, lane] = []
            else:
                assert lane not in above or sign in symbols.last_reads or node, "a rail breaks off"
        first, last = involved[0], involved[-1]
        for lane, gap in enumerate(text[1::2]):
            assert gap == (symbols.across if first <= lane < last else " ")
        above = below
    assert not above
    return readers


def edges_of(lanes: Lanes, symbols: Symbols) -> list[Counter[tuple[int, ...]]]:
    """For every row, how often a value with these readers leaves it, as drawn: by a rail, by stubs or by both."""
    texts = [lanes.text(row, symbols) for row in range(len(lanes.nodes))]
    rails = rails_of(texts, symbols)
    stubs = {row: lanes.stubs(row) for row in range(len(texts))}
    down = Counter((stub.value, stub.row) for found in stubs.values() for stub in found if not stub.up)
    up = Counter((stub.value, row) for row, found in stubs.items() for stub in found if stub.up)
    assert down == up
    assert not down or set(down.values()) == {1}
    makers = {value: row for row, values in enumerate(lanes.makes) for value in values}
    for found in stubs.values():
        assert all(stub.row == makers[stub.value] for stub in found if stub.up)
    by_row: list[Counter[tuple[int, ...]]] = [Counter() for _ in texts]
    for (row, _), readers in rails.items():
        assert readers
        by_row[row][tuple(readers)] += 1
    for value in {value for value, _ in down}:
        far = sorted(reader for cut, reader in down if cut == value)
        near = tuple(reader for reader in lanes.uses[value] if reader < far[0])
        if near:
            by_row[makers[value]][near] -= 1
        by_row[makers[value]][(*near, *far)] += 1
    return [+counter for counter in by_row]


@settings(max_examples=400)
@given(graphs(), st.integers(1, 8) | st.just(1000))
def test_reading_the_drawing_gives_the_graph(graph: Graph, cap: int) -> None:
    reads, makes = graph
    lanes = layout(reads, makes, cap)
    assert lanes.width <= cap
    expected = []
    for values in makes:
        uses = [tuple(row for row, found in enumerate(reads) if value in found) for value in values]
        expected.append(Counter(found for found in uses if found))
    for symbols in (UNICODE, ASCII):
        assert edges_of(lanes, symbols) == expected
    if cap == 1000:
        assert lanes.cuts == 0


@given(graphs(), st.integers(1, 8))
def test_plain_signs_stand_for_the_same_cells(graph: Graph, cap: int) -> None:
    lanes = layout(*graph, cap)
    plain = {getattr(UNICODE, name): getattr(ASCII, name) for name in ("node", "input", "output", "cut", "rail")}
    plain |= {UNICODE.across: ASCII.across, " ": " "}
    for name in ("joins", "last_reads", "starts"):
        plain |= dict(zip(getattr(UNICODE, name), getattr(ASCII, name), strict=True))
    for row in range(len(lanes.nodes)):
        text = lanes.text(row, UNICODE)
        assert len(text) == 2 * lanes.width - 1
        assert len(text.rstrip()) <= lanes.used(row) <= len(text)
        assert "".join(plain[sign] for sign in text) == lanes.text(row, ASCII)


@given(graphs(), st.integers(1, 6))
def test_joined_cells_point_to_their_neighbours(graph: Graph, cap: int) -> None:
    lanes = layout(*graph, cap)
    to_left, to_right = set("┤┼╯┴╮┬─"), set("├┼╰┴╭┬─")
    nodes = set("●○◉◆")
    for row in range(len(lanes.nodes)):
        text = f" {lanes.text(row, UNICODE)} "
        for left, right in pairwise(text):
            joined_left, joined_right = left in to_right, right in to_left
            if left == "│" or right == "│" or left in nodes or right in nodes:
                continue
            assert joined_left == joined_right, text


@given(graphs(), st.integers(1, 5), st.integers(0, 12))
def test_stubs_keep_to_their_room_and_say_when_there_are_more(graph: Graph, cap: int, room: int) -> None:
    lanes = layout(*graph, cap)
    cut = False
    for row in range(len(lanes.nodes)):
        stubs = lanes.stubs(row)
        cut = cut or bool(stubs)
        text = lanes.stub_text(row, room)
        assert len(text) <= room
        shown = text.rstrip("+").split()
        whole = [("^" if stub.up else "v") + str(stub.row) for stub in stubs]
        assert set(shown) <= set(whole)
        assert text.endswith("+") == (len(shown) < len(stubs) and room > 0)
        assert bool(lanes.stub_text(row, 99)) == bool(stubs)
        if stubs:
            assert lanes.stub_text(row, lanes.stub_room() - lanes.used(row) - 1).startswith(whole[0])
    assert (lanes.cuts > 0) == cut == (lanes.stub_room() > 0)


@given(graphs())
def test_neighbours_and_live_values_are_the_graphs_own(graph: Graph) -> None:
    reads, makes = graph
    lanes = layout(reads, makes, 2)
    made_by = {value: row for row, values in enumerate(makes) for value in values}
    for row in range(len(reads)):
        assert lanes.producers(row) == list(dict.fromkeys(made_by[value] for value in reads[row]))
        assert lanes.readers(row) == [
            reader for reader in range(len(reads)) if any(value in reads[reader] for value in makes[row])
        ]
        last = {value: max((r for r, found in enumerate(reads) if value in found), default=-1) for value in made_by}
        assert lanes.live(row) == sum(1 for value, maker in made_by.items() if maker <= row <= last[value])


@given(graphs())
def test_the_greedy_order_has_every_row_once_and_readers_after_makers(graph: Graph) -> None:
    reads, makes = graph
    order = greedy_order(reads, makes)
    assert sorted(order) == list(range(len(reads)))
    made: set[int] = set()
    for row in order:
        assert made.issuperset(reads[row])
        made.update(makes[row])


def test_the_greedy_order_ends_a_branch_before_it_starts_the_next() -> None:
    # Four branches of two rows each, given breadth first, joined by a last row.
    reads = [[], [0], [0], [0], [0], [1], [2], [3], [4], [5, 6, 7, 8]]
    makes = [[row] for row in range(10)]
    order = greedy_order(reads, makes)
    assert order == [0, 1, 5, 2, 6, 3, 7, 4, 8, 9]
    by_file = layout(reads, makes, 99)
    greedy = layout([reads[row] for row in order], [makes[row] for row in order], 99)
    assert (by_file.width, greedy.width) == (4, 4)
    assert sum(map(greedy.live, range(10))) < sum(map(by_file.live, range(10)))


def test_a_residual_block() -> None:
    reads = [[], [0], [1], [2], [1, 3], [4]]
    makes = [[row] for row in range(6)]
    assert drawn(layout(reads, makes, 6)) == [
        "○",
        "●",
        "├─●",
        "│ ●",
        "●─╯",
        "◉",
    ]
    assert drawn(layout(reads, makes, 6), ASCII) == [
        "o",
        "*",
        "+-*",
        "| *",
        "*-'",
        "@",
    ]


def test_a_split_with_a_lane_for_each_part_and_a_concat() -> None:
    """The C2f block: a Split in two, two residual bottlenecks, and everything joined again."""
    reads = [[], [0], [1], [3], [4], [3, 5], [6], [7], [6, 8], [2, 3, 6, 9], [10]]
    makes = [[0], [1], [2, 3], [4], [5], [6], [7], [8], [9], [10], [11]]
    assert drawn(layout(reads, makes, 6)) == [
        "○",
        "●",
        "●─╮",
        "│ ├─●",
        "│ │ ●",
        "│ ├─●",
        "│ │ ├─●",
        "│ │ │ ●",
        "│ │ ├─●",
        "●─┴─┴─╯",
        "◉",
    ]


def test_a_rail_that_is_crossed_is_not_joined() -> None:
    reads = [[], [0], [0], [0], [1, 3], [2, 4]]
    makes = [[row] for row in range(6)]
    lanes = layout(reads, makes, 6)
    assert drawn(lanes) == [
        "○",
        "├─●",
        "├─│─●",
        "● │ │",
        "●─╯ │",
        "◉───╯",
    ]
    assert drawn(lanes, ASCII)[2] == "+-|-*"


def test_over_the_cap_the_value_needed_last_is_named_at_both_ends() -> None:
    """A detection head: four branches kept for the end, more than there are lanes."""
    reads = [[], [0], [0], [2], [0], [4], [0], [6], [1, 3, 5, 7], [8]]
    makes = [[row] for row in range(10)]
    assert drawn(layout(reads, makes, 99)) == [
        "○",
        "├─●",
        "├─│─●",
        "│ │ ●",
        "├─│─│─●",
        "│ │ │ ●",
        "● │ │ │",
        "● │ │ │",
        "●─┴─┴─╯",
        "◉",
    ]
    lanes = layout(reads, makes, 3)
    assert drawn(lanes) == [
        "○",
        "├─●",
        "├─│─●",
        "│ │ ◆ v8",
        "├─│─●",
        "│ │ ●",
        "● │ │",
        "● │ │",
        "●─┴─╯ ^3",
        "◉",
    ]
    assert [stub.row for stub in lanes.stubs(3)] == [8]
    assert [stub.row for stub in lanes.stubs(8)] == [3]
    assert lanes.readers(3) == [8]


def test_a_value_cut_after_a_reader_names_all_later_readers() -> None:
    reads = [[], [0], [1], [0, 2], [3], [0, 4], [0, 5]]
    makes = [[row] for row in range(7)]
    lanes = layout(reads, makes, 1)
    assert drawn(lanes) == ["○", "● v3+", "●", "● ^0", "●", "● ^0", "◉ ^0"]
    assert [stub.row for stub in lanes.stubs(1)] == [3, 5, 6]
    assert lanes.readers(0) == [1, 3, 5, 6]


@pytest.mark.parametrize("cap", [1, 6])
def test_no_rows_and_rows_without_values(cap: int) -> None:
    assert layout([], [], cap).width == 0
    assert drawn(layout([[], []], [[], [0]], cap)) == ["◉", "◉"]


def test_labels_name_the_rows_as_they_are_shown() -> None:
    lanes = layout([[], [0], [0], [2], [1, 3]], [[row] for row in range(5)], 1)
    assert [lanes.stub_text(row, 99) for row in range(5)] == ["", "v2 v4", "^0", "", "^1"]
    assert lanes.stub_text(4, 20, lambda row: f"{row + 100}") == "^101"
    assert lanes.stub_text(1, 20, lambda row: f"{row + 100}") == "v102 v104"
    assert lanes.stub_text(1, 6, lambda row: f"{row + 100}") == "v102+"
    assert lanes.stub_text(1, 3, lambda row: f"{row + 100}") == "+"
