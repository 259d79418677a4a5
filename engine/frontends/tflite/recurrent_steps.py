"""LSTM weights as TFLite has them, as ONNX wants them, and steps written out where ONNX's operator cannot do it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc import Place, Tensor
from engine.graph.query import Array

# What TFLite's kernels add to the variance.
_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class LstmWeights:
    """One direction's weights. Lists are by gate: input, forget, cell, output; peepholes of all but the cell.

    Without an input gate, it is 1 - forget gate. Clips of 0 are none.
    """

    inputs: Sequence[Array | None]
    recurrent: Sequence[Array | None]
    peepholes: Sequence[Array | None]
    biases: Sequence[Array | None]
    norms: Sequence[Array | None]
    projection: Array | None
    projection_bias: Array | None
    cell_clip: float
    projection_clip: float

    @property
    def coupled(self) -> bool:
        """Whether the input gate is 1 - forget gate."""
        return self.inputs[0] is None

    @property
    def simple(self) -> bool:
        """Whether ONNX's operator computes it."""
        return self.projection is None and all(norm is None for norm in self.norms)

    def onnx(self) -> tuple[Array, Array, Array, Array | None]:
        """Weights, recurrent weights, biases and peepholes as ONNX's operator takes them, gates as i, o, f, c.

        ONNX couples the other way round, forget = 1 - input, so that the input gate gets the negative of the forget
        gate's weights.
        """
        zeros = np.zeros(self.inputs[1].shape[0], np.float32)  # type: ignore[union-attr]
        parts = []
        for group in (self.inputs, self.recurrent, [zeros if b is None else b for b in self.biases]):
            i, f, c, o = group
            assert f is not None and c is not None and o is not None
            if self.coupled:
                i = -f
            assert i is not None
            parts.append(np.concatenate([i, o, f, c]).astype(np.float32))
        peepholes = None
        if any(p is not None for p in self.peepholes):
            i, f, o = (zeros if p is None else p for p in self.peepholes)
            peepholes = np.concatenate([-f if self.coupled else i, o, f]).astype(np.float32)
        return parts[0], parts[1], np.concatenate([parts[2], np.zeros_like(parts[2])]), peepholes


@dataclasses.dataclass(frozen=True)
class Steps:
    """What the steps made: all outputs [time, 1, batch, size], the last hidden and cell state [batch, size]."""

    sequence: ir.Value
    hidden: ir.Value
    cell: ir.Value


def lstm_steps(place: Place, x: ir.Value, weights: LstmWeights, hidden: Tensor | None, cell: Tensor | None) -> Steps:
    """An LSTM over x [time, batch, size], step by step."""
    time, batch, width = place.maker.shape(x)
    cells = weights.inputs[1].shape[0]  # type: ignore[union-attr]
    size = cells if weights.projection is None else weights.projection.shape[0]
    writer = _Writer(place, weights, batch)
    h = hidden.plain() if hidden is not None else None
    c = cell.plain() if cell is not None else None
    outputs = []
    for step in range(time):
        if time == 1:
            now = writer.reshaped(x, [batch, width], "now")
        else:
            picked = place.inner("Gather", [x, place.constant(np.array([step], np.int64), "step")], f"x{step}", axis=0)
            now = writer.reshaped(picked, [batch, width], f"now{step}")
        h, c = writer.step(now, h, c)
        outputs.append(writer.reshaped(h, [1, 1, batch, size], f"output{step}"))
    assert h is not None and c is not None
    joined = outputs[0] if len(outputs) == 1 else place.inner("Concat", outputs, "sequence", axis=0)
    return Steps(joined, h, c)


class _Writer:
    def __init__(self, place: Place, weights: LstmWeights, batch: int) -> None:
        self._place = place
        self._weights = weights
        self._batch = batch
        self._constants: dict[str, ir.Value] = {}

    def reshaped(self, value: ir.Value, shape: Sequence[int], suffix: str) -> ir.Value:
        sizes = self._place.constant(np.array(shape, np.int64), f"{suffix}_shape")
        return self._place.inner("Reshape", [value, sizes], suffix)

    def step(self, x: ir.Value, h: ir.Value | None, c: ir.Value | None) -> tuple[ir.Value, ir.Value]:
        """The next hidden and cell state."""
        place, weights = self._place, self._weights
        forget = self._gate(1, x, h, c, "Sigmoid")
        if weights.coupled:
            inward = place.inner("Sub", [self._constant("one", np.array(1.0, np.float32)), forget], "input_gate")
        else:
            inward = self._gate(0, x, h, c, "Sigmoid")
        update = place.inner("Mul", [inward, self._gate(2, x, h, None, "Tanh")], "update")
        if c is not None:
            update = place.inner("Add", [place.inner("Mul", [forget, c], "kept"), update], "cell")
        c = self._clipped(update, weights.cell_clip, "cell_clipped")
        output = place.inner(
            "Mul", [self._gate(3, x, h, c, "Sigmoid"), place.inner("Tanh", [c], "cell_tanh")], "hidden"
        )
        if weights.projection is not None:
            inputs = [output, self._constant("projection", weights.projection)]
            if weights.projection_bias is not None:
                inputs.append(self._constant("projection_bias", weights.projection_bias))
            output = place.inner("Gemm", inputs, "projected", transB=1)
            output = self._clipped(output, weights.projection_clip, "projected_clipped")
        return output, c

    def _gate(self, gate: int, x: ir.Value, h: ir.Value | None, c: ir.Value | None, activation: str) -> ir.Value:
        place, weights, name = self._place, self._weights, ("input", "forget", "cell", "output")[gate]
        matrix, recurrent, bias = weights.inputs[gate], weights.recurrent[gate], weights.biases[gate]
        assert matrix is not None and recurrent is not None
        norm = weights.norms[gate]
        inputs = [x, self._constant(f"{name}_weights", matrix)]
        if bias is not None and norm is None:
            inputs.append(self._constant(f"{name}_bias", bias))
        total = place.inner("Gemm", inputs, f"{name}_product", transB=1)
        if h is not None:
            inner = place.inner("Gemm", [h, self._constant(f"{name}_recurrent", recurrent)], f"{name}_past", transB=1)
            total = place.inner("Add", [total, inner], f"{name}_sum")
        peephole = weights.peepholes[(0, 1, -1, 2)[gate]] if gate != 2 else None
        if peephole is not None and c is not None:
            seen = place.inner("Mul", [c, self._constant(f"{name}_peephole", peephole)], f"{name}_seen")
            total = place.inner("Add", [total, seen], f"{name}_peeped")
        if norm is not None:
            scale = self._constant(f"{name}_norm", norm)
            offset = [] if bias is None else [self._constant(f"{name}_bias", bias)]
            total = place.inner(
                "LayerNormalization", [total, scale, *offset], f"{name}_normalized", axis=-1, epsilon=_EPSILON
            )
        return place.inner(activation, [total], f"{name}_gate")

    def _clipped(self, value: ir.Value, bound: float, suffix: str) -> ir.Value:
        if not bound:
            return value
        ends = [self._constant(f"{suffix}_{n}", np.array(s * bound, np.float32)) for n, s in (("low", -1), ("high", 1))]
        return self._place.inner("Clip", [value, *ends], suffix)

    def _constant(self, name: str, array: Array) -> ir.Value:
        if name not in self._constants:
            self._constants[name] = self._place.constant(array, name)
        return self._constants[name]
