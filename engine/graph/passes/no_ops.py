"""Takes out nodes that return their input unchanged."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.passes.rewriting import RewritePass, bypass
from engine.graph.query import attribute, constant, static_shape

# From here on an `end` of Slice means "to the end", whatever the size of the axis.
_OPEN_END = 2**31 - 1
_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Pow": 1.0, "Sub": 0.0}


class RemoveNoOps(RewritePass):
    """Each of these becomes its first input, to the bit:

    - Identity; Dropout whose mask nobody reads and that is not in training mode; Cast to the type at hand
    - Reshape, Squeeze, Unsqueeze, Flatten, Expand, Tile to the shape at hand; Transpose that keeps the order
    - Slice that takes everything (the batch only with an open end); Pad by nothing; Resize by 1
    - Concat, Max, Min, Sum, Mean of one tensor; Split into one
    - MaxPool and AveragePool of single elements
    - Mul, Div and Pow by ones; Sub of zeros

    A node between a graph input and a graph output stays, since both keep their names.
    """

    operators: ClassVar[frozenset[str]] = frozenset(
        {
            "Identity",
            "Dropout",
            "Cast",
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "Flatten",
            "Expand",
            "Tile",
            "Transpose",
            "Slice",
            "Pad",
            "Resize",
            "Concat",
            "Max",
            "Min",
            "Sum",
            "Mean",
            "Split",
            "MaxPool",
            "AveragePool",
            "Mul",
            "Div",
            "Pow",
            "Sub",
        }
    )

    def rewrite(self, graph: ir.Graph, node: ir.Node, names: Names) -> bool:
        """Take `node` out if it changes nothing."""
        data, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.op_type == "Mul" and data is not None and data.is_initializer():
            data = node.inputs[1]
        if data is None or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            return False
        if data.dtype != output.dtype or static_shape(data) != static_shape(output):
            return False
        return _changes_nothing(node, data) and bypass(graph, node, data)


def _changes_nothing(node: ir.Node, data: ir.Value) -> bool:
    """Whether `node`, whose output has the shape and type of `data`, returns `data`."""
    op = node.op_type
    if op in ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Split"):
        return True
    if op in ("Concat", "Max", "Min", "Sum", "Mean"):
        return len(node.inputs) == 1
    if op == "Dropout":
        training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return len(node.inputs) < 3 or node.inputs[2] is None or (training is not None and not training.any())
    if op == "Transpose":
        rank = len(static_shape(data))
        return tuple(attribute(node, "perm", range(rank - 1, -1, -1))) == tuple(range(rank))
    if op == "Slice":
        return _takes_everything(node, len(static_shape(data)))
    if op == "Pad":
        pads = constant(node.inputs[1])
        return pads is not None and not pads.any()
    if op == "Resize":
        return _resizes_by_one(node, static_shape(data))
    if op in ("MaxPool", "AveragePool"):
        return (
            math.prod(attribute(node, "kernel_shape")) == 1
            and math.prod(attribute(node, "strides", ())) == 1
            and not any(attribute(node, "pads", ()))
        )
    # The neutral operand is the second one; a product has it on either side.
    other = node.inputs[0] if data is node.inputs[1] else node.inputs[1]
    array = constant(other)
    return array is not None and bool(np.all(array == _NEUTRAL[op]))


def _takes_everything(node: ir.Node, rank: int) -> bool:
    """Whether a Slice that keeps the shape also keeps the order, for any size of the batch."""
    starts, ends, axes, steps = (constant(v) for v in [*node.inputs[1:], None, None][:4])
    if starts is None or ends is None:
        return False
    given = list(node.inputs[3:5])
    if any(value is not None and constant(value) is None for value in given):
        return False
    steps = np.ones_like(starts) if steps is None else steps
    axes = np.arange(len(starts)) if axes is None else axes
    if (steps < 0).any():
        return False
    batch = [i for i, axis in enumerate(axes) if axis in (0, -rank)]
    return all(starts[i] == 0 and ends[i] >= _OPEN_END and steps[i] == 1 for i in batch)


def _resizes_by_one(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Whether a Resize that keeps the shape samples every element at its own place."""
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    inputs = [*node.inputs, None, None, None]
    scales, sizes = constant(inputs[2]), constant(inputs[3])
    if scales is not None and scales.size:
        return bool(np.all(scales == 1.0))
    return sizes is not None and attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
