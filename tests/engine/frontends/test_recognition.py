"""What kind of model a file holds, and where its weights are."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import FileError
from engine.frontends.recognition import find_weights, kind_of, model_beside


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.onnx", b"\x08\x09\x12\x07", "onnx"),
        ("a.onnx", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("a.bin", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("a.tflite", b"anything", "TensorFlow Lite"),
        ("a.pb", b"\x0a\x10\x0a\x01x", "TensorFlow"),
        ("a.pb", b"\x08\x08\x12\x07pytorch", "onnx"),
        ("a.pb", b"\x08\x01\x12\x40", "TensorFlow"),
        ("a.PROTOTXT", b'name: "net"', "Caffe"),
        ("a.caffemodel", b"\x0a\x03net", "Caffe"),
        ("a.cfg", b"[net]\nwidth=8", "Darknet"),
        ("net.txt", b"# a net\n\n[net]\nwidth=8", "Darknet"),
        ("a.weights", b"\0\0\0\0", "Darknet"),
        ("a.pt", b"PK\x03\x04", "PyTorch"),
        ("model", b"PK\x03\x04", "PyTorch"),
        ("a.onnx", b"RKNN\0\0\0\0", "rknn"),
        ("a.cfg", b"", "onnx"),
    ],
)
def test_a_file_is_told_by_its_content_or_its_ending(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert kind_of(path) == kind


def test_a_network_and_its_weights_find_each_other(tmp_path: Path) -> None:
    network, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    network.write_text("name: 'net'")
    with pytest.raises(FileError, match="caffemodel"):
        find_weights(network, "Caffe")
    weights.write_bytes(b"\x0a\x03net")
    (tmp_path / "other.caffemodel").write_bytes(b"\x0a\x03net")
    assert find_weights(network, "Caffe") == weights
    assert model_beside(weights, "Caffe") == (network, weights)
    assert model_beside(network, "Caffe") == (network, None)
    # Which of two belongs to it nobody can say.
    weights.unlink()
    (tmp_path / "third.caffemodel").write_bytes(b"\x0a\x03net")
    with pytest.raises(FileError, match="--weights"):
        find_weights(network, "Caffe")
    # Trained on, a network's weights often have a longer name.
    trained = tmp_path / "net_final.caffemodel"
    trained.write_bytes(b"\x0a\x03net")
    assert find_weights(network, "Caffe") == trained
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "x.weights").write_bytes(b"\0" * 20)
    with pytest.raises(FileError, match=r"\.cfg"):
        model_beside(alone / "x.weights", "Darknet")
