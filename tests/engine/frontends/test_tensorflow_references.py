"""Every TensorFlow operator against what TensorFlow itself computed, for the attributes that it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow_references

from engine.frontends import tensorflow
from engine.graph.execution import run_float

REFERENCES = {reference.name: reference for reference in tensorflow_references.read()}


@pytest.mark.parametrize("name", [name for name in REFERENCES if not name.startswith("trained_quantized/")])
def test_the_graph_computes_what_tensorflow_computes(name: str, tmp_path: Path) -> None:
    reference = REFERENCES[name]
    path = tmp_path / "frozen.pb"
    path.write_bytes(reference.graph)
    names = list(reference.inputs)
    model = tensorflow.load(path, names, [reference.inputs[key].shape for key in names], ["output"])
    assert [value.name for value in model.graph.outputs] == ["output"]
    feeds = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        feeds[value.name or ""] = reference.inputs[value.name or ""].astype(value.dtype.numpy())
    found = run_float(model, feeds)[0]
    assert found.shape == reference.output.shape
    if reference.output.dtype.kind == "f":
        np.testing.assert_allclose(found, reference.output, rtol=2e-5, atol=2e-5)
    else:
        assert found.dtype == reference.output.dtype
        np.testing.assert_array_equal(found, reference.output)
