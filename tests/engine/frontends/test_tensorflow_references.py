"""Every TensorFlow operator against what TensorFlow itself computed, for the attributes that it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow_references

from engine.frontends import tensorflow
from engine.frontends.tensorflow.schema import CLASSES
from engine.graph.execution import run_float

OPERATORS = tensorflow.operators()
REFERENCES = {reference.name: reference for reference in tensorflow_references.read()}


def told(graph: bytes) -> set[str]:
    """The ONNX operators that the list of operators tells for those of a graph."""
    definition = CLASSES["GraphDef"].FromString(graph)
    nodes = [*definition.node, *(node for made in definition.library.function for node in made.node_def)]
    return {op_type for node in nodes for op_type in OPERATORS[node.op]}


@pytest.mark.parametrize("name", [name for name in REFERENCES if not name.startswith("trained_quantized/")])
def test_the_graph_computes_what_tensorflow_computes(name: str, tmp_path: Path) -> None:
    reference = REFERENCES[name]
    path = tmp_path / "frozen.pb"
    path.write_bytes(reference.graph)
    names = list(reference.inputs)
    model = tensorflow.load(path, names, [reference.inputs[key].shape for key in names], ["output"])
    assert [value.name for value in model.graph.outputs] == ["output"]
    assert {node.op_type for node in model.graph} <= {"Identity", "Reshape", "Transpose"} | told(reference.graph)
    feeds = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        feeds[value.name or ""] = reference.inputs[value.name or ""].astype(value.dtype.numpy())
    found = run_float(model, feeds)[0]
    assert found.shape == reference.output.shape
    if reference.output.dtype.kind == "f":
        # TensorFlow looks its cubic kernel up in a table of 1024 entries.
        tolerance = 4e-3 if name.startswith("ResizeBicubic") else 2e-5
        np.testing.assert_allclose(found, reference.output, rtol=tolerance, atol=tolerance)
    else:
        assert found.dtype == reference.output.dtype
        np.testing.assert_array_equal(found, reference.output)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dilated_by_batch", ["Transpose", "Conv", "Add", "Clip", "Transpose"]),
        ("Conv1D/dilated", ["Reshape", "Transpose", "Conv", "Reshape", "Add", "Transpose"]),
        ("Relu6", ["Clip"]),
    ],
)
def test_a_graph_becomes_no_more_nodes_than_it_needs(name: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "frozen.pb"
    path.write_bytes(REFERENCES[name].graph)
    assert [node.op_type for node in tensorflow.load(path).graph] == expected
