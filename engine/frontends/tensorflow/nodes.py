"""The nodes of a GraphDef and of its functions, with their inputs resolved, and what attributes they have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from engine.errors import ModelError
from engine.frontends.reading import CORRUPT
from engine.frontends.tensorflow.constants import dimensions

Reference = tuple[str, int]
"""A tensor: the node that makes it, and which of its outputs it is."""

ARGUMENT = "_Arg"
"""The operator of the nodes that stand for a function's arguments; attribute `index`."""

# In functions outputs are named; those of operators that have more than one, in order. A star ends a list.
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "FusedBatchNorm": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"),
    "FusedBatchNormV2": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"),
    "FusedBatchNormV3": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3"),
    "Merge": ("output", "value_index"),
    "Switch": ("output_false", "output_true"),
    "TopK": ("values", "indices"),
    "TopKV2": ("values", "indices"),
    "Unique": ("y", "idx"),
    "TensorArrayV3": ("handle", "flow"),
    "TensorArrayConcatV3": ("value", "lengths"),
    "TensorListPopBack": ("output_handle", "tensor"),
    "TensorListConcat": ("tensor", "lengths"),
    "TensorListConcatV2": ("tensor", "lengths"),
    "MaxPoolWithArgmax": ("output", "argmax"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
    "BlockLSTM": ("i", "cs", "f", "o", "ci", "co", "h"),
    "BlockLSTMV2": ("i", "cs", "f", "o", "ci", "co", "h"),
    "Moments": ("mean", "variance"),
    "SoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
    "ListDiff": ("out", "idx"),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation: `inputs` are the tensors that it reads, without those that it only waits for."""

    name: str
    op: str
    inputs: tuple[Reference, ...]
    proto: Any

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self.proto.attr

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return int(self.proto.attr[name].i) if self.has(name) else default

    def number(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        return float(self.proto.attr[name].f) if self.has(name) else default

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean attribute."""
        return bool(self.proto.attr[name].b) if self.has(name) else default

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        return str(self.proto.attr[name].s.decode("utf-8", "replace")) if self.has(name) else default

    def integers(self, name: str, default: Iterable[int] = ()) -> list[int]:
        """An attribute that is a list of integers."""
        return [int(i) for i in self.proto.attr[name].list.i] if self.has(name) else list(default)

    def dtype(self, *names: str, default: int = 1) -> int:
        """The DataType of the first of these attributes that is given."""
        return next((int(self.proto.attr[name].type) for name in names if self.has(name)), default)

    def shape(self, name: str) -> list[int | None] | None:
        """A shape attribute: None for an unknown rank, and for unknown dimensions."""
        if not self.has(name) or not self.proto.attr[name].HasField("shape"):
            return None
        return dimensions(self.proto.attr[name].shape)

    def function(self, name: str) -> str:
        """The name of the function that an attribute names; empty where none."""
        return str(self.proto.attr[name].func.name) if self.has(name) else ""


@dataclasses.dataclass(frozen=True)
class Body:
    """Nodes by name: a graph, or a function with its `arguments` (names) and `results`."""

    name: str
    nodes: Mapping[str, Node]
    arguments: tuple[str, ...] = ()
    results: tuple[Reference, ...] = ()


def parse_reference(text: str) -> Reference:
    """A tensor as a GraphDef names it: 'node' or 'node:2'."""
    name, colon, index = text.rpartition(":")
    return (name, int(index)) if colon and index.isdecimal() and len(index) < 6 else (text, 0)


def tensor_name(reference: Reference) -> str:
    """What a tensor is called in our graph: like its operation, with ':1' and so on for further outputs."""
    name, index = reference
    return f"{name}:{index}" if index else name


def graph_body(graph: Any, where: str) -> Body:
    """The nodes of a GraphDef. Raises ModelError for doubled names and inputs that nothing makes."""
    nodes: dict[str, Node] = {}
    for proto in graph.node:
        if not proto.name or proto.name in nodes:
            raise ModelError(f"node {proto.name!r} is there twice, or has no name", where=where, hint=CORRUPT)
        read = tuple(parse_reference(text) for text in proto.input if not text.startswith("^"))
        nodes[proto.name] = Node(proto.name, proto.op, read, proto)
    _check_inputs(nodes, where)
    return Body("", nodes)


def function_body(function: Any, where: str) -> Body:
    """The nodes of a function, its arguments as nodes of the operator `ARGUMENT`. Raises ModelError."""
    name = function.signature.name
    place = f"{where}: function {name!r}"
    nodes: dict[str, Node] = {}
    arguments = tuple(argument.name for argument in function.signature.input_arg)
    for argument in arguments:
        nodes[argument] = Node(argument, ARGUMENT, (), None)
    for proto in function.node_def:
        if not proto.name or proto.name in nodes:
            raise ModelError(f"node {proto.name!r} is there twice, or has no name", where=place, hint=CORRUPT)
        nodes[proto.name] = Node(proto.name, proto.op, (), proto)
    for key, node in list(nodes.items()):
        if node.proto is not None:
            read = tuple(_inner_reference(text, nodes, place) for text in node.proto.input if not text.startswith("^"))
            nodes[key] = dataclasses.replace(node, inputs=read)
    returned = dict(function.ret)
    results = tuple(
        _inner_reference(returned.get(result.name, result.name), nodes, place)
        for result in function.signature.output_arg
    )
    _check_inputs(nodes, place)
    return Body(name, nodes, arguments, results)


def _inner_reference(text: str, nodes: Mapping[str, Node], where: str) -> Reference:
    """A tensor as functions name it: 'argument', or 'node:output:index'."""
    parts = text.split(":")
    node = nodes.get(parts[0])
    if node is None:
        raise ModelError(f"reads tensor {text!r}, which nothing makes", where=where, hint=CORRUPT)
    if len(parts) < 2:
        return parts[0], 0
    index = int(parts[2]) if len(parts) > 2 and parts[2].isdecimal() and len(parts[2]) < 6 else 0
    known = _OUTPUTS.get(node.op, ())
    if len(parts) == 2 and parts[1].isdecimal():
        return parts[0], int(parts[1])
    return parts[0], index + (known.index(parts[1]) if parts[1] in known else 0)


def _check_inputs(nodes: Mapping[str, Node], where: str) -> None:
    for node in nodes.values():
        for name, _ in node.inputs:
            if name not in nodes:
                raise ModelError(
                    f"reads tensor {name!r}, which nothing makes", where=f"{where}: {node.name}", hint=CORRUPT
                )
