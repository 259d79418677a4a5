"""Real models of every framework load, come as near to their framework's outputs as they can, and go through it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.session import Session
from tests.end_to_end import zoo_models, zoo_table
from tests.end_to_end.zoo_models import ZooModel
from tests.zoo import needs_zoo

pytestmark = needs_zoo

QUICK = zoo_models.quick_ones()
OTHERS = [model for model in zoo_models.models() if model not in QUICK]

SHORT = {
    "tensorflow/basic_pitch": "the logarithm of powers near 0: what float16 rounds off the sound is more than the "
    "quietest tones, and float32 sums in another order differ by 1.3e-3 of the range, TensorFlow's own by 4e-4",
}
"""Models that come less near than is asked, and why."""


def named(found: list[ZooModel]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "model",
        [
            pytest.param(
                model,
                id=model.label,
                marks=[pytest.mark.xfail(strict=True, reason=SHORT[model.label])] if model.label in SHORT else [],
            )
            for model in found
        ],
    )


def passes(model: ZooModel, folder: Path, *, app: bool = False) -> None:
    if model.framework == "pytorch":
        pytest.importorskip("torch", reason="PyTorch models are read with the package torch")
    row = zoo_table.examine(model, folder, app=app)
    assert not row.faults, "; ".join(row.faults)


@named(QUICK)
def test_a_model_of_each_framework_passes(model: ZooModel, tmp_path: Path) -> None:
    passes(model, tmp_path)


@pytest.mark.slow
@named(OTHERS)
def test_every_other_model_passes(model: ZooModel, tmp_path: Path) -> None:
    passes(model, tmp_path)


@pytest.mark.slow
@named(QUICK)
def test_the_app_opens_a_model_of_each_framework(model: ZooModel, tmp_path: Path) -> None:
    if model.framework == "pytorch":
        pytest.importorskip("torch", reason="PyTorch models are read with the package torch")
    made, _ = zoo_models.loaded(model)
    zoo_models.shown_by_the_app(model, made, tmp_path)


@pytest.mark.slow
@named(QUICK)
def test_a_model_is_known_by_its_file_alone(model: ZooModel) -> None:
    if model.framework == "pytorch":
        pytest.importorskip("torch", reason="PyTorch models are read with the package torch")
    sizes = model.arguments.get("input_size_list")
    made = Session(Config(target_platform="rk3588"))
    made.load(model.files[0], input_size_list=sizes)
    by_call, _ = zoo_models.loaded(model)
    assert made.summary().framework == by_call.summary().framework
    for one, other in zip(zoo_models.infer_float(model, made), zoo_models.infer_float(model, by_call), strict=True):
        np.testing.assert_array_equal(one, other)
