"""A package holds all of a build and gives it back; anything else in a file of that name is refused in plain words."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import demo
from engine.config import Config
from engine.errors import ConfigError, EngineError, FileError, QuantizationError
from engine.files import package
from engine.files.provenance import Provenance
from engine.files.stored import Stored, facts_of
from engine.files.stored import members_of as old_members_of
from engine.files.stored_graph import graph_to_bytes
from engine.graph.layers import layers
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Table, to_cfg
from engine.session import Session
from engine.simulator.runner import Simulator
from tests.small_networks import built, infer, network, random

Members = dict[str, bytes]

ESCAPES = ("../../evil", "/tmp/evil-of-rknn", "graph.onnx/../../evil", "..\\..\\evil", "C:\\evil", "npu/../evil", "a/")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    proto = network(
        {"x": (1, 3, 4, 4)}, "c = Conv (x, w)\nr = Relu (c)\ny = Softmax <axis = 1> (r)", {"w": random(5, 3, 1, 1)}
    )
    sample = random(1, 3, 4, 4)
    return built(tmp_path_factory.mktemp("built"), proto, [[sample]], custom_string="Zürich", mean_values=[[1, 2, 3]])


@pytest.fixture(scope="module")
def exported(session: Session, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return session.export(tmp_path_factory.mktemp("exported") / "m.rknn").read_bytes()


def members_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def of_version_2(stored: Stored, **changed: Any) -> bytes:
    """A package as the second version wrote it: all constants in the graph, a member for each corrected array."""
    members = {"graph.onnx": graph_to_bytes(stored.quantized.model), **old_members_of(stored)}
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    facts = facts_of(stored)
    del facts["provenance"]
    manifest = {"format": "rknn-tui", "version": 2, **facts, "members": sums, **changed}
    return packed({"manifest.json": json.dumps(manifest, indent=2).encode(), **members})


def forged(exported: bytes, **changed: Any) -> bytes:
    """A package whose sums are right although `graph`, `table`, `arrays` or keys of the manifest are others."""
    members = members_of(exported)
    for key, name in (("graph", "graph.onnx"), ("table", "table.cfg")):
        members[name] = changed.pop(key, members[name])
    members.update(changed.pop("arrays", {}))
    manifest = json.loads(members.pop("manifest.json"))
    manifest["members"] = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    if manifest["version"] == package.VERSION:
        for key in ("recipe", "samples", "equalized"):
            if key in changed:
                manifest["calibration"][key] = changed.pop(key)
        for key in ("weights", "biases"):
            if key in changed:
                manifest["corrections"][key] = changed.pop(key)
    manifest.update(changed)
    members["manifest.json"] = json.dumps(manifest).encode()
    return packed(members)


class TestRoundTrip:
    def test_it_computes_and_reports_the_same(self, session: Session, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(exported)
        other = Session()
        summary = other.load_rknn(path)
        assert other.config == session.config
        assert other.table == session.table
        assert summary.layers == session.summary().layers
        assert (summary.inputs, summary.outputs, summary.built) == (
            session.summary().inputs, session.summary().outputs, "int8",
        )  # fmt: skip
        x = random(1, 3, 4, 4, seed=2)
        assert np.array_equal(infer(other, x)[0], infer(session, x)[0])
        sample = x.transpose(0, 2, 3, 1)
        assert other.analyze([sample]).layers == session.analyze([sample]).layers

    @pytest.mark.parametrize("settings", [{"do_quantization": False}, {"rknn_batch_size": 3}])
    def test_float16_builds_and_batches_come_back(self, settings: dict[str, Any], tmp_path: Path) -> None:
        proto = network({"x": (1, 4)}, "m = Mul (x, x)\ny = Relu (m)", {})
        session = built(tmp_path, proto, [[random(1, 4)]])
        session.build(dataset=tmp_path / "dataset.txt", **settings)
        other = Session()
        other.load_rknn(session.export(tmp_path / "m.rknn"))
        x = random(settings.get("rknn_batch_size", 1), 4)
        assert np.array_equal(infer(other, x)[0], infer(session, x)[0])

    def test_equal_builds_give_equal_bytes(self, tmp_path: Path) -> None:
        files = []
        for name in ("a", "b"):
            session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD]))
            session.load_onnx(demo.MODEL)
            session.build(dataset=demo.DATASET)
            files.append(session.export(tmp_path / f"{name}.rknn").read_bytes())
        assert files[0] == files[1]
        reloaded = Session()
        reloaded.load_rknn(tmp_path / "a.rknn")
        assert reloaded.export(tmp_path / "c.rknn").read_bytes() == files[0]

    def test_the_graph_in_it_is_a_valid_model_for_other_programs(self, exported: bytes) -> None:
        members = members_of(exported)
        assert list(members) == ["manifest.json", "graph.onnx", "table.cfg"]
        onnx.checker.check_model(members["graph.onnx"])


class TestDamage:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_flipped_bit_is_refused_or_touches_nothing_that_is_read(
        self, data: st.DataObject, exported: bytes, session: Session, tmp_path: Path
    ) -> None:
        position, bit = data.draw(st.integers(0, len(exported) - 1)), data.draw(st.integers(0, 7))
        damaged = bytearray(exported)
        damaged[position] ^= 1 << bit
        path = tmp_path / "m.rknn"
        path.write_bytes(damaged)
        try:
            stored = package.read(path)
        except FileError as error:
            assert str(path) in str(error)
        else:  # a date or a flag of the zip, which nobody reads
            assert stored.quantized.table == session.table and stored.config == session.config
            assert ir.to_proto(stored.quantized.model) == ir.to_proto(session.model)

    def test_a_flipped_bit_in_any_member_is_refused(self, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        for content in members_of(exported).values():
            start = exported.index(content)
            for position in {start, start + len(content) // 2, start + len(content) - 1}:
                damaged = bytearray(exported)
                damaged[position] ^= 4
                path.write_bytes(damaged)
                with pytest.raises(FileError):
                    package.read(path)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_a_file_cut_short_is_refused(self, share: float, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(exported[: int(share * len(exported))])
        with pytest.raises(FileError):
            package.read(path)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda data: forged(data, version=4), "format version 4; this program reads up to 3"),
            (lambda data: forged(data, version=4, members=5), "format version 4; this program reads up to 3"),
            (lambda data: forged(data, version=True), "format version True"),
            (lambda data: forged(data, recipe=5), "recipe 5"),
            (lambda data: forged(data, recipe="x" * 5000), "recipe 'xxx"),
            (lambda data: forged(data, samples=-1), "-1 samples"),
            (lambda data: forged(data, equalized="c"), "equalized that are no list of names"),
            (lambda data: forged(data, weights=["c"]), "tells no weights"),
            (lambda data: forged(data, corrections=[]), "tells no corrections"),
            (lambda data: forged(data, calibration=[]), "tells no calibration"),
            (lambda data: forged(data, weights={"nothing": 0}), "weights of 'nothing', which has none"),
            (lambda data: forged(data, biases={"r": 0}), "biases of 'r', which has none"),
            (lambda data: forged(data, weights={"c": 0}), "no array of (5, 3, 1, 1) at 0"),
            (lambda data: forged(data, weights={"c": -64}), "no array of (5, 3, 1, 1) at -64"),
            (lambda data: forged(data, weights={"c": "0"}), "no array of (5, 3, 1, 1) at '0'"),
            (lambda data: forged(data, provenance=5), "where it comes from"),
            (lambda data: forged(data, provenance={"tool": 5}), "where it comes from"),
            (lambda data: forged(data, provenance={"sha256": "12"}), "a sum of its source"),
            (lambda data: forged(data, compiled=5), "no compiled models"),
            (lambda data: forged(data, compiled=[5]), "without a target"),
            (lambda data: forged(data, compiled=[{"target": "rk3588"}]), "damaged"),
            (lambda data: forged(data, arrays={"more": b"1"}), "'more', which is nothing of ours"),
            (lambda data: forged(data, arrays={"weights.bin": b"1"}), "1 bytes too many"),
            (lambda data: forged(data, arrays={"corrections.bin": bytes(64)}), "64 bytes too many"),
            (lambda data: forged(data, format="other"), "not a package of this tool"),
            (lambda data: packed(members_of(data), zipfile.ZIP_DEFLATED), "compressed"),
            (lambda data: packed({k: v for k, v in members_of(data).items() if k != "table.cfg"}), "lacks members"),
            (lambda data: packed({**members_of(data), "manifest.json": b"[1]"}), "not a package of this tool"),
            (lambda data: packed({**members_of(data), "manifest.json": b"{" * 9}), "damaged"),
            (lambda data: packed({**members_of(data), "manifest.json": b"[" * 100_000}), "damaged"),
            (lambda data: packed({**members_of(data), "manifest.json": b" " * (20 << 20)}), "too large"),
            (lambda data: packed({**members_of(data), "table.cfg": b"{}"}), "checksum"),
            (lambda data: forged(data, members={}), "'graph.onnx', which its manifest does not list"),
            (lambda data: forged(data, members=3), "'graph.onnx', which its manifest does not list"),
            (lambda data: forged(data, batch=0), "batch 0"),
            (lambda data: forged(data, batch="many"), "batch 'many'"),
            (lambda data: forged(data, batch=10**30), "batch"),
            (lambda data: forged(data, precision="int4"), "precision 'int4'"),
            (lambda data: forged(data, graph=b"\xff" * 40), "graph that cannot be read"),
            (lambda data: forged(data, table=b"\xff\xfe"), "damaged"),
            (lambda data: b"RKNN" + bytes(60), "vendor"),
            (lambda data: b"\x20\0\0\0RKNN" + bytes(60), "vendor"),
            (lambda data: b"CYPTRKNN" + bytes(60), "vendor"),
            (lambda data: b"RKNX" + bytes(60), "vendor"),
            (lambda data: b"", "not a package"),
            (lambda data: b"PK\x03\x04" + bytes(200), "not a package"),
            (lambda data: packed({}), "not a package"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, make: Callable[[bytes], bytes], message: str, exported: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(make(exported))
        with pytest.raises(FileError) as caught:
            package.read(path)
        assert message in str(caught.value) and str(path) in str(caught.value)

    def test_settings_and_tables_that_cannot_be_are_told_as_such(self, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(forged(exported, config={"target_platform": "rk9999"}))
        with pytest.raises(ConfigError, match="rk9999"):
            package.read(path)
        path.write_bytes(forged(exported, table=b"quantize_parameters: {x: 5}"))
        with pytest.raises(QuantizationError, match=r"table\.cfg line 1, column 26"):
            package.read(path)

    def test_a_missing_file_and_a_folder_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="does not exist"):
            package.read(tmp_path / "none.rknn")
        with pytest.raises(FileError, match="cannot be read"):
            package.read(tmp_path)

    def test_a_package_is_known_by_its_content(self, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.bin"
        assert not package.is_package(path)
        for data, expected in ((exported, True), (b"", False), (packed({"a": b""}), False), (b"\xff" * 99, False)):
            path.write_bytes(data)
            assert package.is_package(path) is expected


class TestCorrections:
    def stored(self, session: Session) -> Stored:
        corrections = Corrections({"c": random(5, 3, 1, 1, seed=4)}, {"c": random(5, seed=5)})
        table = Table(session.table.rows, {"c": "int16", "r": "int16"})
        quantized = Quantized(session.model, layers(session.model), table, corrections=corrections)
        return Stored(quantized, session.config, "int8", 1, "mse + bias correction", ("c",), 7)

    def test_they_come_back_with_the_recipe_and_the_wishes(self, session: Session, tmp_path: Path) -> None:
        stored = self.stored(session)
        package.write(tmp_path / "m.rknn", stored)
        back = package.read(tmp_path / "m.rknn")
        assert (back.recipe, back.equalized, back.samples) == ("mse + bias correction", ("c",), 7)
        assert back.quantized.table.wishes == {"c": "int16", "r": "int16"}
        x = {"x": random(1, 3, 4, 4, seed=2)}
        results = [Simulator(quantized).run(x)[0] for quantized in (back.quantized, stored.quantized)]
        assert np.array_equal(*results)
        plain = dataclasses.replace(stored.quantized, corrections=Corrections())
        assert not np.array_equal(Simulator(plain).run(x)[0], results[0])
        package.write(tmp_path / "again.rknn", back)
        assert (tmp_path / "again.rknn").read_bytes() == (tmp_path / "m.rknn").read_bytes()

    def test_packages_of_version_2_are_read_and_written_anew(self, session: Session, tmp_path: Path) -> None:
        stored = self.stored(session)
        path = tmp_path / "m.rknn"
        path.write_bytes(of_version_2(stored))
        back = package.read(path)
        assert package.read_manifest(path)["version"] == 2
        assert (back.recipe, back.equalized, back.samples) == (stored.recipe, stored.equalized, stored.samples)
        assert back.provenance == Provenance() and back.compiled == ()
        package.write(path, back)
        assert package.read_manifest(path)["version"] == 3
        package.write(tmp_path / "direct.rknn", stored)
        assert path.read_bytes() == (tmp_path / "direct.rknn").read_bytes()

    def test_packages_of_version_1_are_read(self, session: Session, tmp_path: Path) -> None:
        quantized = Quantized(session.model, layers(session.model), session.table)
        members = members_of(of_version_2(Stored(quantized, session.config, "int8", 1)))
        manifest = json.loads(members["manifest.json"])
        for key in ("recipe", "equalized", "samples", "weights", "biases"):
            del manifest[key]
        members["manifest.json"] = json.dumps({**manifest, "version": 1}).encode()
        path = tmp_path / "m.rknn"
        path.write_bytes(packed(members))
        back = package.read(path)
        assert (back.recipe, back.equalized, back.samples) == ("", (), 0)
        assert back.quantized.corrections == Corrections() and back.quantized.table == session.table

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.full((5,), np.nan, np.float32), "infinite or none"),
            (np.full((5,), np.inf, np.float32), "infinite or none"),
            (np.zeros((5,), np.float64), "no array of (5,) float32 numbers"),
            (np.zeros((4,), np.float32), "no array of (5,) float32 numbers"),
            (np.zeros((5, 1), np.float32), "no array of (5,) float32 numbers"),
            (np.zeros((5000,), np.float32), "too large"),
            (np.array([None] * 5), "no array of (5,) float32 numbers"),
        ],
    )
    def test_forged_arrays_are_refused(self, array: np.ndarray, message: str, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(of_version_2(self.stored(session)))
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        path.write_bytes(forged(path.read_bytes(), arrays={"biases/0.npy": file.getvalue()}))
        with pytest.raises(FileError) as caught:
            package.read(path)
        assert message in str(caught.value) and "biases/0.npy" in str(caught.value)

    def test_an_array_that_claims_to_be_endless_takes_no_memory(self, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(of_version_2(self.stored(session)))
        good = members_of(path.read_bytes())["biases/0.npy"]
        for bad in (
            good.replace(b"(5,), ", b"(9**9**9,), "),
            good.replace(b"(5,)", b"(5000000000000,)"),
            b"",
            good[:20],
        ):
            path.write_bytes(forged(path.read_bytes(), arrays={"biases/0.npy": bad}))
            with pytest.raises(FileError):
                package.read(path)

    def test_forged_wishes_are_refused(self, exported: bytes, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        for wish, message in (
            ({"c": "int4"}, "cannot run a layer in 'int4'"),
            ({"z": "int8"}, "'z': the model has no such"),
        ):
            table = to_cfg(Table(session.table.rows, wish)).encode()
            path.write_bytes(forged(exported, table=table))
            with pytest.raises(QuantizationError, match=message):
                package.read(path)


class TestHostileFiles:
    def test_members_that_point_outside_are_never_unpacked(self, exported: bytes, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "er"
        folder.mkdir(parents=True)
        path = folder / "m.rknn"
        for stranger in ESCAPES:
            for data in (
                packed({**members_of(exported), stranger: b"x"}),
                forged(exported, arrays={stranger: b"x"}),
            ):
                path.write_bytes(data)
                before = sorted(tmp_path.rglob("*"))
                with pytest.raises(FileError):
                    package.read(path)
                assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/evil-of-rknn").exists()

    def test_strangers_in_files_of_older_versions_are_never_unpacked(self, session: Session, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "er"
        folder.mkdir(parents=True)
        path = folder / "m.rknn"
        quantized = Quantized(session.model, layers(session.model), session.table)
        old = members_of(of_version_2(Stored(quantized, session.config, "int8", 1)))
        path.write_bytes(packed({**old, **dict.fromkeys(ESCAPES, b"x")}))
        before = sorted(tmp_path.rglob("*"))
        assert package.read(path).batch == 1
        assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/evil-of-rknn").exists()

    @pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
    def test_a_graph_that_reads_other_files_is_refused(self, place: str, exported: bytes, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(64))
        tensor = onnx.TensorProto(name="s", data_type=1, dims=[16], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=str(secret))
        graph = onnx.ModelProto.FromString(members_of(exported)["graph.onnx"])
        if place == "initializer":
            graph.graph.initializer.append(tensor)
        elif place == "attribute":
            graph.graph.node.append(onnx.helper.make_node("Constant", [], ["k"], value=tensor))
        else:
            body = onnx.helper.make_graph([], "b", [], [], [tensor])
            graph.graph.node.append(onnx.helper.make_node("If", ["x"], ["k"], then_branch=body, else_branch=body))
        path = tmp_path / "m.rknn"
        path.write_bytes(forged(exported, graph=graph.SerializeToString()))
        with pytest.raises(FileError, match="refers to other files"):
            package.read(path)

    def test_a_graph_without_shapes_or_with_too_few_numbers_is_refused(self, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        original = members_of(exported)["graph.onnx"]
        shapeless, short = onnx.ModelProto.FromString(original), onnx.ModelProto.FromString(original)
        del shapeless.graph.value_info[:]
        short.graph.initializer[0].raw_data = b"1234"
        for graph in (shapeless, short):
            path.write_bytes(forged(exported, graph=graph.SerializeToString()))
            with pytest.raises(FileError, match="graph that cannot be read"):
                package.read(path)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_forged_graph_is_refused_or_is_a_graph(
        self, data: st.DataObject, exported: bytes, tmp_path: Path
    ) -> None:
        graph = bytearray(members_of(exported)["graph.onnx"])
        for _ in range(3):
            graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path / "m.rknn"
        path.write_bytes(forged(exported, graph=bytes(graph)))
        try:
            Session().load_rknn(path)
        except EngineError as error:
            assert str(error)

    @pytest.mark.parametrize("forgery", [(b"opset\x12\x0218", b"opset\x12\x02\x80\x80"), (b"\x04nchw", b"\x04n\x80hw")])
    def test_forged_notes_of_a_graph_are_refused_or_passed_over(
        self, forgery: tuple[bytes, bytes], exported: bytes, tmp_path: Path
    ) -> None:
        graph = members_of(exported)["graph.onnx"]
        assert forgery[0] in graph
        path = tmp_path / "m.rknn"
        path.write_bytes(forged(exported, graph=graph.replace(*forgery)))
        try:
            assert Session().load_rknn(path).inputs[0].layout == ""
        except FileError as error:
            assert error.where == str(path)


class TestWriting:
    def stored(self, session: Session) -> Stored:
        quantized = Quantized(session.model, layers(session.model), session.table)
        return Stored(
            quantized, session.config, "int8", 1, "minmax", (), 1, session._require_built("export").stored.provenance
        )

    def test_when_the_disk_is_full_the_old_file_stays_and_nothing_else_does(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(b"old")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match="No space left on device"):
            package.write(path, self.stored(session))
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["m.rknn"]

    def test_a_folder_that_is_missing_or_in_the_way_is_told(self, session: Session, tmp_path: Path) -> None:
        with pytest.raises(FileError):
            package.write(tmp_path / "none" / "m.rknn", self.stored(session))
        with pytest.raises(FileError, match="folder"):
            package.write(tmp_path, self.stored(session))

    def test_an_existing_file_is_replaced(self, session: Session, exported: bytes, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(b"old" * 100_000)
        package.write(path, self.stored(session))
        assert path.read_bytes() == exported
        assert to_cfg(package.read(path).quantized.table) == to_cfg(session.table)
        assert isinstance(package.read(path).quantized.table, Table)
