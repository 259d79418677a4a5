"""Two texts: the smallest replacement that makes one of the other, and the lines that differ."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rknn_tui.text.text_changes import BREAKS, changed_lines, smallest_change, split_lines

texts = st.text(max_size=40) | st.text("ab\n\r\u2028", max_size=30)
line_lists = st.lists(st.sampled_from(["a", "b", "c", "  d: 1", "  -   0.0", "", "漢"]), max_size=30)


def applied(old: str, new: str) -> list[str]:
    """The old lines with the changes made to them."""
    changes = changed_lines(old, new)
    removed = {number for sign, number, _ in changes if sign == "-"}
    lines = [line for number, line in enumerate(old.splitlines(), 1) if number not in removed]
    for sign, number, line in changes:
        if sign == "+":
            lines.insert(number - 1, line)
    return lines


@given(texts)
@example("a\r\nb\x85c\u2028\n")
@example("\x0b\x0c\x1c")
def test_lines_are_those_that_yaml_counts_and_lose_nothing(text: str) -> None:
    lines = split_lines(text)
    assert "".join(lines) == text
    assert len(lines) == 1 + len(
        text.replace("\r\n", "\n").translate(dict.fromkeys(map(ord, BREAKS), "\n")).split("\n")[1:]
    )


@given(texts, texts)
@example("aaa", "aa")
@example("", "a\n")
def test_the_smallest_change_makes_the_new_text(old: str, new: str) -> None:
    start, end, replacement = smallest_change(old, new)
    assert 0 <= start <= end <= len(old)
    assert old[:start] + replacement + old[end:] == new
    # Neither end of what is replaced could have stayed.
    assert not (old[start:end] and replacement and old[start] == replacement[0])
    assert not (old[start:end] and replacement and old[end - 1] == replacement[-1])


def test_a_change_in_a_long_text_is_found_where_it_is() -> None:
    text = "".join(f"    layer.{number}: int8\n" for number in range(150_000))
    place = text.index("layer.75000: int8") + len("layer.75000: ")
    changed = f"{text[:place]}float16{text[place + 4 :]}"
    assert smallest_change(text, changed) == (place, place + 4, "float16")
    assert changed_lines(text, changed) == [
        ("-", 75_001, "    layer.75000: int8"),
        ("+", 75_001, "    layer.75000: float16"),
    ]


@given(line_lists, line_lists)
def test_changed_lines_make_the_new_text(old: list[str], new: list[str]) -> None:
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    assert applied(before, after) == new
    assert bool(changed_lines(before, after)) == (before != after)


@given(line_lists, line_lists)
def test_little_is_called_changed(old: list[str], new: list[str]) -> None:
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    least = sum(line[0] in "+-" for line in difflib.ndiff(old, new))
    # Lines that stand once tie the texts together, which is not always the shortest way; it is never far from it.
    assert len(changed_lines(before, after)) <= max(2 * least, least + 8)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([str(number % 7) for number in range(30_000)], [str(number % 11) for number in range(30_000)]),
        ([str(number) for number in range(30_000)], [str(number) for number in range(30_000, 0, -1)]),
        (["same"] * 30_000, ["same"] * 20_000 + ["other"] + ["same"] * 5_000),
    ],
)
def test_texts_that_have_nothing_to_hold_on_to_are_still_compared(old: list[str], new: list[str]) -> None:
    before, after = "\n".join(old) + "\n", "\n".join(new) + "\n"
    changes = changed_lines(before, after)
    assert len(old) + sum({"-": -1, "+": 1}[sign] for sign, _, _ in changes) == len(new)
    added = {number: line for sign, number, line in changes if sign == "+"}
    assert all(new[number - 1] == line for number, line in added.items())


def test_numbers_that_changed_in_place_are_paired_line_by_line() -> None:
    row = "    t:\n        min:\n        -   {}\n        max:\n        -   {}\n"
    assert changed_lines(row.format("0.0", "0.0"), row.format("-1.0", "0.5")) == [
        ("-", 3, "        -   0.0"),
        ("+", 3, "        -   -1.0"),
        ("-", 5, "        -   0.0"),
        ("+", 5, "        -   0.5"),
    ]


def test_a_missing_last_line_end_is_a_change() -> None:
    assert changed_lines("a\nb\n", "a\nb") == [("-", 2, "b"), ("+", 2, "b")]
    assert changed_lines("", "a\n") == [("+", 1, "a")]
    assert changed_lines("a\n", "") == [("-", 1, "a")]
