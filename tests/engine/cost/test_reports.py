"""What people and scripts read of an estimate: the printed forms, tables side by side, CSV, and the JSON document."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cost.reports import Estimated, document, layers_csv, memory_text, perf_text
from engine.cost.schema import estimate_schema
from engine.cost.side_by_side import (
    labels,
    largest_layers,
    memory_side_by_side,
    perf_side_by_side,
    slowest_layers,
)
from engine.estimates import CostTotals, LayerEstimate, MemoryBlock, MemoryEstimate, ModelEstimate

CONV = LayerEstimate(
    "stem/relu",
    "ConvRelu",
    "int8",
    ((1, 3, 480, 480), (16, 3, 3, 3), (16,)),
    ((1, 16, 240, 240),),
    *(24_883_200, 129_600, 68_000, 129_600),
    *(129.6, 692_144, 921_600, "compute", "high"),
    *(0.1875, 944, 1_612_800),
)
EXP = LayerEstimate(
    "head/exp",
    "Exp",
    "float16",
    ((1, 16, 240, 240),),
    ((1, 16, 240, 240),),
    *(0, 0, 0, 0),
    *(2000.5, 1_843_200, 1_843_200, "cpu", "low"),
    memory_bytes=3_686_400,
)
JOIN = LayerEstimate(
    "head/joined/with/a/name/that/goes/on/and/on/for/more/cells/than/a/table/gives",
    "Concat",
    "int8",
    ((1, 16, 8, 8),) * 5,
    ((1, 80, 8, 8),),
    *(0, 0, 433, 433),
    *(0.4, 5120, 5120, "memory", "medium"),
    memory_bytes=10_240,
)
SHAPE = LayerEstimate("sizes", "Shape", "", ((1, 3, 480, 480),), ((4,), ()), 0, 0, 0, 0, 0.0, 0, 0, "", "high")


def estimate(*layers: LayerEstimate, target: str = "rk3588", **changes: Any) -> ModelEstimate:
    time = sum(layer.time_us for layer in layers)
    totals = CostTotals(
        *(24_883_200, 129_600, 68_433, 130_033, time, 1e6 / (time + 100), 2_540_464, 2_769_920, 944, 3_686_400),
        *(100.0, time + 100),
    )
    blocks = (MemoryBlock("image", 0, 691_200, 0, 0), MemoryBlock("stem/relu", 691_200, 921_600, 0, 1))
    memory = MemoryEstimate(4_312_608, 1_756_160, 6_068_768, 1_700_000, blocks)
    plain = ModelEstimate("estimate", target, "int8", 1, 1, 1000.0, layers, totals, memory, ("bytes are counted",))
    return dataclasses.replace(plain, **changes)


WHOLE = estimate(CONV, EXP, JOIN, SHAPE)


# The printed forms


def test_the_total_time_is_said_to_be_an_estimate_and_for_what() -> None:
    lines = perf_text(WHOLE).splitlines()
    assert lines[1].strip() == "Performance"
    assert lines[2].strip() == "ESTIMATE, not a measurement"
    assert lines[3].strip() == "rk3588, int8, 1 core at 1000 MHz, batch 1"
    assert " Total Time(us): 2230.5 (layers 2130.5, overhead 100.0)" in lines
    assert " FPS: 448.33" in lines
    assert " Bound, of the layers' time: cpu 94 %, compute 6 %, memory <1 %" in lines
    assert " Certainty, of the layers' time: low 94 %, high 6 %, medium <1 %" in lines
    assert lines[-1] == "note: bytes are counted"
    assert "FullName" not in perf_text(WHOLE)


def test_the_layers_stand_in_the_toolkits_table() -> None:
    lines = perf_text(WHOLE, worst=None).splitlines()
    head = next(index for index, line in enumerate(lines) if line.split()[:1] == ["ID"])
    assert " ".join(lines[head].split()) == (
        "ID OpType DataType Target InputShape OutputShape Cycles(DDR/NPU/Total) Time(us) MacUsage(%) "
        "Read/Write(KB) Bound Certainty FullName"
    )
    assert " ".join(lines[head + 2].split()) == (
        "1 ConvRelu INT8 NPU (1,3,480,480),(16,3,3,3),(16) (1,16,240,240) 68000/129600/129600 129.6 18.8 "
        "675.9/900.0 compute high stem/relu"
    )
    assert lines[head + 3].split()[1:4] == ["Exp", "FLOAT16", "CPU"]
    assert "(1,16,8,8),(1,16,8,8),(1,16,8,8),... " in lines[head + 4]
    assert lines[head + 5].split()[1:4] == ["Shape", "-", "-"], "neither a precision nor anything to do"


def test_of_the_slowest_layers_their_share_is_told() -> None:
    lines = perf_text(WHOLE, worst=2).splitlines()
    assert [line.split()[0] for line in lines if line.endswith(("head/exp", "stem/relu"))] == ["2", "1"]
    assert " 2 of 4 layers shown, the slowest: 100 % of their time" in lines
    assert slowest_layers([Estimated("m", WHOLE)], 1) == ["head/exp"]
    assert slowest_layers([Estimated("m", WHOLE)], None) == [layer.name for layer in WHOLE.layers]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_a_narrow_terminal_leaves_out_columns_then_the_starts_of_names(width: int) -> None:
    for text in (perf_text(WHOLE, worst=None, width=width), memory_text(WHOLE, worst=None, width=width)):
        table = text.split("bytes are counted")[0].split("Total")[0].splitlines()
        assert max(map(len, table)) <= width
        assert "FullName" in text and any(line.endswith("/gives") for line in text.splitlines())
    assert "Time(us)" in perf_text(WHOLE, worst=None, width=width)
    assert "InputShape" not in perf_text(WHOLE, worst=None, width=80)
    assert "InputShape" in perf_text(WHOLE, worst=None)


# Python 3.10 reads no CSV with zeros in it.
_NAMES = st.text(min_size=1, max_size=90).filter(lambda name: "\0" not in name)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(names=st.lists(_NAMES, min_size=1, max_size=6, unique=True), width=st.integers(70, 220))
def test_whatever_the_names_a_form_keeps_to_the_terminal(names: list[str], width: int) -> None:
    made = estimate(*(dataclasses.replace(CONV, name=name) for name in names), notes=())
    cases = [Estimated("m", made), Estimated("m", dataclasses.replace(made, target="rk3566"))]
    for text in (
        *(perf_text(made, worst=None, width=width), memory_text(made, worst=None, width=width)),
        *(perf_side_by_side(cases, worst=None, width=width), memory_side_by_side(cases, worst=None, width=width)),
    ):
        lines = text.split("\n")
        assert all(line.isprintable() for line in lines)
        assert max(map(len, lines)) <= width
    rows = list(csv.DictReader(io.StringIO(layers_csv([cases[0]]), newline="")))
    assert [row["name"] for row in rows] == names


def test_names_cannot_move_the_cursor() -> None:
    odd = estimate(dataclasses.replace(CONV, name="a\x1b[2Jb", op="Conv\r"), notes=("\x07",))
    for text in (
        *(perf_text(odd, worst=None), memory_text(odd, worst=None)),
        *(perf_side_by_side([Estimated("m", odd, "\x1b.cfg"), Estimated("m", WHOLE)], worst=None),),
    ):
        assert text.replace("\n", "").isprintable()


def test_a_model_of_no_time_has_a_form_too() -> None:
    totals = dataclasses.replace(WHOLE.totals, time_us=0.0, fps=0.0)
    assert " FPS: 0.00" in perf_text(dataclasses.replace(WHOLE, layers=(SHAPE,), totals=totals), worst=3)
    assert " FPS: 0.00" in perf_text(dataclasses.replace(WHOLE, layers=(), totals=totals), worst=3)


def test_the_memory_form_is_the_guides() -> None:
    rule = "=" * 54
    assert memory_text(WHOLE, model_bytes=4_540_000) == "\n".join(
        [
            rule,
            "               Memory Profile Info Dump",
            "             ESTIMATE, not a measurement",
            "      rk3588, int8, 1 core at 1000 MHz, batch 1",
            rule,
            "",
            "NPU model memory detail(bytes):",
            "    Total Weight Memory: 4.11 MiB",
            "    Total Internal Tensor Memory: 1.67 MiB",
            "    Total Memory: 5.79 MiB",
            "",
            "INFO: When evaluating memory usage, we need consider",
            "the size of model, current model size is: 4.33 MiB",
            rule,
            "note: bytes are counted",
        ]
    )
    assert "INFO" not in memory_text(WHOLE)


def test_memory_in_use_is_told_by_layer() -> None:
    text = memory_text(WHOLE, worst=2)
    assert "2 of 4 layers shown, those with most in use" in text
    assert "At once in use: 1660.2 KB" in text
    assert largest_layers([Estimated("m", WHOLE)], 2) == ["head/exp", "stem/relu"]
    rows = [line.split() for line in text.splitlines() if line.endswith(("head/exp", "stem/relu"))]
    assert [row[-2] for row in rows] == ["3600.0", "1575.0"]


# Side by side


def test_targets_stand_side_by_side_with_their_totals() -> None:
    slow = estimate(dataclasses.replace(CONV, time_us=500.0), EXP, target="rk3566", notes=("bytes are counted", "slow"))
    cases = [Estimated("m.onnx", WHOLE), Estimated("m.onnx", slow)]
    lines = perf_side_by_side(cases, worst=None).splitlines()
    assert "ESTIMATE, not a measurement" in lines[2]
    assert lines[3:5] == [
        " rk3588: int8, 1 core at 1000 MHz, batch 1",
        " rk3566: int8, 1 core at 1000 MHz, batch 1",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines if not line.startswith("=")}
    assert rows["FullName"] == ["rk3588", "rk3566"]
    assert rows["stem/relu"] == ["129.6", "500.0"]
    assert rows["sizes"] == ["0.0", "-"], "a layer that the other does not have"
    assert rows["Layers(us)"] == ["2130.5", "2500.5"]
    assert rows["Total"] == ["Time(us)", "2230.5", "2600.5"]
    assert rows["FPS"] == ["448.33", "384.54"]
    assert lines[-2:] == ["note: bytes are counted", "note on rk3566: slow"]
    worst = perf_side_by_side(cases, worst=1).splitlines()
    assert [line.split()[0] for line in worst if "/" in line] == ["head/exp"]


def test_cfgs_side_by_side_say_where_precisions_differ() -> None:
    wide = estimate(dataclasses.replace(CONV, precision="float16", time_us=300.0), EXP)
    cases = [Estimated("m.onnx", WHOLE, "a.quantization.cfg"), Estimated("m.onnx", wide, "b.cfg")]
    rows = {line.split()[0]: line.split()[1:] for line in perf_side_by_side(cases, worst=None).splitlines()}
    assert rows["FullName"] == ["a", "b"]
    assert rows["stem/relu"] == ["int8", "129.6", "float16", "300.0"]
    assert rows["head/exp"] == ["2000.5", "2000.5"]


def test_memory_stands_side_by_side_too() -> None:
    cases = [Estimated("m.onnx", WHOLE), Estimated("m.onnx", estimate(CONV, target="rk3566"))]
    rows = {line.split()[0]: line.split()[1:] for line in memory_side_by_side(cases, worst=None).splitlines()}
    assert rows["stem/relu"] == ["1575.0", "1575.0"]
    assert rows["head/exp"] == ["3600.0", "-"]
    assert rows["Internal(KB)"] == ["1715.0", "1715.0"]


def test_rows_of_estimates_with_other_layers_keep_the_order_of_execution() -> None:
    parted = estimate(dataclasses.replace(CONV, name="stem/conv"), CONV, EXP, target="rk3566")
    lines = perf_side_by_side([Estimated("m", WHOLE), Estimated("m", parted)], worst=None).splitlines()
    assert [line.split()[0] for line in lines if "/" in line][:3] == ["stem/conv", "stem/relu", "head/exp"]


def test_seven_targets_fit_eighty_cells() -> None:
    names = ("rk3562", "rk3566", "rk3568", "rk3576", "rk3588", "rv1103", "rv1106")
    cases = [Estimated("m", estimate(CONV, EXP, JOIN, target=name)) for name in names]
    assert max(map(len, perf_side_by_side(cases, worst=None, width=80).splitlines())) <= 80
    mixed = dataclasses.replace(EXP, precision="int8")
    cases[0] = Estimated("m", estimate(CONV, mixed, JOIN, target="rk3562"))
    text = perf_side_by_side(cases, worst=None, width=100)
    assert max(map(len, text.splitlines())) <= 100
    assert "f16 2000.5" in text, "precisions in few letters"
    assert "float16 2000.5" in perf_side_by_side(cases, worst=None)


def test_labels_tell_the_estimates_apart() -> None:
    other = estimate(CONV, target="rk3566")
    assert labels([Estimated("m", WHOLE), Estimated("m", other)]) == ["rk3588", "rk3566"]
    assert labels([Estimated("m", WHOLE, "a.cfg"), Estimated("m", WHOLE, "b.cfg")]) == ["a", "b"]
    assert labels([Estimated("m", WHOLE, "x/a.cfg"), Estimated("m", WHOLE, "y/a.cfg")]) == ["x/a.cfg", "y/a.cfg"]
    both = [Estimated("m", one, cfg) for cfg in ("a.cfg", "b.cfg") for one in (WHOLE, other)]
    assert labels(both) == ["rk3588 a", "rk3566 a", "rk3588 b", "rk3566 b"]


# For scripts


def test_the_csv_has_a_line_a_layer_under_the_jsons_names() -> None:
    rows = list(csv.DictReader(io.StringIO(layers_csv([Estimated("m", WHOLE)]))))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(LayerEstimate)]
    assert rows[0]["in_shapes"] == "1x3x480x480 16x3x3x3 16"
    assert rows[3]["out_shapes"] == "4 scalar"
    assert [int(row["cycles_npu"]) for row in rows] == [129_600, 0, 0, 0]
    assert float(rows[1]["time_us"]) == 2000.5


def test_the_csv_of_several_says_which_each_line_is_of() -> None:
    cases = [Estimated("m", WHOLE, "a.cfg"), Estimated("m", estimate(CONV, target="rk3566"))]
    rows = list(csv.DictReader(io.StringIO(layers_csv(cases))))
    assert [(row["target"], row["cfg"]) for row in rows] == [("rk3588", "a.cfg")] * 4 + [("rk3566", "")]


def test_csv_cells_may_hold_anything() -> None:
    odd = estimate(dataclasses.replace(CONV, name='a,"b"\nc'))
    (row,) = csv.DictReader(io.StringIO(layers_csv([Estimated("m", odd)])))
    assert row["name"] == 'a,"b"\nc'


@pytest.mark.parametrize("blocks", [False, True])
def test_documents_are_as_the_schema_says(blocks: bool) -> None:
    validate = fastjsonschema.compile(estimate_schema())
    one = document([Estimated("m.onnx", WHOLE)], blocks=blocks)
    validate(json.loads(json.dumps(one)))
    assert list(one)[:3] == ["kind", "model", "cfg"]
    assert "estimates" not in one
    assert ("blocks" in one["memory"]) == blocks
    two = document([Estimated("m.onnx", WHOLE), Estimated("m.onnx", estimate(CONV), "a.cfg")], blocks=blocks)
    validate(json.loads(json.dumps(two)))
    assert {**two["estimates"][0], "estimates": two["estimates"]} == two
    assert [found["cfg"] for found in two["estimates"]] == [None, "a.cfg"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found.pop("kind"),
        lambda found: found.update(kind="measurement"),
        lambda found: found.update(unknown=1),
        lambda found: found["layers"][0].pop("certainty"),
        lambda found: found["layers"][0].update(bound="luck"),
        lambda found: found["layers"][0].update(macs=1.5),
        lambda found: found["layers"][0].update(utilisation=1.5),
        lambda found: found["layers"][0].update(precision="int4"),
        lambda found: found["layers"][0].update(precision="int8+"),
        lambda found: found["totals"].pop("fps"),
        lambda found: found["memory"].update(total_bytes=-1),
        lambda found: found["memory"]["blocks"][0].pop("first"),
        lambda found: found.update(estimates=[]),
    ],
)
def test_the_schema_refuses_what_is_none(spoil: Any) -> None:
    found = json.loads(json.dumps(document([Estimated("m.onnx", WHOLE)], blocks=True)))
    spoil(found)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        fastjsonschema.validate(estimate_schema(), found)


def test_the_schema_tells_of_every_value() -> None:
    schema = estimate_schema()
    places = [schema, *schema["definitions"].values()]
    for value in (value for place in places for value in place["properties"].values()):
        assert value.get("description") or "$ref" in value, value
