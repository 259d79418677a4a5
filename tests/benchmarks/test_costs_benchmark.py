"""Prints the times of estimates of real models: `python -m pytest -m benchmark -s tests/benchmarks`."""

from __future__ import annotations

import pytest

from tests.benchmarks import costs
from tests.benchmarks.onnx_job import SUBJECTS, Subject
from tests.zoo import needs_zoo

pytestmark = [pytest.mark.benchmark, needs_zoo]


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=lambda subject: subject.name)
def test_every_layer_is_estimated_in_another_precision_while_it_is_timed(subject: Subject) -> None:
    measured = costs.measure(subject, repeats=2)
    print(costs.table(measured))
    assert len(measured.seconds[costs.CHANGED]) > 50
    assert measured.targets()
