"""A package tells what it was made of, carries compiled models, and keeps its arrays where they can be mapped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine import cli
from engine.errors import ConfigError, EngineError, FileError
from engine.files import encryption, package
from engine.files.arrays import ALIGNMENT
from engine.files.keys import Key
from engine.files.provenance import provenance
from engine.session import Session
from tests.engine.files.damaged_packages import stored_model
from tests.small_networks import built, infer, network, random

BINARY = bytes(range(256)) * 20


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    proto = network(
        {"x": (1, 3, 8, 8)},
        "c = Conv (x, w, b)\nr = Relu (c)\nd = Conv (r, v)\ny = Softmax <axis = 1> (d)",
        {"w": random(32, 3, 3, 3), "b": random(32), "v": random(5, 32, 1, 1)},
    )
    folder = tmp_path_factory.mktemp("built")
    return built(folder, proto, [[random(1, 3, 8, 8)]], custom_string="Zürich 1", mean_values=[[1, 2, 3]])


@pytest.fixture
def path(session: Session, tmp_path: Path) -> Path:
    return session.export(tmp_path / "m.rknn")


class TestCompiled:
    def test_it_comes_back_as_it_was_put_in(self, path: Path, session: Session) -> None:
        before = package.read_manifest(path)
        package.with_compiled(path, BINARY, "RK3588", "2.3.2 (0a1b)", {"way": "Q/DQ"})
        (found,) = package.read_compiled(path)
        assert (found.target, found.compiler, found.facts) == ("rk3588", "2.3.2 (0a1b)", {"way": "Q/DQ"})
        assert (found.size, found.sha256) == (len(BINARY), hashlib.sha256(BINARY).hexdigest())
        assert found.read() == BINARY
        with zipfile.ZipFile(path) as archive:
            assert archive.read("npu/rk3588.rknn") == BINARY
        after = dict(package.read_manifest(path))
        assert {**after, "compiled": [], "members": before["members"]} == before
        assert after["members"].items() > before["members"].items()

    def test_the_newest_for_a_chip_takes_the_place_of_the_others(self, path: Path) -> None:
        for data, target in ((b"1", "rk3588"), (b"2", "rk3566"), (b"3", "rk3588")):
            package.with_compiled(path, data, target, "2")
        assert [(one.target, one.read()) for one in package.read_compiled(path)] == [
            ("rk3566", b"2"), ("rk3588", b"3"),
        ]  # fmt: skip

    def test_a_loaded_package_is_exported_with_it(self, path: Path, tmp_path: Path) -> None:
        package.with_compiled(path, BINARY, "rk3588", "2")
        other = Session()
        other.load_rknn(path)
        assert other.export(tmp_path / "again.rknn").read_bytes() == path.read_bytes()

    def test_what_a_flipped_bit_in_it_costs_is_the_binary_alone(self, path: Path) -> None:
        package.with_compiled(path, BINARY, "rk3588", "2")
        data = bytearray(path.read_bytes())
        data[data.index(BINARY) + 100] ^= 1
        path.write_bytes(data)
        assert package.read(path).batch == 1
        with pytest.raises(FileError, match=r"'npu/rk3588\.rknn' does not match its checksum"):
            package.read_compiled(path)[0].read()

    def test_what_no_package_keeps_is_refused_and_the_file_stays(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()
        for data, target, facts in ((b"", "rk3588", {}), (b"1", "../evil", {}), (b"1", "rk3588", {"a": "b" * 2000})):
            with pytest.raises(EngineError):
                package.with_compiled(path, data, target, "2", facts)
        assert path.read_bytes() == before
        key = Key(bytes(range(32)), is_raw=True)
        encryption.encrypt(path, tmp_path / "m.crypt.rknn", key)
        sealed = (tmp_path / "m.crypt.rknn").read_bytes()
        with pytest.raises(FileError, match="is encrypted"):
            package.with_compiled(tmp_path / "m.crypt.rknn", BINARY, "rk3588", "2")
        assert (tmp_path / "m.crypt.rknn").read_bytes() == sealed

    def test_it_is_read_from_an_encrypted_package(self, path: Path, tmp_path: Path) -> None:
        package.with_compiled(path, BINARY, "rk3588", "2")
        key = Key(bytes(range(32)), is_raw=True)
        encryption.encrypt(path, tmp_path / "m.crypt.rknn", key)
        assert package.read_compiled(tmp_path / "m.crypt.rknn", key)[0].read() == BINARY
        with pytest.raises(ConfigError, match="key"):
            package.read_compiled(tmp_path / "m.crypt.rknn")


class TestMapping:
    @pytest.mark.skipif(sys.platform == "win32", reason="arrays are read there, so that the file may be replaced")
    def test_large_arrays_lie_in_the_file_and_outlive_its_name(self, tmp_path: Path) -> None:
        stored = stored_model()
        path = tmp_path / "m.rknn"
        package.write(path, stored)
        back = package.read(path)
        weight = back.quantized.model.graph.initializers["w"].const_value
        assert weight is not None
        arrays = [weight.numpy(), back.quantized.corrections.weights["c"]]
        wanted = [array.copy() for array in arrays]
        assert all(array.ctypes.data % ALIGNMENT == 0 and not array.flags.owndata for array in arrays)
        assert not any(array.flags.writeable for array in arrays)
        for number in range(2):  # a file that is replaced, and one that is gone
            package.write(path, back) if number == 0 else path.unlink()
            assert all(np.array_equal(one, other) for one, other in zip(arrays, wanted, strict=True))

    def test_a_session_exports_over_the_package_that_it_came_from(self, path: Path, session: Session) -> None:
        before = path.read_bytes()
        other = Session()
        other.load_rknn(path)
        x = random(1, 3, 8, 8, seed=2)
        assert other.export(path).read_bytes() == before
        assert np.array_equal(infer(other, x)[0], infer(session, x)[0])

    def test_notes_beside_constants_change_no_bytes_of_the_next_export(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 3, 8, 8)}, "y = Conv (x, w, b)", {"w": random(32, 3, 3, 3), "b": random(32)})
        for tensor in proto.graph.initializer:
            tensor.doc_string = f"the numbers of {tensor.name}"
        path = built(tmp_path, proto, [[random(1, 3, 8, 8)]]).export(tmp_path / "m.rknn")
        other = Session()
        other.load_rknn(path)
        assert other.export(tmp_path / "again.rknn").read_bytes() == path.read_bytes()

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what a process takes")
    def test_a_large_model_is_read_and_written_without_copies_of_its_arrays(self, tmp_path: Path) -> None:
        constants = {f"w{number}": random(1024, 1024) for number in range(8)}
        body = "\n".join(f"x{number + 1} = MatMul (x{number}, w{number})" for number in range(8))
        proto = network({"x0": (1, 1024)}, body, constants, outputs=["x8"])
        path = built(tmp_path, proto, [[random(1, 1024)]]).export(tmp_path / "m.rknn")
        script = """
import re, sys
from pathlib import Path
from engine.files import package

def told(name):
    return int(re.search(name + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

package.write(sys.argv[2], package.read(sys.argv[3]))
before = told("VmRSS")
stored = package.read(sys.argv[1])
package.write(sys.argv[2], stored)
print(told("VmHWM") - before)
"""
        small = tmp_path / "small.rknn"
        package.write(small, stored_model())
        words = [sys.executable, "-c", script, str(path), str(tmp_path / "again.rknn"), str(small)]
        taken = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3])
        assert (tmp_path / "again.rknn").read_bytes() == path.read_bytes()
        # Once, as the file's own pages.
        assert path.stat().st_size > 32 << 20 and int(taken.stdout) < path.stat().st_size + (16 << 20)

    def test_unpacked_it_is_a_model_for_other_programs(self, path: Path, session: Session, tmp_path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        model = onnx.load(tmp_path / "unpacked" / "graph.onnx")
        onnx.checker.check_model(model)
        there = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, value in session.model.graph.initializers.items():
            assert value.const_value is not None and np.array_equal(there[name], value.const_value.numpy())

    @pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there are no files in memory")
    def test_a_file_in_memory_is_read(self, path: Path, session: Session) -> None:
        descriptor = os.memfd_create("package")
        try:
            os.write(descriptor, path.read_bytes())
            other = Session()
            other.load_rknn(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        x = random(1, 3, 8, 8, seed=3)
        assert np.array_equal(infer(other, x)[0], infer(session, x)[0])


class TestProvenance:
    def test_it_names_the_source_and_no_folder_and_no_time(self, path: Path, session: Session, tmp_path: Path) -> None:
        manifest = package.read_manifest(path)
        source = session._require_loaded("test").path
        assert manifest["provenance"]["source"] == Path(source).name == "model.onnx"
        assert manifest["provenance"]["sha256"] == hashlib.sha256(Path(source).read_bytes()).hexdigest()
        assert manifest["provenance"]["framework"] == "ONNX"
        assert manifest["provenance"]["tool"].startswith("rknn-tui")
        assert manifest["calibration"]["samples"] == 1 and manifest["calibration"]["algorithm"] == "normal"
        assert manifest["config"]["custom_string"] == "Zürich 1"
        assert str(Path(source).parent).encode() not in path.read_bytes()
        os.utime(source, (1, 1))
        again = session.export(tmp_path / "elsewhere.rknn")
        assert again.read_bytes() == path.read_bytes()

    def test_what_is_no_file_has_no_sum(self, tmp_path: Path) -> None:
        assert provenance(tmp_path, "TensorFlow").sha256 == ""
        assert provenance(tmp_path / "none", "ONNX").source == "none"
        assert provenance("a\0b", "ONNX").sha256 == ""

    def test_inspect_shows_it(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        package.with_compiled(path, BINARY, "rk3588", "2.3.2", {"way": "Q/DQ"})
        assert cli.main(["inspect", str(path)]) == 0
        shown = capsys.readouterr().out
        manifest = package.read_manifest(path)
        for words in (
            "format 3, int8 for rk3588, batch 1",
            "Zürich 1",
            "rknn-tui",
            f"ONNX model.onnx, SHA-256 {manifest['provenance']['sha256']}",
            "1 sample, algorithm normal",
            "mean [[1.0, 2.0, 3.0]]",
            "rk3588, compiler 2.3.2, way Q/DQ",
        ):
            assert words in shown
        for name, one in manifest["members"].items():
            line = next(line for line in shown.splitlines() if line.startswith(name))
            assert f"{one['bytes']:,}" in line and one["sha256"][:16] in line
        assert cli.main(["inspect", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["package"] == manifest

    def test_words_in_a_package_cannot_move_the_cursor(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stored = stored_model()
        forged = dataclasses.replace(stored.provenance, tool="\x1b[2J", source="\r\x9b1A")
        path = tmp_path / "m.rknn"
        package.write(path, dataclasses.replace(stored, provenance=forged))
        assert cli.main(["inspect", str(path)]) == 0
        shown = capsys.readouterr().out
        assert "\\x1b[2J" in shown and not set("\x1b\r\x9b") & set(shown)
