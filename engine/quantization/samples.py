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


class Samples(Sequence[Sample]):
    """The samples of `source`, or those at `indices` of it."""

    def __init__(self, source: Source, indices: Sequence[int] | None = None) -> None:
        self._source = source
        self._indices = range(len(source)) if indices is None else indices
        self._kept: dict[int, Sample] = {}
        self._bytes = 0

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
        sample = self._kept.get(place)
        if sample is None:
            sample = self._source[place]
            self._bytes += sum(array.nbytes for array in sample.values())
            if self._bytes <= _KEPT_BYTES:
                self._kept[place] = sample
        return sample

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]

    def part(self, places: Sequence[int]) -> Samples:
        """The samples at `places` of these; what is kept stays kept by these."""
        return Samples(self, places)


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` places out of `count`, evenly spread; all of them where there are not that many."""
    wanted = min(count, wanted)
    return [round((index + 0.5) * count / wanted - 0.5) for index in range(wanted)]


def held_out(count: int, wanted: int) -> tuple[list[int], list[int]]:
    """Places to learn from, and at most `wanted` places (a quarter of all) to judge by that are not among them.

    With fewer than 4 samples none can be spared: then both are all of them.
    """
    if count < 4:
        return list(range(count)), list(range(count))
    judged = spread(count, min(wanted, count // 4))
    return [place for place in range(count) if place not in judged], judged
