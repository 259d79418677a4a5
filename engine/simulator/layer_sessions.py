"""Compiles single layers of a quantized model to sessions of their own, and tells when one would be the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from engine.graph.building import GraphBuilder
from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.names import Names
from engine.graph.query import constant, static_shape, tensors
from engine.ort import make_simulation, simulation_threads
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Row, Table
from engine.quantization.traffic import computed_in
from engine.simulator.lowering import Lowering, Source

Array = np.ndarray[Any, Any]
Only = frozenset[Source]

# Multiplications and additions below which a second thread costs more than it does.
_SMALL = 1 << 20
# Those below which no kernel parts its work, on any processor.
_WHOLE = 1 << 14
# What moves values, or makes each of them in one rounded step: the same in any number of threads. Others, such as
# products and exponentials, may part their sums or vectors by it.
_SAME_IN_PARTS = {
    "Abs", "Add", "Cast", "Clip", "Concat", "DepthToSpace", "Div", "Expand", "Flatten", "Gather", "Identity",
    "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """A layer, or a graph input's rounding (layer None), with the tensors that it reads and writes."""

    layer: Layer | None
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The layer's name, or the input's."""
        return self.writes[0]

    @property
    def inner(self) -> tuple[str, ...]:
        """Tensors within the layer."""
        return self.layer.inner if self.layer is not None else ()


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """A unit compiled for one set of precisions and ranges.

    outputs: each tensor that it writes, and what the session calls it. bindings: the session tied to the memory of its
    inputs and outputs, by sample and by where they lie; tying costs as much as running a small layer.
    """

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    bindings: dict[Hashable, Any] = dataclasses.field(default_factory=dict)


def units_of(quantized: Quantized) -> list[Unit]:
    """What runs one by one, in execution order: the inputs' roundings, then the layers."""
    inputs = [Unit(None, (v.name or "",), (v.name or "",)) for v in quantized.model.graph.inputs]
    return inputs + [Unit(layer, layer.inputs, layer.outputs) for layer in quantized.layers]


def key_of(unit: Unit, quantized: Quantized, only: Only | None) -> Hashable:
    """All that the unit's session depends on, of what may change in a quantized model."""
    table, corrections = quantized.table, quantized.corrections
    if unit.layer is None:
        return tuple(_stored(table, name, only) for name in unit.writes)
    precisions = tuple(computed_in(unit.layer, table))
    grids = [p for p in dict.fromkeys(precisions) if p in GRIDS]
    reads = tuple(
        (_stored(table, name, only), *(_grid(table.quantizer(name, p)) for p in grids))
        for name in (*unit.reads, *unit.inner)
    )
    makes = [node.outputs[0].name or "" for node in unit.layer.nodes]
    return (
        quantized.method,
        precisions,
        reads,
        tuple(_stored(table, name, only) for name in unit.writes),
        tuple(corrections.biases[name].tobytes() for name in makes if name in corrections.biases)
        if only is None
        else (),
        tuple(_Same(corrections.weights[name]) for name in makes if name in corrections.weights),
        only is None or Source("weights", unit.layer.name) in only,
    )


class Compiler:
    """Makes sessions of the units of one graph."""

    def __init__(self, quantized: Quantized) -> None:
        graph = quantized.model.graph
        self._model = quantized.model
        self._names = Names(graph)
        self._values = {v.name or "": v for v in tensors(graph)}

    def builder(self, layer: Layer) -> GraphBuilder:
        """An empty graph over the tensors that `layer` reads."""
        return GraphBuilder(self._model, layer.name, [self._values[n] for n in layer.inputs], self._names.copy())

    def compile(self, unit: Unit, quantized: Quantized, only: Only | None, threads: int) -> Form:
        """A session for the unit, as the whole model's session would compute it.

        threads: of sessions whose results they do not change. Raises ModelError.
        """
        inputs = [self._values[name] for name in unit.reads]
        builder = GraphBuilder(self._model, unit.name, inputs, self._names.copy())
        lowering = Lowering(builder, quantized, only)
        if unit.layer is None:
            made = {name: name for name in unit.writes}
        else:
            made = lowering.layer(unit.layer, lambda name: name, ".raw")
        outputs: list[tuple[str, str]] = []
        for name in unit.writes:
            stored = lowering.store(name, made[name])
            if stored in unit.reads:  # ONNX Runtime gives out no input
                outputs.append((name, builder.give(stored, name)))
            else:
                builder.output(stored)
                outputs.append((name, stored))
        if _parts_sums(unit):
            threads = simulation_threads()
        elif _work(unit) < _SMALL:
            threads = 1
        return Form(make_simulation(builder.build(), threads=threads, shared_memory=True), unit.reads, tuple(outputs))


class _Same:
    """Equal to nothing but what refers to the very same object, which it keeps from being replaced in its place."""

    def __init__(self, referred: object) -> None:
        self._referred = referred

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._referred is other._referred

    def __hash__(self) -> int:
        return id(self._referred)


def _stored(table: Table, tensor: str, only: Only | None) -> Hashable:
    """All that the rounding of a tensor between layers depends on."""
    precision = table.precision(tensor)
    active = only is None or Source("tensor", tensor) in only
    return precision, active, _grid(table.quantizer(tensor)) if active else None


def _grid(row: Row | None) -> Hashable:
    return None if row is None else (row.dtype, row.scale, row.zero_point)


def _parts_sums(unit: Unit) -> bool:
    """Whether the number of threads may change the last bits of what the unit computes."""
    nodes = unit.layer.nodes if unit.layer is not None else ()
    further = [node for node in nodes if node.op_type not in _SAME_IN_PARTS]
    small = _work(unit) < _WHOLE and all(
        n.op_type in CONVOLUTIONS and constant(n.inputs[1]) is not None for n in further
    )
    return bool(further) and not small


def _work(unit: Unit) -> float:
    """About how many multiplications and additions the unit is, at most; those of computed weights are not counted."""
    total = 0.0
    for node in unit.layer.nodes if unit.layer is not None else ():
        sizes = [float(math.prod(static_shape(value))) for value in node.outputs if value.name]
        weight = constant(node.inputs[1]) if node.op_type in CONVOLUTIONS else None
        if weight is None or not weight.size:
            total += 4.0 * sum(sizes)
        elif node.op_type in ("Conv", "ConvTranspose"):
            source = sizes[0] if node.op_type == "Conv" else math.prod(static_shape(_read(node, 0)))
            total += source * weight.size / weight.shape[0]
        else:
            total += sizes[0] / static_shape(node.outputs[0])[-1] * weight.size
    return total


def _read(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value
