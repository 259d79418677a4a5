"""Prints the times of a whole job on real models: `python -m pytest -m benchmark -s tests/benchmarks`."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks import onnx_job
from tests.zoo import needs_zoo

pytestmark = [pytest.mark.benchmark, needs_zoo]


@pytest.mark.parametrize("subject", onnx_job.SUBJECTS.values(), ids=lambda subject: subject.name)
def test_a_job_is_done_in_full_while_it_is_timed(subject: onnx_job.Subject) -> None:
    measured = onnx_job.measure(subject, repeats=3)
    print(onnx_job.table([measured]))
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in measured.seconds.values())
    assert all(peak > 10 * onnx_job.MEGABYTE for peak in measured.peak.values())
    assert measured.samples == 20
    # Beside every tensor stand rows for constants and for the int8 copies of inputs and outputs.
    assert measured.rows >= measured.tensors > 100
    assert measured.analysed > 50
    assert measured.peer_nodes > measured.tensors
    assert measured.targets()
