"""TensorFlow models that were trained with fake quantization keep their parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow_references

from engine.frontends import tensorflow
from engine.graph.given import given
from engine.session import Session

REFERENCES = {
    reference.name: reference
    for reference in tensorflow_references.read()
    if reference.name.startswith("trained_quantized/")
}


@pytest.mark.parametrize("name", list(REFERENCES))
def test_an_int8_model_without_a_dataset_computes_what_tensorflow_does(name: str, tmp_path: Path) -> None:
    reference = REFERENCES[name]
    path = tmp_path / "frozen.pb"
    path.write_bytes(reference.graph)
    session = Session()
    session.load_tensorflow(path)
    session.build()
    assert {layer.precision for layer in session.summary().layers} == {"int8"}
    found = session.infer([reference.inputs["x0"]])[0]
    step = np.min(np.diff(np.unique(reference.output)))
    assert found.shape == reference.output.shape
    assert np.mean(np.abs(found - reference.output) > 1.01 * step) <= 0.01


def test_the_parameters_are_those_of_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "frozen.pb"
    path.write_bytes(REFERENCES["trained_quantized/convolution"].graph)
    model = tensorflow.load(path)
    entry = given(model.graph.inputs[0])
    # From -2.1 to 1.9 in 255 steps; 0 lies on the 134th of them.
    assert entry is not None and entry.source_grid is not None
    assert (entry.source_grid.dtype, entry.source_grid.zero_point) == ("uint8", 134)
    assert entry.scale == pytest.approx([4 / 255])
    weights = next(node.inputs[1] for node in model.graph if node.op_type == "Conv")
    assert weights is not None and weights.const_value is not None
    parameters = given(weights)
    assert parameters is not None
    steps = weights.const_value.numpy() / parameters.scale[0]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert np.all(np.abs(steps + parameters.zero_point[0]) <= 127.001)
