"""The runtime's tables of layers, of several versions, whole and damaged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.boards import MeasuredLayer
from engine.devices.perf_table import match_layers, parse_table

FIRST = "ID OpType DataType Target InputShape OutputShape"
NEW = tuple(f"{FIRST} Cycles(DDR/NPU/Total) Time(us) MacUsage(%) WorkLoad(0/1/2) RW(KB) FullName".split())
OLD = (*FIRST.split(), "DDR Cycles", "NPU Cycles", "Total Cycles", "Time(us)", "MacUsage(%)")
OLD = (*OLD, "Task Number", "Lut Number", "RW(KB)", "FullName")
WIDTHS = {"ID": 5, "OpType": 19, "DataType": 9, "Target": 7, "InputShape": 30, "OutputShape": 23, "FullName": 2}


def table(titles: tuple[str, ...], *rows: tuple[str, ...], end: str = "") -> str:
    """A table as the runtime prints it: columns of fixed widths, which long values push aside."""
    lines = [" " * 40 + "Network Layer Information Table", "-" * 120]
    for row in (titles, *rows):
        cells = [f"{cell:<{WIDTHS.get(title, 24) - 1}}" for cell, title in zip(row, titles, strict=True)]
        lines.append(" ".join(cells).rstrip())
    return "\n".join([*lines, "-" * 120, end, ""])


INPUT = ("1", "InputOperator", "UINT8", "CPU", "\\", "(1,3,8,8)", "0/0/0", "6", "", "0.0%/0.0%/0.0%", "0.19")
CONV = ("2", "ConvRelu", "INT8", "NPU", "(1,3,8,8),(8,3,3,3),(8)", "(1,8,8,8)", "146412/112896/146412", "425")


def test_a_table_of_todays_runtimes_is_read_column_by_column() -> None:
    text = table(
        NEW,
        (*INPUT, "InputOperator:x"),
        (*CONV, "3.91/0.00/0.00", "100.0%/0.0%/0.0%", "541.23", "Conv:conv_a"),
        end="Total Operator Elapsed Per Frame Time(us): 431\nTotal Memory Read/Write Per Frame Size(KB): 541.42",
    )
    assert parse_table(text).layers == (
        MeasuredLayer("InputOperator:x", "InputOperator", "CPU", 6.0, "", "UINT8", 0, 0, 0, 0.19),
        MeasuredLayer("Conv:conv_a", "ConvRelu", "NPU", 425.0, "", "INT8", 146412, 112896, 146412, 541.23),
    )
    assert parse_table(text).total_us == 431


def test_a_table_with_cycles_in_columns_of_their_own_is_read_too() -> None:
    row = (
        "3",
        "Conv",
        "FLOAT16",
        "NPU",
        "(1,3,8,8)",
        "(1,8,8,8)",
        "10",
        "20",
        "30",
        "44",
        "\\",
        "1",
        "",
        "2.5",
        "Conv:b",
    )
    assert parse_table(table(OLD, row)).layers == (
        MeasuredLayer("Conv:b", "Conv", "NPU", 44.0, "", "FLOAT16", 10, 20, 30, 2.5),
    )


@pytest.mark.parametrize("shape", ["(1,64,160,160)," * n + "(1,64,160,160)" for n in (1, 2, 5)])
def test_long_shapes_push_the_columns_behind_them_aside(shape: str) -> None:
    row = ("2", "Concat", "INT8", "NPU", shape, "(1,64,8,8)", "1/2/3", "17", "", "100.0%/0.0%/0.0%", "9.00", "Concat:c")
    (layer,) = parse_table(table(NEW, row)).layers
    assert (layer.time_us, layer.rw_kb, layer.name) == (17.0, 9.0, "Concat:c")


@pytest.mark.parametrize("name", ["Conv:a b: c", "Conv:output:0", "Add:/model.0/Add_output_0 (fused)", "Conv:12 34"])
def test_names_may_have_spaces_and_colons(name: str) -> None:
    (layer,) = parse_table(table(NEW, (*CONV, "", "", "541.23", name))).layers
    assert layer.name == name and layer.rw_kb == 541.23


def test_a_number_stays_in_its_column_when_those_before_it_are_empty() -> None:
    (layer,) = parse_table(table(NEW, (*CONV, "", "", "", "Conv:a"))).layers
    assert layer.rw_kb is None and layer.time_us == 425.0
    (layer,) = parse_table(table(NEW, (*CONV[:-1], "", "", "", "8.5", "Conv:a"))).layers
    assert layer.rw_kb == 8.5 and layer.time_us == 0.0


@pytest.mark.parametrize(
    ("shape", "usage", "load", "kilobytes"),
    [
        ("(1, 3, 8, 8),(8, 3, 3, 3)", "", "100.0%/0.0%/0.0%-Up:0.0%", "541.23"),
        ("\\", "\\", "\\", "541.23"),
        ("()", "-", "0", "541.23"),
    ],
)
def test_cells_may_be_written_in_other_ways(shape: str, usage: str, load: str, kilobytes: str) -> None:
    row = ("7", "exSwish", "W8A8", "NPU0", shape, "(1, 8)", "\\", "12.5", usage, load, kilobytes, "exSwish:s (fused) 2")
    (layer,) = parse_table(table(NEW, row)).layers
    assert (layer.time_us, layer.rw_kb, layer.name) == (12.5, 541.23, "exSwish:s (fused) 2")
    assert (layer.cycles_total, layer.dtype, layer.target) == (None, "W8A8", "NPU0")


def test_a_text_that_lost_its_spaces_is_still_read() -> None:
    text = table(NEW, (*CONV, "3.91/0.00/0.00", "100.0%/0.0%/0.0%", "541.23", "Conv:conv_a"))
    (layer,) = parse_table("\n".join(" ".join(line.split()) for line in text.split("\n"))).layers
    assert (layer.time_us, layer.rw_kb, layer.name) == (425.0, 541.23, "Conv:conv_a")


def test_the_ranking_behind_the_table_is_no_layer() -> None:
    ranking = "\n".join(
        [
            "OpType      CallNumber   CPUTime(us)  GPUTime(us)  NPUTime(us)  TotalTime(us)  TimeRatio(%)",
            "ConvRelu    10           0            0            425          425            98.6%",
            "1           10           0            0            425          425            98.6%",
        ]
    )
    text = table(NEW, (*CONV, "", "", "5", "Conv:a"), end="Total Operator Elapsed Time(us): 425\n" + ranking)
    assert [layer.name for layer in parse_table(text).layers] == ["Conv:a"]


def test_milliseconds_become_microseconds() -> None:
    titles = tuple("Time(ms)" if one == "Time(us)" else one for one in NEW)
    (layer,) = parse_table(table(titles, (*CONV[:-1], "0.425", "", "", "5", "Conv:a"))).layers
    assert math.isclose(layer.time_us, 425.0)


def test_a_last_line_that_was_cut_is_left_out_and_the_others_stay() -> None:
    text = table(NEW, (*CONV, "", "", "5", "Conv:a"), (*CONV, "", "", "5", "Conv:b"))
    cut = text[: text.index("Conv:b") - 60]
    assert [layer.name for layer in parse_table(cut).layers] == ["Conv:a"]


@pytest.mark.parametrize("text", ["", "not supported", "ID OpType\n1 Conv\n", "\0" * 100, "Time(us)\n" * 50])
def test_what_is_no_table_has_no_layers(text: str) -> None:
    assert parse_table(text).layers == ()


_PIECES = st.sampled_from([*NEW, *OLD, *CONV, "\n", "  ", "Total Time(us): 7", "1e99", "9" * 30, "é", "\\"])


@given(st.one_of(st.text(max_size=400), st.lists(_PIECES, max_size=60).map(" ".join)))
def test_any_text_gives_rows_of_sound_numbers(text: str) -> None:
    found = parse_table(" ".join(NEW) + "\n" + text)
    for layer in found.layers:
        assert math.isfinite(layer.time_us) and layer.time_us >= 0 and layer.op
    assert found.total_us is None or math.isfinite(found.total_us)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.booleans(), st.integers(0, 10**9)), max_size=8), st.data())
def test_whatever_is_printed_in_columns_comes_back(rows: list[tuple[int, bool, int]], data: st.DataObject) -> None:
    printed = []
    for index, (time, mac, kilobytes) in enumerate(rows):
        shape = ",".join(["(1,8,8,8)"] * data.draw(st.integers(1, 6)))
        usage = "3.9/0.0/0.0" if mac else ""
        cells = (str(index), "Conv", "INT8", "NPU", shape, "(1,8)", "1/2/3", str(time), usage, "", str(kilobytes))
        printed.append((*cells, f"Conv:layer {index}"))
    found = parse_table(table(NEW, *printed)).layers
    assert [(one.time_us, one.rw_kb, one.name) for one in found] == [
        (time, kilobytes, f"Conv:layer {index}") for index, (time, _, kilobytes) in enumerate(rows)
    ]


def _row(name: str) -> MeasuredLayer:
    return MeasuredLayer(name, "Conv", "NPU", 1.0)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("Conv:conv_a", "relu_out"),
        ("ConvRelu:/model.0/act/Relu_output_0_conv", "/model.0/act/Relu_output_0"),
        ("Conv:/model.0/act/Relu_output_0", "/model.0/act/Relu_output_0"),
        ("Conv:conv_ab", ""),
        ("Conv:conv_a_2conv0", "relu_out"),
        ("Conv:conv_a/more", "relu_out"),
        ("Identity:out:0", "out:0"),
        ("out:0", "out:0"),
        ("OutputOperator:nothing", ""),
        ("", ""),
    ],
)
def test_the_runtimes_names_lead_to_our_layers(name: str, layer: str) -> None:
    layers = {"relu_out": ["conv_a", "relu_a"], "/model.0/act/Relu_output_0": ["/model.0/conv/Conv"], "out:0": []}
    assert match_layers([_row(name)], layers)[0].layer == layer


def test_the_longest_name_that_is_known_counts() -> None:
    found = match_layers([_row("Conv:block_1_conv_add")], {"block": [], "block_1_conv": [], "block_1": []})
    assert found[0].layer == "block_1_conv"
