"""Makes shapes static and computes once whatever does not depend on the model's inputs."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import onnx
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.emptiness import leave_out_empty
from engine.graph.given import after, keep
from engine.graph.names import Names
from engine.graph.provenance import inherit, label
from engine.graph.query import Array, constant, drop_unused_constants, static_shape
from engine.graph.shapes import Inference
from engine.ort import make_session, run

# A constant that a small formula can blow up (Expand, ConstantOfShape) is left to run time beyond this.
LARGEST_FOLDED = 1 << 24
_FEW_ELEMENTS = 1 << 26
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
"""Operators that carry quantization parameters."""
# Operators that read lists, and at which inputs.
_LISTS: dict[str, tuple[int, ...]] = {
    "Pad": (1, 3),
    "Slice": (1, 2, 3, 4),
    **dict.fromkeys(("Split", "Squeeze", "Unsqueeze", "Tile", "ReduceL1", "ReduceL2", "ReduceLogSum"), (1,)),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"), (1,)),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare"), (1,)),
}
_DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "StringSplit"}


def fold(model: ir.Model, *, quantizers: bool = False) -> None:
    """Infer all shapes, compute what constants alone decide, and inline the decided branches of If, in place.

    Inputs must have static shapes. Nodes of constants are computed by ONNX Runtime; results above `LARGEST_FOLDED`
    elements and random values stay nodes, and so do QuantizeLinear and DequantizeLinear, which carry parameters that
    are to be lifted first, unless `quantizers` is true. Raises ModelError for shapes that cannot be, and where
    constants would take more memory than any model needs.
    """
    kept = _RANDOM if quantizers else _RANDOM | QUANTIZERS
    graph = model.graph
    inference, names = Inference(model), Names(graph)
    # Constants that stay nodes: large ones, and those that are made of these.
    unfolded: set[ir.Value] = set()
    elements = 0
    # What a model computes from constants is little, or weights that are turned and cast a few times.
    allowed = _FEW_ELEMENTS + 4 * sum(
        v.const_value.size for v in graph.initializers.values() if v.const_value is not None
    )
    # One sweep suffices: nodes are in order, and a branch that is put in place is met next.
    for node in graph:
        if _inline_decided_branch(graph, node, names):
            continue
        _settle_ranks(node, names)
        inference.infer(node)
        if leave_out_empty(graph, node, names):
            continue
        if _fold_shape(graph, node, names) or node.op_type in kept or not _of_constants(node, unfolded):
            continue
        named = [value for value in node.outputs if value.name]
        if any(value.shape is None or not value.shape.is_static() for value in named):
            continue
        sizes = [math.prod(static_shape(value)) for value in named]
        elements += sum(sizes)
        if elements > allowed:
            raise ModelError(
                f"its constants blow up to {elements} elements", where=label(node), hint="cut the model behind them"
            )
        if max(sizes, default=0) > LARGEST_FOLDED or any(value in unfolded for value in node.inputs if value):
            unfolded.update(named)
        else:
            _fold_node(model, node, names)
    drop_unused_constants(graph)


def note_shapes(model: ir.Model) -> None:
    """Note the types and shapes of the tensors inside `model`, as far as its own inputs decide them.

    Nodes stay as they are, so that a person may cut at any of them.
    """
    copy: ir.Model = ir.from_proto(ir.to_proto(model))
    known = {value.name: value for node in copy.graph for value in node.outputs}
    with contextlib.suppress(ModelError):  # what is wrong may be in a part that will be cut off
        fold(copy)
    for value in [value for node in model.graph for value in node.outputs if value.name in known]:
        value.type, value.shape = known[value.name].type, known[value.name].shape


def unresolved(model: ir.Model) -> list[str]:
    """Labels of nodes whose output shapes are not known in full."""
    return [
        label(node)
        for node in model.graph
        if any(v.name and (v.shape is None or not v.shape.is_static()) for v in node.outputs)
    ]


def require_static(model: ir.Model) -> None:
    """Raise ModelError naming the first nodes whose shapes depend on data, or whose results are empty, if any do."""
    for node in model.graph:
        if any(v.name and v.shape is not None and 0 in v.shape.dims for v in node.outputs):
            raise ModelError(
                "its result has no elements", where=label(node), hint="are the sizes of the inputs too small?"
            )
    names = unresolved(model)
    if not names:
        return
    guilty = [label(n) for n in model.graph if n.op_type in _DATA_DEPENDENT]
    what = "depends on the data, which an NPU cannot run" if guilty else "cannot be told before the model runs"
    shown = ", ".join((guilty or names)[:5]) + (
        f" and {len(guilty or names) - 5} more" if len(guilty or names) > 5 else ""
    )
    raise ModelError(
        f"the shape of {len(names)} tensors {what}",
        where=shown,
        hint="cut the model before these nodes with `outputs`",
    )


def _settle_ranks(node: ir.Node, names: Names) -> None:
    """Let a Range whose bounds are known read scalars, and what takes lists of axes or amounts read lists.

    Exporters give lists of one for scalars and scalars for lists, damaged files tables; a run accepts all of them.
    """
    if node.domain not in ("", "ai.onnx"):
        return
    scalar = node.op_type == "Range"
    for index in range(len(node.inputs)) if scalar else _LISTS.get(node.op_type, ()):
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant(value)
        if value is None or array is None or (array.shape != (1,) if scalar else array.ndim == 1):
            continue
        other = names.constant(f"{value.name}_reshaped", array.reshape(() if scalar else -1))
        node.replace_input_with(index, other)


def _fold_shape(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    """Replace Shape or Size of a tensor whose shape is known."""
    if node.op_type not in ("Shape", "Size") or node.domain not in ("", "ai.onnx"):
        return False
    source = node.inputs[0]
    if source is None or source.shape is None or not source.shape.is_static():
        return False
    dims = static_shape(source)
    if node.op_type == "Size":
        array = np.array(math.prod(dims), dtype=np.int64)
    else:
        start = node.attributes["start"].as_int() if "start" in node.attributes else 0
        end = node.attributes["end"].as_int() if "end" in node.attributes else len(dims)
        array = np.array(dims[slice(start, end)], dtype=np.int64)
    _become_constants(graph, node, [array], names)
    return True


def _of_constants(node: ir.Node, unfolded: set[ir.Value]) -> bool:
    """Whether only constants decide what `node` computes."""
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return False
    if any(v.name and (v.dtype is None or v.dtype == ir.DataType.STRING) for v in node.outputs):
        return False
    return all(v is None or (v.is_initializer() and not v.is_graph_input()) or v in unfolded for v in node.inputs)


def _fold_node(model: ir.Model, node: ir.Node, names: Names) -> None:
    """Compute `node` and let the readers of its outputs read the results."""
    wanted = [value for value in node.outputs if value.uses()]
    if not wanted:
        return
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    proto.graph.node.append(ir.serde.serialize_node(node))
    for value in {v for v in node.inputs if v is not None}:
        if value.const_value is not None:
            tensor = ir.serde.serialize_tensor(value.const_value)
            tensor.name = value.name or ""
            proto.graph.initializer.append(tensor)
    for value in wanted:
        proto.graph.output.add(name=value.name or "")
    try:
        arrays = run(make_session(proto, optimization="none", threads=1), [v.name or "" for v in wanted], {})
    except ModelError as error:
        raise ModelError(error.what, where=label(node), hint=error.hint) from error
    results = dict(zip(wanted, arrays, strict=True))
    _become_constants(model.graph, node, [results.get(value) for value in node.outputs], names)


def _become_constants(graph: ir.Graph, node: ir.Node, arrays: list[Array | None], names: Names) -> None:
    """Let the readers of `node` read `arrays`. A node that makes a graph output stays: outputs must be computed."""
    for value, array in zip(node.outputs, arrays, strict=True):
        if value.uses() and array is not None:
            result = names.constant(f"{value.name}_folded", array)
            parameters = after(node)
            if parameters is not None:
                keep(result, parameters)
            for use in tuple(value.uses()):  # a graph output stays what it is
                use.node.replace_input_with(use.idx, result)
    if not any(value.is_graph_output() for value in node.outputs):
        graph.remove(node, safe=True)


def _inline_decided_branch(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    """Put the taken branch of an If with a constant condition in its place."""
    condition = constant(node.inputs[0]) if node.op_type == "If" and node.inputs else None
    if condition is None or node.domain not in ("", "ai.onnx"):
        return False
    if condition.size != 1:
        raise ModelError("its condition is not one value", where=label(node))
    branch = node.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"].as_graph()
    results = list(branch.outputs)
    if len(results) != len(node.outputs):
        raise ModelError(
            f"its branch makes {len(results)} tensors, not {len(node.outputs)}", where=label(node), hint=_CORRUPT
        )
    branch.outputs.clear()  # a value may be the output of one graph only
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        moved = names.constant(name, value.const_value.numpy())  # type: ignore[union-attr]
        value.replace_all_uses_with(moved, replace_graph_outputs=True)
        results = [moved if r is value else r for r in results]
    inner = list(branch)
    branch.remove(inner)
    for value in [value for made in inner for value in made.outputs if value.name]:
        value.name = names.fresh(value.name or "")  # branches of different nodes may use the same names
    copies: list[ir.Node] = []
    for old, new in zip(node.outputs, results, strict=True):
        if old.is_graph_output() and (new.producer() not in inner or new.is_graph_output()):
            copies.append(ir.node("Identity", [new], name=label(node)))  # the output keeps its name
            new = inherit(copies[-1], node).outputs[0]
        named = new.is_graph_output() or new.producer() not in (*inner, *copies)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if old.name and not named:
            new.name, old.name = old.name, None
    graph.insert_after(node, [*inner, *copies])
    graph.remove(node, safe=True)
    return True


_CORRUPT = "the file is corrupt"
