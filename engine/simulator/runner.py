"""Runs a lowered model on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.ort import make_simulation, run
from engine.quantization.quantized import Quantized
from engine.simulator.lowering import lower

Array = np.ndarray[Any, Any]


class Simulator:
    """A built model, ready to run on the PC. Results are exact: the same on every run."""

    def __init__(self, quantized: Quantized) -> None:
        self._session = make_simulation(lower(quantized))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the model's order, float32 (integers stay integers), for inputs by name in the model's layout."""
        return run(self._session, None, dict(feeds))
