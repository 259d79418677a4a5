"""Every node remembers which nodes of the source model it came from, through fusions and serialization."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx_ir as ir

_KEY = "rknn_tui.sources"


def label(node: ir.Node) -> str:
    """What a person calls `node`: its name, or its operator and first output where it has none."""
    return node.name or f"{node.op_type}:{node.outputs[0].name}"


def sources(node: ir.Node) -> tuple[str, ...]:
    """Labels of the source model's nodes that `node` stands for, in the order they were met."""
    text = node.metadata_props.get(_KEY)
    return tuple(json.loads(text)) if text else ()


def mark_source(graph: ir.Graph) -> None:
    """Let every node of a freshly read graph be its own source."""
    for node in graph:
        if _KEY not in node.metadata_props:
            set_sources(node, [label(node)])


def set_sources(node: ir.Node, labels: Sequence[str]) -> None:
    """Let `node` stand for these nodes of the source model, and no others."""
    node.metadata_props[_KEY] = json.dumps(list(labels), ensure_ascii=False)


def inherit(node: ir.Node, *origins: ir.Node) -> ir.Node:
    """Give `node` the sources of `origins` (besides its own) and return it."""
    merged = dict.fromkeys(sources(node))
    for origin in origins:
        merged.update(dict.fromkeys(sources(origin)))
    node.metadata_props[_KEY] = json.dumps(list(merged), ensure_ascii=False)
    return node
