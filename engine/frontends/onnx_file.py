"""Reads an ONNX file from disk as untrusted input: bounded, without leaving its folder, nothing executed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.helper
import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from engine.errors import FileError, ModelError
from engine.frontends.reading import CORRUPT, read_bytes
from engine.ort import LARGEST_MODEL, newest_opset

_CONTENTS = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def read(path: Path) -> ir.Model:
    """The model in `path` with its external data in memory. Raises FileError or ModelError."""
    proto = _parse(path)
    _check_text(proto, path)
    _check_names(proto.graph, path)
    _load_external_data(proto, path)
    _check_content(proto, path)
    try:
        model: ir.Model = ir.from_proto(proto)
        for graph in model.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None:
                    value.const_value.numpy()  # does its content fill its shape?
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"is not a valid ONNX model: {error}", where=str(path), hint=CORRUPT) from error
    return model


def _parse(path: Path) -> onnx.ModelProto:
    data = read_bytes(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "is not an ONNX model, or is truncated or corrupt",
            where=str(path),
            hint="export or download it again, unless it is of another framework",
        ) from error
    # Protobuf reads many other files as an empty or odd message.
    if not proto.graph.node or not proto.opset_import or not proto.graph.output:
        raise ModelError("holds no ONNX graph", where=str(path), hint="is it a model of another framework?")
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and not 7 <= entry.version <= newest_opset():
            raise ModelError(
                f"uses opset {entry.version}; opsets 7 to {newest_opset()} can be read",
                where=str(path),
                hint="export it with another opset_version",
            )
    return proto


def _check_text(message: Message, path: Path) -> None:
    """Refuse names that are not text, which protobuf hands on as bytes."""
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING):
            continue
        for item in (value,) if isinstance(value, (str, bytes, Message)) else value:
            if isinstance(item, Message):
                _check_text(item, path)
            elif not isinstance(item, str):
                raise ModelError(f"holds the name {item[:60]!r}, which is not text", where=str(path), hint=CORRUPT)


def _check_names(graph: onnx.GraphProto, path: Path) -> None:
    """Every tensor of the main graph is made once, the outputs are made at all and are what makes them."""
    seen: set[str] = set()
    for name in [*(v.name for v in graph.input), *(name for node in graph.node for name in node.output if name)]:
        if name in seen:
            raise ModelError(f"tensor {name!r} is made twice", where=str(path), hint=CORRUPT)
        seen.add(name)
    constants = [tensor.name for tensor in graph.initializer]
    seen.update(constants)
    if len(set(constants)) < len(constants) or any(name in constants for n in graph.node for name in n.output if name):
        raise ModelError("a constant is defined twice", where=str(path), hint=CORRUPT)
    own = {value.name: value.type for value in graph.input}
    for tensor in graph.initializer:
        own.setdefault(tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
    for value in graph.output:
        if value.name not in seen:
            raise ModelError(f"output {value.name!r} is made by nothing", where=str(path), hint=CORRUPT)
        if value.name in own:  # what is said of the output would count for the input or constant
            value.type.CopyFrom(own[value.name])


def _load_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Read weights from files in the model's folder; refuse others, missing ones, and ones too short for the claim."""
    folder = path.resolve().parent
    total = path.stat().st_size
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        where = f"{path}: tensor {tensor.name!r}"
        if not location or "\0" in location or Path(location).is_absolute():
            raise ModelError(f"external data at {location!r} lies outside the model's folder", where=where)
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(f"external data at {location!r} lies outside the model's folder", where=where)
        if not file.is_file():
            raise FileError(f"external data file {location!r} is missing", where=where, hint="keep it beside the model")
        needed = _bytes(tensor, where)
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(needed)))
        except ValueError as error:
            raise ModelError("external data offset or length is not a number", where=where) from error
        if length != needed:
            raise ModelError(f"{length} bytes of external data do not fill its shape", where=where, hint=CORRUPT)
        if offset < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"external data file {location!r} is truncated", where=where, hint="copy it again")
        total += length
        if total > LARGEST_MODEL:
            raise ModelError("is larger than 2 GB with its external data", where=str(path))
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT


def _check_content(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse tensors of a shape with elements that hold none, which onnx_ir would fill with zeros, however many."""
    for tensor in _tensors(proto):
        if math.prod(tensor.dims) and not any(len(getattr(tensor, field)) for field in _CONTENTS):
            raise ModelError(f"tensor {tensor.name!r} has no content", where=str(path), hint=CORRUPT)


def _bytes(tensor: onnx.TensorProto, where: str) -> int:
    """What the tensor's elements take in a file."""
    try:
        bits = round(ir.DataType(tensor.data_type).itemsize * 8)
    except (ValueError, TypeError) as error:
        raise ModelError(f"external data of type {tensor.data_type} cannot be read", where=where) from error
    elements: int = math.prod(max(dim, 0) for dim in tensor.dims)
    return math.ceil(elements * bits / 8)


def _tensors(message: onnx.ModelProto | onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, in subgraphs and functions too."""
    if isinstance(message, onnx.ModelProto):
        for part in (message.graph, *message.functions):
            yield from _tensors(part)
        return
    if isinstance(message, onnx.GraphProto):
        yield from message.initializer
        for sparse in message.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in message.node:
        for attr in node.attribute:
            if attr.HasField("t"):
                yield attr.t
            yield from attr.tensors
            if attr.HasField("g"):
                yield from _tensors(attr.g)
            for sub in attr.graphs:
                yield from _tensors(sub)
