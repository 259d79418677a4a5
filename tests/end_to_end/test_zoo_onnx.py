"""Real ONNX models: loading, optimizing and batching keep what they compute."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime import quantization

from engine.config import Config
from engine.graph.batching import with_batch
from engine.graph.execution import random_feeds, run_float
from engine.ort import make_session, run
from engine.session import Session
from tests.zoo import FOLDER, needs_zoo, onnx_models

Array = np.ndarray[Any, Any]

pytestmark = needs_zoo

each_model = pytest.mark.parametrize("path", onnx_models(), ids=lambda path: path.parent.name)
"""Empty where there is no zoo, and then pytest skips the test."""

BATCHED = ("ch_ppocr_mobile_v2.0_cls_infer", "ultraface_slim320", "dtln_1", "mtcnn_pnet")


@functools.cache
def reference(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and outputs by name, as the framework's own runtime made them."""
    with np.load(path.parent / "io.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return tuple(  # type: ignore[return-value]
        {name.partition("|")[2]: array for name, array in arrays.items() if name.startswith(f"{side}|")}
        for side in ("in", "out")
    )


def loaded(path: Path, level: int = 3) -> Session:
    inputs, _ = reference(path)
    session = Session(Config(target_platform="rk3588", optimization_level=level))
    session.load_onnx(path, list(inputs), [list(array.shape) for array in inputs.values()])
    return session


def source_outputs(path: Path, names: list[str]) -> list[Array]:
    """The source file, run as it is."""
    return run(make_session(path.read_bytes(), optimization="none"), names, dict(reference(path)[0]))


def assert_same_float_model(path: Path, level: int) -> None:
    inputs, expected = reference(path)
    session = loaded(path, level)
    names = [v.name or "" for v in session.model.graph.outputs]
    assert names == list(expected)
    outputs = run_float(session.model, inputs)
    for name, found, source in zip(names, outputs, source_outputs(path, names), strict=True):
        assert found.shape == source.shape == expected[name].shape
        assert float(np.abs(found - source).max()) <= 1e-4 * float(np.abs(source).max()), name


@each_model
def test_the_optimized_float_graph_computes_what_the_source_does(path: Path) -> None:
    assert_same_float_model(path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1, 2])
@each_model
def test_every_optimization_level_computes_what_the_source_does(path: Path, level: int) -> None:
    assert_same_float_model(path, level)


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_of_four_equals_four_runs(name: str) -> None:
    (path,) = (FOLDER / "onnx" / name).glob("*.onnx")
    model = loaded(path).model
    rows = [random_feeds(model, seed) for seed in range(4)]
    together = run_float(with_batch(model, 4), {key: np.concatenate([row[key] for row in rows]) for key in rows[0]})
    alone = [run_float(model, row) for row in rows]
    for index, found in enumerate(together):
        expected = np.concatenate([outputs[index] for outputs in alone])
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(np.abs(expected).max()))


class Once(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The reference input, for ONNX Runtime's own calibration."""

    def __init__(self, inputs: dict[str, Array]) -> None:
        self._rows = iter([inputs])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._rows, None)


@pytest.mark.slow
def test_a_model_quantized_by_onnxruntime_simulates_to_the_bit(tmp_path: Path) -> None:
    """All of its layers have parameters of their own; a model with gaps has float16 in those instead of float32."""
    (path,) = (FOLDER / "onnx" / "ultraface_slim320").glob("*.onnx")
    inputs, expected = reference(path)
    target = tmp_path / "quantized.onnx"
    quantization.quantize_static(path, target, Once(inputs), quant_format=quantization.QuantFormat.QDQ)
    session = Session(Config(target_platform="rk3588"))
    session.load_onnx(target)
    assert {node.op_type for node in session.model.graph}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    session.build(do_quantization=False)
    wanted = run(make_session(target.read_bytes(), optimization="none"), list(expected), dict(inputs))
    for found, array in zip(session.infer(inputs, data_format="nchw"), wanted, strict=True):
        np.testing.assert_allclose(found, array, atol=1e-6)
