"""Activation functions."""

from __future__ import annotations

import math

import numpy as np

from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import SCALAR_TYPES, Grid, Refused, Tensor

# What torch quantizes the results of to, where no scale is told; for numbers from 0 to 255.
_FIXED = {"Sigmoid": (1 / 256, 0), "HardSigmoid": (1 / 256, 0), "Tanh": (2 / 256, 128)}


def _fixed(t: Translation, x: Tensor, op_type: str, result: Tensor) -> Tensor:
    """`result` on the grid that such an operator has for a quantized tensor."""
    if x.grid is None or op_type not in _FIXED:
        return result
    scale, point = _FIXED[op_type]
    return t.quantized(result, Grid(x.grid.dtype, scale, point - (128 if x.grid.dtype == "int8" else 0)))


def _single(kinds: str, op_type: str) -> None:
    """Operators of one tensor that ONNX has too."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self")
        return _fixed(t, x, op_type, t.emit(op_type, t.as_float(x)))

    operator(*kinds.split(), becomes=op_type)(handler)


_single("sigmoid special_expit", "Sigmoid")
_single("tanh", "Tanh")
_single("hardswish", "HardSwish")
_single("mish", "Mish")
_single("selu", "Selu")


def like(t: Translation, x: Tensor, result: Tensor) -> Tensor:
    """`result` with the grid of `x`, as operators have that keep the numbers of a quantized tensor."""
    return result if x.grid is None else t.quantized(result, x.grid)


def clip(t: Translation, x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Limited from below and above."""
    inputs = [None if limit is None else np.asarray(limit, x.dtype.numpy()) for limit in (low, high)]
    return t.emit("Clip", x, *(inputs if high is not None else inputs[:1]))


@operator("relu", "quantized::relu", becomes="Relu")
def _relu(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self" if "self" in a else "qx")
    return like(t, x, t.emit("Relu", x))


@operator("relu6", "quantized::relu6", becomes="Clip")
def _relu6(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self" if "self" in a else "qx")
    return like(t, x, clip(t, x, 0.0, 6.0))


@operator("hardtanh", becomes="Clip")
def _hardtanh(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return like(t, x, clip(t, x, a.number("min_val", -1.0), a.number("max_val", 1.0)))


@operator("leaky_relu", becomes="LeakyRelu")
def _leaky(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return like(t, x, t.emit("LeakyRelu", x, alpha=float(a.number("negative_slope", 0.01))))


@operator("rrelu", becomes="LeakyRelu")
def _rrelu(t: Translation, a: Arguments) -> Tensor:
    if a.flag("training"):
        raise Refused("draws random numbers")
    return t.emit("LeakyRelu", a.tensor("self"), alpha=(a.number("lower", 1 / 8) + a.number("upper", 1 / 3)) / 2)


@operator("prelu", "_prelu_kernel", becomes="PRelu Reshape")
def _prelu(t: Translation, a: Arguments) -> Tensor:
    x, weight = a.tensor("self"), a.tensor("weight")
    if weight.rank == 1 and x.rank > 2 and weight.shape[0] > 1:
        weight = t.constant(t.array(weight)) if weight.is_constant else weight
        shape = (weight.shape[0], *([1] * (x.rank - 2)))
        label = a.tensor("weight").label
        weight = Tensor(weight.content.reshape(shape), label=label) if weight.is_constant else t.reshape(weight, shape)
    return t.emit("PRelu", x, weight)


@operator("elu", becomes="Elu Mul Where")
def _elu(t: Translation, a: Arguments) -> Tensor:
    x, alpha, scale = a.tensor("self"), a.number("alpha", 1.0), a.number("scale", 1.0)
    inner = a.number("input_scale", 1.0)
    if inner == 1:
        result = t.emit("Elu", x, alpha=float(alpha))
    else:
        curve = t.emit("Elu", t.emit("Mul", x, t.scalar(inner)), alpha=float(alpha))
        result = t.emit("Where", t.emit("Greater", x, t.scalar(0)), x, curve)
    return result if scale == 1 else t.emit("Mul", result, t.scalar(scale))


@operator("celu", becomes="Celu")
def _celu(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Celu", a.tensor("self"), alpha=float(a.number("alpha", 1.0)))


@operator("gelu", becomes="Add Div Erf Mul Pow Tanh")
def _gelu(t: Translation, a: Arguments) -> Tensor:
    return gelu(t, a.tensor("self"), str(a.get("approximate") or "none"))


def gelu(t: Translation, x: Tensor, approximate: str = "none") -> Tensor:
    """0.5 x (1 + erf(x / sqrt 2)), or with a tanh in place of erf (https://arxiv.org/abs/1606.08415)."""
    if approximate == "tanh":
        cubic = t.emit("Mul", t.emit("Pow", x, t.scalar(3)), t.scalar(0.044715))
        inner = t.emit("Mul", t.emit("Add", x, cubic), t.scalar(math.sqrt(2 / math.pi)))
        curve = t.emit("Tanh", inner)
    else:
        curve = t.emit("Erf", t.emit("Div", x, t.scalar(math.sqrt(2))))
    product = t.emit("Mul", x, t.emit("Add", curve, t.scalar(1)))
    return t.emit("Mul", product, t.scalar(0.5))


@operator("silu", becomes="Mul Sigmoid")
def _silu(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return t.emit("Mul", x, t.emit("Sigmoid", x))


@operator("hardsigmoid", becomes="HardSigmoid")
def _hardsigmoid(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    return _fixed(t, x, "HardSigmoid", t.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5))


@operator("softplus", becomes="Mul Softplus Where Greater")
def _softplus(t: Translation, a: Arguments) -> Tensor:
    x, beta, threshold = a.tensor("self"), a.number("beta", 1.0), a.number("threshold", 20.0)
    scaled = x if beta == 1 else t.emit("Mul", x, t.scalar(beta))
    result = t.emit("Softplus", scaled)
    result = result if beta == 1 else t.emit("Mul", result, t.scalar(1 / beta))
    # Above the usual threshold of 20 the two are equal in float32.
    return result if threshold >= 17 else t.emit("Where", t.emit("Greater", scaled, t.scalar(threshold)), x, result)


@operator("log_sigmoid", becomes="Neg Softplus")
def _log_sigmoid(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Neg", t.emit("Softplus", t.emit("Neg", a.tensor("self"))))


@operator("softsign", becomes="Softsign")
def _softsign(t: Translation, a: Arguments) -> Tensor:
    return t.emit("Softsign", a.tensor("self"))


def _shrink(biased: bool) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        lambd = float(a.number("lambd", 0.5))
        return t.emit("Shrink", a.tensor("self"), lambd=lambd, bias=lambd if biased else 0.0)

    return handler


operator("softshrink", becomes="Shrink")(_shrink(True))
operator("hardshrink", becomes="Shrink")(_shrink(False))


@operator("threshold", becomes="Greater Where")
def _threshold(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    above = t.emit("Greater", x, t.scalar(a.number("threshold"), x.dtype))
    return t.emit("Where", above, x, t.scalar(a.number("value"), x.dtype))


def _softmax(op_type: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("self")
        dtype = a.get("dtype")
        if dtype is not None and not str(SCALAR_TYPES.get(dtype, "")).startswith(("float", "bfloat")):
            raise Refused(f"computes in type {dtype}")
        return t.emit(op_type, t.as_float(x), axis=axis_of(a.integer("dim"), x.rank))

    return handler


operator("softmax", "_softmax", "special_softmax", becomes="Softmax")(_softmax("Softmax"))
operator("log_softmax", "_log_softmax", "special_log_softmax", becomes="LogSoftmax")(_softmax("LogSoftmax"))


@operator("glu", becomes="Mul Sigmoid Split")
def _glu(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("self")
    axis = axis_of(a.integer("dim", -1), x.rank)
    if x.shape[axis] % 2:
        raise Refused("halves an odd size")
    half = x.shape[axis] // 2
    value, gate = t.emit_several("Split", 2, x, [half, half], axis=axis)
    return t.emit("Mul", value, t.emit("Sigmoid", gate))
