"""What calibration saw of each tensor. Every algorithm reads the same statistics."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.errors import DatasetError, QuantizationError
from engine.graph.building import GraphBuilder
from engine.graph.query import constant
from engine.ort import make_session, run
from engine.progress import Progress

Array = np.ndarray[Any, Any]
Sample = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Smallest and largest value (float32) of each float tensor over all samples and elements."""

    ranges: dict[str, tuple[float, float]]
    samples: int


def collect(model: ir.Model, samples: Iterable[Sample], total: int, progress: Progress) -> Statistics:
    """Run the float graph over `samples` and note every float tensor's exact minimum and maximum.

    The extremes are taken inside the graph, so that only two short vectors a sample leave it; samples are read and run
    as they come, one on each core. Raises DatasetError without samples, QuantizationError when a tensor becomes
    infinite or not a number, and Cancelled.
    """
    proto, names, derived = measuring_graph(model)
    workers = max(1, os.cpu_count() or 1)
    # One thread a sample keeps all cores busier than many threads in one: small layers do not split well.
    session = make_session(proto, threads=1)
    low = np.full(len(names), np.inf, np.float32)
    high = np.full(len(names), -np.inf, np.float32)
    done = 0
    progress.step("calibrate", 0, total)
    for result in _in_parallel(session, samples, workers):
        np.minimum(low, result[0], out=low)
        np.maximum(high, result[1], out=high)
        broken = ~(np.isfinite(result[0]) & np.isfinite(result[1]))
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


def _in_parallel(session: Any, samples: Iterable[Sample], workers: int) -> Iterator[list[Array]]:
    """Results in order, with at most one sample waiting beyond those that run."""
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

    def apply(self, source: tuple[float, float]) -> tuple[float, float]:
        """The tensor's range, given the source's."""
        clamp = [min(max(v, self.low), self.high) for v in source]
        return clamp[0], clamp[1]


# Every value of the input comes out once or more, and nothing else does.
_SAME_VALUES = {
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
    "Expand",
    "Tile",
}


def measuring_graph(model: ir.Model) -> tuple[onnx.ModelProto, list[str], list[tuple[str, DerivedRange]]]:
    """The float graph with two outputs, the minimum and maximum of each named tensor, and the ranges that follow.

    Nothing is measured twice: the extremes of a Relu, Clip or reordering follow exactly from its input's.
    """
    builder = GraphBuilder(model, "statistics")
    measured: list[str] = []
    derived: list[tuple[str, DerivedRange]] = []
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            measured.append(value.name or "")
    for node in model.graph:
        builder.copy_plain(node)
        for value in node.outputs:
            if not value.name or value.dtype != ir.DataType.FLOAT or not _elements(value):
                continue
            rule = _derive(node)
            if rule is None:
                measured.append(value.name)
            else:
                derived.append((value.name, rule))
    shape = builder.array("statistics.one", np.array([1], np.int64))
    for kind in ("Min", "Max"):
        parts = []
        for tensor in measured:
            extreme = builder.node(f"Reduce{kind}", [tensor], f"{tensor}.{kind}", keepdims=0)
            parts.append(builder.node("Reshape", [extreme, shape], f"{extreme}.flat"))
        builder.output(builder.node("Concat", parts, f"statistics.{kind}", axis=0))
    return builder.build(), measured, derived


def _elements(value: ir.Value) -> bool:
    return value.shape is not None and 0 not in value.shape.dims


def _derive(node: ir.Node) -> DerivedRange | None:
    source = node.inputs[0] if node.inputs else None
    if source is None or not source.name or source.is_initializer() or source.dtype != ir.DataType.FLOAT:
        return None
    if node.op_type in _SAME_VALUES:
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
