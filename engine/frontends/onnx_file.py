"""Reads an ONNX file from disk as untrusted input: bounded, without leaving its folder, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from engine.errors import FileError, ModelError
from engine.ort import LARGEST_MODEL, newest_opset


def read(path: Path) -> ir.Model:
    """The model in `path` with its external data in memory. Raises FileError or ModelError."""
    proto = _parse(path)
    _check_external_data(proto, path)
    try:
        model: ir.Model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.resolve().parent)
        ir.external_data.load_to_model(model)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, AttributeError) as error:
        raise ModelError(f"is not a valid ONNX model: {error}", where=str(path)) from error
    return model


def _parse(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise FileError("is a folder, not a model file", where=str(path))
    try:
        size = path.stat().st_size
        if size > LARGEST_MODEL:
            raise ModelError("is larger than the 2 GB that ONNX allows", where=str(path), hint="use external data")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not data:
        raise ModelError("is empty", where=str(path), hint="export or download it again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            "is not an ONNX model, or is truncated or corrupt",
            where=str(path),
            hint="export or download it again; for another framework use its own load call",
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


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse weight files outside the model's folder, missing ones, and ones too short for what is claimed."""
    folder = path.resolve().parent
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        where = f"{path}: tensor {tensor.name!r}"
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ModelError(f"external data at {location!r} lies outside the model's folder", where=where)
        if not file.is_file():
            raise FileError(f"external data file {location!r} is missing", where=where, hint="keep it beside the model")
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
        except ValueError as error:
            raise ModelError("external data offset or length is not a number", where=where) from error
        if offset < 0 or length < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"external data file {location!r} is truncated", where=where, hint="copy it again")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("t"):
                yield attr.t
            yield from attr.tensors
            if attr.HasField("g"):
                yield from _tensors(attr.g)
            for sub in attr.graphs:
                yield from _tensors(sub)
