"""Turns matrix products with constant weights into the 1x1 convolutions that an NPU runs."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import free_constant, is_float, keeps_shape, per_channel
from engine.graph.passes.rewriting import (
    RewritePass,
    absorbable,
    absorbed,
    maker,
    renewed_constant,
    reshape_constant,
)
from engine.graph.query import Array, attribute, constant, new_node, replace, sole_consumer, static_shape


class MatMulAddToGemm(RewritePass):
    """MatMul of two matrices, then Add of a constant that fits its shape, in either order → Gemm."""

    operators: ClassVar[frozenset[str]] = frozenset({"Add"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the pair that ends in the Add `node`."""
        for product, other in (tuple(node.inputs), tuple(node.inputs)[::-1]):
            multiply = absorbed(product, "MatMul")
            if multiply is None or product is None or other is None or constant(other) is None or not is_float(node):
                continue
            if any(v is None or len(static_shape(v)) != 2 for v in multiply.inputs) or not keeps_shape(node, product):
                continue
            gemm = new_node(
                graph,
                "Gemm",
                [*multiply.inputs, other],
                name=node.outputs[0].name or "",
                dtype=node.outputs[0].dtype,
                shape=static_shape(product),
                origins=[multiply, node],
            )
            replace(graph, [multiply, node], [gemm], gemm.outputs[0])
            return True
        return False


@dataclasses.dataclass(frozen=True)
class _Dense:
    """y = data @ weight.T + bias, weight [N, K] and bias [N] in float64; `nodes` in execution order."""

    data: ir.Value
    weight: Array
    bias: Array | None
    nodes: tuple[ir.Node, ...]


class DenseToConv(RewritePass):
    """Gemm or MatMul of a matrix, or of a vector of any rank, with constant weights → Reshape, 1x1 Conv, Reshape.

    alpha, beta, transB and C are worked into the weights and bias; an Add of a constant behind a MatMul becomes the
    bias. Left as they are: transA, a C that is computed or differs between rows, weights that came with quantization
    parameters. The rows of a matrix are the batch of the convolution.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Gemm", "MatMul"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the product `node`, and the Add behind it."""
        dense = _gemm(node) if node.op_type == "Gemm" else _matmul(node)
        if dense is None:
            return False
        source, output = static_shape(dense.data), dense.nodes[-1].outputs[0]
        result = static_shape(output)
        count, inputs = dense.weight.shape
        rows = math.prod(source[:-1])
        if 0 in (count, inputs, rows) or (len(source) != 2 and rows != 1):
            return False
        with np.errstate(over="ignore"):
            weight = dense.weight.astype(np.float32)[:, :, None, None]
            bias = None if dense.bias is None else dense.bias.astype(np.float32)
        if not np.isfinite(weight).all() or not (bias is None or np.isfinite(bias).all()):
            return False

        name, old_weight = output.name, node.inputs[1]
        base = old_weight.name if old_weight is not None else name
        conv_inputs = [renewed_constant(old_weight, weight, f"{base}_conv", names)]
        if bias is not None:
            # The last operand that is no product: C of a Gemm, either side of an Add.
            old_bias = next(v for v in reversed(dense.nodes[-1].inputs) if v is not None and v.is_initializer())
            conv_inputs.append(renewed_constant(old_bias, bias, f"{base}_bias", names))

        def reshape(value: ir.Value, shape: tuple[int, ...], called: str) -> ir.Node:
            target = names.constant(f"{called}_shape", reshape_constant(static_shape(value), shape))
            return new_node(
                graph, "Reshape", [value, target], name=called, dtype=output.dtype, shape=shape, origins=dense.nodes
            )

        first = reshape(dense.data, (rows, inputs, 1, 1), names.fresh(f"{name}_image"))
        conv = new_node(
            graph,
            "Conv",
            [first.outputs[0], *conv_inputs],
            attributes={"kernel_shape": [1, 1]},
            name=names.fresh(f"{name}_conv"),
            dtype=output.dtype,
            shape=(rows, count, 1, 1),
            origins=dense.nodes,
        )
        last = reshape(conv.outputs[0], result, name or "")
        replace(graph, dense.nodes, [first, conv, last], last.outputs[0])
        return True


class MoveReshapeBehindActivation(RewritePass):
    """Conv, Reshape, activation → Conv, activation, Reshape: the two fuse to one layer, and Reshapes meet and cancel.

    Activations are Relu, Clip, HardSwish, HardSigmoid, Sigmoid, Tanh, LeakyRelu, Elu, Selu, Softplus and Gelu.
    """

    operators: ClassVar[frozenset[str]] = frozenset(
        {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Softplus", "Gelu"}
    )

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Let the activation `node` change places with the Reshape before it."""
        reshape = absorbed(node.inputs[0], "Reshape")
        if reshape is None or reshape.inputs[0] is None or reshape.inputs[1] is None:
            return False
        data, output = reshape.inputs[0], node.outputs[0]
        # Only a pair that can run as one layer is worth a new tensor.
        if maker(data, "Conv", "ConvTranspose") is None or not absorbable(data):
            return False
        activation = new_node(
            graph,
            node.op_type,
            [data, *node.inputs[1:]],
            attributes={name: attr.value for name, attr in node.attributes.items()},
            name=names.fresh(f"{output.name}_image"),
            dtype=data.dtype,
            shape=static_shape(data),
            origins=[node],
        )
        moved = new_node(
            graph,
            "Reshape",
            [activation.outputs[0], reshape.inputs[1]],
            name=output.name or "",
            dtype=output.dtype,
            shape=static_shape(output),
            origins=[reshape],
        )
        replace(graph, [reshape, node], [activation, moved], moved.outputs[0])
        return True


def _gemm(node: ir.Node) -> _Dense | None:
    weight = free_constant(node.inputs[1])
    data = node.inputs[0]
    if data is None or data.is_initializer() or weight is None or not is_float(node) or attribute(node, "transA", 0):
        return None
    matrix = weight.astype(np.float64) * attribute(node, "alpha", 1.0)
    matrix = matrix if attribute(node, "transB", 0) else matrix.T
    added = node.inputs[2] if len(node.inputs) > 2 else None
    if added is None:
        return _Dense(data, matrix, None, (node,))
    array = free_constant(added)
    bias = None if array is None else per_channel(array, static_shape(node.outputs[0]))
    return None if bias is None else _Dense(data, matrix, bias * attribute(node, "beta", 1.0), (node,))


def _matmul(node: ir.Node) -> _Dense | None:
    weight = free_constant(node.inputs[1])
    data = node.inputs[0]
    if data is None or data.is_initializer() or weight is None or weight.ndim != 2 or not is_float(node):
        return None
    matrix, output = weight.astype(np.float64).T, node.outputs[0]
    add = sole_consumer(output) if absorbable(output) else None
    if add is not None and add.op_type == "Add" and add.domain == "" and keeps_shape(add, output):
        array = free_constant(add.inputs[0] if add.inputs[1] is output else add.inputs[1])
        shape = static_shape(output)
        bias = None if array is None else per_channel(array, shape, len(shape) - 1)
        if bias is not None:
            return _Dense(data, matrix, bias, (node, add))
    return _Dense(data, matrix, None, (node,))
