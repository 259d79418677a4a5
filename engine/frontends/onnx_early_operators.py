"""Operators that early exporters used under the standard domain and that ONNX Runtime runs up to opset 9."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.frontends.onnx_node_editing import (
    Scope,
    fault,
    first_input,
    insert_before,
    pop_list,
    pop_number,
    required_list,
    set_attributes,
    set_inputs,
)


def _finish(node: ir.Node, op_type: str, *inputs: ir.Value) -> None:
    """Let `node` be the last step of what it stood for."""
    node.op_type = op_type
    node.attributes.clear()
    set_inputs(node, inputs)


def affine(node: ir.Node, scope: Scope) -> None:
    """Affine: alpha * x + beta. ImageScaler: scale * x + bias, a bias a channel. Scale: scale * x."""
    x = first_input(node)
    factor = float(pop_number(node, "alpha" if node.op_type == "Affine" else "scale", float, 1.0))
    offset = pop_list(node, "bias" if node.op_type == "ImageScaler" else "beta", float)
    if offset is None:
        _finish(node, "Mul", x, scope.number("scale", factor, x))
        return
    scaled = x if factor == 1 else insert_before(node, scope, "Mul", [x, scope.number("scale", factor, x)], x.shape)
    bias = np.array(offset, dtype=(x.dtype or ir.DataType.FLOAT).numpy())
    _finish(node, "Add", scaled, scope.constant("bias", bias.reshape(-1, 1, 1) if bias.size > 1 else bias.reshape(())))


def scaled_activation(node: ir.Node, scope: Scope) -> None:
    """ParametricSoftplus: alpha * softplus(beta * x). ScaledTanh: alpha * tanh(beta * x)."""
    x = inner = first_input(node)
    # Without the attributes ONNX Runtime refuses ParametricSoftplus and ScaledTanh alike.
    alpha, beta = float(required_list(node, "alpha", float)[0]), float(required_list(node, "beta", float)[0])
    if beta != 1:
        inner = insert_before(node, scope, "Mul", [x, scope.number("scale", beta, x)], x.shape)
    activation = "Tanh" if node.op_type == "ScaledTanh" else "Softplus"
    _finish(node, "Mul", insert_before(node, scope, activation, [inner], x.shape), scope.number("scale", alpha, x))


def crop(node: ir.Node, scope: Scope) -> None:
    """Crop N,C,H,W by the border left, top, right, bottom, or to the size `scale` (height, width) from left, top."""
    border, size = required_list(node, "border"), pop_list(node, "scale")
    if len(border) != 4 or (size and len(size) != 2):
        raise fault(node, "its border must be four numbers and its scale two")
    left, top, right, bottom = border
    whole = np.iinfo(np.int64).max
    ends = [top + size[0], left + size[1]] if size else [-bottom or whole, -right or whole]
    bounds = (("starts", [top, left]), ("ends", ends), ("axes", [2, 3]))
    _finish(node, "Slice", first_input(node), *(scope.integers(name, values) for name, values in bounds))


def mean_variance_normalization(node: ir.Node, scope: Scope) -> None:
    """Until 8 on N,C,H,W only, over a channel or over everything, with the division by the deviation optional."""
    x = first_input(node)
    axes = [0, 1, 2, 3] if pop_number(node, "across_channels", int, 0) else [0, 2, 3]
    if pop_number(node, "normalize_variance", int, 1):
        set_attributes(node, axes=axes)
        return
    _finish(node, "Sub", x, insert_before(node, scope, "ReduceMean", [x, scope.integers("axes", axes)], None))


def dynamic_slice(node: ir.Node, scope: Scope) -> None:
    node.op_type = "Slice"
