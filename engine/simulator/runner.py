"""Runs a lowered model on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.layers import Layer
from engine.ort import make_session, run
from engine.quantization.table import Table
from engine.simulator.lowering import lower

Array = np.ndarray[Any, Any]


class Simulator:
    """A built model, ready to run on the PC. Results are exact: the same on every run."""

    def __init__(self, model: ir.Model, layers: tuple[Layer, ...], table: Table, method: str) -> None:
        self._session = make_session(lower(model, layers, table, method))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the model's order, float32 (integers stay integers), for inputs by name in the model's layout."""
        return run(self._session, None, dict(feeds))
