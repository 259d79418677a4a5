"""Changes the batch of a graph whose first dimension is the batch."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.errors import ConfigError, ModelError
from engine.graph.execution import random_feeds, run_float
from engine.graph.folding import unresolved
from engine.graph.provenance import label
from engine.graph.query import (
    Array,
    add_constant,
    attribute,
    constant,
    drop_unused_constants,
    fresh_name,
    static_shape,
    tensors,
)
from engine.graph.shapes import infer_shapes

LARGEST_BATCH = 1024
"""Far above the 32 that the guide advises."""

# Values; 2 GB in float32, which fits no board.
_LARGEST_TENSOR = 1 << 29
# What holds for a few samples holds for many: rewriting multiplies, whatever the number.
_VERIFIED_BATCH = 4
_HINT = "build with rknn_batch_size=1"
# Where an LSTM, GRU or RNN takes its initial states, shaped [directions, batch, hidden].
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
# Where they take the length of each sample's sequence.
_LENGTHS = 4


def with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy of `model` whose inputs and outputs hold `batch` times as many samples along their first dimension.

    The same change for a few samples is run on random input and compared with one run a sample, so that a model which
    mixes samples is refused instead of computing nonsense. Raises ConfigError and ModelError.
    """
    check_batch(model, batch)
    if batch == 1:
        return model
    for value in model.graph.inputs:
        if not static_shape(value):
            raise ModelError(f"input {value.name!r} is a scalar and has no batch", where="rknn_batch_size", hint=_HINT)
    try:
        return _checked(model, batch, move_states=False)
    except ModelError:
        if not any(node.op_type in _STATES for node in model.graph):
            raise
    return _checked(model, batch, move_states=True)


def check_batch(model: ir.Model, batch: int) -> None:
    """Raise ConfigError for what is no batch, or more than can be held."""
    where = "rknn_batch_size"
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= LARGEST_BATCH:
        raise ConfigError(f"expected a whole number from 1 to {LARGEST_BATCH}, got {batch!r}", where=where)
    largest = batch * max((math.prod(static_shape(value)) for value in tensors(model.graph)), default=0)
    if batch > 1 and largest > _LARGEST_TENSOR:
        raise ConfigError(f"a tensor of {batch} samples would hold {largest:,} values", where=where, hint="use fewer")


def _checked(model: ir.Model, batch: int, *, move_states: bool) -> ir.Model:
    few = min(batch, _VERIFIED_BATCH)
    result = _rewritten(model, few, move_states=move_states)
    _verify(model, result, few)
    return result if few == batch else _rewritten(model, batch, move_states=move_states)


def _rewritten(model: ir.Model, batch: int, *, move_states: bool) -> ir.Model:
    copy: ir.Model = ir.from_proto(ir.to_proto(model))
    graph = copy.graph
    for value in graph.inputs:
        shape = static_shape(value)
        value.shape = ir.Shape([shape[0] * batch, *shape[1:]])
    for node in list(graph):
        _rewrite(graph, node, batch)
    if move_states:
        for node in list(graph):
            if node.op_type in _STATES:
                _move_states(graph, node, batch)
    drop_unused_constants(graph)
    for value in graph.outputs:
        value.shape = None
    try:
        infer_shapes(copy)
    except ModelError as error:
        raise ModelError(f"cannot take another batch: {error.what}", where=error.where, hint=_HINT) from error
    guilty = unresolved(copy)
    if guilty:
        raise ModelError("cannot take another batch", where=guilty[0], hint=_HINT)
    return copy


def _rewrite(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """Multiply the batch in constants that spell out a shape or must have one row a sample."""
    if node.op_type == "Reshape":
        target = constant(node.inputs[1])
        if target is not None and target.size and target[0] >= 0 and not attribute(node, "allowzero", 0):
            _swap(graph, node, 1, _batched_target(node, target, batch))
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
        for index, axis in ((_LENGTHS, 0), *((state, 1) for state in _STATES[node.op_type])):
            array = constant(node.inputs[index]) if len(node.inputs) > index else None
            if array is not None:
                _swap(graph, node, index, np.repeat(array, batch, axis=axis))


def _batched_target(node: ir.Node, target: Array, batch: int) -> Array:
    """The shape that the Reshape `node` gives to a batch.

    A first dimension that stays the same may be the batch or, behind a recurrent layer, the steps of a sequence; then
    a later dimension of size 1 takes what remains, which is 1 if the first is the batch.
    """
    same = target[0] == 0 or (node.inputs[0] is not None and static_shape(node.inputs[0])[:1] == (int(target[0]),))
    if not same:
        return np.array([target[0] * batch, *target[1:]], np.int64)
    dims = [0, *(int(dim) for dim in target[1:])]
    if -1 not in dims and 1 in dims[1:]:
        dims[dims.index(1, 1)] = -1
    return np.array(dims, np.int64)


def _move_states(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """Let the states around a recurrent `node` of one direction have their batch first, as the rest of the graph has.

    A batch of 1 looks the same before and behind the axis of directions, so a graph optimized for it may lack the
    Transpose between the two; beside an axis of size 1 that is only a Reshape. Readers that transpose know their axes.
    """
    result = next(value for value in node.outputs if value.name)
    *_, samples, hidden = static_shape(result)
    if node.inputs[2] is None or static_shape(node.inputs[2])[0] != 1:
        return
    for index in _STATES[node.op_type]:
        state = node.inputs[index] if len(node.inputs) > index else None
        if state is not None and not state.is_initializer():
            shape = add_constant(graph, f"{state.name}_batch_shape", np.array([1, samples * batch, hidden], np.int64))
            moved = ir.node("Reshape", [state, shape], name=f"{label(node)}_{index}_batch")
            moved.outputs[0].name = fresh_name(graph, f"{state.name}_batch_second")
            graph.insert_before(node, moved)
            node.replace_input_with(index, moved.outputs[0])
    for value in node.outputs[1:]:
        readers = [use for use in value.uses() if use.node.op_type != "Transpose"]
        if not readers:
            continue
        shape = add_constant(graph, f"{value.name}_batch_shape", np.array([samples * batch, 1, hidden], np.int64))
        moved = ir.node("Reshape", [value, shape], name=f"{label(node)}_{value.name}_batch")
        moved.outputs[0].name = fresh_name(graph, f"{value.name}_batch_first")
        graph.insert_after(node, moved)
        for use in readers:
            use.node.replace_input_with(use.idx, moved.outputs[0])


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
