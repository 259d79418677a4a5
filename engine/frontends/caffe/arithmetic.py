"""Layers that join blobs number by number, and those that sum along axes."""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.caffe.layers import Making, reads

_OPERATIONS = {"PROD": 0, "SUM": 1, "MAX": 2}
_REDUCTIONS = {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4}
_REDUCERS = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


@reads("Eltwise", onnx=["Add", "Max", "Mul", "Sub"], bottoms=(2, None))
def _eltwise(making: Making) -> list[ir.Value]:
    param = making.param("eltwise_param")
    param.ignore("stable_prod_grad")
    operation = param.choice("operation", _OPERATIONS, "SUM")
    coefficients = param.numbers("coeff")
    shapes = {making.shape(index) for index in range(len(making.inputs))}
    if len(shapes) > 1:
        raise ModelError(f"its blobs have the shapes {' and '.join(str(list(s)) for s in sorted(shapes))}")
    if coefficients and (operation != "SUM" or len(coefficients) != len(making.inputs)):
        raise ModelError(f"it has {len(coefficients)} coefficients for a {operation} of {len(making.inputs)} blobs")
    first, *rest = making.inputs
    if operation == "MAX":
        return [making.node("Max", making.inputs)]
    if operation == "PROD":
        for value in rest:
            first = making.node("Mul", [first, value])
        return [first]
    own, *others = coefficients or [1.0] * len(making.inputs)
    first = _times(making, first, own)
    for value, coefficient in zip(rest, others, strict=True):
        if coefficient == -1:
            first = making.node("Sub", [first, value])
        else:
            first = making.node("Add", [first, _times(making, value, coefficient)])
    return [first]


def _times(making: Making, value: ir.Value, factor: float) -> ir.Value:
    return value if factor == 1 else making.node("Mul", [value, making.constant(factor, "coefficient")])


@reads("Axpy", onnx=["Add", "Mul", "Reshape"], bottoms=(3, 3))
def _axpy(making: Making) -> list[ir.Value]:
    """A factor for each channel, times x, plus y (the fork of squeeze-and-excitation networks)."""
    factor, x, y = making.inputs
    shape, rank = making.shape(1), len(making.shape(1))
    if rank < 2 or making.shape(0)[:2] != shape[:2] or making.shape(2) != shape:
        raise ModelError(f"its blobs have the shapes {', '.join(str(list(making.shape(i))) for i in range(3))}")
    factor = making.reshape(factor, [*shape[:2], *[1] * (rank - 2)])
    return [making.node("Add", [making.node("Mul", [x, factor]), y])]


@reads("Reduction", onnx=["Mul", "ReduceL1", "ReduceMean", "ReduceSum", "ReduceSumSquare"])
def _reduction(making: Making) -> list[ir.Value]:
    """Over `axis` and all behind it, times a coefficient."""
    param = making.param("reduction_param")
    operation = param.choice("operation", _REDUCTIONS, "SUM")
    axes = list(range(making.axis(param.integer("axis")), len(making.shape())))
    result = making.node(_REDUCERS[operation], [*making.inputs, making.constant(axes, "axes")], keepdims=0)
    return [_times(making, result, param.number("coeff", 1.0))]


@reads("MatMul", onnx=["MatMul"], bottoms=(2, 2))
def _mat_mul(making: Making) -> list[ir.Value]:
    return [making.node("MatMul", making.inputs)]
