"""The weights of a net: those of a caffemodel, found by the names of layers, or made up by chance."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf.message import DecodeError

from engine.errors import ModelError
from engine.frontends.caffe.network import Layer
from engine.frontends.caffe.prototxt import Message
from engine.frontends.protobuf_schema import message_classes
from engine.frontends.reading import CORRUPT, read_bytes
from engine.graph.query import Array
from engine.graph.shapes import LARGEST_TENSOR

Meaning = Literal["weight", "bias", "scale", "mean", "variance", "one", "slope"]

LARGEST_MADE_UP = 150_000_000
"""How many weights are made up at most; the largest nets in use, VGG's, have 144 million."""

_SHOWN = 10
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f8"), 1: np.dtype("<f4"), 2: np.dtype("<f2")}

SCHEMA = message_classes(
    "rknn_tui.caffe",
    {
        "NetParameter": """
            optional bytes name = 1
            repeated OldLayerParameter layers = 2
            repeated LayerParameter layer = 100
        """,
        "LayerParameter": "optional bytes name = 1\nrepeated BlobProto blobs = 7",
        "OldLayerParameter": """
            optional FirstLayerParameter layer = 1
            optional bytes name = 4
            repeated BlobProto blobs = 6
        """,
        "FirstLayerParameter": "optional bytes name = 1\nrepeated BlobProto blobs = 50",
        # Packed numbers are bytes to the wire; so they come as fast as the file is read.
        "BlobProto": """
            optional int32 num = 1
            optional int32 channels = 2
            optional int32 height = 3
            optional int32 width = 4
            repeated bytes data = 5
            optional BlobShape shape = 7
            repeated bytes double_data = 8
            optional int32 raw_data_type = 10
            optional bytes raw_data = 12
        """,
        "BlobShape": "repeated int64 dim = 1 packed",
        "LooseBlobProto": "repeated float data = 5\nrepeated double double_data = 8",
    },
)
"""What of the binary format holds weights. `FirstLayerParameter` and `OldLayerParameter` are Caffe's V0 and V1;
`LooseBlobProto` is a blob whose writer did not pack its numbers; `raw_data` is NVIDIA's, which has halves."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A blob that a layer needs: its shape, and what made-up values must be like."""

    shape: tuple[int, ...]
    meaning: Meaning = "weight"
    value: float | None = None


class Weights:
    """Hands out the blobs of layers, and notes what is wrong with them until `check` tells all of it.

    Layers of one name take the caffemodel's layers of that name in order. `param { name }` shares a blob with the
    layer that has taken it before.
    """

    def __init__(self, where: str, source: dict[str, list[list[Any]]] | None) -> None:
        self._where, self._source = where, source
        self._taken: Counter[str] = Counter()
        self._shared: dict[str, Array] = {}
        self._problems: list[str] = []
        self._made_up = 0

    def count(self, layer: Layer, default: int) -> int:
        """How many blobs the caffemodel has for a layer, `default` where it has none or weights are made up."""
        blobs = self._blobs(layer)
        return len(blobs) if blobs is not None else default

    def take(self, layer: Layer, wanted: Sequence[Wanted]) -> list[Array]:
        """The layer's blobs in float32. Where they are missing or do not fit, that is noted, and zeros are returned.

        A blob fits that has the wanted shape apart from dimensions of 1, or is flat and of the wanted size. Raises
        ModelError for sizes that no model has.
        """
        for blob in wanted:
            if any(dim < 1 for dim in blob.shape) or math.prod(blob.shape) > LARGEST_TENSOR:
                raise ModelError(f"its weights would have the shape {list(blob.shape)}")
        names = _share_names(layer.message)
        blobs = self._blobs(layer)
        self._taken[layer.name] += 1
        arrays: list[Array] = []
        for index, blob in enumerate(wanted):
            share = names[index] if index < len(names) else ""
            array = self._shared.get(share)
            if blobs is not None and index < len(blobs):
                array = self._read(layer.name, index, blobs[index], blob)
            elif array is not None and array.size == math.prod(blob.shape):
                array = array.reshape(blob.shape)
            elif self._source is None:
                array = self._chance(share or f"{layer.name}/{index}", blob)
            else:
                array = np.zeros(blob.shape, np.float32)
                if blobs is None and index == 0:
                    self._problems.append(f"{layer.name} has none")
            if share:
                self._shared.setdefault(share, array)
            arrays.append(array)
        if blobs is not None and len(blobs) != len(wanted):
            self._problems.append(f"{layer.name} has {len(blobs)} blobs, not {len(wanted)}")
        return arrays

    def check(self) -> None:
        """Raise ModelError with all that was noted, if anything was."""
        if not self._problems:
            return
        more = len(self._problems) - _SHOWN
        shown = "; ".join(self._problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise ModelError(
            f"the weights do not fit the net: {shown}", where=self._where, hint="do the two files belong together?"
        )

    def _blobs(self, layer: Layer) -> list[Any] | None:
        found = (self._source or {}).get(layer.name, [])
        turn = self._taken[layer.name]
        return found[turn] if turn < len(found) else None

    def _read(self, layer: str, index: int, blob: Any, wanted: Wanted) -> Array:
        array, shape = _numbers(blob), _shape(blob)
        size = math.prod(wanted.shape)
        tight = [dim for dim in shape if dim != 1]
        fits = tight == [dim for dim in wanted.shape if dim != 1] or len(tight) <= 1
        if array.size != size or not fits:
            of = f"{list(shape)}" if math.prod(shape) == array.size else f"{list(shape)} but {array.size} numbers"
            self._problems.append(f"blob {index} of {layer} has the shape {of}, not {list(wanted.shape)}")
            return np.zeros(wanted.shape, np.float32)
        return array.reshape(wanted.shape)

    def _chance(self, seed: str, wanted: Wanted) -> Array:
        """Always the same numbers for the same layer. Weights are uniform with a variance of 2 / fan-in, which keeps
        activations behind ReLU of one size (He et al. 2015, equation 10)."""
        self._made_up += math.prod(wanted.shape)
        if self._made_up > LARGEST_MADE_UP:
            raise ModelError(f"it has more than {LARGEST_MADE_UP} weights", hint="give the caffemodel")
        source = np.random.default_rng(zlib.crc32(seed.encode("utf-8", "replace")))
        if wanted.value is not None:
            return np.full(wanted.shape, wanted.value, np.float32)
        if wanted.meaning == "one":
            return np.ones(wanted.shape, np.float32)
        if wanted.meaning == "slope":
            return np.full(wanted.shape, 0.25, np.float32)
        array: Array = source.random(wanted.shape, dtype=np.float32)
        low, high = -0.1, 0.1
        if wanted.meaning == "weight":
            high = math.sqrt(6 / max(math.prod(wanted.shape[1:]), 1))
            low = -high
        elif wanted.meaning in ("scale", "variance"):
            low, high = 0.5, 1.5
        array *= np.float32(high - low)
        array += np.float32(low)
        return array


def read(path: Path | None, where: str) -> Weights:
    """The weights in the caffemodel `path`, or made-up ones. Raises FileError and ModelError for what is none."""
    if path is None:
        return Weights(where, None)
    data = read_bytes(path)
    if data.startswith(b"\x89HDF"):
        raise ModelError("is in HDF5's format", where=str(path), hint="save it as a binary caffemodel")
    try:
        net = SCHEMA["NetParameter"].FromString(data)
    except DecodeError as error:
        hint = "is it the prototxt? It is the model, not the weights" if b"\0" not in data else CORRUPT
        raise ModelError("is not a caffemodel", where=str(path), hint=hint) from error
    del data
    found: dict[str, list[list[Any]]] = {}
    for layer in (*net.layers, *net.layer):
        holder = layer.layer if len(getattr(layer, "layer", _NOTHING).blobs) else layer
        if len(holder.blobs):
            found.setdefault(holder.name.decode("utf-8", "replace"), []).append(list(holder.blobs))
    if not found:
        raise ModelError("holds no weights", where=str(path), hint="is it a caffemodel?")
    return Weights(f"{where} with {path.name}", found)


_NOTHING = SCHEMA["FirstLayerParameter"]()


def _share_names(message: Message) -> list[str]:
    """What the layer's blobs are called where layers share them; V1 layers have the bare names."""
    params = message.fields.get("param", [])
    return [param.text("name") if isinstance(param, Message) else param for param in params]


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return (_numbers(blob).size,)


def _numbers(blob: Any) -> Array:
    """The blob's numbers, flat, in float32."""
    for chunks, kind in ((blob.data, _FLOATS[1]), (blob.double_data, _FLOATS[0])):
        if len(chunks):
            packed = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            return _decoded(packed, kind)
    if blob.raw_data:
        if blob.raw_data_type not in _FLOATS:
            raise ModelError(f"a blob is of type {blob.raw_data_type}", hint="save the weights as floats")
        return _decoded(blob.raw_data, _FLOATS[blob.raw_data_type])
    loose = SCHEMA["LooseBlobProto"].FromString(blob.SerializeToString())
    return np.array(loose.data if len(loose.data) else loose.double_data, np.float32)


def _decoded(packed: bytes, kind: np.dtype[Any]) -> Array:
    if len(packed) % kind.itemsize:
        raise ModelError("a blob does not end with a whole number", hint=CORRUPT)
    with np.errstate(over="ignore"):
        return np.frombuffer(packed, kind).astype(np.float32, copy=False)
