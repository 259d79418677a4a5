"""Tensors of channels-last frameworks, held as they are, with the channels first, or both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc.constants import evaluate
from engine.graph.query import Array
from engine.graph.shapes import LARGEST_TENSOR


@dataclasses.dataclass(frozen=True)
class Grid:
    """Quantization parameters of a tensor: real = (q - zero_point) * scale, with q of `dtype`, such as 'uint8'.

    One pair for all where `axis` is None, else one for each index of that axis of the tensor as it is.
    """

    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a function puts what it makes: in the graph of `maker`, as the tensor `name` of the source's node `source`.

    Tensors on the way are called after `name`.
    """

    maker: GraphMaker
    name: str
    source: str = ""

    def node(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """A node that makes the tensor itself."""
        return self.maker.node(op_type, inputs, self.name, source=self.source or self.name, **attributes)

    def inner(self, op_type: str, inputs: Sequence[ir.Value | None], suffix: str, **attributes: Any) -> ir.Value:
        """A node that makes a tensor on the way, called NAME_SUFFIX."""
        name = f"{self.name}_{suffix}"
        return self.maker.node(op_type, inputs, name, source=self.source or self.name, **attributes)

    def constant(self, array: Array | Sequence[int] | float, suffix: str) -> ir.Value:
        """A constant called NAME_SUFFIX."""
        return self.maker.constant(array, f"{self.name}_{suffix}")

    def within(self, suffix: str) -> Place:
        """The place of a tensor on the way, called NAME_SUFFIX."""
        return Place(self.maker, f"{self.name}_{suffix}", self.source or self.name)

    def error(self, what: str, hint: str = "") -> ModelError:
        """An error that names the node."""
        return ModelError(what, where=f"{self.maker.where}: {self.source or self.name}", hint=hint)


@dataclasses.dataclass(frozen=True)
class Spread:
    """What lies in a tensor whose spatial blocks were moved into the batch: see `space_to_batch`.

    `source` is what it was made of, with `pads` added. `gather` makes the tensor that moving the blocks back and
    cropping gives: called with the crops and its place. `direct`: nothing was computed from the blocks yet.
    """

    block: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    source: Tensor
    gather: Callable[[tuple[tuple[int, int], ...], Place], Tensor]
    direct: bool


class Tensor:
    """A tensor of a channels-last framework.

    `plain()` is the value in the framework's own order of axes, `first()` the one whose last axis comes second (NHWC
    becomes NCHW; below three axes both are one). Whichever is not there is made when first asked for, by one Transpose,
    or a Reshape where only axes of size one move. The one that came first bears the tensor's own name, the other
    NAME_nchw or NAME_nhwc (`_first`, `_last` for other ranks than four). `shape` is that of `plain()`, and so are axes
    everywhere in this package.
    """

    def __init__(
        self,
        place: Place,
        *,
        plain: ir.Value | None = None,
        first: ir.Value | None = None,
        array: Array | None = None,
        grid: Grid | None = None,
        deferred: Callable[[], Tensor] | None = None,
        shape: Sequence[int] | None = None,
        dtype: ir.DataType | None = None,
        spread: Spread | None = None,
    ) -> None:
        self.place = place
        self.grid = grid
        self.spread = spread
        self._plain = plain
        self._first = first
        self._array = array
        self._deferred = deferred
        self._forms: dict[tuple[tuple[int, ...], tuple[int, ...]], ir.Value] = {}
        held = plain if plain is not None else first
        if shape is None and array is not None:
            shape = array.shape
        if shape is None:
            assert held is not None
            found = place.maker.shape(held)
            shape = found if plain is not None else tuple(found[axis] for axis in to_plain(len(found)))
        self.shape: tuple[int, ...] = tuple(shape)
        if dtype is None:
            dtype = ir.DataType.from_numpy(array.dtype) if array is not None else held.dtype if held else None
        self.dtype: ir.DataType = dtype or ir.DataType.FLOAT
        if len(self.shape) < 3 and first is not None:
            self._plain, self._first = first, None
        for value in (plain, first):
            self._stamp(value)

    @classmethod
    def of(cls, value: ir.Value, place: Place) -> Tensor:
        """The tensor that `value` holds as it is."""
        return cls(place, plain=value)

    @classmethod
    def of_first(cls, value: ir.Value, place: Place) -> Tensor:
        """The tensor that `value` holds with the channels first."""
        return cls(place, first=value)

    @classmethod
    def constant(cls, array: Array, place: Place, grid: Grid | None = None) -> Tensor:
        """A constant, put into the graph where it is used, in the order that is needed there. With a `grid`, `array`
        holds the real values."""
        array = np.asarray(array)
        return cls(place, array=array.astype(np.float32) if array.dtype == np.float64 else array, grid=grid)

    @property
    def maker(self) -> GraphMaker:
        """The graph that the tensor is part of."""
        return self.place.maker

    @property
    def name(self) -> str:
        """The tensor's name in the source model."""
        return self.place.name

    @property
    def rank(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether it was given as a constant; what is computed from constants is not, but has an `array`."""
        return self._array is not None

    @property
    def array(self) -> Array | None:
        """What it holds, in the order of `plain()`, where constants alone decide that; else None.

        Small tensors that are computed from constants are computed here.
        """
        if self._array is None and self._deferred is None:
            held = self._plain if self._plain is not None else self._first
            assert held is not None
            found = evaluate(self.maker, held)
            if found is not None and self._plain is None:
                found = found.transpose(to_plain(found.ndim))
            return found
        return self._array

    def integers(self) -> list[int] | None:
        """The whole numbers that it holds in a row, where constants alone decide them; else None."""
        array = self.array
        if array is None or array.dtype.kind not in "iu":
            return None
        return [int(number) for number in array.reshape(-1)]

    @property
    def has_plain(self) -> bool:
        """Whether the value as it is can be had without a node."""
        self._settle()
        return self._array is not None or self._plain is not None

    @property
    def has_first(self) -> bool:
        """Whether the value with the channels first can be had without a node."""
        self._settle()
        return self._array is not None or self.rank < 3 or self._first is not None

    def plain(self) -> ir.Value:
        """The value as it is in the source model."""
        self._settle()
        if self._plain is None:
            if self._array is not None:
                self._plain = self.maker.constant(self._array, self.name)
            else:
                assert self._first is not None
                suffix = "nhwc" if self.rank == 4 else "last"
                self._plain = self._moved(self._first, to_plain(self.rank), self.shape, suffix)
            self._stamp(self._plain)
        return self._plain

    def first(self) -> ir.Value:
        """The value with the channels first."""
        self._settle()
        if self.rank < 3:
            return self.plain()
        if self._first is None:
            order = to_first(self.rank)
            shape = tuple(self.shape[axis] for axis in order)
            if self._array is not None:
                self._first = self.maker.constant(self._array.transpose(order), self.name)
            else:
                assert self._plain is not None
                self._first = self._moved(self._plain, order, shape, "nchw" if self.rank == 4 else "first")
            self._stamp(self._first, first=True)
        return self._first

    def get(self, first: bool) -> ir.Value:
        """The value with the channels first, or as it is."""
        return self.first() if first else self.plain()

    def form(self, order: Sequence[int], shape: Sequence[int], axis: int | None = None) -> ir.Value:
        """The value with its axes in another order and then in another shape, as weights are needed; made once.

        `axis` is where the axis of the grid, if there is one, comes to lie.
        """
        key = (tuple(order), tuple(shape))
        if key not in self._forms:
            array = self._array
            if array is not None:
                value = self.maker.constant(array.transpose(order).reshape(shape), self.name)
            else:
                value = self.plain()
                if list(order) != sorted(order):
                    value = self.place.inner("Transpose", [value], "turned", perm=list(order))
                if self.maker.shape(value) != tuple(shape):
                    sizes = self.place.constant(np.array(shape, np.int64), "shape")
                    value = self.place.inner("Reshape", [value, sizes], "reshaped")
            if self.grid is not None:
                grid = self.grid
                if grid.axis is None:
                    self.maker.quantized(value, grid.dtype, grid.scale, grid.zero_point)
                elif axis is not None and shape[axis] == len(grid.scale):
                    self.maker.quantized(value, grid.dtype, grid.scale, grid.zero_point, axis)
            self._forms[key] = value
        return self._forms[key]

    def quantized(self, grid: Grid | None) -> Tensor:
        """Note the quantization parameters that the source model has for the tensor; returns it."""
        if grid is not None:
            self.grid = grid
            self._stamp(self._plain)
            self._stamp(self._first, first=True)
        return self

    def output(self) -> ir.Value:
        """The value as it is, under exactly the tensor's own name where that is not an input's or a constant's."""
        value = self.plain()
        twin = self._first
        if twin is not None and twin is not value and twin.name == self.name and twin.producer() is not None:
            value.name = self.name
            self.maker.rename(twin, f"{self.name}_{'nchw' if self.rank == 4 else 'first'}")
        return value

    def _settle(self) -> None:
        if self._deferred is not None:
            made, self._deferred = self._deferred(), None
            self._plain, self._first, self._array = made._plain, made._first, made._array
            self._stamp(self._plain)
            self._stamp(self._first, first=True)

    def _moved(self, value: ir.Value, order: tuple[int, ...], shape: tuple[int, ...], suffix: str) -> ir.Value:
        before = self.maker.shape(value)
        if [axis for axis in order if before[axis] != 1] == [axis for axis in sorted(order) if before[axis] != 1]:
            sizes = self.place.constant(np.array(shape, np.int64), "shape")
            return self.place.inner("Reshape", [value, sizes], suffix)
        return self.place.inner("Transpose", [value], suffix, perm=list(order))

    def _stamp(self, value: ir.Value | None, *, first: bool = False) -> None:
        grid = self.grid
        if value is None or grid is None:
            return
        axis = grid.axis
        if axis is not None and first and value is self._first:
            axis = to_first(self.rank).index(axis % self.rank)
        self.maker.quantized(value, grid.dtype, grid.scale, grid.zero_point, axis)


def to_first(rank: int) -> tuple[int, ...]:
    """The order of axes that puts the last one second."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def to_plain(rank: int) -> tuple[int, ...]:
    """The order of axes that puts the second one last."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def axis_in(axis: int, rank: int, first: bool) -> int:
    """Where the axis `axis` (not negative) of the tensor as it is lies with the channels first, if they are."""
    return to_first(rank).index(axis) if first else axis


def normal_axis(axis: int, rank: int, place: Place) -> int:
    """An axis counted from 0. Raises ModelError where there is none of that number."""
    if not -rank <= axis < max(rank, 1):
        raise place.error(f"has no axis {axis} in {rank} dimensions")
    return axis % max(rank, 1)


def in_layout(value: ir.Value, first: bool, place: Place) -> Tensor:
    """The tensor that `value` holds in a layout."""
    return Tensor.of_first(value, place) if first else Tensor.of(value, place)


def prefers_first(tensors: Sequence[Tensor], rank: int | None = None) -> bool:
    """Whether joining `tensors` takes fewer moved elements with the channels first than as they are.

    Where both cost the same it is as they are if nothing has its channels first. `rank`: only tensors of that many
    axes count; others are constants or take a Reshape.
    """
    counted = [t for t in tensors if not t.is_constant and t.rank >= 3 and (rank is None or t.rank == rank)]
    to_first_cost = sum(t.size for t in counted if not t.has_first)
    to_plain_cost = sum(t.size for t in counted if not t.has_plain)
    return to_plain_cost > 0 and to_first_cost <= to_plain_cost


def checked_size(shape: Sequence[int], place: Place) -> None:
    """Raise ModelError for shapes that no model has, before any array is made of that size."""
    if any(dim < 0 for dim in shape) or math.prod(shape) > LARGEST_TENSOR:
        raise place.error(f"would make the shape {list(shape)}", "is the file corrupt?")
