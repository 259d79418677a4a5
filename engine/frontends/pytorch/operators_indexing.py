"""Parts of tensors by place, and tensors made out of nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.operators_activation import like
from engine.frontends.pytorch.operators_arithmetic import truth
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import SCALAR_TYPES, Refused, Tensor


@operator("select", becomes="Gather", view=True)
def _select(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis, index = axis_of(a.integer("dim"), x.rank), a.integer("index")
    if not -x.shape[axis] <= index < x.shape[axis]:
        raise Refused(f"takes place {index} of {x.shape[axis]}")
    return like(t, x, t.gather(x, axis, index % x.shape[axis]))


@operator("slice", becomes="Slice", view=True)
def _slice(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    start, end, step = slice(a.get("start"), a.get("end"), a.integer("step", 1)).indices(x.shape[axis])
    return like(t, x, _range(t, x, axis, start, max(start, end), step))


def _range(t: Translation, x: Tensor, axis: int, start: int, end: int, step: int = 1) -> Tensor:
    result = t.slice(x, axis, start, end, step)
    return Tensor(x.content, grid=x.grid, label=x.label) if result is x else result


@operator("narrow", becomes="Slice", view=True)
def _narrow(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    start = int(a.number("start")) % max(x.shape[axis], 1)
    return like(t, x, _range(t, x, axis, start, start + a.integer("length")))


@operator("gather", becomes="GatherElements Slice")
def _gather(t: Translation, a: Arguments) -> Tensor:
    x, index = a.tensor("self"), t.as_indices(a.tensor("index"))
    axis = axis_of(a.integer("dim"), x.rank)
    for other in range(x.rank):
        if other != axis and index.shape[other] < x.shape[other]:
            x = t.slice(x, other, 0, index.shape[other])
    return t.emit("GatherElements", x, index, axis=axis)


@operator("take_along_dim", becomes="Expand GatherElements")
def _take_along(t: Translation, a: Arguments) -> Tensor:
    x, index = a.tensor("self"), t.as_indices(a.tensor("indices"))
    if a.get("dim") is None:
        raise Refused("takes places of all dimensions")
    axis = axis_of(a.integer("dim"), x.rank)
    shape = list(np.broadcast_shapes(*([d for i, d in enumerate(s.shape) if i != axis] for s in (x, index))))
    x = t.expand(x, [*shape[:axis], x.shape[axis], *shape[axis:]])
    return t.emit("GatherElements", x, t.expand(index, [*shape[:axis], index.shape[axis], *shape[axis:]]), axis=axis)


@operator("index_select", becomes="Gather")
def _index_select(t: Translation, a: Arguments) -> Tensor:
    x, index = a.tensor("self"), t.as_indices(a.tensor("index"))
    return t.emit("Gather", x, t.reshape(index, [math.prod(index.shape)]), axis=axis_of(a.integer("dim"), x.rank))


@operator("embedding", becomes="Gather")
def _embedding(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Gather", a.tensor("weight"), t.as_indices(a.tensor("indices")), axis=0)


def _places(t: Translation, x: Tensor, indices: Any) -> dict[int, Tensor]:
    """The whole numbers that `x` is indexed with, by axis; constant truth values as the places that they choose."""
    if not isinstance(indices, (list, tuple)):
        raise Refused("has no list of indices")
    found: dict[int, Tensor] = {}
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
            continue
        if not isinstance(index, Tensor):
            raise Refused("is indexed with something that is no tensor")
        if index.dtype in (ir.DataType.BOOL, ir.DataType.UINT8):
            if not index.is_constant:
                raise Refused("takes as many elements as data says that is known at run time only")
            for places in np.nonzero(t.array(index)):
                found[axis] = t.constant(places)
                axis += 1
        else:
            size = x.shape[axis]
            if index.is_constant:
                array = t.array(index).astype(np.int64)
                found[axis] = t.constant(np.where(array < 0, array + size, array))
            else:
                found[axis] = t.as_indices(index)
            axis += 1
    return found


@operator("index", "_unsafe_index", becomes="Concat Expand Gather GatherND Reshape Transpose")
def _index(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    places = _places(t, x, a.get("indices"))
    if not places:
        return x
    if len(places) == 1:
        axis, index = next(iter(places.items()))
        return like(t, x, t.emit("Gather", x, index, axis=axis))
    axes = sorted(places)
    shape = list(np.broadcast_shapes(*(places[axis].shape for axis in axes)))
    order = axes + [axis for axis in range(x.rank) if axis not in axes]
    result = t.emit("GatherND", t.transpose(x, order), _joined(t, places, axes, shape))
    together = axes == list(range(axes[0], axes[-1] + 1))
    if not together or axes[0] == 0:
        return result
    # What is indexed by neighbours stands where they stood.
    ranks = len(shape)
    before = axes[0]
    return t.transpose(result, [*range(ranks, ranks + before), *range(ranks), *range(ranks + before, result.rank)])


def _joined(t: Translation, places: dict[int, Tensor], axes: Sequence[int], shape: Sequence[int]) -> Tensor:
    if all(places[axis].is_constant for axis in axes):
        arrays = [np.broadcast_to(t.array(places[axis]), shape) for axis in axes]
        return t.constant(np.stack(arrays, axis=-1))
    columns = [t.reshape(t.expand(places[axis], shape), [*shape, 1]) for axis in axes]
    return t.emit("Concat", *columns, axis=len(shape))


@operator("index_put", "_index_put_impl_", becomes="Concat Expand Reshape ScatterND Transpose Where")
def _index_put(t: Translation, a: Arguments) -> Tensor:
    x, values = a.tensor("self"), t.cast(a.tensor("values"), a.tensor("self").dtype)
    indices = a.get("indices")
    mask = indices[0] if isinstance(indices, list) and len(indices) == 1 else None
    if isinstance(mask, Tensor) and mask.dtype == ir.DataType.BOOL and math.prod(values.shape) == 1:
        wide = t.reshape(mask, [*mask.shape, *([1] * (x.rank - mask.rank))])
        return t.emit("Where", truth(t, wide), t.reshape(values, []), x)
    places = _places(t, x, indices)
    axes = sorted(places)
    shape = list(np.broadcast_shapes(*(places[axis].shape for axis in axes)))
    rest = [axis for axis in range(x.rank) if axis not in axes]
    before = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    sizes = [x.shape[axis] for axis in rest]
    values = t.expand(values, [*sizes[:before], *shape, *sizes[before:]])
    ranks = len(shape)
    values = t.transpose(values, [*range(before, before + ranks), *range(before), *range(before + ranks, values.rank)])
    order = [*axes, *rest]
    reduction = "add" if a.flag("accumulate") else "none"
    indices = _joined(t, places, axes, shape)
    written = t.emit("ScatterND", t.transpose(x, order), indices, values, reduction=reduction)
    return t.transpose(written, np.argsort(order).tolist())


@operator("scatter", becomes="Expand ScatterElements Slice")
def _scatter(t: Translation, a: Arguments) -> Tensor:
    x, index = a.tensor("self"), t.as_indices(a.tensor("index"))
    value = a["src"] if "src" in a else a.get("value")
    if a.get("reduce") not in (None, "add"):
        raise Refused(f"combines by {a.get('reduce')!r}")
    source = value if isinstance(value, Tensor) else t.scalar(a.number("value"), x.dtype)
    if source.rank == 0:
        source = t.expand(source, index.shape)
    for axis, size in enumerate(index.shape):
        source = t.slice(source, axis, 0, size)
    return t.emit(
        "ScatterElements",
        x,
        index,
        t.cast(source, x.dtype),
        axis=axis_of(a.integer("dim"), x.rank),
        reduction="add" if a.get("reduce") == "add" else "none",
    )


@operator("scatter_add", becomes="Expand ScatterElements Slice")
def _scatter_add(t: Translation, a: Arguments) -> Tensor:
    return _scatter(t, Arguments({**a, "reduce": "add"}))


@operator("one_hot", becomes="OneHot")
def _one_hot(t: Translation, a: Arguments) -> Tensor:
    classes = a.integer("num_classes", -1)
    if classes < 1:
        raise Refused("counts its classes by data")
    return t.emit("OneHot", t.as_indices(a.tensor("self")), np.int64(classes), np.array([0, 1], np.int64), axis=-1)


@operator("copy", becomes="Cast Expand")
def _copy(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return t.expand(t.cast(a.tensor("src"), x.dtype), x.shape)


@operator("fill", becomes="")
def _fill(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    value = a["value"]
    if isinstance(value, Tensor):
        return t.expand(t.cast(value, x.dtype), x.shape)
    return Tensor(eager.zeros(x.shape, _name(x.dtype), value))


@operator("zero", becomes="")
def _zero(t: Translation, a: Arguments) -> Tensor:
    return _fill(t, Arguments({**a, "value": 0}))


def _name(dtype: ir.DataType) -> str:
    return {"FLOAT": "float32"}.get(dtype.name, dtype.name.lower())


def _like(number: float | None) -> Handler:
    """Full of one number, in the shape of a tensor or in another one."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self")
        shape = a.integers("size") if "size" in a else x.shape
        dtype = SCALAR_TYPES.get(a["dtype"], "") if a.get("dtype") is not None else _name(x.dtype)
        if not dtype or dtype.startswith("q"):
            raise Refused(f"makes a tensor of type {a.get('dtype')}")
        return Tensor(eager.zeros(shape, dtype, a.number("fill_value") if number is None else number))

    return handler


operator("zeros_like", "new_zeros", "empty_like", "new_empty", becomes="")(_like(0))
operator("ones_like", "new_ones", becomes="")(_like(1))
operator("full_like", "new_full", becomes="")(_like(None))


@operator("arange", "zeros", "ones", "full", "empty", "scalar_tensor", "tensor", becomes="")
def _constant_only(t: Translation, a: Arguments) -> Tensor:
    raise Refused("depends on data that is known at run time only")


def _triangle(upper: int) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        return t.emit("Trilu", a.tensor("self"), np.int64(a.integer("diagonal")), upper=upper)

    return handler


operator("triu", becomes="Trilu")(_triangle(1))
operator("tril", becomes="Trilu")(_triangle(0))
