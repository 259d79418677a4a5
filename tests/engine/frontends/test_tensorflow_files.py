"""Files that are no frozen TensorFlow graph, contradict themselves, or would take all memory and time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_models import Function, add, constant, function, graph, placeholder, save

from engine.errors import EngineError, FileError, ModelError
from engine.frontends import tensorflow


def small() -> Any:
    g = graph()
    placeholder(g, "x", (1, 4))
    add(g, "Relu", "y", ["x"])
    return g


def refused(definition: Any, folder: Path, text: str) -> None:
    start = time.process_time()
    with pytest.raises(ModelError, match=text):
        tensorflow.load(save(definition, folder))
    assert time.process_time() - start < 5


def test_files_that_are_something_else_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    with pytest.raises(FileError, match="does not exist"):
        tensorflow.load(path)
    for content, text in (
        (b"", "empty"),
        (b"\x08\x01\x12\x05\x12\x03abc", "SavedModel"),
        (b'node {\n  name: "x"\n}\n', "text"),
        (b"\x0a\xff\xff\xff\x7f", "not a frozen TensorFlow graph"),
        (b"\x22\x02\x08\x15", "no nodes"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=text):
            tensorflow.load(path)
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ModelError, match="convert_variables_to_constants"):
        tensorflow.load(folder)


def test_a_graph_with_variables_is_told_how_to_be_frozen(tmp_path: Path) -> None:
    g = small()
    add(g, "VariableV2", "w", dtype="float32", shape=(4,))
    add(g, "Mul", "z", ["y", "w"])
    refused(g, tmp_path, "w: is a variable.*freeze it")


def test_graphs_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    g = small()
    add(g, "Relu", "y", ["x"])
    refused(g, tmp_path, "'y' is there twice")
    g = small()
    add(g, "Relu", "z", ["nothing"])
    refused(g, tmp_path, "z: reads tensor 'nothing'")
    g = small()
    add(g, "AddV2", "a", ["x", "b"])
    add(g, "Relu", "b", ["a"])
    add(g, "Relu", "c", ["b"])
    refused(g, tmp_path, "cycle")
    g = small()
    add(g, "Relu", "z", ["y:3"])
    refused(g, tmp_path, "no output 3")
    g = small()
    add(g, "Conv2D", "z", ["y"])
    refused(g, tmp_path, "z")


def test_huge_constants_take_no_memory(tmp_path: Path) -> None:
    g = small()
    constant(g, "c", [1.0])
    add(g, "AddV2", "z", ["y", "c"])
    dim = g.node[2].attr["value"].tensor.tensor_shape.dim[0]
    for size in (1 << 40, -3, 1 << 27):
        dim.size = size
        refused(g, tmp_path, "constant")
    g.node[2].attr["value"].tensor.tensor_content = b""
    refused(g, tmp_path, "constant")
    g = small()
    constant(g, "sizes", [1 << 15, 1 << 15], "int32")
    constant(g, "c", 1.0)
    add(g, "Fill", "filled", ["sizes", "c"])
    add(g, "Mul", "z", ["filled", "x"])
    refused(g, tmp_path, "filled")


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    g = small()
    add(g, "PartitionedCall", "call", ["y"], f=Function("again"))
    again = function(g, "again", ["a"], {"r": "twice:output:0"})
    add(again, "PartitionedCall", "once", ["a"], f=Function("again"))
    add(again, "PartitionedCall", "twice", ["once:output:0"], f=Function("again"))
    refused(g, tmp_path, "too deeply")
    g.library.function[0].signature.name = "other"
    refused(g, tmp_path, "the function 'again', which the file does not have")


def test_functions_that_multiply_are_stopped(tmp_path: Path) -> None:
    g = small()
    add(g, "PartitionedCall", "call", ["y"], f=Function("f0"))
    for level in range(30):
        made = function(g, f"f{level}", ["a"], {"r": "last:output:0"})
        op = "PartitionedCall" if level < 29 else "Relu"
        read = "a"
        for number in range(5):
            read = add(made, op, f"n{number}", [read], f=Function(f"f{level + 1}")) + ":output:0"
        add(made, "Identity", "last", [read])
    refused(g, tmp_path, r"more than|too many")


def test_cut_off_files_raise_only_our_own_error(tmp_path: Path) -> None:
    g = small()
    constant(g, "w", np.ones((4, 3)))
    add(g, "MatMul", "z", ["y", "w"])
    data = g.SerializeToString()
    path = tmp_path / "frozen.pb"
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        try:
            tensorflow.load(path)
        except EngineError as error:
            assert str(path) in str(error)
