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

from engine.graph.layers import Layer
from engine.quantization.table import Row, Table

Array = np.ndarray[Any, Any]


def activation_parameters(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of an int8 range: 255 steps over the range with 0 in it."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 2 / 255, 0
    scale = (high - low) / 255
    return scale, int(np.rint(-128 - low / scale))


def to_grid(values: Array, scale: float, zero_point: int, bits: int = 8) -> Array:
    """The int64 grid points of float32 values: round half to even in float32, then clip."""
    steps = np.rint(values.astype(np.float32) / np.float32(scale)).astype(np.int64)
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
    op: str, weight: Array, *, per_channel: bool, groups: int = 1, transposed: bool = False
) -> PlainWeight:
    """int8 asymmetric, an output channel at a time. `transposed` is a Gemm's transB: channels come first."""
    grid = np.zeros(weight.shape, np.int64)
    scales, zeros = np.zeros(weight.shape), np.zeros(weight.shape, np.int64)
    for index in _channels(op, weight, groups, transposed) if per_channel else [()]:
        part = weight[index].astype(np.float64)
        scale, zero = activation_parameters(float(part.min()), float(part.max()))
        grid[index] = np.clip(np.rint(part / scale) + zero, -128, 127)
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


def plain_bias(bias: Array, input_scale: float, scales: Array) -> tuple[Array, Array]:
    """int32 grid points of the bias and their step, a channel each."""
    width = input_scale * scales
    grid = np.clip(np.rint(bias.astype(np.float64) / width), -(2**31), 2**31 - 1)
    return grid.astype(np.int64), width


def plain_operand(op: str, operand: Array) -> Array:
    """The constant operand of an element-wise node or join, rounded as it is stored, in float32."""
    low, high = min(float(operand.min()), 0.0), max(float(operand.max()), 0.0)
    if op in ("Add", "Sub"):
        scale = (max(-low, high) or 1.0) / (2**31 - 1)
        grid = np.clip(np.rint(operand.astype(np.float64) / scale), -(2**31), 2**31 - 1)
        return (grid * scale).astype(np.float32)
    bits = 16 if op in ("Mul", "Div", "PRelu") else 8
    scale = (high - low) / (2**bits - 1)
    zero = int(np.rint(-(2 ** (bits - 1)) - low / scale))
    return from_grid(to_grid(operand, scale, zero, bits), scale, zero)


def cosine(first: Array, second: Array) -> float:
    a, b = first.astype(np.float64).reshape(-1), second.astype(np.float64).reshape(-1)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def euclidean(first: Array, second: Array) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second.astype(np.float64)))


class PlainSimulator:
    """Runs a built model's layers one after the other and keeps every tensor.

    golden: the float model's tensors. entire: the quantized model's, as stored between layers. single: each layer's
    outputs when it reads golden tensors rounded as the table says.
    """

    def __init__(self, model: ir.Model, layers: tuple[Layer, ...], table: Table, *, per_channel: bool = True) -> None:
        self._model = model
        self._layers = layers
        self._rows = table.rows
        self._per_channel = per_channel
        self._opsets = [helper.make_opsetid(d, v) for d, v in model.graph.opset_imports.items()]
        self._constants = {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value}

    def run(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        golden = dict(feeds)
        for node in self._model.graph:
            golden.update(self._run(node, {**self._constants, **golden}))
        entire = {name: self.store(name, array) for name, array in feeds.items()}
        single = dict(entire)
        for layer in self._layers:
            entire.update(self._layer(layer, entire))
            rounded = {name: self.store(name, golden[name]) for name in layer.inputs}
            single.update(self._layer(layer, rounded))
        return golden, entire, single

    def kept(self, tensor: str) -> tuple[str, Row | None]:
        """How a tensor is stored: its precision, and the row of its grid where it has one."""
        row, twin = self._rows.get(tensor), self._rows.get(f"{tensor}_int8")
        if row is None:
            return "", None
        if row.dtype == "float32":
            return (twin.dtype, twin) if twin is not None else ("float16", None)
        return (row.dtype, row) if row.dtype == "int8" else (row.dtype, twin)

    def store(self, tensor: str, values: Array) -> Array:
        precision, row = self.kept(tensor)
        if values.dtype != np.float32 or not precision:
            return values
        return half(values) if precision == "float16" else _rounded(values, row)

    def _layer(self, layer: Layer, stored: Mapping[str, Array]) -> dict[str, Array]:
        recurrent = any(node.op_type in ("LSTM", "GRU", "RNN") for node in layer.nodes)
        precision = "float16" if recurrent else self.kept(layer.name)[0]
        values: dict[str, Array] = {}
        for name in layer.inputs:
            kept, row = self.kept(name)
            array = stored[name]
            if array.dtype == np.float32 and precision == "float16" and kept != "float16":
                array = half(array)
            elif array.dtype == np.float32 and precision == "int8" and kept == "float16" and row is not None:
                array = _rounded(array, row)
            values[name] = array
        for node in layer.nodes:
            values.update(self._run(node, {**self._constants, **values, **self._rounded_constants(node, precision)}))
        return {name: self.store(name, values[name]) for name in layer.outputs}

    def _rounded_constants(self, node: ir.Node, precision: str) -> dict[str, Array]:
        op, found = node.op_type, {}
        attributes = {name: attr.value for name, attr in node.attributes.items()}
        matrix = op in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        operands = ("Add", "Sub", "Mul", "Div", "PRelu", "Concat", "Max", "Min", "MatMul")
        norms = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LSTM", "GRU", "RNN")
        scales = np.zeros(0)
        for index, value in enumerate(node.inputs):
            name = value.name if value is not None and value.name in self._constants else None
            array = self._constants.get(name or "")
            if name is None or array is None or array.dtype != np.float32 or not precision:
                continue
            if precision == "float16":
                if (matrix or op in operands or op in norms) and not (matrix and index == 2):
                    found[name] = half(array)
            elif matrix and index == 1:
                groups, transposed = attributes.get("group", 1), bool(attributes.get("transB", 0))
                weight = plain_weight(op, array, per_channel=self._per_channel, groups=groups, transposed=transposed)
                scales = channel_scales(op, weight, groups, transposed)
                found[name] = weight.real
            elif matrix and index == 2 and scales.size:
                row = self.kept(node.inputs[0].name if node.inputs[0] is not None else "")[1]
                assert row is not None and row.scale is not None
                grid, width = plain_bias(array, row.scale, scales)
                found[name] = (grid * width).astype(np.float32)
            elif op in operands:
                found[name] = plain_operand(op, array)
        return found

    def _run(self, node: ir.Node, values: Mapping[str, Array]) -> dict[str, Array]:
        proto = ir.to_proto(node)
        read = {name: np.asarray(values[name]) for name in proto.input if name}
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


def _rounded(values: Array, row: Row | None) -> Array:
    assert row is not None and row.scale is not None and row.zero_point is not None
    bits = 16 if row.dtype == "int16" else 8
    return from_grid(to_grid(values, row.scale, row.zero_point, bits), row.scale, row.zero_point)
