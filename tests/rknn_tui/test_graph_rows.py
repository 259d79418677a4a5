"""Which rows the layer table has: orders, folds, filters, sorting, and the ways along the graph."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.summaries import LayerSummary
from rknn_tui.graph.graph_rows import ORDERS, GraphRows
from rknn_tui.graph.layer_cells import precision_pieces, summary
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.graph.ordering import SORT_KEYS, sorted_places
from rknn_tui.symbols import UNICODE
from tests.zoo import needs_zoo, onnx_models

TEXT = """
    Input   images
    Conv    a/p    images
    Conv    a/q    a/p
    Add     a/r    a/q a/p
    Split   b/s    a/r          2
    Conv    b/m/p  b/s
    Conv    b/m/q  b/m/p
    Concat  b/c    b/s:1 b/m/q
    Gemm    head   b/c a/p
"""


def layers_of(text: str = TEXT) -> tuple[LayerSummary, ...]:
    """A line a layer: operator, name, the tensors that it reads; a number at the end makes so many outputs."""
    found: list[LayerSummary] = []
    for index, line in enumerate(text.strip().splitlines()):
        op, name, *reads = line.split()
        outputs = 1
        if reads and reads[-1].isdecimal():
            outputs = int(reads.pop())
        made = (name, *(f"{name}:{number}" for number in range(1, outputs)))
        inputs = tuple(dict.fromkeys(read.partition(":")[0] for read in reads))
        found.append(LayerSummary(index, name, op, inputs, (1, 8, 4, 4), "float32", outputs=made, reads=tuple(reads)))
    return tuple(found)


def drawn(rows: GraphRows) -> list[str]:
    return [
        f"{rows.lanes.text(rows.lane_row(row), UNICODE).rstrip()} "
        + "+".join(rows.layers[place].name for place in rows.places(row))
        for row in range(len(rows.rows))
    ]


def rows_of(text: str = TEXT) -> GraphRows:
    rows = GraphRows(layers_of(text))
    rows.use_cap(6)
    return rows


def test_a_folded_block_is_one_row_that_reads_and_makes_what_goes_over_its_border() -> None:
    rows = rows_of()
    assert drawn(rows) == [
        "○ images",
        "● a/p",
        "├─● a/q",
        "├─● a/r",
        "│ ●─╮ b/s",
        "│ ● │ b/m/p",
        "│ ● │ b/m/q",
        "│ ●─╯ b/c",
        "◉─╯ head",
    ]
    assert rows.fold(5)
    assert drawn(rows)[4:6] == ["│ ●─╮ b/s", "│ ● │ b/m/p+b/m/q"]
    assert rows.fold(5)
    assert drawn(rows) == [
        "○ images",
        "● a/p",
        "├─● a/q",
        "├─● a/r",
        "│ ● b/s+b/m/p+b/m/q+b/c",
        "◉─╯ head",
    ]
    assert rows.fold(2)
    assert drawn(rows) == ["○ images", "●─╮ a/p+a/q+a/r", "│ ● b/s+b/m/p+b/m/q+b/c", "◉─╯ head"]
    assert not rows.fold(0)
    block = rows.block(2)
    assert block is not None
    assert (block.name, rows.block(3)) == ("b", None)
    assert rows.unfold(2)
    assert not rows.unfold(0)
    assert [row for row in drawn(rows) if "+" in row] == ["●─╮ a/p+a/q+a/r", "│ ● │ b/m/p+b/m/q"]
    assert rows.unfold_all()
    assert not rows.folded


def test_filters_and_sorting_undo_folds_for_as_long_as_they_last() -> None:
    rows = rows_of()
    assert rows.fold_all()
    rows.keep([2, 5, 6, 8])
    assert drawn(rows) == ["├─● a/q", "│ ● │ b/m/p", "│ ● │ b/m/q", "◉─╯ head"]
    assert rows.block(1) is None
    assert not rows.fold(1)
    assert not rows.unfold_all()
    rows.sort([8, 6, 7, 5, 4, 3, 2, 1, 0])
    assert [rows.places(row) for row in range(4)] == [[8], [6], [5], [2]]
    assert rows.lane_cells == 0
    rows.keep(None)
    rows.sort(None)
    assert [row.partition(" ")[2] for row in drawn(rows)[:2]] == ["images", "a/p+a/q+a/r"]


def test_revealing_a_layer_unfolds_just_what_hides_it() -> None:
    rows = rows_of()
    rows.fold_all()
    assert rows.reveal(5)
    assert [row for row in drawn(rows) if "+" in row] == ["●─╮ a/p+a/q+a/r"]
    assert rows.row_of(5) == 3
    assert not rows.reveal(0)


def test_ways_along_the_graph_lead_over_rows_that_are_left_out() -> None:
    rows = rows_of()
    assert (rows.producer(7), rows.reader(1)) == (4, 2)
    assert (rows.producer(0), rows.reader(8)) == (None, None)
    rows.keep([0, 1, 6, 8])
    assert [rows.producer(row) for row in range(4)] == [None, 0, 1, 1]
    assert [rows.reader(row) for row in range(4)] == [1, 3, 3, None]
    assert rows.readers(1) == [2, 3, 8]
    assert rows.readers(4) == [5, 7]


def test_stubs_lead_to_rows_that_are_shown() -> None:
    rows = GraphRows(layers_of())
    rows.use_cap(1)
    assert drawn(rows)[:3] == ["○ images", "● a/p", "● a/q"]
    assert rows.stub_rows(2) == [3, 8]
    assert rows.stub_rows(8) == [1]
    assert rows.label(8) == "8"
    rows.keep([1, 2, 8])
    assert [rows.stub_rows(row) for row in range(3)] == [[], [2], [0]]
    rows.sort([8, 2, *range(2), *range(3, 8)])
    assert rows.stub_rows(0) == []


def test_blocks_that_exist_in_both_orders_stay_folded() -> None:
    text = "\n".join(["Input x", *(f"Conv n{n}/a x" for n in range(3)), *(f"Conv n{n}/b n{n}/a" for n in range(3))])
    rows = rows_of(text + "\nConcat end n0/b n1/b n2/b")
    assert rows.blocks == ()
    rows.use_order("greedy")
    assert [block.name for block in rows.blocks] == ["n0", "n1", "n2"]
    rows.fold(1)
    assert drawn(rows)[1] == "├─● n0/a+n0/b"
    rows.use_order("file")
    assert not rows.folded
    assert len(rows.rows) == 8


def test_an_older_summary_without_tensors_is_read_by_its_layers_names() -> None:
    layers = [
        LayerSummary(index, name, "Conv", inputs, (1,), "float32")
        for index, (name, inputs) in enumerate([("a", ()), ("b", ("a",)), ("c", ("a", "b", "nowhere"))])
    ]
    rows = GraphRows(layers)
    rows.use_cap(6)
    assert drawn(rows) == ["○ a", "├─● b", "◉─╯ c"]


@st.composite
def models(draw: st.DrawFn) -> tuple[LayerSummary, ...]:
    names = ["x", "a/m.0/p", "a/m.0/q", "a/m.1/p", "a/r", "b/s", "b/t", "c", "d/u", "d/v"]
    count = draw(st.integers(1, len(names)))
    lines = []
    for place in range(count):
        reads = draw(st.lists(st.sampled_from(names[:place]), max_size=3, unique=True)) if place else []
        lines.append(f"{draw(st.sampled_from(['Conv', 'Add', 'Mul']))} {names[place]} {' '.join(reads)}")
    return layers_of("\n".join(lines))


@given(
    models(), st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["fold", "unfold", "order", "all"])), max_size=8)
)
def test_every_layer_is_in_one_row_whatever_is_folded(
    layers: tuple[LayerSummary, ...], steps: list[tuple[int, str]]
) -> None:
    rows = GraphRows(layers)
    rows.use_cap(3)
    for number, step in steps:
        row = number % len(rows.rows)
        if step == "fold":
            rows.fold(row)
        elif step == "unfold":
            rows.unfold(row)
        elif step == "all":
            rows.fold_all()
        else:
            rows.use_order("greedy" if rows.order == "file" else "file")
        places = [place for row in range(len(rows.rows)) for place in rows.places(row)]
        assert sorted(places) == list(range(len(layers)))
        for row in range(len(rows.rows)):
            assert {rows.row_of(place) for place in rows.places(row)} == {row}
            block = rows.block(row)
            assert (block is None) == (len(rows.places(row)) == 1)
            assert block is None or rows.block_places(block) == rows.places(row)
            assert len(rows.lanes.text(rows.lane_row(row), UNICODE)) <= rows.lane_cells
        assert len(rows.lanes.nodes) == len(rows.rows)


@given(st.lists(st.floats(allow_infinity=False), max_size=12), st.sampled_from(SORT_KEYS), st.booleans())
def test_sorting_keeps_all_layers_and_puts_unknown_numbers_last(numbers: list[float], key: str, reverse: bool) -> None:
    layers = [LayerSummary(n, f"l{n}", f"op{n % 3}", (), (1,), "float32") for n in range(len(numbers))]
    values = {
        layer.name: LayerValues(entire=number, single=number, share=number, milliseconds=number, bytes=number)
        for layer, number in zip(layers, numbers, strict=True)
    }
    places = sorted_places(layers, values, key, reverse=reverse)
    assert sorted(places) == list(range(len(layers)))
    known = [not math.isnan(numbers[place]) for place in places]
    if key in ("cosine", "single", "share", "time", "memory"):
        assert known == sorted(known, reverse=True)
        found = [numbers[place] for place in places if not math.isnan(numbers[place])]
        rising = (key in ("cosine", "single")) != reverse
        assert found == sorted(found, reverse=not rising)


@pytest.mark.parametrize(
    ("precision", "changed", "texts"),
    [
        ("int8", False, ["int8         ", "int8    ", "int8  "]),
        ("float16", True, ["float16*     ", "float16*", "fp16* "]),
        ("float16", False, ["float16      ", "float16 ", "fp16  "]),
        ("int8+float16", True, ["int8+float16*", "i8+fp16*", "8+f16*"]),
        ("int8+int16+float16", True, ["i8+i16+fp16* ", "i8+i16+f16*", "8+16+f16*", "mixed*  ", "mixed*"]),
    ],
)
def test_a_precision_is_shortened_to_its_column(precision: str, changed: bool, texts: list[str]) -> None:
    for text in texts:
        pieces = precision_pieces(precision, changed, len(text))
        assert "".join(piece for piece, _ in pieces) == text
        assert ("*", "changed") in pieces or not changed


def test_a_block_shows_its_worst_cosine_its_precisions_and_its_sums() -> None:
    parts = [
        LayerValues("int8", entire=0.99, single=0.9, share=0.1, milliseconds=0.2, bytes=100, estimated=False),
        LayerValues("float16", changed=True, entire=0.95, share=0.2, milliseconds=0.3, stale=True),
        LayerValues("int8+float16", fused=True),
    ]
    values = summary(parts)
    assert (values.precision, values.changed, values.stale, values.fused) == ("int8+float16", True, True, False)
    assert (values.entire, values.single, values.estimated) == (0.95, 0.9, True)
    assert values.share == pytest.approx(0.3)
    assert (values.milliseconds, values.bytes) == (pytest.approx(0.5), 100)
    several = [LayerValues(bytes=100), LayerValues(bytes=300), LayerValues(bytes=200, expected=True)]
    assert (summary(several).bytes, summary(several).expected) == (300, True), "the most that is in use at once"
    assert math.isnan(summary([LayerValues()]).milliseconds)


@needs_zoo
@pytest.mark.parametrize(
    ("model", "size", "lanes", "live"),
    [
        ("ch_PP-OCRv4_det_infer", [1, 3, 480, 480], 5, 6),
        ("ch_ppocr_mobile_v2.0_cls_infer", [1, 3, 48, 192], 3, 4),
    ],
)
def test_real_models_need_few_lanes_in_either_order(model: str, size: list[int], lanes: int, live: int) -> None:
    from engine.session import Session

    path = next(path for path in onnx_models() if path.parent.name == model)
    rows = GraphRows(Session().load_onnx(path, ["x"], [size]).layers)
    rows.use_cap(6)
    for order in ORDERS:
        rows.use_order(order)
        assert (rows.lanes.width, rows.lanes.cuts, max(rows.lanes.lives)) == (lanes, 0, live)
        assert {row for row in range(len(rows.rows)) if not rows.lanes.readers(row)} == {len(rows.rows) - 1}
    rows.fold_all()
    assert len(rows.rows) < len(rows.layers) / 2
