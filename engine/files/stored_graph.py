"""The graph of a model as our files hold it: plain ONNX, which other programs read too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir

from engine.errors import FileError, ModelError
from engine.files.arrays import MOST_AXES, Arrays, ArraysIn
from engine.files.members import AGAIN
from engine.graph.describe import source_opset
from engine.graph.given import given
from engine.graph.layers import Layer, layers
from engine.graph.provenance import sources
from engine.graph.query import constant, static_shape, tensors
from engine.ort import LARGEST_MODEL, make_session

Array = np.ndarray[Any, Any]

WEIGHTS = "weights.bin"
"""The file beside the graph that its large constants are in, where they are apart; as ONNX's external data has it."""

# Bytes. Smaller constants stay in the graph: shapes and the like, which other programs look for there.
_SMALLEST_APART = 1 << 10
_MOST_ELEMENTS = 1 << 32
_APART = {
    getattr(onnx.TensorProto, name)
    for name in (
        "FLOAT", "FLOAT16", "DOUBLE", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
    )
}  # fmt: skip


def graph_to_bytes(model: ir.Model) -> bytes:
    """The graph as ONNX; equal graphs give equal bytes. Raises ModelError when it is larger than ONNX can hold."""
    proto: onnx.ModelProto = ir.to_proto(model)
    if proto.ByteSize() > LARGEST_MODEL:
        raise ModelError("the model is larger than 2 GB", hint="cut it with `inputs` and `outputs`")
    return bytes(proto.SerializeToString(deterministic=True))


def graph_and_weights(model: ir.Model) -> tuple[bytes, Arrays]:
    """The graph as ONNX whose large constants are in a file `weights.bin` beside it, and what that file holds.

    They are not copied. Equal graphs give equal bytes. Raises ModelError when it is larger than ONNX can hold.
    """
    weights = Arrays()
    graph = model.graph
    hollow = ir.GraphView(
        graph.inputs,
        graph.outputs,
        nodes=graph,
        initializers=[_hollow(value, weights) for value in graph.initializers.values()],
        doc_string=graph.doc_string,
        opset_imports=graph.opset_imports,
        name=graph.name,
        metadata_props=graph.metadata_props,
    )
    proto: onnx.ModelProto = ir.to_proto(
        ir.Model(
            hollow,  # type: ignore[arg-type]  # which onnx_ir allows for this
            ir_version=model.ir_version,
            producer_name=model.producer_name,
            producer_version=model.producer_version,
            domain=model.domain,
            model_version=model.model_version,
            doc_string=model.doc_string,
            functions=list(model.functions.values()),
            metadata_props=model.metadata_props,
        )
    )
    if proto.ByteSize() + weights.size > LARGEST_MODEL:
        raise ModelError("the model is larger than 2 GB", hint="cut it with `inputs` and `outputs`")
    return bytes(proto.SerializeToString(deterministic=True)), weights


def _hollow(value: ir.Value, weights: Arrays) -> ir.Value:
    """A constant as it is, or, where it is large, one like it whose numbers are in `weights`."""
    tensor = value.const_value
    if tensor is None or tensor.dtype.value not in _APART or tensor.nbytes < _SMALLEST_APART:
        return value
    array = constant(value)
    if array is None:
        return value
    apart = ir.ExternalTensor(
        WEIGHTS, weights.add(array), array.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=value.name or ""
    )
    found = ir.Value(
        name=value.name,
        shape=value.shape,
        type=value.type,
        doc_string=value.doc_string,
        const_value=apart,
        metadata_props=value.metadata_props,
    )
    found.meta.update(value.meta)
    return found


def graph_from_bytes(data: bytes, where: str, weights: ArraysIn | None = None) -> tuple[ir.Model, tuple[Layer, ...]]:
    """The graph and its layers, looked over as far as anybody reads it, so that a forged one is found out here.

    Its large constants are those in `weights`, where they are apart, and stay where they lie. Raises FileError.
    """
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
        apart = {} if weights is None else _take_apart(proto.graph, weights, where)
        # A tensor may name a file to hold its numbers; ours never do, and no file is to be opened for them.
        if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in _tensors(proto.graph)):
            raise FileError("has a graph that refers to other files", where=where, hint=AGAIN)
        _check_runs(data, proto, apart)
        model: ir.Model = ir.from_proto(proto)
        for name, array in apart.items():
            model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
        source_opset(model)
        for node in model.graph:
            sources(node)
        for value in tensors(model.graph):
            _check_shape(value, where)
            given(value)
        for value in model.graph.initializers.values():
            constant(value)
            _check_shape(value, where)
            given(value)
        return model, layers(model)
    except FileError:
        raise
    except Exception as error:  # protobuf and onnx_ir raise many classes without a common base
        raise FileError(f"holds a graph that cannot be read: {error}", where=where, hint=AGAIN) from error


def _check_runs(data: bytes, proto: onnx.ModelProto, apart: Mapping[str, Array]) -> None:
    """Raise ModelError where ONNX Runtime refuses the graph."""
    if not apart:
        make_session(data, optimization="none")
        return
    # Constants would be copied; as inputs they need not be there.
    hollow = onnx.ModelProto()
    hollow.CopyFrom(proto)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in apart]
    del hollow.graph.initializer[:]
    hollow.graph.initializer.extend(kept)
    known = {value.name for value in hollow.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name in apart and tensor.name not in known:
            hollow.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        make_session(hollow, optimization="none")
    except ModelError:  # some kernels ask for a constant
        make_session(data, optimization="none", apart=apart)


def _check_shape(value: ir.Value, where: str) -> None:
    """Raise FileError for a shape that nothing could compute with, ValueError where it is not known."""
    shape = static_shape(value)
    # In this order: the product of many large sizes alone would take hours.
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) > _MOST_ELEMENTS:
        raise FileError("has a graph with a tensor of a size that cannot be", where=where, hint=AGAIN)


def _take_apart(graph: onnx.GraphProto, weights: ArraysIn, where: str) -> dict[str, Array]:
    """The constants that lie in `weights`; those of the graph are left without numbers."""
    found: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        if (
            told.keys() != {"location", "offset", "length"}
            or told["location"] != WEIGHTS
            or tensor.data_type not in _APART
            or tensor.name in found
            or any(size < 0 for size in tensor.dims)
        ):
            raise FileError("has a graph that refers to other files", where=where, hint=AGAIN)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        array = found[tensor.name] = weights.take(int(told["offset"]), tensor.dims, dtype)
        if int(told["length"]) != array.nbytes:
            raise FileError("has a graph with a constant of another length", where=where, hint=AGAIN)
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    weights.finish()
    return found


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
