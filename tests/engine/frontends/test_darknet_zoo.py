"""Real Darknet networks compute in float what OpenCV computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.frontends.darknet import load
from tests.engine.frontends.darknet_models import run
from tests.zoo import FOLDER, needs_zoo

pytestmark = needs_zoo


@pytest.mark.parametrize("folder", sorted(FOLDER.glob("darknet/*")), ids=lambda folder: folder.name)
def test_detections_are_fed_what_opencv_feeds_them(folder: Path) -> None:
    (cfg,), (weights,) = folder.glob("*.cfg"), folder.glob("*.weights")
    model = load(cfg, weights)
    with np.load(folder / "io.npz", allow_pickle=False) as stored:
        expected = {name[4:]: stored[name] for name in stored.files if name.startswith("out|pre_")}
        outputs = run(model, stored["in|data"])
    assert [v.name for v in model.graph.outputs] == list(expected)
    for found, (name, array) in zip(outputs, expected.items(), strict=True):
        assert float(np.abs(found - array).max()) <= 1e-5 * float(np.ptp(array)), name
