"""Makes shapes static and computes once whatever does not depend on the model's inputs."""

from __future__ import annotations

import logging
import math

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from engine.errors import ModelError
from engine.graph.provenance import label
from engine.graph.query import Array, add_constant, constant, drop_unused_constants, static_shape
from engine.ort import make_session, run

# A constant that a small formula can blow up (Expand, ConstantOfShape) is left to run time beyond this.
LARGEST_FOLDED = 1 << 24
_ROUNDS = 32
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
# These carry quantization parameters that are lifted later.
_KEPT = {"QuantizeLinear", "DequantizeLinear"}
_DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "StringSplit"}

logging.getLogger("onnx_ir").setLevel(logging.ERROR)


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes anew from the graph inputs, in place; what cannot be inferred has shape None."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    inference = common_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    inference(model)


def fold(model: ir.Model) -> None:
    """Alternate shape inference and constant folding, in place, until nothing changes.

    Inputs must have static shapes. Nodes of constants are computed by ONNX Runtime; results above
    `LARGEST_FOLDED` elements, random values and Q/DQ nodes stay as they are.
    """
    graph = model.graph
    infer_shapes(model)
    for _ in range(_ROUNDS):
        changed = _fold_shapes(graph)
        changed |= _inline_decided_branches(graph)
        changed |= _fold_nodes(model)
        drop_unused_constants(graph)
        if not changed:
            return
        infer_shapes(model)


def unresolved(model: ir.Model) -> list[str]:
    """Labels of nodes whose output shapes are not known in full."""
    return [
        label(node)
        for node in model.graph
        if any(v.name and (v.shape is None or not v.shape.is_static()) for v in node.outputs)
    ]


def require_static(model: ir.Model) -> None:
    """Raise ModelError naming the first nodes whose shapes depend on data, if there are any."""
    names = unresolved(model)
    if not names:
        return
    guilty = [label(n) for n in model.graph if n.op_type in _DATA_DEPENDENT] or names
    shown = ", ".join(guilty[:5]) + (f" and {len(guilty) - 5} more" if len(guilty) > 5 else "")
    raise ModelError(
        f"the shape of {len(names)} tensors depends on the data, which an NPU cannot run",
        where=shown,
        hint="cut the model before these nodes with `outputs`",
    )


def _fold_shapes(graph: ir.Graph) -> bool:
    changed = False
    for node in list(graph):
        if node.op_type not in ("Shape", "Size") or node.domain not in ("", "ai.onnx"):
            continue
        source = node.inputs[0]
        if source is None or source.shape is None or not source.shape.is_static():
            continue
        dims = static_shape(source)
        if node.op_type == "Size":
            array = np.array(math.prod(dims), dtype=np.int64)
        else:
            start = node.attributes["start"].as_int() if "start" in node.attributes else 0
            end = node.attributes["end"].as_int() if "end" in node.attributes else len(dims)
            array = np.array(dims[slice(start, end)], dtype=np.int64)
        _become_constant(graph, node.outputs[0], array)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _fold_nodes(model: ir.Model) -> bool:
    """Compute every node that constants alone feed, all in one session."""
    graph = model.graph
    known: set[ir.Value] = set(graph.initializers.values())
    nodes: list[ir.Node] = []
    for node in graph:
        if node.op_type in _RANDOM | _KEPT or any(
            attr.type == ir.AttributeType.GRAPH for attr in node.attributes.values()
        ):
            continue
        if any(v is not None and v not in known for v in node.inputs):
            continue
        # A graph output must be computed by a node, so a node that makes nothing else stays.
        if not any(v.uses() for v in node.outputs) or not all(_small(v) for v in node.outputs if v.name):
            continue
        nodes.append(node)
        known.update(node.outputs)
    if not nodes:
        return False
    folded = set(nodes)
    wanted = [value for node in nodes for value in node.outputs if any(use.node not in folded for use in value.uses())]
    if wanted:
        arrays = _compute(model, nodes, wanted)
        for value, array in zip(wanted, arrays, strict=True):
            _become_constant(graph, value, array)
    graph.remove(list(reversed([n for n in nodes if not any(v.is_graph_output() for v in n.outputs)])), safe=True)
    return bool(wanted)


def _small(value: ir.Value) -> bool:
    """Whether the value is known to fit; unknown shapes wait for another round of inference."""
    return value.shape is not None and value.shape.is_static() and math.prod(static_shape(value)) <= LARGEST_FOLDED


def _compute(model: ir.Model, nodes: list[ir.Node], wanted: list[ir.Value]) -> list[Array]:
    used = {v for node in nodes for v in node.inputs if v is not None}
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    proto.graph.node.extend(ir.to_proto(node) for node in nodes)
    for value in used:
        if value.is_initializer() and value.const_value is not None:
            tensor = ir.to_proto(value.const_value)
            tensor.name = value.name or ""
            proto.graph.initializer.append(tensor)
    for value in wanted:
        proto.graph.output.add(name=value.name or "")
    return run(make_session(proto, optimization="none"), [v.name or "" for v in wanted], {})


def _become_constant(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    """Let the readers of `value` read `array`. A graph output keeps its node: outputs must be computed."""
    if not value.uses():
        return
    replacement = add_constant(graph, f"{value.name}_folded", array)
    value.replace_all_uses_with(replacement)


def _inline_decided_branches(graph: ir.Graph) -> bool:
    """Put the taken branch of every If with a constant condition in its place."""
    changed = False
    for node in list(graph):
        condition = constant(node.inputs[0]) if node.op_type == "If" and node.inputs else None
        if condition is None:
            continue
        branch = node.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"].as_graph()
        results = list(branch.outputs)
        for name, value in list(branch.initializers.items()):
            del branch.initializers[name]
            moved = add_constant(graph, name, value.const_value.numpy())  # type: ignore[union-attr]
            value.replace_all_uses_with(moved, replace_graph_outputs=True)
            results = [moved if r is value else r for r in results]
        inner = list(branch)
        branch.remove(inner)
        graph.insert_before(node, inner)
        for old, new in zip(node.outputs, results, strict=True):
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if new.producer() is not None and old.name:
                new.name, old.name = old.name, None
        graph.remove(node, safe=True)
        changed = True
    return changed
