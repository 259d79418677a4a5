"""Samples are read once, in any order, and parted without overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.quantization import samples as module
from engine.quantization.samples import Sample, Samples, held_out, spread


class Counting:
    """A source that counts how often each sample is read."""

    def __init__(self, count: int, size: int = 4) -> None:
        self.reads = [0] * count
        self._size = size

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return {"x": np.full(self._size, index, np.float32)}


def test_small_samples_are_read_once_however_often_and_by_whichever_part_they_are_asked_for() -> None:
    source = Counting(5)
    samples = Samples(source)
    for _ in range(3):
        assert [int(sample["x"][0]) for sample in samples] == [0, 1, 2, 3, 4]
    assert [int(sample["x"][0]) for sample in samples.part([3, 1])] == [3, 1]
    assert [int(sample["x"][0]) for sample in samples[1:3]] == [1, 2]
    assert source.reads == [1, 1, 1, 1, 1]


def test_samples_that_do_not_fit_are_read_again_rather_than_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counting(4, size=1000)
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 4000)
    samples = Samples(source)
    assert len(list(samples)) == len(list(samples)) == 4
    assert source.reads == [1, 1, 2, 2]


@given(st.integers(1, 300), st.integers(1, 40))
def test_spread_places_are_distinct_ordered_and_inside(count: int, wanted: int) -> None:
    places = spread(count, wanted)
    assert len(places) == min(count, wanted) == len(set(places))
    assert places == sorted(places) and places[0] >= 0 and places[-1] < count


@given(st.integers(1, 300), st.integers(1, 40))
def test_what_is_held_out_is_not_learned_from(count: int, wanted: int) -> None:
    learned, judged = held_out(count, wanted)
    if count < 4:
        assert learned == judged == list(range(count))
    else:
        assert sorted([*learned, *judged]) == list(range(count))
        assert 1 <= len(judged) <= min(wanted, count / 2)
