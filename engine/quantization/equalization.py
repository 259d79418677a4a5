"""Cross-layer equalization: channels between neighbouring convolutions are scaled so that all fill similar ranges.

The network computes the same: what one convolution multiplies a channel by, the next divides it by.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.names import Names
from engine.graph.query import attribute, constant, sole_consumer, static_shape
from engine.ort import make_session, run
from engine.quantization.samples import Sample

Array = np.ndarray[Any, Any]

_LINKED = {"Conv", "ConvTranspose", "Gemm"}
# f(s * x) = s * f(x) for a factor s > 0 a channel. Reordering operators count where channels stay where they are.
_HOMOGENEOUS = {
    "AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu",
    "Reshape", "Resize", "Squeeze",
}  # fmt: skip
# Equalizing one pair unbalances its neighbours, less with each sweep.
_SWEEPS = 20
_SETTLED = 1.01
# A channel that is next to nothing would get a factor that blows up its bias. Measured on detectors of text and faces
# and a recognizer of text, where only weights count: 64 costs the last 2 dB, 4 the others 1 dB.
_LARGEST_FACTOR = 8.0


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two convolutions (or products) between which channels were scaled.

    `first` and `second` are the names of their outputs; `largest` is the largest factor by which any channel between
    them grew or shrank, at least 1.
    """

    first: str
    second: str
    largest: float


@dataclasses.dataclass(frozen=True)
class Equalized:
    """The graph with other weights and biases, and the pairs that were scaled; the graph that came, where none was."""

    model: ir.Model
    pairs: tuple[Pair, ...]


def equalize(model: ir.Model, samples: Sequence[Sample] = ()) -> Equalized:
    """`model` with the channels between neighbouring convolutions equalized; `model` itself stays as it is.

    A pair is a Conv, ConvTranspose or Gemm and the next, where the tensors between them have no other reader, are no
    outputs, and only operators lie between that let factors of channels through: Relu, LeakyRelu, PRelu, a Clip of
    negative values, pools, Resize, a Pad of zeros. Depthwise convolutions are in two pairs. What the source model gave
    a grid is left alone. Tensors keep their names; the outputs are equal up to the rounding of float32.

    With `samples`, normalized inputs by name (four to ten), channel i between a pair is multiplied by sqrt(w_i / a_i):
    w is the largest magnitude of the weights that read it, a that of the channel itself (Xiao et al. 2022,
    https://arxiv.org/abs/2211.10438, equation 4). Where a depthwise convolution reads it, w is 1: each channel
    of its weights has a scale of its own. Without samples, a is the largest magnitude of the weights that make the
    channel (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, equation 11). Either is repeated until nothing moves;
    the factors of a pair have the geometric mean 1. Channels that are all 0 stay.
    """
    copy = model.clone()
    # A clone gives nodes without a name one that others may have.
    for node, source in zip(copy.graph, model.graph, strict=True):
        node.name = source.name
    readers = {node: reader for node in copy.graph if (reader := _next(node)) is not None}
    magnitudes = _magnitudes(copy, list(readers.values()), samples) if readers and samples else {}
    sides = {node: _Convolution(node) for node in dict.fromkeys((*readers, *readers.values()))}
    links = [_Link(sides[node], sides[reader], magnitudes.get(reader)) for node, reader in readers.items()]
    for _ in range(_SWEEPS):
        if max((link.equalize() for link in links), default=1.0) < _SETTLED:
            break
    pairs = tuple(
        Pair(link.first.name, link.second.name, largest) for link in links if (largest := _largest(link.factors)) > 1.0
    )
    if not pairs:
        return Equalized(model, ())
    names = Names(copy.graph)
    for side in sides.values():
        side.write(names)
    return Equalized(copy, pairs)


def _magnitudes(model: ir.Model, readers: Sequence[ir.Node], samples: Sequence[Sample]) -> Mapping[ir.Node, Array]:
    """The largest magnitude of each channel that `readers` read, over all samples and positions."""
    builder = GraphBuilder(model, "magnitudes")
    sources = {value: reader for reader in readers if (value := reader.inputs[0]) is not None}
    for node in model.graph:
        builder.copy_plain(node)
    for value in sources:
        axes = np.array([axis for axis in range(len(static_shape(value))) if axis != 1], np.int64)
        magnitude = builder.node("Abs", [value.name or ""], f"{value.name}.magnitude")
        others = builder.array(f"axes.{len(axes)}", axes)
        builder.output(builder.node("ReduceMax", [magnitude, others], f"{value.name}.largest", keepdims=0))
    session = make_session(builder.build(), threads=1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda sample: run(session, None, dict(sample)), samples))
    largest = [np.max(np.stack(arrays), axis=0).astype(np.float64) for arrays in zip(*found, strict=True)]
    return dict(zip(sources.values(), largest, strict=True))


class _Convolution:
    """A convolution's weight and bias, while they are scaled.

    `_channels` is a view of the weight as [groups, outputs of a group, inputs of a group, kernel].
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.name = node.outputs[0].name or ""
        weight = constant(node.inputs[1])
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        assert weight is not None
        # In float64, factors that were multiplied over many sweeps round once.
        self._weight = weight.astype(np.float64)
        self._bias = None if bias is None else bias.astype(np.float64)
        if node.op_type == "Gemm":
            matrix = self._weight if attribute(node, "transB", 0) else self._weight.T
            self._channels = matrix[None, :, :, None]
        else:
            groups = int(attribute(node, "group", 1))
            grouped = self._weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
            self._channels = grouped.swapaxes(1, 2) if node.op_type == "ConvTranspose" else grouped

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel only."""
        return bool(self._channels.shape[2] == 1)

    def output_ranges(self) -> Array:
        """The largest magnitude of the weights that make each output channel."""
        ranges: Array = np.abs(self._channels).max(axis=(2, 3)).reshape(-1)
        return ranges

    def input_ranges(self) -> Array:
        """The largest magnitude of the weights that read each input channel."""
        ranges: Array = np.abs(self._channels).max(axis=(1, 3)).reshape(-1)
        return ranges

    def scale_outputs(self, factors: Array) -> None:
        self._channels *= factors.reshape(len(self._channels), -1, 1, 1)
        if self._bias is not None:
            self._bias = self._bias * factors

    def scale_inputs(self, factors: Array) -> None:
        self._channels *= factors.reshape(len(self._channels), 1, -1, 1)

    def write(self, names: Names) -> None:
        """Put what was scaled into the graph; a constant that other nodes read too is left to them."""
        for index, array in ((1, self._weight), (2, self._bias)):
            if array is None:
                continue
            value = self.node.inputs[index]
            assert value is not None
            array = array.astype(np.float32)
            if len(value.uses()) == 1 and not value.is_graph_output():
                value.const_value = ir.tensor(array, name=value.name)
            else:
                self.node.replace_input_with(index, names.constant(f"{value.name}_equalized", array))


class _Link:
    """Two convolutions, and what the channels between them were multiplied by so far.

    magnitudes: the largest of each channel before that, where it is known.
    """

    def __init__(self, first: _Convolution, second: _Convolution, magnitudes: Array | None) -> None:
        self.first, self.second = first, second
        self.factors = np.ones(len(first.output_ranges()))
        self._magnitudes = magnitudes

    def equalize(self) -> float:
        """Balance each channel with what reads it; returns the largest change, at least 1."""
        made, read = self.first.output_ranges(), self.second.input_ranges()
        alive = (made > 0) & (read > 0)
        if self._magnitudes is not None:
            made = self._magnitudes * self.factors
            alive &= np.isfinite(made) & (made > 0)
            read = np.ones_like(read) if self.second.depthwise else read
        if not alive.any():
            return 1.0
        wanted = np.log(self.factors[alive]) + 0.5 * np.log(read[alive] / made[alive])
        bound = np.log(_LARGEST_FACTOR)
        factors = self.factors.copy()
        factors[alive] = np.exp(np.clip(wanted - wanted.mean(), -bound, bound))
        step, self.factors = factors / self.factors, factors
        self.first.scale_outputs(step)
        self.second.scale_inputs(1.0 / step)
        return _largest(step)


def _largest(factors: Array) -> float:
    """The largest factor by which anything grows or shrinks, at least 1."""
    return float(np.maximum(factors, 1.0 / factors).max(initial=1.0))


def _next(node: ir.Node) -> ir.Node | None:
    """The convolution that alone reads what `node`, another, makes, through homogeneous operators; None without one."""
    if not _scalable(node, as_first=True):
        return None
    value = node.outputs[0]
    while True:
        reader = sole_consumer(value)
        if reader is None or given(value) is not None or reader.inputs[0] is not value:
            return None
        if _scalable(reader, as_first=False):
            return reader
        if not _homogeneous(reader):
            return None
        value = reader.outputs[0]


def _scalable(node: ir.Node, *, as_first: bool) -> bool:
    """Whether the node's channels can be scaled: those that it makes, or those that it reads."""
    if node.op_type not in _LINKED or node.domain not in ("", "ai.onnx"):
        return False
    constants = [value for value in node.inputs[1:] if value is not None]
    if any(given(value) is not None or not _is_float(constant(value)) for value in constants):
        return False
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return False
    if not as_first or len(constants) < 2:
        return True
    # A Gemm's bias may have other shapes, which need not follow the channels.
    bias, made = constants[1], static_shape(node.outputs[0])
    return static_shape(bias) == (made[1],)


def _is_float(array: Array | None) -> bool:
    return array is not None and array.dtype == np.float32 and array.size > 0 and bool(np.isfinite(array).all())


def _homogeneous(node: ir.Node) -> bool:
    """Whether factors of channels, which must be axis 1, pass through the node unchanged."""
    source, outputs = node.inputs[0], [value for value in node.outputs if value.name]
    if node.domain not in ("", "ai.onnx") or source is None or len(outputs) != 1:
        return False
    before, after = static_shape(source), static_shape(outputs[0])
    if before[:2] != after[:2]:
        return False
    if node.op_type == "Clip":
        return _clips_negatives(node)
    if node.op_type == "Pad":
        return _pads_zeros_around(node, len(before))
    if node.op_type == "PRelu":
        return constant(node.inputs[1]) is not None
    if node.op_type == "Resize":
        return bool(attribute(node, "coordinate_transformation_mode") != "tf_crop_and_resize")
    return node.op_type in _HOMOGENEOUS


def _clips_negatives(node: ir.Node) -> bool:
    """Whether a Clip is a Relu."""
    low, high = [*node.inputs[1:], None, None][:2]
    smallest, largest = constant(low), constant(high)
    endless = high is None or (largest is not None and bool(largest >= np.finfo(np.float32).max))
    return smallest is not None and not smallest.any() and endless


def _pads_zeros_around(node: ir.Node, rank: int) -> bool:
    """Whether a Pad leaves samples and channels alone, and puts nothing but zeros around the rest."""
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return False  # pads of some axes only
    pads = constant(node.inputs[1])
    if pads is None or len(pads) != 2 * rank or pads[[0, 1, rank, rank + 1]].any():
        return False
    value = node.inputs[2] if len(node.inputs) > 2 else None
    filled = constant(value) if value is not None else np.zeros(())
    return attribute(node, "mode", "constant") == "constant" and filled is not None and not filled.any()
