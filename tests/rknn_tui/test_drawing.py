"""Numbers, bars, cut texts and changed cells: the arithmetic of drawing in cells."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from rknn_tui.graph.bars import bar, digits, flagged_digits, milliseconds, percent, size
from rknn_tui.palette import ROLES, Palette
from rknn_tui.pieces import changed_span, strip_of
from rknn_tui.symbols import ASCII, UNICODE, choose, drawable, fit, wrap

PALETTE = Palette("plain", True, True, dict.fromkeys(ROLES, Style()), {})
texts = st.text(max_size=30) | st.text("ab漢字é️ ", max_size=30)


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


@given(st.floats(-1, 1), st.booleans(), st.booleans())
def test_a_cosine_has_its_cells_and_keeps_its_flags(cosine: float, stale: bool, bad: bool) -> None:
    text = flagged_digits(cosine, stale=stale, bad=bad)
    assert len(text) == 8
    assert text.endswith("!") == bad
    assert text.strip().startswith("~") == stale
    assert abs(float(text.strip("~! ")) - cosine) < 0.01


@pytest.mark.parametrize(
    ("cosine", "stale", "bad", "text"),
    [
        (0.98765, False, False, "0.98765 "),
        (0.98765, False, True, "0.98765!"),
        (0.98765, True, True, "~0.9876!"),
        (-0.98765, True, True, "~-0.987!"),
        (1.0, False, False, "1.00000 "),
        (0.999999, False, False, "0.99999 "),
        (math.nan, True, True, "        "),
    ],
)
def test_flags_of_a_cosine(cosine: float, stale: bool, bad: bool, text: str) -> None:
    assert flagged_digits(cosine, stale=stale, bad=bad) == text
    assert digits(math.nan) == ""


@given(st.floats())
def test_numbers_fit_their_columns(value: float) -> None:
    assert len(percent(value)) <= 5
    assert len(milliseconds(value)) <= 5
    assert len(size(value)) <= 4


def test_numbers_are_as_exact_as_their_column_allows() -> None:
    assert [percent(value) for value in (0.123, 0.0004, 1.0, math.nan)] == ["12.3%", "0.0%", "100%", ""]
    assert [milliseconds(value) for value in (0.04949, 12.3456, 123.456, 1234.5, math.nan)] == [
        *("0.049", "12.35", "123.5", "1234", ""),
    ]
    assert [milliseconds(value) for value in (0.00044, 0.0, 1e-9)] == [".0004", "0.000", ".0000"]
    told = [milliseconds(value, expected=True) for value in (0.00144, 0.00044, 0.6353, 12.34, 123456.0)]
    assert told == ["~.001", "~.000", "~.635", "~12.3", "~9999"]
    sizes = (512, 1023, 1024, 9.96 * 1024, 999.4 * 1024, 1000 * 1024, 3 * 2**20, 5 * 2**30, math.nan)
    assert [size(value) for value in sizes] == ["512B", "1.0K", "1.0K", "10K", "999K", "1.0M", "3.0M", "5.0G", ""]


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
