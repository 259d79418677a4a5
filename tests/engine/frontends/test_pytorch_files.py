"""TorchScript files, read by a process of its own: good ones, other ones and hostile ones."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import Cancelled, ConfigError, EngineError, FileError, ModelError, UnsupportedOperator
from engine.frontends.pytorch import archive, load, loading, operators
from engine.graph.execution import run_float
from engine.progress import Progress


def test_the_table_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from engine.frontends.pytorch import operators\n"
        "assert operators()['aten::relu'] == ('Relu',)\n"
        "from engine.frontends.pytorch import load; from pathlib import Path\n"
        "from engine.errors import EngineError\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "try: load(Path('x.pt'))\n"
        "except EngineError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "PyTorch models need the torch package" in done.stdout
    assert "rknn-tui[pytorch]" in done.stdout


def test_operators_are_many_and_sorted() -> None:
    table = operators()
    assert list(table) == sorted(table)
    assert len(table) > 350
    assert table["quantized::conv2d_relu"] == ("Conv", "Relu")


def _model() -> Any:
    from tests.engine.frontends.pytorch_models import nn, torch

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scripted module in a file."""
    from tests.engine.frontends.pytorch_models import scripted, torch

    path = tmp_path_factory.mktemp("pytorch") / "net.pt"
    torch.jit.save(scripted(_model()), str(path))
    return path


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traced module in a file."""
    from tests.engine.frontends.pytorch_models import floats, torch

    path = tmp_path_factory.mktemp("pytorch") / "net.pt"
    torch.jit.trace(_model(), floats(1, 3, 8, 9)).save(str(path))
    return path


def test_another_process_translates_with_the_size_of_the_trace(trace: Path) -> None:
    from tests.engine.frontends.pytorch_models import floats, torch

    seen: list[str] = []
    model = load(trace, progress=Progress(lambda stage, done, total: seen.append(stage)))
    sample = floats(1, 3, 8, 9)
    with torch.no_grad():
        expected = torch.jit.load(str(trace))(sample).numpy()
    np.testing.assert_allclose(run_float(model, {"input": sample.numpy()})[0], expected, atol=1e-5)
    assert {"read", "translate", "fold"} <= set(seen)
    assert [node.name for node in model.graph] == ["0", "1/relu"]


@pytest.mark.slow
def test_inner_tensors_can_be_inputs_and_outputs(trace: Path) -> None:
    model = load(trace, [[1, 4, 6, 7]], inputs=["0"])
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert [value.name for value in model.graph.inputs] == ["0"]


@pytest.mark.slow
def test_errors_of_the_other_process_are_told(script: Path) -> None:
    with pytest.raises(UnsupportedOperator, match="3 channels"):
        load(script, [[1, 5, 8, 8]])


@pytest.mark.slow
def test_sizes_are_asked_for(script: Path) -> None:
    with pytest.raises(ConfigError, match="input_size_list"):
        load(script)


def test_cancelling_ends_the_other_process(script: Path) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3 and asked[-1] - asked[0] > 0.1

    start = time.monotonic()
    with pytest.raises(Cancelled):
        load(script, [[1, 3, 8, 8]], progress=Progress(None, cancelled))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("ending", [-11, -9, 3])
def test_a_crash_of_the_other_process_is_an_error(script: Path, monkeypatch: pytest.MonkeyPatch, ending: int) -> None:
    crash = f"import os; os.kill(os.getpid(), {-ending})" if ending < 0 else f"import sys; sys.exit({ending})"
    monkeypatch.setattr(loading, "command", lambda arguments: [sys.executable, "-c", crash])
    with pytest.raises(ModelError, match=r"torch (was ended by SIG|ended with exit code 3)"):
        load(script, [[1, 3, 8, 8]])


def test_what_the_other_process_writes_is_not_trusted(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("model.onnx", "'no model'"), ("error.json", "'[' * 10000"), ("error.json", "'{}'")):
        code = f"import sys, pathlib; (pathlib.Path(sys.argv[1]) / {name!r}).write_text({content})"
        monkeypatch.setattr(loading, "command", lambda arguments, code=code: [sys.executable, "-c", code, *arguments])
        with pytest.raises(ModelError):
            load(script, [[1, 3, 8, 8]])


def _zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as stream:
        for name, content in files.items():
            stream.writestr(name, content)
    return path


def test_other_files_are_told_without_unpickling(tmp_path: Path) -> None:
    from tests.engine.frontends.pytorch_models import torch

    path = tmp_path / "weights.pt"
    torch.save(_model().state_dict(), str(path))
    with pytest.raises(ModelError, match=r"not TorchScript.*torch\.jit\.trace"):
        archive.check(path)
    torch.save(_model().state_dict(), str(path), _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"not TorchScript.*torch\.jit\.trace"):
        archive.check(path)
    with tarfile.open(path, "w") as stream:
        stream.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    with pytest.raises(ModelError, match=r"before 0\.4"):
        archive.check(path)
    with pytest.raises(ModelError, match="bytecode without"):
        archive.check(_zipped(path, {"net/bytecode.pkl": b"x", "net/data.pkl": b"x"}))
    with pytest.raises(ModelError, match="not of PyTorch"):
        archive.check(_zipped(path, {"word/document.xml": b"x"}))
    with pytest.raises(ModelError, match="unpacks to"):
        archive.check(_zipped(path, {"net/code/a.py": bytes(200 << 20)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match="flatbuffer"):
        path.write_bytes(b"\x20\0\0\0PTMF" + bytes(100))
        archive.check(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        archive.check(path)
    with pytest.raises(FileError, match="does not exist"):
        archive.check(tmp_path / "nowhere.pt")
    with pytest.raises(FileError, match="folder"):
        archive.check(tmp_path)


def test_damaged_files_are_refused_before_torch_sees_them(trace: Path, tmp_path: Path) -> None:
    data, draw = trace.read_bytes(), random.Random(1)
    path = tmp_path / "damaged.pt"
    refused = 0
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 3, 20])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice([len(data), draw.randrange(len(data))])])
        try:
            archive.check(path)
        except EngineError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "code",
    [b"torch.from_file('secret', True, 8)", b"torch.save(x, 'secret')", b"ops.aten. # a word\n  save(x, 'secret')"],
)
def test_programs_that_reach_files_are_not_loaded(trace: Path, tmp_path: Path, code: bytes) -> None:
    changed = _changed(trace, tmp_path / "crafted.pt", {".py": (b"torch.relu(argument_1)", code)})
    with pytest.raises(ModelError, match="reads or writes files"):
        archive.check(changed)
    kept = _changed(trace, tmp_path / "kept.pt", {".py": (b"torch.relu(argument_1)", b"torch.relu(self.save)")})
    archive.check(kept)


@pytest.mark.parametrize(
    "record",
    [
        b"\x80\x02" + b"(" * 100_000 + b"t" * 99_999 + b".",
        b"\x80\x02}X\x07\0\0\0forward]q\x00"
        + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 100))
        + b"s.",
        b"\x80\x02cx\ny\n]q\x00Rq\x01h\x00h\x01a0h\x01.",
        b"\x80\x02cx\ny\nR.",
    ],
    ids=["deep", "doubling", "in a circle", "no arguments"],
)
def test_records_of_inputs_that_would_never_end_are_left_unread(record: bytes) -> None:
    start = time.monotonic()
    assert archive._examples(record) == []
    assert time.monotonic() - start < 3


def _changed(path: Path, target: Path, change: dict[str, tuple[bytes, bytes]]) -> Path:
    """The same archive with whole checksums after replacing text in some of its files."""
    with zipfile.ZipFile(path) as stream:
        files = {name: stream.read(name) for name in stream.namelist() if not name.endswith(".debug_pkl")}
    for ending, (old, new) in change.items():
        name = next(name for name in files if name.endswith(ending) and old in files[name])
        files[name] = files[name].replace(old, new, 1)
    return _zipped(target, files)


@pytest.mark.parametrize(
    ("ending", "old", "new", "message"),
    [
        (".py", b"torch.relu(", b"torch.nowhere(", "nowhere"),
        (
            ".py",
            b"return torch.relu(argument_1)",
            b"return torch.add(argument_1, torch.zeros([1000000, 1000000]))",
            "constant",
        ),
        ("data.pkl", b"\x80\x02", b"\x80\x09", "cannot be loaded"),
    ],
)
@pytest.mark.slow
def test_crafted_files_are_refused(
    trace: Path, tmp_path: Path, ending: str, old: bytes, new: bytes, message: str
) -> None:
    changed = _changed(trace, tmp_path / "crafted.pt", {ending: (old, new)})
    with pytest.raises((ModelError, UnsupportedOperator), match=message):
        load(changed, [[1, 3, 8, 9]])


@pytest.mark.slow
def test_a_loop_without_end_is_refused(trace: Path, tmp_path: Path) -> None:
    loop = b"i = 0\n    while i >= 0:\n      i = torch.add(i, 1)\n    return torch.mul(argument_1, i)"
    changed = _changed(trace, tmp_path / "loop.pt", {".py": (b"return torch.relu(argument_1)", loop)})
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"loops more than|cannot be loaded"):
        load(changed, [[1, 3, 8, 9]])
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_mutated_sources_and_records_end_in_our_errors(trace: Path, tmp_path: Path) -> None:
    draw = random.Random(2)
    with zipfile.ZipFile(trace) as stream:
        files = {name: stream.read(name) for name in stream.namelist() if not name.endswith(".debug_pkl")}
    for index in range(6):
        changed = {name: bytearray(content) for name, content in files.items()}
        target = changed[draw.choice([name for name in files if name.endswith((".py", ".pkl")) and files[name]])]
        for _ in range(draw.choice([1, 3])):
            target[draw.randrange(len(target))] = draw.randrange(128)
        path = _zipped(tmp_path / f"{index}.pt", {name: bytes(content) for name, content in changed.items()})
        try:
            load(path, [[1, 3, 8, 9]])
        except EngineError as error:
            assert str(path) in str(error)
