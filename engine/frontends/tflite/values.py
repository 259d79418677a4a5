"""Reads TFLite's operators that act on single values, compare, convert, reduce and choose."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.frontends import nhwc
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tflite.conversion import Op, Refusal, operator
from engine.graph.given import GivenParameters

_FLOAT = ir.DataType.FLOAT

_UNARY = {
    "ABS": "Abs",
    "CEIL": "Ceil",
    "COS": "Cos",
    "ELU": "Elu",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "HARD_SWISH": "HardSwish",
    "LOG": "Log",
    "LOGICAL_NOT": "Not",
    "LOGISTIC": "Sigmoid",
    "NEG": "Neg",
    "RELU": "Relu",
    "ROUND": "Round",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "TANH": "Tanh",
}


def _unary(op: Op) -> None:
    op.set(nhwc.unary(op.input(0), op.place(), _UNARY[op.kind]))


for _kind, _becomes in _UNARY.items():
    operator(_kind, _becomes)(_unary)

_CLIPS = {"RELU6": "Relu6", "RELU_N1_TO_1": "Relu1", "RELU_0_TO_1": "Relu0To1"}


@operator("RELU6 RELU_N1_TO_1 RELU_0_TO_1", "Clip")
def _clip(op: Op) -> None:
    op.set(nhwc.activation(op.input(0), op.place(), _CLIPS[op.kind]))


@operator("LEAKY_RELU", "LeakyRelu", "LeakyReluOptions")
def _leaky_relu(op: Op) -> None:
    op.set(nhwc.unary(op.input(0), op.place(), "LeakyRelu", alpha=op.options.alpha))


@operator("PRELU", "PRelu")
def _prelu(op: Op) -> None:
    op.set(nhwc.prelu(op.input(0), op.input(1), op.place()))


@operator("RSQRT", "Reciprocal Sqrt")
def _rsqrt(op: Op) -> None:
    root = nhwc.unary(op.input(0), op.place().within("root"), "Sqrt")
    op.set(nhwc.unary(root, op.place(), "Reciprocal"))


@operator("SQUARE", "Mul")
def _square(op: Op) -> None:
    op.set(nhwc.binary(op.input(0), op.input(0), op.place(), "Mul"))


@operator("GELU", "Add Erf Mul Tanh", "GeluOptions")
def _gelu(op: Op) -> None:
    x, place = op.input(0), op.place()

    def number(value: float, name: str) -> Tensor:
        return Tensor.constant(np.array(value, np.float32), place.within(name))

    if op.options.approximate:  # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        square = nhwc.binary(x, x, place.within("square"), "Mul")
        cube = nhwc.binary(square, x, place.within("cube"), "Mul")
        small = nhwc.binary(cube, number(0.044715, "factor"), place.within("small"), "Mul")
        total = nhwc.binary(x, small, place.within("total"), "Add")
        scaled = nhwc.binary(total, number(math.sqrt(2 / math.pi), "width"), place.within("scaled"), "Mul")
        gate = nhwc.unary(scaled, place.within("gate"), "Tanh")
    else:  # 0.5 x (1 + erf(x / sqrt(2)))
        scaled = nhwc.binary(x, number(math.sqrt(0.5), "width"), place.within("scaled"), "Mul")
        gate = nhwc.unary(scaled, place.within("gate"), "Erf")
    raised = nhwc.binary(gate, number(1.0, "one"), place.within("raised"), "Add")
    product = nhwc.binary(x, raised, place.within("product"), "Mul")
    op.set(nhwc.binary(product, number(0.5, "half"), place, "Mul"))


_ARITHMETIC = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}


def _arithmetic(op: Op) -> None:
    a, b = op.input(0), op.input(1)
    op.make(lambda place: nhwc.binary(a, b, place, _ARITHMETIC[op.kind]), op.options.activation)


for _kind, _becomes in _ARITHMETIC.items():
    operator(_kind, _becomes, f"{_kind.title()}Options")(_arithmetic)

_BINARY = {
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "POW": "Pow",
}


def _binary(op: Op) -> None:
    op.set(nhwc.binary(op.input(0), op.input(1), op.place(), _BINARY[op.kind]))


for _kind, _becomes in _BINARY.items():
    operator(_kind, _becomes)(_binary)


@operator("NOT_EQUAL", "Equal Not")
def _not_equal(op: Op) -> None:
    same = nhwc.binary(op.input(0), op.input(1), op.place().within("equal"), "Equal")
    op.set(nhwc.unary(same, op.place(), "Not"))


@operator("SQUARED_DIFFERENCE", "Mul Sub")
def _squared_difference(op: Op) -> None:
    difference = nhwc.binary(op.input(0), op.input(1), op.place().within("difference"), "Sub")
    op.set(nhwc.binary(difference, difference, op.place(), "Mul"))


@operator("FLOOR_DIV", "Div Floor Mod Sub")
def _floor_div(op: Op) -> None:
    a, b, place = op.input(0), op.input(1), op.place()
    if a.dtype == _FLOAT:
        op.set(nhwc.unary(nhwc.binary(a, b, place.within("quotient"), "Div"), place, "Floor"))
        return
    # What is left over has the divisor's sign, and without it the division is exact.
    rest = nhwc.binary(a, b, place.within("rest"), "Mod")
    whole = nhwc.binary(a, rest, place.within("whole"), "Sub")
    op.set(nhwc.binary(whole, b, place, "Div"))


@operator("FLOOR_MOD", "Div Floor Mod Mul Sub")
def _floor_mod(op: Op) -> None:
    a, b, place = op.input(0), op.input(1), op.place()
    if a.dtype != _FLOAT:
        op.set(nhwc.binary(a, b, place, "Mod"))
        return
    quotient = nhwc.unary(nhwc.binary(a, b, place.within("quotient"), "Div"), place.within("floor"), "Floor")
    op.set(nhwc.binary(a, nhwc.binary(quotient, b, place.within("whole"), "Mul"), place, "Sub"))


@operator("ADD_N", "Sum")
def _add_n(op: Op) -> None:
    op.set(nhwc.broadcast(op.inputs(), op.place(), "Sum"))


@operator("ATAN2", "Abs Add Atan Div Equal Less Mul Where")
def _atan2(op: Op) -> None:
    y, x, place = op.input(0), op.input(1), op.place()

    def number(value: float, name: str) -> Tensor:
        return Tensor.constant(np.array(value, np.float32), place.within(name))

    zero = number(0.0, "zero")
    slope = nhwc.binary(y, x, place.within("slope"), "Div")
    angle = nhwc.unary(slope, place.within("angle"), "Atan")
    left = nhwc.binary(x, zero, place.within("left"), "Less")
    below = nhwc.binary(y, zero, place.within("below"), "Less")
    turn = nhwc.select(below, number(-math.pi, "minus"), number(math.pi, "plus"), place.within("turn"))
    moved = nhwc.binary(angle, turn, place.within("moved"), "Add")
    turned = nhwc.select(left, moved, angle, place.within("turned"))
    # Where both are zero the quotient is none; the angle is zero there.
    size = nhwc.binary(
        nhwc.unary(x, place.within("width"), "Abs"),
        nhwc.unary(y, place.within("height"), "Abs"),
        place.within("size"),
        "Add",
    )
    op.set(nhwc.select(nhwc.binary(size, zero, place.within("none"), "Equal"), zero, turned, place))


@operator("SELECT SELECT_V2", "Where")
def _select(op: Op) -> None:
    condition, a, b = op.input(0), op.input(1), op.input(2)
    if op.kind == "SELECT_V2":
        op.set(nhwc.broadcast([condition, a, b], op.place(), "Where"))
    else:
        op.set(nhwc.select(condition, a, b, op.place()))


@operator("CAST", "Cast Div Add")
def _cast(op: Op) -> None:
    x, target = op.input(0), op.output_type()
    grid = x.grid
    if grid is not None and x.dtype == _FLOAT and grid.axis is None and op.tensor_info(0).quantized:
        # A cast sees the stored integers, not what they stand for.
        place = op.place()
        scale = Tensor.constant(np.array(grid.scale[0], np.float32), place.within("scale"))
        zero = Tensor.constant(np.array(grid.zero_point[0], np.float32), place.within("zero_point"))
        steps = nhwc.binary(x, scale, place.within("steps"), "Div")
        end = place if target == _FLOAT else place.within("stored")
        x = nhwc.binary(steps, zero, end, "Add")
        if target == _FLOAT:
            op.set(x)
            return
    op.set(nhwc.cast(x, op.place(), target))


@operator("QUANTIZE", "Identity")
def _quantize(op: Op) -> None:
    x, info = op.input(0), op.output_info()
    if not info.quantized or x.dtype != _FLOAT:
        raise Refusal(f"makes {info.dtype}")
    if x.grid is not None and info.grid is not None and _signed(x.grid) == _signed(info.grid):
        op.set(x)  # the same real values, as of uint8 that becomes int8
    else:
        op.set(nhwc.unary(x, op.place(), "Identity"))


def _signed(grid: nhwc.Grid) -> GivenParameters:
    return GivenParameters.of(grid.dtype, grid.scale, grid.zero_point, grid.axis)


@operator("DENSIFY", "Constant")
def _densify(op: Op) -> None:
    x = op.input(0)  # sparse constants are read as whole ones
    if not x.is_constant:
        raise Refusal("its input is not a constant")
    op.set(x)


@operator("DEQUANTIZE", "Identity")
def _dequantize(op: Op) -> None:
    x = op.input(0)
    if x.is_constant and x.array is not None:
        array = x.array if x.dtype == _FLOAT else x.array.astype(np.float32)
        op.set(Tensor.constant(array, op.place(), x.grid))
    elif x.dtype == _FLOAT:
        # The grid stays with the tensor; what it is read as is the same.
        op.set(x)
    else:
        op.set(nhwc.cast(x, op.place(), _FLOAT))


@operator("FAKE_QUANT", "Identity", "FakeQuantOptions")
def _fake_quant(op: Op) -> None:
    o = op.options
    steps = (1 << o.num_bits) - 1 - bool(o.narrow_range) if 2 <= o.num_bits <= 16 else 0
    if not steps or not math.isfinite(o.max - o.min) or o.max <= o.min:
        raise Refusal(f"rounds {o.min} to {o.max} to {o.num_bits} bits")
    if o.num_bits not in (8, 16) or o.narrow_range:
        raise Refusal(f"rounds to {o.num_bits} bits{', one level less' if o.narrow_range else ''}")
    scale = (o.max - o.min) / steps
    zero = int(min(max(round(-o.min / scale), 0), steps))
    tensor = nhwc.unary(op.input(0), op.place(), "Identity")
    op.set(tensor.quantized(nhwc.Grid("uint8" if o.num_bits == 8 else "uint16", (scale,), (zero,))))


_REDUCTIONS = {
    "MEAN": "mean",
    "SUM": "sum",
    "REDUCE_MAX": "max",
    "REDUCE_MIN": "min",
    "REDUCE_PROD": "prod",
    "REDUCE_ANY": "any",
    "REDUCE_ALL": "all",
}


@operator("MEAN", "ReduceMean Reshape", "ReducerOptions")
@operator("SUM", "ReduceSum Reshape", "ReducerOptions")
@operator("REDUCE_MAX", "ReduceMax Reshape", "ReducerOptions")
@operator("REDUCE_MIN", "ReduceMin Reshape", "ReducerOptions")
@operator("REDUCE_PROD", "ReduceProd Reshape", "ReducerOptions")
@operator("REDUCE_ANY", "Cast ReduceMax Reshape", "ReducerOptions")
@operator("REDUCE_ALL", "Cast ReduceMin Reshape", "ReducerOptions")
def _reduce(op: Op) -> None:
    kind, keep = _REDUCTIONS[op.kind], op.options.keep_dims
    op.set(nhwc.reduce(op.input(0), op.place(), kind, axes=op.numbers(1), keep_axes=keep))


@operator("ARG_MAX", "ArgMax Cast")
@operator("ARG_MIN", "ArgMin Cast")
def _argument(op: Op) -> None:
    kind = "max" if op.kind == "ARG_MAX" else "min"
    op.set(nhwc.argument(op.input(0), op.place(), kind, axis=op.number(1), dtype=op.output_type()))


@operator("SOFTMAX", "Mul Softmax", "SoftmaxOptions")
def _softmax(op: Op) -> None:
    op.set(nhwc.softmax(op.input(0), op.place(), beta=op.options.beta))


@operator("LOG_SOFTMAX", "LogSoftmax")
def _log_softmax(op: Op) -> None:
    op.set(nhwc.softmax(op.input(0), op.place(), logarithm=True))


@operator("CUMSUM", "CumSum", "CumsumOptions")
def _cumulative_sum(op: Op) -> None:
    o = op.options
    op.set(nhwc.cumulative_sum(op.input(0), op.place(), axis=op.number(1), exclusive=o.exclusive, reverse=o.reverse))


@operator("TOPK_V2", "Cast TopK")
def _top_k(op: Op) -> None:
    x, count = op.input(0), op.number(1)
    values = op.place()
    indices = op.place(1)
    wide = f"{indices.name}_wide"
    found = op.maker.nodes(
        "TopK",
        [x.plain(), values.constant(np.array([count], np.int64), "count")],
        [values.name, wide],
        source=values.source,
        axis=-1,
    )
    op.set(Tensor.of(found[0], values))
    op.set(nhwc.cast(Tensor.of(found[1], Place(op.maker, wide)), indices, op.output_type(1)), 1)
