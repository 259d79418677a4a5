"""The layer table as a widget: what it draws at which size, what a key repaints, marks, folds, sorting and filters."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from rich.style import Style
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from engine.summaries import LayerSummary
from rknn_tui.graph.filters import parse
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.palette import ROLES, Palette
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from rknn_tui.widgets.graph_view import GraphView

PALETTE = Palette("plain", True, True, {role: Style(color="red" if role == "bad" else None) for role in ROLES}, {})


class RecordedView(GraphView):
    """Remembers which regions it asked to be painted; None stands for everything."""

    def __init__(self, symbols: Symbols) -> None:
        super().__init__(PALETTE, symbols, limit=0.99, bar_from=0.95)
        self.painted: list[tuple[int, int, int, int] | None] = []

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> object:
        if hasattr(self, "painted"):
            self.painted += [tuple(region) for region in regions] or [None]
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def repainted(self) -> list[tuple[int, int, int, int] | None]:
        """What was painted since the last call: (x, y, width, height)."""
        found, self.painted = self.painted, []
        return found


class Tiny(App[None]):
    """Nothing but the table."""

    def __init__(self, symbols: Symbols = UNICODE) -> None:
        super().__init__()
        self.symbols = symbols
        self.headers = 0

    def compose(self) -> ComposeResult:
        yield RecordedView(self.symbols)

    def on_layer_table_header_changed(self) -> None:
        self.headers += 1


@contextlib.asynccontextmanager
async def view_of(
    layers: Sequence[LayerSummary],
    values: Mapping[str, LayerValues] | None = None,
    *,
    size: tuple[int, int] = (80, 24),
    symbols: Symbols = UNICODE,
) -> AsyncIterator[tuple[RecordedView, Pilot[None]]]:
    app = Tiny(symbols)
    async with app.run_test(size=size) as pilot:
        view = app.query_one(RecordedView)
        view.show(layers, values or {})
        await pilot.pause()
        view.repainted()
        yield view, pilot


def shown(view: GraphView) -> list[str]:
    """The lines on the screen that are not blank."""
    lines = (view.render_line(y).text.rstrip() for y in range(view.size.height))
    return [line for line in lines if line]


def names(view: GraphView) -> list[str]:
    return [layer.name for layer in view.shown_layers()]


def layer(index: int, op: str, name: str, reads: str = "", outputs: int = 1) -> LayerSummary:
    made = (name, *(f"{name}:{number}" for number in range(1, outputs)))
    return LayerSummary(index, name, op, (), (1, 64, 40, 40), "float32", outputs=made, reads=tuple(reads.split()))


C2F = (
    layer(0, "Input", "images"),
    layer(1, "ConvSiLU", "/m.5/conv", "images"),
    layer(2, "ConvSiLU", "/m.6/cv1", "/m.5/conv"),
    layer(3, "Split", "/m.6/Split", "/m.6/cv1", 2),
    layer(4, "ConvSiLU", "/m.6/m.0/cv1", "/m.6/Split:1"),
    layer(5, "ConvSiLU", "/m.6/m.0/cv2", "/m.6/m.0/cv1"),
    layer(6, "Add", "/m.6/m.0/Add", "/m.6/Split:1 /m.6/m.0/cv2"),
    layer(7, "Concat", "/m.6/Concat", "/m.6/Split /m.6/Split:1 /m.6/m.0/Add"),
    layer(8, "ConvSiLU", "/m.6/cv2", "/m.6/Concat"),
    layer(9, "Softmax", "scores", "/m.6/cv2"),
)
VALUES = {
    "images": LayerValues("int8", entire=0.9999, share=0.0, single=0.9999),
    "/m.5/conv": LayerValues("int8", entire=0.996, share=0.1, single=0.999),
    "/m.6/cv1": LayerValues("int8", entire=0.982, share=0.25, single=0.97),
    "/m.6/Split": LayerValues("int8", fused=True),
    "/m.6/m.0/cv1": LayerValues("float16", "float16", True, entire=0.9957, share=0.02, single=0.9998, stale=True),
    "/m.6/m.0/cv2": LayerValues("float16", entire=0.9961, share=0.03, single=0.998),
    "/m.6/m.0/Add": LayerValues("int8+float16", entire=0.991, share=0.4, single=0.996),
    "/m.6/Concat": LayerValues("int8", entire=0.9796, share=0.1, single=0.9999),
    "/m.6/cv2": LayerValues("int8", entire=0.992, share=0.05, single=0.999),
}
COSTS = {
    name: LayerValues(
        *(value.precision, value.wished, value.changed, value.entire, value.single, value.share),
        milliseconds=0.01 * place,
        bytes=100_000.0 * place,
    )
    for place, (name, value) in enumerate(VALUES.items())
}

CHAIN = tuple(
    layer(place, "Conv" if place % 2 else "Relu", f"t{place}", f"t{place - 1}" if place else "") for place in range(100)
)


async def test_80_columns() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        assert "".join(text for text, _ in view.header()).rstrip() == (
            "  # graph op       layer        type           cosine  .95─1        single error"
        )
        assert shown(view) == [
            "▶ 0 ○     Input    images       int8          0.99990  ██████████▉ 0.99990  0.0%",
            "  1 ●     ConvSiLU /m.5/conv    int8          0.99600  ██████████  0.99900 10.0%",
            "  2 ●     ConvSiLU /m.6/cv1     int8          0.98200! ███████     0.97000 25.0%",
            "  3 ●─╮   Split    /m.6/Split   int8            fused",
            "  4 │ ├─● ConvSiLU /m.6/m.0/cv1 float16*      ~0.9957  ██████████  0.99980  2.0%",
            "  5 │ │ ● ConvSiLU /m.6/m.0/cv2 float16       0.99610  ██████████▏ 0.99800  3.0%",
            "  6 │ ├─● Add      /m.6/m.0/Add int8+float16  0.99100  █████████   0.99600 40.0%",
            "  7 ●─┴─╯ Concat   /m.6/Concat  int8          0.97960! ██████▌     0.99990 10.0%",
            "  8 ●     ConvSiLU /m.6/cv2     int8          0.99200  █████████▏  0.99900  5.0%",
            "  9 ◉     Softmax  scores",
        ]


async def test_a_folded_block_sums_up_its_layers() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(4)
        assert view.fold()
        assert shown(view)[3:6] == [
            "  3 ●─╮   Split      /m.6/Split   int8            fused",
            "▶ 4 │ ├─● ▸ 3 layers /m.6/m.0     int8+float16* ~0.9910  ███████▍  0.99600 45.0%",
            "  7 ●─┴─╯ Concat     /m.6/Concat  int8          0.97960! █████▎    0.99990 10.0%",
        ]
        assert view.block is not None
        assert [layer.name for layer in view.selection()] == ["/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/m.0/Add"]
        assert view.layers_shown == len(C2F)


async def test_plain_signs_in_an_ascii_terminal_at_60_columns() -> None:
    async with view_of(C2F, COSTS, size=(60, 16), symbols=ASCII) as (view, _):
        view.move_to(4)
        view.toggle_mark()
        view.fold()
        assert "".join(text for text, _ in view.header()).rstrip() == (
            "  # graph layer        type      cosine  .95-1   error   ~ms"
        )
        assert shown(view)[2:6] == [
            "  2 *     /m.6/cv1     int8     0.98200! ####... 25.0% 0.020",
            "  3 *-.   /m.6/Split   int8                            0.030",
            ">+4 | +-* > /m.6/m.0   i8+fp16* 0.99100  #####.. 45.0% 0.150",
            "  7 *-'-' /m.6/Concat  int8     0.97960! ####... 10.0% 0.070",
        ]
        assert all(line.isascii() for line in shown(view))


async def test_200_columns() -> None:
    async with view_of(C2F, COSTS, size=(200, 50)) as (view, _):
        assert "".join(text for text, _ in view.header()).rstrip() == (
            "  # graph op       layer        shape      type           cosine  .95─1         single error   ~ms ~mem"
        )
        assert shown(view)[4] == (
            "  4 │ ├─● ConvSiLU /m.6/m.0/cv1 1×64×40×40 float16*      0.99570  ██████████▉  0.99980  2.0% 0.040 391K"
        )


async def test_moving_the_cursor_paints_two_cells() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_by(3)
        assert view.repainted() == [(0, 0, 1, 1), (0, 3, 1, 1)]


async def test_marking_paints_one_cell_and_edits_act_on_what_is_marked() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        assert [layer.name for layer in view.selection()] == ["images"]
        view.move_to(2)
        view.repainted()
        view.toggle_mark()
        assert view.repainted() == [(1, 2, 1, 1)]
        assert shown(view)[2].startswith("▶+2 ")
        view.move_to(0)
        view.toggle_mark()
        assert view.marked == ("images", "/m.6/cv1")
        assert [layer.name for layer in view.selection()] == ["images", "/m.6/cv1"]
        view.repainted()
        view.toggle_mark()
        assert view.marked == ("/m.6/cv1",)
        assert view.repainted() == [(1, 0, 1, 1)]
        view.clear_marks()
        assert (view.marked, view.repainted()) == ((), [(1, 2, 1, 1)])


async def test_an_open_range_follows_the_cursor_until_it_is_closed() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(3)
        view.mark_range()
        view.move_to(5)
        assert view.range_open
        assert len(view.marked) == 3
        view.repainted()
        view.move_to(2)
        assert sorted(region[1] for region in view.repainted() if region and region[0] == 1) == [2, 4, 5]
        assert view.marked == ("/m.6/cv1", "/m.6/Split")
        view.mark_range()
        view.move_to(9)
        assert view.marked == ("/m.6/cv1", "/m.6/Split")
        view.mark_range()
        assert len(view.selection()) == 3
        assert not view.range_open
        view.move_to(7)
        assert view.marked == ("/m.6/cv1", "/m.6/Split", "scores")


async def test_marks_by_what_layers_have_in_common_among_those_shown() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(1)
        view.mark_same_op()
        assert view.marked == ("/m.5/conv", "/m.6/cv1", "/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/cv2")
        view.clear_marks()
        view.move_to(4)
        view.mark_same_type()
        assert view.marked == ("/m.6/m.0/cv1", "/m.6/m.0/cv2")
        view.clear_marks()
        assert view.mark_block()
        assert view.marked == ("/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/m.0/Add")
        view.clear_marks()
        view.mark_matching(parse("cos<.99"))
        assert view.marked == ("/m.6/cv1", "/m.6/Concat")
        view.clear_marks()
        view.set_filter(parse("m.0"))
        view.mark_same_op()
        assert view.marked == ("/m.6/m.0/cv1", "/m.6/m.0/cv2")
        view.set_filter(parse("is:marked op:conv"))
        assert names(view) == ["/m.6/m.0/cv1", "/m.6/m.0/cv2"]
        view.set_filter(None)
        view.move_to(0)
        assert not view.mark_block()


async def test_marks_of_a_folded_block_are_those_of_its_layers() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(4)
        view.toggle_mark()
        view.fold()
        assert shown(view)[4].startswith("▶+4 ")
        view.toggle_mark()
        assert len(view.marked) == 3
        view.toggle_mark()
        assert view.marked == ()
        view.mark_range()
        view.move_by(1)
        assert view.marked == ("/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/m.0/Add", "/m.6/Concat")


async def test_new_numbers_paint_only_the_cells_that_look_different() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.update_values({"/m.6/cv2": VALUES["/m.6/cv2"], "nowhere": LayerValues()})
        assert view.repainted() == []
        view.update_values({"/m.6/cv2": LayerValues("float16", changed=True, entire=0.992, share=0.05, single=0.999)})
        start = shown(view)[8].index("float16*")
        assert view.repainted() == [(start, 8, 8, 1)]
        view.update_values({"/m.6/cv2": LayerValues("float16", changed=True, entire=0.992, share=0.05, single=0.998)})
        assert view.repainted() == [(shown(view)[8].index("0.998") + 4, 8, 1, 1)]
        assert view.values["/m.6/cv2"].single == 0.998


async def test_a_column_comes_with_the_first_number_for_it_and_says_whether_it_is_estimated() -> None:
    async with view_of(C2F, VALUES, size=(120, 24)) as (view, pilot):
        app = pilot.app
        assert isinstance(app, Tiny)
        before = app.headers
        view.update_values(COSTS)
        await pilot.pause()
        assert app.headers == before + 1
        assert [title for title, _ in view.header() if "ms" in title or "mem" in title] == ["  ~ms", "~mem"]
        measured = LayerValues("int8", entire=0.99, milliseconds=1.5, bytes=2.0**20, estimated=False)
        view.update_values({"images": measured})
        assert [title.strip() for title, _ in view.header() if "m" in title][-2:] == ["ms", "mem"]
        assert shown(view)[0].endswith(" 1.500  1.0M")
        assert shown(view)[1].endswith("~0.010  ~98K")
        view.update_values(dict.fromkeys((layer.name for layer in C2F), measured))
        assert shown(view)[1].endswith(" 1.500 1.0M")
        view.update_values({layer.name: LayerValues("int8") for layer in C2F})
        assert not any("ms" in title for title, _ in view.header())


async def test_the_same_layers_with_other_numbers_stay_where_they_are() -> None:
    async with view_of(CHAIN) as (view, pilot):
        view.move_to(70)
        view.toggle_mark()
        top = view.top
        await pilot.pause()
        view.repainted()
        view.show(tuple(CHAIN), {"t70": LayerValues("int8"), "t2": LayerValues("int8")})
        assert (view.cursor, view.top, view.marked) == (70, top, ("t70",))
        assert [region[1] for region in view.repainted() if region] == [70 - top]


async def test_another_model_starts_unfolded_and_unmarked() -> None:
    async with view_of(CHAIN) as (view, _):
        view.move_to(70)
        view.toggle_mark()
        view.set_filter(parse("op:conv"))
        view.show(C2F, VALUES)
        assert (view.cursor, view.marked, view.filtered) == (0, (), True)
        view.forget()
        assert (view.row_count, view.current, view.selection(), view.filtered) == (0, None, (), False)
        view.update_values({"images": LayerValues("int8")})
        for step in (view.fold, view.unfold, view.fold_all, view.jump_stub, view.mark_block, view.reverse_sort):
            assert not step()
        assert not view.walk(1)
        assert not view.next_bad(1)
        assert view.next_worst() is None
        view.toggle_mark()
        view.mark_range()
        view.mark_same_op()
        view.set_filter(parse("x"))
        view.sort_by("cosine")
        assert shown(view) == []


async def test_a_filter_keeps_the_cursor_on_its_layer_or_the_next_that_passes() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(5)
        view.set_filter(parse("op:conv"))
        assert view.current is not None
        assert view.current.name == "/m.6/m.0/cv2"
        view.set_filter(parse("op:concat|softmax"))
        assert view.current.name == "/m.6/Concat"
        view.set_filter(parse("nothing like that"))
        assert view.current is None
        view.set_filter(None)
        assert view.current is not None


async def test_a_filtered_graph_is_muted_and_typing_on_without_effect_paints_nothing() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        assert ("●", "text") in view.row_line(8)
        view.set_filter(parse("op:con"))
        assert names(view) == ["/m.5/conv", "/m.6/cv1", "/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/Concat", "/m.6/cv2"]
        assert [text for text, role in view.row_line(4) if text.strip() and role == "muted"][1:3] == ["●", "─┴─╯"]
        view.repainted()
        view.set_filter(parse("op:con type:"))
        assert view.repainted() == []


async def test_the_last_filter_can_be_followed_after_it_was_cleared() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        assert not view.next_match(1)
        view.set_filter(parse("cos<.99"))
        view.set_filter(None)
        view.move_to(0)
        found = []
        while view.next_match(1):
            found.append(view.cursor)
        assert found == [2, 7]
        view.move_to(4)
        view.fold()
        view.fold()
        view.move_to(0)
        assert view.next_match(1)
        assert view.block is not None
        assert not view.next_match(1)
        assert not view.next_match(-1)


async def test_blocks_can_be_filtered_by() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.set_filter(parse("block:m.0"))
        assert names(view) == ["/m.6/m.0/cv1", "/m.6/m.0/cv2", "/m.6/m.0/Add"]
        assert [layer.name for layer in view.matching(parse("block:m.6 op:add"))] == ["/m.6/m.0/Add"]


async def test_sorting_shows_the_worst_first_without_the_graph() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(5)
        view.sort_by("cosine")
        assert names(view)[:2] == ["/m.6/Concat", "/m.6/cv1"]
        assert set(names(view)[-2:]) == {"/m.6/Split", "scores"}
        assert view.cursor == 0
        assert "".join(text for text, _ in view.header()).split()[:4] == ["#", "op", "layer", "shape"]
        assert any("cosine▲" in title for title, _ in view.header())
        assert view.reverse_sort()
        assert names(view)[0] == "images"
        assert set(names(view)[-2:]) == {"/m.6/Split", "scores"}
        assert any("cosine▼" in title for title, _ in view.header())
        view.sort_by("share")
        assert names(view)[:2] == ["/m.6/m.0/Add", "/m.6/cv1"]
        view.sort_by("type")
        assert any("type▲" in title for title, _ in view.header())
        assert not view.fold()
        view.move_to(3)
        here = view.current
        view.sort_by(None)
        assert (view.current, view.sorting) == (here, None)
        assert names(view) == [layer.name for layer in C2F]
        assert not view.reverse_sort()


async def test_sorted_rows_stay_in_place_when_numbers_change() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.sort_by("cosine")
        before = names(view)
        view.update_values({"images": LayerValues("int8", entire=0.1)})
        assert names(view) == before
        view.sort_by("cosine")
        assert names(view)[0] == "images"


async def test_folding_goes_outwards_and_back() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(5)
        assert view.toggle_fold()
        assert (view.cursor, view.row_count) == (4, 8)
        assert view.fold()
        assert view.row_count == 4
        assert not view.fold()
        assert view.unfold()
        assert view.row_count == 8
        assert view.unfold_all()
        assert view.row_count == 10
        assert view.toggle_fold_all()
        assert view.row_count == 4
        assert view.toggle_fold_all()
        assert (view.row_count, view.folded) == (10, False)


async def test_worst_layers_come_by_their_share_or_else_by_their_single_cosine() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        ranks = [view.next_worst() for _ in range(3)]
        assert ranks == [(1, 8), (2, 8), (3, 8)]
        assert view.current is not None
        assert view.current.name == "/m.5/conv"
        view.move_to(0)
        view.next_worst()
        assert view.current.name == "/m.6/m.0/Add"
        view.show(C2F, {name: LayerValues("int8", single=value.single) for name, value in VALUES.items()})
        view.move_to(0)
        assert view.next_worst() == (1, 8)
        assert view.current.name == "/m.6/cv1"
        view.set_filter(parse("m.0"))
        assert view.next_worst() == (1, 3)
        assert view.current.name == "/m.6/m.0/Add"


async def test_bad_layers_are_found_onwards_and_backwards_in_folded_blocks_too() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        assert view.next_bad(1)
        assert view.cursor == 2
        assert view.next_bad(1)
        assert view.cursor == 7
        assert not view.next_bad(1)
        assert view.next_bad(-1)
        view.fold()
        view.move_to(3)
        assert view.next_bad(-1)
        assert view.block is not None


async def test_walking_along_the_edges() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.move_to(7)
        path = []
        while view.walk(-1):
            path.append(view.cursor)
        assert path == [3, 2, 1, 0]
        while view.walk(1):
            path.append(view.cursor)
        assert path[4:] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def head(branches: int) -> tuple[LayerSummary, ...]:
    """So many branches kept to the end: more than there are lanes in a narrow table."""
    first = (layer(0, "Input", "x"),)
    middle = tuple(layer(1 + n, "Conv", f"b{n}", "x") for n in range(branches))
    return (*first, *middle, layer(1 + branches, "Concat", "out", " ".join(f"b{n}" for n in range(branches))))


async def test_cut_edges_are_jumped_along_one_after_the_other() -> None:
    async with view_of(head(8), size=(80, 24)) as (view, pilot):
        assert shown(view)[-1].split()[:3] == ["9", "◉─┴─┴─┴─┴─╯", "^5+"]
        assert shown(view)[5].split()[:3] == ["5", "├─│─│─│─│─◆", "v9"]
        assert not view.jump_stub()
        view.move_to(9)
        ends = []
        for _ in range(4):
            assert view.jump_stub()
            ends.append(view.cursor)
            assert view.jump_stub()
            assert view.cursor == 9
        assert ends == [5, 6, 5, 6]
        await pilot.resize_terminal(140, 24)
        await pilot.pause()
        assert not any("^" in line for line in shown(view))
        view.move_to(9)
        assert not view.jump_stub()


async def test_selecting_a_layer_brings_it_into_sight_whatever_hides_it() -> None:
    async with view_of(C2F, VALUES) as (view, _):
        view.fold_all()
        assert view.find_row("/m.6/m.0/cv2") == view.find_row("/m.6/Concat") == 2
        assert view.select_layer("/m.6/m.0/cv2")
        assert view.current is not None
        assert (view.current.name, view.block) == ("/m.6/m.0/cv2", None)
        view.set_filter(parse("op:softmax"))
        assert view.find_row("images") is None
        assert view.select_layer("images")
        assert (view.current.name, view.filtered) == ("images", False)
        assert not view.select_layer("nowhere")
        assert view.readers_of("/m.6/Split") == ("/m.6/m.0/cv1", "/m.6/m.0/Add", "/m.6/Concat")
        assert view.readers_of("nowhere") == ()


async def test_the_order_with_few_lanes_and_back() -> None:
    branches = (
        *(layer(0, "Input", "x"), layer(1, "Conv", "a0", "x"), layer(2, "Conv", "b0", "x")),
        *(layer(3, "Conv", "a1", "a0"), layer(4, "Conv", "b1", "b0"), layer(5, "Add", "sum", "a1 b1")),
    )
    async with view_of(branches) as (view, _):
        view.move_to(3)
        assert view.next_order() == "greedy"
        assert names(view) == ["x", "a0", "a1", "b0", "b1", "sum"]
        assert (view.cursor, view.order) == (2, "greedy")
        assert shown(view)[2].startswith("▶ 3 │ ●")
        assert view.next_order() == "file"
        assert names(view) == [one.name for one in branches]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 3), (5, 2), (12, 4), (1000, 3), (20, 500)])
async def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    async with view_of(head(12), VALUES, size=size) as (view, _):
        view.move_to(13)
        view.toggle_mark()
        for y in range(view.size.height):
            assert view.render_line(y).cell_length == view.size.width
        view.update_values({"out": LayerValues("float16", changed=True, entire=0.5)})
        view.sort_by("name")
        view.sort_by(None)
        assert len(shown(view)) <= view.size.height


async def test_names_from_files_cannot_command_the_terminal() -> None:
    evil = (layer(0, "Input", "x\x1b[2J"), layer(1, "Co\x07nv", "漢字\u202e", "x\x1b[2J"))
    async with view_of(evil) as (view, _):
        assert all(line.isprintable() for line in shown(view))
        assert all(view.render_line(y).cell_length == 80 for y in range(3))
