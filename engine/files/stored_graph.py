"""The graph of a model as our files hold it: plain ONNX, which other programs read too."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from engine.errors import FileError, ModelError
from engine.files.members import AGAIN
from engine.graph.describe import source_opset
from engine.graph.given import given
from engine.graph.layers import Layer, layers
from engine.graph.provenance import sources
from engine.graph.query import constant, static_shape, tensors
from engine.ort import LARGEST_MODEL, make_session


def graph_to_bytes(model: ir.Model) -> bytes:
    """The graph as ONNX; equal graphs give equal bytes. Raises ModelError when it is larger than ONNX can hold."""
    proto: onnx.ModelProto = ir.to_proto(model)
    if proto.ByteSize() > LARGEST_MODEL:
        raise ModelError("the model is larger than 2 GB", hint="cut it with `inputs` and `outputs`")
    return bytes(proto.SerializeToString(deterministic=True))


def graph_from_bytes(data: bytes, where: str) -> tuple[ir.Model, tuple[Layer, ...]]:
    """The graph and its layers, looked over as far as anybody reads it, so that a forged one is found out here.

    Raises FileError.
    """
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
        # A tensor may name a file to hold its numbers; ours never do, and no file is to be opened for them.
        if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in _tensors(proto.graph)):
            raise FileError("has a graph that refers to other files", where=where, hint=AGAIN)
        make_session(data, optimization="none")
        model: ir.Model = ir.from_proto(proto)
        source_opset(model)
        for node in model.graph:
            sources(node)
        for value in tensors(model.graph):
            static_shape(value)
            given(value)
        for value in model.graph.initializers.values():
            constant(value)
            static_shape(value)
            given(value)
        return model, layers(model)
    except FileError:
        raise
    except Exception as error:  # protobuf and onnx_ir raise many classes without a common base
        raise FileError(f"holds a graph that cannot be read: {error}", where=where, hint=AGAIN) from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for body in (attribute.g, *attribute.graphs):
                yield from _tensors(body)
