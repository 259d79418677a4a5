"""What calibration saw of each tensor. Every algorithm reads the same statistics."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.errors import DatasetError, QuantizationError
from engine.graph.building import GraphBuilder
from engine.graph.operators import REPETITIONS
from engine.graph.query import constant, static_shape
from engine.ort import make_session, run
from engine.progress import Progress

if TYPE_CHECKING:
    from engine.quantization.histograms import Histogram

Array = np.ndarray[Any, Any]
Sample = Mapping[str, Array]

# What the tensors of all samples that run at once may need together; beyond it, fewer run at once. ONNX Runtime's
# memory arenas take up to four times what is needed.
_IN_FLIGHT_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Smallest and largest value (float32) of each float tensor over all samples and elements.

    histograms: how the values lie between, where that was collected.
    """

    ranges: dict[str, tuple[float, float]]
    samples: int
    histograms: Mapping[str, Histogram] = dataclasses.field(default_factory=dict)


def collect(model: ir.Model, samples: Iterable[Sample], total: int, progress: Progress) -> Statistics:
    """Run the float graph over `samples` and note every float tensor's exact minimum and maximum.

    The extremes are taken inside the graph, so that only two numbers a tensor leave it; samples are read and run
    as they come, several at once where memory allows. `total` is the number of samples, 0 when unknown. Raises
    DatasetError without samples, QuantizationError when a tensor becomes infinite or not a number, and Cancelled.
    """
    proto, names, derived = measuring_graph(model)
    low = np.full(len(names), np.inf, np.float32)
    high = np.full(len(names), -np.inf, np.float32)
    done = 0
    progress.step("calibrate", 0, total)
    results = run_each(proto, model, samples, total)
    del proto  # the session will hold its own copy of the weights
    for result in results:
        lowest, highest = np.array(result, np.float32).reshape(2, len(names))
        np.minimum(low, lowest, out=low)
        np.maximum(high, highest, out=high)
        broken = ~(np.isfinite(lowest) & np.isfinite(highest))
        if broken.any():
            tensor = names[int(np.argmax(broken))]
            raise QuantizationError(
                f"tensor {tensor!r} becomes infinite or not a number on sample {done + 1}",
                hint="check the model's mean and std, and that sample",
            )
        done += 1
        progress.step("calibrate", done, total)
    if not done:
        raise DatasetError("holds no samples", where="dataset", hint="list at least one a line")
    ranges = {name: (float(lo), float(hi)) for name, lo, hi in zip(names, low, high, strict=True)}
    for name, rule in derived:
        ranges[name] = rule.apply(ranges[rule.source])
    return Statistics(ranges, done)


def run_each(
    proto: onnx.ModelProto, model: ir.Model, samples: Iterable[Sample], total: int, bytes_each: int = 0
) -> Iterator[list[Array]]:
    """What `proto`, a copy of `model` that measures it, gives for each sample, in order.

    Several run at once where memory allows, `bytes_each` being what a run needs beyond the model's own tensors; at most
    one sample waits beyond those that run. `total` is the number of samples, 0 when unknown.
    """
    cores = os.cpu_count() or 1
    # One thread a sample keeps all cores busier than many threads in one: small layers do not split well.
    needed = max(1, largest_working_set(model) + bytes_each)
    workers = max(1, min(cores, total or cores, _IN_FLIGHT_BYTES // needed))
    # Unoptimized: with every tensor measured there is nothing left to fuse, so looking for it would only cost time.
    session = make_session(proto, optimization="none", threads=cores // workers)
    del proto  # as above
    waiting: collections.deque[Future[list[Any]]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for sample in samples:
                waiting.append(pool.submit(run, session, None, dict(sample)))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclasses.dataclass(frozen=True)
class DerivedRange:
    """A tensor whose extremes follow exactly from those of `source`: the same values, or clamped to low..high."""

    source: str
    low: float = -np.inf
    high: float = np.inf

    @property
    def same(self) -> bool:
        """Whether both hold the same values."""
        return self.low == -np.inf and self.high == np.inf

    def apply(self, source: tuple[float, float]) -> tuple[float, float]:
        """The tensor's range, given the source's."""
        clamp = [min(max(v, self.low), self.high) for v in source]
        return clamp[0], clamp[1]


# These make no NaN of finite numbers: at worst they overflow, which their extremes show.
_FINITE = {
    "Abs", "Add", "AveragePool", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose", "Elu", "Erf", "Exp", "Floor",
    "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "LSTM", "GRU", "RNN", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mul", "Neg",
    "PRelu", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Resize", "Round", "Selu", "Sigmoid",
    "Sign", "Slice", "Softmax", "Softplus", "Split", "Sub", "Sum", "Tanh", "Where", *REPETITIONS,
}  # fmt: skip


def measuring_graph(model: ir.Model) -> tuple[onnx.ModelProto, list[str], list[tuple[str, DerivedRange]]]:
    """The float graph, the tensors that it measures, and the ranges that follow from theirs.

    Its outputs are the minima of these tensors, then their maxima, all scalars. Nothing is measured twice: the extremes
    of a Relu, Clip or reordering follow exactly from its input's. Where the first NaN of a run arises, both extremes
    are NaN, as numpy's would be.
    """
    measuring = _Measuring(model)
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT and _elements(value):
            measuring.measure(value.name or "")
    for node in model.graph:
        measuring.builder.copy_plain(node)
        rule = derived_range(node)
        for value in node.outputs:
            if not value.name or value.dtype != ir.DataType.FLOAT or not _elements(value):
                continue
            if rule is None:
                measuring.measure(value.name, may_be_nan=_may_make_nan(node))
            else:
                measuring.derived.append((value.name, rule))
    if not measuring.names:
        raise QuantizationError("the model has no float tensors", hint="build it without quantization")
    return measuring.build(), measuring.names, measuring.derived


class _Measuring:
    """A copy of the graph in which each tensor is measured right behind the node that makes it.

    There it is still in the processor's cache, and ONNX Runtime can let go of it soonest.
    """

    def __init__(self, model: ir.Model) -> None:
        self.builder = GraphBuilder(model, "statistics")
        self.names: list[str] = []
        self.derived: list[tuple[str, DerivedRange]] = []
        self._extremes: dict[str, list[str]] = {"Min": [], "Max": []}

    def measure(self, tensor: str, *, may_be_nan: bool = False) -> None:
        builder = self.builder
        self.names.append(tensor)
        # ONNX Runtime's extremes pass over NaN, and 0 times the tensor sums up to NaN where they should show one.
        doubt = ""
        if may_be_nan:
            zeros = builder.node("Mul", [tensor, builder.array("statistics.zero", np.float32(0))], f"{tensor}.zeros")
            doubt = builder.node("ReduceSum", [zeros], f"{tensor}.doubt", keepdims=0)
        for kind, extremes in self._extremes.items():
            extreme = builder.node(f"Reduce{kind}", [tensor], f"{tensor}.{kind}", keepdims=0)
            if doubt:
                extreme = builder.node("Add", [extreme, doubt], f"{extreme}.checked")
            extremes.append(extreme)

    def build(self) -> onnx.ModelProto:
        for extreme in [*self._extremes["Min"], *self._extremes["Max"]]:
            self.builder.output(extreme)
        return self.builder.build()


def largest_working_set(model: ir.Model) -> int:
    """Bytes of the tensors that are alive at once, at the worst moment of a run in the graph's order."""
    last: dict[ir.Value, int] = {}
    for position, node in enumerate(model.graph):
        last.update((value, position) for value in node.inputs if value is not None)
    last.update((value, len(last)) for value in model.graph.outputs)
    ending: dict[int, list[ir.Value]] = collections.defaultdict(list)
    for value, position in last.items():
        ending[position].append(value)
    alive = largest = sum(_bytes(v) for v in model.graph.inputs)
    for position, node in enumerate(model.graph):
        alive += sum(_bytes(v) for v in node.outputs if v in last)
        largest = max(largest, alive)
        alive -= sum(_bytes(v) for v in ending[position] if not v.is_initializer())
    return largest


def _bytes(value: ir.Value) -> int:
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return 0
    return math.ceil(math.prod(static_shape(value)) * value.dtype.itemsize)


def _elements(value: ir.Value) -> bool:
    return value.shape is not None and 0 not in value.shape.dims


def _may_make_nan(node: ir.Node) -> bool:
    if node.op_type not in _FINITE or any(value.is_graph_output() for value in node.outputs):
        return True
    arrays = (constant(value) for value in node.inputs)
    return any(a is not None and a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays)


def derived_range(node: ir.Node) -> DerivedRange | None:
    """How the extremes of what `node` makes follow from those of its first input; None where they do not."""
    source = node.inputs[0] if node.inputs else None
    if source is None or not source.name or source.is_initializer() or source.dtype != ir.DataType.FLOAT:
        return None
    if node.op_type in REPETITIONS:
        return DerivedRange(source.name)
    # Measuring before the activation costs the fusion of the two; it is needed, since both have a row.
    if node.op_type == "Relu":
        return DerivedRange(source.name, low=0.0)
    if node.op_type == "Clip":
        bounds = [
            constant(v) if v is not None else np.array(default)
            for v, default in zip([*node.inputs[1:], None, None][:2], (-np.inf, np.inf), strict=True)
        ]
        if bounds[0] is not None and bounds[1] is not None:
            return DerivedRange(source.name, float(bounds[0].reshape(-1)[0]), float(bounds[1].reshape(-1)[0]))
    return None
