"""A built model as our files hold it, and the members and facts that they share."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.config import Config
from engine.errors import FileError
from engine.files.arrays import Arrays, ArraysIn
from engine.files.compiled import Compiled, compiled_in
from engine.files.members import AGAIN, Members
from engine.files.provenance import Provenance
from engine.files.stored_graph import WEIGHTS, graph_and_weights, graph_from_bytes
from engine.graph.batching import LARGEST_BATCH
from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.query import attribute, constant
from engine.ort import LARGEST_MODEL
from engine.quantization.edits import check_wish
from engine.quantization.quantized import Array, Corrections, Quantized
from engine.quantization.table import GRIDS, LARGEST_CFG, from_cfg, to_cfg
from engine.quantization.weights import output_channel_axis

_TABLE, _GRAPH, _CORRECTIONS = "table.cfg", "graph.onnx", "corrections.bin"
_FLOAT32 = np.dtype("<f4")
# What numpy writes before the numbers takes 128 bytes.
_LARGEST_HEADER = 1 << 10
_LONGEST_TEXT = 1 << 10


@dataclasses.dataclass(frozen=True)
class Stored:
    """A built model: the graph for one sample with its table and corrections, and how it was built.

    precision: 'int8', 'int16' or 'float16'. batch: how many times the graph's own batch the built model takes.
    recipe: how it was quantized, in words. equalized: the layers whose weights were brought to similar ranges. samples:
    how many it was calibrated with.
    """

    quantized: Quantized
    config: Config
    precision: str
    batch: int
    recipe: str = ""
    equalized: tuple[str, ...] = ()
    samples: int = 0
    provenance: Provenance = dataclasses.field(default_factory=Provenance)
    compiled: tuple[Compiled, ...] = ()

    def changed(self, quantized: Quantized) -> Stored:
        """The same with another quantized model; what was compiled of the old one is left out."""
        return dataclasses.replace(self, quantized=quantized, compiled=())

    def with_compiled(self, binary: Compiled) -> Stored:
        """The same with a compiled model beside it, in place of an earlier one for the same chip."""
        others = [one for one in self.compiled if one.target != binary.target]
        found = sorted((*others, binary), key=lambda one: one.target)
        return dataclasses.replace(self, compiled=tuple(found))


def content_of(stored: Stored) -> tuple[dict[str, Any], dict[str, bytes | Arrays]]:
    """The facts and the members of a package; large arrays are in members of their own, one behind the other.

    Raises ModelError, and FileError where a compiled model is no longer what it was.
    """
    graph, weights = graph_and_weights(stored.quantized.model)
    corrections = Arrays()
    places = {
        kind: {name: corrections.add(np.asarray(arrays[name], _FLOAT32)) for name in sorted(arrays)}
        for kind, arrays in _arrays(stored.quantized.corrections)
    }
    members: dict[str, bytes | Arrays] = {_GRAPH: graph, _TABLE: to_cfg(stored.quantized.table).encode()}
    members.update({name: arrays for name, arrays in ((WEIGHTS, weights), (_CORRECTIONS, corrections)) if arrays.size})
    members.update({binary.member: binary.read() for binary in stored.compiled})
    facts = {
        "target": stored.config.target_platform,
        "precision": stored.precision,
        "batch": stored.batch,
        "config": stored.config.to_mapping(),
        "provenance": stored.provenance.to_mapping(),
        "calibration": {
            "algorithm": stored.config.quantized_algorithm,
            "recipe": stored.recipe,
            "equalized": list(stored.equalized),
            "samples": stored.samples,
        },
        "corrections": places,
        "compiled": [binary.to_mapping() for binary in stored.compiled],
    }
    return facts, members


def members_of(stored: Stored) -> dict[str, bytes]:
    """What is stored beside the graph."""
    found = {_TABLE: to_cfg(stored.quantized.table).encode()}
    for kind, arrays in _arrays(stored.quantized.corrections):
        found.update({_member(kind, index): _npy(arrays[name]) for index, name in enumerate(sorted(arrays))})
    return found


def facts_of(stored: Stored) -> dict[str, Any]:
    """What the manifest says of the model."""
    return {
        "target": stored.config.target_platform,
        "precision": stored.precision,
        "batch": stored.batch,
        "config": stored.config.to_mapping(),
        "recipe": stored.recipe,
        "equalized": list(stored.equalized),
        "samples": stored.samples,
        "provenance": stored.provenance.to_mapping(),
        **{kind: sorted(arrays) for kind, arrays in _arrays(stored.quantized.corrections)},
    }


def stored_in(members: Members, graph: bytes) -> Stored:
    """The model that `graph` and `members`, with a member for each corrected array, hold.

    What the first version did not know may be missing. Everything is looked over as far as anybody reads it. Raises
    FileError, ConfigError or QuantizationError.
    """
    manifest, where = members.manifest, members.where
    model, model_layers = graph_from_bytes(graph, where)
    known = Provenance.from_mapping(manifest.get("provenance", {}), where)
    found = _facts(members, manifest)
    return _assembled(members, found, model, model_layers, _corrections(members, model), known)


def stored_in_arrays(members: Members) -> Stored:
    """The model that a package holds as `content_of` makes it; its arrays lie in the file. Raises as `stored_in`."""
    manifest, where = members.manifest, members.where
    strange = set(members.names) - {_GRAPH, _TABLE, WEIGHTS, _CORRECTIONS}
    found = _facts(members, _mapping(manifest, "calibration", where))
    known = Provenance.from_mapping(manifest["provenance"], where)
    compiled = compiled_in(members, manifest["compiled"])
    strange -= {binary.member for binary in compiled}
    if strange:
        raise FileError(f"holds {min(strange)!r:.60}, which is nothing of ours", where=where, hint=AGAIN)
    weights = ArraysIn(_content(members, WEIGHTS), f"{where}: {WEIGHTS}")
    model, model_layers = graph_from_bytes(members.read(_GRAPH, LARGEST_MODEL), where, weights)
    corrections = _corrections_in(members, model)
    return _assembled(members, found, model, model_layers, corrections, known, compiled)


@dataclasses.dataclass(frozen=True)
class _Facts:
    config: Config
    precision: str
    batch: int
    recipe: str
    equalized: tuple[str, ...]
    samples: int


def _facts(members: Members, calibration: Mapping[str, Any]) -> _Facts:
    where, manifest = members.where, members.manifest
    precision, batch = manifest["precision"], manifest["batch"]
    if precision not in (*GRIDS, "float16") or type(batch) is not int or not 0 < batch <= LARGEST_BATCH:
        raise FileError(f"says precision {precision!r:.40} and batch {batch!r:.40}", where=where, hint=AGAIN)
    config = Config.from_mapping(manifest["config"])
    recipe, samples = calibration.get("recipe", ""), calibration.get("samples", 0)
    if not isinstance(recipe, str) or len(recipe) > _LONGEST_TEXT or type(samples) is not int or samples < 0:
        raise FileError(f"says recipe {recipe!r:.40} and {samples!r:.40} samples", where=where, hint=AGAIN)
    return _Facts(config, precision, batch, recipe, tuple(_names(calibration, "equalized", where)), samples)


def _assembled(
    members: Members,
    facts: _Facts,
    model: ir.Model,
    model_layers: tuple[Layer, ...],
    corrections: Corrections,
    provenance: Provenance,
    compiled: tuple[Compiled, ...] = (),
) -> Stored:
    where = f"{members.where}: {_TABLE}"
    table = from_cfg(members.read(_TABLE, LARGEST_CFG).decode(), where=where)
    quantized = Quantized(model, model_layers, table, facts.config.quantized_method, corrections)
    for tensor, wish in table.wishes.items():
        check_wish(quantized, tensor, wish, facts.config.target, where=f"{where}: {tensor!r}")
    return Stored(
        quantized,
        facts.config,
        facts.precision,
        facts.batch,
        facts.recipe,
        facts.equalized,
        facts.samples,
        provenance,
        compiled,
    )


def _content(members: Members, name: str) -> Array:
    if name not in members.names:
        return np.empty(0, np.uint8)
    return members.mapped(name, LARGEST_MODEL)


def _arrays(corrections: Corrections) -> tuple[tuple[str, Mapping[str, Array]], ...]:
    return ("weights", corrections.weights), ("biases", corrections.biases)


def _member(kind: str, index: int) -> str:
    return f"{kind}/{index}.npy"


def _correctable(model: ir.Model) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of what the layers of a graph can have corrected."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {"weights": {}, "biases": {}}
    for node in model.graph:
        weight = constant(node.inputs[1]) if node.op_type in CONVOLUTIONS and len(node.inputs) > 1 else None
        name, axis = node.outputs[0].name or "", output_channel_axis(node) if weight is not None else None
        if weight is None or not name:
            continue
        shapes["weights"][name] = weight.shape
        if axis is not None and node.op_type != "MatMul":
            groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
            shapes["biases"][name] = (weight.shape[axis] * groups,)
    return shapes


def _corrections_in(members: Members, model: ir.Model) -> Corrections:
    where = f"{members.where}: {_CORRECTIONS}"
    places = _mapping(members.manifest, "corrections", members.where)
    arrays = ArraysIn(_content(members, _CORRECTIONS), where)
    found: dict[str, dict[str, Array]] = {"weights": {}, "biases": {}}
    for kind, known in _correctable(model).items():
        for name, offset in _mapping(places, kind, members.where).items():
            if name not in known:
                raise FileError(f"holds {kind} of {name!r:.60}, which has none", where=where, hint=AGAIN)
            array = found[kind][name] = arrays.take(offset, known[name], _FLOAT32)
            if not np.isfinite(array).all():
                raise FileError(f"has {kind} of {name!r:.60} that are infinite or none", where=where, hint=AGAIN)
    arrays.finish()
    return Corrections(found["weights"], found["biases"])


def _corrections(members: Members, model: ir.Model) -> Corrections:
    found: dict[str, dict[str, Array]] = {"weights": {}, "biases": {}}
    for kind, known in _correctable(model).items():
        for index, name in enumerate(_names(members.manifest, kind, members.where)):
            where = f"{members.where}: {_member(kind, index)}"
            if name not in known:
                raise FileError(f"holds {kind} of {name!r}, which has none", where=where, hint=AGAIN)
            size = _LARGEST_HEADER + math.prod(known[name]) * _FLOAT32.itemsize
            found[kind][name] = _array(members.read(_member(kind, index), size), known[name], where)
    return Corrections(found["weights"], found["biases"])


def _mapping(manifest: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = manifest.get(key)
    if not isinstance(found, dict):
        raise FileError(f"tells no {key}", where=where, hint=AGAIN)
    return found


def _names(manifest: Mapping[str, Any], key: str, where: str) -> Iterable[str]:
    names = manifest.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise FileError(f"has {key} that are no list of names", where=where, hint=AGAIN)
    return names


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array, _FLOAT32), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _array(data: bytes, shape: tuple[int, ...], where: str) -> Array:
    """The array of `shape` in an npy file. Read by hand, since numpy believes any size that a header tells."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise FileError("is no npy file of version 1", where=where, hint=AGAIN)
    told, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if told != shape or by_columns or dtype != _FLOAT32 or len(data) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise FileError(f"is no array of {shape} float32 numbers", where=where, hint=AGAIN)
    array = np.frombuffer(data, _FLOAT32, offset=file.tell()).reshape(shape)
    if not np.isfinite(array).all():
        raise FileError("has numbers that are infinite or none", where=where, hint=AGAIN)
    return array
