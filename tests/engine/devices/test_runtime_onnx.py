"""Our graph under ONNX Runtime on a board's processor, with the calls of the vendor's runtime."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.devices.agent.onnx_model import open_onnx
from engine.devices.agent.runtime import ModelFault

X = np.arange(6, dtype=np.float32).reshape(1, 6)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A model of a sum and of a place, a float16 among its outputs."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("ArgMax", ["x"], ["place"], axis=1),
        helper.make_node("Cast", ["y"], ["half"], to=TensorProto.FLOAT16),
    ]
    outputs = [("y", TensorProto.FLOAT, [1, 6]), ("place", TensorProto.INT64, [1, 1])]
    outputs += [("half", TensorProto.FLOAT16, [1, 6])]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info(*one) for one in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def sent(array: np.ndarray[Any, Any] = X, **changes: Any) -> list[tuple[dict[str, Any], memoryview]]:
    told = {"dtype": str(array.dtype), "layout": "", "pass_through": False, "shape": list(array.shape)}
    return [({**told, **changes}, memoryview(bytearray(array.tobytes())))]


def test_a_graph_runs_and_floats_come_as_float32(path: str) -> None:
    with contextlib.closing(open_onnx(path, {})) as model:
        told = model.describe()
        assert told["api"].startswith("onnxruntime ") and told["driver"] == ""
        assert [(one["name"], one["dims"], one["dtype"]) for one in told["inputs"]] == [("x", [1, 6], "float32")]
        found = [np.frombuffer(c, t["dtype"]).reshape(t["shape"]) for t, c in model.run(sent())]
    assert [str(one.dtype) for one in found] == ["float32", "int64", "float32"]
    assert np.array_equal(found[0], X + X) and found[1].item() == 5 and np.array_equal(found[2], X + X)


def test_calls_are_timed_and_what_there_is_only_on_the_npu_is_said(path: str) -> None:
    with contextlib.closing(open_onnx(path, {})) as model:
        found = model.measure(sent(), 3, 1, contextlib.nullcontext())
        assert len(found["call_us"]) == 3 and min(found["call_us"]) > 0 and found["run_us"] == []
        for call in (model.layer_table, model.memory):
            with pytest.raises(ModelFault, match="ONNX Runtime"):
                call()


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ([], "0 inputs were given"),
        (sent(X.astype(np.float64)), "is float64 instead of float32"),
        (sent(shape=[7]), "does not fit its shape"),
        (sent(X[:, :5]), "does not run the model"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(path: str, inputs: Any, what: str) -> None:
    with contextlib.closing(open_onnx(path, {})) as model, pytest.raises(ModelFault, match=what):
        model.run(inputs)


def test_a_closed_model_and_a_damaged_one_are_faults(path: str, tmp_path: Path) -> None:
    model = open_onnx(path, {})
    model.close()
    model.close()
    with pytest.raises(ModelFault, match="is closed"):
        model.run(sent())
    (tmp_path / "damaged.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelFault, match="does not open the model"):
        open_onnx(str(tmp_path / "damaged.onnx"), {})


def test_a_board_without_onnxruntime_is_told_how_to_get_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelFault, match="no onnxruntime that works") as fault:
        open_onnx(path, {})
    assert "pip install onnxruntime" in fault.value.hint
