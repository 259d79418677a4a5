"""Real TorchScript models against the answers that torch gave for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.frontends.pytorch import load
from engine.graph.execution import run_float
from engine.graph.given import given
from engine.ort import serialize
from engine.session import Session
from tests.zoo import FOLDER, needs_zoo

pytest.importorskip("torch")
MODELS = sorted(path.parent for path in FOLDER.glob("pytorch/*/meta.json"))


def _agreement(found: Any, reference: Any) -> tuple[float, float]:
    """Cosine, and the largest difference as a part of the reference's range."""
    cosine = float(found.ravel() @ reference.ravel() / np.linalg.norm(found) / np.linalg.norm(reference))
    return cosine, float(np.abs(found - reference).max() / (reference.max() - reference.min()))


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_real_models_answer_as_torch_does(folder: Path, tmp_path: Path) -> None:
    meta, arrays = json.loads((folder / "meta.json").read_text()), np.load(folder / "io.npz")
    model = load(folder / next(iter(meta["files"])), [one["shape"] for one in meta["inputs"].values()])
    inputs = [arrays[f"in|{name}"] for name in meta["inputs"]]
    references = [arrays[f"out|{name}"] for name in meta["outputs"]]
    quantized = any(given(value) is not None for value in model.graph.initializers.values())
    found = run_float(model, {value.name or "": one for value, one in zip(model.graph.inputs, inputs, strict=True)})
    for one, reference in zip(found, references, strict=True):
        cosine, difference = _agreement(one, reference)
        assert cosine >= (0.99 if quantized else 0.9999)
        assert quantized or difference <= 1e-3
    if given(model.graph.outputs[0]) is not None:
        path = tmp_path / "model.onnx"
        path.write_bytes(serialize(model))
        session = Session()
        session.load_onnx(path)
        assert session.build().precision == "int8"
        answer = session.infer(inputs, data_format="nchw")[0]
        assert _agreement(answer, references[0])[0] >= 0.995
        assert answer.argmax() == references[0].argmax()
