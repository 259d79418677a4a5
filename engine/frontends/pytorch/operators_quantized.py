"""Quantized operators: computed on real values, with the source's scales noted on what they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.frontends.pytorch import eager
from engine.frontends.pytorch.operators_activation import clip
from engine.frontends.pytorch.operators_convolution import convolve, pad
from engine.frontends.pytorch.operators_matrix import linear
from engine.frontends.pytorch.operators_shaping import joined
from engine.frontends.pytorch.table import Arguments, Handler, operator
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import SCALAR_TYPES, Grid, Refused, Tensor
from engine.graph.given import given

_TYPES = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}


def _grid(a: Arguments, scale: str, zero_point: str, dtype: str = "uint8") -> Grid:
    return Grid(dtype, float(a.number(scale)), int(a.number(zero_point)))


@operator("quantize_per_tensor", becomes="Identity")
def _quantize(t: Translation, a: Arguments) -> Tensor:
    x = t.as_float(a.tensor("self"))
    name = _TYPES.get(SCALAR_TYPES.get(a.integer("dtype"), ""), "")
    if not name:
        raise Refused(f"quantizes to type {a.get('dtype')}")
    grid = _grid(a, "scale", "zero_point", name)
    # A tensor that has a grid of its own keeps that.
    if x.is_constant or given(x.content) is not None:
        x = t.emit("Identity", x)
    return t.quantized(x, grid)


@operator("dequantize", becomes="")
def _dequantize(t: Translation, a: Arguments) -> Tensor | list[Tensor]:
    if "tensors" in a:
        return [Tensor(one.content) for one in a.tensors("tensors")]
    return Tensor(a.tensor("self").content)


@operator("int_repr", becomes="Cast Div Round Add")
def _int_repr(t: Translation, a: Arguments) -> Tensor:
    raise Refused("reads the stored numbers of a quantized tensor")


def _named(tensor: Any, label: str) -> Tensor:
    made = eager.wrapped(tensor, label)
    if not isinstance(made, Tensor):
        raise Refused("has no weights")
    return made


def _unpack(packed: Any, kind: str) -> tuple[Any, Any]:
    if not isinstance(packed, eager.torch().ScriptObject):
        raise Refused("its weights are not packed")
    result = eager.call(f"quantized::{kind}_unpack", _OVERLOADS.get(kind, ""), [packed])
    return result[0], result[1]


_OVERLOADS: dict[str, str] = {}


def _number(packed: Any, name: str) -> Any:
    return eager.call(f"quantized::{name}", "", [packed])


def _weights(t: Translation, packed: Any, kind: str, x: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The weights and the bias; beside a quantized input `x` the bias is rounded to the steps that products have, as
    the kernels of torch do when they run."""
    weight, bias = _unpack(packed, kind)
    made, label = _named(weight, f"{t.base}.weight"), f"{t.base}.bias"
    if bias is None:
        return made, None
    if x is None or x.grid is None:
        return made, _named(bias, label)
    steps = np.asarray(eager.grids_of(weight)[1]) * x.grid.scale
    real = eager.to_array(bias)[0].astype(np.float64)
    rounded = t.constant((np.rint(real / steps) * steps).astype(np.float32))
    rounded.label = label
    return made, rounded


def _finish(t: Translation, a: Arguments, result: Tensor, activation: str, scale: str, zero: str) -> Tensor:
    if activation:
        result = t.emit(activation, result)
    return t.quantized(result, _grid(a, scale, zero))


def _convolution(dims: int, transposed: bool, activation: str) -> Handler:
    kind = f"conv{'_transpose' if transposed else ''}{dims}d"

    def handler(t: Translation, a: Arguments) -> Tensor:
        if "output_scale" not in a:
            raise Refused("is of a kind before PyTorch 1.6")
        packed = a["packed_weight"]
        weight, bias = _weights(t, packed, kind, a.tensor("qx"))
        # One-dimensional ones are packed as of two, the first of which is one.
        asked = "conv2d" if dims == 1 and not transposed else "conv_transpose2d" if dims == 1 else kind
        stride, padding, dilation = (
            list(_number(packed, f"{asked}_{name}"))[-dims:] for name in ("stride", "padding", "dilation")
        )
        output_padding = list(_number(packed, f"{asked}_output_padding"))[-dims:] if transposed else None
        result = convolve(
            t,
            a.tensor("qx"),
            weight,
            bias,
            stride=stride,
            pads=padding * 2,
            dilation=dilation,
            groups=int(_number(packed, f"{asked}_groups")),
            output_padding=output_padding,
        )
        return _finish(t, a, result, activation, "output_scale", "output_zero_point")

    return handler


for _dims in (1, 2, 3):
    operator(f"quantized::conv{_dims}d", becomes="Conv")(_convolution(_dims, False, ""))
    operator(f"quantized::conv{_dims}d_relu", becomes="Conv Relu")(_convolution(_dims, False, "Relu"))
    operator(f"quantized::conv_transpose{_dims}d", becomes="ConvTranspose")(_convolution(_dims, True, ""))


def _linear(activation: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        weight, bias = _weights(t, a["W_prepack"], "linear", a.tensor("X"))
        result = linear(t, a.tensor("X"), weight, bias)
        return _finish(t, a, result, activation, "Y_scale_i", "Y_zero_point_i")

    return handler


operator("quantized::linear", becomes="Add Gemm MatMul Transpose")(_linear(""))
operator("quantized::linear_relu", becomes="Add Gemm MatMul Relu Transpose")(_linear("Relu"))


def _dynamic(activation: str) -> Handler:
    """Weights of eight bits, activations that are quantized as they come: here these stay real."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        kind = "linear" if "W_prepack" in a else "linear_fp16"
        weight, bias = _weights(t, a["W_prepack"] if "W_prepack" in a else a["packed_weight"], kind)
        result = linear(t, a.tensor("X"), weight, bias)
        return t.emit(activation, result) if activation else result

    return handler


operator("quantized::linear_dynamic", "quantized::linear_dynamic_fp16", becomes="Add Gemm MatMul Transpose")(
    _dynamic("")
)
operator("quantized::linear_relu_dynamic", becomes="Add Gemm MatMul Relu Transpose")(_dynamic("Relu"))


def _pair(op_type: str, activation: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        one, other = a.tensor("qa"), a["qb"] if "qb" in a else a["b"]
        if "scale" not in a or not isinstance(other, Tensor):
            return _with_number(t, op_type, activation, one, other)
        return _finish(t, a, t.emit(op_type, one, other), activation, "scale", "zero_point")

    return handler


def _with_number(t: Translation, op_type: str, activation: str, one: Tensor, other: Any) -> Tensor:
    """A quantized tensor and a number: torch moves the grid rather than the numbers, and clamps where it cannot."""
    if isinstance(other, Tensor):
        other = t.array(other).item()
    if one.grid is None or not isinstance(other, (int, float)):
        raise Refused("computes with something that is not quantized")
    grid = one.grid
    if op_type == "Mul":
        if other == 0:
            grid = Grid(grid.dtype, 1.0, 0)
        elif other > 0:
            grid = Grid(grid.dtype, grid.scale * other, grid.zero_point)
        else:
            low, high = (0, 255) if grid.dtype == "uint8" else (-128, 127)
            grid = Grid(grid.dtype, grid.scale * -other, high - (grid.zero_point - low))
    else:
        low, high = (0, 255) if grid.dtype == "uint8" else (-128, 127)
        steps = round(other / grid.scale)
        smallest, largest = low - grid.zero_point, high - grid.zero_point
        if smallest + steps > 0:
            grid = Grid(grid.dtype, (largest + steps) / (high - low) * grid.scale, low)
        elif largest + steps < 0:
            grid = Grid(grid.dtype, -(smallest + steps) / (high - low) * grid.scale, high)
        else:
            grid = Grid(grid.dtype, grid.scale, grid.zero_point - steps)
    result = t.emit(op_type, one, t.scalar(other))
    return t.quantized(t.emit(activation, result) if activation else result, grid)


for _name, _op in (("add", "Add"), ("mul", "Mul")):
    operator(f"quantized::{_name}", f"quantized::{_name}_scalar", becomes=_op)(_pair(_op, ""))
    operator(f"quantized::{_name}_relu", f"quantized::{_name}_scalar_relu", becomes=f"{_op} Relu")(_pair(_op, "Relu"))


@operator("quantized::matmul", becomes="MatMul")
def _matmul(t: Translation, a: Arguments) -> Tensor:
    return _finish(t, a, t.emit("MatMul", a.tensor("qa"), a.tensor("qb")), "", "scale", "zero_point")


def _cat(activation: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        tensors = a.tensors("qx")
        result = joined(t, [Tensor(one.content) for one in tensors], axis_of(a.integer("dim"), tensors[0].rank))
        if activation:
            result = t.emit(activation, result)
        grid = _grid(a, "scale", "zero_point") if a.get("scale") is not None else tensors[0].grid
        return result if grid is None else t.quantized(result, grid)

    return handler


operator("quantized::cat", becomes="Concat")(_cat(""))
operator("quantized::cat_relu", becomes="Concat Relu")(_cat("Relu"))


def _unary(compute: Callable[[Translation, Tensor, Arguments], Tensor]) -> Handler:
    """An operator that is told the grid of its result."""

    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor(next(iter(a)))
        return t.quantized(compute(t, x, a), _grid(a, "output_scale", "output_zero_point"))

    return handler


operator("quantized::hardswish", becomes="HardSwish")(_unary(lambda t, x, a: t.emit("HardSwish", x)))
operator("quantized::sigmoid", becomes="Sigmoid")(_unary(lambda t, x, a: t.emit("Sigmoid", x)))
operator("quantized::leaky_relu", becomes="LeakyRelu")(
    _unary(lambda t, x, a: t.emit("LeakyRelu", x, alpha=float(a.number("negative_slope", 0.01))))
)
operator("quantized::elu", becomes="Elu")(_unary(lambda t, x, a: t.emit("Elu", x, alpha=float(a.number("alpha", 1)))))
operator("quantized::celu", becomes="Celu")(
    _unary(lambda t, x, a: t.emit("Celu", x, alpha=float(a.number("alpha", 1))))
)
operator("quantized::softmax", becomes="Softmax")(
    _unary(lambda t, x, a: t.emit("Softmax", x, axis=axis_of(a.integer("dim"), x.rank)))
)


@operator("quantized::prelu", becomes="PRelu Reshape")
def _prelu(t: Translation, a: Arguments) -> Tensor:
    x, weight = a.tensor("qx"), a.tensor("weight")
    slopes = t.array(weight)
    if x.rank > 2 and slopes.size > 1:
        slopes = slopes.reshape(-1, *([1] * (x.rank - 2)))
    return t.quantized(t.emit("PRelu", x, slopes), _grid(a, "output_scale", "output_zero_point"))


@operator("quantized::clamp", becomes="Clip")
def _clamp(t: Translation, a: Arguments) -> Tensor:
    x = a.tensor("qx")
    result = clip(t, x, a.get("min"), a.get("max"))
    return result if x.grid is None else t.quantized(result, x.grid)


def _batch_norm(activation: str) -> Handler:
    def handler(t: Translation, a: Arguments) -> Tensor:
        x = a.tensor("qx")
        ones = t.constant(np.ones(x.shape[1], np.float32))
        zeros = t.constant(np.zeros(x.shape[1], np.float32))
        result = t.emit(
            "BatchNormalization",
            x,
            a.optional("weight") or ones,
            a.optional("bias") or zeros,
            a.tensor("mean"),
            a.tensor("var"),
            epsilon=float(a.number("eps", 1e-5)),
        )
        return _finish(t, a, result, activation, "output_scale", "output_zero_point")

    return handler


for _suffix in ("", "1d", "2d", "3d"):
    operator(f"quantized::batch_norm{_suffix}", becomes="BatchNormalization")(_batch_norm(""))
    operator(f"quantized::batch_norm{_suffix}_relu", becomes="BatchNormalization Relu")(_batch_norm("Relu"))


@operator("quantized::layer_norm", becomes="LayerNormalization")
def _layer_norm(t: Translation, a: Arguments) -> Tensor:
    x, dims = a.tensor("input"), len(a.integers("normalized_shape"))
    weight = a.optional("weight") or t.constant(np.ones(x.shape[x.rank - dims :], np.float32))
    bias = a.optional("bias")
    inputs = [x, weight] if bias is None else [x, weight, bias]
    result = t.emit("LayerNormalization", *inputs, axis=-dims, epsilon=float(a.number("eps", 1e-5)))
    return t.quantized(result, _grid(a, "output_scale", "output_zero_point"))


@operator("quantized::embedding_byte", becomes="Gather")
def _embedding_byte(t: Translation, a: Arguments) -> Tensor:
    weight = _named(eager.call("quantized::embedding_bag_unpack", "", [a["weight"]]), f"{t.base}.weight")
    return t.emit("Gather", weight, t.as_indices(a.tensor("indices")), axis=0)


@operator("quantized::reflection_pad2d", becomes="Pad")
def _reflect(t: Translation, a: Arguments) -> Tensor:
    return pad(t, a.tensor(next(iter(a))), a.integers("padding"), "reflect")
