"""A model is cut at the tensors that a person names, takes the sizes they give, and says what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, EngineError, ModelError, UnsupportedOperator
from engine.frontends.onnx import load
from engine.graph.execution import run_float
from engine.graph.query import static_shape
from tests.engine.frontends.model_files import IMAGE, floats, model, save, whole

WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4)}

CHAIN = """
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (a)
    p = GlobalAveragePool (r)
    s = Sigmoid (p)
    y = Mul (r, s)
"""


def test_a_graph_is_cut_at_tensors_inside(tmp_path: Path) -> None:
    path = save(model(IMAGE, CHAIN, WEIGHTS, ["y", "s"]), tmp_path)
    graph = load(path, ["r"], [[1, 4, 8, 8]], ["s", "p"])
    assert [v.name for v in graph.graph.inputs] == ["r"] and [v.name for v in graph.graph.outputs] == ["s", "p"]
    assert [node.op_type for node in graph.graph] == ["GlobalAveragePool", "Sigmoid"]
    r = floats(1, 4, 8, 8)
    pooled = r.mean((2, 3), keepdims=True)
    found = run_float(graph, {"r": r})
    np.testing.assert_allclose(found[1], pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0], 1 / (1 + np.exp(-pooled)), rtol=1e-5, atol=1e-6)


def test_the_size_of_a_tensor_inside_is_known_when_the_inputs_are(tmp_path: Path) -> None:
    body = (
        "a = Relu (x)\nn = Shape (a)\nz = Gather (n, zero)\nu = Unsqueeze (z, nil)\nt = Concat <axis = 0> (u, rest)\n"
    )
    constants = {"zero": np.int64(0), "nil": whole(0), "rest": whole(-1)}
    path = save(model(IMAGE, body + "f = Reshape (a, t)\ny = Sigmoid (f)", constants), tmp_path)
    graph = load(path, ["f"])
    assert static_shape(graph.graph.inputs[0]) == (1, 192)
    assert [node.op_type for node in graph.graph] == ["Sigmoid"]


def test_inputs_are_reordered_and_those_still_needed_come_last(tmp_path: Path) -> None:
    path = save(model({"x": (1, 2), "z": (1, 3), "v": (1, 4)}, "y = Concat <axis = 1> (x, z, v)"), tmp_path)
    assert [v.name for v in load(path, ["v", "x"]).graph.inputs] == ["v", "x", "z"]
    graph = load(path, ["v", "x", "z"], [[1, 4], [1, 2], [1, 3]])
    assert [static_shape(v) for v in graph.graph.inputs] == [(1, 4), (1, 2), (1, 3)]


def test_what_is_cut_off_may_be_anything(tmp_path: Path) -> None:
    proto = model(IMAGE, "a = Relu (x)\nb = Relu (a)\nn = NonZero (b)\ny = Cast <to = 1> (n)")
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Decode", "somewhere"
    proto.opset_import.add(domain="somewhere", version=1)
    path = save(proto, tmp_path)
    with pytest.raises(UnsupportedOperator, match=r"somewhere\.Decode \(Relu_a\)"):
        load(path)
    graph = load(path, ["a"], [[1, 2, 3]], ["b"])
    assert [node.op_type for node in graph.graph] == ["Relu"]
    with pytest.raises(ModelError, match=r"NonZero_n.*depends on the data"):
        load(path, ["a"], [[1, 2, 3]])


def test_a_tensor_inside_without_a_known_size_needs_one(tmp_path: Path) -> None:
    path = save(model({"x": ("batch", 3, None, 8)}, "a = Relu (x)\ny = Sigmoid (a)"), tmp_path)
    with pytest.raises(ConfigError, match=r"'a' \[batch, 3, \?, 8\]"):
        load(path, ["a"])
    assert static_shape(load(path, ["a"], [[2, 3, 4, 8]]).graph.outputs[0]) == (2, 3, 4, 8)


@pytest.mark.parametrize(
    ("cut", "message", "hint"),
    [
        ({"inputs": ["X1"]}, "no tensor 'X1'", "'x1'"),
        ({"outputs": ["scors"]}, "no tensor 'scors'", "'scores'"),
        ({"outputs": []}, "is an empty list", "name at least one tensor"),
        ({"inputs": []}, "is an empty list", "name at least one tensor"),
        ({"inputs": ["x1", "x1"]}, "names ['x1'] twice", ""),
        ({"outputs": ["scores", "scores"]}, "names ['scores'] twice", ""),
        ({"outputs": "scores"}, "expected a list of names", ""),
        ({"inputs": ["w"]}, "'w' is a constant", ""),
        ({"inputs": [3]}, "no tensor 3", "known"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(cut: dict[str, object], message: str, hint: str, tmp_path: Path) -> None:
    path = save(model({"x1": (1, 3, 8, 8)}, "a = Conv (x1, w)\nscores = Relu (a)", WEIGHTS, ["scores"]), tmp_path)
    with pytest.raises(EngineError) as caught:
        load(path, **cut)  # type: ignore[arg-type]
    assert message in caught.value.what and hint in caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[1, 3, 8, 8], [1, 2]], "gives 2 shapes for 1 inputs (x)"),
        ([], "gives 0 shapes"),
        ([[1, 3, 8]], "does not fit the model's [n, 3, ?, 8]"),
        ([[1, 4, 8, 8]], "does not fit the model's [n, 3, ?, 8]"),
        ([[1, 3, 8, 9]], "does not fit"),
        ([[1, 3, -1, 8]], "positive whole numbers"),
        ([[1, 3, 0, 8]], "positive whole numbers"),
        ([[1, 3, 8.0, 8]], "positive whole numbers"),
        ([[1, 3, True, 8]], "positive whole numbers"),
        ([[1, 3, "8", 8]], "positive whole numbers"),
        ([1, 3, 8, 8], "gives 4 shapes for 1 inputs"),
        ([7], "positive whole numbers"),
        (["1388"], "positive whole numbers"),
        ([None], "positive whole numbers"),
        ([[1, 3, 1 << 40, 8]], "too large"),
    ],
)
def test_wrong_sizes_are_refused(sizes: list[object], message: str, tmp_path: Path) -> None:
    path = save(model({"x": ("n", 3, None, 8)}, "y = Relu (x)"), tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path, None, sizes)  # type: ignore[arg-type]
    assert message in caught.value.what and "input_size_list" in caught.value.where


def test_dynamic_inputs_are_named_with_their_dimensions(tmp_path: Path) -> None:
    inputs = {"x": ("batch", 3, None, 8), "z": (2,), "any": None}
    path = save(model(inputs, "a = Add (x, z)\ny = Add (a, any)"), tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.what == "inputs have dynamic dimensions: 'x' [batch, 3, ?, 8]; 'any' of unknown rank"
    assert "input_size_list" in caught.value.hint
    with pytest.raises(ConfigError, match=r"dynamic dimensions: 'any'"):
        load(path, ["x"], [[1, 3, 4, 8]])


def test_sizes_fix_the_dynamic_dimensions_and_may_set_a_batch(tmp_path: Path) -> None:
    path = save(model({"x": ("batch", 3, None, 8), "z": (1, 3, 1, 1)}, "y = Add (x, z)"), tmp_path)
    graph = load(path, ["z", "x"], [[1, 3, 1, 1], [2, 3, 4, 8]])
    assert [static_shape(v) for v in graph.graph.inputs] == [(1, 3, 1, 1), (2, 3, 4, 8)]
    assert static_shape(graph.graph.outputs[0]) == (2, 3, 4, 8)


def test_sizes_that_the_layers_cannot_take_are_told(tmp_path: Path) -> None:
    path = save(model({"x": (1, 3, None, None)}, "y = Conv (x, w, b)", WEIGHTS), tmp_path)
    with pytest.raises(ModelError, match="Conv_y"):
        load(path, None, [[1, 3, 2, 2]])
    pool = save(model({"x": (1, 3, None, None)}, "y = MaxPool <kernel_shape = [9, 9]> (x)"), tmp_path)
    with pytest.raises(ModelError, match="MaxPool_y"):
        load(pool, None, [[1, 3, 4, 4]])


def test_cutting_everything_away_is_refused(tmp_path: Path) -> None:
    path = save(model(IMAGE, "a = Relu (x)\nv = Add (w, w)\ny = Add (a, a)", WEIGHTS, ["y", "v"]), tmp_path)
    with pytest.raises(ModelError, match="no output depends on an input"):
        load(path, outputs=["v"])
