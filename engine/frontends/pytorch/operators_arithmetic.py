"""Elementwise arithmetic, comparisons, and choices between two tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.frontends.pytorch.operators_activation import clip, like
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import SCALAR_TYPES, Refused, Tensor

_BOOL = ir.DataType.BOOL


def _unary(kinds: str, op_type: str, *, whole: bool = False) -> None:
    """Operators of one tensor that ONNX has too; those that are not `whole` make real numbers of whole ones."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self")
        return t.emit(op_type, x if whole else t.as_float(x))

    operator(*kinds.split(), becomes=op_type)(handler)


for _kinds, _op in {
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "erf special_erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin arcsin": "Asin",
    "acos arccos": "Acos",
    "atan arctan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh arcsinh": "Asinh",
    "acosh arccosh": "Acosh",
    "atanh arctanh": "Atanh",
    "reciprocal": "Reciprocal",
    "floor": "Floor",
    "ceil": "Ceil",
    "isnan": "IsNaN",
    "isinf": "IsInf",
}.items():
    _unary(_kinds, _op)
for _kinds, _op in {"abs absolute": "Abs", "neg negative": "Neg", "sign sgn": "Sign"}.items():
    _unary(_kinds, _op, whole=True)


@operator("rsqrt", becomes="Reciprocal Sqrt")
def _rsqrt(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Reciprocal", t.emit("Sqrt", t.as_float(a.tensor("self"))))


@operator("square", becomes="Mul")
def _square(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Mul", a.tensor("self"), a.tensor("self"))


@operator("round", becomes="Div Mul Round")
def _round(t: Translation, a: Arguments) -> Tensor:
    x, decimals = t.as_float(a.tensor("self")), a.integer("decimals")
    if not decimals:
        return t.emit("Round", x)
    factor = t.scalar(10.0**decimals)
    return t.emit("Div", t.emit("Round", t.emit("Mul", x, factor)), factor)


@operator("trunc", "fix", becomes="Abs Floor Mul Sign")
def _trunc(t: Translation, a: Arguments) -> Tensor:
    return _towards_zero(t, a.tensor("self"))


def _towards_zero(t: Translation, x: Tensor) -> Tensor:
    return t.emit("Mul", t.emit("Floor", t.emit("Abs", x)), t.emit("Sign", x))


@operator("frac", becomes="Abs Floor Mul Sign Sub")
def _frac(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Sub", a.tensor("self"), _towards_zero(t, a.tensor("self")))


def _logarithm(base: float) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        return t.emit("Mul", t.emit("Log", t.as_float(a.tensor("self"))), t.scalar(1 / math.log(base)))

    return handler


operator("log2", becomes="Log Mul")(_logarithm(2))
operator("log10", becomes="Log Mul")(_logarithm(10))


@operator("log1p", "special_log1p", becomes="Add Log")
def _log1p(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Log", t.emit("Add", t.as_float(a.tensor("self")), t.scalar(1)))


@operator("expm1", "special_expm1", becomes="Exp Sub")
def _expm1(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Sub", t.emit("Exp", t.as_float(a.tensor("self"))), t.scalar(1))


@operator("exp2", "special_exp2", becomes="Pow")
def _exp2(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Pow", t.scalar(2), t.as_float(a.tensor("self")))


@operator("erfc", "special_erfc", becomes="Erf Sub")
def _erfc(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Sub", t.scalar(1), t.emit("Erf", t.as_float(a.tensor("self"))))


def binary(t: Translation, op_type: str, one: Any, other: Any) -> Tensor:
    """The operator on two tensors or numbers, in the type that torch computes in."""
    return t.emit(op_type, *t.promoted(one, other))


def _alpha(t: Translation, a: Arguments, other: Any) -> Any:
    alpha = a.get("alpha", 1)
    if alpha in (None, 1):
        return other
    return other * alpha if isinstance(other, (int, float)) else binary(t, "Mul", other, alpha)


@operator("add", becomes="Add Mul Or")
def _add(t: Translation, a: Arguments) -> Tensor:
    one, other = t.promoted(a["self"], _alpha(t, a, a["other"]))
    return t.emit("Or" if one.dtype == _BOOL else "Add", one, other)


@operator("sub", "subtract", becomes="Mul Sub")
def _sub(t: Translation, a: Arguments) -> Tensor:
    return binary(t, "Sub", a["self"], _alpha(t, a, a["other"]))


@operator("rsub", becomes="Mul Sub")
def _rsub(t: Translation, a: Arguments) -> Tensor:
    return binary(t, "Sub", a["other"], _alpha(t, a, a["self"]))


@operator("mul", "multiply", becomes="And Mul")
def _mul(t: Translation, a: Arguments) -> Tensor:
    one, other = t.promoted(a["self"], a["other"])
    return t.emit("And" if one.dtype == _BOOL else "Mul", one, other)


@operator("div", "divide", "true_divide", becomes="Abs Div Floor Mul Sign")
def _div(t: Translation, a: Arguments) -> Tensor:
    one, other = t.promoted(a["self"], a["other"])
    mode = a.get("rounding_mode")
    if mode is None:
        return t.emit("Div", t.as_float(one), t.as_float(other))
    if mode not in ("floor", "trunc"):
        raise Refused(f"rounds in the mode {mode!r}")
    kind = one.dtype
    quotient = t.emit("Div", t.as_float(one), t.as_float(other))
    rounded = t.emit("Floor", quotient) if mode == "floor" else _towards_zero(t, quotient)
    return t.cast(rounded, kind)


@operator("floor_divide", becomes="Cast Div Floor")
def _floor_divide(t: Translation, a: Arguments) -> Tensor:
    one, other = t.promoted(a["self"], a["other"])
    return t.cast(t.emit("Floor", t.emit("Div", t.as_float(one), t.as_float(other))), one.dtype)


@operator("remainder", becomes="Div Floor Mod Mul Sub")
def _remainder(t: Translation, a: Arguments) -> Tensor:
    one, other = t.promoted(a["self"], a["other"])
    if not one.is_float:
        return t.emit("Mod", one, other)
    return t.emit("Sub", one, t.emit("Mul", t.emit("Floor", t.emit("Div", one, other)), other))


@operator("fmod", becomes="Mod")
def _fmod(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Mod", *t.promoted(a["self"], a["other"]), fmod=1)


@operator("pow", becomes="Mul Pow Reciprocal Sqrt")
def _pow(t: Translation, a: Arguments) -> Tensor:
    base, exponent = a["self"], a["exponent"]
    if isinstance(base, Tensor) and base.is_float and isinstance(exponent, (int, float)):
        if exponent == 2:
            return t.emit("Mul", base, base)
        if exponent == 0.5:
            return t.emit("Sqrt", base)
    return t.emit("Pow", *t.promoted(base, exponent))


@operator("maximum", "fmax", becomes="Max")
def _maximum(t: Translation, a: Arguments) -> Tensor:
    return binary(t, "Max", a["self"], a["other"])


@operator("minimum", "fmin", becomes="Min")
def _minimum(t: Translation, a: Arguments) -> Tensor:
    return binary(t, "Min", a["self"], a["other"])


@operator("clamp", "clip", "clamp_min", "clamp_max", becomes="Clip Max Min")
def _clamp(t: Translation, a: Arguments) -> Tensor:
    x, low, high = a.tensor("self"), a.get("min"), a.get("max")
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        if isinstance(low, float) or isinstance(high, float):
            x = t.as_float(x)
        if low is not None and high is not None and low > high:
            low = high  # as torch does
        return like(t, x, clip(t, x, low, high))
    if low is not None:
        x = binary(t, "Max", x, low)
    return x if high is None else binary(t, "Min", x, high)


def _compare(kinds: str, op_type: str, *, negate: bool = False) -> None:
    def handler(t: Translation, a: Arguments) -> Tensor:
        one, other = t.promoted(a["self"], a["other"])
        if one.dtype == _BOOL and op_type != "Equal":
            one, other = t.cast(one, ir.DataType.INT32), t.cast(other, ir.DataType.INT32)
        result = t.emit(op_type, one, other)
        return t.emit("Not", result) if negate else result

    operator(*kinds.split(), becomes=f"Cast {op_type}" + (" Not" if negate else ""))(handler)


_compare("eq", "Equal")
_compare("ne not_equal", "Equal", negate=True)
_compare("lt less", "Less")
_compare("le less_equal", "LessOrEqual")
_compare("gt greater", "Greater")
_compare("ge greater_equal", "GreaterOrEqual")


def truth(t: Translation, one: Any) -> Tensor:
    """A tensor or number as truth values."""
    return t.cast(one if isinstance(one, Tensor) else t.constant(np.asarray(one)), _BOOL)


def _logical(kinds: str, op_type: str) -> None:
    def handler(t: Translation, a: Arguments) -> Tensor:
        bitwise = "self" in a and isinstance(a["self"], Tensor) and a["self"].dtype != _BOOL and "bitwise" in kinds
        if bitwise:
            raise Refused("combines the bits of numbers")
        return t.emit(op_type, truth(t, a["self"]), truth(t, a["other"]))

    operator(*kinds.split(), becomes=f"Cast {op_type}")(handler)


_logical("logical_and", "And")
_logical("logical_or", "Or")
_logical("logical_xor", "Xor")
_logical("bitwise_and __and__", "And")
_logical("bitwise_or __or__", "Or")
_logical("bitwise_xor __xor__", "Xor")


@operator("logical_not", "bitwise_not", becomes="Cast Not")
def _not(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Not", truth(t, a["self"]))


@operator("where", becomes="Where")
def _where(t: Translation, a: Arguments) -> Tensor:
    if "other" not in a:
        raise Refused("asks where data is true")
    return t.emit("Where", truth(t, a["condition"]), *t.promoted(a["self"], a["other"]))


@operator("masked_fill", becomes="Where")
def _masked_fill(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    value = a["value"]
    number = t.cast(value, x.dtype) if isinstance(value, Tensor) else t.scalar(value, x.dtype)
    return t.emit("Where", truth(t, a["mask"]), number, x)


@operator("atan2", "arctan2", becomes="Add Atan Div Less IsNaN Where")
def _atan2(t: Translation, a: Arguments) -> Tensor:
    y, x = (t.as_float(one) for one in t.promoted(a["self"], a["other"]))
    zero = t.scalar(0)
    slope = t.emit("Atan", t.emit("Div", y, x))
    half_turn = t.emit("Where", t.emit("Less", y, zero), t.scalar(-math.pi), t.scalar(math.pi))
    angle = t.emit("Where", t.emit("Less", x, zero), t.emit("Add", slope, half_turn), slope)
    return t.emit("Where", t.emit("IsNaN", angle), zero, angle)


@operator("nan_to_num", becomes="Clip IsNaN Where")
def _nan_to_num(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    x = t.emit("Where", t.emit("IsNaN", x), t.scalar(a.number("nan")), x)
    largest = float(np.finfo(np.float32).max)
    return clip(t, x, a.number("neginf", -largest), a.number("posinf", largest))


@operator("addcmul", becomes="Add Mul")
def _addcmul(t: Translation, a: Arguments) -> Tensor:
    product = binary(t, "Mul", a["tensor1"], a["tensor2"])
    value = a.get("value", 1)
    return binary(t, "Add", a["self"], product if value in (None, 1) else binary(t, "Mul", product, value))


@operator("addcdiv", becomes="Add Div Mul")
def _addcdiv(t: Translation, a: Arguments) -> Tensor:
    quotient = binary(t, "Div", a["tensor1"], a["tensor2"])
    value = a.get("value", 1)
    return binary(t, "Add", a["self"], quotient if value in (None, 1) else binary(t, "Mul", quotient, value))


@operator("lerp", becomes="Add Mul Sub")
def _lerp(t: Translation, a: Arguments) -> Tensor:
    return binary(t, "Add", a["self"], binary(t, "Mul", binary(t, "Sub", a["end"], a["self"]), a["weight"]))


@operator("to", "_to_copy", "type_as", becomes="Cast", view=True)
def _to(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    other = a.get("other")
    if isinstance(other, Tensor):
        return t.cast(x, other.dtype)
    dtype = a.get("dtype")
    if dtype is None:
        return x
    return to_type(t, x, dtype)


def to_type(t: Translation, x: Tensor, dtype: int) -> Tensor:
    """The tensor in the type that TorchScript writes as the number `dtype`."""
    name = SCALAR_TYPES.get(dtype, "")
    if name.startswith(("float", "bfloat")):
        return t.as_float(x)
    if not name or name.startswith("q"):
        raise Refused(f"makes a tensor of type {name or dtype}")
    return t.cast(x, ir.DataType[name.upper()])


def _typed(dtype: int) -> Handler:
    return lambda t, a: to_type(t, a.tensor("self"), dtype)


for _name, _number in {"float": 6, "double": 7, "half": 5, "long": 4, "int": 3, "bool": 11}.items():
    operator(_name, f"_cast_{_name.capitalize()}", becomes="Cast")(_typed(_number))
