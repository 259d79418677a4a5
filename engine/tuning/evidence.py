"""How much noise a way to quantize leaves, told by more than the few numbers that a classifier gives out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.judging import Judge, JudgedRun
from engine.graph.query import static_shape
from engine.quantization.quantized import Quantized
from engine.summaries import Quality

Array = np.ndarray[Any, Any]

# Judged values, over all samples, that count as much as what lies before them. Two scores of eight photos are sixteen
# draws in a lottery; the map of features that they come from shows what the recipe does.
_ENOUGH = 256
# Values of one sample that a tensor needs to bear witness.
_WITNESS = 1024


class Evidence:
    """Measures models of one float function, equalized or not, on `samples` (inputs by name, normalized).

    trust: from 0 to 1, how much the outputs alone tell.
    """

    def __init__(self, reference: Quantized, samples: Sequence[Mapping[str, Array]]) -> None:
        self._judge = Judge(reference, samples)
        sizes = {v.name: math.prod(static_shape(v)) for node in reference.model.graph for v in node.outputs if v.name}
        values = len(samples) * sum(sizes.get(one.scores or one.tensor, 0) for one in self._judge.judged)
        self._witness = _witness(reference, self._judge.tensors, sizes) if values < 8 * _ENOUGH else ""
        self.trust = values / (values + _ENOUGH) if self._witness else 1.0
        self._floats: dict[int, tuple[ir.Model, list[Array]]] = {}
        self._golden = self._witnessed(reference) if self._witness else []

    def measure(self, quantized: Quantized) -> tuple[Quality, float]:
        """The quality of the outputs, and the noise-to-signal power ratio to choose by.

        That is the outputs' own where they hold many values; where they hold few, the geometric mean with that of the
        nearest large tensor before them, weighted by how many.
        """
        names = (*self._judge.tensors, *([self._witness] if self._witness else []))
        session = JudgedRun(quantized, names)
        found = [session.run(sample) for sample in self._judge.samples]
        quality = self._judge.quality(lambda sample, tensor: found[sample][tensor])
        if not self._witness or quality.noise <= 0.0:
            return quality, quality.noise
        before = self._noise(quantized, [run[self._witness] for run in found])
        return quality, quality.noise**self.trust * before ** (1.0 - self.trust)

    def _witnessed(self, quantized: Quantized) -> list[Array]:
        """The witness in the float model, run once for each graph; the graph is kept, so that its id stays its own."""
        model = quantized.model
        if id(model) not in self._floats:
            session = JudgedRun(quantized, [self._witness], as_float=True)
            self._floats[id(model)] = model, [session.run(sample)[self._witness] for sample in self._judge.samples]
        return self._floats[id(model)][1]

    def _noise(self, quantized: Quantized, found: list[Array]) -> float:
        """The witness's noise. Equalization scales its channels, which is taken back."""
        own = self._witnessed(quantized)
        noise = signal = 0.0
        for golden, scaled, value in zip(self._golden, own, found, strict=True):
            axes = tuple(axis for axis in range(golden.ndim) if axis != 1)
            power = np.square(scaled, dtype=np.float64).sum(axis=axes, keepdims=True)
            product = np.multiply(golden, scaled, dtype=np.float64).sum(axis=axes, keepdims=True)
            factor = np.divide(product, power, out=np.zeros_like(power), where=power > 0.0)
            noise += float(np.square((value - scaled) * factor).sum())
            signal += float(np.square(golden, dtype=np.float64).sum())
        return noise / signal if signal > 0.0 else 1.0


def _witness(quantized: Quantized, judged: Sequence[str], sizes: Mapping[str, int]) -> str:
    """The nearest tensor between layers before the judged ones that is large enough, or ''."""
    waiting, seen = list(judged), set(judged)
    while waiting:
        name = waiting.pop(0)
        layer = quantized.makers.get(name)
        for source in layer.inputs if layer is not None else ():
            if source in seen:
                continue
            if sizes.get(source, 0) >= _WITNESS and source not in quantized.integers:
                return source
            seen.add(source)
            waiting.append(source)
    return ""
