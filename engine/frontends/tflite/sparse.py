"""Unpacks sparse constants, which list only the elements or blocks that are not zero."""

from __future__ import annotations

import math

import numpy as np

from engine.errors import ModelError
from engine.flatbuffers import Table
from engine.frontends.reading import CORRUPT
from engine.graph.query import Array

_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}
_SPARSE = 1


def dense(values: Array, shape: tuple[int, ...], sparsity: Table, place: str) -> Array:
    """The whole array of `shape` whose listed elements are `values`. Raises ModelError.

    The list is a tree with one level for each axis in `traversal_order`; axes beyond those of `shape` count within
    blocks of the axis that `block_map` names. A dense level has all its indices, a sparse one lists those of each
    branch.
    """
    order, blocks, levels = sparsity.traversal_order, sparsity.block_map, sparsity.dim_metadata
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise _wrong(place)
    if any(not 0 <= axis < rank for axis in blocks):
        raise _wrong(place)
    sizes = [1] * rank
    within = [np.zeros(1, np.int64)] * len(order)
    position = np.zeros(1, np.int64)
    for axis, level in zip(order, levels, strict=True):
        if level.format == _SPARSE:
            segments, indices = (_vector(level, name, place) for name in ("segments", "indices"))
            if len(segments) <= position.max(initial=0):
                raise _wrong(place)
            first, counts = segments[position], segments[position + 1] - segments[position]
            if (first < 0).any() or (counts < 0).any() or counts.sum() > len(values):
                raise _wrong(place)
            parent = np.repeat(np.arange(position.size), counts)
            starts = np.cumsum(counts) - counts
            position = np.arange(parent.size) - starts[parent] + first[parent]
            if position.max(initial=-1) >= len(indices):
                raise _wrong(place)
            found = indices[position]
        else:
            size = level.dense_size
            if size < 1 or position.size * size > len(values):
                raise _wrong(place)
            parent = np.repeat(np.arange(position.size), size)
            found = np.tile(np.arange(size), position.size)
            position = position[parent] * size + found
            if axis >= rank:
                sizes[blocks[axis - rank]] = size
        within = [coordinates[parent] for coordinates in within]
        within[axis] = found
    if position.max(initial=-1) >= len(values):
        raise _wrong(place)
    places = [within[axis] * sizes[axis] for axis in range(rank)]
    for extra, axis in enumerate(blocks):
        places[axis] = places[axis] + within[rank + extra]
    if any(((p < 0) | (p >= size)).any() for p, size in zip(places, shape, strict=True)):
        raise _wrong(place)
    whole = np.zeros(shape, values.dtype)
    whole[tuple(places)] = values[position]
    return whole


def _vector(level: Table, name: str, place: str) -> Array:
    kind = _VECTORS.get(getattr(level, f"array_{name}_type"))
    found = level.view(kind, f"array_{name}") if kind is not None else None
    if found is None:
        raise _wrong(place)
    values: Array = np.array(found.values, np.int64)
    return values


def _wrong(place: str) -> ModelError:
    return ModelError("is sparse in a way that contradicts itself", where=place, hint=CORRUPT)


def fits(shape: tuple[int, ...]) -> bool:
    """Whether so large an array may be made of a short list."""
    return math.prod(shape) <= 1 << 26
