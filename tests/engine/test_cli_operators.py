"""The table of operators by framework and target."""

from __future__ import annotations

import json

import pytest

from engine import cli
from engine.cost.placement import CONDITIONS, Facts, Place, on_several_cores, place, place_all, placed
from engine.targets import TARGETS


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
    code = cli.main(["ops", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_every_framework_has_its_rows_and_every_target_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = ask(capsys)
    assert code == 0
    rows = found["operators"]
    assert {row["framework"] for row in rows} == {
        *("ONNX", "TensorFlow Lite", "TensorFlow", "Caffe", "Darknet", "PyTorch"),
    }
    assert all(set(row["targets"]) == set(TARGETS) for row in rows)  # type: ignore[call-overload]
    by_name = {(row["framework"], row["operator"]): row for row in rows}
    assert len(by_name) == len(rows)
    assert by_name["ONNX", "Conv"]["targets"] == dict.fromkeys(TARGETS, "npu")
    assert by_name["TensorFlow Lite", "CONV_2D"]["becomes"]
    assert by_name["Caffe", "Convolution"]["targets"] == dict.fromkeys(TARGETS, "npu")


def test_one_framework_and_one_target_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = ask(capsys, "--framework", "darknet", "--target", "RK3566")
    assert code == 0
    assert {row["framework"] for row in found["operators"]} == {"Darknet"}
    assert all(set(row["targets"]) == {"rk3566"} for row in found["operators"])  # type: ignore[call-overload]
    code, wrong = ask(capsys, "--framework", "darkent")
    assert code != 0
    assert "darknet" in json.dumps(wrong)


def test_a_row_is_on_the_npu_only_where_all_that_it_becomes_is() -> None:
    assert place("Softmax", "rk3588") == "npu"
    assert place("Softmax", "rk3566") == "cpu"
    assert place("LayerNormalization", "rv1106") == "cpu"
    assert place_all(("Conv", "Exp"), "rk3588") == "cpu"
    assert place_all(("Conv", "NonZero"), "rk3588") == "unknown"
    assert place_all(("Conv", "Relu"), "rk3588") == "npu"
    assert place_all((), "rk3588") == "npu"


def test_the_documentation_tells_of_operators_that_were_never_seen() -> None:
    assert place("TopK", "rk3588") == "cpu"
    assert place("Where", "rk3566") == "npu"
    assert place("Greater", "rk3576") == "npu"
    assert place("Greater", "rk3588") == "cpu"
    assert place("LSTM", "rv1106") == "npu"
    # The runtime of the small chips has few operators for the processor.
    assert place("TopK", "rv1103") == "unknown"
    assert place("ScatterND", "rv1103") == "cpu"
    assert place("NonMaxSuppression", "rk3588") == "unknown"


@pytest.mark.parametrize("target", TARGETS)
def test_exponentials_and_logarithms_are_computed_by_the_processor(target: str) -> None:
    assert {placed(operator, "int8", target) for operator in ("Exp", "Log")} == {"cpu"}


@pytest.mark.parametrize(
    ("operator", "precision", "target", "facts", "expected"),
    [
        ("AveragePool", "int8", "rk3588", Facts(kernel=(3, 3)), "npu"),
        ("AveragePool", "int8", "rk3588", Facts(kernel=(3, 3), padded=True), "cpu"),
        ("AveragePool", "int8", "rk3588", Facts(kernel=(3, 3), padded=True, counts_padding=True), "npu"),
        ("AveragePool", "int8", "rk3588", Facts(kernel=(9, 9)), "unknown"),
        ("Div", "int8", "rk3588", Facts(), "cpu"),
        ("Div", "int8", "rk3588", Facts(by_constant=True), "npu"),
        ("Div", "float16", "rk3588", Facts(), "npu"),
        ("Reshape", "int8", "rk3588", Facts(rank=2), "cpu"),
        ("Reshape", "int8", "rk3588", Facts(rank=4), "npu"),
        ("Reshape", "int8", "rk3576", Facts(rank=2), "npu"),
        ("Squeeze", "float16", "rk3566", Facts(rank=3), "cpu"),
        ("Softmax", "int8", "rk3568", Facts(rank=4), "cpu"),
        ("Softmax", "float16", "rk3588", Facts(rank=4), "npu"),
        ("Transpose", "int8", "rk3566", Facts(permutation=(0, 2, 3, 1), shape=(1, 8, 8, 8)), "cpu"),
        ("Transpose", "int8", "rk3588", Facts(permutation=(0, 3, 1, 2), shape=(1, 8, 64, 64)), "npu"),
        ("Transpose", "int8", "rk3588", Facts(permutation=(0, 3, 1, 2), shape=(1, 8, 256, 2560)), "cpu"),
        ("Transpose", "int8", "rk3576", Facts(permutation=(0, 3, 1, 2), shape=(1, 8, 256, 2560)), "npu"),
        ("LayerNormalization", "int8", "rv1103", Facts(rank=4), "cpu"),
        ("ReduceMean", "int8", "rk3588", Facts(axes=(2, 3)), "npu"),
        ("ReduceMean", "int8", "rk3588", Facts(axes=(1,)), "unknown"),
        ("ReduceSum", "int8", "rk3588", Facts(axes=(1,)), "npu"),
        ("ReduceSum", "int8", "rk3588", Facts(axes=(2, 3)), "cpu"),
        ("Resize", "int8", "rk3588", Facts(scales=(2.0, 2.0), mode="nearest"), "npu"),
        ("Resize", "int8", "rk3588", Facts(scales=(1.5, 1.5), mode="linear"), "cpu"),
        ("Resize", "int8", "rk3588", Facts(scales=(33.0, 33.0), mode="linear", shape=(1, 256, 1, 1)), "npu"),
        ("Resize", "int8", "rv1106", Facts(scales=(1.5, 1.5), mode="linear"), "unknown"),
        ("Slice", "int8", "rk3588", Facts(steps=(1, 1)), "npu"),
        ("Slice", "int8", "rk3588", Facts(steps=(2,)), "cpu"),
        ("Pow", "int8", "rk3588", Facts(exponent=2.0), "npu"),
        ("Pow", "int8", "rk3588", Facts(exponent=1.7), "cpu"),
        ("Pad", "int8", "rk3588", Facts(mode="edge"), "cpu"),
        ("Conv", "int8", "rk3588", Facts(), "npu"),
    ],
)
def test_where_a_node_runs_depends_on_what_it_does(
    operator: str, precision: str, target: str, facts: Facts, expected: Place
) -> None:
    assert placed(operator, precision, target, facts) == expected


def test_a_node_of_which_nothing_is_told_runs_where_its_operator_usually_does() -> None:
    for operator in (*CONDITIONS, "Conv", "Softmax", "TopK", "NonZero"):
        for target in TARGETS:
            assert placed(operator, "float16", target) == place(operator, target)


def test_cores_share_plain_convolutions_and_not_those_with_a_curve() -> None:
    assert on_several_cores("ConvAddRelu", "rk3588")
    assert on_several_cores("Add", "rk3576")
    assert not on_several_cores("ConvExSwish", "rk3588")
    assert not on_several_cores("ConvTranspose", "rk3588")
    assert not on_several_cores("Conv", "rk3566")
