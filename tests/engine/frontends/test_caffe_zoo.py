"""Real Caffe models compute what they did in their own framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caffe_models import loaded, run
from zoo import FOLDER, needs_zoo

MODELS = sorted(FOLDER.glob("caffe/*/*.prototxt"))


@needs_zoo
@pytest.mark.parametrize("prototxt", MODELS, ids=lambda path: path.parent.name)
def test_real_models(prototxt: Path) -> None:
    stored = np.load(prototxt.parent / "io.npz")
    fed = [stored[key] for key in stored if key.startswith("in|")]
    expected = {key[4:]: stored[key] for key in stored if key.startswith("out|")}
    model = loaded((prototxt, next(prototxt.parent.glob("*.caffemodel"))))
    names = [value.name or "" for value in model.graph.inputs]
    found = run(model, dict(zip(names, fed, strict=True)))
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5 * np.ptp(array))
