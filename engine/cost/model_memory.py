"""Memory of a whole model on a chip: the constants of each layer, and a plan for the tensors between them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from engine.cost.chips import Chip
from engine.cost.memory import (
    CONVOLUTION,
    DEPTHWISE,
    INPUT,
    OTHER,
    Kept,
    bias_bytes,
    constant_bytes,
    demands,
    operand_bytes,
    weight_bytes,
)
from engine.cost.plan import Demand
from engine.cost.work import LayerWork, Shape


class ModelMemory:
    """Sizes of a graph's tensors and constants on one chip, for whatever precisions they have."""

    def __init__(
        self, model: ir.Model, work: Sequence[LayerWork], shapes: Mapping[str, Shape], chip: Chip, batch: int = 1
    ) -> None:
        self._chip, self._work = chip, tuple(work)
        self._inputs, self._outputs = (
            [v.name or "" for v in values] for values in (model.graph.inputs, model.graph.outputs)
        )
        self._steps = [(it.reads, it.writes) for it in work]
        kinds = dict.fromkeys(self._inputs, INPUT)
        for it in work:
            kinds.update(dict.fromkeys(it.writes, _kind(it)))
        self._tensors = {
            name: ((shapes[name][0] * batch, *shapes[name][1:]) if shapes[name] else (), kind)
            for name, kind in kinds.items()
        }
        self._hard_swish = {
            name
            for it in work
            if it.convolution is not None and it.layer.op.endswith("HardSwish")
            for name in it.writes
        }
        self.weights = functools.cache(self._weights_of)

    def demands(self, stored: Mapping[str, str]) -> tuple[Demand, ...]:
        """What each tensor needs, from when to when; `stored` is the precision of every tensor, '' for integers."""
        kept = {
            name: Kept(shape, stored[name], kind, name in self._hard_swish)
            for name, (shape, kind) in self._tensors.items()
        }
        return demands(self._steps, kept, self._inputs, self._outputs, self._chip)

    def _weights_of(self, index: int, precision: str) -> int:
        """Bytes of the constants of a layer that computes in `precision`."""
        it = self._work[index]
        weighed = it.stages or ((it.convolution,) if it.convolution is not None and it.convolution.weighed else ())
        found = sum(
            weight_bytes(one.outputs, one.inputs, one.kernel, precision, self._chip, groups=one.groups)
            + bias_bytes(one.outputs, one.inputs, precision, self._chip, groups=one.groups)
            for one in weighed
        )
        if it.constants:
            shape = it.out_shapes[0] if it.out_shapes else ()
            on_features = it.kind == "elementwise" and len(shape) == 4 and it.constants <= shape[1]
            found += operand_bytes(it.constants) if on_features else constant_bytes(it.constants, precision)
        return found


def _kind(it: LayerWork) -> str:
    if it.convolution is not None and it.convolution.weighed:
        return DEPTHWISE if it.convolution.depthwise else CONVOLUTION
    return DEPTHWISE if it.stages else OTHER
