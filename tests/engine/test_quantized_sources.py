"""Models that come quantized: built without samples, fed with their own integers or with real values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine import cli
from engine.config import Config
from engine.errors import DatasetError
from engine.session import Session
from engine.summaries import Grid


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(x * 2) with x and y as unsigned bytes."""
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[1, 4] x) => (float[1, 4] y) {
            xq = QuantizeLinear (x, xs, xz)
            xr = DequantizeLinear (xq, xs, xz)
            m = Mul (xr, two)
            r = Relu (m)
            yq = QuantizeLinear (r, ys, yz)
            y = DequantizeLinear (yq, ys, yz)
        }
    """
    proto = onnx.parser.parse_model(text)
    constants = {
        "xs": np.float32(0.5),
        "xz": np.uint8(100),
        "ys": np.float32(1.0),
        "yz": np.uint8(0),
        "two": np.float32(2),
    }
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    return path


def test_it_is_told_what_the_source_has_in_place_of_real_values(model: Path) -> None:
    summary = Session().load(model)
    assert [tensor.grid for tensor in summary.inputs] == [Grid("uint8", 0.5, 100)]
    assert [tensor.grid for tensor in summary.outputs] == [Grid("uint8", 1.0, 0)]
    assert summary.quantized >= 2


def test_its_own_integers_and_real_values_come_to_the_same(model: Path) -> None:
    session = Session()
    session.load(model)
    assert session.build().precision == "int8"
    stored = np.array([[100, 102, 255, 0]], np.uint8)
    expected = np.array([[0, 2, 155, 0]], np.float32)
    assert np.array_equal(session.infer([stored])[0], expected)
    assert np.array_equal(session.infer([(stored.astype(np.float32) - 100) / 2])[0], expected)
    # With a mean or std the numbers are what those say.
    scaled = Session(Config.from_mapping({"mean_values": [[0.0]], "std_values": [[1.0]]}))
    scaled.load(model)
    scaled.build()
    assert np.array_equal(scaled.infer([np.array([[1, 2, 3, 4]], np.uint8)])[0], [[2, 4, 6, 8]])


def test_no_samples_are_asked_for(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "out.rknn"
    assert cli.main(["build", str(model), "-q", "--json", "-o", str(package)]) == 0
    assert json.loads(capsys.readouterr().out)["build"]["precision"] == "int8"
    assert package.exists()


def test_a_float_model_is_not_built_without_samples(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    text = '<ir_version: 9, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    session = Session()
    assert session.load(path).quantized == 0
    with pytest.raises(DatasetError):
        session.build()
