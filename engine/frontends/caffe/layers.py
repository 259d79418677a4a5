"""What a function that reads one kind of layer works with, and the table of those functions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.network import Layer
from engine.frontends.caffe.prototxt import Message
from engine.frontends.caffe.weights import Wanted, Weights
from engine.frontends.making import GraphMaker
from engine.graph.query import Array

log = logging.getLogger("engine")


class Refused(Exception):
    """Nothing here can do what a layer asks: what of it, and what to do instead."""

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


class Making:
    """A layer that is being made into nodes: its blobs so far, its parameters, its weights."""

    def __init__(
        self, maker: GraphMaker, layer: Layer, inputs: Sequence[ir.Value], weights: Weights, names: frozenset[str]
    ) -> None:
        self.maker, self.layer, self.inputs = maker, layer, list(inputs)
        self._weights, self._names = weights, names

    def param(self, name: str) -> Message:
        """The layer's parameter message of that name, empty where it is not there."""
        return self.layer.message.message(name)

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of a bottom blob."""
        return self.maker.shape(self.inputs[index])

    def axis(self, axis: int, index: int = 0, *, end: bool = False) -> int:
        """An axis of a bottom blob counted from the front. `end`: it may also stand behind the last one."""
        rank = len(self.shape(index))
        found = axis + rank + end if axis < 0 else axis
        if not 0 <= found < rank + end:
            raise ModelError(f"its axis {axis} is none of {self.layer.bottoms[index]!r} with {rank} dimensions")
        return found

    def node(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """Add a node; returns its output."""
        return self.nodes(op_type, inputs, 1, **attributes)[0]

    def nodes(self, op_type: str, inputs: Sequence[ir.Value | None], count: int, **attributes: Any) -> list[ir.Value]:
        """Add a node with several outputs."""
        names = [self._free(f"{self.layer.name}/{op_type}")] * count
        return self.maker.nodes(op_type, inputs, names, source=self.layer.name, **attributes)

    def constant(self, array: Array | Sequence[int] | float, name: str = "constant") -> ir.Value:
        """Add a constant; numbers are float32, lists of whole numbers int64."""
        return self.maker.constant(array, self._free(f"{self.layer.name}/{name}"))

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The same numbers in another shape."""
        shape = list(shape)
        if list(self.maker.shape(value)) == shape:
            return value
        return self.node("Reshape", [value, self.constant(np.array(shape, np.int64), "shape")])

    def blob_count(self, default: int) -> int:
        """How many blobs of weights the layer has; `default` where weights are made up."""
        return self._weights.count(self.layer, default)

    def weights(self, *wanted: Wanted) -> list[Array]:
        """The layer's blobs of weights, which have these shapes."""
        return self._weights.take(self.layer, wanted)

    def warn(self, text: str) -> None:
        """Tell what a person may have meant otherwise."""
        log.warning("%s: %s: %s", self.maker.where, self.layer.name, text)

    def _free(self, name: str) -> str:
        while name in self._names:  # blobs keep their names
            name += "_"
        return name


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one kind of layer is read: into which ONNX operators, and from how many bottom blobs."""

    read: Callable[[Making], Sequence[ir.Value]]
    onnx: tuple[str, ...]
    fewest: int
    most: int | None


READERS: dict[str, Reader] = {}
"""By the type of layer, as prototxt files spell it."""

_Read = Callable[[Making], Sequence[ir.Value]]


def reads(*types: str, onnx: Sequence[str], bottoms: tuple[int, int | None] = (1, 1)) -> Callable[[_Read], _Read]:
    """Enter a function in the table. It returns a value for each top blob; `bottoms`: the fewest and the most."""

    def enter(read: _Read) -> _Read:
        for name in types:
            READERS[name] = Reader(read, tuple(onnx), *bottoms)
        return read

    return enter


def along(array: Array, axis: int, rank: int) -> Array:
    """`array` with dimensions of 1 behind it, so that its first one lies along `axis` of `rank` dimensions."""
    shaped: Array = array.reshape(array.shape + (1,) * (rank - axis - array.ndim))
    return shaped
