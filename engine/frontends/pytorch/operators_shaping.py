"""Views and rearrangements: shapes, orders, joins and parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.frontends.pytorch.operators_activation import like
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axes_of, axis_of
from engine.frontends.pytorch.values import Refused, Tensor

_MOST_PARTS = 4096


@operator("contiguous", "clone", "alias", "lift_fresh", "lift", "cpu", "cuda", "positive", becomes="", view=False)
@operator("resolve_conj", "resolve_neg", "conj", "pin_memory", "expand_copy", becomes="")
def _copy(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return Tensor(x.content, grid=x.grid, label=x.label)


@operator("detach", "requires_grad_", becomes="", view=True)
def _same(t: Translation, a: Arguments) -> Tensor:
    return a.tensor("self")


@operator("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", becomes="", view=True)
def _dropout(t: Translation, a: Arguments) -> Tensor:
    if (a.flag("train") or a.flag("training")) and a.number("p") > 0:
        raise Refused("drops elements at random, as in training", "call eval() before exporting")
    return a.tensor("input" if "input" in a else "self")


@operator("native_dropout", becomes="")
def _native_dropout(t: Translation, a: Arguments) -> list[Tensor]:
    if a.flag("train") and a.number("p") > 0:
        raise Refused("drops elements at random, as in training", "call eval() before exporting")
    return [a.tensor("input"), t.constant(np.ones(a.tensor("input").shape, bool))]


def shaped(t: Translation, x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshaped, with one dimension of -1 allowed; what is quantized stays so."""
    shape = list(shape)
    total, known = math.prod(x.shape), math.prod(d for d in shape if d != -1)
    if shape.count(-1) == 1 and known > 0 and total % known == 0:
        shape[shape.index(-1)] = total // known
    if min(shape, default=0) < 0 or math.prod(shape) != total:
        raise Refused(f"makes {shape} of {list(x.shape)}", "do the input sizes fit the model?")
    if tuple(shape) == x.shape:
        return Tensor(x.content, grid=x.grid, label=x.label)
    return like(t, x, t.emit("Reshape", x, shape))


@operator("view", "reshape", "_unsafe_view", "_reshape_alias", "view_copy", becomes="Reshape", view=True)
def _view(t: Translation, a: Arguments) -> Tensor:
    if "size" not in a and "shape" not in a:
        raise Refused("reads memory as another type")
    return shaped(t, a.tensor("self"), a.integers("size") if "size" in a else a.integers("shape"))


@operator("view_as", "reshape_as", becomes="Reshape", view=True)
def _view_as(t: Translation, a: Arguments) -> Tensor:
    return shaped(t, a.tensor("self"), a.tensor("other").shape)


@operator("flatten", becomes="Reshape", view=True)
def _flatten(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    start, end = axis_of(a.integer("start_dim"), x.rank), axis_of(a.integer("end_dim", -1), x.rank)
    return shaped(t, x, [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


@operator("unflatten", becomes="Reshape", view=True)
def _unflatten(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    return shaped(t, x, [*x.shape[:axis], *a.integers("sizes"), *x.shape[axis + 1 :]])


@operator("squeeze", becomes="Reshape", view=True)
def _squeeze(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axes = axes_of(a.integers("dim"), x.rank) if a.get("dim") is not None else range(x.rank)
    return shaped(t, x, [d for axis, d in enumerate(x.shape) if d != 1 or axis not in axes])


@operator("unsqueeze", becomes="Reshape", view=True)
def _unsqueeze(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank + 1)
    return shaped(t, x, [*x.shape[:axis], 1, *x.shape[axis:]])


def moved(t: Translation, x: Tensor, order: Sequence[int]) -> Tensor:
    """Transposed; what is quantized stays so."""
    return like(t, x, t.transpose(x, order))


@operator("permute", becomes="Transpose", view=True)
def _permute(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    order = axes_of(a.integers("dims"), x.rank)
    if sorted(order) != list(range(x.rank)):
        raise Refused(f"orders the dimensions of {list(x.shape)} as {order}")
    return moved(t, x, order)


@operator("transpose", "swapaxes", "swapdims", becomes="Transpose", view=True)
def _transpose(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    one = axis_of(a.integer("dim0", a.integer("axis0")), x.rank)
    other = axis_of(a.integer("dim1", a.integer("axis1")), x.rank)
    order = list(range(x.rank))
    if x.rank:
        order[one], order[other] = order[other], order[one]
    return moved(t, x, order)


@operator("t", becomes="Transpose", view=True)
def _t(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return moved(t, x, list(range(x.rank))[::-1])


@operator("numpy_T", becomes="Transpose")
def _reversed(t: Translation, a: Arguments) -> Tensor:
    return _t(t, a)


@operator("mT", "mH", "adjoint", becomes="Transpose")
def _matrix_transpose(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return moved(t, x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@operator("movedim", "moveaxis", becomes="Transpose")
def _movedim(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    sources, targets = axes_of(a.integers("source"), x.rank), axes_of(a.integers("destination"), x.rank)
    rest = iter(axis for axis in range(x.rank) if axis not in sources)
    places = dict(zip(targets, sources, strict=True))
    return moved(t, x, [places[i] if i in places else next(rest) for i in range(x.rank)])


@operator("expand", becomes="Expand Reshape", view=True)
def _expand(t: Translation, a: Arguments) -> Tensor:
    return expanded(t, a.tensor("self"), a.integers("size"))


@operator("expand_as", becomes="Expand Reshape", view=True)
def _expand_as(t: Translation, a: Arguments) -> Tensor:
    return expanded(t, a.tensor("self"), a.tensor("other").shape)


@operator("broadcast_to", becomes="Expand Reshape")
def _broadcast_to(t: Translation, a: Arguments) -> Tensor:
    return expanded(t, a.tensor("self"), a.integers("size"))


def expanded(t: Translation, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Expanded to `sizes`, where -1 stands for the size that there is."""
    own = [1] * (len(sizes) - x.rank) + list(x.shape)
    if len(own) != len(sizes):
        raise Refused(f"expands {list(x.shape)} to {list(sizes)}")
    shape = [n if s == -1 else s for n, s in zip(own, sizes, strict=True)]
    if tuple(shape) == x.shape:
        return Tensor(x.content, grid=x.grid, label=x.label)
    return like(t, x, t.expand(x, shape))


@operator("broadcast_tensors", becomes="Expand")
def _broadcast_tensors(t: Translation, a: Arguments) -> list[Tensor]:
    tensors = a.tensors("tensors")
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return [t.expand(tensor, shape) for tensor in tensors]


@operator("meshgrid", becomes="Expand Reshape Transpose")
def _meshgrid(t: Translation, a: Arguments) -> list[Tensor]:
    tensors = a.tensors("tensors")
    sizes = [math.prod(one.shape) for one in tensors]
    order = list(range(len(sizes)))
    if a.get("indexing") == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    found = []
    for index, one in enumerate(tensors):
        shape = [size if axis == index else 1 for axis, size in enumerate(sizes)]
        found.append(t.transpose(t.expand(t.reshape(one, shape), sizes), order))
    return found


@operator("repeat", "tile", becomes="Reshape Tile")
def _repeat(t: Translation, a: Arguments) -> Tensor:
    x, times = a.tensor("self"), a.integers("repeats") if "repeats" in a else a.integers("dims")
    times = [1] * (x.rank - len(times)) + times
    whole = t.reshape(x, [1] * (len(times) - x.rank) + list(x.shape))
    return whole if all(n == 1 for n in times) else t.emit("Tile", whole, times)


@operator("repeat_interleave", becomes="Gather Reshape")
def _repeat_interleave(t: Translation, a: Arguments) -> Tensor:
    x, repeats = a.tensor("self"), a["repeats"]
    if a.get("dim") is None:
        x = t.reshape(x, [math.prod(x.shape)])
    axis = axis_of(a.integer("dim"), x.rank)
    counts = t.array(repeats) if isinstance(repeats, Tensor) else repeats
    return t.emit("Gather", x, np.repeat(np.arange(x.shape[axis]), counts), axis=axis)


@operator("cat", "concat", "concatenate", becomes="Concat")
def _cat(t: Translation, a: Arguments) -> Tensor:
    tensors = [one for one in a.tensors("tensors") if one.shape != (0,)] or a.tensors("tensors")[:1]
    return joined(t, tensors, axis_of(a.integer("dim"), tensors[0].rank))


def joined(t: Translation, tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenated along `axis`; of quantized ones the first tells the grid."""
    result = t.emit("Concat", *t.promoted(*tensors), axis=axis)
    return like(t, tensors[0], result)


def _side_by_side(least: int, axis: int) -> Handler:
    """Concatenated along a dimension that tensors of fewer dimensions get first."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        tensors = [t.reshape(one, _grown(one.shape, least, axis)) for one in a.tensors("tensors")]
        return joined(t, tensors, axis if tensors[0].rank > axis else 0)

    return handler


def _grown(shape: Sequence[int], least: int, axis: int) -> list[int]:
    if len(shape) >= least:
        return list(shape)
    if axis == 2 and len(shape) == 2:
        return [*shape, 1]
    return [1] * (least - len(shape) - (axis == 2)) + list(shape) + [1] * (axis == 2)


operator("hstack", becomes="Concat Reshape")(_side_by_side(1, 1))
operator("vstack", "row_stack", becomes="Concat Reshape")(_side_by_side(2, 0))
operator("dstack", becomes="Concat Reshape")(_side_by_side(3, 2))


@operator("stack", becomes="Concat Reshape")
def _stack(t: Translation, a: Arguments) -> Tensor:
    tensors = a.tensors("tensors")
    axis = axis_of(a.integer("dim"), tensors[0].rank + 1)
    shape = [*tensors[0].shape[:axis], 1, *tensors[0].shape[axis:]]
    return joined(t, [t.reshape(tensor, shape) for tensor in tensors], axis)


def parts(t: Translation, x: Tensor, axis: int, sizes: Sequence[int]) -> list[Tensor]:
    """Split along `axis`."""
    if len(sizes) > _MOST_PARTS or min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:
        raise Refused(f"splits {x.shape[axis]} into {list(sizes)[:20]}")
    if len(sizes) == 1:
        return [Tensor(x.content, grid=x.grid)]
    return [like(t, x, part) for part in t.emit_several("Split", len(sizes), x, list(sizes), axis=axis)]


def _even(size: int, step: int) -> list[int]:
    if step < 1:
        raise Refused(f"splits into parts of {step}")
    return [min(step, size - start) for start in range(0, size, step)]


@operator("split", "split_with_sizes", becomes="Split", view=True)
@operator("unsafe_split", "unsafe_split_with_sizes", becomes="Split")
def _split(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    size = a.get("split_size")
    sizes = (
        _even(x.shape[axis], size)
        if isinstance(size, int)
        else a.integers("split_sizes" if "split_sizes" in a else "split_size")
    )
    return parts(t, x, axis, sizes)


@operator("chunk", becomes="Split", view=True)
@operator("unsafe_chunk", becomes="Split")
def _chunk(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    return parts(t, x, axis, _even(x.shape[axis], -(-x.shape[axis] // max(a.integer("chunks"), 1))))


@operator("tensor_split", becomes="Split", view=True)
def _tensor_split(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    if "sections" in a:
        pieces = np.array_split(np.arange(x.shape[axis]), max(a.integer("sections"), 1))
    else:
        pieces = np.array_split(np.arange(x.shape[axis]), a.integers("indices"))
    return parts(t, x, axis, [len(piece) for piece in pieces])


@operator("unbind", becomes="Reshape Split", view=True)
def _unbind(t: Translation, a: Arguments) -> list[Tensor]:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim"), x.rank)
    shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    return [like(t, x, t.reshape(part, shape)) for part in parts(t, x, axis, [1] * x.shape[axis])]


@operator("roll", becomes="Concat Reshape Slice")
def _roll(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    shifts, dims = a.integers("shifts"), a.integers("dims")
    flat = x if dims else t.reshape(x, [math.prod(x.shape)])
    for shift, dim in zip(shifts, dims or [0], strict=True):
        axis = axis_of(dim, flat.rank)
        size = flat.shape[axis]
        start = -shift % size
        if start:
            flat = t.emit("Concat", t.slice(flat, axis, start, size), t.slice(flat, axis, 0, start), axis=axis)
    return t.reshape(flat, x.shape)


@operator("flip", becomes="Slice")
def _flip(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axes = axes_of(a.integers("dims"), x.rank) if a.integers("dims") else []
    if not axes:
        return x
    lowest = np.iinfo(np.int64).min
    return like(t, x, t.emit("Slice", x, [-1] * len(axes), [int(lowest)] * len(axes), axes, [-1] * len(axes)))


@operator("unfold", becomes="Gather Transpose Reshape")
def _unfold(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dimension"), x.rank)
    size, step = a.integer("size"), a.integer("step")
    if step < 1 or not 0 < size <= x.shape[axis]:
        raise Refused(f"takes windows of {size} every {step} of {x.shape[axis]}")
    starts = np.arange(0, x.shape[axis] - size + 1, step)
    gathered = t.emit("Gather", x, starts[:, None] + np.arange(size), axis=axis)
    order = [i for i in range(gathered.rank) if i != axis + 1] + [axis + 1]
    return t.transpose(gathered, order)


@operator("im2col", becomes="Gather Pad Reshape Transpose")
def _im2col(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    kernel, dilation, padding = (a.integers(name, 2) for name in ("kernel_size", "dilation", "padding"))
    stride = a.integers("stride", 2)
    if x.rank != 4 or min(kernel + dilation + stride) < 1:
        raise Refused(f"takes windows of {list(x.shape)}")
    if any(padding):
        begins = [0, 0, padding[0], padding[1]]
        x = t.emit("Pad", x, begins * 2, mode="constant")
    for axis in (2, 3):
        k, d, s = kernel[axis - 2], dilation[axis - 2], stride[axis - 2]
        at = 2 * axis - 2
        count = (x.shape[at] - d * (k - 1) - 1) // s + 1
        x = t.emit("Gather", x, d * np.arange(k)[:, None] + s * np.arange(max(count, 0)), axis=at)
    n, c, kh, h, kw, w = x.shape
    return t.reshape(t.transpose(x, [0, 1, 2, 4, 3, 5]), (n, c * kh * kw, h * w))
