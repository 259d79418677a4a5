"""Cycles that a chip's NPU needs for a model's layers, as the toolkit's compiler estimates them: one core, no overlap.

The formulas and constants were read off the toolkit's own per-layer tables: its NPU cycles of convolutions are met
exactly, its memory cycles to a few per cent. It gives none for other layers, which count here by the bytes they move.
All are estimates: nothing was measured on a chip.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math

import onnx_ir as ir

from engine.graph.layers import CONVOLUTIONS, FLOATS, Layer
from engine.graph.query import Array, attribute, constant, static_shape, tensors
from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.quantization.weights import output_channel_axis
from engine.targets import Target

_BYTES = {"int8": 1, "int16": 2, "float16": 2}
# Bias and scale of an output channel, in bytes.
_CHANNEL_BYTES = {"int8": 8, "int16": 8, "float16": 4}
# Output positions are computed in blocks of 16.
_POSITIONS = 16


@dataclasses.dataclass(frozen=True)
class _Array:
    """How many channels the multipliers take at once: of the input, of the output, and of a depthwise convolution.
    `least` is the fewest blocks of input channels and kernel positions that one output takes."""

    inputs: int
    outputs: int
    least: int
    depthwise: int

    def convolution(self, positions: int, kernel: int, inputs: int, outputs: int) -> int:
        """Cycles of a dense convolution at `positions` output positions."""
        steps = max(kernel * _blocks(inputs, self.inputs), self.least)
        return _rounded(positions) * _blocks(outputs, self.outputs) * steps

    def depthwise_convolution(self, positions: int, kernel: int, channels: int) -> int:
        """Cycles of a convolution with one kernel a channel."""
        return _rounded(positions) * kernel * _blocks(channels, self.depthwise)


@dataclasses.dataclass(frozen=True)
class _Chip:
    """The multipliers by precision, and the bytes that memory moves in a cycle.

    The toolkit's tables have no int16; it is taken to run at float16's rate, and where there is no float16 at half that
    of int8.
    """

    arrays: dict[str, _Array]
    bytes_a_cycle: float


def _chip(int8: tuple[int, int, int, int], wide: tuple[int, int, int, int], bytes_a_cycle: float) -> _Chip:
    return _Chip({"int8": _Array(*int8), "int16": _Array(*wide), "float16": _Array(*wide)}, bytes_a_cycle)


_RK3566 = _chip((32, 16, 4, 32), (16, 8, 2, 32), 6.571)
_RV1106 = _chip((32, 16, 4, 32), (32, 8, 4, 16), 6.159)
_CHIPS = {
    "rk3588": _chip((32, 32, 4, 64), (32, 16, 2, 64), 23.654),
    "rk3576": _chip((32, 32, 4, 64), (32, 16, 2, 64), 7.465),
    "rk3562": _chip((32, 16, 4, 64), (32, 8, 2, 64), 7.465),
    "rk3566": _RK3566,
    "rk3568": _RK3566,
    "rv1103": _RV1106,
    "rv1106": _RV1106,
}


@dataclasses.dataclass(frozen=True)
class Cycles:
    """What one step needs of the NPU's multipliers and of memory, which work at the same time."""

    npu: float
    memory: float

    @property
    def total(self) -> float:
        """Cycles until the slower of the two is done."""
        return max(self.npu, self.memory)


def node_cycles(node: ir.Node, precision: str, target: Target) -> float:
    """Cycles of the multipliers for one node in 'int8', 'int16' or 'float16'; 0 for all but convolutions.

    A product with a constant is a 1x1 convolution over its rows, and a transposed convolution counts as a plain one
    over its output.
    """
    weighed = _weight(node)
    if weighed is None:
        return 0.0
    weight, channels = weighed
    array = _CHIPS[target.name].arrays[precision]
    groups = int(attribute(node, "group", 1))
    shape = static_shape(node.outputs[0])
    if node.op_type in ("Gemm", "MatMul"):
        return float(array.convolution(math.prod(shape) // channels, 1, weight.size // channels, channels))
    batch, positions, kernel = shape[0], math.prod(shape[2:]), math.prod(weight.shape[2:])
    source = node.inputs[0]
    assert source is not None
    inputs, outputs = static_shape(source)[1], shape[1]
    if groups > 1 and groups == inputs:
        return float(batch * array.depthwise_convolution(positions, kernel, outputs))
    # Groups run one after the other or, where that takes longer, as one convolution with zeros between them.
    apart = groups * array.convolution(positions, kernel, inputs // groups, outputs // groups)
    return float(batch * min(apart, array.convolution(positions, kernel, inputs, outputs)))


def layer_cycles(layer: Layer, precision: str, target: Target, sizes: dict[str, int]) -> Cycles:
    """Cycles of a layer that reads, computes and writes in `precision` ('' for layers of integers).

    sizes: elements of each tensor. Memory moves what the layer reads, its weights, and what it writes.
    """
    width = _BYTES.get(precision, 4)
    moved = sum(sizes[name] for name in (*layer.inputs, *layer.outputs)) * width
    npu = 0.0
    for node in layer.nodes:
        weighed = _weight(node) if precision in _BYTES else None
        if weighed is None:
            moved += sum(array.size for value in node.inputs if (array := constant(value)) is not None) * width
        else:
            weight, channels = weighed
            moved += weight.size * width + channels * _CHANNEL_BYTES[precision]
            npu += node_cycles(node, precision, target)
    return Cycles(npu, moved / _CHIPS[target.name].bytes_a_cycle)


def conversion_cycles(elements: int, stored: str, read: str, target: Target) -> float:
    """Cycles of bringing a tensor from one precision to another: it is read in the one and written in the other."""
    return elements * (_BYTES[stored] + _BYTES[read]) / _CHIPS[target.name].bytes_a_cycle


class RelativeCost:
    """Estimated time of a model under other precisions, as a share of what it takes as it is.

    A layer computes in the precision that the table stores its output in; wishes for tensors within it don't count.
    """

    def __init__(self, quantized: Quantized, target: Target) -> None:
        self._target = target
        self._layers = quantized.layers
        graph = quantized.model.graph
        self._sizes = {v.name or "": math.prod(static_shape(v)) for v in tensors(graph)}
        self._floats = {v.name or "" for v in tensors(graph) if v.dtype in FLOATS}
        self._readers: dict[str, list[Layer]] = collections.defaultdict(list)
        for layer in quantized.layers:
            for name in layer.inputs:
                self._readers[name].append(layer)
        self._between = [v.name or "" for v in graph.inputs] + [n for layer in quantized.layers for n in layer.outputs]
        self._layer_cycles = functools.cache(self._layer)
        self._base = self.cycles(quantized.table)

    def extra(self, table: Table) -> float:
        """The extra time that `table` takes: 0.1 is a tenth longer. Negative where it is faster."""
        return self.cycles(table) / self._base - 1.0 if self._base else 0.0

    def cycles(self, table: Table) -> float:
        """Cycles of all layers, one after the other, and of the conversions between them."""
        total = sum(self._layer_cycles(index, table.precision(layer.name)) for index, layer in enumerate(self._layers))
        for name in self._between:
            stored = table.precision(name)
            if stored not in _BYTES or name not in self._floats:
                continue
            read = {table.precision(layer.name) for layer in self._readers[name]}
            for precision in read - {stored, ""}:
                total += conversion_cycles(self._sizes[name], stored, precision, self._target)
        return total

    def _layer(self, index: int, precision: str) -> float:
        return layer_cycles(self._layers[index], precision, self._target, self._sizes).total


def _weight(node: ir.Node) -> tuple[Array, int] | None:
    """The weights of a convolution or product with constants, and how many output channels they make."""
    weight = constant(node.inputs[1]) if node.op_type in CONVOLUTIONS else None
    axis = output_channel_axis(node) if weight is not None else None
    if weight is None or axis is None or not weight.size:
        return None
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    return weight, weight.shape[axis] * groups


def _blocks(channels: int, size: int) -> int:
    return -(-channels // size)


def _rounded(positions: int) -> int:
    return _blocks(positions, _POSITIONS) * _POSITIONS
