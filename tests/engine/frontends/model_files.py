"""Writes small ONNX models from lines of ONNX text, runs them as they are, and loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from engine.frontends.onnx import load
from engine.graph.execution import run_float

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[int | str | None] | None]
IMAGE: Shapes = {"x": (1, 3, 8, 8)}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def whole(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def model(
    inputs: Shapes,
    body: str,
    constants: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
    dtypes: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model whose nodes are the lines of `body`, as in `y = Add (x, c)`; outputs are declared without type."""
    nodes = [onnx.parser.parse_node(line.strip()) for line in body.strip().splitlines()]
    for node in nodes:
        node.name = f"{node.op_type}_{next(name for name in node.output if name)}"
    kinds = dtypes or {}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, kinds.get(n, dtype), s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's outputs without any optimization of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(feeds))]


def feeds_of(graph: ir.Model, seed: int = 3) -> dict[str, Array]:
    """Random inputs of the loaded model: floats, or whole numbers 0 and 1."""
    source = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in graph.graph.inputs:
        assert value.shape is not None and value.dtype is not None
        shape, kind = value.shape.numpy(), value.dtype.numpy()
        feeds[value.name or ""] = (
            source.normal(size=shape).astype(kind) if kind.kind == "f" else source.integers(0, 2, shape).astype(kind)
        )
    return feeds


def assert_loads_as(
    proto: onnx.ModelProto, folder: Path, *, cut: dict[str, Any] | None = None, tolerance: float = 1e-6
) -> ir.Model:
    """Load the model, assert that it computes on random input what the file does, and return it."""
    graph = load(save(proto, folder), **(cut or {}))
    assert graph.graph.name is not None
    feeds = feeds_of(graph)
    kinds = {v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in proto.graph.input}
    expected = run(proto, {name: array.astype(kinds[name]) for name, array in feeds.items()})
    found = run_float(graph, feeds)
    assert [v.name for v in graph.graph.outputs] == [v.name for v in proto.graph.output]
    for new, old in zip(found, expected, strict=True):
        assert new.shape == old.shape
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance)
    return graph
