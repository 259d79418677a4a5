"""Real models come back from their packages in another process: the same outputs, the same cfg, the same bytes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.files import package
from engine.quantization.table import to_cfg
from engine.session import Session
from tests.end_to_end import zoo_models
from tests.end_to_end.zoo_models import ZooModel
from tests.zoo import needs_zoo

pytestmark = needs_zoo

QUICK = ("onnx/mtcnn_pnet", "tflite/hello_world_int8")
OTHER_PROCESS = """
import sys
from pathlib import Path

import numpy as np

from engine.quantization.table import to_cfg
from engine.session import Session

for folder in map(Path, sys.argv[1:]):
    session = Session()
    session.load_rknn(folder / "first.rknn")
    with np.load(folder / "inputs.npz") as file:
        inputs = [file[f"{number}"] for number in range(len(file.files))]
    layouts = [tensor.layout or "nhwc" for tensor in session.summary().inputs]
    outputs = session.infer(inputs, data_format=layouts)
    np.savez(folder / "outputs.npz", **{f"{number}": array for number, array in enumerate(outputs)})
    (folder / "table.cfg").write_text(to_cfg(session.table), encoding="utf-8", newline="")
    session.export(folder / "second.rknn")
"""


def built(model: ZooModel, folder: Path) -> Session:
    """The model in int8, with whatever biases are corrected."""
    session = Session(Config(target_platform="rk3588", bias_correction=True, custom_string=model.label))
    model.load(session)
    dataset, _ = zoo_models.dataset(model, session, folder)
    session.build(dataset=dataset)
    return session


def exported(model: ZooModel, session: Session, folder: Path) -> None:
    session.export(folder / "first.rknn")
    inputs = zoo_models.feeds(model, session)
    np.savez(folder / "inputs.npz", **{f"{number}": array for number, array in enumerate(inputs)})


def assert_same(model: ZooModel, session: Session, folder: Path) -> None:
    expected = zoo_models.infer(model, session)
    with np.load(folder / "outputs.npz") as file:
        outputs = [file[f"{number}"] for number in range(len(file.files))]
    assert [(one.dtype, one.shape, one.tobytes()) for one in outputs] == [
        (one.dtype, one.shape, one.tobytes()) for one in expected
    ], model.label
    assert (folder / "table.cfg").read_bytes().decode() == to_cfg(session.table), model.label
    first = (folder / "first.rknn").read_bytes()
    assert (folder / "second.rknn").read_bytes() == first, model.label
    assert session.export(folder / "third.rknn").read_bytes() == first, model.label


def assert_round_trips(models: Sequence[ZooModel], folder: Path) -> None:
    sessions = {}
    for number, model in enumerate(models):
        place = folder / str(number)
        place.mkdir()
        sessions[model] = built(model, place)
        exported(model, sessions[model], place)
    places = [str(folder / str(number)) for number in range(len(models))]
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *places], check=True, cwd=Path(__file__).parents[3])
    for place, (model, session) in zip(places, sessions.items(), strict=True):
        assert_same(model, session, Path(place))


def test_small_models_come_back_in_another_process(tmp_path: Path) -> None:
    assert_round_trips([model for model in zoo_models.models() if model.label in QUICK], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("framework", zoo_models.ENDINGS)
def test_every_model_comes_back_in_another_process(framework: str, tmp_path: Path) -> None:
    if framework == "pytorch":
        pytest.importorskip("torch", reason="PyTorch models are read with the package torch")
    found = [model for model in zoo_models.models() if model.framework == framework and model.label not in QUICK]
    assert found
    assert_round_trips(found, tmp_path)


def test_large_arrays_of_a_real_model_lie_aligned_in_the_file(tmp_path: Path) -> None:
    model = next(model for model in zoo_models.models() if model.label == "onnx/ch_ppocr_mobile_v2.0_cls_infer")
    session = built(model, tmp_path)
    path = session.export(tmp_path / "model.rknn")
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        sizes = {name: archive.getinfo(name).file_size for name in archive.namelist()}
        for name, page in (("weights.bin", 4096), ("corrections.bin", 4096), ("graph.onnx", 64), ("table.cfg", 64)):
            assert data.index(archive.read(name)) % page == 0, name
    assert sizes["weights.bin"] > sum(size for name, size in sizes.items() if name != "weights.bin")
    arrays = [value.const_value for value in package.read(path).quantized.model.graph.initializers.values()]
    large = [array.numpy() for array in arrays if array is not None and array.nbytes >= 1024]
    assert large and all(array.ctypes.data % 64 == 0 and not array.flags.owndata for array in large)
    assert not any(array.flags.writeable for array in large)
