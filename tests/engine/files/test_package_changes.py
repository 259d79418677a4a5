"""What becomes of a package when its model changes, its writer dies, or its list of compiled models is forged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from engine.errors import EngineError, FileError
from engine.files import package
from engine.session import Session
from tests.engine.files.damaged_packages import example, packed, summed, unpacked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A package with a compiled model for rk3588."""
    file = tmp_path / "m.rknn"
    file.write_bytes(example())
    return file


def test_what_was_compiled_of_a_model_is_left_out_when_the_model_changes(path: Path) -> None:
    session = Session()
    session.load_rknn(path)
    built = session._require_built("")
    assert [one.target for one in built.stored.compiled] == ["rk3588"]
    assert built.changed(built.single).stored.compiled == ()
    assert built.changed(built.single).stored.provenance == built.stored.provenance


@pytest.mark.parametrize(
    "entry",
    [
        {"target": "rk9"},
        {"target": "RK3588"},
        {"target": "rk3566"},
        {"target": "../rk3588"},
        {"target": "rk3588", "facts": [1]},
        {"target": "rk3588", "facts": {"a": {}}},
        {"target": "rk3588", "compiler": "x" * 5000},
        {"target": 5},
    ],
)
def test_forged_entries_of_compiled_models_are_refused(entry: dict[str, Any], path: Path) -> None:
    content = unpacked(path.read_bytes())
    manifest = json.loads(content["manifest.json"])
    for listed in ([entry], [*manifest["compiled"], entry], [*manifest["compiled"]] * 2):
        content["manifest.json"] = json.dumps({**manifest, "compiled": listed}).encode()
        path.write_bytes(packed(summed(content)))
        with pytest.raises(EngineError):
            package.read(path)


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1, 0, -1])
def test_a_constant_of_endless_axes_is_refused_at_once(size: int, path: Path) -> None:
    content = unpacked(path.read_bytes())
    model = onnx.ModelProto.FromString(content["graph.onnx"])
    (tensor,) = (one for one in model.graph.initializer if one.external_data)
    tensor.dims[:] = [size] * 500_000
    path.write_bytes(packed(summed({**content, "graph.onnx": model.SerializeToString()})))
    started = time.process_time()
    with pytest.raises(FileError):
        package.read(path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("sizes", [[(1 << 63) - 1] * 100_000, [1] * 100_000, [1 << 20] * 3, [-1, 3]])
@pytest.mark.parametrize("kind", ["input", "output", "value_info"])
def test_a_tensor_of_a_size_that_cannot_be_is_refused_at_once(kind: str, sizes: list[int], path: Path) -> None:
    content = unpacked(path.read_bytes())
    model = onnx.ModelProto.FromString(content["graph.onnx"])
    shape = getattr(model.graph, kind)[0].type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add(dim_value=size)
    path.write_bytes(packed(summed({**content, "graph.onnx": model.SerializeToString()})))
    started = time.process_time()
    with pytest.raises(FileError):
        package.read(path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("location", "../weights.bin"), ("location", "/etc/passwd"), ("offset", "64"), ("length", "4"), ("more", "1")],
)
def test_a_constant_that_lies_elsewhere_is_refused(key: str, value: str, path: Path) -> None:
    content = unpacked(path.read_bytes())
    model = onnx.ModelProto.FromString(content["graph.onnx"])
    (tensor,) = (one for one in model.graph.initializer if one.external_data)
    found = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
    del tensor.external_data[:]
    for name, told in found.items():
        tensor.external_data.add(key=name, value=told)
    path.write_bytes(packed(summed({**content, "graph.onnx": model.SerializeToString()})))
    with pytest.raises(FileError, match=r"other files|no array|another length"):
        package.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.rknn")
    with pytest.raises(FileError, match="no file"):
        package.read(tmp_path / "m.rknn")


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_package(path: Path) -> None:
    """Killed when all is written, before the new file takes the old one's place."""
    before = path.read_bytes()
    code = f"""
import os, signal
from engine.files import package
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
package.with_compiled({str(path)!r}, bytes(5_000_000), "rk3566", "2")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode != 0
    assert path.read_bytes() == before
    package.with_compiled(path, b"RKNN", "rk3566", "2")
    assert [one.name for one in path.parent.iterdir()] == ["m.rknn"]
    assert [one.target for one in package.read_compiled(path)] == ["rk3566", "rk3588"]
