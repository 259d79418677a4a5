"""Moves blocks of space into the batch and back; convolutions between the two become dilated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc.padding import Padding, pads_of
from engine.frontends.nhwc.shaping import pad, strided_slice
from engine.frontends.nhwc.tensors import Place, Spread, Tensor, checked_size

_Pairs = Sequence[tuple[int, int]]


def space_to_batch(x: Tensor, place: Place, *, block: Sequence[int], pads: _Pairs) -> Tensor:
    """Zeros around the spatial axes 1.., then the positions of each block become rows of the batch.

    The nodes are made only if something other than a convolution, what acts on single values, and `batch_to_space`
    reads it. Raises ModelError.
    """
    block, pads = tuple(block), tuple((int(a), int(b)) for a, b in pads)
    if not block or x.rank <= len(block) or len(pads) != len(block) or min(block) < 1 or min(map(min, pads)) < 0:
        raise place.error(f"moves blocks of {list(block)} with pads {list(pads)} of {list(x.shape)} into the batch")
    padded = [size + a + b for size, (a, b) in zip(x.shape[1:], pads, strict=False)]
    if any(size % side for size, side in zip(padded, block, strict=True)):
        raise place.error(f"{padded} cannot be parted into blocks of {list(block)}")
    rest = x.shape[1 + len(block) :]
    shape = (x.shape[0] * int(np.prod(block)), *(s // b for s, b in zip(padded, block, strict=True)), *rest)
    checked_size(shape, place)

    def make() -> Tensor:
        value = x.plain()
        if any(map(any, pads)):
            amounts = [0, *(a for a, _ in pads), *(0 for _ in rest), 0, *(b for _, b in pads), *(0 for _ in rest)]
            value = place.inner("Pad", [value, place.constant(np.array(amounts, np.int64), "pads")], "padded")
        parted = [x.shape[0]]
        for size, side in zip(padded, block, strict=True):
            parted += [size // side, side]
        spatial = len(block)
        order = [
            *range(2, 2 * spatial + 1, 2),
            0,
            *range(1, 2 * spatial, 2),
            *range(2 * spatial + 1, 2 * spatial + 1 + len(rest)),
        ]
        return _rearranged(value, [*parted, *rest], order, shape, place)

    def gather(crops: tuple[tuple[int, int], ...], place: Place) -> Tensor:
        return _moved(x, [(a - c, b - d) for (a, b), (c, d) in zip(pads, crops, strict=True)], place)

    return Tensor(place, deferred=make, shape=shape, dtype=x.dtype, spread=Spread(block, pads, x, gather, True))


def batch_to_space(x: Tensor, place: Place, *, block: Sequence[int], crops: _Pairs) -> Tensor:
    """The inverse of `space_to_batch`: rows of the batch become blocks of space, then the edges are cropped."""
    block, crops = tuple(block), tuple((int(a), int(b)) for a, b in crops)
    rows = int(np.prod(block)) if block else 0
    if not rows or x.rank <= len(block) or len(crops) != len(block) or min(map(min, crops)) < 0 or x.shape[0] % rows:
        raise place.error(f"moves the batch of {list(x.shape)} into blocks of {list(block)} with crops {list(crops)}")
    if x.spread is not None and x.spread.block == block:
        return x.spread.gather(crops, place)
    spatial = len(block)
    rest = x.shape[1 + spatial :]
    batch = x.shape[0] // rows
    order = [spatial]
    for index in range(spatial):
        order += [spatial + 1 + index, index]
    order += range(2 * spatial + 1, 2 * spatial + 1 + len(rest))
    full = [size * side for size, side in zip(x.shape[1:], block, strict=False)]
    crop = any(map(any, crops))
    end = place.within("whole") if crop else place
    parted = [*block, batch, *x.shape[1 : 1 + spatial], *rest]
    whole = _rearranged(x.plain(), parted, order, (batch, *full, *rest), end)
    return _moved(whole, [(-a, -b) for a, b in crops], place) if crop else whole


def spread_convolution(
    x: Tensor,
    window: Sequence[int],
    padding: Padding,
    make: Callable[[Tensor, Sequence[int], Padding, Place], Tensor],
    channels: int,
    place: Place,
) -> Tensor | None:
    """What `make` (a convolution of stride 1, given its input, dilations and padding) makes of a tensor whose blocks
    were moved into the batch: one dilated convolution, if the blocks are moved back behind it.

    None where that is not so simple: where the blocks were convolved before, or are of other axes.
    """
    spread = x.spread
    if spread is None or not spread.direct or len(spread.block) != len(window):
        return None
    ones = (1,) * len(window)
    inner = pads_of(padding, x.shape[1:-1], window, ones, ones, place)
    sizes = [n + a + b - k + 1 for n, (a, b), k in zip(x.shape[1:-1], inner, window, strict=True)]
    if min(sizes) < 1:
        raise place.error(f"convolves {list(x.shape)} with a window of {list(window)}")

    def gather(crops: tuple[tuple[int, int], ...], place: Place) -> Tensor:
        wanted = [
            tuple(spread.pads[index][end] + inner[index][end] * side - crops[index][end] for end in (0, 1))
            for index, side in enumerate(spread.block)
        ]
        outward = [(max(a, 0), max(b, 0)) for a, b in wanted]
        inward = [(min(a, 0), min(b, 0)) for a, b in wanted]
        if not any(map(any, inward)):
            return make(spread.source, spread.block, outward, place)
        return _moved(make(spread.source, spread.block, outward, place.within("whole")), inward, place)

    return Tensor(
        place,
        deferred=lambda: make(x, ones, padding, place),
        shape=(x.shape[0], *sizes, channels),
        dtype=x.dtype,
        spread=Spread(spread.block, spread.pads, spread.source, gather, False),
    )


def spread_values(x: Tensor, act: Callable[[Tensor, Place], Tensor], place: Place) -> Tensor:
    """What `act`, which keeps the shape and acts on single values or by channel, makes of a tensor whose blocks were
    moved into the batch: if they are moved back, it acts behind that."""
    spread = x.spread
    assert spread is not None

    def gather(crops: tuple[tuple[int, int], ...], place: Place) -> Tensor:
        return act(spread.gather(crops, place.within("gathered")), place)

    return Tensor(
        place,
        deferred=lambda: act(x, place),
        shape=x.shape,
        dtype=x.dtype,
        spread=Spread(spread.block, spread.pads, spread.source, gather, False),
    )


def _rearranged(
    value: ir.Value, parted: Sequence[int], order: Sequence[int], shape: Sequence[int], place: Place
) -> Tensor:
    value = place.inner("Reshape", [value, place.constant(np.array(parted, np.int64), "parted_shape")], "parted")
    value = place.inner("Transpose", [value], "turned", perm=list(order))
    value = place.node("Reshape", [value, place.constant(np.array(shape, np.int64), "shape")])
    return Tensor.of(value, place)


def _moved(x: Tensor, pads: _Pairs, place: Place) -> Tensor:
    """The edges of the spatial axes moved outwards (zeros) or inwards."""
    rest = [(0, 0)] * (x.rank - 1 - len(pads))
    if any(n < 0 for pair in pads for n in pair):
        begin = [0, *(max(-a, 0) for a, _ in pads), *(0 for _ in rest)]
        end = [
            x.shape[0],
            *(n - max(-b, 0) for n, (_, b) in zip(x.shape[1:], pads, strict=False)),
            *x.shape[1 + len(pads) :],
        ]
        outward = any(n > 0 for pair in pads for n in pair)
        x = strided_slice(x, place.within("cropped") if outward else place, begin=begin, end=end, strides=[1] * x.rank)
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
        if not outward:
            return x
    return pad(x, place, pads=[(0, 0), *pads, *rest])
