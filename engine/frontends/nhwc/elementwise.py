"""What acts on single values, with broadcasting, in whichever order of axes its operands are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from engine.frontends.nhwc.spreading import spread_values
from engine.frontends.nhwc.tensors import Place, Tensor, in_layout, prefers_first, to_first

FLOAT = ir.DataType.FLOAT


def unary(x: Tensor, place: Place, op_type: str, **attributes: object) -> Tensor:
    """An ONNX operator of one input that acts on single values: Relu, Exp, LeakyRelu with its alpha, Not, …"""

    def act(x: Tensor, place: Place) -> Tensor:
        first = prefers_first([x])
        return in_layout(place.node(op_type, [x.get(first)], **attributes), first, place)

    return act(x, place) if x.spread is None else spread_values(x, act, place)


def clip(x: Tensor, place: Place, low: float | None, high: float | None) -> Tensor:
    """Values no smaller than `low` and no larger than `high`."""

    def act(x: Tensor, place: Place) -> Tensor:
        first = prefers_first([x])
        dtype = x.dtype.numpy()
        bounds = [
            None if bound is None else place.constant(np.array(bound, dtype), suffix)
            for bound, suffix in ((low, "lowest"), (high, "highest"))
        ]
        return in_layout(place.node("Clip", [x.get(first), *bounds]), first, place)

    return act(x, place) if x.spread is None else spread_values(x, act, place)


def activation(x: Tensor, place: Place, kind: str) -> Tensor:
    """One of ACTIVATIONS."""
    return ACTIVATIONS[kind](x, place)


ACTIVATIONS: dict[str, Callable[[Tensor, Place], Tensor]] = {
    "Relu": lambda x, place: unary(x, place, "Relu"),
    "Relu6": lambda x, place: clip(x, place, 0.0, 6.0),
    "Relu1": lambda x, place: clip(x, place, -1.0, 1.0),
    "Relu0To1": lambda x, place: clip(x, place, 0.0, 1.0),
    "Tanh": lambda x, place: unary(x, place, "Tanh"),
    "Sigmoid": lambda x, place: unary(x, place, "Sigmoid"),
    "HardSwish": lambda x, place: unary(x, place, "HardSwish"),
    "Elu": lambda x, place: unary(x, place, "Elu"),
    "Selu": lambda x, place: unary(x, place, "Selu"),
    "Softplus": lambda x, place: unary(x, place, "Softplus"),
    "Softsign": lambda x, place: unary(x, place, "Softsign"),
}
"""Activations by name."""


def cast(x: Tensor, place: Place, dtype: ir.DataType) -> Tensor:
    """The values in another type; ONNX and TensorFlow round alike, towards zero."""
    return unary(x, place, "Cast", to=dtype.value)


def binary(a: Tensor, b: Tensor, place: Place, op_type: str, **attributes: object) -> Tensor:
    """An ONNX operator of two inputs that broadcasts, such as Add, Max, Less. Raises ModelError."""
    for x, other in ((a, b), (b, a)):
        by_channel = other.is_constant and (other.size == 1 or other.shape == x.shape[-1:])
        if x.spread is not None and by_channel:

            def act(t: Tensor, place: Place, left: bool = x is a, other: Tensor = other) -> Tensor:
                pair = [t, other] if left else [other, t]
                return broadcast(pair, place, op_type, **attributes)

            return spread_values(x, act, place)
    return broadcast([a, b], place, op_type, **attributes)


def broadcast(tensors: Sequence[Tensor], place: Place, op_type: str, **attributes: object) -> Tensor:
    """An ONNX operator of several inputs that broadcast: Where, Sum, … Raises ModelError."""
    rank = max(t.rank for t in tensors)
    first = rank > 2 and prefers_first(tensors, rank)
    inputs = [_aligned(t, rank, first, place) for t in tensors]
    return in_layout(place.node(op_type, inputs, **attributes), first, place)


def select(condition: Tensor, a: Tensor, b: Tensor, place: Place) -> Tensor:
    """`a` where `condition` holds, else `b`. A condition of one axis chooses whole rows of larger tensors."""
    rank = max(a.rank, b.rank)
    if condition.rank == 1 and rank > 1 and condition.shape[0] == a.shape[0] and a.shape == b.shape:
        shape = (condition.size, *(1,) * (rank - 1))
        condition = Tensor.of(condition.form((0,), shape), condition.place)
    return broadcast([condition, a, b], place, "Where")


def prelu(x: Tensor, alpha: Tensor, place: Place) -> Tensor:
    """x, times `alpha` where it is negative; `alpha` broadcasts over `x`."""
    first = prefers_first([x])
    return in_layout(place.node("PRelu", [x.get(first), _aligned(alpha, x.rank, first, place)]), first, place)


def _aligned(tensor: Tensor, rank: int, first: bool, place: Place) -> ir.Value:
    """The value in a layout of `rank` axes, with axes of size one before its own where it has fewer."""
    if not first:
        return tensor.plain()
    if tensor.rank == rank:
        return tensor.first()
    if tensor.size == 1 and tensor.rank < 2:
        return tensor.plain()
    shape = (*(1,) * (rank - tensor.rank), *tensor.shape)
    order = to_first(rank)
    if tensor.is_constant or sum(dim != 1 for dim in shape) <= 1:
        final = tuple(shape[axis] for axis in order)
        if tensor.array is not None and tensor.is_constant:
            array = tensor.array.reshape(shape).transpose(order)
            while array.ndim > 1 and array.shape[0] == 1:
                array = array[0]
            value = place.maker.constant(array, tensor.name)
            if tensor.grid is not None and tensor.grid.axis is None:
                place.maker.quantized(value, tensor.grid.dtype, tensor.grid.scale, tensor.grid.zero_point)
            return value
        return tensor.form(range(tensor.rank), final)
    whole = Tensor.of(tensor.form(range(tensor.rank), shape), tensor.place)
    return whole.first()
