"""Computes what constants alone decide, while a graph is being made: shapes, axes, sizes."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.making import GraphMaker
from engine.graph.query import Array, constant, static_shape
from engine.ort import make_session, run

_LARGEST = 1 << 20
_LARGEST_IN_ALL = 1 << 23
_MOST_WAITING = 1 << 14
_KNOWN = "rknn_tui.evaluated"


def evaluate(maker: GraphMaker, value: ir.Value) -> Array | None:
    """What `value` holds, if only constants decide it and nothing on the way has more than a million elements."""
    stored = constant(value)
    if stored is not None:
        return stored
    if _KNOWN in value.meta:
        known: Array | None = value.meta[_KNOWN]
        return known
    value.meta[_KNOWN] = None
    nodes = _nodes_before(value)
    if nodes is not None:
        _run(nodes)
    found: Array | None = value.meta[_KNOWN]
    return found


def _nodes_before(value: ir.Value) -> list[ir.Node] | None:
    """The nodes that make `value` from constants, in order; None where they read an input, or too much."""
    ordered: dict[ir.Node, None] = {}
    waiting: list[tuple[ir.Value, bool]] = [(value, False)]
    elements = 0
    while waiting:
        current, ready = waiting.pop()
        node = current.producer()
        if node is not None and (ready or node in ordered):
            ordered[node] = None
        elif constant(current) is None and _known(current) is None:
            if node is None or (_KNOWN in current.meta and current is not value) or len(waiting) > _MOST_WAITING:
                return None
            size = _size(current)
            elements += size
            if size > _LARGEST or elements > _LARGEST_IN_ALL:
                return None
            waiting.append((current, True))
            waiting += [(source, False) for source in node.inputs if source is not None]
    return list(ordered)


def _known(value: ir.Value) -> Array | None:
    known: Array | None = value.meta.get(_KNOWN)
    return known


def _size(value: ir.Value) -> int:
    try:
        return math.prod(static_shape(value))
    except ValueError:
        return _LARGEST + 1


def _run(nodes: list[ir.Node]) -> None:
    """Compute what `nodes` make, and note it on the values, so that chains are not gone through again."""
    proto = onnx.ModelProto(ir_version=9)
    graph = nodes[0].graph
    assert isinstance(graph, ir.Graph)
    for domain, version in graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    made = dict.fromkeys(output for node in nodes for output in node.outputs)
    given: set[ir.Value] = set()
    for node in nodes:
        proto.graph.node.append(ir.serde.serialize_node(node))
        for source in node.inputs:
            if source is None or source in made or source in given:
                continue
            given.add(source)
            array = constant(source)
            if array is None:
                array = _known(source)
            if array is None:
                return
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, source.name or ""))
    wanted = [output for output in made if output.name]
    for output in wanted:
        proto.graph.output.add(name=output.name or "")
    try:
        results = run(make_session(proto, optimization="none", threads=1), None, {})
    except ModelError:
        return
    for output, result in zip(wanted, results, strict=True):
        output.meta[_KNOWN] = result
