"""Adds and takes away a spatial axis of tensors whose blocks were moved into the batch, as dilated convolutions over
one axis are written: the convolution then still becomes a dilated one."""

from __future__ import annotations

from collections.abc import Sequence

from engine.frontends import nhwc
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.nhwc.tensors import Spread, normal_axis

_Pairs = tuple[tuple[int, int], ...]


def expand_dims(x: Tensor, place: Place, axis: int) -> Tensor:
    """With a new axis of one element. Raises ModelError."""
    at = normal_axis(axis, x.rank + 1, place)
    spread = x.spread
    if spread is None or not spread.direct or len(spread.block) != 1 or x.rank != 3 or at not in (1, 2):
        return nhwc.expand_dims(x, place, axis)
    source = nhwc.expand_dims(spread.source, place.within("source"), at)

    def gather(crops: _Pairs, place: Place) -> Tensor:
        return nhwc.expand_dims(spread.gather((crops[2 - at],), place.within("gathered")), place, at)

    block, pads = [1, spread.block[0]], [(0, 0), spread.pads[0]]
    ordered = (block, pads) if at == 1 else (block[::-1], pads[::-1])
    return Tensor(
        place,
        deferred=lambda: nhwc.expand_dims(x, place, at),
        shape=(*x.shape[:at], 1, *x.shape[at:]),
        dtype=x.dtype,
        spread=Spread(tuple(ordered[0]), tuple(ordered[1]), source, gather, True),
    )


def squeeze(x: Tensor, place: Place, axes: Sequence[int] = ()) -> Tensor:
    """Without the `axes`, all of one element; without all such axes where none are given. Raises ModelError."""
    chosen = [normal_axis(axis, x.rank, place) for axis in axes]
    spread = x.spread
    single = len(chosen) == 1 and chosen[0] in (1, 2) and x.rank == 4 and x.shape[chosen[0]] == 1
    if spread is None or spread.direct or not single or len(spread.block) != 2 or spread.block[chosen[0] - 1] != 1:
        return nhwc.squeeze(x, place, axes)
    at = chosen[0]

    def gather(crops: _Pairs, place: Place) -> Tensor:
        both = ((0, 0), crops[0]) if at == 1 else (crops[0], (0, 0))
        return nhwc.squeeze(spread.gather(both, place.within("gathered")), place, [at])

    return Tensor(
        place,
        deferred=lambda: nhwc.squeeze(x, place, [at]),
        shape=tuple(n for axis, n in enumerate(x.shape) if axis != at),
        dtype=x.dtype,
        spread=Spread((spread.block[2 - at],), (spread.pads[2 - at],), spread.source, gather, False),
    )
