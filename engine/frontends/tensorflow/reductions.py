"""Reductions, extremes, softmax and products of matrices."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.frontends import nhwc
from engine.frontends.nhwc import Tensor
from engine.frontends.tensorflow.constants import graph_type
from engine.frontends.tensorflow.values import Call, Refused, Value, operator

_KINDS = {
    "Mean": ("mean", "ReduceMean"),
    "Sum": ("sum", "ReduceSum"),
    "Max": ("max", "ReduceMax"),
    "Min": ("min", "ReduceMin"),
    "Prod": ("prod", "ReduceProd"),
    "Any": ("any", "ReduceMax"),
    "All": ("all", "ReduceMin"),
}


def _reduction(name: str, kind: str, op_type: str) -> None:
    becomes = ("Cast", op_type) if kind in ("any", "all") else op_type

    @operator(name, becomes=becomes)
    def handle(call: Call) -> Value:
        keep = call.node.flag("keep_dims") or call.node.flag("keepdims")
        return nhwc.reduce(call.tensor(0), call.place, kind, axes=call.integers(1), keep_axes=keep)


for _name, (_kind, _op_type) in _KINDS.items():
    _reduction(_name, _kind, _op_type)


@operator("EuclideanNorm", becomes="ReduceL2")
def _norm(call: Call) -> Value:
    x, axes = call.tensor(0), call.place.constant(np.array(call.integers(1), np.int64), "axes")
    keep = int(call.node.flag("keep_dims"))
    return Tensor.of(call.place.node("ReduceL2", [x.plain(), axes], keepdims=keep), call.place)


@operator("ArgMax", becomes=("ArgMax", "Cast"))
def _arg_max(call: Call) -> Value:
    return _argument(call, "max")


@operator("ArgMin", becomes=("ArgMin", "Cast"))
def _arg_min(call: Call) -> Value:
    return _argument(call, "min")


def _argument(call: Call, kind: str) -> Value:
    axis = call.integer(1) if len(call.inputs) > 1 else 0
    dtype = graph_type(call.node.dtype("output_type", default=9)) or ir.DataType.INT64
    return nhwc.argument(call.tensor(0), call.place, kind, axis=axis, dtype=dtype)


@operator("TopK", "TopKV2", becomes=("Cast", "TopK"))
def _top(call: Call) -> list[Value]:
    x = call.tensor(0)
    count = call.integer(1) if call.node.op == "TopKV2" else call.node.integer("k")
    if not x.rank or not 0 < count <= x.shape[-1]:
        raise call.error(f"takes the {count} largest of {list(x.shape)}")
    at = call.output(1)
    inputs = [x.plain(), call.place.constant(np.array([count], np.int64), "count")]
    values, index = call.place.maker.nodes(
        "TopK", inputs, [call.place.name, f"{at.name}_wide"], source=call.place.source or call.place.name, axis=-1
    )
    wanted = graph_type(call.node.dtype("index_type", default=3)) or ir.DataType.INT32
    return [Tensor.of(values, call.place), Tensor.of(at.node("Cast", [index], to=wanted.value), at)]


@operator("Softmax", becomes="Softmax")
def _softmax(call: Call) -> Value:
    return nhwc.softmax(call.tensor(0), call.place)


@operator("LogSoftmax", becomes="LogSoftmax")
def _log_softmax(call: Call) -> Value:
    return nhwc.softmax(call.tensor(0), call.place, logarithm=True)


@operator("Cumsum", becomes="CumSum")
def _cumulative(call: Call) -> Value:
    exclusive, reverse = call.node.flag("exclusive"), call.node.flag("reverse")
    return nhwc.cumulative_sum(call.tensor(0), call.place, axis=call.integer(1), exclusive=exclusive, reverse=reverse)


@operator("MatMul", becomes=("MatMul", "Transpose"))
def _matmul(call: Call) -> Value:
    a, b = call.node.flag("transpose_a"), call.node.flag("transpose_b")
    return nhwc.matmul(call.tensor(0), call.tensor(1), call.place, transpose_a=a, transpose_b=b)


@operator("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", becomes=("MatMul", "Transpose"))
def _batch_matmul(call: Call) -> Value:
    a, b = call.node.flag("adj_x"), call.node.flag("adj_y")
    return nhwc.matmul(call.tensor(0), call.tensor(1), call.place, transpose_a=a, transpose_b=b)


@operator("Einsum", becomes="Einsum")
def _einsum(call: Call) -> Value:
    equation = call.node.text("equation")
    if not equation or len(equation) > 200:
        raise Refused(f"equation {equation[:50]!r}")
    values = [tensor.plain() for tensor in call.tensors()]
    return Tensor.of(call.place.node("Einsum", values, equation=equation), call.place)


@operator("L2Loss", becomes=("Mul", "ReduceSum"))
def _half_square(call: Call) -> Value:
    x, place = call.tensor(0), call.place
    squares = nhwc.binary(x, x, place.within("squares"), "Mul")
    total = nhwc.reduce(squares, place.within("total"), "sum", axes=list(range(x.rank)))
    return nhwc.binary(total, Tensor.constant(np.array(0.5, np.float32), place.within("half")), place, "Mul")
