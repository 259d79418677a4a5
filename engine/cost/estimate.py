"""What a whole model takes on a chip: every layer, the conversions between precisions, and memory over the run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import onnx_ir as ir

from engine.cost.chips import WIDTHS
from engine.cost.figures import FIGURES
from engine.cost.layer_costs import LOW, MEDIUM, Cost, Machine, feature_bytes, layer_cost
from engine.cost.model_memory import ModelMemory
from engine.cost.plan import Demand, end, in_use, plan
from engine.cost.work import shapes_of, work_of
from engine.estimates import (
    CostTotals,
    LayerCost,
    LayerEstimate,
    MemoryBlock,
    MemoryEstimate,
    ModelCosts,
    ModelEstimate,
)
from engine.graph.layers import FLOATS, Layer
from engine.graph.query import tensors
from engine.quantization.table import Table
from engine.quantization.traffic import arrives_in, computed_in

# A tensor, what it is stored in, and what it is read in.
_Conversion = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class _Memory:
    used: list[int]
    lower_bound: int
    blocks: tuple[MemoryBlock, ...]
    end: int


class CostModel:
    """The costs of one graph on one machine, for whatever precisions a table has.

    What was computed once for a layer in a precision is kept, so that after a change only what changed is computed.
    A layer reads its inputs as it computes; where they are stored otherwise, the first layer that needs them so pays
    for the conversion.
    """

    def __init__(self, model: ir.Model, layers: Sequence[Layer], machine: Machine) -> None:
        self.machine = machine
        self.layers = tuple(layers)
        self._shapes = shapes_of(model)
        self._integers = frozenset(v.name or "" for v in tensors(model.graph) if v.dtype not in FLOATS)
        self._work = tuple(work_of(layer, self._shapes, self._integers) for layer in layers)
        self._main = [layer.nodes.index(it.main) for layer, it in zip(self.layers, self._work, strict=True)]
        self._model_memory = ModelMemory(model, self._work, self._shapes, machine.chip, machine.batch)
        self._cost = functools.cache(self._cost_of)
        self._converted = functools.cache(self._converted_bytes)
        self._times = functools.cache(self._times_of)
        self._planned = functools.lru_cache(maxsize=8)(self._plan_of)

    def time_us(self, table: Table) -> float:
        """Microseconds of one inference."""
        return sum(cost.total for cost, _ in self._all(table)) / self.machine.clock_mhz

    def estimate(self, table: Table, built: str, notes: tuple[str, ...] = ()) -> ModelEstimate:
        """Everything that is estimated of the model; `built` names its precision."""
        found, memory, machine = self._all(table), self._memory(table), self.machine
        weights = [self._model_memory.weights(i, computes) for i, (_, computes) in enumerate(found)]
        totals = self._totals([cost for cost, _ in found], sum(weights), memory.end)
        layers = tuple(
            self._layer(index, cost, computes, weights[index], memory.used[index], table)
            for index, (cost, computes) in enumerate(found)
        )
        kept = MemoryEstimate(sum(weights), memory.end, sum(weights) + memory.end, memory.lower_bound, memory.blocks)
        name, clock = machine.target.name, machine.clock_mhz
        return ModelEstimate("estimate", name, built, machine.cores, machine.batch, clock, layers, totals, kept, notes)

    def costs(self, table: Table) -> ModelCosts:
        """What rows of layers show, the times of other precisions among it."""
        found, memory = self._all(table), self._memory(table)
        weights = sum(self._model_memory.weights(i, computes) for i, (_, computes) in enumerate(found))
        clock = self.machine.clock_mhz
        layers = {
            layer.name: LayerCost(
                round(cost.total / clock, 3),
                memory.used[index],
                cost.bound,
                self._times(index, self._read_as(index, table)),
            )
            for index, (layer, (cost, _)) in enumerate(zip(self.layers, found, strict=True))
        }
        totals = self._totals([cost for cost, _ in found], weights, memory.end)
        return ModelCosts(self.machine.target.name, layers, totals)

    # Layers

    def _all(self, table: Table) -> list[tuple[Cost, str]]:
        """The cost of each layer, conversions included, and what its main step computes in."""
        taken: set[_Conversion] = set()
        found = []
        for index, layer in enumerate(self.layers):
            computes = self._computes(index, table)
            cost = self._cost(index, computes, self._stored(layer.name, table))
            new = [c for c in self._conversions(layer, computes, table) if c not in taken]
            if new:
                taken.update(new)
                cost = self._with(cost, tuple(new))
            found.append((cost, computes))
        return found

    def _computes(self, index: int, table: Table) -> str:
        """What the layer's main node computes in; one that makes integers of floats reads them as they are stored."""
        layer = self.layers[index]
        if layer.name in self._integers:
            return next((self._stored(name, table) for name in layer.inputs), "")
        return computed_in(layer, table)[self._main[index]]

    def _stored(self, tensor: str, table: Table) -> str:
        return "" if tensor in self._integers else table.precision(tensor)

    def _conversions(self, layer: Layer, computes: str, table: Table) -> list[_Conversion]:
        found = []
        for name in layer.inputs:
            stored = self._stored(name, table)
            if stored != computes and stored in WIDTHS and computes in WIDTHS:
                read = arrives_in(name, computes, table)
                if read != stored:
                    found.append((name, stored, read))
        return found

    def _cost_of(self, index: int, computes: str, stored: str) -> Cost:
        return layer_cost(self._work[index], computes, stored, self.machine)

    def _converted_bytes(self, conversion: _Conversion) -> tuple[int, int]:
        name, stored, read = conversion
        shape, chip, batch = self._shapes[name], self.machine.chip, self.machine.batch
        return feature_bytes(shape, stored, chip) * batch, feature_bytes(shape, read, chip) * batch

    def _with(self, cost: Cost, conversions: tuple[_Conversion, ...]) -> Cost:
        """The cost with conversions before it, which are steps of their own."""
        moved = [self._converted(conversion) for conversion in conversions]
        read, written = sum(one for one, _ in moved), sum(other for _, other in moved)
        cycles = self.machine.memory_cycles(read + written)
        certainty = cost.certainty if cost.certainty == LOW else MEDIUM
        return dataclasses.replace(
            cost,
            memory=cost.memory + cycles,
            total=cost.total + cycles,
            read=cost.read + read,
            written=cost.written + written,
            bound=cost.bound or "memory",
            certainty=certainty,
        )

    def _read_as(self, index: int, table: Table) -> tuple[str, ...]:
        return tuple(self._stored(name, table) for name in self.layers[index].inputs)

    def _times_of(self, index: int, read_as: tuple[str, ...]) -> tuple[float, ...]:
        """Microseconds of a layer in each precision of the target, with what it reads stored as `read_as`."""
        layer, clock = self.layers[index], self.machine.clock_mhz
        if layer.name in self._integers:
            return ()
        found = []
        for precision in self.machine.target.precisions:
            cost = self._cost(index, precision, precision)
            stored = zip(layer.inputs, read_as, strict=True)
            conversions = tuple((name, kept, precision) for name, kept in stored if kept not in ("", precision))
            found.append(round((self._with(cost, conversions) if conversions else cost).total / clock, 3))
        return tuple(found)

    def _layer(self, index: int, cost: Cost, computes: str, weights: int, used: int, table: Table) -> LayerEstimate:
        layer, it = self.layers[index], self._work[index]
        array = self.machine.chip.array(computes)
        most = cost.total * array.macs * self.machine.cores if array is not None else 0
        precisions = () if layer.name in self._integers else computed_in(layer, table)
        return LayerEstimate(
            layer.name,
            layer.op,
            "+".join(dict.fromkeys(precision for precision in precisions if precision)),
            it.in_shapes,
            it.out_shapes,
            cost.macs,
            cost.npu,
            cost.memory,
            cost.total,
            cost.total / self.machine.clock_mhz,
            cost.read,
            cost.written,
            cost.bound,
            cost.certainty,
            cost.macs / most if most and cost.bound != "cpu" else 0.0,
            weights,
            used,
        )

    # Memory and totals

    def _memory(self, table: Table) -> _Memory:
        return self._planned(self._model_memory.demands({n: self._stored(n, table) for n in self._shapes}))

    def _plan_of(self, demands: tuple[Demand, ...]) -> _Memory:
        blocks = plan(demands)
        used = in_use(demands)
        return _Memory([*used, *[0] * (len(self.layers) - len(used))], max(used, default=0), blocks, end(blocks))

    def _totals(self, costs: Sequence[Cost], weights: int, internal: int) -> CostTotals:
        figures = FIGURES[self.machine.target.name]
        cycles = sum(cost.total for cost in costs)
        time = cycles / self.machine.clock_mhz
        on_npu = sum(cost.bound in ("compute", "memory") for cost in costs)
        overhead = figures.run_us.value + figures.layer_us.value * on_npu
        return CostTotals(
            sum(cost.macs for cost in costs),
            sum(cost.npu for cost in costs),
            sum(cost.memory for cost in costs),
            cycles,
            time,
            1e6 * self.machine.batch / (time + overhead),
            sum(cost.read for cost in costs),
            sum(cost.written for cost in costs),
            weights,
            internal,
            overhead,
            time + overhead,
        )
