"""A convolution, or a product with a constant matrix, as what it is at some positions: products of numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.query import attribute, constant, static_shape

Array = np.ndarray[Any, Any]


class Products:
    """A Conv or Gemm with a constant weight at `count` of its output positions, or at all, if there are fewer.

    A position is a row of a Gemm, a sample of the batch and a place of a Conv. They are drawn at random, the same ones
    each time. At each, output channel o of group g is `rows[g, o] @ columns(x)[g, :, position]`, plus the bias. A Gemm
    has alpha 1 and an input that is not transposed.
    """

    def __init__(self, node: ir.Node, count: int) -> None:
        weight = constant(node.inputs[1])
        assert weight is not None
        self.node = node
        self.weight = weight
        self.rows = self.by_rows(weight)
        total = positions(node)
        picked = np.random.default_rng(0).choice(total, min(total, count), replace=False)
        shape = static_shape(node.outputs[0])
        self._sample, *self._places = np.unravel_index(np.sort(picked), (shape[0], *shape[2:]))

    def columns(self, x: Array) -> Array:
        """What the weights read of the input `x`: [groups, weights of an output, positions]."""
        if self.node.op_type == "Gemm":
            turned: Array = x[self._sample].T[None]
            return turned
        rank = len(self._places)
        strides = attribute(self.node, "strides") or [1] * rank
        dilations = attribute(self.node, "dilations") or [1] * rank
        starts = [
            place * stride - pad
            for place, stride, pad in zip(self._places, strides, _pads(self.node, strides, dilations), strict=True)
        ]
        parts = []
        for steps in itertools.product(*map(range, self.weight.shape[2:])):
            places = [start + step * wide for start, step, wide in zip(starts, steps, dilations, strict=True)]
            inside = np.ones(len(self._sample), bool)
            for place, size in zip(places, x.shape[2:], strict=True):
                inside &= (place >= 0) & (place < size)
            index: list[Any] = [self._sample, slice(None), *(np.where(inside, place, 0) for place in places)]
            found = x[tuple(index)]
            parts.append(np.where(inside[:, None], found, np.zeros((), x.dtype)))
        # [kernel, positions, channels]: in a row of weights, the kernel of one channel comes after that of another.
        columns: Array = np.stack(parts).transpose(2, 0, 1).reshape(len(self.rows), -1, len(self._sample))
        return columns

    def by_rows(self, weight: Array) -> Array:
        """An array that broadcasts to the weight's shape as [groups, outputs of a group, weights of each]."""
        weight = np.broadcast_to(weight, self.weight.shape)
        if self.node.op_type == "Gemm":
            turned: Array = (weight if attribute(self.node, "transB", 0) else weight.T)[None]
            return turned
        groups = int(attribute(self.node, "group", 1))
        rows: Array = weight.reshape(groups, weight.shape[0] // groups, -1)
        return rows

    def by_shape(self, rows: Array) -> Array:
        """What `by_rows` was given."""
        if self.node.op_type == "Gemm" and not attribute(self.node, "transB", 0):
            return np.ascontiguousarray(rows[0].T)
        return rows.reshape(self.weight.shape)


def positions(node: ir.Node) -> int:
    """How many output positions a Conv or Gemm has."""
    shape = static_shape(node.outputs[0])
    return math.prod((shape[0], *shape[2:]))


def _pads(node: ir.Node, strides: Sequence[int], dilations: Sequence[int]) -> Sequence[int]:
    """How far a convolution reads before the start of each axis of places."""
    rank = len(strides)
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return list(attribute(node, "pads") or [0] * rank)[:rank]
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None and weight is not None
    found = []
    sizes = (static_shape(value)[2:] for value in (source, node.outputs[0], weight))
    for size, made, kernel, stride, dilation in zip(*sizes, strides, dilations, strict=True):
        whole = max(0, (made - 1) * stride + (kernel - 1) * dilation + 1 - size)
        found.append(whole // 2 if automatic == "SAME_UPPER" else whole - whole // 2)
    return found
