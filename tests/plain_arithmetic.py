"""A second, slow simulator: one node at a time, with the rounding written out in numpy from the rules alone.

It shares with the engine only the list of layers and the table's numbers, and checks the engine's one big graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from engine.graph.given import given
from engine.graph.layers import Layer
from engine.quantization.table import Row, Table

Array = np.ndarray[Any, Any]


def activation_parameters(low: float, high: float, bits: int = 8) -> tuple[float, int]:
    """Scale and zero point of an integer range: 255 or 65535 steps over the range with 0 in it."""
    low, high = min(low, 0.0), max(high, 0.0)
    steps = 2**bits - 1
    if low == high:
        return 2 / steps, 0
    scale = (high - low) / steps
    return scale, int(np.rint(-(2 ** (bits - 1)) - low / scale))


def to_grid(values: Array, scale: float, zero_point: int, bits: int = 8) -> Array:
    """The int64 grid points of float32 values: round half to even in float32, then clip."""
    # Infinite values clip too, which int64 does not know.
    steps = np.clip(np.rint(values.astype(np.float32) / np.float32(scale)), -(2**40), 2**40).astype(np.int64)
    return np.clip(steps + zero_point, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def from_grid(grid: Array, scale: float, zero_point: int) -> Array:
    real: Array = (grid - zero_point).astype(np.float32) * np.float32(scale)
    return real


def half(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PlainWeight:
    """`grid` int64, `scale` and `zero_point` shaped like it with ones along all but the channels' axes."""

    grid: Array
    scale: Array
    zero_point: Array

    @property
    def real(self) -> Array:
        return ((self.grid - self.zero_point) * self.scale).astype(np.float32)


def plain_weight(
    op: str, weight: Array, *, per_channel: bool, groups: int = 1, transposed: bool = False, bits: int = 8
) -> PlainWeight:
    """Integers, asymmetric, an output channel at a time. `transposed` is a Gemm's transB: channels come first."""
    grid = np.zeros(weight.shape, np.int64)
    scales, zeros = np.zeros(weight.shape), np.zeros(weight.shape, np.int64)
    for index in _channels(op, weight, groups, transposed) if per_channel else [()]:
        part = weight[index].astype(np.float64)
        scale, zero = activation_parameters(float(part.min()), float(part.max()), bits)
        grid[index] = np.clip(np.rint(part / scale) + zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        scales[index], zeros[index] = scale, zero
    return PlainWeight(grid, scales, zeros)


def _channels(op: str, weight: Array, groups: int, transposed: bool) -> list[tuple[Any, ...]]:
    if op == "Conv" or (op == "Gemm" and transposed):
        return [(channel,) for channel in range(weight.shape[0])]
    if op == "ConvTranspose":
        rows = weight.shape[0] // groups
        return [
            (slice(group * rows, (group + 1) * rows), channel)
            for group in range(groups)
            for channel in range(weight.shape[1])
        ]
    return [(..., channel) for channel in range(weight.shape[-1])]


def channel_scales(op: str, weight: PlainWeight, groups: int = 1, transposed: bool = False) -> Array:
    """One scale an output channel, in the order of the output."""
    indices = _channels(op, weight.grid, groups, transposed)
    return np.array([weight.scale[index].reshape(-1)[0] for index in indices])


def plain_bias(
    bias: Array, input_scale: float, scales: Array, *, bits: int = 8, alpha: float = 1.0, beta: float = 1.0
) -> tuple[Array, Array]:
    """Grid points of the bias and their step, a channel each: int32 beside int8, and as large as need be beside int16.

    `alpha` and `beta` are a Gemm's: beta times the bias counts in steps of alpha times the product.
    """
    width = input_scale * scales * abs(alpha / beta)
    grid = np.rint(bias.astype(np.float64) / width)
    if bits > 8:  # whole numbers, but beside tiny weights beyond int64
        return grid, width
    return np.clip(grid, -(2**31), 2**31 - 1).astype(np.int64), width


def plain_operand(op: str, operand: Array, bits: int = 8) -> Array:
    """The constant operand of an element-wise node or join of `bits`, rounded as it is stored, in float32."""
    low, high = min(float(operand.min()), 0.0), max(float(operand.max()), 0.0)
    if op in ("Add", "Sub"):
        scale = (max(-low, high) or 1.0) / (2**31 - 1)
        grid = np.clip(np.rint(operand.astype(np.float64) / scale), -(2**31), 2**31 - 1)
        return (grid * scale).astype(np.float32)
    scale, zero = activation_parameters(low, high, 16 if op in ("Mul", "Div", "PRelu") else bits)
    bits = 16 if op in ("Mul", "Div", "PRelu") else bits
    return from_grid(to_grid(operand, scale, zero, bits), scale, zero)


def cosine(first: Array, second: Array) -> float:
    a, b = first.astype(np.float64).reshape(-1), second.astype(np.float64).reshape(-1)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def euclidean(first: Array, second: Array) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second.astype(np.float64)))


@dataclasses.dataclass(frozen=True)
class PlainGrid:
    """What an integer tensor counts in."""

    scale: float
    zero_point: int
    bits: int

    def rounded(self, values: Array) -> Array:
        return from_grid(to_grid(values, self.scale, self.zero_point, self.bits), self.scale, self.zero_point)


BITS = {"int8": 8, "int16": 16}
_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "PRelu", "Concat", "Max", "Min")
_NORMALIZATIONS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization")


class PlainSimulator:
    """Runs a built model's layers one after the other and keeps every tensor.

    golden: the float model's tensors. entire: the quantized model's, as stored between layers. single: each layer's
    outputs when it reads golden tensors rounded as the table says. `weights` and `biases` are corrections, by name of
    the node's output.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: tuple[Layer, ...],
        table: Table,
        *,
        per_channel: bool = True,
        weights: Mapping[str, Array] | None = None,
        biases: Mapping[str, Array] | None = None,
    ) -> None:
        self._model = model
        self._layers = layers
        self._rows = table.rows
        self._wishes = table.wishes
        self._per_channel = per_channel
        self._weights, self._biases = weights or {}, biases or {}
        self._opsets = [helper.make_opsetid(d, v) for d, v in model.graph.opset_imports.items()]
        self._constants = {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value}

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        golden = dict(feeds)
        for node in self._model.graph:
            known = {**self._constants, **golden}
            golden.update(self._run(node, {i: known[v.name] for i, v in enumerate(node.inputs) if v and v.name}))
        entire = {name: self.store(name, array) for name, array in feeds.items()}
        single = dict(entire)
        for layer in self._layers:
            entire.update(self._layer(layer, entire))
            rounded = {name: self.store(name, golden[name]) for name in layer.inputs}
            single.update(self._layer(layer, rounded))
        return golden, entire, single

    def calibrated(self, tensor: str) -> str:
        """How a tensor is stored when nobody wishes anything."""
        row = self._rows.get(tensor)
        if row is None:
            return ""
        if row.dtype != "float32":
            return row.dtype
        return next((bits for bits in BITS if f"{tensor}_{bits}" in self._rows), "float16")

    def kept(self, tensor: str) -> str:
        return self._wishes.get(tensor) or self.calibrated(tensor)

    def grid(self, tensor: str, precision: str) -> PlainGrid | None:
        """The grid of `tensor` in int8 or int16: its row's, or one over the same range; None where none is known."""
        names = (tensor, *(f"{tensor}_{bits}" for bits in BITS))
        rows = [self._rows[name] for name in names if name in self._rows]
        on_grid: list[Row] = [row for row in rows if row.dtype in BITS]
        for row in on_grid:
            if row.dtype == precision:
                assert row.scale is not None and row.zero_point is not None
                return PlainGrid(row.scale, row.zero_point, BITS[precision])
        for row in on_grid or [row for row in rows if row.min < row.max]:
            return PlainGrid(*activation_parameters(row.min, row.max, BITS[precision]), BITS[precision])
        return None

    def store(self, tensor: str, values: Array) -> Array:
        return self._converted(tensor, values, self.kept(tensor))

    def computed_in(self, layer: Layer, index: int = -1) -> str:
        """What the layer's node of that index computes in."""
        if any(node.op_type in _RECURRENT for node in layer.nodes):
            return "float16"
        node, own = layer.nodes[index], self.calibrated(layer.name)
        names = [v.name or "" for v in node.outputs if v.name in self._rows]
        wishes = [self._wishes[name] for name in names if name in self._wishes]
        if wishes:
            return wishes[0]
        if node is layer.nodes[-1]:
            return own
        storable = [name for name in names if own not in BITS or self.grid(name, own) is not None]
        return own if storable else self.computed_in(layer, index + 1)

    def _layer(self, layer: Layer, stored: Mapping[str, Array]) -> dict[str, Array]:
        raw: dict[str, Array] = {}
        made_in: dict[str, str] = {}
        for index, node in enumerate(layer.nodes):
            precision = self.computed_in(layer, index)
            arrays = self.constants_of(node, precision)
            for place, value in enumerate(node.inputs):
                if value is None or not value.name or place in arrays:
                    continue
                name = value.name
                if made_in.get(name) == precision:
                    arrays[place] = raw[name]
                else:
                    kept = self.store(name, raw[name]) if name in raw else stored[name]
                    arrays[place] = kept if self.kept(name) == precision else self._converted(name, kept, precision)
            made = self._run(node, arrays)
            raw.update(made)
            made_in.update(dict.fromkeys(made, precision))
        return {name: self.store(name, raw[name]) for name in layer.outputs}

    def _converted(self, tensor: str, values: Array, precision: str) -> Array:
        if values.dtype != np.float32 or precision == "":
            return values
        if precision == "float16":
            return half(values)
        grid = self.grid(tensor, precision)
        return values if grid is None else grid.rounded(values)

    def constants_of(self, node: ir.Node, precision: str) -> dict[int, Array]:
        """The node's constants, by place, as a layer of `precision` holds them."""
        op = node.op_type
        corrected = self._biases.get(node.outputs[0].name or "")
        found: dict[int, Array] = {}
        for index, value in enumerate(node.inputs):
            array = self._constants.get(value.name or "") if value is not None else None
            if value is None or array is None:
                continue
            found[index] = array
            if array.dtype != np.float32 or not precision or (op in _PRODUCTS[:3] and index == 2):
                continue
            if precision == "float16":
                if op in (*_PRODUCTS, *_ELEMENTWISE, *_NORMALIZATIONS, *_RECURRENT):
                    found[index] = half(array)
            elif op in _PRODUCTS and index == 1:
                found[index] = self._weight(node, array, precision)[0]
            elif given(value) is None and (op in _ELEMENTWISE or op in _PRODUCTS):
                found[index] = plain_operand(op, array, BITS[precision])
        if op in _PRODUCTS[:3]:
            if corrected is not None:
                found[2] = corrected
            elif 2 not in found or given(node.inputs[2]) is not None:  # type: ignore[arg-type]
                return found
            source = node.inputs[0].name if node.inputs[0] is not None else ""
            grid = self.grid(source or "", precision) if precision in BITS else None
            weight = self._constants.get(node.inputs[1].name or "") if node.inputs[1] is not None else None
            if grid is not None and weight is not None:
                alpha, beta = (float(_attribute(node, name, 1.0)) for name in ("alpha", "beta"))
                scales = self._weight(node, weight, precision)[1]
                points, width = plain_bias(found[2], grid.scale, scales, bits=grid.bits, alpha=alpha, beta=beta)
                found[2] = (points * width).astype(np.float32)
        return found

    def _weight(self, node: ir.Node, array: Array, precision: str) -> tuple[Array, Array]:
        """The rounded weight, and its scale for each output channel."""
        value = node.inputs[1]
        assert value is not None
        own, replaced = given(value), self._weights.get(node.outputs[0].name or "")
        if own is not None and replaced is None:
            return array, np.array(own.scale)
        op, groups = node.op_type, _attribute(node, "group", 1)
        transposed = bool(_attribute(node, "transB", 0))
        weight = plain_weight(
            op,
            array if replaced is None else replaced,
            per_channel=self._per_channel,
            groups=groups,
            transposed=transposed,
            bits=BITS[precision],
        )
        return weight.real, channel_scales(op, weight, groups, transposed)

    def _run(self, node: ir.Node, arrays: Mapping[int, Array]) -> dict[str, Array]:
        proto = ir.to_proto(node)
        count = max(len(proto.input), *(place + 1 for place in arrays)) if arrays else len(proto.input)
        proto.input[:] = [f"input{place}" if place in arrays else "" for place in range(count)]
        read = {f"input{place}": np.asarray(array) for place, array in arrays.items()}
        graph = helper.make_graph(
            [proto],
            "one",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in read.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in proto.output if name],
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        one = helper.make_model(graph, opset_imports=self._opsets, ir_version=9)
        session = onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [name for name in proto.output if name]
        return dict(zip(names, session.run(names, read), strict=True))


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default
