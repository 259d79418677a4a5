"""Recognises means that are spelled as a sum and a scaling."""

from __future__ import annotations

import math
from typing import ClassVar

import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import close, scaled
from engine.graph.passes.rewriting import RewritePass, absorbed
from engine.graph.query import attribute, constant, new_node, replace, static_shape


class RecogniseMean(RewritePass):
    """ReduceSum(x) * (1/n) or / n, over n elements each → ReduceMean(x), for any constant axes.

    A sum of many float16 numbers leaves their range long before their mean does.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Mul", "Div"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the sum that `node` scales."""
        found = scaled(node)
        total = absorbed(found[0], "ReduceSum") if found is not None else None
        if found is None or total is None or total.inputs[0] is None:
            return False
        axes = total.inputs[1] if len(total.inputs) > 1 else None
        source, result = static_shape(total.inputs[0]), static_shape(total.outputs[0])
        count = math.prod(source) // max(math.prod(result), 1)
        if (axes is not None and constant(axes) is None) or count < 1 or not close(found[1] * count, 1.0):
            return False
        output = node.outputs[0]
        attributes = {name: attribute(total, name, default) for name, default in _ATTRIBUTES.items()}
        mean = new_node(
            graph,
            "ReduceMean",
            [total.inputs[0], axes],
            attributes=attributes,
            name=output.name or "",
            dtype=output.dtype,
            shape=static_shape(output),
            origins=[total, node],
        )
        replace(graph, [total, node], [mean], mean.outputs[0])
        return True


_ATTRIBUTES = {"keepdims": 1, "noop_with_empty_axes": 0}
