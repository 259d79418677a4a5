"""Step 1's three files carry a model to step 2 in another process, and are never mixed up, half written or lost."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine.config import Config
from engine.errors import EngineError, FileError
from engine.files import hybrid_files, members
from engine.files.stored import Stored
from engine.graph.layers import layers
from engine.ort import make_session, run
from engine.quantization.cfg_edit import with_ranges, with_wishes
from engine.quantization.hybrid import apply_cfg
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Table, from_cfg
from engine.simulator.runner import Simulator
from tests.small_networks import built, network, random

SETTINGS = {"mean_values": [[1, 2, 3]], "custom_string": "Zürich", "target_platform": "rk3566"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    body = "c = Conv (x, w)\nr = Relu (c)\nd = Conv (r, v, b)\ny = Relu (d)"
    constants = {"w": random(5, 3, 1, 1), "v": random(2, 5, 1, 1), "b": random(2)}
    sample = random(1, 3, 4, 4)
    session = built(tmp_path_factory.mktemp("m"), network({"x": (1, 3, 4, 4)}, body, constants), [[sample]], **SETTINGS)
    corrections = Corrections({"c": random(5, 3, 1, 1, seed=1)}, {"d": random(2, seed=2), "c": random(5, seed=3)})
    table = Table(session.table.rows, {"r": "float16", "c": "float16"})
    quantized = Quantized(session.model, layers(session.model), table, corrections=corrections)
    return Stored(quantized, session.config, "int8", 2, "mse + bias correction", ("c", "d"), 3)


def outputs(quantized: Quantized) -> np.ndarray:
    return Simulator(quantized).run({"x": random(1, 3, 4, 4, seed=9)})[0]


class TestRoundTrip:
    def test_everything_comes_back(self, stored: Stored, tmp_path: Path) -> None:
        model, data, cfg = hybrid_files.write(tmp_path, "a.b", stored)
        assert [p.name for p in (model, data, cfg)] == ["a.b.model", "a.b.data", "a.b.quantization.cfg"]
        assert sorted(tmp_path.iterdir()) == sorted([model, data, cfg])
        back = hybrid_files.read(model, data)
        assert (back.config, back.precision, back.batch) == (stored.config, "int8", 2)
        assert (back.recipe, back.equalized, back.samples) == ("mse + bias correction", ("c", "d"), 3)
        assert back.quantized.table == stored.quantized.table
        for kind in ("weights", "biases"):
            mine, theirs = getattr(stored.quantized.corrections, kind), getattr(back.quantized.corrections, kind)
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert np.array_equal(outputs(back.quantized), outputs(stored.quantized))

    def test_equal_models_give_equal_bytes(self, stored: Stored, tmp_path: Path) -> None:
        corrections = stored.quantized.corrections
        backwards = Corrections(corrections.weights, dict(reversed(corrections.biases.items())))
        other = dataclasses.replace(stored, quantized=dataclasses.replace(stored.quantized, corrections=backwards))
        for folder, each in (("a", stored), ("b", other)):
            (tmp_path / folder).mkdir()
            hybrid_files.write(tmp_path / folder, "m", each)
        for path in sorted((tmp_path / "a").iterdir()):
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

    def test_the_model_is_plain_onnx_and_the_data_a_zip_without_pickles(self, stored: Stored, tmp_path: Path) -> None:
        model, data, _ = hybrid_files.write(tmp_path, "m", stored)
        onnx.checker.check_model(str(model), full_check=True)
        assert run(make_session(model.read_bytes()), None, {"x": random(1, 3, 4, 4)})[0].shape == (1, 2, 4, 4)
        with zipfile.ZipFile(data) as archive:
            names = archive.namelist()
            assert names == ["manifest.json", "table.cfg", "weights/0.npy", "biases/0.npy", "biases/1.npy"]
            with archive.open("biases/1.npy") as member:
                assert np.array_equal(np.load(member), stored.quantized.corrections.biases["d"])

    def test_the_cfg_tells_where_it_is_from_and_holds_a_proposal(self, stored: Stored, tmp_path: Path) -> None:
        comments, heading = {"r": "0.99986"}, "0.99953"
        cfg = hybrid_files.write(tmp_path, "m", stored, comments=comments, heading=heading)[2].read_text()
        assert cfg.splitlines()[:7] == [
            "# quantized with mse + bias correction, calibrated with 3 samples",
            "# equalized in 2 layers: c, d",
            "# weights clipped in 1 layer: c",
            "# bias corrected in 2 layers: c, d",
            "custom_quantize_layers:".ljust(100) + "# 0.99953",
            "    r: float16".ljust(100) + "# 0.99986",
            "    c: float16",
        ]
        assert from_cfg(cfg) == stored.quantized.table

    def test_a_person_edits_and_another_process_builds_what_the_cfg_says(self, stored: Stored, tmp_path: Path) -> None:
        model, data, cfg = hybrid_files.write(tmp_path, "m", stored)
        ranges = {"x_int8": (-2.0, 2.5)}
        text = with_ranges(with_wishes(hybrid_files.read_cfg(cfg), {"d": "int16", "y": "int16"}), ranges)
        cfg.write_text(text.replace("custom_quantize_layers:", "# mine\n\ncustom_quantize_layers: # of 2"))
        script = """
import sys, numpy as np
from engine.files import hybrid_files
from engine.quantization.hybrid import apply_cfg
from engine.simulator.runner import Simulator
model, data, cfg, sample, result = sys.argv[1:]
stored = hybrid_files.read(model, data)
built = apply_cfg(stored.quantized, hybrid_files.read_cfg(cfg), stored.config.target, where=cfg)
np.save(result, Simulator(built).run({"x": np.load(sample)})[0])
"""
        np.save(tmp_path / "x.npy", random(1, 3, 4, 4, seed=9))
        arguments = [str(p) for p in (model, data, cfg, tmp_path / "x.npy", tmp_path / "y.npy")]
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=Path(__file__).parents[3])
        table = stored.quantized.table
        rows = from_cfg(text).rows
        wanted = stored.quantized.changed(table=Table(dict(table.rows), {"d": "int16", "y": "int16"}))
        wanted = apply_cfg(wanted, with_ranges(with_wishes(text, wanted.table.wishes), ranges), stored.config.target)
        assert rows["x_int8"].max == wanted.table.rows["x_int8"].max == 2.5
        assert wanted.table.precision("y") == "int16"
        here = outputs(wanted)
        assert np.array_equal(np.load(tmp_path / "y.npy"), here)
        assert not np.array_equal(here, outputs(stored.quantized))


class TestOldFiles:
    def test_an_edited_cfg_is_kept_and_told_of(
        self, stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cfg = hybrid_files.write(tmp_path, "m", stored)[2]
        fresh = cfg.read_bytes()
        backup = tmp_path / "m.quantization.cfg.bak"
        other = dataclasses.replace(stored, recipe="minmax")
        with caplog.at_level(logging.WARNING):
            hybrid_files.write(tmp_path, "m", other)
            assert not backup.exists() and not caplog.messages
            cfg.write_text("# my work\n")
            hybrid_files.write(tmp_path, "m", stored)
            assert backup.read_text() == "# my work\n" and cfg.read_bytes() == fresh
            assert "m.quantization.cfg.bak" in caplog.text
            # A cfg as it was written is nobody's work, and takes no work's place.
            hybrid_files.write(tmp_path, "m", other)
        assert backup.read_text() == "# my work\n"
        assert len(caplog.messages) == 1

    def test_a_cfg_without_its_data_is_kept(self, stored: Stored, tmp_path: Path) -> None:
        (tmp_path / "m.quantization.cfg").write_text("custom_quantize_layers: {a: int8}")
        (tmp_path / "m.data").write_bytes(b"\x80\x04pickle")
        hybrid_files.write(tmp_path, "m", stored)
        assert (tmp_path / "m.quantization.cfg.bak").read_text() == "custom_quantize_layers: {a: int8}"

    def test_when_the_disk_is_full_the_old_files_stay(
        self, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = hybrid_files.write(tmp_path, "m", stored)
        found[2].write_text("# my work\n")
        before = {path: path.read_bytes() for path in found}
        sync = os.fsync
        for working in range(4):
            left = iter(range(working))

            def full(descriptor: int, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise OSError(28, "No space left on device")
                sync(descriptor)

            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(FileError, match="No space left on device"):
                hybrid_files.write(tmp_path, "m", dataclasses.replace(stored, batch=1))
            assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_the_source_model_is_not_replaced(self, stored: Stored, tmp_path: Path) -> None:
        source = tmp_path / "m.model"
        source.write_bytes(b"precious")
        with pytest.raises(FileError, match="would be replaced"):
            hybrid_files.write(tmp_path, "m", stored, source=source)
        assert [p.name for p in tmp_path.iterdir()] == ["m.model"]
        hybrid_files.write(tmp_path, "m", stored, source=tmp_path / "other.onnx")


class TestRefusal:
    def test_files_of_two_runs_are_not_mixed(self, stored: Stored, tmp_path: Path) -> None:
        model, data, _ = hybrid_files.write(tmp_path, "m", stored)
        proto = onnx.ModelProto.FromString(model.read_bytes())
        proto.graph.name = "other"
        model.write_bytes(proto.SerializeToString())
        with pytest.raises(FileError, match="was not written together with") as caught:
            hybrid_files.read(model, data)
        assert caught.value.where == str(model) and "step 1" in caught.value.hint

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda model, data: data.write_bytes(b"\x80\x04\x95pickle"), "is not a .data file of this tool"),
            (lambda model, data: data.write_bytes(model.read_bytes()), "is not a .data file of this tool"),
            (lambda model, data: data.write_bytes(data.read_bytes()[:-40]), "is not a .data file of this tool"),
            (lambda model, data: model.write_bytes(data.read_bytes()), "was not written together"),
            (lambda model, data: model.unlink(), "m.model: does not exist"),
            (lambda model, data: data.unlink(), "m.data: does not exist"),
            (lambda model, data: (data.unlink(), data.mkdir()), "m.data"),
        ],
    )
    def test_other_files_are_told(
        self, spoil: Callable[[Path, Path], object], message: str, stored: Stored, tmp_path: Path
    ) -> None:
        model, data, _ = hybrid_files.write(tmp_path, "m", stored)
        spoil(model, data)
        with pytest.raises(FileError) as caught:
            hybrid_files.read(model, data)
        assert message in str(caught.value)

    def test_a_package_is_no_data_file(self, stored: Stored, tmp_path: Path) -> None:
        path = tmp_path / "m.data"
        with path.open("wb") as file:
            members.write(file, {"format": "rknn-tui", "version": 1}, {})
        with pytest.raises(FileError, match=r"is not a \.data file of this tool"):
            hybrid_files.read(tmp_path / "m.model", path)

    def test_a_cfg_that_is_no_text_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "m.cfg"
        path.write_bytes(b"a: \xff")
        with pytest.raises(FileError, match="not UTF-8 text: byte 3"):
            hybrid_files.read_cfg(path)
        with pytest.raises(FileError, match="does not exist"):
            hybrid_files.read_cfg(tmp_path / "none")

    def test_a_folder_that_is_missing_leaves_nothing(self, stored: Stored, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="choose a folder"):
            hybrid_files.write(tmp_path / "none", "m", stored)
        assert not list(tmp_path.iterdir())

    def test_another_config_is_another_target(self, stored: Stored, tmp_path: Path) -> None:
        model, data, _ = hybrid_files.write(tmp_path, "m", stored)
        assert hybrid_files.read(model, data).config == Config.from_mapping(SETTINGS)
