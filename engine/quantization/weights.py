"""Quantizes the constants that layers compute with: weights per output channel or layer, biases, and other operands."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.given import GivenParameters, given
from engine.graph.query import attribute, constant
from engine.quantization.parameters import LIMITS, asymmetric, fake_quantize, symmetric

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """A weight on its grid. `real` is float32 with the original shape; `scale` (float64) and `zero_point` (int64) have
    that shape with size 1 along every axis but the output channels', or all 1 per layer."""

    real: Array
    scale: Array
    zero_point: Array


def output_channel_axis(node: ir.Node) -> int | None:
    """The axis of the weight (input 1) that counts output channels; None when the weight has no such axis."""
    weight = node.inputs[1]
    if weight is None or weight.shape is None:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul" and len(weight.shape) >= 2:
        return len(weight.shape) - 1
    return None


def quantize_weight(
    node: ir.Node, method: str, precision: str = "int8", replacement: Array | None = None
) -> QuantizedWeight:
    """The constant weight (input 1) of `node`, asymmetric, one range a channel or one for the layer.

    `method` is 'channel' or 'layer'; `precision` 'int8' or 'int16'. Each range is widened to contain 0. A weight whose
    grid came with the source model keeps it. `replacement` stands in for the constant, and has no such grid.
    """
    value = node.inputs[1]
    weight = constant(value) if replacement is None else replacement
    assert value is not None and weight is not None
    weight = weight.astype(np.float32)
    own = given(value) if replacement is None else None
    if own is not None:
        return _on_given_grid(weight, own)
    axis = output_channel_axis(node) if method == "channel" else None
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    if axis is not None and groups > 1:
        return _grouped_transpose(weight, groups, precision)
    return _quantize(weight, axis, precision)


def _quantize(weight: Array, axis: int | None, precision: str) -> QuantizedWeight:
    smallest, largest = LIMITS[precision]
    others = tuple(i for i in range(weight.ndim) if i != axis)
    low = np.minimum(weight.min(axis=others, keepdims=True, initial=0.0), 0.0).astype(np.float64)
    high = np.maximum(weight.max(axis=others, keepdims=True, initial=0.0), 0.0).astype(np.float64)
    scale = (high - low) / (largest - smallest)
    empty = scale == 0.0
    scale = np.where(empty, 2.0 / (largest - smallest), scale)
    zero = np.where(empty, 0.0, np.rint(smallest - low / scale))
    grid = np.clip(np.rint(weight / scale) + zero, smallest, largest)
    return QuantizedWeight(((grid - zero) * scale).astype(np.float32), scale, zero.astype(np.int64))


def _grouped_transpose(weight: Array, groups: int, precision: str) -> QuantizedWeight:
    """A ConvTranspose weight [in, out / groups, ...]: input channels of a group share that group's output channels."""
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    parts = [_quantize(part, 1, precision) for part in split]
    rows = split.shape[1]
    return QuantizedWeight(
        np.concatenate([p.real for p in parts]),
        np.concatenate([np.repeat(p.scale, rows, axis=0) for p in parts]),
        np.concatenate([np.repeat(p.zero_point, rows, axis=0) for p in parts]),
    )


def _on_given_grid(weight: Array, own: GivenParameters) -> QuantizedWeight:
    shape = [1] * weight.ndim
    if own.axis is not None:
        shape[own.axis] = len(own.scale)
    scale = np.array(own.scale, np.float64).reshape(shape)
    zero = np.array(own.zero_point, np.int64).reshape(shape)
    return QuantizedWeight(weight, scale, zero)


def quantize_bias(
    bias: Array, input_scale: float, weight: QuantizedWeight, node: ir.Node, precision: str = "int8"
) -> Array:
    """The bias at step input_scale * weight scale (of its channel), zero point 0, back in float32.

    A Gemm is alpha * product + beta * bias: to its bias the product's step is alpha / beta as wide. In int8 layers the
    bias is an int32. At the steps of int16 layers that could not hold a bias as large as the products it is added to,
    so that it is not clipped there.
    """
    factor = 1.0
    if node.op_type == "Gemm":
        alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
        if alpha == 0.0 or beta == 0.0:  # one of the two is not there, and sets no step
            return bias
        factor = abs(alpha / beta)
    width = np.float64(input_scale) * channel_scales(weight, node) * factor
    width = np.where(width > 0, width, np.finfo(np.float64).tiny)
    grid = np.rint(bias.astype(np.float64) / width)
    if precision == "int8":
        grid = np.clip(grid, *LIMITS["int32"])
    rounded: Array = (grid * width).astype(np.float32)
    return rounded


def channel_scales(weight: QuantizedWeight, node: ir.Node) -> Array:
    """The weight's scale for each output channel, or one for all."""
    axis = output_channel_axis(node)
    if weight.scale.size == 1 or axis is None:
        return weight.scale.reshape(-1)[:1]
    if node.op_type == "ConvTranspose":
        rows = weight.real.shape[0] // int(attribute(node, "group", 1))
        shape = weight.real.shape[:2] + (1,) * (weight.real.ndim - 2)
        return np.broadcast_to(weight.scale, shape)[::rows].reshape(-1)
    # A grid that came with the model may follow another axis, which a bias cannot.
    first = tuple(slice(None) if i == axis else slice(1) for i in range(weight.scale.ndim))
    return weight.scale[first].reshape(-1)


# How the constant operand of an operator is stored, as read off the toolkit's cfg files: (qtype, dtype).
OPERANDS = {
    "Mul": ("asym", "int16"),
    "Div": ("asym", "int16"),
    "PRelu": ("asym", "int16"),
    "Add": ("sym", "int32"),
    "Sub": ("sym", "int32"),
    "Concat": ("asym", "int8"),
    "MatMul": ("asym", "int8"),
    "Max": ("asym", "int8"),
    "Min": ("asym", "int8"),
}


def operand_parameters(op_type: str, operand: Array, precision: str = "int8") -> tuple[str, str, float, int] | None:
    """qtype, dtype, scale and zero point of a constant operand of an int8 or int16 layer; None when it stays float."""
    if op_type not in OPERANDS or operand.dtype != np.float32 or operand.size == 0:
        return None
    qtype, dtype = OPERANDS[op_type]
    dtype = precision if dtype == "int8" else dtype
    low, high = float(operand.min()), float(operand.max())
    if not np.isfinite([low, high]).all():
        return None
    scale, zero = symmetric(low, high, dtype) if qtype == "sym" else asymmetric(low, high, dtype)
    return qtype, dtype, scale, zero


def quantize_operand(op_type: str, operand: Array, precision: str = "int8") -> Array:
    """A constant operand as the NPU stores it for a layer of `precision`, back in float32."""
    parameters = operand_parameters(op_type, operand, precision)
    if parameters is None:
        return operand
    _, dtype, scale, zero = parameters
    return fake_quantize(operand, scale, zero, dtype)
