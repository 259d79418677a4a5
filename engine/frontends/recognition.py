"""Tells by content, or else by its ending, what kind of model a file holds, and finds the second file of two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from engine.errors import FileError

Kind = Literal["onnx", "rknn", "TensorFlow Lite", "TensorFlow", "Caffe", "Darknet", "PyTorch"]

_ENDINGS: dict[str, Kind] = {
    ".onnx": "onnx",
    ".rknn": "rknn",
    ".tflite": "TensorFlow Lite",
    ".lite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".pbtxt": "TensorFlow",
    ".prototxt": "Caffe",
    ".caffemodel": "Caffe",
    ".cfg": "Darknet",
    ".weights": "Darknet",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".ptl": "PyTorch",
    ".torchscript": "PyTorch",
}
MODEL_ENDINGS = tuple(_ENDINGS)
"""The endings of model files of every kind."""

# How files begin that go by many endings; TensorFlow Lite puts its mark behind an offset.
_VENDOR_MARK, _TFLITE_MARK, _ZIP_MARK = b"RKNN", b"TFL3", b"PK\x03\x04"
# An ONNX file begins with the version of its format, at least 3; a SavedModel with its own, which is 1.
_ONNX_START = re.compile(rb"\x08[\x03-\x7f]")
_DARKNET_START = re.compile(rb"\s*(?:[#;][^\n]*\n\s*)*\[(?:net|network)\]", re.IGNORECASE)

_PAIRS: dict[Kind, tuple[str, str, str]] = {
    "Caffe": (
        ".prototxt",
        ".caffemodel",
        "--weights FILE names it; in a script, load_caffe makes them up",
    ),
    "Darknet": (".cfg", ".weights", "--weights FILE names it"),
}
"""For frameworks of two files: the endings of the network and of its weights, and what to do without the latter."""


def kind_of(path: Path) -> Kind:
    """The kind of model in `path`, 'rknn' for built ones. What says nothing, or cannot be read, counts as 'onnx'."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except (OSError, ValueError):
        start = b""  # for the file's reader to explain
    ending = _ENDINGS.get(path.suffix.lower(), "onnx")
    if start.startswith(_VENDOR_MARK):
        return "rknn"
    if start[4:8] == _TFLITE_MARK:
        return "TensorFlow Lite"
    if ending == "onnx" and path.suffix.lower() != ".onnx":
        if _DARKNET_START.match(start):
            return "Darknet"
        if start.startswith(_ZIP_MARK):
            return "PyTorch"
    if ending == "TensorFlow" and _ONNX_START.match(start):
        return "onnx"
    return ending if start or ending == "rknn" else "onnx"


def model_beside(path: Path, kind: Kind) -> tuple[Path, Path | None]:
    """The network's file and, where `path` is the file of the weights, that; for Caffe and Darknet.

    Raises FileError where weights are named and no network lies beside them.
    """
    network, weights, _ = _PAIRS[kind]
    if path.suffix.lower() != weights or not path.is_file():
        return path, None
    found = _beside(path, network)
    if found is None:
        raise FileError(f"no {network} beside it", where=str(path), hint=f"name the {network}, which is the model")
    return found, path


def find_weights(path: Path, kind: Kind) -> Path:
    """The weights beside the network `path`. Raises FileError where none, or none that can be told, lies there."""
    _, weights, hint = _PAIRS[kind]
    found = _beside(path, weights)
    if found is None:
        raise FileError(f"no {weights} of that name beside it", where=str(path), hint=hint)
    return found


def _beside(path: Path, ending: str) -> Path | None:
    """The file of that ending with the same name, or with the longest name that begins alike, or the only one."""
    same = path.with_suffix(ending)
    if same.is_file():
        return same
    try:
        files = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ending and file.is_file())
    except OSError:
        return None
    alike = [file for file in files if file.stem.startswith(path.stem) or path.stem.startswith(file.stem)]
    if len(alike) == 1:
        return alike[0]
    return files[0] if len(files) == 1 else None
