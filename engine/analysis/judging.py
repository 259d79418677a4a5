"""What a quantized model is judged by: its outputs, part by part, before the activation that closes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.analysis.distances import sums_of_products
from engine.graph.layers import FLOATS
from engine.graph.operators import REORDERINGS
from engine.graph.query import attribute, static_shape
from engine.ort import make_simulation, run
from engine.quantization.quantized import Quantized
from engine.simulator.lowering import lower
from engine.summaries import PartQuality, Quality

Array = np.ndarray[Any, Any]

_PROBABILITIES = {"Sigmoid", "HardSigmoid", "Softmax"}
# Power of the rounding error of an ideal int8 grid over 0..1. Probabilities fainter than that are no signal.
_FAINT = (1.0 / 255.0) ** 2 / 12.0


@dataclasses.dataclass(frozen=True)
class Judged:
    """A tensor, or the part start..stop of it along `axis`, by which the model's output `output` is judged.

    Where a Softmax along `axis` makes the tensor, its noise is that of `scores`, which the Softmax reads, without what
    they have in common: a hundred sure answers are no measure of how near the next one is.
    """

    output: str
    tensor: str
    part: str = ""
    axis: int = 0
    start: int = 0
    stop: int | None = None
    floor: float = 0.0
    scores: str = ""

    def of(self, array: Array) -> Array:
        """The part, as a flat vector."""
        if self.stop is not None:
            array = array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]
        return array.reshape(-1)

    def of_scores(self, array: Array) -> Array:
        """The scores apart from their mean, as a flat vector."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite noise is found out where it is summed up
            found: Array = (array - array.mean(axis=self.axis, keepdims=True)).reshape(-1)
        return found


def judged(quantized: Quantized) -> tuple[Judged, ...]:
    """What each float output is judged by.

    Reorderings are looked through. An output of a Sigmoid is judged by what that reads, since it is almost 0 wherever
    the model sees nothing; a Concat by each of its parts, since the largest hides the others.
    """
    between = {name for layer in quantized.layers for name in layer.outputs}
    between |= {v.name or "" for v in quantized.model.graph.inputs}
    found: dict[Judged, None] = {}
    for value in quantized.model.graph.outputs:
        if value.dtype in FLOATS and not value.is_initializer() and 0 not in static_shape(value):
            found.update(dict.fromkeys(_judged(value, between)))
    return tuple(found)


def judging_tensors(quantized: Quantized) -> tuple[str, ...]:
    """The tensors that decide how near the outputs are."""
    return tuple(dict.fromkeys(name for one in judged(quantized) for name in (one.tensor, one.scores) if name))


def _judged(output: ir.Value, between: set[str]) -> list[Judged]:
    name = output.name or ""
    value = _before_reorderings(output, between)
    node = value.producer()
    if node is not None and node.op_type == "Concat" and len(node.inputs) > 1:
        axis = int(attribute(node, "axis", 0)) % len(static_shape(value))
        parts, start = [], 0
        for part in node.inputs:
            assert part is not None
            stop = start + static_shape(part)[axis]
            maker = _before_reorderings(part, between).producer()
            floor = _FAINT if maker is not None and maker.op_type in _PROBABILITIES else 0.0
            if stop > start:
                parts.append(Judged(name, value.name or "", part.name or "", axis, start, stop, floor))
            start = stop
        return parts
    if node is not None and node.op_type in _PROBABILITIES:
        source = node.inputs[0]
        if source is not None and source.name in between and not source.is_graph_input():
            if node.op_type != "Softmax":
                return [Judged(name, source.name or "")]
            axis = int(attribute(node, "axis", -1)) % len(static_shape(value))
            return [Judged(name, value.name or "", axis=axis, scores=source.name or "")]
        return [Judged(name, value.name or "", floor=_FAINT)]
    return [Judged(name, value.name or "")]


def _before_reorderings(value: ir.Value, between: set[str]) -> ir.Value:
    """The tensor of the same values further up that lies between layers."""
    while (node := value.producer()) is not None and node.op_type in REORDERINGS:
        source = node.inputs[0]
        if source is None or source.name not in between:
            break
        value = source
    return value


class Judge:
    """Compares a quantized model's tensors with the float model's on some samples. Only judged tensors are kept.

    `golden(sample, tensor)` are the float model's tensors, for a caller who has them; otherwise it is run.
    """

    def __init__(
        self,
        quantized: Quantized,
        samples: Sequence[Mapping[str, Array]],
        *,
        golden: Callable[[int, str], Array] | None = None,
    ) -> None:
        self.judged = judged(quantized)
        self.tensors = judging_tensors(quantized)
        self.samples = tuple(samples)
        golden = golden or self._runs(JudgedRun(quantized, self.tensors, as_float=True))
        places = range(len(samples))
        self._golden = [[one.of(golden(index, one.tensor)) for index in places] for one in self.judged]
        self._scores = [
            [one.of_scores(golden(index, one.scores)) for index in places] if one.scores else [] for one in self.judged
        ]

    def quality(self, value: Callable[[int, str], Array]) -> Quality:
        """How near `value(sample, tensor)` is to the float model, over all samples."""
        parts = []
        for one, golden, scores in zip(self.judged, self._golden, self._scores, strict=True):
            cosines, signal, noise = [], 0.0, 0.0
            for index, before in enumerate(golden):
                power, other, product, error = sums_of_products(before, one.of(value(index, one.tensor)))
                cosines.append(_cosine(power, other, product))
                if scores:
                    found = one.of_scores(value(index, one.scores))
                    power, _, _, error = sums_of_products(scores[index], found)
                signal += power + one.floor * before.size
                noise += error if math.isfinite(error) else math.inf
            ratio = 0.0 if noise == 0.0 else (noise / signal if signal > 0.0 else math.inf)
            mean = float(np.mean(cosines)) if cosines else 1.0
            parts.append(PartQuality(one.output, one.tensor, one.part, mean, min(cosines, default=1.0), ratio))
        return Quality(
            min((p.cosine for p in parts), default=1.0),
            min((p.lowest for p in parts), default=1.0),
            float(np.mean([p.noise for p in parts])) if parts else 0.0,
            tuple(parts),
        )

    def run(self, quantized: Quantized) -> Quality:
        """Simulate the whole model on all samples, and compare."""
        return self.quality(self._runs(JudgedRun(quantized, self.tensors)))

    def _runs(self, session: JudgedRun) -> Callable[[int, str], Array]:
        found = [session.run(sample) for sample in self.samples]
        return lambda sample, tensor: found[sample][tensor]


class JudgedRun:
    """A session that gives `tensors` as they are stored, or those of the float model."""

    def __init__(self, quantized: Quantized, tensors: Sequence[str], *, as_float: bool = False) -> None:
        self._tensors = tensors
        proto = lower(quantized, further=tensors, only=frozenset() if as_float else None)
        self._names = [output.name for output in proto.graph.output][-len(tensors) :] if tensors else []
        self._session = make_simulation(proto)

    def run(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors by name."""
        arrays = run(self._session, self._names, dict(sample)) if self._names else []
        return dict(zip(self._tensors, arrays, strict=True))


def _cosine(first: float, second: float, product: float) -> float:
    if not math.isfinite(first + second + product):
        return 0.0
    norm = math.sqrt(first) * math.sqrt(second)
    return product / norm if norm > 0.0 else float(first == second)
