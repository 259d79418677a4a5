"""Our own .rknn package: a zip, stored, with the graph, the table and a manifest that names and checks them.

The same build gives the same bytes. Every version ever written stays readable; this is version 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from engine.config import Config
from engine.errors import EngineError, FileError
from engine.files.writing import replacing
from engine.graph.batching import LARGEST_BATCH
from engine.graph.describe import source_opset
from engine.graph.given import given
from engine.graph.layers import Layer, layers
from engine.graph.provenance import sources
from engine.graph.query import constant, static_shape, tensors
from engine.ort import LARGEST_MODEL, make_session
from engine.quantization.quantized import Quantized
from engine.quantization.table import LARGEST_CFG, from_cfg, to_cfg

FORMAT, VERSION = "rknn-tui", 1
_MANIFEST, _GRAPH, _TABLE = "manifest.json", "graph.onnx", "table.cfg"
_LIMITS = {_MANIFEST: 1 << 20, _GRAPH: LARGEST_MODEL, _TABLE: LARGEST_CFG}
_AGAIN = "export it again"
# What Python's zip and JSON readers raise on bytes that are neither.
_DAMAGE = (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, OverflowError)
# Zip wants a date; a fixed one keeps equal builds equal.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Package:
    """A built model as stored: the graph for one sample with its table and corrections, and how it was built.

    precision: 'int8' or 'float16'. batch: how many times the graph's own batch the built model takes.
    """

    quantized: Quantized
    config: Config
    precision: str
    batch: int


def write(path: str | Path, package: Package) -> None:
    """Write the package; an existing file is replaced only when the new one is complete. Raises FileError."""
    proto: onnx.ModelProto = ir.to_proto(package.quantized.model)
    members = {
        _GRAPH: bytes(proto.SerializeToString(deterministic=True)),
        _TABLE: to_cfg(package.quantized.table).encode(),
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "target": package.config.target_platform,
        "precision": package.precision,
        "batch": package.batch,
        "config": package.config.to_mapping(),
        "members": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
        },
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_MANIFEST: text, **members}.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def read(path: str | Path) -> Package:
    """The package in `path`, every member checked against its sum. Raises FileError on anything else."""
    where = str(path)
    head = _head(Path(path))
    if head.startswith((b"RKNN", b"CYPTRKNN", b"RKNX")) or head[4:8] == b"RKNN":
        raise FileError(
            "is a file of the vendor's compiler, which runs only on a board", where=where, hint="load the source model"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(_member(archive, _MANIFEST, where))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise FileError("is not a package of this tool", where=where)
            if manifest.get("version") != VERSION:
                raise FileError(
                    f"has format version {manifest.get('version')!r}; this program reads up to {VERSION}",
                    where=where,
                    hint="update the program",
                )
            data = {name: _checked(archive, name, manifest, where) for name in (_GRAPH, _TABLE)}
        precision, batch = manifest["precision"], manifest["batch"]
        if precision not in ("int8", "int16", "float16") or type(batch) is not int or not 0 < batch <= LARGEST_BATCH:
            raise FileError(f"says precision {precision!r:.40} and batch {batch!r:.40}", where=where, hint=_AGAIN)
        config = Config.from_mapping(manifest["config"])
        model, model_layers = _graph(data[_GRAPH], where)
        table = from_cfg(data[_TABLE].decode(), where=f"{where}: {_TABLE}")
        return Package(Quantized(model, model_layers, table, config.quantized_method), config, precision, batch)
    except EngineError:
        raise
    except _DAMAGE as error:
        raise FileError(f"is not a package of this tool, or is damaged: {error}", where=where, hint=_AGAIN) from error


def _graph(data: bytes, where: str) -> tuple[ir.Model, tuple[Layer, ...]]:
    """The graph and its layers, looked over as far as anybody reads it, so that a forged one is found out here.

    Raises FileError.
    """
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(data)
        # A tensor may name a file to hold its numbers; ours never do, and no file but the package is to be opened.
        if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in _tensors(proto.graph)):
            raise FileError("has a graph that refers to other files", where=where, hint=_AGAIN)
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
        raise FileError(f"holds a graph that cannot be read: {error}", where=where, hint=_AGAIN) from error


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


def is_package(path: str | Path) -> bool:
    """Whether the file looks like one of ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _MANIFEST in archive.namelist()
    except _DAMAGE:
        return False


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _LIMITS[name]:
        raise FileError(f"member {name!r} is compressed or too large", where=where, hint=_AGAIN)
    return archive.read(info)


def _checked(archive: zipfile.ZipFile, name: str, manifest: dict[str, Any], where: str) -> bytes:
    data = _member(archive, name, where)
    if hashlib.sha256(data).hexdigest() != manifest["members"][name]["sha256"]:
        raise FileError(f"member {name!r} does not match its checksum", where=where, hint="copy or export it again")
    return data
