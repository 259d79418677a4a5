"""How writing in place into a view changes the tensor that it is a view of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.frontends.pytorch.table import Arguments
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import Refused, Tensor

Writer = Callable[[Tensor, Tensor], Tensor]
"""Takes the base and the view's new content; returns the base's new content."""

_RESHAPING = {"view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"}
_SAME = {"detach", "alias", "contiguous", "to", "type_as", "expand_as", "dropout", "feature_dropout", "alpha_dropout"}


def writer_for(t: Translation, kind: str, a: Arguments) -> Writer | None:
    """What writes into the result of the view `kind`, or None where nothing here can."""
    name = kind.partition("::")[2]
    if name in _RESHAPING:
        return lambda base, new: t.reshape(new, base.shape)
    if name in _SAME:
        return lambda base, new: new if new.shape == base.shape else _impossible()
    if name in ("transpose", "swapaxes", "swapdims", "t"):
        return lambda base, new: t.transpose(new, _swap(a, base.rank))
    if name == "permute":
        return lambda base, new: t.transpose(new, np.argsort([d % base.rank for d in a.integers("dims")]).tolist())
    if name == "select":
        return lambda base, new: _into_select(t, a, base, new)
    if name in ("slice", "narrow"):
        return lambda base, new: _into_slice(t, name, a, base, new)
    return None


def part_writer(t: Translation, kind: str, a: Arguments, part: Tensor, index: int, start: int) -> Writer:
    """What writes into one of the parts that `kind` splits a tensor into; it begins at place `start`."""
    size = part.shape
    if kind == "aten::unbind":
        return lambda base, new: _into_select(t, Arguments({"dim": a.get("dim", 0), "index": index}), base, new)
    axis = axis_of(a.integer("dim"), len(size))
    return lambda base, new: _put(t, base, new, axis, start, start + size[axis])


def _impossible() -> Tensor:
    raise Refused("writes into a view of a tensor")


def _swap(a: Arguments, rank: int) -> list[int]:
    order = list(range(rank))
    one = a.integer("dim0", a.integer("axis0", 0)) % rank
    other = a.integer("dim1", a.integer("axis1", 1)) % rank
    order[one], order[other] = order[other], order[one]
    return order


def _into_select(t: Translation, a: Arguments, base: Tensor, new: Tensor) -> Tensor:
    axis = axis_of(a.integer("dim"), base.rank)
    at = a.integer("index") % base.shape[axis]
    shape = list(base.shape)
    shape[axis] = 1
    return _put(t, base, t.reshape(new, shape), axis, at, at + 1)


def _into_slice(t: Translation, name: str, a: Arguments, base: Tensor, new: Tensor) -> Tensor:
    axis = axis_of(a.integer("dim"), base.rank)
    size = base.shape[axis]
    if name == "narrow":
        start = a.integer("start") % size
        return _put(t, base, new, axis, start, start + a.integer("length"))
    start, end, step = slice(a.get("start"), a.get("end"), a.integer("step", 1)).indices(size)
    if step == 1:
        return _put(t, base, new, axis, start, max(start, end))
    # Every place of the axis comes from the old content or from the new.
    order = np.arange(size)
    order[start:end:step] = size + np.arange(len(order[start:end:step]))
    both = t.emit("Concat", *t.promoted(base, new), axis=axis)
    return t.emit("Gather", both, order, axis=axis)


def _put(t: Translation, base: Tensor, new: Tensor, axis: int, start: int, end: int) -> Tensor:
    parts = [t.slice(base, axis, 0, start)] if start > 0 else []
    parts.append(t.cast(new, base.dtype))
    if end < base.shape[axis]:
        parts.append(t.slice(base, axis, end, base.shape[axis]))
    return parts[0] if len(parts) == 1 else t.emit("Concat", *parts, axis=axis)
