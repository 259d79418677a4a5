"""Recurrent layers: LSTM, GRU and plain ones, over whole sequences and single steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.table import Arguments, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Refused, Tensor
from engine.graph.query import Array

# How ONNX orders the gates, in torch's numbers: LSTM i, f, g, o becomes i, o, f, c; GRU r, z, n becomes z, r, h.
_GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def _rows(array: Array, op_type: str) -> Array:
    """The gates in ONNX's order."""
    order = _GATES[op_type]
    return np.concatenate([np.split(array, len(order))[gate] for gate in order])


def _recurrent(t: Translation, a: Arguments, op_type: str, states: list[Tensor], **attributes: Any) -> list[Tensor]:
    """The outputs and the last states; layer after layer."""
    if "data" in a or "batch_sizes" in a:
        raise Refused("works on packed sequences", "give it padded ones")
    if a.flag("train") and a.number("dropout") > 0:
        raise Refused("drops elements at random, as in training", "call eval() before exporting")
    x, parameters = t.as_float(a.tensor("input")), a.tensors("params")
    directions = 2 if a.flag("bidirectional") else 1
    per_cell = 4 if a.flag("has_biases") else 2
    layers = a.integer("num_layers", 1)
    if len(parameters) != layers * directions * per_cell:
        raise Refused("projects its states")
    unbatched = x.rank == 2
    if unbatched:
        x = t.reshape(x, (x.shape[0], 1, x.shape[1]))
        states = [t.reshape(state, (state.shape[0], 1, state.shape[1])) for state in states]
    elif a.flag("batch_first"):
        x = t.transpose(x, [1, 0, 2])
    hidden = states[0].shape[2]
    last: list[list[Tensor]] = [[] for _ in states]
    for layer in range(layers):
        cells = [
            parameters[(layer * directions + d) * per_cell : (layer * directions + d + 1) * per_cell]
            for d in range(directions)
        ]
        starts = [t.slice(state, 0, layer * directions, (layer + 1) * directions) for state in states]
        made = _layer(t, op_type, x, cells, starts, hidden, attributes)
        # [length, directions, batch, hidden] becomes [length, batch, directions * hidden].
        length, _, batch, _ = made[0].shape
        x = t.reshape(t.transpose(made[0], [0, 2, 1, 3]), (length, batch, directions * hidden))
        for group, state in zip(last, made[1:], strict=True):
            group.append(state)
    ends = [group[0] if layers == 1 else t.emit("Concat", *group, axis=0) for group in last]
    if unbatched:
        return [t.reshape(x, (x.shape[0], x.shape[2])), *(t.reshape(s, (s.shape[0], s.shape[2])) for s in ends)]
    return [t.transpose(x, [1, 0, 2]) if a.flag("batch_first") else x, *ends]


def _layer(
    t: Translation,
    op_type: str,
    x: Tensor,
    cells: list[list[Tensor]],
    states: list[Tensor],
    hidden: int,
    attributes: dict[str, Any],
) -> list[Tensor]:
    def stacked(index: int) -> Array:
        return np.stack([_rows(t.array(cell[index]), op_type) for cell in cells])

    label = cells[0][0].label
    weights, recurrence = (t.constant(stacked(index)) for index in (0, 1))
    weights.label, recurrence.label = label, cells[0][1].label
    bias = None
    if len(cells[0]) == 4:
        bias = t.constant(np.concatenate([stacked(2), stacked(3)], axis=1))
        bias.label = cells[0][2].label
    direction = "bidirectional" if len(cells) == 2 else "forward"
    activations = attributes.get("activations")
    return t.emit_several(
        op_type,
        1 + len(states),
        x,
        weights,
        recurrence,
        bias,
        None,
        *states,
        hidden_size=hidden,
        direction=direction,
        linear_before_reset=1 if op_type == "GRU" else None,
        activations=None if activations is None else activations * len(cells),
    )


_BECOMES = "Concat Reshape Slice Transpose"


@operator("lstm", becomes=f"LSTM {_BECOMES}")
def _lstm(t: Translation, a: Arguments) -> list[Tensor]:
    states = a.tensors("hx")
    if len(states) != 2:
        raise Refused("starts from other than two states")
    return _recurrent(t, a, "LSTM", states)


@operator("gru", becomes=f"GRU {_BECOMES}")
def _gru(t: Translation, a: Arguments) -> list[Tensor]:
    return _recurrent(t, a, "GRU", [a.tensor("hx")])


@operator("rnn_tanh", becomes=f"RNN {_BECOMES}")
def _rnn_tanh(t: Translation, a: Arguments) -> list[Tensor]:
    return _recurrent(t, a, "RNN", [a.tensor("hx")], activations=["Tanh"])


@operator("rnn_relu", becomes=f"RNN {_BECOMES}")
def _rnn_relu(t: Translation, a: Arguments) -> list[Tensor]:
    return _recurrent(t, a, "RNN", [a.tensor("hx")], activations=["Relu"])


def _projections(t: Translation, a: Arguments, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What the input and the state add to every gate."""
    found = []
    for one, weight, bias in ((x, "w_ih", "b_ih"), (hidden, "w_hh", "b_hh")):
        inputs = [one, a.tensor(weight)] if a.optional(bias) is None else [one, a.tensor(weight), a.tensor(bias)]
        found.append(t.emit("Gemm", *inputs, transB=1))
    return found[0], found[1]


def _gates(t: Translation, x: Tensor, count: int) -> list[Tensor]:
    return t.emit_several("Split", count, x, [x.shape[1] // count] * count, axis=1)


@operator("lstm_cell", becomes="Add Gemm Mul Sigmoid Split Tanh")
def _lstm_cell(t: Translation, a: Arguments) -> tuple[Tensor, Tensor]:
    hidden, cell = a.tensors("hx")
    i, f, g, o = _gates(t, t.emit("Add", *_projections(t, a, a.tensor("input"), hidden)), 4)
    kept = t.emit("Mul", t.emit("Sigmoid", f), cell)
    cell = t.emit("Add", kept, t.emit("Mul", t.emit("Sigmoid", i), t.emit("Tanh", g)))
    return t.emit("Mul", t.emit("Sigmoid", o), t.emit("Tanh", cell)), cell


@operator("gru_cell", becomes="Add Gemm Mul Sigmoid Split Sub Tanh")
def _gru_cell(t: Translation, a: Arguments) -> Tensor:
    hidden = a.tensor("hx")
    x, h = (_gates(t, part, 3) for part in _projections(t, a, a.tensor("input"), hidden))
    reset, update = (t.emit("Sigmoid", t.emit("Add", x[i], h[i])) for i in (0, 1))
    new = t.emit("Tanh", t.emit("Add", x[2], t.emit("Mul", reset, h[2])))
    return t.emit("Add", new, t.emit("Mul", update, t.emit("Sub", hidden, new)))


@operator("rnn_tanh_cell", becomes="Add Gemm Tanh")
def _rnn_tanh_cell(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Tanh", t.emit("Add", *_projections(t, a, a.tensor("input"), a.tensor("hx"))))


@operator("rnn_relu_cell", becomes="Add Gemm Relu")
def _rnn_relu_cell(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Relu", t.emit("Add", *_projections(t, a, a.tensor("input"), a.tensor("hx"))))


def _unpacked(t: Translation, a: Arguments) -> Arguments:
    """The arguments with plain weights in place of packed ones of eight bits, which activations meet as real values."""
    parameters = []
    for index, cell in enumerate(a["params"]):
        if not isinstance(cell, eager.torch().ScriptObject):
            raise Refused("its weights are not packed")
        state = cell.__getstate__()
        _, biases, _, _, packed = state[0] if isinstance(state[0], tuple) else state
        if len(packed) != 2 or len(biases) not in (0, 2):
            raise Refused("has weights of a kind that is not known")
        weights = [eager.call("quantized::linear_unpack", "", [one])[0].dequantize() for one in packed]
        for tensor in (*weights, *biases):
            parameters.append(Tensor(tensor.detach(), label=f"{t.base}.weights_{index}"))
    return Arguments({**a, "params": parameters, "has_biases": len(parameters) == 4 * len(a["params"])})


@operator("quantized_lstm", becomes=f"LSTM {_BECOMES}")
def _quantized_lstm(t: Translation, a: Arguments) -> list[Tensor]:
    return _lstm(t, _unpacked(t, a))


@operator("quantized_gru", becomes=f"GRU {_BECOMES}")
def _quantized_gru(t: Translation, a: Arguments) -> list[Tensor]:
    return _gru(t, _unpacked(t, a))
