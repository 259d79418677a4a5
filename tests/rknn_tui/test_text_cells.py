"""Lines as cells: every character keeps its place, nothing is drawn that is unsafe, and the cursor is in sight."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from rich.style import Style

from rknn_tui.palette import ROLES, Palette
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from rknn_tui.text.text_cells import (
    cells_of,
    changed_cells,
    column_at,
    first_shown,
    padded,
    sign,
    strip_of_cells,
    width_of,
)

PALETTE = Palette("plain", True, True, dict.fromkeys(ROLES, Style()), {})
texts = st.text(max_size=60) | st.text("ab漢字é\u0301\t\x1b️ ", max_size=60)
sets = st.sampled_from([UNICODE, ASCII])


@given(texts, st.integers(1, 40), st.integers(0, 60), st.integers(0, 60), sets)
@example("漢" * 30, 11, 9, 0, UNICODE)
def test_the_cursor_is_always_in_sight(text: str, width: int, cursor: int, current: int, symbols: Symbols) -> None:
    cursor, width = min(cursor, len(text)), width + 8
    first = first_shown(text, cursor, width, current, symbols)
    cells = cells_of([(text, "text")], width, symbols, first=first, cursor=cursor)
    assert len(cells) <= width
    marked = [shown for shown, _, mark in cells if mark == "cursor"]
    assert marked == [sign(text[cursor], symbols) if cursor < len(text) else " "]


@given(texts, st.integers(1, 30), st.integers(0, 60), sets)
@example("\x1b[2J\x07\u202eevil\ud800\u2028", 30, 0, UNICODE)
def test_a_row_has_exactly_its_cells_and_commands_nothing(text: str, width: int, first: int, symbols: Symbols) -> None:
    cells = padded(cells_of([(text, "text")], width, symbols, first=first), width)
    strip = strip_of_cells(cells, PALETTE)
    assert strip.cell_length == len(cells) == width
    assert sum(segment.cell_length for segment in strip) == width
    assert strip.text.isprintable()
    strip.text.encode()
    assert symbols.unicode or strip.text.isascii()


@given(texts, sets)
def test_the_cell_of_a_character_leads_back_to_it(text: str, symbols: Symbols) -> None:
    for column in range(len(text)):
        x = width_of(text[:column], symbols)
        assert column_at(text, x, symbols) == column
    assert column_at(text, width_of(text, symbols), symbols) == len(text)


@given(texts, texts, st.integers(1, 40))
def test_only_cells_that_differ_are_said_to_have_changed(old: str, new: str, width: int) -> None:
    before, after = (padded(cells_of([(text, "text")], width, UNICODE), width) for text in (old, new))
    span = changed_cells(before, after)
    if span is None:
        assert before == after
    else:
        assert before[: span[0]] + after[span[0] : span[1]] + before[span[1] :] == after
        assert before[span[0]] != after[span[0]]
        assert before[span[1] - 1] != after[span[1] - 1]


def test_what_is_cut_off_has_a_sign() -> None:
    def drawn(first: int, cursor: int = -1) -> str:
        return "".join(
            shown for shown, _, _ in cells_of([("abcdefghij", "text")], 6, UNICODE, first=first, cursor=cursor)
        )

    assert drawn(0) == "abcde…"
    assert drawn(3) == "…efgh…"
    assert drawn(4) == "…fghij"
    assert drawn(5, cursor=10) == "…ghij "


def test_a_selection_reaches_over_the_end_of_a_line() -> None:
    cells = cells_of([("ab", "text")], 10, UNICODE, cursor=0, selected=(0, 3))
    assert [mark for _, _, mark in cells] == ["end", "selected", "selected"]
