"""Prints the times of loading real models: `python -m pytest -m benchmark -s tests/benchmarks/test_loading.py`."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks import loading
from tests.zoo import needs_zoo

pytestmark = [pytest.mark.benchmark, needs_zoo]


@pytest.mark.parametrize("framework", loading.FRAMEWORKS)
def test_models_are_loaded_while_it_is_timed(framework: str) -> None:
    reason = loading.missing(framework)
    if reason:
        pytest.skip(reason)
    found = [one for one in loading.subjects().values() if one.framework == framework]
    measured = [loading.measure(subject) for subject in found]
    print(loading.table(measured))
    assert measured
    assert all(one.ours.nodes > 0 and math.isfinite(one.ours.loaded) and one.ours.loaded > 0 for one in measured)
    assert all(one.note for one in measured)
