"""How near quantized models come to their float models, on samples that nothing was calibrated, chosen or searched by.

Of the zoo's photos, every third judges. The others calibrate; `auto` and `tune` hold some of these out to choose by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.session import Session
from engine.summaries import Quality
from engine.tuning.search import Wish
from tests.detectors import detector, image
from tests.small_networks import Array, built
from tests.zoo import FOLDER, needs_zoo


@dataclasses.dataclass(frozen=True)
class Model:
    """A vision model of the zoo, how its samples are prepared, and where it is cut."""

    file: str
    size: tuple[int, ...]
    mean: float = 127.5
    std: float = 127.5
    outputs: tuple[str, ...] = ()


CLS = Model("ch_ppocr_mobile_v2.0_cls_infer/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192))
# Before its last sigmoid: behind it, photos without text are almost nothing but zeros.
DET = Model("ch_PP-OCRv4_det_infer/ch_PP-OCRv4_det_infer.onnx", (1, 3, 480, 480), outputs=("p2o.Add.281",))
PNET = Model("mtcnn_pnet/pnet.onnx", (1, 120, 120, 3), std=128)
ULTRAFACE = Model("ultraface_slim320/version-slim-320_simplified.onnx", (1, 3, 240, 320), 127, 128)

Quantize = Callable[[Model, str], Session]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str | Path | Array]]]:
    """A dataset to calibrate with, and the samples that judge."""
    found = sorted((FOLDER / "photos").glob("*.jpg"))
    dataset = tmp_path_factory.mktemp("photos") / "dataset.txt"
    dataset.write_text("".join(f'"{photo}"\n' for place, photo in enumerate(found) if place % 3 != 1))
    return dataset, [[photo] for photo in found[1::3]]


@pytest.fixture(scope="module")
def quantized(photos: tuple[Path, list[list[str | Path | Array]]]) -> Quantize:
    """A model of the zoo, quantized by an algorithm; once for all tests."""
    known: dict[tuple[Model, str], Session] = {}

    def make(model: Model, algorithm: str) -> Session:
        if (model, algorithm) not in known:
            known[model, algorithm] = quantized_by(model, algorithm, photos[0])
        return known[model, algorithm]

    return make


def quantized_by(model: Model, algorithm: str, dataset: Path) -> Session:
    means, stds = ((model.mean,) * 3,), ((model.std,) * 3,)
    session = Session(Config(means, stds, quantized_algorithm=algorithm, target_platform="rk3588"))
    session.load_onnx(FOLDER / "onnx" / model.file, None, [model.size], model.outputs or None)
    session.build(dataset=dataset)
    return session


@pytest.fixture
def judged(photos: tuple[Path, list[list[str | Path | Array]]]) -> Callable[[Session], Quality]:
    return lambda session: session.live(photos[1]).quality


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize("model", [CLS, DET, PNET, ULTRAFACE], ids=lambda model: model.file.partition("/")[0])
def test_auto_is_nowhere_worse_than_normal(
    model: Model, quantized: Quantize, judged: Callable[[Session], Quality]
) -> None:
    normal, auto = judged(quantized(model, "normal")), judged(quantized(model, "auto"))
    assert auto.noise <= normal.noise and auto.cosine >= normal.cosine
    for before, after in zip(normal.parts, auto.parts, strict=True):
        assert after.cosine >= before.cosine - 1e-5, before.tensor


@needs_zoo
@pytest.mark.slow
def test_auto_keeps_the_text_detector(quantized: Quantize, judged: Callable[[Session], Quality]) -> None:
    assert judged(quantized(DET, "auto")).cosine >= 0.998


@needs_zoo
@pytest.mark.slow
def test_auto_keeps_the_text_direction_classifier(tmp_path: Path) -> None:
    # Two scores of photos without text, which are near each other: what single roundings do to them differs from one
    # choice of photos to the next, so that each third of them judges once what the others made.
    found = sorted((FOLDER / "photos").glob("*.jpg"))
    cosines = []
    for third in range(3):
        dataset = tmp_path / f"{third}.txt"
        dataset.write_text("".join(f'"{path}"\n' for i, path in enumerate(found) if i % 3 != third), encoding="utf-8")
        session = quantized_by(CLS, "auto", dataset)
        cosines += [session.live([[path]]).quality.cosine for i, path in enumerate(found) if i % 3 == third]
    assert len(cosines) == len(found) and np.mean(cosines) >= 0.999


@needs_zoo
@pytest.mark.slow
def test_tune_repairs_the_text_detector(
    photos: tuple[Path, list[list[str | Path | Array]]], judged: Callable[[Session], Quality]
) -> None:
    session = quantized_by(DET, "normal", photos[0])
    before = judged(session)
    report = session.tune(photos[0], wish=Wish(cosine=0.999, layers=8))
    assert report.base.cosine < 0.999 and report.reached
    session.take()
    assert len(report.candidates[report.chosen].layers) <= 8
    assert set(session.table.wishes.values()) <= {"float16"}
    after = judged(session)
    assert before.cosine < 0.999 <= after.cosine


def test_tune_brings_back_scores_that_were_all_zero(tmp_path: Path) -> None:
    """Boxes and scores of the built detector share one output, as those of YOLO do."""
    session = built(tmp_path, detector(), [[image(seed)[0]] for seed in range(12)])
    judges = [[image(seed)[0].transpose(0, 2, 3, 1)] for seed in range(50, 58)]
    before = session.live(judges).quality
    assert min(part.cosine for part in before.parts) == 0.0
    report = session.tune(tmp_path / "dataset.txt", wish=Wish(cosine=0.99, layers=6))
    assert report.reached and len(report.candidates[report.chosen].layers) <= 6
    session.take()
    after = session.live(judges).quality
    assert len(after.parts) == 2 and all(part.cosine >= 0.99 for part in after.parts)
