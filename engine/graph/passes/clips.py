"""Recognises clipping that is spelled with Min, Max and Relu."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import is_float, keeps_shape, scalar
from engine.graph.passes.rewriting import RewritePass, absorbed
from engine.graph.query import new_node, replace, static_shape


class RecogniseClip(RewritePass):
    """With scalar constants low <= high, operands in either order:

    - Min(Max(x, low), high), Max(Min(x, high), low) → Clip(x, low, high)
    - Min(Relu(x), high), Relu(Min(x, high)) → Clip(x, 0, high)
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Min", "Max", "Relu"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the pair of bounds that ends in `node`."""
        outer = _bound(node)
        inner_node = absorbed(outer[0], "Min", "Max", "Relu") if outer is not None else None
        inner = _bound(inner_node) if inner_node is not None else None
        if outer is None or inner_node is None or inner is None:
            return False
        low, high = max(outer[1], inner[1]), min(outer[2], inner[2])
        # Two lower bounds, or bounds that cross, are not a clip.
        if not -math.inf < low <= high < math.inf:
            return False
        data, output = inner[0], node.outputs[0]
        clip = new_node(
            graph,
            "Clip",
            [
                data,
                names.constant(f"{output.name}_min", np.array(low, dtype=np.float32)),
                names.constant(f"{output.name}_max", np.array(high, dtype=np.float32)),
            ],
            name=output.name or "",
            dtype=output.dtype,
            shape=static_shape(output),
            origins=[inner_node, node],
        )
        replace(graph, [inner_node, node], [clip], clip.outputs[0])
        return True


def _bound(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    """(x, lowest, highest) of a Relu, or of a Min or Max with a scalar constant."""
    if not is_float(node) or node.inputs[0] is None:
        return None
    if node.op_type == "Relu":
        return node.inputs[0], 0.0, math.inf
    if len(node.inputs) != 2 or node.inputs[1] is None:
        return None
    data, number = node.inputs[0], scalar(node.inputs[1])
    if number is None:
        data, number = node.inputs[1], scalar(node.inputs[0])
    if number is None or not keeps_shape(node, data):
        return None
    return (data, -math.inf, number) if node.op_type == "Min" else (data, number, math.inf)
