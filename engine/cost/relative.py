"""Estimated time of a model under other precisions, beside what it takes as it is."""

from __future__ import annotations

from engine.cost.estimate import CostModel
from engine.cost.layer_costs import Machine
from engine.quantization.quantized import Quantized
from engine.quantization.table import Table
from engine.targets import Target


class RelativeCost:
    """What other precisions of one quantized model take more or less time than its own, on one core of a target.

    `model` is the cost model of its graph there, where it was made already.
    """

    def __init__(self, quantized: Quantized, target: Target, model: CostModel | None = None) -> None:
        self.model = model or CostModel(quantized.model, quantized.layers, Machine(target))
        self.base_us = self.time_us(quantized.table)

    def time_us(self, table: Table) -> float:
        """Estimated microseconds of one inference."""
        return self.model.time_us(table)

    def extra(self, table: Table) -> float:
        """The extra time that `table` takes: 0.1 is a tenth longer. Negative where it is faster."""
        return self.time_us(table) / self.base_us - 1.0 if self.base_us else 0.0
