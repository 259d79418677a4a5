"""Computes layers of models that came quantized as their own runtimes do: whole numbers summed, rescaled once, rounded.

Sums of rounded real values come out a little beside those of whole numbers, and on another step where the exact one
lies half way between two. Fifty layers on, that shows. Sums of whole numbers are exact in float32 up to 2^24.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from engine.graph.building import GraphBuilder
from engine.graph.given import given
from engine.graph.layers import Layer
from engine.graph.query import attribute, constant
from engine.quantization.parameters import step
from engine.quantization.quantized import Constants
from engine.quantization.table import Row, Table
from engine.quantization.weights import channel_scales

Array = np.ndarray[Any, Any]

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm"}
_LIMITS = {"Relu", "Clip"}


class IntegerLayer(NamedTuple):
    """A product with constants and the limits that follow it, with the grids of what it reads and makes.

    `weight` and `bias` are whole numbers in float32; `factors` bring their sums to steps of the output, one for each
    channel, or one, in the shape that goes with the output.
    """

    product: ir.Node
    limits: tuple[ir.Node, ...]
    source: str
    read: Row
    made: Row
    weight: Array
    bias: Array | None
    factors: Array

    def write(self, builder: GraphBuilder, stored: str, suffix: str) -> dict[str, str]:
        """Add the layer, which reads the tensor `stored`; returns the names of the real values of all that it makes."""
        name = self.product.outputs[0].name or ""
        scale, zero = grid_constants(builder, self.source, self.read)
        one = builder.array("integers.one", np.float32(1.0))
        grid = builder.node("QuantizeLinear", [stored, scale, zero], f"{name}{suffix}.grid")
        whole = builder.node("DequantizeLinear", [grid, one, zero], f"{name}{suffix}.whole")
        constants = {1: builder.array(f"{name}.whole.weight", self.weight)}
        if self.bias is not None:
            constants[2] = builder.array(f"{name}.whole.bias", self.bias)
        sums = builder.name(f"{name}{suffix}.sums")
        builder.copy(self.product, lambda _: whole, lambda _: sums, constants)
        value = builder.node("Mul", [sums, builder.array(f"{name}.factors", self.factors)], f"{name}{suffix}.steps")
        made_scale = np.float32(step(self.made.scale or 1.0, self.made.dtype))
        width = builder.array(f"{name}.width", made_scale)
        made = {name: builder.node("Mul", [value, width], f"{name}{suffix}")}
        for node in self.limits:
            output = node.outputs[0].name or ""
            if node.op_type == "Relu":
                value = builder.node("Relu", [value], f"{output}{suffix}.steps")
            else:
                ends = [None if v is None else constant(v) for v in (*node.inputs[1:], None, None)][:2]
                names = [
                    "" if end is None else builder.array(f"{output}.end{index}", (end / made_scale).astype(np.float32))
                    for index, end in enumerate(ends)
                ]
                value = builder.node("Clip", [value, *names], f"{output}{suffix}.steps")
            made[output] = ""
        last = next(reversed(made))
        rounded = builder.node("Round", [value], f"{last}{suffix}.rounded")
        made[last] = builder.node("Mul", [rounded, width], f"{last}{suffix}")
        for inner in [key for key, found in made.items() if not found]:
            made[inner] = made[last]
        return made


def integer_layer(layer: Layer, precisions: list[str], table: Table, constants: Constants) -> IntegerLayer | None:
    """The layer as its own runtime computes it; None where it does not, or no longer in the grids that it came with."""
    product, limits = layer.nodes[0], layer.nodes[1:]
    if product.op_type not in _PRODUCTS or set(precisions) != {"int8"} or not _chained(layer):
        return None
    source, weights, output = product.inputs[0], product.inputs[1], layer.nodes[-1].outputs[0]
    if source is None or weights is None or constant(weights) is None:
        return None
    parameters = [given(value) for value in (source, weights, output)]
    if any(one is None or one.dtype != "int8" or not one.integers for one in parameters):
        return None
    rows = [table.quantizer(value.name or "", "int8") for value in (source, output)]
    for row, own in zip(rows, (parameters[0], parameters[2]), strict=True):
        assert own is not None
        if row is None or (row.scale, row.zero_point) != (own.scale[0], own.zero_point[0]):
            return None
    read, made = rows
    assert read is not None and made is not None and read.scale is not None and made.scale is not None
    value = product.inputs[2] if len(product.inputs) > 2 else None
    bias = constant(value)
    if constants.corrected_bias(product) is not None or constants.is_replaced(product) or (value and bias is None):
        return None
    if product.op_type == "Gemm" and (attribute(product, "alpha", 1.0), attribute(product, "beta", 1.0)) != (1.0, 1.0):
        return None
    weight = constants.weight(product, "int8")
    whole = np.rint(weight.real / weight.scale).astype(np.float32)
    scales = channel_scales(weight, product)
    if bias is not None:
        bias = np.rint(bias.astype(np.float64) / (read.scale * scales)).astype(np.float32)
    factors = (np.float64(read.scale) * scales / np.float64(made.scale)).astype(np.float32)
    if product.op_type != "Gemm" and factors.size > 1:
        factors = factors.reshape(-1, *(1,) * (weight.real.ndim - 2))
    return IntegerLayer(product, limits, source.name or "", read, made, whole, bias, factors)


def _chained(layer: Layer) -> bool:
    """Whether all that follows the product limits what comes before it, between constants."""
    before = layer.nodes[0].outputs[0]
    for node in layer.nodes[1:]:
        ends = [value for value in node.inputs[1:] if value is not None]
        if node.op_type not in _LIMITS or node.inputs[0] is not before or any(constant(end) is None for end in ends):
            return False
        before = node.outputs[0]
    return layer.outputs == (before.name,)


def grid_constants(builder: GraphBuilder, tensor: str, row: Row) -> tuple[str, str]:
    """The builder's names of the scale and the zero point of a tensor's row, which has both."""
    assert row.scale is not None and row.zero_point is not None
    scale = builder.array(f"{tensor}.{row.dtype}.scale", np.array(step(row.scale, row.dtype)))
    return scale, builder.array(f"{tensor}.{row.dtype}.zero_point", np.array(row.zero_point, np.dtype(row.dtype)))
