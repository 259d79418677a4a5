"""Writes small Caffe nets with their weights, and runs them by OpenCV and by our front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.frontends import caffe
from engine.frontends.caffe.prototxt import parse
from engine.frontends.caffe.weights import SCHEMA
from engine.graph.execution import run_float

Array = np.ndarray[Any, Any]
IMAGE = {"x": (1, 4, 7, 9)}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def layer(kind: str, param: str = "", bottoms: str = "x", tops: str = "y", name: str = "") -> str:
    """The text of a layer; `param` is all that stands behind bottoms and tops, which are words."""
    read = "".join(f'bottom: "{blob}" ' for blob in bottoms.split())
    made = "".join(f'top: "{blob}" ' for blob in tops.split())
    return f'layer {{ name: "{name or tops.split()[0]}" type: "{kind}" {read}{made}{param} }}\n'


def net(layers: str, inputs: Mapping[str, Sequence[int]] = IMAGE) -> str:
    """The text of a net whose inputs are layers of their own."""
    text = 'name: "small"\n'
    for name, shape in inputs.items():
        dims = " ".join(f"dim: {dim}" for dim in shape)
        text += layer("Input", f"input_param {{ shape {{ {dims} }} }}", "", name)
    return text + layers


def caffemodel(weights: Mapping[str, Sequence[Array]], *, old: bool = False) -> bytes:
    """The weights of layers by name, in the binary format; `old` writes V1 layers with blobs of four dimensions."""
    message = SCHEMA["NetParameter"]()
    for name, arrays in weights.items():
        written = (message.layers if old else message.layer).add(name=name.encode())
        for array in arrays:
            blob = written.blobs.add()
            blob.data.append(np.asarray(array, np.float32).tobytes())
            if old:
                blob.num, blob.channels, blob.height, blob.width = (*(1,) * (4 - array.ndim), *array.shape)
            else:
                blob.shape.dim.extend(array.shape)
    data: bytes = message.SerializeToString()
    return data


def save(folder: Path, text: str, weights: Mapping[str, Sequence[Array]] | None = None) -> tuple[Path, Path | None]:
    """Write both files; without weights there is no second one."""
    model = folder / "net.prototxt"
    model.write_text(text)
    if not weights:
        return model, None
    blobs = folder / "net.caffemodel"
    blobs.write_bytes(caffemodel(weights))
    return model, blobs


def feeds_of(inputs: Mapping[str, Sequence[int]], seed: int = 3) -> dict[str, Array]:
    return {name: floats(*shape, seed=seed + index) for index, (name, shape) in enumerate(inputs.items())}


def by_opencv(paths: tuple[Path, Path | None], feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    """What OpenCV computes, as it reads the same files."""
    import cv2

    reader = cv2.dnn.readNetFromCaffe(str(paths[0]), *([str(paths[1])] if paths[1] else []))
    reader.enableFusion(False)
    for name, array in feeds.items():
        reader.setInput(array, name)
    return [np.asarray(array) for array in reader.forward(list(outputs))]


def loaded(paths: tuple[Path, Path | None], **cut: Any) -> ir.Model:
    """Load a net, and assert that its layers became what `operators` says they do."""
    model = caffe.load(*paths, **cut)
    kinds = {kind.text("type") for kind in parse(paths[0].read_text(), "").messages("layer")}
    known = {op_type for kind in kinds for op_type in caffe.operators().get(kind, ())} | {"Identity"}
    assert not kinds or {node.op_type for node in model.graph} <= known
    return model


def run(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name."""
    wanted = {value.name or "": feeds[value.name or ""] for value in model.graph.inputs}
    return dict(zip([value.name or "" for value in model.graph.outputs], run_float(model, wanted), strict=True))


def ours(
    folder: Path,
    layers: str,
    weights: Mapping[str, Sequence[Array]] | None = None,
    inputs: Mapping[str, Sequence[int]] = IMAGE,
    feeds: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """What our front end makes of a net."""
    return run(loaded(save(folder, net(layers, inputs), weights)), feeds or feeds_of(inputs))


def assert_as_opencv(
    folder: Path,
    layers: str,
    weights: Mapping[str, Sequence[Array]] | None = None,
    inputs: Mapping[str, Sequence[int]] = IMAGE,
    *,
    tolerance: float = 2e-5,
) -> dict[str, Array]:
    """Assert that both compute the same from random inputs; returns ours."""
    paths = save(folder, net(layers, inputs), weights)
    feeds = feeds_of(inputs)
    found = run(loaded(paths), feeds)
    expected = by_opencv(paths, feeds, list(found))
    for (name, array), other in zip(found.items(), expected, strict=True):
        assert array.shape == other.shape, (name, array.shape, other.shape)
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        np.testing.assert_allclose(array, other, rtol=tolerance, atol=tolerance * scale, err_msg=name)
    return found
