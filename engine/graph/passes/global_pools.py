"""Recognises pooling over the whole image that is spelled as a reduction."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.matching import is_float
from engine.graph.passes.rewriting import RewritePass, reshape_constant
from engine.graph.query import attribute, constant, new_node, replace, static_shape

_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


class RecogniseGlobalPool(RewritePass):
    """For float32 images [N, C, H, W] (or volumes), over all axes behind the channels:

    - ReduceMean → GlobalAveragePool, ReduceMax → GlobalMaxPool
    - without keepdims the same, followed by Reshape

    Tensors of rank 3 stay, since there the last axis is as often the features of a sequence.
    """

    operators: ClassVar[frozenset[str]] = frozenset(_POOLS)

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Replace the reduction `node`."""
        data, output = node.inputs[0], node.outputs[0]
        if data is None or not is_float(node) or data.dtype != output.dtype:
            return False
        source, axes = static_shape(data), constant(node.inputs[1]) if len(node.inputs) > 1 else None
        rank = len(source)
        if rank < 4 or axes is None or {int(axis) % rank for axis in axes} != set(range(2, rank)):
            return False
        pooled = (*source[:2], *[1] * (rank - 2))
        keeps = bool(attribute(node, "keepdims", 1))
        pool = new_node(
            graph,
            _POOLS[node.op_type],
            [data],
            name=(output.name or "") if keeps else names.fresh(f"{output.name}_pool"),
            dtype=output.dtype,
            shape=pooled,
            origins=[node],
        )
        new = [pool]
        if not keeps:
            result = static_shape(output)
            shape = names.constant(f"{output.name}_shape", reshape_constant(pooled, result))
            new.append(
                new_node(
                    graph,
                    "Reshape",
                    [pool.outputs[0], shape],
                    name=output.name or "",
                    dtype=output.dtype,
                    shape=result,
                    origins=[node],
                )
            )
        replace(graph, [node], new, new[-1].outputs[0])
        return True
