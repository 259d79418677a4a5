"""Builds small static graphs from lines of ONNX text, runs them, and compares a graph before and after its passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper, shape_inference

from engine.graph.optimize import optimize
from engine.graph.provenance import mark_source, sources
from engine.graph.query import static_shape
from engine.ort import make_session, run, serialize

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def number(value: float) -> Array:
    return np.array(value, dtype=np.float32)


def integers(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def build(
    inputs: Mapping[str, Sequence[int]], body: str, constants: Mapping[str, Array], outputs: Sequence[str] = ("y",)
) -> ir.Model:
    """A model whose nodes are the lines of `body`, as in `y = Add (x, c)`; every shape inferred, provenance marked."""
    nodes = [onnx.parser.parse_node(line.strip()) for line in body.strip().splitlines()]
    for node in nodes:
        node.name = f"{node.op_type}_{node.output[0]}"
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    model = ir.from_proto(shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    mark_source(model.graph)
    return model


def outputs_of(model: ir.Model, seed: int = 7, spread: float = 3.0) -> list[Array]:
    """The model's outputs on random input."""
    random_source = np.random.default_rng(seed)
    feeds = {
        v.name or "": (random_source.normal(size=static_shape(v)) * spread).astype(v.dtype.numpy() if v.dtype else None)
        for v in model.graph.inputs
    }
    names = [v.name or "" for v in model.graph.outputs]
    return run(make_session(serialize(model), optimization="none", threads=1), names, feeds)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def signature(model: ir.Model) -> list[tuple[str | None, Any, tuple[int, ...]]]:
    graph = model.graph
    return [(v.name, v.dtype, static_shape(v)) for v in [*graph.inputs, *graph.outputs]]


def initializer(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def node_of(model: ir.Model, op_type: str) -> ir.Node:
    """The only node of that operator."""
    (found,) = [node for node in model.graph if node.op_type == op_type]
    return found


def all_sources(model: ir.Model) -> set[str]:
    return {label for node in model.graph for label in sources(node)}


def optimized(model: ir.Model, level: int, tolerance: float | None = None) -> list[str]:
    """Optimize in place, assert what every pass promises, and return the operators that are left.

    Inputs and outputs keep names, types and shapes; results stay the same, to the bit at level 1; the shapes noted in
    the graph are the real ones; the result is a valid model.
    """
    before, promised = outputs_of(model), signature(model)
    optimize(model, level)
    assert signature(model) == promised
    assert_consistent(model)
    after = outputs_of(model)
    tolerance = (0.0 if level <= 1 else 2e-5) if tolerance is None else tolerance
    for old, new in zip(before, after, strict=True):
        if not np.array_equal(old, new, equal_nan=True):
            peak = max(float(np.abs(old).max(initial=0.0)), 1e-3)
            assert np.abs(old - new).max(initial=0.0) <= tolerance * peak
    return operators(model)


def assert_consistent(model: ir.Model) -> None:
    """Names are unique, types and shapes are those that ONNX infers, and the checker accepts the model."""
    proto = ir.to_proto(model)
    names = [v.name for node in model.graph for v in node.outputs if v.name] + [v.name for v in model.graph.inputs]
    assert len(names + list(model.graph.initializers)) == len(set(names) | set(model.graph.initializers))
    onnx.checker.check_model(proto)
    noted = {v.name: (v.dtype, static_shape(v)) for node in model.graph for v in node.outputs if v.name}
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    inferred = ir.from_proto(shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True))
    for node in inferred.graph:
        for value in node.outputs:
            if value.name and value.shape is not None and value.shape.is_static():
                assert noted[value.name] == (value.dtype, static_shape(value)), value.name
    assert all(sources(node) for node in model.graph)


def with_batch(model: ir.Model, batch: int) -> ir.Model:
    """A copy whose inputs have another leading dimension and whose other shapes are inferred anew."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return ir.from_proto(shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
