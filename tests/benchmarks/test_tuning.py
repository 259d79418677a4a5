"""Prints the times of algorithms and of `tune` on real models: `python -m pytest -m benchmark -s tests/benchmarks`."""

from __future__ import annotations

import pytest

from tests.benchmarks import onnx_job, tuning
from tests.zoo import needs_zoo

pytestmark = [pytest.mark.benchmark, needs_zoo]


@pytest.mark.parametrize("subject", onnx_job.SUBJECTS.values(), ids=lambda subject: subject.name)
def test_every_algorithm_and_a_search_are_done_in_full_while_they_are_timed(subject: onnx_job.Subject) -> None:
    measured = tuning.measure(subject, repeats=1)
    print(tuning.table([measured]))
    assert all(seconds > 0 for seconds in measured.seconds.values())
    assert measured.tuned.noise <= measured.base.noise
    assert measured.changes.layers > 50
    assert measured.targets()
