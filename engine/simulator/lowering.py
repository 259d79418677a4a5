"""Lowers (graph, table) to one ONNX graph that computes what the NPU would: fake quantization, written out.

A layer reads its inputs in its own precision, computes in float32 with its constants rounded as the NPU stores them,
and its outputs are rounded to what the table says: an int8 or int16 grid, or float16. Between a float16 layer and an
int8 one stands a conversion, as on the chip. Tensors inside a fused layer are not rounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.query import constant
from engine.quantization.quantize import FLOAT16_ONLY
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Row
from engine.quantization.traffic import arrives_in, computed_in
from engine.quantization.weights import OPERANDS, quantize_bias, quantize_operand
from engine.simulator.integers import IntegerLayer, grid_constants, integer_layer

Array = np.ndarray[Any, Any]

BIASED = {"Conv", "ConvTranspose", "Gemm"}
# Operators whose float constants are numbers to compute with, not sizes or bounds. A BatchNormalization's four are not
# rounded: the NPU holds one factor and one offset made of them, and a variance alone may not fit float16.
_WITH_WEIGHTS = (
    CONVOLUTIONS | set(OPERANDS) | FLOAT16_ONLY | {"InstanceNormalization", "LayerNormalization", "GroupNormalization"}
)


@dataclasses.dataclass(frozen=True, order=True)
class Source:
    """A place where a quantized model loses accuracy.

    kind: 'tensor', the rounding of a tensor between layers, or 'weights', that of a layer's constants. `name` is the
    tensor's or the layer's.
    """

    kind: str
    name: str


class Lowering:
    """Writes layers of a quantized model into a GraphBuilder; a graph may hold several lowered copies.

    With `only`, nothing is rounded but at these sources, and biases are the float graph's.
    """

    def __init__(self, builder: GraphBuilder, quantized: Quantized, only: Collection[Source] | None = None) -> None:
        self.builder = builder
        self.table = quantized.table
        self._constants = quantized.constants
        self._only = only
        self._converted: dict[tuple[str, str], str] = {}
        self._integer = quantized.integers

    def precision(self, layer: Layer) -> str:
        """What the layer's last step computes in: 'int8', 'int16', 'float16', or '' for layers of integers."""
        return self.precisions(layer)[-1]

    def precisions(self, layer: Layer) -> list[str]:
        """What each node of the layer computes in; a wish for a tensor within parts the layer there."""
        return computed_in(layer, self.table)

    def store(self, tensor: str, raw: str) -> str:
        """Round the value `raw` of `tensor` to how it is kept between layers."""
        if not self._rounds(tensor):
            return raw
        row = self.table.quantizer(tensor)
        if row is not None:
            return self._fake_quantize(raw, row, tensor)
        return self._half(raw) if self.table.precision(tensor) == "float16" else raw

    def view(self, tensor: str, stored: str, precision: str) -> str:
        """The stored value as a layer of `precision` reads it, with a conversion where the two differ."""
        precision = arrives_in(tensor, precision, self.table)
        if precision == self.table.precision(tensor) or not self._rounds(tensor):
            return stored
        key = (stored, precision)
        if key not in self._converted:
            row = self.table.quantizer(tensor, precision)
            self._converted[key] = self._half(stored) if row is None else self._fake_quantize(stored, row, tensor)
        return self._converted[key]

    def layer(self, layer: Layer, read: Callable[[str], str], suffix: str) -> dict[str, str]:
        """Write the layer's nodes; `read` gives the stored name of each input tensor.

        Returns the raw (not yet rounded) name of every tensor the layer makes, inner ones too.
        """
        precisions = self.precisions(layer)
        whole = self._whole(layer, precisions)
        if whole is not None:
            return whole.write(self.builder, self.view(whole.source, read(whole.source), "int8"), suffix)
        made: dict[str, str] = {}
        made_in: dict[str, str] = {}
        # Where the layer is parted, what passes from one part to the next is stored as any tensor is.
        kept: dict[str, str] = {}
        rounded = (self._only is None or Source("weights", layer.name) in self._only) and not layer.on_processor
        for node, precision in zip(layer.nodes, precisions, strict=True):

            def find(name: str, precision: str = precision, node: ir.Node = node) -> str:
                if made_in.get(name) == precision:
                    return self._within(name, made[name], node)
                if name in made:
                    if name not in kept:
                        kept[name] = self.store(name, made[name])
                    return self.view(name, kept[name], precision)
                return self.view(name, read(name), precision)

            def name_output(name: str, precision: str = precision) -> str:
                made[name], made_in[name] = self.builder.name(f"{name}{suffix}"), precision
                return made[name]

            constants = self._constants_of(node, precision if rounded else "")
            self.builder.copy(node, find, name_output, constants)
        return made

    def _whole(self, layer: Layer, precisions: list[str]) -> IntegerLayer | None:
        """The layer as sums of whole numbers, where it is to be computed so."""
        return integer_layer(layer, precisions, self.table, self._constants) if self._only is None else None

    def _within(self, tensor: str, raw: str, reader: ir.Node) -> str:
        """What the next node of the same part of a layer reads of the value `raw` of `tensor`: it, not rounded."""
        return raw

    def _rounds(self, tensor: str) -> bool:
        if tensor in self._integer:
            return False
        return self._only is None or Source("tensor", tensor) in self._only

    def _constants_of(self, node: ir.Node, precision: str) -> dict[int, str]:
        """The builder's names of the node's constants as a layer of `precision` holds them, by place among its inputs.

        A bias that the node gets by a correction is among them.
        """
        found: dict[int, str] = {}
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if value is None or array is None:
                continue
            if node.op_type in BIASED and index == 2:
                found[index] = self._bias(node, precision)
            elif array.dtype != np.float32 or node.op_type not in _WITH_WEIGHTS or not precision:
                found[index] = self.builder.constant(value.name or "")
            elif precision == "float16":
                with np.errstate(over="ignore"):
                    half = array.astype(np.float16).astype(np.float32)
                found[index] = self.builder.array(f"{value.name}.float16", half)
            else:
                found[index] = self._integer_constant(node, index, value, array, precision)
        if node.op_type in BIASED and len(node.inputs) == 2 and self._corrected(node) is not None:
            found[2] = self._bias(node, precision)
        return found

    def _corrected(self, node: ir.Node) -> Array | None:
        return self._constants.corrected_bias(node) if self._only is None else None

    def _bias(self, node: ir.Node, precision: str) -> str:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        corrected = self._corrected(node)
        bias = constant(value) if corrected is None else corrected
        assert bias is not None
        source, row = node.inputs[0], None
        own = corrected is None and value is not None and given(value) is not None
        # The vendor's float16 models hold their biases in float32.
        if precision in GRIDS and source is not None and constant(node.inputs[1]) is not None and not own:
            row = self.table.quantizer(source.name or "", precision)
        if row is not None and row.scale is not None and bias.dtype == np.float32:
            bias = quantize_bias(bias, row.scale, self._constants.weight(node, precision), node, precision)
        elif corrected is None and value is not None:
            return self.builder.constant(value.name or "")
        return self.builder.array(f"{node.outputs[0].name}.{precision}.bias", bias)

    def _integer_constant(self, node: ir.Node, index: int, value: ir.Value, array: Array, precision: str) -> str:
        if node.op_type in CONVOLUTIONS and index == 1:
            # One constant may be the weight of several nodes, which may split it into channels in other ways, and
            # which may be corrected in other ways.
            weight = self._constants.weight(node, precision).real
            return self.builder.array(f"{node.outputs[0].name}.{precision}.weight", weight)
        # What is multiplied with a weight is stored alike, whatever computes the product.
        op_type = "MatMul" if node.op_type in CONVOLUTIONS else node.op_type
        if given(value) is not None or op_type not in OPERANDS:
            return self.builder.constant(value.name or "")
        return self.builder.array(
            f"{value.name}.{op_type}.{precision}.operand", quantize_operand(op_type, array, precision)
        )

    def _fake_quantize(self, name: str, row: Row, tensor: str) -> str:
        # The standard's operators know int16 from opset 21 on only.
        domain = "com.microsoft" if row.dtype == "int16" else ""
        scale, zero = grid_constants(self.builder, tensor, row)
        grid = self.builder.node("QuantizeLinear", [name, scale, zero], f"{name}.grid", domain=domain)
        return self.builder.node("DequantizeLinear", [grid, scale, zero], f"{name}.quantized", domain=domain)

    def _half(self, name: str) -> str:
        half = self.builder.node("Cast", [name], f"{name}.half", to=onnx.TensorProto.FLOAT16)
        return self.builder.node("Cast", [half], f"{name}.rounded", to=onnx.TensorProto.FLOAT)


def lower(
    quantized: Quantized, *, further: Collection[str] = (), only: Collection[Source] | None = None
) -> onnx.ModelProto:
    """The simulated model: float32, rounded on the way as the NPU would.

    Inputs have the names of the float graph's; outputs have its order, and names of their own. Behind them come the
    tensors `further` of the graph, which lie between layers, as they are stored. `only`: see Lowering.
    """
    builder = GraphBuilder(quantized.model, "simulation")
    lowering = Lowering(builder, quantized, only)
    graph = quantized.model.graph
    stored = {v.name or "": lowering.store(v.name or "", v.name or "") for v in graph.inputs}
    for layer in quantized.layers:
        made = lowering.layer(layer, stored.__getitem__, ".raw")
        for tensor in layer.outputs:
            stored[tensor] = lowering.store(tensor, made[tensor])
    for value in graph.outputs:
        name = value.name or ""
        source = builder.constant(name) if value.is_initializer() else stored[name]
        builder.give(source, f"{name}.output")
    for name in further:
        builder.give(stored[name], f"{name}.stored")
    return builder.build()
