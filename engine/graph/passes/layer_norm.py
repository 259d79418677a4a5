"""Recognises layer normalization that is spelled out in elementary operators."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import free_constant, is_float, keeps_shape, offset, scalar
from engine.graph.passes.rewriting import RewritePass, absorbable, absorbed, has_given_quantization
from engine.graph.query import Array, attribute, constant, new_node, replace, sole_consumer, static_shape


class RecogniseLayerNormalization(RewritePass):
    """d / Sqrt(ReduceMean(d * d) + epsilon) with d = x - ReduceMean(x) → LayerNormalization(x).

    Both means are over the same last axes. d * d is Mul or Pow, the root may be multiplied as its Reciprocal, and
    then the scale (Mul) and shift (Add) of constants in the shape of those axes are taken in.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Div", "Mul"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the normalization whose quotient is `node`."""
        found = _quotient(node)
        if found is None:
            return False
        data, axis, epsilon, nodes = found
        normalized = static_shape(data)[axis:]
        gamma, beta = np.ones(normalized, dtype=np.float32), None
        scale = _next(node, "Mul", data, normalized)
        if scale is not None:
            gamma = scale[1]
            nodes.append(scale[0])
        shift = _next(nodes[-1], "Add", data, normalized)
        if shift is not None:
            beta = shift[1]
            nodes.append(shift[0])
        output = nodes[-1].outputs[0]
        inputs = [data, names.constant(f"{output.name}_scale", gamma)]
        if beta is not None:
            inputs.append(names.constant(f"{output.name}_shift", beta))
        norm = new_node(
            graph,
            "LayerNormalization",
            inputs,
            attributes={"axis": axis - len(static_shape(data)), "epsilon": epsilon},
            name=output.name or "",
            dtype=output.dtype,
            shape=static_shape(output),
            origins=nodes,
        )
        replace(graph, nodes, [norm], norm.outputs[0])
        return True


def _quotient(node: ir.Node) -> tuple[ir.Value, int, float, list[ir.Node]] | None:
    """(x, first normalized axis, epsilon, nodes in execution order) of the quotient `node`."""
    if not is_float(node):
        return None
    for centred, divisor in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        tail: list[ir.Node] = [node]
        if node.op_type == "Mul":
            reciprocal = absorbed(divisor, "Reciprocal")
            if reciprocal is None:
                continue
            tail.insert(0, reciprocal)
            divisor = reciprocal.inputs[0]
        root = absorbed(divisor, "Sqrt")
        add = absorbed(root.inputs[0], "Add") if root is not None else None
        shifted = offset(add) if add is not None else None
        variance = absorbed(shifted[0], "ReduceMean") if shifted is not None else None
        square = absorbed(variance.inputs[0], "Mul", "Pow") if variance is not None else None
        subtract = centred.producer() if centred is not None else None
        if root is None or add is None or shifted is None or variance is None or square is None or subtract is None:
            continue
        if subtract.op_type != "Sub" or not is_float(subtract) or not _squares(square, subtract.outputs[0]):
            continue
        readers = {use.node for use in subtract.outputs[0].uses()}
        missed = subtract.outputs[0].is_graph_output() or has_given_quantization(subtract.outputs[0])
        data = subtract.inputs[0]
        mean = absorbed(subtract.inputs[1], "ReduceMean")
        if missed or readers != {square, node} or mean is None or data is None or mean.inputs[0] is not data:
            continue
        first = _first_axis(mean)
        if first is not None and first == _first_axis(variance) and shifted[1] > 0:
            return data, first, shifted[1], [mean, subtract, square, variance, add, root, *tail]
    return None


def _squares(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is value and node.inputs[1] is value
    return node.inputs[0] is value and scalar(node.inputs[1]) == 2.0 and keeps_shape(node, value)


def _first_axis(mean: ir.Node) -> int | None:
    """The first of the last axes that a ReduceMean with keepdims is over; None if it is over others."""
    if mean.inputs[0] is None or not attribute(mean, "keepdims", 1) or len(mean.inputs) < 2:
        return None
    axes, rank = constant(mean.inputs[1]), len(static_shape(mean.inputs[0]))
    if axes is None or not axes.size:
        return None
    chosen = sorted({int(axis) % rank for axis in axes})
    return chosen[0] if chosen == list(range(chosen[0], rank)) else None


def _next(node: ir.Node, op_type: str, data: ir.Value, normalized: tuple[int, ...]) -> tuple[ir.Node, Array] | None:
    """The Mul or Add that alone reads `node`, and its constant in the shape of the normalized axes."""
    value = node.outputs[0]
    reader = sole_consumer(value) if absorbable(value) else None
    if reader is None or reader.op_type != op_type or not keeps_shape(reader, data):
        return None
    array = free_constant(reader.inputs[0] if reader.inputs[1] is value else reader.inputs[1])
    if array is None:
        return None
    aligned = (1,) * (len(static_shape(data)) - array.ndim) + array.shape
    leading = len(aligned) - len(normalized)
    if any(size != 1 for size in aligned[:leading]):
        return None
    return reader, np.broadcast_to(array.reshape(aligned[leading:]), normalized).astype(np.float32)
