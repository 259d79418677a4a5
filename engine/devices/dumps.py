"""Tensors that the vendor's runtime writes to files on a board: files to arrays, and arrays to tensors of our graph."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_FILE = re.compile(r"(\d{1,9})_([A-Za-z0-9]+)_(.+)_shape_(\d+(?:_\d+)*)_([A-Za-z]+\d*)\.npy", re.DOTALL)
_MOST_HEADER = 4096
_MOST_NAME = 4096
_MOST_DIMENSIONS = 16
_TO_NCHW = (0, 3, 1, 2)
_SIGN = re.compile(r"[^0-9A-Za-z]")


def read_dumps(files: Mapping[str, bytes]) -> dict[str, Array]:
    """Arrays by the names of their tensors as the runtime writes them, from files by their names.

    A file is called `NNN_OpType_TENSOR_shape_1_384_14_14_float.npy`, NNN being the number of the layer; of a tensor
    that is written several times the first layer's counts. Files of other names, and those that hold no array of
    numbers or not as many bytes as they say, are left out: they come from a board.
    """
    found: dict[str, tuple[int, Array]] = {}
    for file, content in files.items():
        name = file.rpartition("/")[2]
        parts = _FILE.fullmatch(name) if len(name) <= _MOST_NAME else None
        array = _array(content) if parts else None
        if parts is None or array is None:
            continue
        number, tensor = int(parts[1]), parts[3]
        if tensor not in found or number < found[tensor][0]:
            found[tensor] = (number, array)
    return {tensor: array for tensor, (_, array) in sorted(found.items(), key=lambda item: item[1][0])}


def match_tensors(dumped: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The dumped arrays by the names of our tensors and in their shapes.

    `shapes` are those of our graph (NCHW) by the tensors' names. The runtime writes '_' for signs such as '/' and ':';
    where that makes two of our names the same, and their shapes do not tell them apart, neither is matched.
    """
    by_sign: dict[str, list[Array]] = {}
    for name, array in dumped.items():
        by_sign.setdefault(_SIGN.sub("_", name), []).append(array)
    ours: dict[str, list[str]] = {}
    for name in shapes:
        ours.setdefault(_SIGN.sub("_", name), []).append(name)
    found = {}
    for written, names in ours.items():
        for name in names:
            fitting = [one for one in (_in_shape(a, shapes[name]) for a in by_sign.get(written, ())) if one is not None]
            rivals = [other for other in names if other != name and shapes[other] == shapes[name]]
            if len(fitting) == 1 and not rivals:
                found[name] = fitting[0]
    return found


def _in_shape(array: Array, shape: tuple[int, ...]) -> Array | None:
    """An array in a tensor's shape: as it is, from NHWC, or with other dimensions of 1; None where it does not fit."""
    if array.shape == shape:
        return array
    if array.ndim == 4 and tuple(array.shape[axis] for axis in _TO_NCHW) == shape:
        return np.ascontiguousarray(array.transpose(_TO_NCHW))
    if [size for size in array.shape if size != 1] == [size for size in shape if size != 1]:
        return array.reshape(shape)
    return None


def _array(content: bytes) -> Array | None:
    """The array of a file in numpy's format; None where it is none, or not a whole one of numbers."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        start = stream.tell() + (2 if version == (1, 0) else 4)
        if b"\\" in content[start : start + _MOST_HEADER].split(b"\n")[0]:
            # No header of numbers has one, and Python warns of some.
            return None
        shape, by_columns, dtype = read(stream, max_header_size=_MOST_HEADER)
        # Before any memory is taken for what the header says.
        plain = dtype.kind in "fiub" and not dtype.hasobject and dtype.subdtype is None
        whole = all(size >= 0 for size in shape) and len(shape) <= _MOST_DIMENSIONS
        if not plain or not whole or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            return None
        values = np.frombuffer(content, dtype, offset=stream.tell())
        return values.reshape(shape, order="F" if by_columns else "C").astype(dtype.newbyteorder("="), order="C")
    except Exception:  # a header is a text of Python, which can be wrong in every way
        return None
