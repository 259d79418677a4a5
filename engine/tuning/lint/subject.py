"""What the rules of lint look at: a quantized model with what is known of its samples."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.graph.layers import Layer
from engine.quantization.clipped_ranges import never_clipped
from engine.quantization.edits import layer_wishes
from engine.quantization.parameters import widen
from engine.quantization.quantized import Quantized
from engine.quantization.ranges import Range
from engine.quantization.statistics import Statistics
from engine.quantization.table import GRIDS, Row
from engine.quantization.traffic import computed_in
from engine.targets import Target

Array = np.ndarray[Any, Any]
Sample = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A model under lint, and what is known of it; a rule whose evidence is absent is skipped.

    statistics: what calibration saw. samples: normalized samples, inputs by name, on which the model may be run.
    inference: a sample as the application gives it.
    """

    quantized: Quantized
    target: Target
    statistics: Statistics | None = None
    samples: Sequence[Sample] = ()
    inference: Sample | None = None

    @functools.cached_property
    def seen(self) -> Mapping[str, Range]:
        """The smallest and largest value of each tensor in calibration: from statistics, or else from the table."""
        if self.statistics is not None:
            return self.statistics.ranges
        rows = self.quantized.table.rows.items()
        return {name: (row.ori_min, row.ori_max) for name, row in rows if math.isfinite(row.ori_max - row.ori_min)}

    @functools.cached_property
    def readers(self) -> Mapping[str, list[Layer]]:
        """The layers that read each tensor."""
        found: dict[str, list[Layer]] = collections.defaultdict(list)
        for layer in self.quantized.layers:
            for name in layer.inputs:
                found[name].append(layer)
        return found

    @functools.cached_property
    def stored(self) -> Mapping[str, Layer | None]:
        """The tensors between layers in execution order, each with the layer that makes it; None for model inputs."""
        inputs: dict[str, Layer | None] = {v.name or "": None for v in self.quantized.model.graph.inputs}
        return inputs | {name: layer for layer in self.quantized.layers for name in layer.outputs}

    @functools.cached_property
    def outputs(self) -> frozenset[str]:
        """The names of the model's outputs."""
        return frozenset(v.name or "" for v in self.quantized.model.graph.outputs)

    @functools.cached_property
    def never_clipped(self) -> set[str]:
        """Tensors whose extremes decide, however rare they are."""
        return never_clipped(self.quantized.model, self.quantized.layers)

    def precisions(self, layer: Layer) -> list[str]:
        """What each node of the layer computes in."""
        return computed_in(layer, self.quantized.table)

    def grid(self, tensor: str) -> Row | None:
        """The integer grid on which the tensor is stored, if it is on one."""
        return self.quantized.table.quantizer(tensor)

    @property
    def finer(self) -> str:
        """The precision that spares a layer the grid of int8: float16, or int16 where the target lacks it."""
        return "float16" if "float16" in self.target.precisions else "int16"

    def wishes(self, chosen: Iterable[Layer], precision: str = "") -> dict[str, str]:
        """The lines of custom_quantize_layers that put these layers into `precision` (`finer`), in execution order."""
        names = {layer.name for layer in chosen}
        lines: dict[str, str] = {}
        for layer in self.quantized.layers:
            if layer.name in names:
                lines.update(layer_wishes(layer, self.quantized.table, precision or self.finer))
        return lines


def extent(low: float, high: float) -> float:
    """The width of low..high widened to contain 0, which is what a grid has to span."""
    low, high = widen(low, high)
    return high - low


def steps(row: Row) -> int:
    """How many steps the row's grid has from end to end."""
    return 255 if row.dtype == GRIDS[0] else 65535


def listed(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(repr(name) for name in names[:shown])
    return f"{text} and {len(names) - shown} more" if len(names) > shown else text


def counted(number: int, noun: str) -> str:
    """`number` with its noun in the plural where that is due."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
