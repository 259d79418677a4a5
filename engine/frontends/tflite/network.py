"""What a TFLite file says, as plain data: tensors, operators in order, constants as arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.flatbuffers import File, Table
from engine.frontends.nhwc import Grid
from engine.frontends.reading import CORRUPT
from engine.frontends.tflite import sparse
from engine.frontends.tflite.schema import CUSTOM, IDENTIFIER, OPERATORS, OTHER_TYPES, TABLES, TYPES
from engine.graph.query import Array
from engine.graph.shapes import LARGEST_TENSOR

_GRIDS = ("int8", "uint8", "int16", "int32", "int64", "int4")


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What the file says of a tensor. `dtype` in numpy's words, or as in OTHER_TYPES; `stored` is a constant as the
    file holds it, of integers where there is a `grid`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    grid: Grid | None
    stored: Array | None
    variable: bool

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real values: a grid of integers that are activations or weights."""
        return self.grid is not None and self.dtype in ("int8", "uint8", "int16", "int4")


@dataclasses.dataclass(frozen=True)
class OperatorInfo:
    """One operator; an input of -1 is left out."""

    kind: str
    custom: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Table

    @property
    def shown(self) -> str:
        """The operator as a person knows it: its own name where the format does not know it."""
        return self.custom if self.kind == "CUSTOM" else self.kind


@dataclasses.dataclass(frozen=True)
class SubgraphInfo:
    """One graph of the file."""

    tensors: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[OperatorInfo, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """The graphs of a file; the first is the model. `aliases` are its inputs' and outputs' names in signatures."""

    subgraphs: tuple[SubgraphInfo, ...]
    aliases: Mapping[str, str]
    where: str


def read(data: bytes, where: str) -> Network:
    """What `data`, the content of the file `where`, says. Raises ModelError for what is no TFLite model."""
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelError("is not a TFLite model", where=where, hint="expected the bytes TFL3 at its beginning")
    model = File(data, TABLES, where, hint=CORRUPT).root("Model")
    if model.version != 3:
        raise ModelError(f"is of version {model.version} of the format", where=where, hint="known: 3")
    if not model.subgraphs:
        raise ModelError("holds no graph", where=where, hint=CORRUPT)
    constants = _Constants(data, model.buffers, where)
    subgraphs = tuple(_subgraph(table, model.operator_codes, constants, where) for table in model.subgraphs)
    aliases: dict[str, str] = {}
    for signature in model.signature_defs:
        for entry in (*signature.inputs, *signature.outputs):
            if signature.subgraph_index == 0 and entry.tensor_index < len(subgraphs[0].tensors) and entry.name:
                aliases.setdefault(entry.name, subgraphs[0].tensors[entry.tensor_index].name)
    return Network(subgraphs, aliases, where)


def _subgraph(table: Table, codes: tuple[Table, ...], constants: _Constants, where: str) -> SubgraphInfo:
    tensors = tuple(_tensor(t, index, constants, where) for index, t in enumerate(table.tensors))

    def known(numbers: tuple[int, ...], lowest: int) -> tuple[int, ...]:
        if any(not lowest <= number < len(tensors) for number in numbers):
            raise ModelError("reads a tensor that is not there", where=where, hint=CORRUPT)
        return numbers

    operators = []
    for entry in table.operators:
        if entry.opcode_index >= len(codes):
            raise ModelError("has an operator that is not there", where=where, hint=CORRUPT)
        code = codes[entry.opcode_index]
        number = max(code.builtin_code, code.deprecated_builtin_code)
        kind = OPERATORS.get(number, f"operator {number}")
        custom = (code.custom_code or "?") if number == CUSTOM else ""
        operators.append(
            OperatorInfo(kind, custom, code.version, known(entry.inputs, -1), known(entry.outputs, 0), entry)
        )
    return SubgraphInfo(tensors, known(table.inputs, 0), known(table.outputs, 0), tuple(operators))


def _tensor(table: Table, index: int, constants: _Constants, where: str) -> TensorInfo:
    name = table.name or f"tensor_{index}"
    shape = table.shape
    place = f"{where}: tensor {name!r}"
    if any(dim < 0 for dim in shape) or math.prod(shape) > LARGEST_TENSOR:
        raise ModelError(f"has the shape {list(shape)}", where=place, hint=CORRUPT)
    dtype = TYPES.get(table.type) or OTHER_TYPES.get(table.type)
    if dtype is None:
        raise ModelError(f"has the type {table.type}", where=place, hint=CORRUPT)
    stored = None if table.is_variable else constants.array(table, dtype, place)
    return TensorInfo(name, shape, dtype, _grid(table, dtype, shape, place), stored, table.is_variable)


def _grid(table: Table, dtype: str, shape: tuple[int, ...], place: str) -> Grid | None:
    parameters = table.quantization
    if parameters is None or not parameters.scale or dtype not in _GRIDS:
        return None
    if parameters.details_type:
        raise ModelError("is quantized in a way of its own", where=place, hint="known: scale and zero_point")
    scales = parameters.scale
    if any(not math.isfinite(scale) or scale < 0 for scale in scales):
        raise ModelError("its scale is not a positive number", where=place)
    # A channel without weights may have the scale 0; all of its values are 0 on any.
    scales = tuple(scale or 1.0 for scale in scales)
    points = parameters.zero_point or (0,)
    points = points * len(scales) if len(points) == 1 else points
    if len(points) != len(scales):
        raise ModelError(f"has {len(scales)} scales and {len(points)} zero points", where=place, hint=CORRUPT)
    dtype = "int8" if dtype == "int4" else dtype
    if len(scales) == 1:
        return Grid(dtype, scales, points)
    axis = parameters.quantized_dimension
    if not 0 <= axis < len(shape) or shape[axis] != len(scales):
        raise ModelError(f"has {len(scales)} scales for the shape {list(shape)}", where=place, hint=CORRUPT)
    return Grid(dtype, scales, points, axis)


class _Constants:
    """The buffers of a file as arrays."""

    def __init__(self, data: bytes, buffers: tuple[Table, ...], where: str) -> None:
        self._data = data
        self._buffers = buffers
        self._where = where

    def array(self, table: Table, dtype: str, place: str) -> Array | None:
        """What the tensor of `table` holds; None where its buffer is empty, as that of computed ones."""
        if table.buffer >= len(self._buffers):
            raise ModelError("has a buffer that is not there", where=place, hint=CORRUPT)
        raw = self._bytes(self._buffers[table.buffer], place)
        if not len(raw):
            return None
        if dtype == "int4" and table.sparsity is None:
            return _nibbles(raw, table.shape, place)
        if dtype not in TYPES.values():
            return None
        kind: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        if table.sparsity is not None and table.sparsity.traversal_order:
            if len(raw) % kind.itemsize or not sparse.fits(table.shape):
                raise ModelError(f"has {len(raw)} bytes of {dtype}", where=place, hint=CORRUPT)
            values = np.frombuffer(raw, kind).astype(dtype, copy=False)
            return sparse.dense(values, table.shape, table.sparsity, place)
        if len(raw) != math.prod(table.shape) * kind.itemsize:
            raise ModelError(
                f"has {len(raw)} bytes for the shape {list(table.shape)} of {dtype}", where=place, hint=CORRUPT
            )
        stored: Array = np.frombuffer(raw, kind).reshape(table.shape).astype(dtype, copy=False)
        return stored

    def _bytes(self, buffer: Table, place: str) -> memoryview:
        # Files of more than 2 GB keep buffers behind the tables.
        if buffer.offset > 1 and buffer.size:
            if buffer.offset + buffer.size > len(self._data):
                raise ModelError("its values lie outside of the file", where=place, hint=CORRUPT)
            return memoryview(self._data)[buffer.offset : buffer.offset + buffer.size]
        return memoryview(buffer.data or b"")


def _nibbles(raw: memoryview, shape: tuple[int, ...], place: str) -> Array:
    count = math.prod(shape)
    if len(raw) != (count + 1) // 2:
        raise ModelError(f"has {len(raw)} bytes for the shape {list(shape)} of int4", where=place, hint=CORRUPT)
    pairs = np.frombuffer(raw, np.uint8)
    numbers = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(numbers > 7, numbers - 16, numbers).astype(np.int8).reshape(shape)


def real_values(stored: Array, grid: Grid) -> Array:
    """The real values of integers on a grid, float32."""
    scale = np.array(grid.scale, np.float32)
    zero = np.array(grid.zero_point, np.int64)
    if grid.axis is not None:
        shape = [1] * stored.ndim
        shape[grid.axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    real: Array = (stored.astype(np.int64) - zero).astype(np.float32) * scale
    return real
