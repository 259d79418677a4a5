"""Where a quantized model's error comes from: what each rounding, alone in the float model, does to the outputs."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.judging import Judge
from engine.graph.layers import Layer
from engine.graph.operators import SELECTIONS
from engine.graph.query import attribute, constant, static_shape, tensors
from engine.progress import Progress
from engine.quantization.parameters import LIMITS, fake_quantize
from engine.quantization.quantized import Quantized
from engine.quantization.samples import Sample
from engine.quantization.table import GRIDS, Row
from engine.quantization.traffic import computed_in, traffic
from engine.quantization.weights import OPERANDS
from engine.simulator.lowering import BIASED, Source
from engine.simulator.stepwise import Stepwise, Trial
from engine.summaries import PartQuality, SourceMap, SourceShare
from engine.tuning.jobs import Executor, Parcel, run_jobs

Array = np.ndarray[Any, Any]

# Jobs of so many sources each: short enough that cancelling is felt, long enough to be worth sending away.
_CHUNK = 8
_MOST_NOISE = 1e9


@dataclasses.dataclass(frozen=True)
class ErrorSource:
    """One rounding, wherever it takes place.

    tensors: those on one and the same grid that only selections part, so that rounding the first rounds all of them;
    empty for weights. layer: that which makes the first tensor or has the weights; None for a model input.
    """

    source: Source
    layer: Layer | None
    tensors: tuple[str, ...] = ()


def source_map(
    quantized: Quantized,
    samples: Sequence[Sample],
    progress: Progress | None = None,
    *,
    executor: Executor | None = None,
) -> SourceMap:
    """How much of the outputs' error each tensor's rounding and each layer's weights cause, alone in the float model.

    `samples` are normalized inputs by name; one or two are enough. Float16 roundings between float16 layers are left
    out. Tensors that a selection, reordering or pooling passes on in the same grid are one source under the name of the
    first. Raises Cancelled.
    """
    started = time.perf_counter()
    progress = progress or Progress()
    total = Judge(quantized, samples).run(quantized)
    found = error_sources(quantized)
    noises = measure_sources(quantized, samples, progress, executor=executor)
    shares = _shares(noises, len(total.parts))
    listed = [
        SourceShare(
            one.source.kind,
            one.source.name,
            one.layer.name if one.layer else "",
            one.layer.op if one.layer else "Input",
            noise,
            share,
        )
        for one, noise, share in zip(found, noises, shares, strict=True)
    ]
    listed.sort(key=lambda one: -one.share)
    names = tuple(_part_name(part) for part in total.parts)
    return SourceMap(names, tuple(listed), total, len(samples), time.perf_counter() - started)


def _shares(noises: Sequence[tuple[float, ...]], parts: int) -> list[float]:
    """Each source's share of all noise, a mean over the parts that have any."""
    table = np.array([bounded(noise) for noise in noises]).reshape(len(noises), parts)
    sums = table.sum(axis=0)
    table = table[:, sums > 0] / sums[sums > 0]
    return [float(row.mean()) if row.size else 0.0 for row in table]


def bounded(noise: Sequence[float]) -> Array:
    """The noise with a large number in place of infinity, so that sums of it stay numbers."""
    return np.nan_to_num(np.array(noise, np.float64), nan=_MOST_NOISE).clip(0.0, _MOST_NOISE)


def _part_name(part: PartQuality) -> str:
    return part.part or part.output


def error_sources(quantized: Quantized) -> tuple[ErrorSource, ...]:
    """Every place where `quantized` rounds to a grid, in execution order: model inputs first."""
    finder = _Finder(quantized)
    found = []
    for value in quantized.model.graph.inputs:
        found += finder.tensor(value.name or "", None)
    for layer in quantized.layers:
        if finder.has_weights(layer):
            found.append(ErrorSource(Source("weights", layer.name), layer))
        for name in (*layer.inner, *layer.outputs):
            found += finder.tensor(name, layer)
    return tuple(found)


class _Finder:
    def __init__(self, quantized: Quantized) -> None:
        self._quantized = quantized
        self._table = quantized.table
        self._traffic = traffic(quantized)
        self._readers: dict[str, list[Layer]] = collections.defaultdict(list)
        for layer in quantized.layers:
            for name in layer.inputs:
                self._readers[name].append(layer)

    def tensor(self, name: str, layer: Layer | None) -> list[ErrorSource]:
        """The source that begins at the tensor, if one does."""
        if layer is not None and name in layer.inner:
            rounds = name in self._passed_within(layer)
        else:
            writes = self._traffic[name if layer is None else layer.name].writes[name]
            rounds = any(precision in GRIDS for precision in writes)
            rounds = rounds and not (layer is not None and self._passes_on(layer, name))
        return [ErrorSource(Source("tensor", name), layer, self._family(name))] if rounds else []

    def has_weights(self, layer: Layer) -> bool:
        """Whether the layer holds constants on a grid."""
        for node, precision in zip(layer.nodes, computed_in(layer, self._table), strict=True):
            if precision in GRIDS and (node.op_type in OPERANDS or node.op_type in BIASED):
                arrays = (constant(value) for value in node.inputs)
                if any(a is not None and a.dtype == np.float32 and a.size for a in arrays):
                    return True
        return False

    def _passed_within(self, layer: Layer) -> set[str]:
        """Inner tensors that are stored, since a wish parts the layer there."""
        found: set[str] = set()
        made: dict[str, str] = {}
        for node, precision in zip(layer.nodes, computed_in(layer, self._table), strict=True):
            found |= {
                v.name for v in node.inputs if v is not None and v.name and made.get(v.name, precision) != precision
            }
            made.update((value.name or "", precision) for value in node.outputs)
        return found

    def _family(self, name: str) -> tuple[str, ...]:
        """The tensor and those that carry its values on, on the same grid."""
        family = [name]
        for member in family:
            for layer in self._readers[member]:
                family += [n for n in layer.outputs if n not in family and self._passes_on(layer, n)]
        return tuple(family)

    def _passes_on(self, layer: Layer, output: str) -> bool:
        """Whether rounding `output` changes nothing, since what the layer reads was rounded to the same steps."""
        node = layer.last
        if len(layer.nodes) > 1 or self._traffic[layer.name].converted:
            return False
        factor = 1.0 if _selects(node) else _factor(node)
        grid = self._table.quantizer(output)
        if factor is None or grid is None:
            return False
        return all(
            (row := self._table.quantizer(name)) is not None and _same_steps(row, grid, factor) for name in layer.inputs
        )


def _selects(node: ir.Node) -> bool:
    """Whether what comes out are values of the inputs, or the zero that every grid has."""
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", "nearest") == "nearest")
    if node.op_type == "Concat":
        return all(constant(value) is None for value in node.inputs)
    return node.op_type in SELECTIONS or node.op_type in ("Slice", "MaxPool", "GlobalMaxPool", "Relu")


def _factor(node: ir.Node) -> float | None:
    """What the node multiplies its input with, where that is one constant."""
    arrays = [array for value in node.inputs if (array := constant(value)) is not None]
    return float(arrays[0].reshape(-1)[0]) if node.op_type == "Mul" and arrays and arrays[0].size == 1 else None


def _same_steps(first: Row, second: Row, factor: float) -> bool:
    """Whether `factor` takes each step of the first grid so near to the same of the second that it rounds to it."""
    if first.dtype != second.dtype or first.zero_point != second.zero_point or not first.scale or not second.scale:
        return False
    smallest, largest = LIMITS[first.dtype]
    return abs(factor * first.scale / second.scale - 1.0) * (largest - smallest) < 0.25


def measure_sources(
    quantized: Quantized,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    corrected: bool = False,
    executor: Executor | None = None,
) -> list[tuple[float, ...]]:
    """For each of `error_sources`, the noise-to-signal power ratio that it alone causes in each judged part.

    With `corrected`, as it is once biases are corrected: an error that is the same at every position of a channel is
    left out where a convolution that has a bias stands between it and the outputs.
    """
    count = len(error_sources(quantized))
    parcel = Parcel(quantized, samples)
    chunks = [(parcel, start, min(start + _CHUNK, count), corrected) for start in range(0, count, _CHUNK)]
    progress.step("trace errors", 0, count)
    results = run_jobs(
        _measure, chunks, executor, lambda index, noises: progress.step("trace errors", chunks[index][2], count)
    )
    return [noise for chunk in results for noise in chunk]


def _measure(parcel: Parcel, start: int, stop: int, corrected: bool) -> list[tuple[float, ...]]:
    """The job: the noise of sources start..stop."""
    tracer = parcel.state(_Tracer)
    return [tracer.noise(source, corrected) for source in tracer.sources[start:stop]]


class _Tracer:
    """The float model's tensors, and what becomes of its outputs when one of them is rounded."""

    def __init__(self, parcel: Parcel) -> None:
        (samples,) = parcel.samples
        self._quantized = quantized = parcel.quantized
        self.sources = error_sources(quantized)
        self._judge = Judge(quantized, samples)
        self._stepwise = Stepwise(quantized, samples, only=frozenset())
        self._absorbed = _absorbed(quantized, self._judge.tensors)
        self._traffic = traffic(quantized)

    def noise(self, source: ErrorSource, corrected: bool) -> tuple[float, ...]:
        """By part, what rounding at `source` does."""
        quality = self._judge.quality(self._trial(source, corrected).value)
        return tuple(part.noise for part in quality.parts)

    def _trial(self, source: ErrorSource, corrected: bool) -> Trial:
        row = self._alike(source)
        if row is not None:
            values = {source.source.name: self._rounded(source.source.name, row)}
        elif source.tensors or not corrected:
            only = frozenset({source.source})
            return self._stepwise.trial(self._quantized, only, towards=self._judge.tensors)
        else:
            assert source.layer is not None
            names = source.layer.outputs
            trial = self._stepwise.trial(self._quantized, frozenset({source.source}), towards=names)
            values = {name: [trial.value(index, name) for index in range(self._stepwise.samples)] for name in names}
        if corrected:
            for name in values.keys() & self._absorbed:
                values[name] = self._centred(name, values[name])
        return self._stepwise.replay(values, towards=self._judge.tensors)

    def _alike(self, source: ErrorSource) -> Row | None:
        """The one grid on which the tensor is stored and by which all its readers see it."""
        name, layer = source.source.name, source.layer
        if not source.tensors or (layer is not None and name in layer.inner):
            return None
        writes = self._traffic[layer.name if layer is not None else name].writes[name]
        return self._quantized.table.quantizer(name) if len(writes) == 1 else None

    def _rounded(self, name: str, row: Row) -> list[Array]:
        assert row.scale is not None and row.zero_point is not None
        stepwise = self._stepwise
        return [
            fake_quantize(stepwise.value(index, name), row.scale, row.zero_point, row.dtype)
            for index in range(stepwise.samples)
        ]

    def _centred(self, name: str, values: list[Array]) -> list[Array]:
        """The values without the mean error of each channel (axis 1), over samples and positions."""
        errors = [value - self._stepwise.value(index, name) for index, value in enumerate(values)]
        axes = tuple(axis for axis in range(errors[0].ndim) if axis != 1)
        mean = np.mean([e.mean(axis=axes, keepdims=True) for e in errors], axis=0)
        return [value - mean for value in values]


def _absorbed(quantized: Quantized, judged: Sequence[str]) -> frozenset[str]:
    """Tensors whose every way to a judged one passes a convolution with constant weights, whose bias can take up what
    is the same at all positions."""
    seen = set(judged)
    absorbed = set()
    for layer in reversed(quantized.layers):
        corrects = any(node.op_type in BIASED and constant(node.inputs[1]) is not None for node in layer.nodes)
        exposed = not seen.isdisjoint(layer.outputs)
        if exposed and not corrects:
            seen.update(layer.inputs)
    for value in tensors(quantized.model.graph):
        if value.name not in seen and value.shape is not None and len(static_shape(value)) > 1:
            absorbed.add(value.name or "")
    return frozenset(absorbed)
