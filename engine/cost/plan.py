"""Where tensors lie in memory: offsets for what is in use at the same time, and how much that is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from engine.estimates import MemoryBlock

ALIGNMENT = 64
"""Bytes: every tensor begins at a multiple."""

# A plan is made after each key: no better one is sought than 2 % above the lower bound, nor more orders than this,
# nor so many where tensors last long: placing them takes the time of the steps over which they do, in sum.
_NEAR = 1.02
_TRIES = 10
_STEPS = 250_000


class Demand(NamedTuple):
    """What a tensor needs: `bytes` from the step `first` to the step `last`, both included; steps count from 0."""

    tensor: str
    bytes: int
    first: int
    last: int


def in_use(demands: Sequence[Demand]) -> list[int]:
    """Bytes in use at each step, up to the last at which there is a tensor."""
    changes = [0] * (max((demand.last for demand in demands), default=-1) + 2)
    for _, size, first, last in demands:
        changes[first] += size
        changes[last + 1] -= size
    return list(itertools.accumulate(changes))[:-1]


def lower_bound(demands: Sequence[Demand]) -> int:
    """The most bytes that are in use at once: no plan ends below that."""
    return max(in_use(demands), default=0)


def end(blocks: Sequence[MemoryBlock]) -> int:
    """The bytes of memory that a plan takes."""
    return max((block.offset + block.bytes for block in blocks), default=0)


def plan(demands: Sequence[Demand]) -> tuple[MemoryBlock, ...]:
    """Place every tensor, in the order given: no two that are in use at the same step overlap.

    Tensors are placed one by one into the smallest gap that fits: the largest first, or those of the fullest steps
    first and of them the longest-lived. While no order comes near the lower bound, the tensor that reaches furthest up
    is placed before all others, a few times. The shortest plan is returned, and the same one for the same demands.
    """
    wanted = [demand._replace(bytes=-(-demand.bytes // ALIGNMENT) * ALIGNMENT) for demand in demands]
    if not wanted:
        return ()
    enough = lower_bound(wanted) * _NEAR
    tries = min(_STEPS // sum(demand.last - demand.first + 1 for demand in wanted), _TRIES)
    best = _attempt(wanted, _largest_first(wanted))
    if tries > 1 and best.end > enough:
        best = min(best, _attempt(wanted, _fullest_first(wanted)), key=_length)
    latest = best
    for _ in range(tries - 2):
        if best.end <= enough or latest.order[0] == latest.top:
            break
        latest = _attempt(wanted, [latest.top, *(index for index in latest.order if index != latest.top)])
        best = min(best, latest, key=_length)
    return tuple(
        MemoryBlock(demand.tensor, offset, demand.bytes, demand.first, demand.last)
        for offset, demand in zip(best.offsets, demands, strict=True)
    )


class _Attempt(NamedTuple):
    """Offsets found by placing in an order, the memory they take, and which tensor reaches furthest up."""

    order: list[int]
    offsets: list[int]
    end: int
    top: int


def _attempt(demands: Sequence[Demand], order: list[int]) -> _Attempt:
    offsets = _offsets(demands, order)
    ends = [offset + demand.bytes for offset, demand in zip(offsets, demands, strict=True)]
    length = max(ends)
    return _Attempt(order, offsets, length, ends.index(length))


def _length(attempt: _Attempt) -> int:
    return attempt.end


def _largest_first(demands: Sequence[Demand]) -> list[int]:
    return sorted(range(len(demands)), key=lambda i: (-demands[i].bytes, demands[i].first - demands[i].last))


def _fullest_first(demands: Sequence[Demand]) -> list[int]:
    used = in_use(demands)
    keys = [(-max(used[first : last + 1]), first - last, -size) for _, size, first, last in demands]
    return sorted(range(len(demands)), key=keys.__getitem__)


def _offsets(demands: Sequence[Demand], order: Sequence[int]) -> list[int]:
    """An offset for each tensor, placed in the given order into the smallest gap among those already there."""
    steps = max(demand.last for demand in demands) + 1
    # What is in use together with a tensor was so at its first step, or begins while it lasts.
    present: list[list[tuple[int, int]]] = [[] for _ in range(steps)]
    beginning: list[list[tuple[int, int]]] = [[] for _ in range(steps)]
    offsets = [0] * len(demands)
    for index in order:
        _, size, first, last = demands[index]
        if not size:
            continue
        taken = present[first].copy()
        for others in beginning[first + 1 : last + 1]:
            if others:
                taken += others
        taken.sort()
        offset, smallest, free = -1, 0, 0
        for begin, stop in taken:
            gap = begin - free
            if gap >= size and (offset < 0 or gap < smallest):
                offset, smallest = free, gap
            if stop > free:
                free = stop
        if offset < 0:
            offset = free
        offsets[index] = offset
        place = (offset, offset + size)
        beginning[first].append(place)
        for at in present[first : last + 1]:
            at.append(place)
    return offsets
