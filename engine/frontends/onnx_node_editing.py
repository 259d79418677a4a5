"""What the ONNX front end's rewriters share: reading a node strictly, changing it, and adding steps beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.names import Names
from engine.graph.provenance import label
from engine.graph.query import Array, new_node

CANONICAL_OPSET = 18
"""The opset that models are brought to; those of this opset or a newer one stay as they are."""


class Scope:
    """What the upgraders share while they work on one model: its opset, its names, and the constants they added."""

    def __init__(self, model: ir.Model, version: int) -> None:
        self.version = version
        self._names = Names(model.graph)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def name(self, base: str) -> str:
        """`base`, numbered where any graph of the model has that name: an inner name may not hide an outer one."""
        return self._names.fresh(base)

    def constant(self, name: str, array: Array) -> ir.Value:
        """An initializer of the outermost graph, shared by all who ask for the same content.

        A model repeats a few axes and pads many times over; one constant each keeps large models small and quick.
        """
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._names.constant(name, array)
        return self._constants[key]

    def integers(self, name: str, values: Sequence[int]) -> ir.Value:
        """`values` as a 1-D int64 constant."""
        return self.constant(name, np.asarray(values, dtype=np.int64).reshape(-1))

    def number(self, name: str, value: float, like: ir.Value) -> ir.Value:
        """`value` as a scalar of the element type of `like`, float32 where that is not known."""
        return self.constant(name, np.array(value, dtype=(like.dtype or ir.DataType.FLOAT).numpy()))


Upgrader = Callable[[ir.Node, Scope], None]
"""Rewrites one node in place, with the same result."""


def fault(node: ir.Node, what: str, hint: str = "") -> ModelError:
    return ModelError(
        f"{node.op_type} cannot be brought to opset {CANONICAL_OPSET}: {what}", where=label(node), hint=hint
    )


def first_input(node: ir.Node) -> ir.Value:
    value = input_at(node, 0)
    if value is None:
        raise fault(node, "it has no input")
    return value


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Give `node` the `inputs`, without the absent ones at the end."""
    count = max(i + 1 for i, value in enumerate(inputs) if value is not None)
    node.resize_inputs(count)
    for index in range(count):
        node.replace_input_with(index, inputs[index])


def set_attributes(node: ir.Node, **attributes: int | str | Sequence[int]) -> None:
    for name, value in attributes.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, value)


def pop_list(node: ir.Node, name: str, kind: type = int) -> list[Any] | None:
    """Remove an attribute and return its numbers, a lone one as a list; None where the node does not have it."""
    attr = node.attributes.pop(name, None)
    if attr is None:
        return None
    items = list(attr.value) if isinstance(attr.value, (list, tuple)) else [attr.value]
    if not all(isinstance(item, (int, kind)) for item in items):
        raise fault(node, f"its attribute {name!r} is of the wrong type")
    return items


def pop_number(node: ir.Node, name: str, kind: type, default: Any = None) -> Any:
    """Remove an attribute and return its number, or `default` where the node does not have it."""
    items = pop_list(node, name, kind)
    if items is not None and len(items) != 1:
        raise fault(node, f"its attribute {name!r} is not one number")
    return default if items is None else items[0]


def required_list(node: ir.Node, name: str, kind: type = int) -> list[Any]:
    value = pop_list(node, name, kind)
    if value is None:
        raise fault(node, f"it lacks the attribute {name!r}")
    return value


def drop_outputs(node: ir.Node, why: str) -> None:
    """Leave `node` its first output alone; the others must be unread."""
    for value in node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            raise fault(node, f"its output {value.name!r} is used, {why}", "export the model for inference")
    node.resize_outputs(1)


def step_node(
    like: ir.Node,
    scope: Scope,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shape: ir.Shape | None,
    **attributes: Any,
) -> ir.Node:
    """A node that computes a step of `like` in its element type, not yet in the graph."""
    graph = like.graph
    assert isinstance(graph, ir.Graph)
    name = scope.name(f"{like.outputs[0].name}/{op_type}")
    dtype = first_input(like).dtype or like.outputs[0].dtype
    node = new_node(graph, op_type, inputs, attributes=attributes, name=name, dtype=dtype, shape=(), origins=[like])
    node.outputs[0].shape = shape if dtype is not None else None  # a shape without a type cannot be written to a file
    return node


def insert_before(
    node: ir.Node,
    scope: Scope,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shape: ir.Shape | None,
    **attributes: Any,
) -> ir.Value:
    """The result of a new node that runs just before `node`."""
    step = step_node(node, scope, op_type, inputs, shape, **attributes)
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, step)
    return step.outputs[0]
