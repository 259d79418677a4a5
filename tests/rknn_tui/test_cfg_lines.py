"""The lines of a cfg: their colours, the tensors that they are about, and a readable difference."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.quantization.table import Row, Table, to_cfg
from rknn_tui.pieces import Line
from rknn_tui.text.cfg_lines import diff_lines, key_of, line_of, pieces_of, tensor_at
from rknn_tui.text.text_changes import split_lines

ROW = Row("int8", -1.0, 3.0, 0.0157, -64, -1.0, 3.0)
TEXT = to_cfg(Table({"x": ROW, "conv/out:0": ROW, "it's": ROW}, {"conv/out:0": "float16"}), ["made for a test"])
names = st.text(min_size=1, max_size=12) | st.text("ab.:/# '\"-", min_size=1, max_size=12)


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def roles(line: str) -> dict[str, str]:
    return {text.strip(): role for text, role in pieces_of(line) if text.strip()}


@given(st.text() | st.text("ab: #'\"-&*int8float16\\\t", max_size=60))
@example("    dtype: int8 # why\n")
@example("'" * 300)
@example("a" + " " * 5_000)
def test_the_pieces_are_the_line(line: str) -> None:
    pieces = pieces_of(line)
    assert plain(pieces) == line
    assert all(text for text, _ in pieces)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("custom_quantize_layers:", {"custom_quantize_layers:": "title"}),
        ("quantize_parameters: {}", {"quantize_parameters:": "title", "{}": "text"}),
        ("    p2o.Add.3: float16  # by hand", {"p2o.Add.3:": "text", "float16": "float16", "# by hand": "comment"}),
        ("    conv:0: int16", {"conv:0:": "text", "int16": "int16"}),
        ("        dtype: int8", {"dtype:": "muted", "int8": "int8"}),
        ("        dtype: float32", {"dtype:": "muted", "float32": "text"}),
        ("        -   -15.45869255065918", {"-   -15.45869255065918": "text"}),
        ("        min: &id001", {"min:": "muted", "&id001": "muted"}),
        ("        max: *id001", {"max:": "muted", "*id001": "muted"}),
        ("    x#y: int8#", {"x#y:": "text", "int8#": "text"}),
        ("# int8: a comment", {"# int8: a comment": "comment"}),
        ("    int8_conv: int8", {"int8_conv:": "text", "int8": "int8"}),
    ],
)
def test_each_part_of_a_line_has_its_role(line: str, expected: dict[str, str]) -> None:
    assert roles(line) == expected


def test_every_line_knows_its_tensor() -> None:
    lines = split_lines(TEXT)
    tensors = [tensor_at(lines, row) for row in range(len(lines))]
    assert tensors[:5] == [None, None, "conv/out:0", None, "x"]
    assert tensors[4:20] == ["x"] * 16
    assert tensors[20:36] == ["conv/out:0"] * 16
    assert tensors[36:] == ["it's"] * 17


def test_a_tensor_is_found_among_the_wishes_first() -> None:
    lines = split_lines(TEXT)
    assert line_of(lines, "conv/out:0") == 2
    assert line_of(lines, "x") == 4
    assert line_of(lines, "it's") == 36
    assert line_of(lines, "conv/out") is None
    assert line_of(lines, "min") is None, "a key of a row is no tensor"
    assert line_of(["a: b\n"], "a") is None
    assert line_of([""], "x") is None


@given(st.lists(names, unique=True, min_size=1, max_size=4))
@example(["min", "quantize_parameters", "no", "1.10"])
@example(['"', "'", "a: b", "#c", " d "])
def test_whatever_a_tensor_is_called_its_line_is_found(tensors: list[str]) -> None:
    lines = split_lines(to_cfg(Table(dict.fromkeys(tensors, ROW), {tensors[-1]: "int16"})))
    for place, tensor in enumerate(tensors):
        row = 1 if place == len(tensors) - 1 else 3 + place * 16
        if key_of(lines[row]) is None:
            # A name that YAML writes on several lines, or that only an escape can spell, has no line of its own.
            assert not tensor.isprintable() or len(tensor) > 1000
            continue
        assert line_of(lines, tensor) == row
        assert tensor_at(lines, row) == tensor
        assert tensor_at(lines, 3 + place * 16 + 9) == tensor


@given(st.text("ab: \n#'\"-{}", max_size=80), st.integers(0, 30))
def test_a_broken_text_is_no_reason_to_fail(text: str, row: int) -> None:
    lines = split_lines(text)
    tensor = tensor_at(lines, min(row, len(lines) - 1))
    assert tensor is None or tensor in text
    found = line_of(lines, "a")
    assert found is None or key_of(lines[found]) == "a"


def test_a_difference_tells_which_tensor_and_which_value() -> None:
    changed = TEXT.replace("conv/out:0: float16", "x: int16").replace("-   -64", "-   -63", 1)
    assert [plain(line) for line in diff_lines(TEXT, changed)] == [
        "-  3     conv/out:0: float16",
        "+  3     x: int16",
        "   5     x:",
        "  15         zero_point:",
        "- 16         -   -64",
        "+ 16         -   -63",
    ]
    assert diff_lines(TEXT, TEXT) == []


def test_a_difference_names_each_tensor_once() -> None:
    changed = TEXT.replace("-   -1.0", "-   -2.0")
    shown = [plain(line) for line in diff_lines(TEXT, changed)]
    assert shown.count("  21     conv/out:0:") == 1
    assert [line for line in shown if line.startswith("  ") and line.endswith(":0:")] == ["  21     conv/out:0:"]
    assert sum(line.startswith("+") for line in shown) == 6


def test_a_whole_row_that_came_is_shown_without_lines_around_it() -> None:
    more = to_cfg(
        Table({"x": ROW, "conv/out:0": ROW, "it's": ROW, "y": ROW}, {"conv/out:0": "float16"}), ["made for a test"]
    )
    assert {plain(line)[0] for line in diff_lines(TEXT, more)} == {"+"}
    assert len(diff_lines(TEXT, more)) == 16
