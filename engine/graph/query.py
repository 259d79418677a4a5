"""Questions that passes, layers and the simulator ask of a graph, and the few edits that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.names import Names
from engine.graph.provenance import inherit

Array = np.ndarray[Any, Any]


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initializer, or None when `value` is computed at run time or absent."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def static_shape(value: ir.Value) -> tuple[int, ...]:
    """The dimensions of `value`. Raises ValueError when one is not a number."""
    if value.shape is None or not value.shape.is_static():
        raise ValueError(f"tensor {value.name!r} has no static shape")
    return tuple(int(d) for d in value.shape.dims)  # type: ignore[arg-type]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The Python value of an attribute, or `default` where the node does not give it."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def tensors(graph: ir.Graph) -> list[ir.Value]:
    """The graph's inputs, then what its nodes make, in execution order; absent outputs are left out."""
    return [v for v in [*graph.inputs, *(v for node in graph for v in node.outputs)] if v.name]


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, once; None when others read it or it is a graph output."""
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    return next(iter(uses)).node


def fresh_name(graph: ir.Graph, base: str) -> str:
    """`base`, with a number behind it where it is taken; `Names` is cheaper for more than one."""
    return Names(graph).fresh(base)


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Register `array` as an initializer under a fresh name made from `name`."""
    return Names(graph).constant(name, array)


def drop_unused_constants(graph: ir.Graph) -> int:
    """Remove initializers that nothing reads; returns how many."""
    outputs = set(graph.outputs)
    unused = [name for name, value in graph.initializers.items() if not value.uses() and value not in outputs]
    for name in unused:
        del graph.initializers[name]
    return len(unused)


def new_attribute(name: str, value: Any) -> ir.Attr:
    """The attribute that holds a Python value; lists of numbers without a slow look for what else they may be."""
    if isinstance(value, (list, tuple)) and value:
        if all(type(item) is int for item in value):
            return ir.AttrInt64s(name, value)
        if all(type(item) is float for item in value):
            return ir.AttrFloat32s(name, value)
    return ir.convenience.convert_attribute(name, value)


def new_node(
    graph: ir.Graph,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    attributes: dict[str, Any] | None = None,
    name: str,
    dtype: ir.DataType | None,
    shape: Sequence[int],
    origins: Sequence[ir.Node],
) -> ir.Node:
    """A one-output node of the standard domain whose output is called `name`; the caller inserts it."""
    value = ir.val(name, dtype=dtype, shape=ir.Shape(list(shape)))
    given = [new_attribute(key, item) for key, item in (attributes or {}).items()]
    node = ir.Node("", op_type, list(inputs), given, outputs=[value])
    return inherit(node, *origins)


def replace(graph: ir.Graph, old: Sequence[ir.Node], new: Sequence[ir.Node], result: ir.Value) -> None:
    """Put the nodes `new` where the last of `old` stands; `result` takes over the name and readers of its output.

    `old` must be in execution order, its last node has one output that others read, and every other output of `old`
    is read within `old` only.
    """
    last = old[-1]
    target = last.outputs[0]
    graph.insert_before(last, list(new))
    result.name, target.name = target.name, None
    if result.dtype is None and target.dtype is not None:
        result.dtype = target.dtype
    result.shape = result.shape or target.shape
    result.metadata_props.update(target.metadata_props)
    target.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(list(reversed(old)), safe=True)
