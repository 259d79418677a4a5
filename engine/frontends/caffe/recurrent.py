"""Caffe's recurrent layers, step by step, since a second blob may begin a new sequence at any step."""

from __future__ import annotations

import math

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, Refused, reads
from engine.frontends.caffe.weights import Wanted
from engine.graph.query import Array

_MOST_STEPS = 128
_STEP = ("Add", "Concat", "Gemm", "Mul", "Reshape", "Split", "Tanh")


@reads("LSTM", onnx=sorted((*_STEP, "Sigmoid")), bottoms=(2, 3))
def _lstm(making: Making) -> list[ir.Value]:
    """Gates lie in the order input, forget, output, candidate. At a step whose continuation is 0 both states count as
    0."""
    size, steps, samples = _sizes(making)
    length = math.prod(making.shape()[2:])
    wanted = [Wanted((4 * size, length)), Wanted((4 * size,), "bias")]
    if len(making.inputs) == 3:
        wanted.append(Wanted((4 * size, math.prod(making.shape(2)[1:]))))
    weights = making.weights(*wanted, Wanted((4 * size, size)))
    gates = _inputs_of_steps(making, weights, steps, samples, length)
    recurrent = making.constant(weights[-1], "hidden_weights")
    goes_on = _by_step(making, making.inputs[1], steps, samples)
    hidden: ir.Value | None = None
    cell: ir.Value | None = None
    results = []
    for step in range(steps):
        gate = gates[step]
        if hidden is not None:
            kept = making.node("Mul", [hidden, goes_on[step]])
            gate = making.node("Gemm", [kept, recurrent, gate], transB=1)
        parts = making.nodes("Split", [gate, making.constant([size] * 4, "sizes")], 4, axis=1)
        entry, forget, exit_ = (making.node("Sigmoid", [part]) for part in parts[:3])
        added = making.node("Mul", [entry, making.node("Tanh", [parts[3]])])
        if cell is not None:
            forgetting = making.node("Mul", [forget, goes_on[step]])
            added = making.node("Add", [making.node("Mul", [forgetting, cell]), added])
        cell = added
        hidden = making.node("Mul", [exit_, making.node("Tanh", [cell])])
        results.append(making.reshape(hidden, [1, samples, size]))
    return [_joined(making, results)]


@reads("RNN", onnx=sorted(_STEP), bottoms=(2, 3))
def _rnn(making: Making) -> list[ir.Value]:
    """h = tanh(W_hh * h + W_xh * x + b_h), and the result tanh(W_ho * h + b_o)."""
    size, steps, samples = _sizes(making)
    length = math.prod(making.shape()[2:])
    wanted = [Wanted((size, length)), Wanted((size,), "bias")]
    if len(making.inputs) == 3:
        wanted.append(Wanted((size, math.prod(making.shape(2)[1:]))))
    weights = making.weights(*wanted, Wanted((size, size)), Wanted((size, size)), Wanted((size,), "bias"))
    own = _inputs_of_steps(making, weights[:-2], steps, samples, length)
    recurrent, outward, bias = (making.constant(array, "hidden_weights") for array in weights[-3:])
    goes_on = _by_step(making, making.inputs[1], steps, samples)
    hidden: ir.Value | None = None
    results = []
    for step in range(steps):
        state = own[step]
        if hidden is not None:
            state = making.node("Gemm", [making.node("Mul", [hidden, goes_on[step]]), recurrent, state], transB=1)
        hidden = making.node("Tanh", [state])
        shown = making.node("Tanh", [making.node("Gemm", [hidden, outward, bias], transB=1)])
        results.append(making.reshape(shown, [1, samples, size]))
    return [_joined(making, results)]


def _sizes(making: Making) -> tuple[int, int, int]:
    """Numbers of the state, steps, samples."""
    param = making.param("recurrent_param")
    if param.flag("expose_hidden"):
        raise Refused("expose_hidden", "keep the states inside the layer")
    param.ignore("debug_info")
    size = param.integer("num_output")
    if len(making.shape()) < 2 or making.shape(1) != making.shape()[:2]:
        raise ModelError(f"its blobs have the shapes {list(making.shape())} and {list(making.shape(1))}")
    steps, samples = making.shape()[:2]
    if size < 1 or steps > _MOST_STEPS:
        raise Refused(f"{size} numbers in {steps} steps", f"up to {_MOST_STEPS} steps are unrolled; feed fewer")
    if len(making.inputs) == 3 and making.shape(2)[0] != samples:
        raise ModelError(f"its static blob has {making.shape(2)[0]} samples, not {samples}")
    return size, steps, samples


def _inputs_of_steps(making: Making, weights: list[Array], steps: int, samples: int, length: int) -> list[ir.Value]:
    """What the input, and the static one if there is one, give to each step: [samples, rows of the weights]."""
    rows = making.reshape(making.inputs[0], [steps * samples, length])
    constants = [making.constant(array, name) for array, name in zip(weights[:2], ("weights", "bias"), strict=True)]
    found = making.node("Gemm", [rows, *constants], transB=1)
    wide = weights[0].shape[0]
    found = making.reshape(found, [steps, samples, wide])
    if len(making.inputs) == 3:
        static = making.reshape(making.inputs[2], [samples, math.prod(making.shape(2)[1:])])
        added = making.node("Gemm", [static, making.constant(weights[2], "static_weights")], transB=1)
        found = making.node("Add", [found, making.reshape(added, [1, samples, wide])])
    return [making.reshape(part, [samples, wide]) for part in _split(making, found, steps)]


def _by_step(making: Making, value: ir.Value, steps: int, samples: int) -> list[ir.Value]:
    """The continuation of each step: [samples, 1]."""
    return [making.reshape(part, [samples, 1]) for part in _split(making, value, steps)]


def _split(making: Making, value: ir.Value, steps: int) -> list[ir.Value]:
    if steps == 1:
        return [value]
    return making.nodes("Split", [value, making.constant([1] * steps, "steps")], steps, axis=0)


def _joined(making: Making, results: list[ir.Value]) -> ir.Value:
    return making.node("Concat", results, axis=0) if len(results) > 1 else results[0]
