"""Lowers (graph, table) to one ONNX graph that computes what the NPU would: fake quantization, written out.

A layer reads its inputs in its own precision, computes in float32 with its constants rounded as the NPU stores them,
and its outputs are rounded to what the table says: an int8 or int16 grid, or float16. Between a float16 layer and an
int8 one stands a conversion, as on the chip. Tensors inside a fused layer are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.layers import CONVOLUTIONS, FLOATS, Layer
from engine.graph.query import attribute, constant, tensors
from engine.quantization.parameters import step
from engine.quantization.quantize import FLOAT16_ONLY
from engine.quantization.table import Row, Table
from engine.quantization.weights import (
    OPERANDS,
    QuantizedWeight,
    output_channel_axis,
    quantize_bias,
    quantize_operand,
    quantize_weight,
)

Array = np.ndarray[Any, Any]

_BIASED = {"Conv", "ConvTranspose", "Gemm"}
# Operators whose float constants are numbers to compute with, not sizes or bounds. A BatchNormalization's four are not
# rounded: the NPU holds one factor and one offset made of them, and a variance alone may not fit float16.
_WITH_WEIGHTS = (
    CONVOLUTIONS | set(OPERANDS) | FLOAT16_ONLY | {"InstanceNormalization", "LayerNormalization", "GroupNormalization"}
)


class Lowering:
    """Writes layers of `model` under `table` into a GraphBuilder; a graph may hold several lowered copies.

    `method` is 'channel' or 'layer', for weights.
    """

    def __init__(self, builder: GraphBuilder, model: ir.Model, table: Table, method: str) -> None:
        self.builder = builder
        self.table = table
        self._method = method
        self._weights: dict[ir.Node, QuantizedWeight] = {}
        self._converted: dict[tuple[str, str], str] = {}
        self._integer = {v.name or "" for v in tensors(model.graph) if v.dtype not in FLOATS}

    def precision(self, layer: Layer) -> str:
        """What the layer computes in: 'int8', 'int16', 'float16', or '' for layers of integers."""
        if any(node.op_type in FLOAT16_ONLY for node in layer.nodes):
            return "float16"
        return self.table.precision(layer.name)

    def store(self, tensor: str, raw: str) -> str:
        """Round the value `raw` of `tensor` to how it is kept between layers."""
        if tensor in self._integer:
            return raw
        precision = self.table.precision(tensor)
        row = self.table.quantizer(tensor) if precision in ("int8", "int16") else None
        if row is not None:
            return self._fake_quantize(raw, row, tensor)
        return self._half(raw) if precision == "float16" else raw

    def view(self, tensor: str, stored: str, precision: str) -> str:
        """The stored value as a layer of `precision` reads it, with a conversion where the two differ."""
        kept = self.table.precision(tensor)
        if tensor in self._integer or precision in ("", kept):
            return stored
        key = (stored, precision)
        if key not in self._converted:
            row = self.table.quantizer(tensor)
            if precision == "float16":
                self._converted[key] = self._half(stored)
            elif kept == "float16" and row is not None:
                self._converted[key] = self._fake_quantize(stored, row, tensor)
            else:
                self._converted[key] = stored
        return self._converted[key]

    def layer(self, layer: Layer, read: Callable[[str], str], suffix: str) -> dict[str, str]:
        """Write the layer's nodes; `read` gives the stored name of each input tensor.

        Returns the raw (not yet rounded) name of every tensor the layer makes, inner ones too.
        """
        precision = self.precision(layer)
        made: dict[str, str] = {}
        for node in layer.nodes:
            constants = self._constants(node, precision)

            def find(name: str, constants: dict[str, str] = constants) -> str:
                if name in made:
                    return made[name]
                return constants[name] if name in constants else self.view(name, read(name), precision)

            def name_output(name: str) -> str:
                made[name] = self.builder.name(f"{name}{suffix}")
                return made[name]

            self.builder.copy(node, find, name_output)
        return made

    def _constants(self, node: ir.Node, precision: str) -> dict[str, str]:
        """The builder's names of the node's constants, rounded as a layer of `precision` holds them."""
        found: dict[str, str] = {}
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if value is None or array is None or not value.name:
                continue
            name = value.name
            plain = array.dtype != np.float32 or node.op_type not in _WITH_WEIGHTS or not precision
            # The vendor's float16 models hold their biases in float32.
            if plain or (precision == "float16" and node.op_type in _BIASED and index == 2):
                found[name] = self.builder.constant(name)
            elif precision == "float16":
                with np.errstate(over="ignore"):
                    found[name] = self.builder.array(f"{name}.float16", array.astype(np.float16).astype(np.float32))
            else:
                found[name] = self._integer_constant(node, index, value, array)
        return found

    def _integer_constant(self, node: ir.Node, index: int, value: ir.Value, array: Array) -> str:
        name = value.name or ""
        if node.op_type in CONVOLUTIONS and index == 1:
            # One constant may be the weight of several nodes, which may split it into channels in other ways.
            way = f"{node.op_type}.{output_channel_axis(node)}.{attribute(node, 'group', 1)}"
            return self.builder.array(f"{name}.{way}.quantized", self._weight(node).real)
        if given(value) is not None:
            return self.builder.constant(name)
        if node.op_type in _BIASED and index == 2:
            source = node.inputs[0]
            row = self.table.quantizer(source.name or "") if source is not None else None
            if row is None or row.scale is None or constant(node.inputs[1]) is None:
                return self.builder.constant(name)
            bias = quantize_bias(array, row.scale, self._weight(node), node)
            return self.builder.array(f"{name}.{node.outputs[0].name}.quantized", bias)
        if node.op_type not in OPERANDS:
            return self.builder.constant(name)
        return self.builder.array(f"{name}.{node.op_type}.operand", quantize_operand(node.op_type, array))

    def _weight(self, node: ir.Node) -> QuantizedWeight:
        """The node's weight on its grid; several branches and the bias ask for it."""
        if node not in self._weights:
            self._weights[node] = quantize_weight(node, self._method)
        return self._weights[node]

    def _fake_quantize(self, name: str, row: Row, tensor: str) -> str:
        assert row.scale is not None and row.zero_point is not None
        dtype = np.dtype(row.dtype)
        scale = self.builder.array(f"{tensor}.scale", np.array(step(row.scale, row.dtype)))
        zero = self.builder.array(f"{tensor}.zero_point", np.array(row.zero_point, dtype))
        grid = self.builder.node("QuantizeLinear", [name, scale, zero], f"{name}.grid")
        return self.builder.node("DequantizeLinear", [grid, scale, zero], f"{name}.quantized")

    def _half(self, name: str) -> str:
        half = self.builder.node("Cast", [name], f"{name}.half", to=onnx.TensorProto.FLOAT16)
        return self.builder.node("Cast", [half], f"{name}.rounded", to=onnx.TensorProto.FLOAT)


def lower(model: ir.Model, layers: tuple[Layer, ...], table: Table, method: str) -> onnx.ModelProto:
    """The simulated model: float32, rounded on the way as the NPU would.

    Inputs have the names of `model`'s; outputs have its order, and names of their own.
    """
    builder = GraphBuilder(model, "simulation")
    lowering = Lowering(builder, model, table, method)
    stored = {v.name or "": lowering.store(v.name or "", v.name or "") for v in model.graph.inputs}
    for layer in layers:
        made = lowering.layer(layer, stored.__getitem__, ".raw")
        for tensor in layer.outputs:
            stored[tensor] = lowering.store(tensor, made[tensor])
    for value in model.graph.outputs:
        name = value.name or ""
        source = builder.constant(name) if value.is_initializer() else stored[name]
        builder.give(source, f"{name}.output")
    return builder.build()
