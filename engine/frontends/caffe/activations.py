"""Layers that compute every number from its own, and those that compare numbers along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, along, reads
from engine.frontends.caffe.weights import Wanted

_UNARY = {
    "AbsVal": "Abs",
    "BNLL": "Softplus",
    "Mish": "Mish",
    "Sigmoid": "Sigmoid",
    "TanH": "Tanh",
    "HSwish": "HardSwish",
    "HardSwish": "HardSwish",
    "Hswish": "HardSwish",
}


def _unary(op_type: str) -> Callable[[Making], list[ir.Value]]:
    return lambda making: [making.node(op_type, making.inputs)]


for _type, _op in _UNARY.items():
    reads(_type, onnx=[_op])(_unary(_op))


@reads("Dropout", onnx=["Identity"])
def _dropout(making: Making) -> list[ir.Value]:
    """Does nothing in the TEST phase."""
    making.param("dropout_param").ignore("dropout_ratio", "scale_train")
    return [making.node("Identity", making.inputs)]


@reads("ReLU", onnx=["LeakyRelu", "Relu"])
def _relu(making: Making) -> list[ir.Value]:
    slope = making.param("relu_param").number("negative_slope")
    if slope == 0:
        return [making.node("Relu", making.inputs)]
    return [making.node("LeakyRelu", making.inputs, alpha=slope)]


@reads("PReLU", onnx=["PRelu"])
def _prelu(making: Making) -> list[ir.Value]:
    shape = making.shape()
    if len(shape) < 2:
        raise ModelError("its blob has no channels")
    shared = making.param("prelu_param").flag("channel_shared")
    slope = making.weights(Wanted((1,) if shared else (shape[1],), "slope"))[0]
    return [making.node("PRelu", [*making.inputs, making.constant(along(slope, 1, len(shape)), "slope")])]


@reads("ReLU6", "Relu6", onnx=["Clip"])
def _relu6(making: Making) -> list[ir.Value]:
    return [_clip(making, 0.0, 6.0)]


@reads("Clip", onnx=["Clip"])
def _clip_layer(making: Making) -> list[ir.Value]:
    param = making.param("clip_param")
    return [_clip(making, param.number("min"), param.number("max"))]


def _clip(making: Making, low: float, high: float) -> ir.Value:
    return making.node("Clip", [*making.inputs, making.constant(low, "min"), making.constant(high, "max")])


@reads("ELU", onnx=["Elu"])
def _elu(making: Making) -> list[ir.Value]:
    return [making.node("Elu", making.inputs, alpha=making.param("elu_param").number("alpha", 1.0))]


@reads("HSigmoid", "HardSigmoid", "Hsigmoid", onnx=["HardSigmoid"])
def _hard_sigmoid(making: Making) -> list[ir.Value]:
    """relu6(x + 3) / 6, as the forks with MobileNetV3 have it."""
    param = making.param("hardsigmoid_param")
    alpha, beta = param.number("alpha", 1 / 6), param.number("beta", 0.5)
    return [making.node("HardSigmoid", making.inputs, alpha=alpha, beta=beta)]


@reads("Swish", onnx=["Mul", "Sigmoid"])
def _swish(making: Making) -> list[ir.Value]:
    beta = making.param("swish_param").number("beta", 1.0)
    value = making.inputs[0]
    inner = value if beta == 1 else making.node("Mul", [value, making.constant(beta, "beta")])
    return [making.node("Mul", [value, making.node("Sigmoid", [inner])])]


@reads("Power", onnx=["Add", "Identity", "Mul", "Pow", "Reciprocal", "Sqrt"])
def _power(making: Making) -> list[ir.Value]:
    """(shift + scale * x) ** power."""
    param = making.param("power_param")
    value = _line(making, making.inputs[0], param.number("scale", 1.0), param.number("shift"))
    power = param.number("power", 1.0)
    if power == 1:
        return [making.node("Identity", [value]) if value is making.inputs[0] else value]
    if power == 2:
        return [making.node("Mul", [value, value])]
    known = {0.5: "Sqrt", -1.0: "Reciprocal"}.get(power)
    if known:
        return [making.node(known, [value])]
    return [making.node("Pow", [value, making.constant(power, "power")])]


def _line(making: Making, value: ir.Value, scale: float, shift: float) -> ir.Value:
    if scale != 1:
        value = making.node("Mul", [value, making.constant(scale, "scale")])
    if shift != 0:
        value = making.node("Add", [value, making.constant(shift, "shift")])
    return value


@reads("Exp", onnx=["Exp", "Mul"])
def _exp(making: Making) -> list[ir.Value]:
    """base ** (shift + scale * x); a base of -1 stands for e."""
    param = making.param("exp_param")
    base, scale, shift = param.number("base", -1.0), param.number("scale", 1.0), param.number("shift")
    inner = _natural_log(base)
    outer = math.exp(inner * shift)
    value = making.node("Exp", [_line(making, making.inputs[0], inner * scale, 0)])
    return [_line(making, value, outer, 0)]


@reads("Log", onnx=["Add", "Log", "Mul"])
def _log(making: Making) -> list[ir.Value]:
    """The logarithm to `base` of shift + scale * x."""
    param = making.param("log_param")
    base = param.number("base", -1.0)
    value = _line(making, making.inputs[0], param.number("scale", 1.0), param.number("shift"))
    divisor = _natural_log(base)
    if divisor == 0:
        raise ModelError("its base is 1")
    return [_line(making, making.node("Log", [value]), 1 / divisor, 0)]


def _natural_log(base: float) -> float:
    if base != -1 and base <= 0:
        raise ModelError(f"its base is {base}, neither positive nor -1 for e")
    return 1.0 if base == -1 else math.log(base)


@reads("Threshold", onnx=["Cast", "Greater"])
def _threshold(making: Making) -> list[ir.Value]:
    limit = making.constant(making.param("threshold_param").number("threshold"), "threshold")
    above = making.node("Greater", [*making.inputs, limit])
    return [making.node("Cast", [above], to=int(ir.DataType.FLOAT))]


@reads("Softmax", onnx=["Softmax"])
def _softmax(making: Making) -> list[ir.Value]:
    return [making.node("Softmax", making.inputs, axis=making.axis(making.param("softmax_param").integer("axis", 1)))]


@reads("LogSoftmax", onnx=["LogSoftmax"])
def _log_softmax(making: Making) -> list[ir.Value]:
    axis = making.axis(making.param("softmax_param").integer("axis", 1))
    return [making.node("LogSoftmax", making.inputs, axis=axis)]


@reads("ArgMax", onnx=["ArgMax", "Cast", "Concat", "Reshape", "TopK"])
def _arg_max(making: Making) -> list[ir.Value]:
    """The places of the largest numbers, as floats: along an axis, or in all of a sample as [N, 1, top_k]."""
    param = making.param("argmax_param")
    count, values = param.integer("top_k", 1), param.flag("out_max_val")
    shape = making.shape()
    value = making.inputs[0]
    whole = not param.has("axis")
    axis = 1 if whole else making.axis(param.integer("axis"))
    if whole:
        value = making.reshape(value, [shape[0], int(np.prod(shape[1:]))])
    if not 1 <= count <= making.maker.shape(value)[axis]:
        raise ModelError(f"top_k is {count} of {making.maker.shape(value)[axis]}")
    places: ir.Value | None = None
    if count == 1 and not values:
        # Of equal numbers Caffe takes the last one.
        places = making.node("ArgMax", [value], axis=axis, keepdims=1, select_last_index=1)
    else:
        largest, places = making.nodes("TopK", [value, making.constant([count], "top_k")], 2, axis=axis)
    places = making.node("Cast", [places], to=int(ir.DataType.FLOAT))
    if not whole:
        return [largest if values else places]
    rows = [making.reshape(part, [shape[0], 1, count]) for part in ([places, largest] if values else [places])]
    return [making.node("Concat", rows, axis=1) if values else rows[0]]
