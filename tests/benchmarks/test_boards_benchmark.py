"""Prints the times of the way to a board: `python -m pytest -m benchmark -s tests/benchmarks -k sent_and_run`."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks import boards

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("way", boards.WAYS)
def test_models_are_sent_and_run_while_it_is_timed(way: str) -> None:
    reason = boards.missing(way)
    if reason:
        pytest.skip(reason)
    measured = boards.measure(way, runs=100)
    print(boards.table([measured]))
    assert all(math.isfinite(ms) for ms in measured.overhead.values())
    assert min(measured.upload, measured.bare_upload, measured.bare_way_upload) > 0
    assert measured.targets()
