"""Per-channel scalings and shifts: how they are spelled, and how a layer with weights absorbs them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import free_constant, is_float, keeps_shape, per_channel
from engine.graph.passes.rewriting import set_attributes, set_constant_input
from engine.graph.query import Array, attribute, static_shape


@dataclasses.dataclass(frozen=True)
class Affine:
    """y = x * scale + shift along axis 1 of `data`; each is float64 [C], or None for 1 and 0."""

    data: ir.Value
    scale: Array | None = None
    shift: Array | None = None


def batch_normalization(node: ir.Node) -> Affine | None:
    """A BatchNormalization of constants in inference.

    scale = gamma / sqrt(variance + epsilon), shift = beta - mean * scale (the operator's definition).
    """
    if node.op_type != "BatchNormalization" or not is_float(node) or attribute(node, "training_mode", 0):
        return None
    if node.inputs[0] is None or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    arrays = [free_constant(value) for value in node.inputs[1:5]]
    gamma, beta, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return Affine(node.inputs[0], scale, beta - mean * scale)


def arithmetic(node: ir.Node) -> Affine | None:
    """x*c, x/c, x+c, x-c and c-x, also with swapped operands, for a scalar or per-channel constant c."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or not is_float(node):
        return None
    for index in (1, 0):
        data, other = node.inputs[1 - index], node.inputs[index]
        array = free_constant(other)
        if data is None or array is None or data.is_initializer() or not keeps_shape(node, data):
            continue
        number = per_channel(array, static_shape(data))
        if number is None:
            continue
        if node.op_type == "Add":
            return Affine(data, shift=number)
        if node.op_type == "Mul":
            return Affine(data, scale=number)
        if node.op_type == "Sub":
            return Affine(data, shift=-number) if index == 1 else Affine(data, -np.ones_like(number), number)
        if index == 1 and np.all(number != 0):
            return Affine(data, scale=1.0 / number)
    return None


def fold(layer: ir.Node, affine: Affine, names: Names) -> bool:
    """Let the Conv, ConvTranspose or Gemm `layer` compute `affine` of its output, by its weights and bias.

    Weights are computed in float64 and rounded once. False, and nothing changed, where they are not constant, came
    with quantization parameters, or would leave the range of float32.
    """
    channels = static_shape(layer.outputs[0])[1]
    weight, bias = layer.inputs[1], layer.inputs[2] if len(layer.inputs) > 2 else None
    beta = attribute(layer, "beta", 1.0)
    if weight is None:
        return False
    new_weight: Array | None = None
    if affine.scale is not None:
        array = free_constant(weight)
        if array is None:
            return False
        new_weight = _scaled(layer, array, affine.scale)
    old_bias = free_constant(bias) if bias is not None else None
    if bias is not None and old_bias is None:
        return False
    new_bias: Array | None = None
    if old_bias is not None or affine.shift is not None:
        start = np.zeros(channels) if old_bias is None else old_bias.astype(np.float64)
        # Gemm multiplies its C by beta; the new one has that inside.
        start = start * beta if layer.op_type == "Gemm" else start
        scale = 1.0 if affine.scale is None else affine.scale
        new_bias = start * scale + (0.0 if affine.shift is None else affine.shift)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = [None if a is None else a.astype(np.float32) for a in (new_weight, new_bias)]
    if any(a is not None and not np.isfinite(a).all() for a in rounded):
        return False
    if rounded[0] is not None:
        set_constant_input(layer, 1, rounded[0], f"{weight.name}_scaled", names)
    if rounded[1] is not None:
        set_constant_input(layer, 2, rounded[1], f"{weight.name}_bias", names)
        if layer.op_type == "Gemm":
            set_attributes(layer, beta=1.0)
    return True


def fold_input(conv: ir.Node, affine: Affine, names: Names) -> bool:
    """Let the Conv `conv` compute `affine` of its input; False, and nothing changed, where that is not the same.

    The scale must be one number: scales that differ between input channels would widen the range of each output
    channel's weights, which int8 pays for. A shift needs a Conv without padding, since it would shift zeros as well.
    """
    weight, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    array = free_constant(weight)
    old_bias = free_constant(bias) if bias is not None else None
    if weight is None or array is None or (bias is not None and old_bias is None):
        return False
    padded = any(attribute(conv, "pads", ())) or attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if affine.shift is not None and padded:
        return False
    wide: Array = array.astype(np.float64)
    new_bias: Array | None = None
    if affine.shift is not None:
        # y = sum over inputs i and places k of w[o, i, k] * (x + shift[i]), group by group
        group = attribute(conv, "group", 1)
        sums = wide.reshape(group, wide.shape[0] // group, wide.shape[1], -1).sum(axis=3)
        moved = np.einsum("goi,gi->go", sums, affine.shift.reshape(group, -1)).reshape(-1)
        new_bias = moved if old_bias is None else moved + old_bias
    if affine.scale is not None:
        if np.ptp(affine.scale) != 0:
            return False
        wide = wide * affine.scale[0]
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = [None if a is None else a.astype(np.float32) for a in (wide, new_bias)]
    if any(a is not None and not np.isfinite(a).all() for a in rounded):
        return False
    if affine.scale is not None and rounded[0] is not None:
        set_constant_input(conv, 1, rounded[0], f"{weight.name}_scaled", names)
    if rounded[1] is not None:
        set_constant_input(conv, 2, rounded[1], f"{weight.name}_bias", names)
    return True


def _scaled(layer: ir.Node, weight: Array, scale: Array) -> Array:
    """The weights whose output channels are multiplied by `scale` [C], in float64."""
    wide: Array = weight.astype(np.float64)
    trailing = (1,) * (wide.ndim - 2)
    if layer.op_type == "Conv":  # [C, inputs / group, ...]
        return wide * scale.reshape(-1, 1, *trailing)
    if layer.op_type == "ConvTranspose":  # [inputs, C / group, ...], the inputs group by group
        group = attribute(layer, "group", 1)
        grouped = wide.reshape(group, wide.shape[0] // group, *wide.shape[1:])
        return np.reshape(grouped * scale.reshape(group, 1, -1, *trailing), wide.shape)
    # Gemm: [inputs, C], or [C, inputs] when transB
    return wide * (scale[:, None] if attribute(layer, "transB", 0) else scale[None, :])
