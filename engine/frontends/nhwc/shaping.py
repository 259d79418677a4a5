"""What rearranges, parts, joins and picks elements, in whichever order of axes the operands are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc.tensors import (
    Place,
    Tensor,
    axis_in,
    checked_size,
    in_layout,
    normal_axis,
    prefers_first,
    to_first,
    to_plain,
)

_OPEN = 2**31 - 1
_LONGEST_MIRRORED = 1 << 22


def reshape(x: Tensor, place: Place, shape: Sequence[int]) -> Tensor:
    """The elements in another shape; one -1 stands for what is left. Raises ModelError."""
    wanted = [int(n) for n in shape]
    unknown = [index for index, size in enumerate(wanted) if size == -1]
    known = math.prod(size for size in wanted if size != -1)
    if len(unknown) == 1 and known > 0 and x.size % known == 0:
        wanted[unknown[0]] = x.size // known
    if any(size < 0 for size in wanted) or math.prod(wanted) != x.size:
        raise place.error(f"reshapes {list(x.shape)} to {list(shape)}", "do the input sizes fit the model?")
    if x.array is not None and x.is_constant and x.grid is None:
        return Tensor.constant(x.array.reshape(wanted), place)
    value = None
    if not x.has_plain:
        if min(x.rank, len(wanted)) > 2 and (x.shape[0], x.shape[-1]) == (wanted[0], wanted[-1]):
            # Only the axes of space are parted or joined, as around a convolution in one of them.
            sizes = place.constant(np.array([wanted[0], wanted[-1], *wanted[1:-1]], np.int64), "shape")
            return Tensor.of_first(place.node("Reshape", [x.first(), sizes]), place)
        moving = [axis for axis in to_first(x.rank) if x.shape[axis] != 1]
        if moving == sorted(moving):
            value = x.first()  # only axes of one element lie elsewhere
    value = x.plain() if value is None else value
    return Tensor.of(place.node("Reshape", [value, place.constant(np.array(wanted, np.int64), "shape")]), place)


def transpose(x: Tensor, place: Place, order: Sequence[int]) -> Tensor:
    """The axes in another order. Raises ModelError."""
    order = [int(axis) for axis in order]
    if sorted(order) != list(range(x.rank)):
        raise place.error(f"puts the axes of {list(x.shape)} in the order {order}")
    if x.array is not None and x.is_constant and x.grid is None:
        return Tensor.constant(x.array.transpose(order), place)
    if order == list(to_plain(x.rank)) and x.rank > 2 and not x.has_first:
        # What comes as NCHW and is turned to NHWC has the channels first already. A node in between would be a layer of
        # its own where the tensor has quantization parameters.
        value = x.plain()
        return Tensor.of_first(value if x.grid is not None else place.node("Identity", [value]), place)
    if order == list(to_first(x.rank)) and x.rank > 2 and x.has_first:
        return Tensor.of(place.node("Identity", [x.first()]), place)
    moving = [axis for axis in order if x.shape[axis] != 1]
    if moving == sorted(moving):
        return reshape(x, place, [x.shape[axis] for axis in order])
    first = not x.has_plain
    perm = [axis_in(axis, x.rank, first) for axis in order]
    return Tensor.of(place.node("Transpose", [x.get(first)], perm=perm), place)


def squeeze(x: Tensor, place: Place, axes: Sequence[int] = ()) -> Tensor:
    """Without the `axes`, all of one element; without all such axes where none are given. Raises ModelError."""
    chosen = {normal_axis(axis, x.rank, place) for axis in axes} or {a for a, n in enumerate(x.shape) if n == 1}
    if any(x.shape[axis] != 1 for axis in chosen):
        raise place.error(f"takes the axes {sorted(chosen)} out of {list(x.shape)}")
    return reshape(x, place, [n for axis, n in enumerate(x.shape) if axis not in chosen])


def expand_dims(x: Tensor, place: Place, axis: int) -> Tensor:
    """With a new axis of one element. Raises ModelError."""
    axis = normal_axis(axis, x.rank + 1, place)
    return reshape(x, place, [*x.shape[:axis], 1, *x.shape[axis:]])


def concat(tensors: Sequence[Tensor], place: Place, *, axis: int) -> Tensor:
    """The tensors behind each other along `axis`; those without elements are passed over. Raises ModelError."""
    tensors = [t for t in tensors if t.size] or tensors[:1]
    rank = tensors[0].rank if tensors else 0
    if not tensors or any(t.rank != rank for t in tensors):
        raise place.error(f"joins tensors of the shapes {[list(t.shape) for t in tensors]}")
    axis = normal_axis(axis, rank, place)
    first = prefers_first(tensors)
    return in_layout(
        place.node("Concat", [t.get(first) for t in tensors], axis=axis_in(axis, rank, first)), first, place
    )


def split(x: Tensor, places: Sequence[Place], *, axis: int, sizes: Sequence[int] | None = None) -> list[Tensor]:
    """As many parts along `axis` as there are `places`, equal ones or of these sizes (one may be -1: the rest).

    Raises ModelError.
    """
    place = places[0]
    axis = normal_axis(axis, x.rank, place)
    count, total = len(places), x.shape[axis]
    wanted = [total // count] * count if sizes is None else [int(n) for n in sizes]
    if wanted.count(-1) == 1:
        wanted[wanted.index(-1)] = total - sum(n for n in wanted if n != -1)
    if len(wanted) != count or sum(wanted) != total or any(n < 1 for n in wanted):
        raise place.error(f"parts {total} elements into {wanted}")
    if count == 1:
        first = prefers_first([x])
        return [in_layout(place.node("Identity", [x.get(first)]), first, place)]
    first = prefers_first([x])
    parts = place.maker.nodes(
        "Split",
        [x.get(first), place.constant(np.array(wanted, np.int64), "sizes")],
        [p.name for p in places],
        source=place.source,
        axis=axis_in(axis, x.rank, first),
    )
    return [in_layout(part, first, p) for part, p in zip(parts, places, strict=True)]


def pack(tensors: Sequence[Tensor], place: Place, *, axis: int) -> Tensor:
    """The tensors beside each other along a new axis. Raises ModelError."""
    if not tensors or any(t.shape != tensors[0].shape for t in tensors):
        raise place.error(f"packs tensors of the shapes {[list(t.shape) for t in tensors]}")
    axis = normal_axis(axis, tensors[0].rank + 1, place)
    parts = [expand_dims(t, place.within(f"part{index}"), axis) for index, t in enumerate(tensors)]
    return concat(parts, place, axis=axis)


def unpack(x: Tensor, places: Sequence[Place], *, axis: int) -> list[Tensor]:
    """One tensor for each index of `axis`. Raises ModelError."""
    if not places:
        return []
    axis = normal_axis(axis, x.rank, places[0])
    if not x.rank or x.shape[axis] != len(places):
        raise places[0].error(f"unpacks axis {axis} of {list(x.shape)} into {len(places)}")
    parts = split(x, [p.within("kept") for p in places], axis=axis)
    shape = [n for index, n in enumerate(x.shape) if index != axis]
    return [reshape(part, place, shape) for part, place in zip(parts, places, strict=True)]


def strided_slice(
    x: Tensor,
    place: Place,
    *,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int],
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> Tensor:
    """What x[begin:end:strides, ...] is in Python; bits of the masks change the meaning of the entry of that index.

    `begin_mask`, `end_mask`: from the start, to the end. `ellipsis_mask`: `...`. `new_axis_mask`: a new axis.
    `shrink_axis_mask`: one index, and the axis goes. Raises ModelError.
    """
    if not len(begin) == len(end) == len(strides):
        raise place.error(f"slices from {list(begin)} to {list(end)} by {list(strides)}")
    ranges: list[tuple[int, int, int]] = []
    shape: list[int] = []
    taken = sum(1 for i in range(len(begin)) if not (ellipsis_mask | new_axis_mask) >> i & 1)
    for index in range(len(begin)):
        if ellipsis_mask >> index & 1:
            for _ in range(x.rank - taken):
                size = x.shape[len(ranges)] if len(ranges) < x.rank else 1
                ranges.append((0, size, 1))
                shape.append(size)
            continue
        if new_axis_mask >> index & 1:
            shape.append(1)
            continue
        if len(ranges) >= x.rank:
            raise place.error(f"slices {taken} axes of {list(x.shape)}")
        size, step = x.shape[len(ranges)], int(strides[index])
        if shrink_axis_mask >> index & 1:
            at = int(begin[index])
            if not -size <= at < size:
                raise place.error(f"takes index {at} of {size}")
            ranges.append((at % size, at % size + 1, 1))
            continue
        if step == 0:
            raise place.error("slices by a stride of 0")
        start = None if begin_mask >> index & 1 else int(begin[index])
        stop = None if end_mask >> index & 1 else int(end[index])
        start, stop, step = slice(start, stop, step).indices(size)
        ranges.append((start, stop, step))
        shape.append(len(range(start, stop, step)))
    for size in x.shape[len(ranges) :]:
        ranges.append((0, size, 1))
        shape.append(size)
    kept = [len(range(*r)) for r in ranges]
    if 0 in kept:
        raise place.error(f"slices nothing of {list(x.shape)}", "do the input sizes fit the model?")
    if kept == shape:
        return _sliced(x, place, ranges)
    part = _sliced(x, place.within("slice"), ranges) if any(n != m for n, m in zip(kept, x.shape, strict=True)) else x
    return reshape(part, place, shape)


def crop(x: Tensor, place: Place, *, begin: Sequence[int], size: Sequence[int]) -> Tensor:
    """From `begin`, `size` elements of each axis; -1 takes the rest. Raises ModelError."""
    if len(begin) != x.rank or len(size) != x.rank:
        raise place.error(f"slices {list(x.shape)} from {list(begin)}, {list(size)} elements")
    ranges = [(int(b), n if s == -1 else int(b) + int(s), 1) for b, s, n in zip(begin, size, x.shape, strict=True)]
    if any(not 0 <= b <= e <= n for (b, e, _), n in zip(ranges, x.shape, strict=True)):
        raise place.error(f"slices {list(x.shape)} from {list(begin)}, {list(size)} elements")
    if any(b == e for b, e, _ in ranges):  # what a loop has before its first round
        return Tensor.constant(np.zeros([e - b for b, e, _ in ranges], x.dtype.numpy()), place)
    return _sliced(x, place, ranges)


def reverse(x: Tensor, place: Place, axes: Sequence[int]) -> Tensor:
    """The elements along these axes from the last to the first. Raises ModelError."""
    chosen = {normal_axis(axis, x.rank, place) for axis in axes}
    return _sliced(x, place, [(n - 1, -1, -1) if axis in chosen else (0, n, 1) for axis, n in enumerate(x.shape)])


def _sliced(x: Tensor, place: Place, ranges: Sequence[tuple[int, int, int]]) -> Tensor:
    """Ranges as Python's `range` counts them, one an axis; an end of -1 is before the first element."""
    first = prefers_first([x])
    moved = [
        (axis_in(axis, x.rank, first), start, -_OPEN if stop < 0 else stop, step)
        for axis, ((start, stop, step), size) in enumerate(zip(ranges, x.shape, strict=True))
        if (start, stop, step) != (0, size, 1)
    ]
    if not moved:
        return in_layout(place.node("Identity", [x.get(first)]), first, place)
    axes, starts, stops, steps = (np.array(column, np.int64) for column in zip(*sorted(moved), strict=True))
    inputs = [
        x.get(first),
        place.constant(starts, "starts"),
        place.constant(stops, "ends"),
        place.constant(axes, "axes"),
        place.constant(steps, "steps"),
    ]
    return in_layout(place.node("Slice", inputs), first, place)


def pad(
    x: Tensor, place: Place, *, pads: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """More elements before and behind each axis: 'constant' (`value`), 'reflect' (the edge once), 'symmetric' (twice).

    Raises ModelError.
    """
    if len(pads) != x.rank or any(n < 0 for pair in pads for n in pair):
        raise place.error(f"pads {list(x.shape)} by {list(pads)}")
    checked_size([n + a + b for n, (a, b) in zip(x.shape, pads, strict=True)], place)
    first = prefers_first([x])
    if mode != "constant":
        room = 1 if mode == "reflect" else 0
        if any(max(pair) > n - room for pair, n in zip(pads, x.shape, strict=True)):
            raise place.error(f"mirrors {list(pads)} elements of {list(x.shape)}")
    if mode == "symmetric":
        return _mirrored(x, place, pads)
    order = to_first(x.rank) if first else range(x.rank)
    amounts = [pads[axis][0] for axis in order] + [pads[axis][1] for axis in order]
    inputs = [x.get(first), place.constant(np.array(amounts, np.int64), "pads")]
    if mode == "constant" and value:
        inputs.append(place.constant(np.array(value, x.dtype.numpy()), "value"))
    return in_layout(place.node("Pad", inputs, mode=mode), first, place)


def _mirrored(x: Tensor, place: Place, pads: Sequence[tuple[int, int]]) -> Tensor:
    chosen = [axis for axis, pair in enumerate(pads) if any(pair)]
    if any(x.shape[axis] > _LONGEST_MIRRORED for axis in chosen):
        raise place.error(f"mirrors {list(pads)} elements of {list(x.shape)}")
    result = x
    for number, axis in enumerate(chosen):
        index = np.pad(np.arange(x.shape[axis]), pads[axis], mode="symmetric")
        last = number == len(chosen) - 1
        result = pick(result, place if last else place.within(f"axis{axis}"), index, axis)
    return result if chosen else _sliced(x, place, [(0, n, 1) for n in x.shape])


def pick(x: Tensor, place: Place, index: Sequence[int] | np.ndarray, axis: int) -> Tensor:
    """The elements of these indices along `axis`."""
    first = prefers_first([x])
    at = place.constant(np.asarray(index, np.int64), "index")
    return in_layout(place.node("Gather", [x.get(first), at], axis=axis_in(axis, x.rank, first)), first, place)


def gather(x: Tensor, indices: Tensor, place: Place, *, axis: int = 0, batch_axes: int = 0) -> Tensor:
    """The slices of `x` of these indices along `axis`; the first `batch_axes` axes of both belong together.

    Raises ModelError.
    """
    axis = normal_axis(axis, x.rank, place)
    batch_axes = normal_axis(batch_axes, indices.rank + 1, place)
    if not batch_axes:
        first = indices.rank == 1 and prefers_first([x])
        value = place.node("Gather", [x.get(first), indices.plain()], axis=axis_in(axis, x.rank, first))
        return in_layout(value, first, place)
    if x.shape[:batch_axes] != indices.shape[:batch_axes] or axis < batch_axes:
        raise place.error(f"gathers {list(indices.shape)} of {list(x.shape)} with {batch_axes} axes of a batch")
    # As rows of one long axis, each batch's indices are moved to where its own rows begin.
    batch = math.prod(x.shape[:batch_axes])
    before = [*range(batch_axes), axis, *(a for a in range(batch_axes, x.rank) if a != axis)]
    rest = [x.shape[a] for a in before[batch_axes + 1 :]]
    rows = transpose(x, place.within("turned"), before) if before != sorted(before) else x
    flat = reshape(rows, place.within("rows"), [batch * x.shape[axis], *rest])
    own = indices.shape[batch_axes:]
    starts = np.arange(batch, dtype=np.int64).reshape(batch, 1) * x.shape[axis]
    index = reshape(indices, place.within("flat"), [batch, math.prod(own)])
    wide = place.inner("Cast", [index.plain()], "wide", to=7)
    moved = place.inner("Add", [wide, place.constant(starts, "starts")], "moved")
    picked = Tensor.of(place.inner("Gather", [flat.plain(), moved], "picked", axis=0), place.within("picked"))
    between = len(before[batch_axes + 1 :]) and axis - batch_axes
    whole = reshape(picked, place.within("whole") if between else place, [*x.shape[:batch_axes], *own, *rest])
    if not between:
        return whole
    front, own_axes = list(range(batch_axes)), list(range(batch_axes, batch_axes + len(own)))
    others = list(range(batch_axes + len(own), whole.rank))
    return transpose(whole, place, [*front, *others[:between], *own_axes, *others[between:]])


def tile(x: Tensor, place: Place, repeats: Sequence[int]) -> Tensor:
    """The tensor so many times along each axis. Raises ModelError."""
    if len(repeats) != x.rank or any(n < 1 for n in repeats):
        raise place.error(f"repeats {list(x.shape)} {list(repeats)} times")
    checked_size([n * int(r) for n, r in zip(x.shape, repeats, strict=True)], place)
    first = prefers_first([x])
    times = [int(repeats[axis]) for axis in (to_first(x.rank) if first else range(x.rank))]
    return in_layout(
        place.node("Tile", [x.get(first), place.constant(np.array(times, np.int64), "repeats")]), first, place
    )


def broadcast_to(x: Tensor, place: Place, shape: Sequence[int]) -> Tensor:
    """The tensor repeated along axes of one element, and new ones before. Raises ModelError."""
    checked_size(shape, place)
    return Tensor.of(place.node("Expand", [x.plain(), place.constant(np.array(shape, np.int64), "shape")]), place)


def one_hot(indices: Tensor, place: Place, *, depth: int, on: Tensor, off: Tensor, axis: int = -1) -> Tensor:
    """`on` at each index along a new axis of `depth`, `off` elsewhere. Raises ModelError."""
    checked_size([*indices.shape, depth], place)
    # ONNX Runtime has OneHot for few pairs of types.
    direct = on.dtype == ir.DataType.FLOAT
    end = place if direct else place.within("real")
    flat = [reshape(t, place.within(n), [1]).plain() for t, n in ((off, "off"), (on, "on"))]
    values = place.inner("Concat", flat, "values", axis=0)
    if not direct:
        values = place.inner("Cast", [values], "real_values", to=ir.DataType.FLOAT.value)
    index = place.inner("Cast", [indices.plain()], "index", to=ir.DataType.INT64.value)
    value = end.node("OneHot", [index, place.constant(np.array(depth, np.int64), "depth"), values], axis=axis)
    return Tensor.of(value if direct else place.node("Cast", [value], to=on.dtype.value), place)
