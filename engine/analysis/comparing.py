"""One ONNX graph with three branches: the float model, the whole quantized model, and each layer alone.

The float branch is the golden truth. The entire branch is the simulator's chain. The single branch feeds every layer
with the float branch's tensors, rounded as the table says. Sums that the errors need are taken inside the graph, so
that little leaves it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.analysis.distances import error_pair
from engine.graph.building import GraphBuilder
from engine.graph.layers import Layer
from engine.graph.query import attribute, static_shape, tensors
from engine.quantization.quantized import Quantized
from engine.simulator.lowering import Lowering
from engine.summaries import ErrorPair

Array = np.ndarray[Any, Any]

# Squares are summed in float32 over at least this many neighbours, and in float64 beyond: exact enough for five digits.
_NEIGHBOURS = 64


@dataclasses.dataclass(frozen=True)
class Sums:
    """Names of the outputs that hold partial sums of squares of a float tensor and its quantized counterpart."""

    float_squares: str
    squares: str
    difference: str

    def finite(self, values: Mapping[str, float]) -> bool:
        """Whether none of the sums overflowed."""
        return all(math.isfinite(values[name]) for name in (self.float_squares, self.squares, self.difference))

    def errors(self, values: Mapping[str, float]) -> ErrorPair:
        """Cosine and euclidean distance from the summed outputs."""
        return error_pair(values[self.float_squares], values[self.squares], values[self.difference])


@dataclasses.dataclass(frozen=True)
class ComparedPart:
    """A part of a join: where it lies in the joined tensor, its sums, and names of its extremes by branch."""

    tensor: str
    axis: int
    start: int
    stop: int
    entire: Sums
    single: Sums
    golden_extremes: tuple[str, str]
    entire_extremes: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class ComparedTensor:
    """A tensor of the report; `golden` and `simulated` are outputs with its values when values were asked for."""

    name: str
    op: str
    entire: Sums | None
    single: Sums | None
    golden: str = ""
    simulated: str = ""
    parts: tuple[ComparedPart, ...] = ()

    @property
    def sums(self) -> list[Sums]:
        """All sums of the tensor and its parts."""
        whole = [sums for sums in (self.entire, self.single) if sums is not None]
        return whole + [sums for part in self.parts for sums in (part.entire, part.single)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The graph and what its outputs mean, in execution order."""

    proto: onnx.ModelProto
    tensors: tuple[ComparedTensor, ...]


def compare(
    quantized: Quantized,
    *,
    with_values: bool = False,
    values_of: Collection[str] = (),
    wide: Collection[str] = (),
) -> Comparison:
    """Build the three-branch graph. The tensors `values_of`, with `with_values` all of them, are outputs of the float
    and the entire branch.

    The squares of the tensors `wide` are taken in float64: those of values beyond 1.8e19 overflow in float32.
    """
    return _Comparing(quantized, with_values, values_of, wide).build()


class _Comparing:
    def __init__(
        self, quantized: Quantized, with_values: bool, values_of: Collection[str], wide: Collection[str]
    ) -> None:
        self._model = model = quantized.model
        self._layers = quantized.layers
        self._builder = GraphBuilder(model, "comparison")
        self._lowering = Lowering(self._builder, quantized)
        self._with_values = with_values
        self._values_of = values_of
        self._wide = wide
        self._values = {v.name or "": v for v in tensors(model.graph)}
        self._entire: dict[str, str] = {}
        self._rounded: dict[str, str] = {}
        self._squares: dict[str, str] = {}

    def build(self) -> Comparison:
        tensors: list[ComparedTensor] = []
        for value in self._model.graph.inputs:
            name = value.name or ""
            self._entire[name] = self._round(name)
            if self._countable(name):
                sums = self._sums(name, self._entire[name])
                tensors.append(ComparedTensor(name, "Input", sums, sums, *self._values_out(name, self._entire[name])))
        for layer in self._layers:
            tensors += self._layer(layer)
        return Comparison(self._builder.build(), tuple(tensors))

    def _layer(self, layer: Layer) -> list[ComparedTensor]:
        for node in layer.nodes:
            self._builder.copy_plain(node)
        entire = self._lowering.layer(layer, self._entire.__getitem__, ".entire")
        single = self._lowering.layer(layer, self._round, ".single")
        found: list[ComparedTensor] = []
        for node in layer.nodes[:-1]:
            for value in node.outputs:
                if value.name and self._countable(value.name):
                    out = self._values_out(value.name, entire[value.name])
                    found.append(ComparedTensor(value.name, node.op_type, None, None, *out))
        for tensor in layer.outputs:
            self._entire[tensor] = self._lowering.store(tensor, entire[tensor])
            if not self._countable(tensor):
                continue
            alone = self._lowering.store(tensor, single[tensor])
            found.append(
                ComparedTensor(
                    tensor,
                    layer.op,
                    self._sums(tensor, self._entire[tensor]),
                    self._sums(tensor, alone),
                    *self._values_out(tensor, self._entire[tensor]),
                    parts=self._parts(layer, self._entire[tensor], alone),
                )
            )
        return found

    def _countable(self, tensor: str) -> bool:
        value = self._values[tensor]
        return value.dtype == ir.DataType.FLOAT and bool(math.prod(static_shape(value)))

    def _round(self, tensor: str) -> str:
        """The float branch's tensor as a layer alone is fed with it."""
        if tensor not in self._rounded:
            self._rounded[tensor] = self._lowering.store(tensor, tensor)
        return self._rounded[tensor]

    def _values_out(self, golden: str, simulated: str) -> tuple[str, str]:
        if not self._with_values and golden not in self._values_of:
            return "", ""
        names = []
        for name, suffix in ((golden, ".golden"), (simulated, ".simulated")):
            names.append(self._builder.give(name, f"{golden}{suffix}"))
        return names[0], names[1]

    def _sums(self, tensor: str, other: str) -> Sums:
        return self._sums_between(tensor, other, static_shape(self._values[tensor]), tensor in self._wide)

    def _sums_between(self, golden: str, other: str, dims: tuple[int, ...], wide: bool) -> Sums:
        if wide:
            golden, other = (
                self._builder.node("Cast", [name], f"{name}.wide", to=onnx.TensorProto.DOUBLE)
                for name in (golden, other)
            )
        difference = self._builder.node("Sub", [golden, other], f"{other}.difference")
        return Sums(
            self._sum_squares(golden, dims), self._sum_squares(other, dims), self._sum_squares(difference, dims)
        )

    def _sum_squares(self, name: str, dims: tuple[int, ...]) -> str:
        if name not in self._squares:
            count, size = 0, 1
            while count < len(dims) and size < _NEIGHBOURS:
                count += 1
                size *= dims[-count]
            axes = self._builder.array(f"axes.{count}", np.arange(-count, 0, dtype=np.int64))
            sums = self._builder.node("ReduceSumSquare", [name, axes], f"{name}.squares", keepdims=0)
            self._builder.output(sums)
            self._squares[name] = sums
        return self._squares[name]

    def _parts(self, layer: Layer, entire: str, single: str) -> tuple[ComparedPart, ...]:
        """Each input of a Concat as it lies in the joined tensor."""
        node = layer.last
        if node.op_type != "Concat" or len(node.inputs) < 2:
            return ()
        dims = static_shape(node.outputs[0])
        axis = int(attribute(node, "axis", 0)) % len(dims)
        parts, start = [], 0
        for value in node.inputs:
            assert value is not None
            stop = start + static_shape(value)[axis]
            if stop > start:
                parts.append(self._part(value.name or "", layer.name, entire, single, axis, start, stop))
            start = stop
        return tuple(parts)

    def _part(
        self, tensor: str, joined: str, entire: str, single: str, axis: int, start: int, stop: int
    ) -> ComparedPart:
        bounds = [
            self._builder.array(f"{key}.{number}", np.array([number], np.int64))
            for key, number in (("start", start), ("stop", stop), ("axis", axis))
        ]
        branches = [
            self._builder.node("Slice", [name, *bounds], f"{name}.part{start}") for name in (joined, entire, single)
        ]
        full = static_shape(self._values[joined])
        shape = (*full[:axis], stop - start, *full[axis + 1 :])
        extremes = []
        for name in branches[:2]:
            pair = [
                self._builder.node(f"Reduce{kind}", [name], f"{name}.{kind}", keepdims=0) for kind in ("Min", "Max")
            ]
            for out in pair:
                self._builder.output(out)
            extremes.append((pair[0], pair[1]))
        return ComparedPart(
            tensor,
            axis,
            start,
            stop,
            self._sums_between(branches[0], branches[1], shape, joined in self._wide),
            self._sums_between(branches[0], branches[2], shape, joined in self._wide),
            extremes[0],
            extremes[1],
        )
