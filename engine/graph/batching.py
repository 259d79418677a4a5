"""Changes the batch of a graph whose first dimension is the batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.execution import random_feeds, run_float
from engine.graph.folding import infer_shapes, unresolved
from engine.graph.provenance import label
from engine.graph.query import Array, add_constant, attribute, constant, drop_unused_constants, static_shape

_HINT = "build with rknn_batch_size=1"
# Where an LSTM, GRU or RNN takes its initial states, shaped [directions, batch, hidden].
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


def with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy of `model` whose inputs and outputs hold `batch` times as many samples along their first dimension.

    The result is run once on random input and compared with one run a sample, so that a model which mixes samples is
    refused instead of computing nonsense. Raises ModelError.
    """
    if batch == 1:
        return model
    copy: ir.Model = ir.from_proto(ir.to_proto(model))
    graph = copy.graph
    for value in graph.inputs:
        shape = static_shape(value)
        if not shape:
            raise ModelError(f"input {value.name!r} is a scalar and has no batch", where="rknn_batch_size", hint=_HINT)
        value.shape = ir.Shape([shape[0] * batch, *shape[1:]])
    for node in list(graph):
        _rewrite(graph, node, batch)
    drop_unused_constants(graph)
    for value in graph.outputs:
        value.shape = None
    infer_shapes(copy)
    guilty = unresolved(copy)
    if guilty:
        raise ModelError("cannot take another batch", where=guilty[0], hint=_HINT)
    _verify(model, copy, batch)
    return copy


def _rewrite(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """Multiply the batch in constants that spell out a shape or must have one row a sample."""
    if node.op_type == "Reshape":
        target = constant(node.inputs[1])
        if target is not None and target.size and target[0] > 0:
            same = node.inputs[0] is not None and static_shape(node.inputs[0])[:1] == (int(target[0]),)
            first = 0 if same and not attribute(node, "allowzero", 0) else int(target[0]) * batch
            _swap(graph, node, 1, np.array([first, *target[1:]], np.int64))
    elif node.op_type == "Resize" and len(node.inputs) > 3 and node.inputs[3] is not None:
        sizes = constant(node.inputs[3])
        if sizes is not None and not attribute(node, "axes"):
            _swap(graph, node, 3, np.array([sizes[0] * batch, *sizes[1:]], np.int64))
    elif node.op_type == "Concat" and int(attribute(node, "axis", 0)) != 0:
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if array is not None:
                _swap(graph, node, index, np.repeat(array, batch, axis=0))
    elif node.op_type in _STATES:
        for index in _STATES[node.op_type]:
            state = constant(node.inputs[index]) if len(node.inputs) > index else None
            if state is not None:
                _swap(graph, node, index, np.repeat(state, batch, axis=1))


def _swap(graph: ir.Graph, node: ir.Node, index: int, array: Array) -> None:
    old = node.inputs[index]
    node.replace_input_with(index, add_constant(graph, f"{old.name if old else label(node)}_batch", array))


def _verify(model: ir.Model, batched: ir.Model, batch: int) -> None:
    rows = [random_feeds(model, seed) for seed in range(batch)]
    feeds = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    try:
        together = run_float(batched, feeds)
    except ModelError as error:
        raise ModelError(f"cannot take another batch: {error.what}", where="rknn_batch_size", hint=_HINT) from error
    alone = [run_float(model, row) for row in rows]
    for index, value in enumerate(model.graph.outputs):
        expected = np.concatenate([outputs[index] for outputs in alone])
        found = together[index]
        scale = float(np.abs(expected).max(initial=0.0)) or 1.0
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-3, atol=1e-4 * scale):
            raise ModelError(
                f"mixes samples: output {value.name!r} of {batch} samples differs from that of each alone",
                where="rknn_batch_size",
                hint=_HINT,
            )
