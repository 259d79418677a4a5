"""Runs a quantized model layer by layer on fixed samples, keeps every tensor, and repeats only what a change reaches.

One small ONNX Runtime session stands for each layer, as the whole model's session would compute it: results are the
same to the last bit.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from engine.graph.building import GraphBuilder
from engine.graph.layers import CONVOLUTIONS, Layer
from engine.graph.names import Names
from engine.graph.query import constant, static_shape, tensors
from engine.ort import make_session
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, Row, Table, twin
from engine.simulator.lowering import Lowering, Source

Array = np.ndarray[Any, Any]
Only = frozenset[Source]

# Multiplications and additions below which a second thread costs more than it does.
_SMALL = 1 << 20
# Forms of a layer that are kept compiled: a person who goes back and forth does not wait again.
_KEPT_FORMS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class _Unit:
    """A layer, or a graph input's rounding (layer None), with the tensors that it reads and writes."""

    layer: Layer | None
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Form:
    """A unit compiled for one set of precisions and ranges.

    outputs: each tensor that it writes, and what the session calls it. bindings: the session tied to the memory of its
    inputs and outputs, by sample and by where they lie; tying costs as much as running a small layer.
    """

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    bindings: dict[Hashable, Any] = dataclasses.field(default_factory=dict)


class Stepwise:
    """Every tensor of `quantized` on `samples` (inputs by name, normalized), as the simulator stores it.

    `only`: see Lowering; frozenset() is the float model. Memory: all tensors between layers, once for each sample, and
    once more where `trial` is used. Not for use by several threads at a time.
    """

    def __init__(
        self,
        quantized: Quantized,
        samples: Sequence[Mapping[str, Array]],
        *,
        only: Only | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.quantized = quantized
        self.only = only
        cores = os.cpu_count() or 1
        self._workers = max(1, min(cores, len(samples)))
        self._threads = max(1, cores // self._workers)
        self._samples = [dict(sample) for sample in samples]
        graph = quantized.model.graph
        self._names = Names(graph)
        self._values = {v.name or "": v for v in tensors(graph)}
        self._units = [_Unit(None, (name,), (name,)) for name in (v.name or "" for v in graph.inputs)]
        self._units += [_Unit(layer, layer.inputs, layer.outputs) for layer in quantized.layers]
        self._touching: dict[str, list[int]] = collections.defaultdict(list)
        for index, unit in enumerate(self._units):
            inner = unit.layer.inner if unit.layer else ()
            for name in dict.fromkeys((*unit.reads, *unit.writes, *inner)):
                self._touching[name].append(index)
        self._forms: list[collections.OrderedDict[Hashable, _Form]] = [collections.OrderedDict() for _ in self._units]
        self._keys = [self._key(unit, quantized, only) for unit in self._units]
        self._kept: list[dict[str, Array]] = [{} for _ in samples]
        self._scratch: list[dict[str, Array]] = [{} for _ in samples]
        self._run(list(range(len(self._units))), self._keys, quantized, only, self._kept, progress)

    def update(self, quantized: Quantized, only: Only | None = None) -> list[Layer]:
        """Take over another table, other biases, or other `only`, and run again what they reach.

        `quantized` is of the same graph. Returns the layers that ran, in execution order.
        """
        keys, plan = self._plan(quantized, only, None)
        self._run(plan, keys, quantized, only, self._kept, None)
        self.quantized, self.only, self._keys = quantized, only, keys
        return [layer for index in plan if (layer := self._units[index].layer) is not None]

    def trial(self, quantized: Quantized, only: Only | None = None, *, towards: Collection[str] | None = None) -> Trial:
        """What `update` would give, with nothing taken over; good until the next trial.

        `towards` are the tensors of interest: what does not lead to them is left out.
        """
        keys, plan = self._plan(quantized, only, towards)
        self._run(plan, keys, quantized, only, self._scratch, None)
        fresh = {name for index in plan for name in self._units[index].writes}
        return Trial(self, fresh)

    def value(self, sample: int, tensor: str) -> Array:
        """The stored tensor; a view that the next update overwrites."""
        kept = self._kept[sample].get(tensor)
        if kept is not None:
            return kept
        array = constant(self.quantized.model.graph.initializers.get(tensor))
        assert array is not None, tensor
        return array

    def probe(self, layer: Layer, builder: GraphBuilder, output: str) -> list[Array]:
        """For each sample, `output` of what `builder` holds, over the kept tensors that `layer` reads."""
        session = make_session(builder.build(), threads=self._threads)
        with ThreadPoolExecutor(self._workers) as pool:
            return list(
                pool.map(lambda kept: session.run([output], {name: kept[name] for name in layer.inputs})[0], self._kept)
            )

    def builder(self, layer: Layer) -> GraphBuilder:
        """An empty graph over the tensors that `layer` reads, for `probe`."""
        inputs = [self._values[name] for name in layer.inputs]
        return GraphBuilder(self.quantized.model, layer.name, inputs, self._names.copy())

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._samples)

    def _plan(
        self, quantized: Quantized, only: Only | None, towards: Collection[str] | None
    ) -> tuple[list[Hashable], list[int]]:
        """The units' keys under the change, and the units to run, in order."""
        keys = list(self._keys)
        for index in self._candidates(quantized, only):
            keys[index] = self._key(self._units[index], quantized, only)
        dirty: set[str] = set()
        plan = []
        for index, unit in enumerate(self._units):
            if keys[index] != self._keys[index] or (unit.layer and not dirty.isdisjoint(unit.reads)):
                plan.append(index)
                dirty.update(unit.writes)
        if towards is not None:
            wanted, useful = set(towards), []
            for index in reversed(plan):
                unit = self._units[index]
                if not wanted.isdisjoint(unit.writes):
                    useful.append(index)
                    wanted.update(unit.reads)
            plan = useful[::-1]
        return keys, plan

    def _candidates(self, quantized: Quantized, only: Only | None) -> Iterable[int]:
        """Units whose key may have changed."""
        now = self.quantized
        if quantized.corrections.weights is not now.corrections.weights or (only is None) != (self.only is None):
            return range(len(self._units))
        names: set[str] = set()
        for old, new in (
            (now.table.rows, quantized.table.rows),
            (now.table.wishes, quantized.table.wishes),
            (now.corrections.biases, quantized.corrections.biases),
        ):
            if old is not new:
                names.update(name for name in old.keys() | new.keys() if old.get(name) is not new.get(name))
        for source in (only or frozenset()) ^ (self.only or frozenset()):
            names.add(source.name)
        # A row of `X_int8` says how X is rounded.
        names |= {name.removesuffix(twin("", grid)) for name in names for grid in GRIDS}
        return sorted({index for name in names for index in self._touching.get(name, ())})

    def _key(self, unit: _Unit, quantized: Quantized, only: Only | None) -> Hashable:
        """All that the unit's session depends on."""
        table = quantized.table
        if unit.layer is None:
            return tuple(_stored(table, name, only) for name in unit.writes)
        lowering = Lowering.__new__(Lowering)
        lowering.table = table
        precisions = tuple(lowering.precisions(unit.layer))
        grids = [p for p in dict.fromkeys(precisions) if p in GRIDS]
        reads = tuple(
            (_stored(table, name, only), *(_grid(table.quantizer(name, p)) for p in grids))
            for name in (*unit.reads, *unit.layer.inner)
        )
        biases = quantized.corrections.biases
        corrected = tuple(
            biases[name].tobytes() for node in unit.layer.nodes if (name := node.outputs[0].name or "") in biases
        )
        weighed = only is None or Source("weights", unit.layer.name) in only
        return (
            precisions,
            reads,
            tuple(_stored(table, name, only) for name in unit.writes),
            corrected if only is None else (),
            weighed,
            id(quantized.corrections.weights),
        )

    def _form(self, index: int, key: Hashable, quantized: Quantized, only: Only | None) -> _Form:
        forms = self._forms[index]
        form = forms.get(key)
        if form is None:
            form = forms[key] = self._compile(self._units[index], quantized, only)
            while len(forms) > _KEPT_FORMS:
                forms.popitem(last=False)
        forms.move_to_end(key)
        return form

    def _compile(self, unit: _Unit, quantized: Quantized, only: Only | None) -> _Form:
        builder = GraphBuilder(
            quantized.model, "layer", [self._values[name] for name in unit.reads], self._names.copy()
        )
        lowering = Lowering(builder, quantized, only)
        if unit.layer is None:
            made = {name: name for name in unit.writes}
        else:
            made = lowering.layer(unit.layer, lambda name: name, ".raw")
        outputs = []
        for name in unit.writes:
            stored = lowering.store(name, made[name])
            if stored in unit.reads:  # ONNX Runtime gives out no input
                outputs.append((name, builder.give(stored, name)))
            else:
                builder.output(stored)
                outputs.append((name, stored))
        threads = self._threads if _work(unit) > _SMALL else 1
        return _Form(make_session(builder.build(), threads=threads), unit.reads, tuple(outputs))

    def _run(
        self,
        plan: list[int],
        keys: Sequence[Hashable],
        quantized: Quantized,
        only: Only | None,
        into: list[dict[str, Array]],
        progress: Progress | None,
    ) -> None:
        """Run the units of `plan` on every sample; tensors that they don't write are read from the kept ones."""
        fresh: set[str] = set()
        steps: list[tuple[_Unit, _Form, tuple[bool, ...]]] = []
        for done, index in enumerate(plan):
            if progress is not None:
                progress.step("prepare", done, len(plan))
            unit = self._units[index]
            steps.append((unit, self._form(index, keys[index], quantized, only), tuple(n in fresh for n in unit.reads)))
            fresh.update(unit.writes)

        def run_sample(sample: int) -> None:
            for unit, form, made in steps:
                self._run_unit(sample, unit, form, made, into[sample])

        if self._workers == 1:
            for sample in range(len(self._samples)):
                run_sample(sample)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(run_sample, range(len(self._samples))))

    def _run_unit(self, sample: int, unit: _Unit, form: _Form, made: tuple[bool, ...], into: dict[str, Array]) -> None:
        place = (sample, into is self._kept[sample], made)
        binding = form.bindings.get(place)
        if binding is None:
            binding = form.bindings[place] = form.session.io_binding()
            for tensor, own in zip(form.inputs, made, strict=True):
                if unit.layer is None:
                    array = self._samples[sample][tensor]
                else:
                    array = (into if own else self._kept[sample])[tensor]
                binding.bind_input(tensor, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            for tensor, name in form.outputs:
                if tensor not in into:
                    into[tensor] = self._empty(tensor)
                array = into[tensor]
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        form.session.run_with_iobinding(binding)

    def _empty(self, tensor: str) -> Array:
        value = self._values[tensor]
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        return np.empty(static_shape(value), dtype)


class Trial:
    """The tensors of a trial; see Stepwise.trial."""

    def __init__(self, stepwise: Stepwise, fresh: Collection[str]) -> None:
        self._stepwise = stepwise
        self._fresh = fresh

    def value(self, sample: int, tensor: str) -> Array:
        """The stored tensor; a view that the next trial overwrites."""
        if tensor in self._fresh:
            return self._stepwise._scratch[sample][tensor]
        return self._stepwise.value(sample, tensor)


def _stored(table: Table, tensor: str, only: Only | None) -> Hashable:
    """All that the rounding of a tensor between layers depends on."""
    precision = table.precision(tensor)
    active = only is None or Source("tensor", tensor) in only
    return precision, active, _grid(table.quantizer(tensor)) if active else None


def _grid(row: Row | None) -> Hashable:
    return None if row is None else (row.dtype, row.scale, row.zero_point)


def _work(unit: _Unit) -> float:
    """About how many multiplications and additions the unit is."""
    total = 0.0
    for node in unit.layer.nodes if unit.layer is not None else ():
        for value in node.outputs:
            size = float(math.prod(static_shape(value)))
            weight = constant(node.inputs[1]) if node.op_type in CONVOLUTIONS else None
            channels = 1 if weight is None else max(1, weight.shape[0] if node.op_type == "Conv" else weight.shape[-1])
            total += size * (4.0 if weight is None else weight.size / channels)
    return total
