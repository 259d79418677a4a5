"""Lines under edit: nothing of a text is lost, places stay valid, and the cursor stays with its text."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from rknn_tui.text.text_buffer import Place, TextBuffer
from rknn_tui.text.text_changes import split_lines
from rknn_tui.text.text_keys import EDITS, MOVES, Edit

texts = st.text("ab \n\r:#漢", max_size=40)
places = st.tuples(st.integers(0, 8), st.integers(0, 12))


def valid(buffer: TextBuffer, place: Place) -> bool:
    return buffer.clamped(*place) == place


@given(texts, places, places, texts)
@example("a\r", (1, 0), (1, 0), "\nb")
@example("a\rb", (0, 1), (1, 0), "\r\n")
def test_a_replacement_changes_what_it_covers_and_nothing_else(
    text: str, one: tuple[int, int], other: tuple[int, int], new: str
) -> None:
    buffer = TextBuffer(text)
    start, end = sorted((buffer.clamped(*one), buffer.clamped(*other)))
    before, after = buffer.between(Place(0, 0), start), buffer.between(end, buffer.last)
    assert before + buffer.between(start, end) + after == text
    stop = buffer.replace(start, end, new)
    assert buffer.text == before + new + after
    assert buffer.lines == split_lines(buffer.text)
    assert valid(buffer, stop)


@given(texts, texts, places)
@example("a\r\nb", "a\nb", (1, 0))
@example("x\r", "x\r\n", (1, 0))
def test_becoming_another_text_keeps_every_place_valid(old: str, new: str, cursor: tuple[int, int]) -> None:
    buffer = TextBuffer(old)
    buffer.cursor = buffer.clamped(*cursor)
    assert (buffer.change_to(new) is None) == (old == new)
    assert buffer.text == new
    assert buffer.lines == split_lines(new)
    assert valid(buffer, buffer.cursor)


@given(
    st.lists(st.sampled_from(["    a: int8", "    ab: int8", "    min:", "", "#"]), min_size=1, max_size=8),
    st.integers(0, 8),
    st.integers(0, 12),
    st.integers(0, 8),
)
@example(["    b: int8"], 0, 2, 0)
def test_the_cursor_stays_in_its_line_when_another_comes_or_goes(
    lines: list[str], line: int, column: int, at: int
) -> None:
    more = [*lines[:at], "    new: int8", *lines[at:]]
    buffer = TextBuffer("".join(f"{one}\n" for one in lines))
    buffer.cursor = buffer.clamped(min(line, len(lines) - 1), column)
    before = buffer.cursor
    buffer.change_to("".join(f"{one}\n" for one in more))
    assert buffer.cursor == (before.line + (before.line >= at), before.column)
    buffer.change_to("".join(f"{one}\n" for one in lines))
    assert buffer.cursor == before


def test_the_cursor_stays_behind_its_character_when_its_line_changes() -> None:
    buffer = TextBuffer("    conv: int8  # why\n")
    for column, expected in ((4, 4), (10, 10), (14, 17), (20, 23)):
        buffer.change_to("    conv: int8  # why\n")
        buffer.cursor = Place(0, column)
        buffer.change_to("    conv: float16  # why\n")
        assert buffer.cursor == (0, expected)


@given(texts, places, st.lists(st.sampled_from([*MOVES, *EDITS]), max_size=12))
def test_any_keys_lead_from_one_valid_place_to_the_next(text: str, place: tuple[int, int], keys: list[str]) -> None:
    buffer = TextBuffer(text)
    buffer.cursor = buffer.clamped(*place)
    for key in keys:
        if key in MOVES:
            buffer.cursor = MOVES[key](buffer, buffer.cursor)
        else:
            edit = EDITS[key](buffer)
            assert edit.start <= edit.end
            buffer.cursor = buffer.replace(edit.start, edit.end, edit.text)
        assert valid(buffer, buffer.cursor), key
        assert buffer.lines == split_lines(buffer.text)


def after(text: str, cursor: tuple[int, int], key: str) -> tuple[str, Place]:
    buffer = TextBuffer(text)
    buffer.cursor = Place(*cursor)
    if key in MOVES:
        return text, MOVES[key](buffer, buffer.cursor)
    edit: Edit = EDITS[key](buffer)
    return (buffer.replace(edit.start, edit.end, edit.text), buffer.text)[::-1]  # type: ignore[return-value]


def test_enter_goes_on_in_the_same_depth_and_deeper_behind_a_colon() -> None:
    assert after("    a: int8", (0, 11), "enter") == ("    a: int8\n    ", (1, 4))
    assert after("a:\n", (0, 2), "enter") == ("a:\n    \n", (1, 4))
    assert after("    ab: int8\n", (0, 5), "enter") == ("    a\n    b: int8\n", (1, 4))
    assert after("    a\n", (0, 0), "enter") == ("\n    a\n", (1, 0))
    assert after("a\r\nb", (1, 1), "enter") == ("a\r\nb\r\n", (2, 0)), "a new line ends as the others do"


def test_backspace_takes_a_level_of_indentation_a_character_or_a_line_end() -> None:
    assert after("        a", (0, 8), "backspace") == ("    a", (0, 4))
    assert after("      a", (0, 6), "backspace") == ("    a", (0, 4))
    assert after("    ab", (0, 6), "backspace") == ("    a", (0, 5))
    assert after("a\r\nb", (1, 0), "backspace") == ("ab", (0, 1))
    assert after("a", (0, 0), "backspace") == ("a", (0, 0))


def test_words_lines_and_ends_are_gone_to_and_deleted() -> None:
    line = "    p2o.Add.3: float16"
    assert after(line, (0, 22), "ctrl+left")[1] == (0, 15)
    assert after(line, (0, 4), "ctrl+right")[1] == (0, 7)
    assert after(line, (0, 22), "ctrl+w")[0] == "    p2o.Add.3: "
    assert after(line, (0, 22), "home")[1] == (0, 4)
    assert after(line, (0, 4), "home")[1] == (0, 0)
    assert after(line, (0, 15), "ctrl+k")[0] == "    p2o.Add.3: "
    assert after(line, (0, 15), "ctrl+u")[0] == "float16"
    assert after("a\nb", (0, 1), "ctrl+k")[0] == "ab"
    assert after("a\nb", (1, 0), "ctrl+left")[1] == (0, 1)
    assert after("a\nb", (0, 1), "delete")[0] == "ab"


def found(text: str, part: str, step: int, cursor: tuple[int, int] = (0, 0)) -> tuple[int, int] | None:
    buffer = TextBuffer(text)
    buffer.cursor = Place(*cursor)
    span = buffer.find(part, step)
    return None if span is None else tuple(span[0])  # type: ignore[return-value]


def test_a_search_goes_both_ways_and_around_the_ends() -> None:
    text = "conv a conv\nadd\nConv\n"
    assert found(text, "conv", 0) == (0, 0)
    assert found(text, "conv", 1, (0, 1)) == (0, 7)
    assert found(text, "conv", 1, (0, 8)) == (2, 0)
    assert found(text, "conv", 1, (2, 1)) == (0, 0)
    assert found(text, "conv", -1, (0, 7)) == (0, 0)
    assert found(text, "conv", -1, (0, 0)) == (2, 0)
    assert found(text, "Conv", 1) == (2, 0)
    assert found(text, "conv", 1, (0, 1)) != found(text, "Conv", 1, (0, 1))
    assert found(text, "relu", 1) is None
    assert found(text, "", 1) is None
