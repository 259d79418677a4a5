"""Writes small Darknet networks, runs them through OpenCV, and loads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.frontends.darknet import load
from engine.graph.execution import run_float

Array = np.ndarray[Any, Any]
Layer = tuple[str, Mapping[str, object]]


def cfg(layers: Sequence[Layer], size: tuple[int, int, int] = (3, 8, 8)) -> str:
    """The text of a network for images of channels, height and width."""
    head = dict(zip(("channels", "height", "width"), size, strict=True))
    return "\n".join(
        f"[{kind}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())
        for kind, options in [("net", head), *layers]
    )


def numbers(count: int, seed: int = 0) -> Array:
    """Weights by chance, small enough that nothing saturates."""
    return np.random.default_rng(seed).normal(0, 0.4, count).astype(np.float32)


def normalized(count: int, seed: int = 0) -> Array:
    """Biases, scales, means and variances of so many channels."""
    random = np.random.default_rng(seed)
    rows = [random.normal(size=count), random.uniform(0.5, 2, count), random.normal(size=count)]
    return np.concatenate([*rows, random.uniform(0.2, 2, count)]).astype(np.float32)


def weights(*parts: Array, major: int = 0, minor: int = 2) -> bytes:
    """A weights file; versions below 0.2 count pictures in 32 bits."""
    wide = major * 10 + minor >= 2 and major <= 1000 and minor <= 1000
    header = struct.pack("<iii", major, minor, 0) + bytes(8 if wide else 4)
    return header + b"".join(np.asarray(part, "<f4").tobytes() for part in parts)


def write(folder: Path, text: str, data: bytes) -> tuple[Path, Path]:
    """The two files of a network."""
    paths = folder / "net.cfg", folder / "net.weights"
    paths[0].write_text(text)
    paths[1].write_bytes(data)
    return paths


def loaded(folder: Path, layers: Sequence[Layer], *parts: Array, size: tuple[int, int, int] = (3, 8, 8)) -> ir.Model:
    """The graph of a network."""
    return load(*write(folder, cfg(layers, size), weights(*parts)))


def image(size: tuple[int, int, int] = (3, 8, 8), seed: int = 1) -> Array:
    """An input by chance."""
    return np.random.default_rng(seed).normal(size=(1, *size)).astype(np.float32)


def run(model: ir.Model, data: Array) -> list[Array]:
    """The outputs for one image."""
    return run_float(model, {"data": data})


def run_opencv(text: str, data: bytes, x: Array) -> Array:
    """What OpenCV computes of a network with one output."""
    import cv2

    net = cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode(), np.uint8), np.frombuffer(data, np.uint8))
    net.setInput(x)
    return np.asarray(net.forward())
