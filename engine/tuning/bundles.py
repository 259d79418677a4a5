"""Which layers must change together: a rounding is gone only when all that makes and reads the tensor does without."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine.errors import QuantizationError
from engine.graph.layers import Layer
from engine.quantization.edits import check_wish, layer_wishes
from engine.quantization.quantized import Quantized
from engine.quantization.traffic import computed_in
from engine.targets import Target
from engine.tuning.sources import ErrorSource, bounded

# What a layer would make beyond the largest float16 becomes infinite.
_LARGEST_HALF = 65504.0

Units = frozenset[str]
"""Layers by name, and model inputs: what a person can wish into another precision."""


class Bundles:
    """What it takes to be rid of each error source, in `precision` on `target`, and what noise is then left.

    noises: for each of `sources`, the noise that it alone causes in each judged part.
    """

    def __init__(
        self,
        quantized: Quantized,
        precision: str,
        target: Target,
        sources: Sequence[ErrorSource] = (),
        noises: Sequence[Sequence[float]] = (),
    ) -> None:
        self._quantized = quantized
        self._wishes = _possible_wishes(quantized, precision, target)
        self._done = _already(quantized, precision)
        readers: dict[str, list[Layer]] = collections.defaultdict(list)
        for layer in quantized.layers:
            for name in layer.inputs:
                readers[name].append(layer)
        self._needed = [self._units(source, readers) for source in sources]
        self._noises = np.array([bounded(noise).sum() / max(1, len(noise)) for noise in noises], np.float64)

    def sets(self, remedies: Iterable[Mapping[str, str]] = ()) -> list[Units]:
        """Every set of units that rids the model of a source, and those that make the tensors of each of `remedies`."""
        found = dict.fromkeys(units for units in self._needed if units)
        for wishes in remedies:
            makers = (self._quantized.makers.get(tensor) for tensor in wishes)
            names = (layer.name if layer else tensor for layer, tensor in zip(makers, wishes, strict=True))
            found[frozenset(names).intersection(self._wishes)] = None
        return [units for units in found if units]

    def noise(self, units: Units) -> float:
        """The noise, a mean over the parts, of the sources that are left once `units` have changed."""
        left = [needed is None or not needed <= units for needed in self._needed]
        return float(self._noises[left].sum()) if left else 0.0

    def wishes(self, units: Units) -> dict[str, str]:
        """The lines of custom_quantize_layers for `units`, in execution order."""
        return {tensor: wish for unit, lines in self._wishes.items() if unit in units for tensor, wish in lines.items()}

    def layers(self, units: Units) -> tuple[str, ...]:
        """Those of `units` that are layers, in execution order."""
        return tuple(layer.name for layer in self._quantized.layers if layer.name in units)

    def _units(self, source: ErrorSource, readers: Mapping[str, list[Layer]]) -> Units | None:
        """What must change for the source to be gone; None where something that must cannot."""
        needed: dict[str, None] = {}
        if source.layer is not None:
            needed[source.layer.name] = None
        for tensor in source.tensors:
            maker = self._quantized.makers.get(tensor)
            needed[maker.name if maker else tensor] = None
            # A layer of integers reads the tensor as it is stored.
            needed.update((layer.name, None) for layer in readers[tensor] if _makes_floats(layer, self._quantized))
        units = frozenset(needed) - self._done
        return units if units <= self._wishes.keys() else None


def _possible_wishes(quantized: Quantized, precision: str, target: Target) -> dict[str, dict[str, str]]:
    """The lines that change each unit, in execution order, for those that `precision` can hold."""
    inputs = [v.name or "" for v in quantized.model.graph.inputs if v.name in quantized.table.rows]
    lines = {name: {name: precision} for name in inputs}
    lines.update((layer.name, layer_wishes(layer, quantized.table, precision)) for layer in quantized.layers)
    return {unit: wishes for unit, wishes in lines.items() if wishes and _fits(quantized, wishes, target)}


def _fits(quantized: Quantized, wishes: Mapping[str, str], target: Target) -> bool:
    for tensor, precision in wishes.items():
        try:
            check_wish(quantized, tensor, precision, target)
        except QuantizationError:
            return False
        row = quantized.table.rows[tensor]
        bounds = (row.min, row.max, row.ori_min, row.ori_max)
        if precision == "float16" and any(abs(bound) > _LARGEST_HALF for bound in bounds):
            return False
    return True


def _already(quantized: Quantized, precision: str) -> Units:
    """Units that compute in `precision` and are stored in it as they are."""
    table = quantized.table
    found = {v.name or "" for v in quantized.model.graph.inputs if table.precision(v.name or "") == precision}
    for layer in quantized.layers:
        if {*computed_in(layer, table), *(table.precision(name) for name in layer.outputs)} == {precision}:
            found.add(layer.name)
    return frozenset(found)


def _makes_floats(layer: Layer, quantized: Quantized) -> bool:
    return any(name not in quantized.integers for name in layer.outputs)
