"""Real TFLite models end where LiteRT's reference kernels ended, built from their own parameters or in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.frontends import tflite
from engine.frontends.tflite.network import read
from engine.graph.execution import run_float
from engine.graph.layers import layers
from engine.graph.optimize import optimize
from engine.quantization.quantize import given_only, to_float16
from engine.quantization.quantized import Quantized
from engine.simulator.runner import Simulator
from tests.zoo import FOLDER, needs_zoo

MODELS = sorted(FOLDER.glob("tflite/*/*.tflite"))


@needs_zoo
@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.parent.name)
def test_a_real_model(file: Path) -> None:
    kept = np.load(file.parent / "io.npz")
    infos = {t.name: t for t in read(file.read_bytes(), str(file)).subgraphs[0].tensors}

    def real(name: str, array: np.ndarray) -> np.ndarray:
        grid = infos[name].grid
        if grid is None or not infos[name].quantized:
            return array
        return ((array.astype(np.float64) - grid.zero_point[0]) * grid.scale[0]).astype(np.float32)

    model = tflite.load(file)
    optimize(model, 3)
    outputs = [v.name or "" for v in model.graph.outputs]
    feeds = {v.name: real(v.name or "", kept[f"in|{v.name}"]) for v in model.graph.inputs}
    found = layers(model)
    integer = any(infos[name].quantized for name in outputs)
    table = given_only(model, found) if integer else to_float16(model)
    built = Simulator(Quantized(model, found, table)).run(feeds)
    floats = run_float(model, feeds)
    for name, got, plain in zip(outputs, built, floats, strict=True):
        want = real(name, kept[f"out|{name}"]).astype(np.float64)
        cosine = float((got * want).sum() / np.sqrt((got.astype(np.float64) ** 2).sum() * (want**2).sum()))
        if integer:
            grid = infos[name].grid
            assert grid is not None
            assert cosine >= 0.995
            assert (np.abs(got - want) / grid.scale[0] > 2.5).mean() <= 0.01
            assert got.argmax() == want.argmax()
        else:
            spread = float(np.ptp(want)) or 1.0
            assert cosine >= 0.9999
            assert np.abs(plain - want).max() <= 1e-5 * spread
