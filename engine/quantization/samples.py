"""Samples as a sequence: read when wanted, kept while they fit in memory, parted by what they are used for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, overload

import numpy as np

Array = np.ndarray[Any, Any]
Sample = Mapping[str, Array]

# Beyond it samples are read again each time; twenty images of 1000 x 1000 stay below.
_KEPT_BYTES = 1 << 28


class Source(Protocol):
    """Where samples come from: a Dataset, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class _Kept:
    """Samples that were read, by their place in the source."""

    def __init__(self) -> None:
        self.samples: dict[int, Sample] = {}
        self.bytes = 0


class Samples(Sequence[Sample]):
    """The samples of `source`, or those at `indices` of it."""

    def __init__(self, source: Source, indices: Sequence[int] | None = None) -> None:
        self._source = source
        self._indices = range(len(source)) if indices is None else indices
        self._kept = _Kept()

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.part(range(len(self))[index])
        place = self._indices[index]
        sample = self._kept.samples.get(place)
        if sample is None:
            sample = self._source[place]
            size = sum(array.nbytes for array in sample.values())
            if self._kept.bytes + size <= _KEPT_BYTES:
                self._kept.samples[place] = sample
                self._kept.bytes += size
        return sample

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]

    def part(self, places: Sequence[int]) -> Samples:
        """The samples at `places` of these, which go on keeping what was read."""
        part = Samples(self._source, [self._indices[place] for place in places])
        part._kept = self._kept
        return part


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` places out of `count`, evenly spread; all of them where there are not that many."""
    wanted = min(count, wanted)
    return [round((index + 0.5) * count / wanted - 0.5) for index in range(wanted)]


def held_out(count: int, wanted: int) -> tuple[list[int], list[int]]:
    """Places to learn from, and at most `wanted` places (half of all) to judge by that are not among them.

    With fewer than 4 samples none can be spared: then both are all of them.
    """
    if count < 4:
        return list(range(count)), list(range(count))
    judged = spread(count, min(wanted, count // 2))
    return [place for place in range(count) if place not in judged], judged
