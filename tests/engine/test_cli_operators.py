"""The table of operators by framework and target."""

from __future__ import annotations

import json

import pytest

from engine import cli
from engine.cost.placement import place, place_all
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
