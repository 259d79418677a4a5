"""Which columns the layer table has at which width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rknn_tui.graph.columns import columns, lane_cap

LONGEST = {"index": 4, "lanes": 11, "op": 14, "name": 60, "shape": 13}
KNOWN = LONGEST | {"single": 7, "share": 5, "time": 5, "memory": 4}
any_longest = st.dictionaries(st.sampled_from([*KNOWN, "precision"]), st.integers(0, 200))


@given(st.integers(20, 400) | st.integers(0, 100_000), any_longest)
def test_columns_never_overlap_and_never_leave_the_row(width: int, longest: dict[str, int]) -> None:
    found = columns(width, longest)
    end = 2
    for column in found:
        assert column.start == end
        assert column.width >= 0
        end = column.start + column.width + 1
    assert end - 1 <= max(width, 2)
    if width >= 20:
        assert sum(column.width for column in found) + len(found) - 1 <= width - 2


@given(st.integers(20, 400), any_longest)
def test_no_column_is_wider_than_its_texts_and_title(width: int, longest: dict[str, int]) -> None:
    for column in columns(width, longest):
        usual = {"cosine": 8, "bar": 12, "precision": max(8, longest.get("precision", 0))}
        assert column.width <= max(usual.get(column.id, longest.get(column.id, 0)), len(column.title))
        assert column.id != "lanes" or column.width == longest["lanes"]


@given(st.integers(20, 200), any_longest, st.integers(1, 40))
def test_a_wider_terminal_never_loses_what_matters_most(width: int, longest: dict[str, int], more: int) -> None:
    kept = ["precision", "cosine"]
    narrow = [column.id for column in columns(width, longest) if column.id in kept]
    wide = [column.id for column in columns(width + more, longest) if column.id in kept]
    assert set(narrow) <= set(wide)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (9, "precision"),
        (24, "name precision"),
        (40, "index name precision cosine"),
        (60, "index lanes name precision cosine bar"),
        (80, "index lanes op name precision cosine bar"),
        (100, "index lanes op name shape precision cosine bar"),
    ],
)
def test_before_anything_is_measured(width: int, expected: str) -> None:
    assert " ".join(column.id for column in columns(width, LONGEST)) == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (60, "index lanes name precision cosine bar time"),
        (80, "index lanes op name precision cosine bar share time"),
        (90, "index lanes op name precision cosine bar share time memory"),
        (100, "index lanes op name precision cosine bar single share time memory"),
        (140, "index lanes op name shape precision cosine bar single share time memory"),
    ],
)
def test_with_all_that_can_be_known(width: int, expected: str) -> None:
    assert " ".join(column.id for column in columns(width, KNOWN)) == expected


def test_the_name_is_never_wider_than_the_longest_name() -> None:
    assert {column.id: column.width for column in columns(250, LONGEST)}["name"] == 60
    assert {column.id: column.width for column in columns(100, LONGEST | {"name": 9})}["name"] == 9


def test_a_title_can_be_replaced_and_has_its_room() -> None:
    found = {column.id: column for column in columns(200, KNOWN, {"memory": "~mem v"})}
    assert (found["memory"].title, found["memory"].width) == ("~mem v", 6)
    assert found["time"].title == "ms"


def test_a_wider_table_has_more_lanes() -> None:
    assert [lane_cap(width) for width in (20, 80, 99, 100, 139, 140, 1000)] == [6, 6, 6, 10, 10, 16, 16]
