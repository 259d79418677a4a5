"""What a file of the vendor's compiler holds is read as it was written, in every layout; other kinds are named."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from engine import cli
from engine.errors import FileError
from engine.files import vendor
from engine.files.vendor.model import VendorModel
from engine.files.vendor.text_facts import from_json, literal
from tests.engine.files.vendor.vendor_files import container, flatbuffer, full, full_slots, mini, outline_of
from tests.engine.files.vendor.vendor_models import as_early, as_mini, examples, models, placed, small


def read(data: bytes, folder: Path) -> VendorModel:
    path = folder / "m.rknn"
    path.write_bytes(data)
    return vendor.read(path)


class TestLayouts:
    @settings(max_examples=25, derandomize=True, deadline=None)
    @given(models())
    def test_any_model_is_read_as_it_was_written(self, model: VendorModel) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "m.rknn"
            for data, kept in (
                (full(model), model),
                (full(model, 1), as_early(model, 1)),
                (full(model, 2), as_early(model, 2)),
                (mini(as_mini(model)), as_mini(model)),
            ):
                path.write_bytes(data)
                found = vendor.read(path)
                assert dataclasses.replace(found, partial=()) == placed(kept, path)
                # Nodes drawn by chance may go round.
                assert all("behind it" in line for line in found.partial)
                made: list[str] = []
                for layer in found.summary().layers:
                    # Lanes need one maker for each tensor, above all that read it.
                    assert set(layer.reads) <= set(made)
                    made += layer.outputs
                assert len(made) == len(set(made))

    def test_a_model_is_read_without_its_container(self, tmp_path: Path) -> None:
        model = dataclasses.replace(small(), container="flatbuffer", revision=0)
        assert read(flatbuffer(full_slots(model)), tmp_path) == placed(model, tmp_path / "m.rknn")

    @pytest.mark.parametrize("version", [3, 7, 0x2001, 0x1106_0000_0000_0004])
    def test_of_an_unknown_layout_the_json_is_told(self, version: int, tmp_path: Path) -> None:
        model = small()
        outline = outline_of("rk9999", model.inputs, model.outputs)
        found = read(container(flatbuffer(full_slots(model)), version, outline), tmp_path)
        assert (found.target, found.compiler, found.nodes) == ("rk9999", "2.5.0", ())
        assert [(one.name, one.shape) for one in (*found.inputs, *found.outputs)] == [
            ("x", (1, 3, 8, 8)),
            ("y", (1, 8, 8, 8)),
        ]
        assert f"{version:#x} is not known" in found.partial[0]

    def test_the_json_makes_up_for_a_model_that_cannot_be_read(self, tmp_path: Path) -> None:
        found = read(container(b"\xff" * 4 + b"RKNN" + bytes(20), 6), tmp_path)
        assert found.target == "rk3588" and "leads out of the file" in found.partial[0]

    def test_a_model_makes_up_for_json_that_cannot_be_read(self, tmp_path: Path) -> None:
        for outline in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"[" + b"[]," * 300_000):
            found = read(container(flatbuffer(full_slots(small())), 6, outline), tmp_path)
            assert found.nodes == small().nodes
            assert len(found.partial) == 1 and "JSON" in found.partial[0]

    def test_what_is_wrong_in_a_part_leaves_the_rest(self, tmp_path: Path) -> None:
        model = small()
        tensors = list(model.tensors)
        tensors[4] = dataclasses.replace(tensors[4], shape=(1, -8, 8, 8), scale=(float("nan"),))
        nodes = [*model.nodes, dataclasses.replace(model.nodes[1], inputs=(99, 1), outputs=(-1,))]
        broken = dataclasses.replace(model, tensors=tuple(tensors), nodes=tuple(nodes))
        slots = {**full_slots(broken), 3: ("string", "{'a': __import__('os')}"), 12: ("string", "{")}
        found = read(container(flatbuffer(slots), 6), tmp_path)
        assert found.custom_string == model.custom_string and found.outputs == model.outputs
        assert (found.tensors[4].shape, found.tensors[4].scale, found.nodes[-1].inputs) == ((), (), (1,))
        told = "\n".join(found.partial)
        assert all(part in told for part in ("a tensor", "a node", "the build's notes", "the field 'inputs'"))

    def test_text_that_is_not_utf_8_is_told(self, tmp_path: Path) -> None:
        data = full(small()).replace("Zürich".encode(), "Z\xfcrich.".encode("latin-1"))
        found = read(data, tmp_path)
        assert found.custom_string == "Z\N{REPLACEMENT CHARACTER}rich. 42"
        assert found.partial == ("names: some are not UTF-8",)

    def test_a_large_file_is_read_without_its_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        model = dataclasses.replace(as_mini(small()), memory=dataclasses.replace(small().memory, weights=80 << 20))
        path.write_bytes(mini(model))
        assert vendor.read(path) == placed(model, path)


class TestKinds:
    @pytest.mark.parametrize(
        ("data", "what", "hint"),
        [
            (b"CYPTRKNN" + bytes(99), "encrypted", "made from"),
            (b"RKNX" + bytes(200), "RK182x", "RKNN3"),
            (b"VPMN" + bytes(200), "RKNN-Toolkit 1", "source model"),
            (container(b"VPMN" + bytes(200), 1), "RKNN-Toolkit 1", "source model"),
            (b'{"version": "1.7", "network_platform": "ONNX", "nodes": []}', "graph in JSON", "source model"),
            (b"RKNN", "cut short", "copy it"),
            (full(small())[:-1], "cut short", "copy it"),
            (container(b"", 6, b""), "nothing can be read", "copy it"),
        ],
    )
    def test_a_kind_that_cannot_be_read_is_named(self, data: bytes, what: str, hint: str, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(data)
        assert vendor.is_vendor_file(path)
        with pytest.raises(FileError) as caught:
            vendor.read(path)
        assert what in caught.value.what and hint in caught.value.hint and caught.value.where == str(path)

    def test_other_files_are_none_of_the_vendors(self, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        for data in (b"", b"PK\x03\x04" + bytes(99), b"{}", b"RKN", b"\x08\x07"):
            path.write_bytes(data)
            assert not vendor.is_vendor_file(path)
            with pytest.raises(FileError, match="not a file of the vendor's"):
                vendor.read(path)
        assert not vendor.is_vendor_file(tmp_path / "none") and not vendor.is_vendor_file(tmp_path)
        with pytest.raises(FileError, match="does not exist"):
            vendor.read(tmp_path / "none")

    def test_who_would_run_one_here_is_told_what_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "m.rknn"
        path.write_bytes(full(small()))
        error = vendor.refusal(path)
        assert all(part in str(error) for part in ("rk3588", "2.5.0", "only on a board", "source model", str(path)))
        path.write_bytes(b"CYPTRKNN" + bytes(99))
        assert "encrypted" in str(vendor.refusal(path)) and "source model" in str(vendor.refusal(path))


class TestSummary:
    def test_layers_have_their_edges_and_precisions(self, tmp_path: Path) -> None:
        found = read(full(small()), tmp_path).summary()
        assert [(one.name, one.op, one.inputs, one.precision, one.sources) for one in found.layers] == [
            ("x", "Input", (), "int8", ()),
            ("c", "ConvRelu", ("x",), "int8", ("conv_a",)),
            ("s", "Softmax (CPU)", ("c",), "float16", ("soft",)),
            ("y", "Add", ("c", "s"), "int8", ("sum",)),
        ]
        assert [one.index for one in found.layers] == [0, 1, 2, 3]
        assert (found.target, found.built, found.parameters) == ("rk3588", "int8+float16", 8 * 27 + 8)
        assert "only on a board" in found.notes[0]
        grid = found.inputs[0].grid
        assert grid is not None and (grid.scale, grid.zero_point) == (0.5, -3)
        assert (found.inputs[0].layout, found.outputs[0].layout) == ("nhwc", "nchw")

    def test_names_that_are_empty_or_twice_stay_apart(self, tmp_path: Path) -> None:
        model = small()
        tensors = list(model.tensors)
        tensors[4], tensors[5] = (dataclasses.replace(tensors[place], name=name) for place, name in ((4, "x"), (5, "")))
        found = read(full(dataclasses.replace(model, tensors=tuple(tensors))), tmp_path).summary()
        assert [one.name for one in found.layers] == ["x", "x (4)", "tensor 5", "y"]
        assert found.layers[3].inputs == ("x (4)", "tensor 5")


class TestTexts:
    def test_a_literal_is_read_as_python_writes_it(self) -> None:
        value = {"a": [1, -2.5, 1e-07, True, None], "b": {"c'\"\n\x00é€\U0001f600": ()}, "d": "x"}
        assert literal(repr(value)) == {**value, "b": {"c'\"\n\x00é€\U0001f600": []}}
        assert literal("{}") == {}
        assert literal(repr({"range": [float("-inf"), float("inf"), float("nan")]})) == {
            "range": [float("-inf"), float("inf"), None]
        }

    @pytest.mark.parametrize(
        "text",
        [
            *("[1]", "{1}", "{'a': f()}", "{'a': ()()}", "{'a': [1][0]}", "{'a': 1+1}", "{'a': 'b' 'c'}", "{'a': --1}"),
            *(
                "{'a': " * 90 + "1" + "}" * 90,
                "{'a': " + "[" * 10_000,
                "{'a': 1" + "0" * 60 + "}",
                "{",
                "}",
                "{'a': b''}",
            ),
            *("{'a': [" + "1," * 500_000 + "]}", "{'a': '" + "x" * (5 << 20) + "'}", "{[]: 1}", "{'a': '\\N{DASH}'}"),
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            literal(text)

    def test_json_that_no_screen_can_show_is_made_harmless(self) -> None:
        assert from_json(rb'{"a": ["\ud800"], "b": NaN}')["a"] == ["?"]
        for depth in (100, 480, 600, 900, 990, 2000):
            text = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
            try:
                assert list(from_json(text)) == ["a"]
            except ValueError as error:
                assert "nested" in str(error) and depth > 100
        with pytest.raises(ValueError, match="digits"):
            from_json(b'{"a": ' + b"9" * 5000 + b"}")


@pytest.mark.parametrize("layout", examples())
def test_inspect_shows_at_a_glance_that_the_file_runs_on_a_board_only(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(examples()[layout])
    assert cli.main(["inspect", str(path)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert "vendor" in first and "runs only on a board" in first and ("rk3588" in first or "rv1106" in first)
    text = "\n".join(rest)
    for part in ("2.5.0", "Zürich 42", "ConvRelu", "Softmax (CPU)", "0.5", "127.5", "weights 1.2 KB"):
        assert part in text, part
    assert cli.main(["inspect", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["vendor"]["custom_string"] == "Zürich 42"
    assert document["model"]["layers"][1]["op"] == "ConvRelu"
    assert document["problem"] is None


def test_inspect_refuses_a_kind_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(b"CYPTRKNN" + bytes(99))
    assert cli.main(["inspect", str(path)]) != 0
    assert "encrypted by the vendor's toolkit" in capsys.readouterr().err


def test_inspect_tells_the_shapes_that_a_file_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.rknn"
    shapes = (((1, 3, 8, 8),), ((1, 3, 16, 16),))
    path.write_bytes(full(dataclasses.replace(small(), shapes="dynamic_shape", input_shapes=shapes)))
    assert cli.main(["inspect", str(path)]) == 0
    assert "dynamic_shape, 2 sets, the first shown here: 1x3x8x8; 1x3x16x16" in capsys.readouterr().out
