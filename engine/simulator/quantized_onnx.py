"""The quantized model as ONNX with Q/DQ nodes, for runtimes and compilers that read quantization from the graph.

Every scale and zero point is the table's. Activations pass through QuantizeLinear and DequantizeLinear where the NPU
stores them; weights are int8 or int16 and biases int32 behind DequantizeLinear; tensors inside a fused layer pass as
they are. What is float16 in the table stays float32 here, without rounding. Where there are int16 grids, the model is
in opset 21, from which on the standard's operators know them; a graph with operators that mean something else there
uses those of ONNX Runtime's own domain, com.microsoft, instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.query import attribute, constant
from engine.quantization.parameters import LIMITS, asymmetric
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Row
from engine.quantization.weights import QuantizedWeight, channel_scales, quantize_bias
from engine.simulator.integers import IntegerLayer
from engine.simulator.lowering import Lowering

Array = np.ndarray[Any, Any]

_WITH_INT16, _IR_WITH_INT16 = 21, 10
# Between the opsets that graphs are in and that one their meaning, or the name of a mode, became another.
_CHANGED = {"DFT", "GridSample", "GroupNormalization"}
_OTHER_DOMAIN = "com.microsoft"
_Q_DQ = {"QuantizeLinear", "DequantizeLinear"}

# They move no value, so that their output's grid serves for their input.
_LIMITS = {"Relu", "Clip"}


def to_qdq(quantized: Quantized, *, within: bool = False) -> onnx.ModelProto:
    """The quantized model as Q/DQ ONNX, with the float graph's names of inputs, outputs and tensors, and its opset.

    ONNX Runtime computes with it what the simulator does, but for scales that are float32 here, and for float16
    layers, which are float32. `within`: put Q/DQ inside fused layers too, except in front of limits (Relu, Clip), for
    compilers that fuse only what is int8 on both sides; a runtime that executes the nodes one by one then rounds more
    often than the NPU does.
    """
    graph = quantized.model.graph
    builder = GraphBuilder(quantized.model, graph.name or "quantized")
    lowering = _QdqLowering(builder, quantized, within)
    stored = {v.name or "": lowering.store(v.name or "", v.name or "") for v in graph.inputs}
    # The builder gives out no name that the graph has; those are put back once everything is written.
    raws: dict[str, str] = {}
    for layer in quantized.layers:
        made = lowering.layer(layer, stored.__getitem__, ".raw")
        raws.update(made)
        for tensor in layer.outputs:
            stored[tensor] = lowering.store(tensor, made[tensor])
    renamed = {raw: tensor for tensor, raw in raws.items()}
    outputs: list[onnx.ValueInfoProto] = []
    for value in graph.outputs:
        name = value.name or ""
        output = ir.serde.serialize_value(value)
        raw = raws.get(name)
        if raw is None:  # a model input or a constant, which ONNX Runtime does not give out under its own name
            source = builder.constant(name) if value.is_initializer() else stored[name]
            output.name = builder.node("Identity", [source], f"{name}.output")
        elif stored[name] != raw:
            renamed[raw], renamed[stored[name]] = raw, name
        outputs.append(output)
    return _finished(builder.build(), renamed, outputs)


def _finished(proto: onnx.ModelProto, renamed: dict[str, str], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """With the graph's own names put back, nodes named by what they make, and typed outputs."""
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
        node.name = next(name for name in node.output if name)
    proto.graph.output.extend(outputs)
    proto.producer_name = "rknn-tui"
    _standardize(proto)
    _sort(proto.graph)
    return proto


def _standardize(proto: onnx.ModelProto) -> None:
    """Write int16 grids with the standard's operators, where the rest of the graph means the same in their opset."""
    others = [node for node in proto.graph.node if node.domain == _OTHER_DOMAIN]
    if not others or any(node.op_type in _CHANGED for node in proto.graph.node):
        return
    if any(node.op_type not in _Q_DQ for node in others):
        return
    for node in others:
        node.ClearField("domain")
    imports = {entry.domain: entry.version for entry in proto.opset_import if entry.domain != _OTHER_DOMAIN}
    imports[""] = max(imports[""], _WITH_INT16)
    del proto.opset_import[:]
    for domain, version in imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.ir_version = max(proto.ir_version, _IR_WITH_INT16)


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads; lowering writes a conversion behind the node that it is for."""
    made = {name: node for node in graph.node for name in node.output if name}
    ordered: dict[int, onnx.NodeProto] = {}
    for last in graph.node:
        waiting = [last]
        while waiting:
            node = waiting[-1]
            sources = [made[name] for name in node.input if name in made and id(made[name]) not in ordered]
            waiting.extend(sources)
            if not sources:
                ordered[id(node)] = waiting.pop()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered.values()]
    del graph.node[:]
    graph.node.extend(nodes)


class _QdqLowering(Lowering):
    """Lowering to a graph whose constants are integers with DequantizeLinear behind them."""

    def __init__(self, builder: GraphBuilder, quantized: Quantized, within: bool) -> None:
        super().__init__(builder, quantized)
        self._inside = within
        self._stored_within: dict[str, str] = {}

    def _within(self, tensor: str, raw: str, reader: ir.Node) -> str:
        if not self._inside or reader.op_type in _LIMITS:
            return raw
        if raw not in self._stored_within:
            row = self.table.quantizer(tensor) or _squashed(reader, tensor)
            self._stored_within[raw] = raw if row is None else self._fake_quantize(raw, row, tensor)
        return self._stored_within[raw]

    def _whole(self, layer: Layer, precisions: list[str]) -> IntegerLayer | None:
        return None

    def _half(self, name: str) -> str:
        return name

    def _constants_of(self, node: ir.Node, precision: str) -> dict[int, str]:
        # A float16 layer is left float: its constants as they are, corrected ones too.
        return super()._constants_of(node, "" if precision == "float16" else precision)

    def _integer_constant(self, node: ir.Node, index: int, value: ir.Value, array: Array, precision: str) -> str:
        # Weights are not left as floats in int16 layers either: ONNX Runtime would make int8 of them.
        if node.op_type not in CONVOLUTIONS or index != 1:
            return super()._integer_constant(node, index, value, array, precision)
        weight = self._constants.weight(node, precision)
        axes = [axis for axis, size in enumerate(weight.scale.shape) if size > 1]
        name, grid = f"{node.outputs[0].name}.{precision}.weight", _grid(weight, precision)
        if len(axes) < 2:
            return self._dequantized(name, grid, weight.scale, weight.zero_point, axes[0] if axes else None)
        # Groups of a ConvTranspose have channels of their own, which only both first axes together count.
        count = math.prod(grid.shape[:2])
        scale, zero_point = (
            np.broadcast_to(one, (*grid.shape[:2], *(1,) * (grid.ndim - 2)))
            for one in (weight.scale, weight.zero_point)
        )
        flat = self._dequantized(f"{name}.flat", grid.reshape(count, *grid.shape[2:]), scale, zero_point, 0)
        shape = self.builder.array(f"{name}.shape", np.array(grid.shape, np.int64))
        return self.builder.node("Reshape", [flat, shape], name)

    def _bias(self, node: ir.Node, precision: str) -> str:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        corrected = self._corrected(node)
        bias = constant(value) if corrected is None else corrected
        source = node.inputs[0]
        own = corrected is None and value is not None and given(value) is not None
        plain = node.op_type != "Gemm" or attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        row = None
        if precision in GRIDS and source is not None and constant(node.inputs[1]) is not None and not own and plain:
            row = self.table.quantizer(source.name or "", precision)
        if bias is None or bias.ndim != 1 or bias.dtype != np.float32 or row is None or row.scale is None:
            return super()._bias(node, precision)
        weight = self._constants.weight(node, precision)
        width = np.float64(row.scale) * channel_scales(weight, node)
        if width.size not in (1, bias.size) or not (width > np.finfo(np.float32).tiny).all():
            return super()._bias(node, precision)
        rounded = quantize_bias(bias, row.scale, weight, node, precision)
        if precision != "int8":
            # At the steps of int16 layers an int32 may not hold it. Nor can it stay float32: ONNX Runtime would make
            # an int32 of it all the same, and clip it.
            width = np.maximum(width, np.abs(rounded).max(initial=0.0) / LIMITS["int32"][1])
        grid = np.rint(rounded / width)
        # Rounding to float32 on the way can lift the largest one by a few.
        whole = np.clip(grid, *LIMITS["int32"]).astype(np.int32)
        zero = np.zeros(width.shape, np.int32)
        return self._dequantized(f"{node.outputs[0].name}.bias", whole, width, zero, 0 if width.size > 1 else None)

    def _dequantized(self, name: str, grid: Array, scale: Array, zero_point: Array, axis: int | None) -> str:
        shape: tuple[int, ...] = () if axis is None else (-1,)
        names = [
            self.builder.array(f"{name}.integers", grid),
            self.builder.array(f"{name}.scale", scale.reshape(shape).astype(np.float32)),
            self.builder.array(f"{name}.zero_point", zero_point.reshape(shape).astype(grid.dtype)),
        ]
        domain = _OTHER_DOMAIN if grid.dtype == np.int16 else ""
        along = {} if axis is None else {"axis": axis}
        return self.builder.node("DequantizeLinear", names, name, domain=domain, **along)


def _squashed(reader: ir.Node, tensor: str) -> Row | None:
    """The grid of a sigmoid that a product reads in the same layer, which has no row: it lies between 0 and 1."""
    value = next(value for value in reader.inputs if value is not None and value.name == tensor)
    maker = value.producer()
    if maker is None or maker.op_type != "Sigmoid":
        return None
    return Row("int8", 0.0, 1.0, *asymmetric(0.0, 1.0))


def _grid(weight: QuantizedWeight, precision: str) -> Array:
    """The integers of a weight. A scale that came with the model may round them just beyond the ends."""
    whole = np.rint(weight.real.astype(np.float64) / weight.scale) + weight.zero_point
    integers: Array = np.clip(whole, *LIMITS[precision]).astype(precision)
    return integers
