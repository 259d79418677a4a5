"""Only cells that differ are sent, and what a terminal then shows is what was to be seen."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Segment, Strip

from rknn_tui.terminal.painting import Painter

WIDTH, HEIGHT = 24, 3
STYLES = (*map(Style.parse, ("bold", "red", "bold red", "dim", "bold dim red", "reverse", "red on blue")), None)
Pieces = list[tuple[str, Style | None]]


class Screen:
    """A terminal that is painted on."""

    def __init__(self) -> None:
        self.painter = Painter(Console(color_system="standard", force_terminal=True))
        self.terminal = pyte.Screen(WIDTH, HEIGHT)
        # As the app has it, a line that is full goes on nowhere.
        self.terminal.reset_mode(pyte.modes.DECAWM)
        self.stream = pyte.Stream(self.terminal)

    def show(self, lines: list[Pieces]) -> str:
        """Paint all lines; returns what was sent."""
        strips = [[strip_of(line)] for line in lines]
        return self._send(LayoutUpdate(strips, Region(0, 0, WIDTH, HEIGHT)))  # type: ignore[arg-type]

    def show_span(self, lines: list[Pieces], y: int, first: int, after: int, cut: int) -> str:
        """Paint some cells of a line, on which two widgets meet at the column `cut`."""
        left, right = strip_of(lines[y]).divide([cut, WIDTH])
        chops: list[dict[int, Strip | None]] = [{} for _ in range(HEIGHT)]
        chops[y] = {0: left, cut: right}
        return self._send(ChopsUpdate(chops, [(y, first, after)], [[cut, WIDTH]] * HEIGHT))

    def _send(self, update: object) -> str:
        difference = self.painter.difference(update, WIDTH)
        assert difference is not None
        text = difference.render_segments(Console())
        self.stream.feed(text)
        return text

    @property
    def cells(self) -> list[list[object]]:
        """What a person sees: characters, and colours where they are to be seen."""
        return [[_seen(self.terminal.buffer[y][x]) for x in range(WIDTH)] for y in range(HEIGHT)]


def _seen(cell: pyte.screens.Char) -> object:
    if cell.data == " " and cell.bg == "default" and not cell.reverse:
        return " "
    return cell.data, cell.fg, cell.bg, cell.bold, cell.reverse


def strip_of(line: Pieces) -> Strip:
    return Strip([Segment(text, style) for text, style in line]).adjust_cell_length(WIDTH)


texts = st.text(st.sampled_from("ab  1│●漢é\u0301"), max_size=12)
pieces = st.lists(st.tuples(texts, st.sampled_from(STYLES)), max_size=6)
screens = st.lists(pieces, min_size=HEIGHT, max_size=HEIGHT)


@given(screens, screens)
def test_the_second_screen_looks_as_if_it_were_painted_on_a_blank_one(one: list[Pieces], other: list[Pieces]) -> None:
    screen, fresh = Screen(), Screen()
    screen.show(one)
    screen.show(other)
    fresh.show(other)
    assert screen.cells == fresh.cells


@given(screens, pieces, st.integers(1, WIDTH - 1), st.integers(0, WIDTH - 1), st.integers(1, WIDTH))
def test_part_of_a_line_is_painted_alone(one: list[Pieces], other: Pieces, cut: int, first: int, length: int) -> None:
    # Lines are made of whole characters: `drawable` leaves no mark that could be cut off from what it joins.
    narrow = [(text.replace("漢", "x").replace("\u0301", ""), style) for text, style in other]
    after = min(first + length, WIDTH)
    screen, fresh = Screen(), Screen()
    screen.show([[("." * WIDTH, None)]] * HEIGHT)
    screen.show_span([narrow] * HEIGHT, 1, first, after, cut)
    fresh.show([[("." * WIDTH, None)], narrow, [("." * WIDTH, None)]])
    expected = [[_seen(pyte.screens.Char("."))] * WIDTH for _ in range(HEIGHT)]
    expected[1][first:after] = fresh.cells[1][first:after]
    assert screen.cells == expected


@given(screens)
def test_what_is_shown_already_is_not_sent_again(one: list[Pieces]) -> None:
    screen = Screen()
    assert screen.show(one)
    assert screen.show(one) == ""
    screen.painter.forget()
    assert screen.show(one)


def test_a_wide_character_is_sent_as_a_whole() -> None:
    lines: list[Pieces] = [[("a漢b", None)]] * HEIGHT
    screen = Screen()
    # The region begins in the middle of it.
    screen.show_span(lines, 0, 2, 4, 12)
    assert screen.terminal.display[0].startswith(" 漢b")


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [
        ("0.98123  ████▌  1.5", "0.98124  ████▌  1.5", len("\x1b[1;7H4")),
        ("0.98123  ████▌  1.5", "0.98124  ████▉  1.5", len("\x1b[1;7H4\x1b[14G▉".encode())),
        ("x" * WIDTH, "x", len("\x1b[1;2H\x1b[K")),
    ],
)
def test_few_bytes_for_few_cells(before: str, after: str, most: int) -> None:
    screen = Screen()
    screen.show([[(before, None)]] * HEIGHT)
    sent = screen.show([[(after, None)], *[[(before, None)]] * (HEIGHT - 1)])
    assert 0 < len(sent.encode()) <= most


def test_the_same_colours_are_told_once() -> None:
    bold = Style.parse("bold red")
    screen = Screen()
    screen.show([[("x" * WIDTH, None)]] * HEIGHT)
    sent = screen.show([[("x" * 5, None), ("int8", bold), ("x" * 15, None)]] * HEIGHT)
    assert sent.count("\x1b[1;31m") == 1
    assert sent.endswith("\x1b[0m")


def test_an_unknown_kind_of_update_is_left_to_textual() -> None:
    assert Screen().painter.difference("text", WIDTH) is None
