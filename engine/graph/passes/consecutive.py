"""Joins a Reshape or Transpose with the one before it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.rewriting import (
    RewritePass,
    has_given_quantization,
    maker,
    set_attributes,
    set_constant_input,
)
from engine.graph.provenance import inherit
from engine.graph.query import Array, attribute, constant, static_shape


class FuseReshapes(RewritePass):
    """Reshape(Reshape(x)) → Reshape(x), with the second shape; what is left of the first falls to dead-node removal.

    The batch stays copied (0) or computed (-1) where it was, and is copied where both shapes agree on it.
    """

    operators: ClassVar[frozenset[str]] = frozenset({"Reshape"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Let the Reshape `node` read what the Reshape before it reads."""
        middle = node.inputs[0]
        first = maker(middle, "Reshape")
        if first is None or middle is None or has_given_quantization(middle) or first.inputs[0] is None:
            return False
        source, result = static_shape(first.inputs[0]), static_shape(node.outputs[0])
        wanted, earlier = constant(node.inputs[1]), constant(first.inputs[1])
        if wanted is None or earlier is None or 0 in source or not result:
            return False
        target = _joined(wanted, earlier, source, result)
        if not np.array_equal(target, wanted):
            set_constant_input(node, 1, target, f"{node.outputs[0].name}_shape", names)
        node.attributes.pop("allowzero", None)
        node.replace_input_with(0, first.inputs[0])
        inherit(node, first)
        return True


class FuseTransposes(RewritePass):
    """Transpose(Transpose(x)) → Transpose(x) in the joint order, which may be a no-op."""

    operators: ClassVar[frozenset[str]] = frozenset({"Transpose"})

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Let the Transpose `node` read what the Transpose before it reads."""
        middle = node.inputs[0]
        first = maker(middle, "Transpose")
        if first is None or middle is None or has_given_quantization(middle) or first.inputs[0] is None:
            return False
        backwards = range(len(static_shape(middle)) - 1, -1, -1)
        order = attribute(first, "perm", backwards)
        set_attributes(node, perm=[order[axis] for axis in attribute(node, "perm", backwards)])
        node.replace_input_with(0, first.inputs[0])
        inherit(node, first)
        return True


def _joined(wanted: Array, earlier: Array, source: tuple[int, ...], result: tuple[int, ...]) -> Array:
    """The shape input that takes `source` to `result` as the shape inputs `earlier` and then `wanted` do."""
    target = np.array(result, dtype=np.int64)
    target[wanted == -1] = -1
    if wanted[0] == -1:
        return target
    if wanted[0] == 0 and earlier.size and earlier[0] == -1 and -1 not in target:
        target[0] = -1
    elif source and source[0] == result[0]:
        target[0] = 0
    return target
