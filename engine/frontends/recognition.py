"""Tells by content, and by ending where content does not say, what kind of model a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["onnx", "rknn", "TensorFlow Lite", "TensorFlow", "Caffe", "Darknet", "PyTorch"]

_ENDINGS: dict[str, Kind] = {
    ".rknn": "rknn",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".prototxt": "Caffe",
    ".caffemodel": "Caffe",
    ".cfg": "Darknet",
    ".weights": "Darknet",
    ".pt": "PyTorch",
    ".ptl": "PyTorch",
}
# How files begin that go by many endings; TensorFlow Lite puts its mark behind an offset.
_VENDOR_MARK, _TFLITE_MARK = b"RKNN", b"TFL3"


def kind_of(path: Path) -> Kind:
    """The kind of model in `path`, 'rknn' for built ones. What says nothing, or cannot be read, counts as 'onnx'."""
    try:
        with path.open("rb") as stream:
            mark = stream.read(8)
    except (OSError, ValueError):
        mark = b""  # for the file's reader to explain
    ending = _ENDINGS.get(path.suffix.lower(), "onnx")
    if mark.startswith(_VENDOR_MARK):
        return "rknn"
    if mark[4:] == _TFLITE_MARK:
        return "TensorFlow Lite"
    return ending if mark or ending == "rknn" else "onnx"
