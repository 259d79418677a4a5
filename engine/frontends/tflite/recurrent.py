"""Reads TFLite's recurrent operators; what they remember from run to run starts at zero."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tflite.conversion import Op, Refusal, operator
from engine.frontends.tflite.recurrent_steps import LstmWeights, lstm_steps
from engine.frontends.tflite.schema import ACTIVATIONS
from engine.graph.query import Array

log = logging.getLogger("engine")

_GATES = "ifco"
_MOST_STEPS = 128
_STEPS = "Add Clip Concat Gather Gemm LayerNormalization Mul Sigmoid Sub Tanh"
_SATURATED = 8.0


def _weight(op: Op, index: int) -> Array | None:
    if not op.has(index):
        return None
    return op.array(index).astype(np.float32)


def _lstm_weights(op: Op, first: int, *, peephole: int, bias: int, projection: int, norm: int | None) -> LstmWeights:
    """The weights of one direction: four of the input from place `first` on, four recurrent ones behind them."""
    x = op.input(0)
    inputs = [_weight(op, first + k) for k in range(4)]
    recurrent = [_weight(op, first + 4 + k) for k in range(4)]
    peepholes = [_weight(op, peephole + k) for k in range(3)]
    norms = [_weight(op, norm + k) if norm is not None else None for k in range(4)]
    biases: list[Array | None] = []
    for k in range(4):
        found = None
        if op.has(bias + k):
            found = _real_bias(op, bias + k, x, first + k, norm + k if norm is not None else None)
        biases.append(found)
    if any(m is None for m in (*inputs[1:], *recurrent[1:])) or (inputs[0] is None) != (recurrent[0] is None):
        raise op.error("lacks weights")
    outputs = _weight(op, projection)
    output_bias = None
    if op.has(projection + 1):
        output_bias = _real_bias(op, projection + 1, None, projection, None)
    cells = inputs[1].shape[0]  # type: ignore[union-attr]
    width = cells if outputs is None else outputs.shape[0]
    for group, shape in ((inputs, (cells, x.shape[-1])), (recurrent, (cells, width))):
        if any(m is not None and m.shape != shape for m in group):
            raise op.error(f"has weights of other shapes than {list(shape)}")
    if any(m is not None and m.shape != (cells,) for m in (*peepholes, *biases, *norms)):
        raise op.error(f"has biases or diagonals of other shapes than [{cells}]")
    if outputs is not None and outputs.shape[1] != cells:
        raise op.error(f"projects {cells} cells by {list(outputs.shape)}")
    options = op.options
    return LstmWeights(
        inputs, recurrent, peepholes, biases, norms, outputs, output_bias, options.cell_clip, options.proj_clip
    )


def _real_bias(op: Op, index: int, x: Tensor | None, weights: int, norm: int | None) -> Array:
    """A bias of floats, or of integers in steps that the file tells, or that follow from input and weights."""
    bias = op.input(index)
    stored = op.array(index)
    if bias.dtype == ir.DataType.FLOAT:
        return stored
    grid = op.tensor_info(index).grid
    if grid is not None:
        real: Array = (stored.astype(np.float64) * np.array(grid.scale)).astype(np.float32)
        return real
    own = op.input(norm if norm is not None and op.has(norm) else weights).grid
    if own is None:
        raise Refusal("its biases are integers without a scale")
    scale = own.scale[0] * (2.0**-10 if norm is not None and op.has(norm) else x.grid.scale[0] if x and x.grid else 0)
    if not scale:
        raise Refusal("its biases are integers without a scale")
    steps: Array = stored.astype(np.float64) * scale
    return steps.astype(np.float32)


def _state(op: Op, index: int) -> Tensor | None:
    """The state that it starts with: None where that is zero."""
    if not op.has(index) or op.tensor_info(index).variable:
        return None
    state = op.input(index)
    array = state.array
    return None if array is not None and not array.any() else state


def _time_first(op: Op, x: Tensor, time_major: bool, suffix: str = "") -> ir.Value:
    """The sequence as [time, batch, size]."""
    value = x.plain()
    if x.rank != 3:
        raise op.error(f"reads a sequence of the shape {list(x.shape)}")
    if time_major:
        return value
    if x.shape[0] == 1 or x.shape[1] == 1:
        sizes = op.place().constant(np.array([x.shape[1], x.shape[0], x.shape[2]], np.int64), f"time_shape{suffix}")
        return op.place().inner("Reshape", [value, sizes], f"time{suffix}")
    return op.place().inner("Transpose", [value], f"time{suffix}", perm=[1, 0, 2])


def _sequence(place: Place, y: ir.Value, time_major: bool) -> Tensor:
    """The output [time, directions, batch, size] in the order of the source, directions side by side."""
    time, directions, batch, size = place.maker.shape(y)
    if directions == 1 and (time_major or time == 1 or batch == 1):
        shape = [time, batch, size] if time_major else [batch, time, size]
        return Tensor.of(place.node("Reshape", [y, place.constant(np.array(shape, np.int64), "shape")]), place)
    turned = place.inner("Transpose", [y], "turned", perm=[0, 2, 1, 3] if time_major else [2, 0, 1, 3])
    shape = [time, batch, directions * size] if time_major else [batch, time, directions * size]
    return Tensor.of(place.node("Reshape", [turned, place.constant(np.array(shape, np.int64), "shape")]), place)


def _onnx_lstm(
    op: Op, place: Place, x: ir.Value, directions: Sequence[LstmWeights], hidden: Tensor | None, cell: Tensor | None
) -> ir.Value:
    """One LSTM operator, of one or two directions; returns [time, directions, batch, size]."""
    time, batch, _ = op.maker.shape(x)
    for weights in directions:
        if weights.cell_clip and time > weights.cell_clip:  # a step moves a cell by less than one
            text = "%s: %s: cells are not clipped at %g, which they could reach in %d steps"
            log.warning(text, op.maker.where, op.source, weights.cell_clip, time)
    stacked = [weights.onnx() for weights in directions]
    w = place.constant(np.stack([s[0] for s in stacked]), "weights")
    r = place.constant(np.stack([s[1] for s in stacked]), "recurrent")
    b = place.constant(np.stack([s[2] for s in stacked]), "bias")
    peepholes = None
    diagonals = [found for _, _, _, found in stacked]
    if any(found is not None for found in diagonals):
        none = np.zeros(3 * stacked[0][1].shape[1], np.float32)
        rows: list[Array] = [none if found is None else found for found in diagonals]
        peepholes = place.constant(np.stack(rows), "peepholes")
    states: list[ir.Value | None] = []
    for state, suffix in ((hidden, "hidden"), (cell, "cell")):
        if state is None:
            states.append(None)
        else:
            sizes = place.constant(np.array([1, batch, state.shape[-1]], np.int64), f"{suffix}_shape")
            states.append(place.inner("Reshape", [state.plain(), sizes], suffix))
    if peepholes is not None and states[0] is None:
        states = [None, None]
    return place.inner(
        "LSTM",
        [x, w, r, b, None, *states, peepholes],
        "sequence",
        hidden_size=stacked[0][1].shape[1],
        direction="bidirectional" if len(directions) == 2 else None,
        input_forget=1 if directions[0].coupled else None,
    )


@operator(
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "LSTM Reshape Transpose " + _STEPS,
    "UnidirectionalSequenceLSTMOptions",
)
def _sequence_lstm(op: Op) -> None:
    if op.options.activation not in (0, 4):
        raise Refusal(f"its activation has the number {op.options.activation}")
    weights = _lstm_weights(op, 1, peephole=9, bias=12, projection=16, norm=20)
    x = _time_first(op, op.input(0), op.options.time_major)
    hidden, cell = _state(op, 18), _state(op, 19)
    place = op.place()
    # ONNX's operator clips what goes into the gates, not the cells. Where a cell of that size is as good as saturated,
    # an unclipped one makes next to no difference.
    clips = 0 < weights.cell_clip < min(_SATURATED, op.maker.shape(x)[0])
    if weights.simple and not clips:
        y = _onnx_lstm(op, place, x, [weights], hidden, cell)
    else:
        time = op.maker.shape(x)[0]
        if time > _MOST_STEPS:
            raise Refusal(
                f"is projected, normalized or clipped over {time} steps", f"up to {_MOST_STEPS} can be written out"
            )
        y = lstm_steps(place, x, weights, hidden, cell).sequence
    op.set(_sequence(place, y, op.options.time_major))


@operator("LSTM", "Reshape " + _STEPS, "LSTMOptions")
def _lstm(op: Op) -> None:
    """One step; its last output is the state of the outputs, those before it are within."""
    if op.options.kernel_type == 1:
        _basic_lstm(op)
        return
    if op.options.activation not in (0, 4):
        raise Refusal(f"its activation has the number {op.options.activation}")
    weights = _lstm_weights(op, 1, peephole=9, bias=12, projection=16, norm=20)
    x, place = op.input(0), op.place()
    sizes = place.constant(np.array([1, *x.shape], np.int64), "time_shape")
    sequence = place.inner("Reshape", [x.plain(), sizes], "time")
    made = lstm_steps(place, sequence, weights, _state(op, 18), _state(op, 19))
    shape = place.constant(np.array([x.shape[0], op.maker.shape(made.hidden)[-1]], np.int64), "shape")
    op.set(Tensor.of(place.node("Reshape", [made.hidden, shape]), place))


def _basic_lstm(op: Op) -> None:
    """The step of early models: inputs x, h, one matrix for all of [i, c, f, o] over [x, h], bias, c."""
    x, hidden, matrix, bias, cell = op.input(0), op.input(1), op.array(2), op.array(3), op.input(4)
    width = x.shape[-1]
    if matrix.ndim != 2 or matrix.shape[0] % 4 or not 0 < width < matrix.shape[1] or op.tensor_info(2).quantized:
        raise Refusal("its matrix does not fit, or is of integers")
    rows = np.split(matrix.astype(np.float32), 4)
    biases = np.split(bias.reshape(-1).astype(np.float32), 4)
    order = (0, 2, 1, 3)  # the gates as i, f, c, o
    none: list[Array | None] = [None] * 4
    weights = LstmWeights(
        [rows[k][:, :width] for k in order],
        [rows[k][:, width:] for k in order],
        none[:3],
        [biases[k] for k in order],
        none,
        None,
        None,
        op.options.cell_clip,
        0.0,
    )
    place = op.place()
    sizes = place.constant(np.array([1, *x.shape], np.int64), "time_shape")
    made = lstm_steps(place, place.inner("Reshape", [x.plain(), sizes], "time"), weights, hidden, cell)
    op.set(Tensor.of(place.node("Identity", [made.hidden]), place))
    if len(op.info.outputs) > 1:
        op.set(Tensor.of(op.place(1).node("Identity", [made.cell]), op.place(1)), 1)


@operator("BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM Reshape Transpose Split", "BidirectionalSequenceLSTMOptions")
def _bidirectional_lstm(op: Op) -> None:
    if op.options.activation not in (0, 4) or any(op.has(index) for index in range(39, op.count)):
        raise Refusal("has another activation, or an auxiliary input")
    directions = [
        _lstm_weights(op, first, peephole=first + 8, bias=first + 11, projection=first + 15, norm=None)
        for first in (1, 18)
    ]
    if any(not w.simple for w in directions) or directions[0].coupled != directions[1].coupled:
        raise Refusal("is projected, or couples the gates of one direction only")
    states = [_state(op, index) for index in range(35, 39)]
    if any(state is not None for state in states):
        raise Refusal("starts with a state")
    x = _time_first(op, op.input(0), op.options.time_major)
    y = _onnx_lstm(op, op.place(), x, directions, None, None)
    if op.options.merge_outputs:
        op.set(_sequence(op.place(), y, op.options.time_major))
        return
    parts = op.place().maker.nodes(
        "Split", [y], [f"{op.source}_forward", f"{op.source}_backward"], source=op.source, axis=1, num_outputs=2
    )
    for index, part in enumerate(parts):
        op.set(_sequence(op.place(index), part, op.options.time_major), index)


@operator("UNIDIRECTIONAL_SEQUENCE_RNN", "RNN Reshape Transpose", "SequenceRNNOptions")
def _sequence_rnn(op: Op) -> None:
    x = _time_first(op, op.input(0), op.options.time_major)
    op.set(_sequence(op.place(), _rnn(op, x), op.options.time_major))


@operator("RNN", "RNN Reshape", "RNNOptions")
def _rnn_step(op: Op) -> None:
    x, place = op.input(0), op.place()
    sizes = place.constant(np.array([1, *x.shape], np.int64), "time_shape")
    y = _rnn(op, place.inner("Reshape", [x.plain(), sizes], "time"))
    shape = place.constant(np.array([x.shape[0], op.maker.shape(y)[-1]], np.int64), "shape")
    op.set(Tensor.of(place.node("Reshape", [y, shape]), place))


def _rnn(op: Op, x: ir.Value) -> ir.Value:
    place, matrix, recurrent, bias = op.place(), _weight(op, 1), _weight(op, 2), _weight(op, 3)
    if matrix is None or recurrent is None or matrix.ndim != 2 or recurrent.shape != (matrix.shape[0],) * 2:
        raise op.error("has weights that do not fit")
    units = matrix.shape[0]
    bias = np.zeros(units, np.float32) if bias is None else bias
    kind = {0: "Affine", 1: "Relu", 4: "Tanh"}.get(op.options.activation)
    if kind is None:
        raise Refusal(f"its activation is {ACTIVATIONS.get(op.options.activation, op.options.activation)}")
    state = _state(op, 4)
    first = None
    if state is not None:
        sizes = place.constant(np.array([1, *state.shape], np.int64), "hidden_shape")
        first = place.inner("Reshape", [state.plain(), sizes], "hidden")
    inputs = [
        x,
        place.constant(matrix[None], "weights"),
        place.constant(recurrent[None], "recurrent"),
        place.constant(np.concatenate([bias, np.zeros(units, np.float32)])[None], "bias"),
        None,
        first,
    ]
    line = {"activation_alpha": [1.0], "activation_beta": [0.0]} if kind == "Affine" else {}
    return place.inner("RNN", inputs, "sequence", hidden_size=units, activations=[kind], **line)


@operator("SVDF", "Gemm Relu", "SVDFOptions")
def _svdf(op: Op) -> None:
    """A filter over time of which a single run sees the newest step: what came before is zero."""
    x, place, rank = op.input(0), op.place(), op.options.rank
    features, times, bias = _weight(op, 1), _weight(op, 2), None
    if features is None or times is None or rank < 1 or features.shape[0] % rank or x.shape[-1] != features.shape[1]:
        raise op.error("has weights that do not fit")
    if times.ndim != 2 or times.shape[0] != features.shape[0]:
        raise op.error("has weights that do not fit")
    state = _state(op, 4)
    if state is not None:
        raise Refusal("starts with a state")
    matrix = (features * times[:, -1:]).reshape(-1, rank, features.shape[1]).sum(axis=1)
    if op.has(3):
        bias = _real_bias(op, 3, None, 2, None)
    inputs = [
        x.plain(),
        place.constant(matrix, "weights"),
        *([place.constant(bias, "bias")] if bias is not None else []),
    ]
    op.make(lambda place: Tensor.of(place.node("Gemm", inputs, transB=1), place), op.options.activation)
