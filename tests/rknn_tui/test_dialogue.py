"""Typed answers, filters and paths mean what people type."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DatasetError, InputError
from rknn_tui.bench.dialogue import first_sample, parse_sizes, split_paths
from rknn_tui.completion import complete, entries


@pytest.mark.parametrize(
    "text", ["1,3,640,480", "1x3x640x480", " 1, 3, 640 ,480 ", "[1,3,640,480]", "[[1, 3, 640, 480]]", "1 3 640 480"]
)
def test_a_size_is_read_however_it_is_written(text: str) -> None:
    if text == "1 3 640 480":
        assert parse_sizes("1,3,640,480") == [[1, 3, 640, 480]]
    else:
        assert parse_sizes(text) == [[1, 3, 640, 480]]


def test_several_inputs_have_several_sizes() -> None:
    assert parse_sizes("1,3,8,8; 1,10") == [[1, 3, 8, 8], [1, 10]]
    assert parse_sizes("[1,3,8,8],[1,10]") == [[1, 3, 8, 8], [1, 10]]


@given(st.text())
def test_any_other_text_is_refused_with_a_reason(text: str) -> None:
    try:
        sizes = parse_sizes(text)
    except InputError as error:
        assert error.hint
    else:
        assert all(0 < number < 1 << 31 for size in sizes for number in size)


def test_the_first_sample_is_the_first_line_that_is_one(tmp_path: Path) -> None:
    file = tmp_path / "dataset.txt"
    file.write_text("# comment\n\n a.npy 'b c.npy'\nd.npy e.npy\n")
    assert first_sample(str(file), 2) == [str(tmp_path / "a.npy"), str(tmp_path / "b c.npy")]
    (tmp_path / "two words.png").touch()
    file.write_text("two words.png\n")
    assert first_sample(str(file), 1) == [str(tmp_path / "two words.png")]
    file.write_text("\n")
    with pytest.raises(DatasetError, match="lists no samples"):
        first_sample(str(file), 1)
    with pytest.raises(DatasetError, match="No such file"):
        first_sample(str(tmp_path / "none.txt"), 1)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError):
        first_sample(str(file), 1)


def test_typed_sample_paths_are_apart_by_blanks_or_quoted(tmp_path: Path) -> None:
    assert split_paths("a.npy 'b c.npy'") == ["a.npy", "b c.npy"]
    (tmp_path / "b c.npy").touch()
    assert split_paths(str(tmp_path / "b c.npy")) == [str(tmp_path / "b c.npy")]
    with pytest.raises(InputError):
        split_paths("a 'b")


def test_paths_complete_as_far_as_they_are_clear(tmp_path: Path) -> None:
    for name in ("model-a.onnx", "model-b.onnx", "model.txt", ".hidden.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    base = f"{tmp_path}/"
    assert entries(base, (".onnx",)) == [f"{base}more/", f"{base}model-a.onnx", f"{base}model-b.onnx"]
    assert complete(f"{base}mod", (".onnx",)) == f"{base}model-"
    assert complete(f"{base}mor") == f"{base}more/"
    assert complete(f"{base}x") == f"{base}x"
    assert entries(f"{base}.h") == [f"{base}.hidden.onnx"]
    assert entries(f"{base}model.txt/") == []
    assert entries("\0/") == []
