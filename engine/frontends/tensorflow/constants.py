"""Decodes the constants of a GraphDef: their types, shapes and contents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.graph.query import Array
from engine.graph.shapes import LARGEST_TENSOR

HALF, BFLOAT16 = 19, 14

# DataType of types.proto: how its elements lie in tensor_content, and the field of single values.
_STORED: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
    11: ("i1", "int_val"),
    12: ("u1", "int_val"),
    13: ("<i4", "int_val"),
    BFLOAT16: ("<u2", "half_val"),
    15: ("<i2", "int_val"),
    16: ("<u2", "int_val"),
    17: ("<u2", "int_val"),
    HALF: ("<f2", "half_val"),
    22: ("<u4", "uint32_val"),
    23: ("<u8", "uint64_val"),
}
_NAMES = {7: "string", 8: "complex64", 18: "complex128", 20: "resource", 21: "variant"}

# The types that tensors of the graph have; all floats are float32.
_NUMPY: dict[int, Any] = {
    1: np.float32,
    2: np.float32,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    11: np.int8,
    12: np.uint8,
    13: np.int32,
    BFLOAT16: np.float32,
    17: np.uint16,
    HALF: np.float32,
    22: np.uint32,
    23: np.uint64,
}
_MOST_DIMENSIONS = 16
_MOST_REPEATED = 1 << 24


def dtype_name(number: int) -> str:
    """What a person calls a DataType."""
    if number in _NUMPY:
        return "bfloat16" if number == BFLOAT16 else "float16" if number == HALF else str(np.dtype(_NUMPY[number]))
    return _NAMES.get(number, f"type {number}")


def numpy_type(number: int) -> np.dtype[Any] | None:
    """The numpy type of tensors of a DataType in our graph, or None for strings, complex numbers and the like."""
    # A reference to a variable is its type plus 100.
    found = _NUMPY.get(number - 100 if number > 100 else number)
    return None if found is None else np.dtype(found)


def graph_type(number: int) -> ir.DataType | None:
    """The type of tensors of a DataType in our graph, or None."""
    found = numpy_type(number)
    return None if found is None else ir.DataType.from_numpy(found)


def dimensions(shape: Any) -> list[int | None] | None:
    """The dimensions of a TensorShapeProto, None for unknown ones; None where the rank is unknown."""
    if shape.unknown_rank or len(shape.dim) > _MOST_DIMENSIONS:
        return None
    return [dim.size if dim.size >= 0 else None for dim in shape.dim]


def decode(proto: Any, where: str) -> Array:
    """The array of a TensorProto, floats as float32. Raises ModelError for what contradicts itself, is too large, or
    is no number."""
    number = proto.dtype
    if number not in _STORED or number not in _NUMPY:
        raise ModelError(f"its constant holds {dtype_name(number)} values", where=where)
    dims = [dim.size for dim in proto.tensor_shape.dim]
    count = _count(dims, where)
    stored, field = _STORED[number]
    dtype = np.dtype(stored)
    content = proto.tensor_content
    if content:
        if len(content) != count * dtype.itemsize:
            raise ModelError(
                f"its constant of shape {dims} has {len(content)} bytes", where=where, hint="is it corrupt?"
            )
        flat = np.frombuffer(content, dtype)
    else:
        flat = _single_values(getattr(proto, field), number, dtype, count, where)
    if number == BFLOAT16:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(dims).astype(_NUMPY[number], copy=False)


def stored_elements(proto: Any, array: Array) -> int:
    """How many elements of the array of a TensorProto the file itself holds."""
    if proto.HasField("tensor_content"):
        return int(array.size)
    return max(len(getattr(proto, field)) for _, field in _STORED.values())


def _count(dims: Sequence[int], where: str) -> int:
    if len(dims) > _MOST_DIMENSIONS or any(dim < 0 for dim in dims) or math.prod(dims) > LARGEST_TENSOR:
        raise ModelError(
            f"its constant has the shape {list(dims)[:_MOST_DIMENSIONS]}", where=where, hint="is it corrupt?"
        )
    return math.prod(dims)


def _single_values(values: Any, number: int, dtype: np.dtype[Any], count: int, where: str) -> Array:
    """The values listed one by one; the last of them stands for all that follow."""
    if len(values) > count:
        raise ModelError(
            f"its constant of {count} elements has {len(values)} values", where=where, hint="is it corrupt?"
        )
    if count - len(values) > _MOST_REPEATED:
        raise ModelError(f"its constant of {count} elements has {len(values)} values", where=where)
    if number in (HALF, BFLOAT16):
        listed = np.array(values, np.int64).astype(np.uint16).view(dtype)
    else:
        listed = np.array(values).astype(dtype) if len(values) else np.zeros(0, dtype)
    if len(listed) == count:
        return listed
    filled = np.full(count, listed[-1] if len(listed) else 0, dtype)
    filled[: len(listed)] = listed
    return filled
