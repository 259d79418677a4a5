"""Columns, bars, cut texts and changed cells: the arithmetic of drawing in cells."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from rknn_tui.bars import bar
from rknn_tui.columns import columns
from rknn_tui.palette import ROLES, Palette
from rknn_tui.pieces import changed_span, strip_of
from rknn_tui.symbols import ASCII, UNICODE, choose, drawable, fit, wrap

LONGEST = {"index": 4, "op": 12, "name": 60, "shape": 13}
PALETTE = Palette("plain", True, True, dict.fromkeys(ROLES, Style()), {})
texts = st.text(max_size=30) | st.text("ab漢字é️ ", max_size=30)


@given(st.integers(0, 300), st.dictionaries(st.sampled_from(list(LONGEST)), st.integers(1, 200)))
def test_columns_never_overlap_and_never_leave_the_row(width: int, longest: dict[str, int]) -> None:
    end = 2
    for column in columns(width, LONGEST | longest):
        assert column.start >= end
        assert column.width >= 0
        end = column.start + column.width + 1
    assert end - 1 <= max(width, 2)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (24, ["name", "precision"]),
        (60, ["index", "op", "name", "precision", "cosine", "bar"]),
        (80, ["index", "op", "name", "precision", "cosine", "bar", "single"]),
        (120, ["index", "op", "name", "shape", "precision", "cosine", "bar", "single"]),
    ],
)
def test_a_narrow_terminal_keeps_what_matters_most(width: int, expected: list[str]) -> None:
    assert [column.id for column in columns(width, LONGEST)] == expected


def test_the_name_is_never_wider_than_the_longest_name() -> None:
    widths = {column.id: column.width for column in columns(250, LONGEST)}
    assert widths["name"] == 60
    assert {column.id: column.width for column in columns(100, LONGEST | {"name": 9})}["name"] == 9


@given(st.floats(), st.integers(0, 40), st.booleans())
def test_a_bar_has_exactly_its_width(value: float, width: int, unicode: bool) -> None:
    text = bar(value, 0.95, 1.0, width, unicode=unicode)
    assert cell_len(text) == width
    assert unicode or text.isascii()


def test_only_a_perfect_value_fills_the_bar() -> None:
    assert bar(1.0, 0.95, 1.0, 5) == "█████"
    assert bar(0.9999999, 0.95, 1.0, 5) == "████▉"
    assert bar(0.975, 0.95, 1.0, 5) == "██▌  "
    assert bar(0.5, 0.95, 1.0, 5) == "     "
    assert bar(math.nan, 0.95, 1.0, 5) == "     "
    assert bar(0.975, 0.95, 1.0, 4, unicode=False) == "##.."


@given(texts, st.integers(0, 40), st.booleans())
def test_a_fitted_text_has_exactly_its_width(text: str, width: int, keep_end: bool) -> None:
    text = drawable(text)
    assert cell_len(fit(text, width, keep_end=keep_end)) == width


def test_a_long_name_keeps_its_end_and_a_long_text_its_start() -> None:
    assert fit("/model/head/conv", 8, keep_end=True) == "…ad/conv"
    assert fit("/model/head/conv", 8) == "/model/…"
    assert fit("漢字漢字", 5, keep_end=True) == "…漢字"


@given(st.text())
@example("\x1b[2J\x07\u202eevil\ud800\u2028")
def test_nothing_drawn_can_command_the_terminal(text: str) -> None:
    shown = drawable(text)
    assert all(character.isprintable() for character in shown)
    shown.encode()
    assert drawable(text, ASCII).isascii()


@given(texts, st.integers(4, 40))
def test_wrapping_loses_nothing_but_blanks(text: str, width: int) -> None:
    text = drawable(text)
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


lines = st.lists(st.tuples(texts.map(drawable), st.sampled_from(["text", "bad", "muted"])), max_size=4)


@given(lines, lines, st.integers(1, 60))
def test_drawing_only_the_changed_cells_gives_the_new_line(
    old: list[tuple[str, str]], new: list[tuple[str, str]], width: int
) -> None:
    before, after = strip_of(old, width, PALETTE), strip_of(new, width, PALETTE)
    assert before.cell_length == after.cell_length == width
    span = changed_span(old, new, width)
    if span is None:
        assert before.text == after.text
    else:
        start, stop = span
        assert 0 <= start < stop <= width
        drawn = before.crop(0, start).text + after.crop(start, stop).text + before.crop(stop, width).text
        assert drawn == after.text


@pytest.mark.parametrize(
    ("environment", "symbols"),
    [
        ({"LANG": "de_DE.UTF-8"}, UNICODE),
        ({"LANG": "C.utf8"}, UNICODE),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, ASCII),
        ({"LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({}, ASCII),
    ],
)
def test_plain_symbols_where_the_locale_is_not_utf8(environment: dict[str, str], symbols: object) -> None:
    assert choose("auto", environment) is symbols
    assert choose("unicode", environment) is UNICODE
