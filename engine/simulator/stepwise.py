"""Runs a quantized model layer by layer on fixed samples, keeps every tensor, and repeats only what a change reaches.

One small ONNX Runtime session stands for each layer, as the whole model's session would compute it: results are the
same to the last bit.
"""

from __future__ import annotations

import collections
import math
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import InputError, ModelError
from engine.graph.building import GraphBuilder
from engine.graph.layers import Layer
from engine.graph.query import constant, static_shape, tensors
from engine.ort import reason
from engine.progress import Progress
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS, twin
from engine.simulator.buffers import Buffers
from engine.simulator.layer_sessions import Compiler, Form, Only, Unit, key_of, units_of

Array = np.ndarray[Any, Any]
Sample = Mapping[str, Array]

# Forms of a layer that are kept compiled: a person who goes back and forth does not wait again.
_KEPT_FORMS = 4


class Stepwise:
    """Every tensor of `quantized` on `samples` (inputs by name, normalized), as the simulator stores it.

    `only`: see Lowering; frozenset() is the float model. Memory: all tensors between layers, once for each sample, and
    once more where `trial` is used. Not for use by several threads at a time. Unless `run`, nothing is computed before
    the first `update` or `advance`. Unless `keep`, only `advance` is allowed: it runs every layer, and tensors give up
    their memory as soon as nothing reads them.
    """

    def __init__(
        self,
        quantized: Quantized,
        samples: Sequence[Mapping[str, Array]],
        *,
        only: Only | None = None,
        progress: Progress | None = None,
        run: bool = True,
        keep: bool = True,
    ) -> None:
        self.quantized = quantized
        self.only = only
        cores = os.cpu_count() or 1
        self._workers = max(1, min(cores, len(samples)))
        self._threads = max(1, cores // self._workers)
        # Starting threads for each layer would take as long as a small model runs.
        self._pool = ThreadPoolExecutor(self._workers)
        self._keep = keep
        self._buffers = Buffers()
        self._samples = [_aligned(quantized, sample, self._buffers) for sample in samples]
        self._values = {v.name or "": v for v in tensors(quantized.model.graph)}
        self._compiler = Compiler(quantized)
        self._units = units_of(quantized)
        self._touching: dict[str, list[int]] = collections.defaultdict(list)
        for index, unit in enumerate(self._units):
            for name in dict.fromkeys((*unit.reads, *unit.writes, *unit.inner)):
                self._touching[name].append(index)
        self._forms: list[collections.OrderedDict[Hashable, Form]] = [collections.OrderedDict() for _ in self._units]
        # None: not run yet, or not to its end.
        self._keys: list[Hashable] = [None] * len(self._units)
        self._kept: list[dict[str, Array]] = [{} for _ in samples]
        self._scratch: list[dict[str, Array]] = [{} for _ in samples]
        # Memory of tensors that were let go, by number of elements and type.
        self._spare: dict[tuple[int, np.dtype[Any]], list[Array]] = collections.defaultdict(list)
        if run and keep:
            self.update(quantized, only, progress)

    def update(self, quantized: Quantized, only: Only | None = None, progress: Progress | None = None) -> list[Layer]:
        """Take over another table, other corrections, or other `only`, and run again what they reach.

        `quantized` is of the same graph. Returns the layers that ran, in execution order. Raises Cancelled and
        ModelError; until another update succeeds, also with what was there before, `value` is good for nothing then.
        """
        keys, plan = self._plan(quantized, only, None)
        for index in plan:
            self._keys[index] = None
        self._run(plan, keys, quantized, only, self._kept, progress)
        self.quantized, self.only, self._keys = quantized, only, keys
        return [layer for index in plan if (layer := self._units[index].layer) is not None]

    def advance(self, quantized: Quantized, adjust: Callable[[Layer, Quantized], Quantized]) -> None:
        """Take over another table or other biases, layer by layer: `adjust` may change the biases of a layer.

        It is called for each layer that has to run, right before it does; what the layer reads is up to date then.
        """
        keys, dirty, only = self._plan(quantized, self.only, None)[0], set[str](), self.only
        now, self._keys = self._keys, [None] * len(self._units)  # should `adjust` raise, nothing counts as computed
        for index, unit in enumerate(self._units):
            if keys[index] != now[index] or (unit.layer and not dirty.isdisjoint(unit.reads)):
                if unit.layer is not None:
                    quantized = adjust(unit.layer, quantized)
                    keys[index] = key_of(unit, quantized, only)
                self._run([index], keys, quantized, only, self._kept, None)
                dirty.update(unit.writes)
            if not self._keep:
                self._release(index)
        self.quantized = quantized
        if self._keep:
            self._keys = keys

    def trial(self, quantized: Quantized, only: Only | None = None, *, towards: Collection[str] | None = None) -> Trial:
        """What `update` would give, with nothing taken over; good until the next trial.

        `towards` are the tensors of interest: what does not lead to them is left out.
        """
        keys, plan = self._plan(quantized, only, towards)
        self._run(plan, keys, quantized, only, self._scratch, None)
        fresh = {name for index in plan for name in self._units[index].writes}
        return Trial(self, fresh)

    def replay(self, values: Mapping[str, Sequence[Array]], *, towards: Collection[str] | None = None) -> Trial:
        """What follows when these tensors, one array a sample, have other values; good until the next trial."""
        dirty, plan = set(values), []
        for index, unit in enumerate(self._units):
            if unit.layer and not dirty.isdisjoint(unit.reads) and dirty.isdisjoint(unit.writes):
                plan.append(index)
                dirty.update(unit.writes)
        plan = self._useful(plan, towards)
        for name, arrays in values.items():
            for scratch, array in zip(self._scratch, arrays, strict=True):
                if name not in scratch:
                    scratch[name] = self._empty(name)
                np.copyto(scratch[name], array)
        self._run(plan, self._keys, self.quantized, self.only, self._scratch, None, values)
        return Trial(self, {*values, *(name for index in plan for name in self._units[index].writes)})

    def value(self, sample: int, tensor: str) -> Array:
        """The stored tensor; a view that the next update overwrites."""
        kept = self._kept[sample].get(tensor)
        if kept is not None:
            return kept
        array = constant(self.quantized.model.graph.initializers.get(tensor))
        assert array is not None, tensor
        return array

    def builder(self, layer: Layer) -> GraphBuilder:
        """An empty graph over the tensors that `layer` reads."""
        return self._compiler.builder(layer)

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
            keys[index] = key_of(self._units[index], quantized, only)
        dirty: set[str] = set()
        plan = []
        for index, unit in enumerate(self._units):
            if keys[index] != self._keys[index] or (unit.layer and not dirty.isdisjoint(unit.reads)):
                plan.append(index)
                dirty.update(unit.writes)
        return keys, self._useful(plan, towards)

    def _useful(self, plan: list[int], towards: Collection[str] | None) -> list[int]:
        """The units of `plan` that lead to the tensors `towards`; None: all."""
        if towards is None:
            return plan
        wanted, useful = set(towards), []
        for index in reversed(plan):
            unit = self._units[index]
            if not wanted.isdisjoint(unit.writes):
                useful.append(index)
                wanted.update(unit.reads)
        return useful[::-1]

    def _candidates(self, quantized: Quantized, only: Only | None) -> Iterable[int]:
        """Units whose key may have changed."""
        now = self.quantized
        if (
            None in self._keys
            or quantized.method != now.method
            or quantized.corrections.weights is not now.corrections.weights
            or (only is None) != (self.only is None)
        ):
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

    def _form(self, index: int, key: Hashable, quantized: Quantized, only: Only | None) -> Form:
        forms = self._forms[index]
        form = forms.get(key)
        if form is None:
            form = forms[key] = self._compiler.compile(self._units[index], quantized, only, self._threads)
            while len(forms) > _KEPT_FORMS:
                forms.popitem(last=False)
        forms.move_to_end(key)
        return form

    def _run(
        self,
        plan: list[int],
        keys: Sequence[Hashable],
        quantized: Quantized,
        only: Only | None,
        into: list[dict[str, Array]],
        progress: Progress | None,
        given: Collection[str] = (),
    ) -> None:
        """Run the units of `plan` on every sample; tensors that they don't write are read from the kept ones.

        `given` are tensors that lie in `into` already.
        """
        fresh = set(given)
        steps: list[tuple[Unit, Form, tuple[bool, ...]]] = []
        for done, index in enumerate(plan):
            if progress is not None:
                progress.step("prepare", done, len(plan))
            unit = self._units[index]
            steps.append((unit, self._form(index, keys[index], quantized, only), tuple(n in fresh for n in unit.reads)))
            fresh.update(unit.writes)
        # Not while samples run, which do so in threads.
        for tensors_of_sample in into:
            for name in (name for unit, _, _ in steps for name in unit.writes):
                if name not in tensors_of_sample:
                    tensors_of_sample[name] = self._empty(name)

        def run_sample(sample: int) -> None:
            for unit, form, made in steps:
                if progress is not None:
                    progress.check()
                self._run_unit(sample, unit, form, made, into[sample])

        if self._workers == 1:
            for sample in range(len(self._samples)):
                run_sample(sample)
        else:
            list(self._pool.map(run_sample, range(len(self._samples))))

    def _run_unit(self, sample: int, unit: Unit, form: Form, made: tuple[bool, ...], into: dict[str, Array]) -> None:
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
                array = into[tensor]
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        try:
            form.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime raises many classes without a common base
            raise ModelError(f"ONNX Runtime failed: {reason(error)}", where=f"layer {unit.name!r}") from error

    def _empty(self, tensor: str) -> Array:
        value = self._values[tensor]
        shape, dtype = static_shape(value), _dtype(value)
        spare = self._spare[math.prod(shape), dtype]
        return spare.pop().reshape(shape) if spare else self._buffers.empty(shape, dtype)

    def _release(self, index: int) -> None:
        """Let go of the tensors that no unit after this one touches, and of what is tied to their memory."""
        unit = self._units[index]
        for form in self._forms[index].values():
            form.bindings.clear()
        for name in {*unit.reads, *unit.writes}:
            if self._touching[name][-1] == index:
                for kept in self._kept:
                    if name in kept:
                        array = kept.pop(name)
                        self._spare[array.size, array.dtype].append(array)


def float_tensors(
    quantized: Quantized, samples: Sequence[Sample], progress: Progress | None = None
) -> list[dict[str, Array]]:
    """For each sample, every tensor of the float model between layers, by name, bit for bit as Stepwise has them."""
    return Stepwise(quantized, samples, only=frozenset(), progress=progress)._kept


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


def _aligned(quantized: Quantized, sample: Sample, buffers: Buffers) -> dict[str, Array]:
    """The sample as sessions may read it from memory. Raises InputError."""
    found = {}
    for value in quantized.model.graph.inputs:
        name, shape, dtype = value.name or "", static_shape(value), _dtype(value)
        array = np.asarray(sample[name]) if name in sample else None
        if array is None or array.shape != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
            given = "not in the sample" if array is None else f"{array.dtype} {list(array.shape)} in the sample"
            raise InputError(f"is {given} and {dtype} {list(shape)} in the model", where=f"input {name!r}")
        found[name] = buffers.empty(shape, dtype)
        np.copyto(found[name], array, casting="same_kind")
    return found


def _dtype(value: ir.Value) -> np.dtype[Any]:
    return value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
