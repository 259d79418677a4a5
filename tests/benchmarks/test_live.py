"""Prints the times of live changes on real models: `python -m pytest -m benchmark -s tests/benchmarks`."""

from __future__ import annotations

import pytest

from tests.benchmarks import live, onnx_job
from tests.zoo import needs_zoo

pytestmark = [pytest.mark.benchmark, needs_zoo]


@pytest.mark.parametrize("subject", onnx_job.SUBJECTS.values(), ids=lambda subject: subject.name)
def test_every_layer_is_changed_and_changed_back_while_it_is_timed(subject: onnx_job.Subject) -> None:
    measured = live.measure(subject, repeats=2)
    print(live.table([measured]))
    assert measured.layers > 50
    for step in (live.FORWARD, live.BACK, live.FORWARD_ALL, live.BACK_ALL):
        assert len(measured.seconds[step]) == measured.layers
        assert min(measured.seconds[step]) > 0
    assert measured.targets()
