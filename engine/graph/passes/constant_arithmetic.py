"""Spells arithmetic with constants as Add and Mul, which convolutions absorb and NPUs run."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import FLOAT, free_constant, is_float, keeps_shape
from engine.graph.passes.rewriting import RewritePass, bypass
from engine.graph.query import Array, new_node, replace, static_shape


class SimplifyConstantArithmetic(RewritePass):
    """For float32 and a constant c:

    - x - c → x + (-c)
    - x / c → x * (1/c) where every element of c is a power of two, so that both are exact
    - x + 0 → x, for any shape of the zeros
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Sub", "Div", "Add"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Respell `node`, or take it out."""
        if node.op_type == "Add":
            return _drop_zeros(graph, node)
        number = _divisor(node)
        if number is None:
            return False
        if node.op_type == "Sub":
            _respell(graph, node, "Add", -number, names)
            return True
        mantissas, _ = np.frexp(number)
        if not np.all(np.abs(mantissas) == 0.5) or not _has_inverse(number):
            return False
        _respell(graph, node, "Mul", 1.0 / number, names)
        return True


class DivisionToMultiplication(RewritePass):
    """For float32 and a constant c without zeros: x / c → x * (1/c), off by the rounding of 1/c."""

    operators: ClassVar[frozenset[str]] = frozenset({"Div"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Respell `node`."""
        number = _divisor(node)
        if number is None or not _has_inverse(number):
            return False
        _respell(graph, node, "Mul", (1.0 / number.astype(np.float64)).astype(np.float32), names)
        return True


def _divisor(node: ir.Node) -> Array | None:
    """The second operand if it is a constant, not the first, and all is float32."""
    if not is_float(node) or node.inputs[0] is None or node.inputs[0].is_initializer():
        return None
    return free_constant(node.inputs[1])


def _has_inverse(number: Array) -> bool:
    """Whether 1/c is a normal float32 for every element c."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.abs(1.0 / number.astype(np.float32))
    info = np.finfo(np.float32)
    return bool(np.all((inverse >= info.tiny) & (inverse <= info.max)))


def _respell(graph: ir.Graph, node: ir.Node, op_type: str, number: Array, names: Names) -> None:
    output, operand = node.outputs[0], node.inputs[1]
    other = names.constant(f"{operand.name if operand is not None else output.name}_{op_type.lower()}", number)
    new = new_node(
        graph,
        op_type,
        [node.inputs[0], other],
        name=output.name or "",
        dtype=output.dtype,
        shape=static_shape(output),
        origins=[node],
    )
    replace(graph, [node], [new], new.outputs[0])


def _drop_zeros(graph: ir.Graph, node: ir.Node) -> bool:
    for data, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        zeros = free_constant(other)
        if data is None or zeros is None or zeros.any() or data.dtype != FLOAT or not keeps_shape(node, data):
            continue
        return bypass(graph, node, data)
    return False
