"""What a person is told of single layers and tensors of a built model, taken from what lies there already."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.graph.layers import FLOATS, Layer
from engine.graph.query import static_shape, tensors
from engine.quantization.edits import row_of
from engine.quantization.histograms import Histogram
from engine.quantization.quantized import Quantized
from engine.quantization.statistics import Statistics
from engine.quantization.table import GRIDS
from engine.quantization.traffic import Traffic, in_words
from engine.summaries import TensorFacts

Array = np.ndarray[Any, Any]

BINS = 32
# A share is then known to about a hundredth of itself, which is more than 32 bins show.
_COUNTED_VALUES = 1 << 16


class Tensors:
    """The tensors between a graph's layers, with who makes and who reads them, looked up once for many questions."""

    def __init__(self, model: ir.Model, layers: Iterable[Layer]) -> None:
        self.values = {value.name or "": value for value in tensors(model.graph)}
        self.inputs = [value.name or "" for value in model.graph.inputs]
        self.layers = {layer.name: layer for layer in layers}
        self._place = {name: place for place, name in enumerate((*self.inputs, *self.layers))}
        self.readers: dict[str, list[str]] = {}
        self._makers = {name: name for name in self.inputs}
        for layer in self.layers.values():
            self._makers.update(dict.fromkeys(layer.outputs, layer.name))
            for tensor in layer.inputs:
                self.readers.setdefault(tensor, []).append(layer.name)

    def around(self, name: str, found: Mapping[str, Traffic]) -> dict[str, Traffic]:
        """The traffic of a layer or model input, and of the layers that read what it makes, in execution order."""
        near = {name, *(reader for tensor in found[name].writes for reader in self.readers.get(tensor, ()))}
        return {one: found[one] for one in sorted(near, key=self._place.__getitem__)}

    def maker(self, tensor: str) -> str:
        """The layer, or the model input, that a tensor between layers comes from."""
        return self._makers[tensor]

    def reads(self, name: str) -> tuple[str, ...]:
        """The tensors that a layer reads, none for a model input."""
        return self.layers[name].inputs if name in self.layers else ()

    def makes(self, name: str) -> tuple[str, ...]:
        """The tensors that a layer makes; a model input makes itself."""
        return self.layers[name].outputs if name in self.layers else (name,)


def words_of(names: Collection[str], found: Mapping[str, Traffic], known: Tensors) -> dict[str, str]:
    """What some layers and model inputs convert, in words; '' for those that convert nothing."""
    return {name: in_words(name, known.around(name, found)) if found[name].converted else "" for name in names}


def tensor_facts(
    name: str, quantized: Quantized, value: ir.Value, golden: Array | None, statistics: Statistics | None
) -> TensorFacts:
    """What is known of the tensor `name`; `golden` are the float model's values on a sample, where there are some."""
    table = quantized.table
    shape = static_shape(value)
    if value.dtype not in FLOATS:
        return TensorFacts(name, "", shape, math.nan, math.nan, math.nan, math.nan, None, None)
    place = row_of(table, name)
    row, grid = table.rows.get(place), table.quantizer(name)
    low, high = (math.nan, math.nan) if row is None else (row.min, row.max)
    seen = (math.nan, math.nan) if row is None else (row.ori_min, row.ori_max)
    counted = None
    if golden is not None:
        counted = _counts(golden, low, high)
    elif statistics is not None and name in statistics.histograms:
        counted = _fewer_bins(statistics.histograms[name], low, high)
    first, last, counts, outside = counted or (0.0, 0.0, (), 0.0)
    settable = row is not None and row.dtype in GRIDS and place not in quantized.model.graph.initializers
    return TensorFacts(
        name,
        table.precision(name),
        shape,
        low,
        high,
        *seen,
        None if grid is None else grid.scale,
        None if grid is None else grid.zero_point,
        place if settable else "",
        first,
        last,
        counts,
        outside,
    )


def _counts(array: Array, low: float, high: float) -> tuple[float, float, tuple[int, ...], float] | None:
    """A histogram of the values, or of every n-th of many, and the share of them that lies beyond low..high."""
    flat = array.reshape(-1)
    if flat.dtype.kind != "f" or not flat.size:
        return None
    # Of a large tensor the extremes are exact, the rest is counted by samples from all channels, rows and columns.
    first, last = float(flat.min()), float(flat.max())
    if not math.isfinite(first) or not math.isfinite(last):
        return None
    step = -(-flat.size // _COUNTED_VALUES)
    while math.gcd(step, flat.size) > 1:
        step += 1
    some = flat[::step].astype(np.float64)
    counts, _ = np.histogram(some, BINS, (first, last))
    outside = 0.0 if math.isnan(low) else float(np.mean((some < low) | (some > high)))
    return first, last, tuple(int(count) for count in counts), outside


def _fewer_bins(histogram: Histogram, low: float, high: float) -> tuple[float, float, tuple[int, ...], float] | None:
    """The calibration's histogram in fewer bins; what lies beyond low..high is known to the width of one of its own."""
    total = histogram.total
    if not total:
        return None
    counts = histogram.counts.reshape(BINS, -1).sum(axis=1)
    middles = (histogram.edges[:-1] + histogram.edges[1:]) / 2.0
    beyond = histogram.counts[(middles < low) | (middles > high)].sum()
    return histogram.low, histogram.high, tuple(int(count) for count in counts), float(beyond / total)
