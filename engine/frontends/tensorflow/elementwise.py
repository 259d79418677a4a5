"""Operators that act on single values, with broadcasting."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc import (
    ACTIVATIONS,
    Place,
    Tensor,
    activation,
    binary,
    broadcast,
    broadcast_to,
    cast,
    clip,
    select,
    unary,
)
from engine.frontends.nhwc.tensors import in_layout, prefers_first
from engine.frontends.tensorflow.constants import dtype_name, graph_type
from engine.frontends.tensorflow.values import Call, Refused, Value, operator

_UNARY = {
    "Abs": "Abs",
    "Acos": "Acos",
    "Acosh": "Acosh",
    "Asin": "Asin",
    "Asinh": "Asinh",
    "Atan": "Atan",
    "Atanh": "Atanh",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Cosh": "Cosh",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "IsInf": "IsInf",
    "Log": "Log",
    "Neg": "Neg",
    "Reciprocal": "Reciprocal",
    "Round": "Round",
    "Sign": "Sign",
    "Sin": "Sin",
    "Sinh": "Sinh",
    "Sqrt": "Sqrt",
    "Tan": "Tan",
    "Inv": "Reciprocal",
    "IsNan": "IsNaN",
    "LogicalNot": "Not",
    "Rint": "Round",
}
_BINARY = {
    "Add": "Add",
    "AddV2": "Add",
    "Sub": "Sub",
    "Mul": "Mul",
    "RealDiv": "Div",
    "Div": "Div",
    "TruncateDiv": "Div",
    "Maximum": "Max",
    "Minimum": "Min",
    "Pow": "Pow",
    "Equal": "Equal",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
}
_FLOAT = ir.DataType.FLOAT
_FEW = 1 << 16


def _unary(op_type: str) -> None:
    @operator(*[name for name, found in _UNARY.items() if found == op_type], becomes=op_type)
    def handle(call: Call) -> Value:
        return unary(call.tensor(0), call.place, op_type)


def _binary(op_type: str) -> None:
    @operator(*[name for name, found in _BINARY.items() if found == op_type], becomes=op_type)
    def handle(call: Call) -> Value:
        return binary(call.tensor(0), call.tensor(1), call.place, op_type)


def _activation(name: str, op_type: str) -> None:
    @operator(name, becomes=op_type)
    def handle(call: Call) -> Value:
        return activation(call.tensor(0), call.place, name)


for _name in sorted(set(_UNARY.values())):
    _unary(_name)
for _name in sorted(set(_BINARY.values())):
    _binary(_name)
for _name in sorted(set(ACTIVATIONS) - {"HardSwish", "Relu1", "Relu0To1"}):
    _activation(_name, "Clip" if _name == "Relu6" else _name)


@operator("LeakyRelu", becomes="LeakyRelu")
def _leaky_relu(call: Call) -> Value:
    return unary(call.tensor(0), call.place, "LeakyRelu", alpha=call.node.number("alpha", 0.2))


@operator("Rsqrt", becomes=("Reciprocal", "Sqrt"))
def _rsqrt(call: Call) -> Value:
    root = unary(call.tensor(0), call.place.within("root"), "Sqrt")
    return unary(root, call.place, "Reciprocal")


@operator("Square", becomes="Mul")
def _square(call: Call) -> Value:
    return binary(call.tensor(0), call.tensor(0), call.place, "Mul")


@operator("SquaredDifference", becomes=("Mul", "Sub"))
def _squared_difference(call: Call) -> Value:
    difference = binary(call.tensor(0), call.tensor(1), call.place.within("difference"), "Sub")
    return binary(difference, difference, call.place, "Mul")


@operator("Log1p", becomes=("Add", "Log"))
def _log1p(call: Call) -> Value:
    more = binary(call.tensor(0), number(call.place, 1.0, "one"), call.place.within("more"), "Add")
    return unary(more, call.place, "Log")


@operator("Expm1", becomes=("Exp", "Sub"))
def _expm1(call: Call) -> Value:
    power = unary(call.tensor(0), call.place.within("power"), "Exp")
    return binary(power, number(call.place, 1.0, "one"), call.place, "Sub")


@operator("Erfc", becomes=("Erf", "Sub"))
def _erfc(call: Call) -> Value:
    inner = unary(call.tensor(0), call.place.within("erf"), "Erf")
    return binary(number(call.place, 1.0, "one"), inner, call.place, "Sub")


@operator("NotEqual", becomes=("Equal", "Not"))
def _not_equal(call: Call) -> Value:
    equal = binary(call.tensor(0), call.tensor(1), call.place.within("equal"), "Equal")
    return unary(equal, call.place, "Not")


@operator("FloorDiv", becomes=("Div", "Floor", "Mod", "Sub"))
def _floor_divide(call: Call) -> Value:
    a, b = call.tensor(0), call.tensor(1)
    if a.dtype == _FLOAT:
        return unary(binary(a, b, call.place.within("quotient"), "Div"), call.place, "Floor")
    # ONNX divides integers towards zero; without the remainder of the divisor's sign nothing is left to round.
    rest = binary(a, b, call.place.within("rest"), "Mod", fmod=0)
    return binary(binary(a, rest, call.place.within("multiple"), "Sub"), b, call.place, "Div")


@operator("FloorMod", becomes=("Div", "Floor", "Mod", "Mul", "Sub"))
def _floor_mod(call: Call) -> Value:
    a, b = call.tensor(0), call.tensor(1)
    if a.dtype != _FLOAT:
        return binary(a, b, call.place, "Mod", fmod=0)
    quotient = unary(binary(a, b, call.place.within("quotient"), "Div"), call.place.within("floor"), "Floor")
    return binary(a, binary(quotient, b, call.place.within("multiple"), "Mul"), call.place, "Sub")


@operator("Mod", "TruncateMod", becomes="Mod")
def _mod(call: Call) -> Value:
    return binary(call.tensor(0), call.tensor(1), call.place, "Mod", fmod=1)


@operator("DivNoNan", "MulNoNan", becomes=("Div", "Equal", "Mul", "Where"))
def _no_nan(call: Call) -> Value:
    a, b = call.tensor(0), call.tensor(1)
    nothing = binary(b, number(call.place, 0.0, "zero"), call.place.within("is_zero"), "Equal")
    result = binary(a, b, call.place.within("result"), "Div" if call.node.op == "DivNoNan" else "Mul")
    return broadcast([nothing, number(call.place, 0.0, "none"), result], call.place, "Where")


@operator("Xdivy", "Xlogy", becomes=("Div", "Equal", "Log", "Mul", "Where"))
def _no_nan_left(call: Call) -> Value:
    x, y = call.tensor(0), call.tensor(1)
    nothing = binary(x, number(call.place, 0.0, "zero"), call.place.within("is_zero"), "Equal")
    if call.node.op == "Xlogy":
        y = unary(y, call.place.within("log"), "Log")
    result = binary(x, y, call.place.within("result"), "Mul" if call.node.op == "Xlogy" else "Div")
    return broadcast([nothing, number(call.place, 0.0, "none"), result], call.place, "Where")


@operator("AddN", "AccumulateNV2", becomes="Sum")
def _add_all(call: Call) -> Value:
    return broadcast(call.tensors(), call.place, "Sum")


@operator("ClipByValue", becomes=("Clip", "Max", "Min"))
def _clip_by_value(call: Call) -> Value:
    low, high = call.tensor(1).array, call.tensor(2).array
    if low is not None and high is not None and low.size == high.size == 1 and call.tensor(0).dtype == _FLOAT:
        return clip(call.tensor(0), call.place, float(low.reshape(-1)[0]), float(high.reshape(-1)[0]))
    lower = binary(call.tensor(0), call.tensor(2), call.place.within("below"), "Min")
    return binary(lower, call.tensor(1), call.place, "Max")


@operator("Select", becomes=("Reshape", "Where"))
def _select(call: Call) -> Value:
    return select(call.tensor(0), call.tensor(1), call.tensor(2), call.place)


@operator("SelectV2", becomes="Where")
def _select_broadcast(call: Call) -> Value:
    return broadcast(call.tensors(), call.place, "Where")


@operator("Cast", becomes="Cast")
def _cast(call: Call) -> Value:
    number_of_type = call.node.dtype("DstT")
    dtype = graph_type(number_of_type)
    if dtype is None:
        raise Refused(f"to {dtype_name(number_of_type)}")
    x = call.tensor(0)
    # All floats are float32 here.
    return x if x.dtype == dtype else cast(x, call.place, dtype)


@operator("ZerosLike", "OnesLike", becomes="Expand")
def _filled_like(call: Call) -> Value:
    x = call.tensor(0)
    value = np.array(0 if call.node.op == "ZerosLike" else 1, x.dtype.numpy())
    if x.size <= _FEW:
        return call.constant(np.full(x.shape, value))
    return broadcast_to(Tensor.constant(value, call.place.within("value")), call.place, x.shape)


@operator("IsFinite", becomes=("Abs", "LessOrEqual"))
def _is_finite(call: Call) -> Value:
    size = unary(call.tensor(0), call.place.within("size"), "Abs")
    return binary(size, number(call.place, float(np.finfo(np.float32).max), "largest"), call.place, "LessOrEqual")


def number(place: Place, value: float, suffix: str) -> Tensor:
    """A constant of one float."""
    return Tensor.constant(np.array(value, np.float32), place.within(suffix))


def identity(x: Tensor, place: Place) -> Tensor:
    """The same values under a name of their own."""
    first = prefers_first([x])
    return in_layout(place.node("Identity", [x.get(first)]), first, place)
