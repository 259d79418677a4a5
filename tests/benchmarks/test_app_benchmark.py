"""Prints the times of the app on a terminal: `python -m pytest -m benchmark -s tests/benchmarks`."""

from __future__ import annotations

import math
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from tests.benchmarks import app
from tests.zoo import needs_zoo

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("subject", ["5,000 layers", pytest.param("det", marks=needs_zoo)])
def test_every_key_is_answered_while_it_is_timed(subject: str) -> None:
    measured = app.measure(subject, presses=40)
    print(app.table([app.measure_empty(presses=40), measured]))
    expected = {app.FIRST, app.GRAPH, app.MOVE, app.PAGE, app.TOGGLE, app.FILTER, app.FOLDS, app.ORDER}
    assert set(measured.steps) == expected | ({app.MEASURED} if subject == "det" else set())
    for step in measured.steps.values():
        assert all(math.isfinite(seconds) and seconds > 0 for seconds in step.seconds)
        assert all(sent > 0 for sent in step.bytes)
    assert len(measured.steps[app.MOVE].seconds) == 40
    assert measured.targets()
