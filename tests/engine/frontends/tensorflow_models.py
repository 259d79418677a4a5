"""Writes small frozen TensorFlow graphs node by node, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.frontends.tensorflow.schema import CLASSES

TYPES = {"float32": 1, "int32": 3, "uint8": 4, "string": 7, "int64": 9, "bool": 10}


class Function:
    """Names a function in an attribute."""

    def __init__(self, name: str) -> None:
        self.name = name


def add(graph: Any, op: str, name: str, inputs: Sequence[str] = (), **attributes: Any) -> str:
    """Add a node to a GraphDef or FunctionDef; returns its name. Attributes by their Python types; a type as its name,
    a shape as a tuple, with None for what is unknown."""
    nodes = graph.node_def if hasattr(graph, "node_def") else graph.node
    node = nodes.add(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        attribute = node.attr[key]
        if isinstance(value, Function):
            attribute.func.name = value.name
        elif isinstance(value, bool):
            attribute.b = value
        elif isinstance(value, int):
            attribute.i = value
        elif isinstance(value, float):
            attribute.f = value
        elif isinstance(value, str) and value in TYPES:
            attribute.type = TYPES[value]
        elif isinstance(value, str):
            attribute.s = value.encode()
        elif isinstance(value, tuple):
            for size in value:
                attribute.shape.dim.add(size=-1 if size is None else size)
            attribute.shape.SetInParent()
        elif isinstance(value, list):
            attribute.list.i.extend(value)
        else:
            array = np.asarray(value)
            attribute.tensor.dtype = TYPES[str(array.dtype)]
            for size in array.shape:
                attribute.tensor.tensor_shape.dim.add(size=size)
            attribute.tensor.tensor_content = array.tobytes()
    return name


def constant(graph: Any, name: str, value: Any, dtype: str = "float32") -> str:
    """Add a constant; returns its name."""
    return add(graph, "Const", name, dtype=dtype, value=np.asarray(value, dtype))


def placeholder(graph: Any, name: str, shape: tuple[int | None, ...] | None, dtype: str = "float32") -> str:
    """Add a placeholder, of unknown rank where `shape` is None; returns its name."""
    if shape is not None:
        return add(graph, "Placeholder", name, dtype=dtype, shape=shape)
    add(graph, "Placeholder", name, dtype=dtype)
    graph.node[-1].attr["shape"].shape.unknown_rank = True
    return name


def function(graph: Any, name: str, arguments: Sequence[str], results: dict[str, str]) -> Any:
    """Add a function to the library of a GraphDef; returns it for nodes to be added."""
    made = graph.library.function.add()
    made.signature.name = name
    for argument in arguments:
        made.signature.input_arg.add(name=argument)
    for result, tensor in results.items():
        made.signature.output_arg.add(name=result)
        made.ret[result] = tensor
    return made


def graph() -> Any:
    """An empty GraphDef."""
    return CLASSES["GraphDef"]()


def save(definition: Any, folder: Path) -> Path:
    """Write a GraphDef; returns its path."""
    path = folder / "frozen.pb"
    path.write_bytes(definition.SerializeToString())
    return path
