"""Where TensorFlow graphs begin and end, what their inputs and outputs are called, and how large they are."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tensorflow_models import Function, add, constant, function, graph, placeholder, save

from engine.errors import ConfigError, ModelError, UnsupportedOperator
from engine.frontends import tensorflow
from engine.graph.execution import run_float
from engine.graph.provenance import sources
from tests.zoo import FOLDER, needs_zoo

ZOO = sorted(FOLDER.glob("tensorflow/*/meta.json"))


def detector() -> Any:
    """A picture that is decoded beyond what can be run, a convolution, two outputs and a loss that nobody needs."""
    g = graph()
    placeholder(g, "file", (), "string")
    add(g, "DecodeJpeg", "decode", ["file"])
    placeholder(g, "picture", (None, None, None, 3))
    constant(g, "mean", 127.5)
    add(g, "Sub", "Preprocessor/sub", ["picture", "mean"], T="float32")
    constant(g, "weights", np.ones((1, 1, 3, 2)))
    add(g, "Conv2D", "conv", ["Preprocessor/sub", "weights"], strides=[1, 1, 1, 1], padding="SAME")
    constant(g, "axis", 3, "int32")
    add(g, "Split", "split", ["axis", "conv"], num_split=2)
    add(g, "Relu", "concat", ["split"])
    add(g, "Sigmoid", "concat_1", ["split:1"])
    add(g, "NonMaxSuppressionV3", "Postprocessor/nms", ["concat", "concat_1"])
    return g


def shapes(values: list[ir.Value] | Any) -> dict[str, list[Any]]:
    return {value.name: list(value.shape.dims) for value in values}


def test_a_graph_is_cut_at_operations_so_that_what_lies_beyond_does_not_matter(tmp_path: Path) -> None:
    path = save(detector(), tmp_path)
    model = tensorflow.load(path, ["Preprocessor/sub"], [[1, 4, 6, 3]], ["concat", "concat_1"])
    assert shapes(model.graph.inputs) == {"Preprocessor/sub": [1, 4, 6, 3]}
    assert shapes(model.graph.outputs) == {"concat": [1, 4, 6, 1], "concat_1": [1, 4, 6, 1]}
    found = run_float(model, {"Preprocessor/sub": np.ones((1, 4, 6, 3), np.float32)})
    assert np.all(found[0] == 3.0)
    assert {name for node in model.graph for name in sources(node)} >= {"conv", "split", "concat", "concat_1"}


def test_tensors_are_named_like_their_operation_and_both_spellings_are_understood(tmp_path: Path) -> None:
    path = save(detector(), tmp_path)
    model = tensorflow.load(path, ["picture:0"], [[1, 4, 4, 3]], ["split:1", "concat:0"])
    assert [value.name for value in model.graph.inputs] == ["picture"]
    assert [value.name for value in model.graph.outputs] == ["split:1", "concat"]


def test_unknown_sizes_other_than_the_batch_are_asked_for(tmp_path: Path) -> None:
    path = save(detector(), tmp_path)
    with pytest.raises(ConfigError, match=r"'picture' \[1, \?, \?, 3\]"):
        tensorflow.load(path, outputs=["concat"])
    with pytest.raises(ConfigError, match=r"no operation 'concat_3'.*'concat_1'"):
        tensorflow.load(path, outputs=["concat_3"])
    with pytest.raises(ConfigError, match="does not fit"):
        tensorflow.load(path, ["picture"], [[1, 4, 4, 1]], ["concat"])
    with pytest.raises(ConfigError, match="constant"):
        tensorflow.load(path, ["mean"], [[1]], ["concat"])
    with pytest.raises(ConfigError, match="twice"):
        tensorflow.load(path, ["picture"], [[1, 4, 4, 3]], ["concat", "concat:0"])


def test_without_names_a_graph_begins_at_placeholders_and_ends_at_what_nothing_reads(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (None, 4))
    placeholder(g, "unused", (None, 7))
    add(g, "Relu", "a", ["x"])
    add(g, "Tanh", "b", ["a"])
    add(g, "Exp", "c", ["a"])
    add(g, "Shape", "size", ["a"])
    constant(g, "alone", [1.0])
    add(g, "NoOp", "init", ["^b"])
    model = tensorflow.load(save(g, tmp_path))
    assert shapes(model.graph.inputs) == {"x": [1, 4]}
    assert shapes(model.graph.outputs) == {"b": [1, 4], "c": [1, 4]}


def test_a_tensor_inside_brings_its_own_size(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (2, 3))
    constant(g, "w", np.ones((3, 5)))
    add(g, "MatMul", "inner", ["x", "w"])
    add(g, "Relu", "y", ["inner"])
    model = tensorflow.load(save(g, tmp_path), inputs=["inner"])
    assert shapes(model.graph.inputs) == {"inner": [2, 5]}


def test_a_probability_of_dropout_is_an_input_and_training_is_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    g = graph()
    placeholder(g, "x", (1, 4))
    placeholder(g, "keep_prob", None)
    placeholder(g, "is_training", None, "bool")
    constant(g, "size", [1, 4], "int32")
    add(g, "RandomUniform", "random", ["size"], dtype="float32")
    add(g, "AddV2", "shifted", ["keep_prob", "random"])
    add(g, "Floor", "mask", ["shifted"])
    add(g, "RealDiv", "scaled", ["x", "keep_prob"])
    add(g, "Mul", "dropped", ["scaled", "mask"])
    add(g, "Switch", "switch", ["x", "is_training"])
    add(g, "Switch", "trained", ["dropped", "is_training"])
    add(g, "Merge", "merged", ["switch", "trained:1"])
    add(g, "AddV2", "y", ["merged", "dropped"])
    with caplog.at_level(logging.WARNING):
        model = tensorflow.load(save(g, tmp_path))
    assert "is_training" in caplog.text
    assert shapes(model.graph.inputs) == {"x": [1, 4], "keep_prob": []}
    x = np.array([[1, -2, 3, 4]], np.float32)
    assert np.allclose(run_float(model, {"x": x, "keep_prob": np.array(1, np.float32)})[0], 2 * x)
    assert np.allclose(run_float(model, {"x": x, "keep_prob": np.array(0.5, np.float32)})[0], 3 * x)


def test_channels_first_stay_first(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (None, 3, 6, 6))
    constant(g, "w", np.ones((3, 3, 3, 2)))
    strides = [1, 1, 2, 2]
    add(g, "Conv2D", "conv", ["x", "w"], strides=strides, padding="SAME", data_format="NCHW")
    constant(g, "b", [0.5, 1.0])
    add(g, "BiasAdd", "biased", ["conv", "b"], data_format="NCHW")
    add(g, "MaxPool", "y", ["biased"], strides=strides, ksize=strides, padding="VALID", data_format="NCHW")
    model = tensorflow.load(save(g, tmp_path))
    assert [node.op_type for node in model.graph] == ["Conv", "Add", "MaxPool"]
    found = run_float(model, {"x": np.ones((1, 3, 6, 6), np.float32)})[0]
    assert found.shape == (1, 2, 1, 1) and found.ravel().tolist() == [27.5, 28.0]


def test_all_that_is_not_supported_is_told_at_once(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (1, 4))
    add(g, "Bessel", "one", ["x"])
    add(g, "Relu", "between", ["one"])
    add(g, "BlockLSTM", "two", ["between"])
    add(g, "FFT", "three", ["x"])
    with pytest.raises(UnsupportedOperator) as caught:
        tensorflow.load(save(g, tmp_path))
    assert all(text in str(caught.value) for text in ("Bessel (one)", "BlockLSTM (two)", "FFT (three)"))


def test_a_branch_that_data_decides_is_selected_from_both(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (1, 4))
    placeholder(g, "training", (), "bool")
    add(g, "Switch", "switch", ["x", "training"])
    add(g, "Relu", "off", ["switch"])
    add(g, "Neg", "on", ["switch:1"])
    add(g, "Merge", "merged", ["on", "off"])
    add(g, "If", "if", ["training", "merged"], then_branch=Function("then"), else_branch=Function("else"))
    add(g, "Identity", "y", ["if"])
    add(function(g, "then", ["a"], {"r": "double:z:0"}), "AddV2", "double", ["a", "a"])
    add(function(g, "else", ["a"], {"r": "root:y:0"}), "Sqrt", "root", ["a"])
    model = tensorflow.load(save(g, tmp_path), ["x", "training"], [[1, 4], []])
    x = np.array([[1, -4, 9, 0]], np.float32)
    assert run_float(model, {"x": x, "training": np.array(True)})[0].tolist() == (-2 * x).tolist()
    assert run_float(model, {"x": x, "training": np.array(False)})[0].tolist() == [[1, 0, 3, 0]]


def test_loops_that_data_decides_are_refused(tmp_path: Path) -> None:
    g = graph()
    placeholder(g, "x", (1, 4))
    placeholder(g, "count", (), "int32")
    constant(g, "zero", 0, "int32")
    add(g, "While", "loop", ["zero", "count", "x"], cond=Function("less"), body=Function("step"))
    add(g, "Identity", "y", ["loop:2"])
    less = function(g, "less", ["i", "n", "t"], {"more": "compare:z:0"})
    add(less, "Less", "compare", ["i", "n"])
    step = function(g, "step", ["i", "n", "t"], {"next": "sum:z:0", "limit": "n", "result": "double:z:0"})
    add(step, "AddV2", "double", ["t", "t"])
    constant(step, "one", 1, "int32")
    add(step, "AddV2", "sum", ["i", "one:output:0"])
    with pytest.raises(UnsupportedOperator, match=r"While \(loop: how often the loop runs depends on data\)"):
        tensorflow.load(save(g, tmp_path))
    g.node[1].CopyFrom(graph().node.add(name="count", op="Const"))
    g.node[1].attr["value"].tensor.CopyFrom(_number(3))
    model = tensorflow.load(save(g, tmp_path))
    assert run_float(model, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[8.0] * 4]
    g.node[1].attr["value"].tensor.CopyFrom(_number(100_000))
    with pytest.raises(ModelError, match=r"more than|too long"):
        tensorflow.load(save(g, tmp_path))


def _number(value: int) -> Any:
    g = graph()
    constant(g, "n", value, "int32")
    return g.node[0].attr["value"].tensor


@needs_zoo
@pytest.mark.parametrize("meta", ZOO, ids=lambda path: path.parent.name)
def test_models_compute_what_tensorflow_computes(meta: Path) -> None:
    described = json.loads(meta.read_text())
    names, outputs = list(described["inputs"]), list(described["outputs"])
    stored = np.load(meta.with_name("io.npz"))
    sizes = [described["inputs"][name]["shape"] for name in names]
    model = tensorflow.load(meta.with_name(next(iter(described["files"]))), names, sizes, outputs)
    assert [value.name for value in model.graph.outputs] == [name.removesuffix(":0") for name in outputs]
    found = run_float(model, {name.removesuffix(":0"): stored[f"in|{name}"] for name in names})
    for name, array in zip(outputs, found, strict=True):
        expected = stored[f"out|{name}"]
        cosine = np.vdot(array, expected) / (np.linalg.norm(array) * np.linalg.norm(expected))
        assert cosine >= 0.9999
        # There, a logarithm of sums that nearly vanish shows in which order they were summed: TensorFlow's own output
        # moves as much between its two kernels.
        allowed = 2e-3 if meta.parent.name == "basic_pitch" else 1e-3
        assert np.max(np.abs(array - expected)) <= allowed * np.ptp(expected)
