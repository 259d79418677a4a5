"""Darknet's activations, by the names that a cfg gives them; the formulas are those of its `activations.h`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.frontends.making import GraphMaker

Activation = Callable[[GraphMaker, ir.Value, str], ir.Value]
"""Adds an activation of a value for the layer of that name."""

ACTIVATIONS: dict[str, tuple[Activation, tuple[str, ...]]] = {}
"""By name, with the ONNX operators that it becomes."""

_NORMALIZATION_EPSILON = 1e-4


class _Formula:
    """Adds nodes to one layer."""

    def __init__(self, maker: GraphMaker, name: str) -> None:
        self._maker, self._name = maker, name

    def __call__(self, op_type: str, *inputs: ir.Value | float, **attributes: Any) -> ir.Value:
        """A node of values and numbers."""
        values = [
            value if isinstance(value, ir.Value) else self._maker.constant(np.float32(value), f"{self._name}.number")
            for value in inputs
        ]
        return self._maker.node(op_type, values, f"{self._name}.activation", source=self._name, **attributes)

    def axes(self, *numbers: int) -> ir.Value:
        """A list of axes."""
        return self._maker.constant(list(numbers), f"{self._name}.axes")


def _activation(
    *names: str, becomes: tuple[str, ...]
) -> Callable[[Callable[[_Formula, ir.Value], ir.Value]], Callable[[_Formula, ir.Value], ir.Value]]:
    def register(formula: Callable[[_Formula, ir.Value], ir.Value]) -> Callable[[_Formula, ir.Value], ir.Value]:
        def add(maker: GraphMaker, value: ir.Value, name: str) -> ir.Value:
            return formula(_Formula(maker, name), value)

        ACTIVATIONS.update(dict.fromkeys(names, (add, becomes)))
        return formula

    return register


def _one(op_type: str, *names: str, **attributes: Any) -> None:
    """An activation that is one operator."""

    @_activation(*names, becomes=(op_type,))
    def formula(f: _Formula, x: ir.Value) -> ir.Value:
        return f(op_type, x, **attributes)


_one("Sigmoid", "logistic")
_one("Relu", "relu")
_one("Tanh", "tanh")
_one("LeakyRelu", "leaky", "revleaky", alpha=0.1)
_one("LeakyRelu", "relie", alpha=0.01)
_one("Elu", "elu", alpha=1.0)
_one("Selu", "selu", alpha=1.6732, gamma=1.0507)
_one("Mish", "mish")


@_activation("linear", becomes=())
def _linear(f: _Formula, x: ir.Value) -> ir.Value:
    return x


@_activation("relu6", becomes=("Clip",))
def _relu6(f: _Formula, x: ir.Value) -> ir.Value:
    return f("Clip", x, 0.0, 6.0)


@_activation("hardtan", becomes=("Clip",))
def _hardtan(f: _Formula, x: ir.Value) -> ir.Value:
    return f("Clip", x, -1.0, 1.0)


@_activation("loggy", becomes=("Sigmoid", "Mul", "Sub"))
def _loggy(f: _Formula, x: ir.Value) -> ir.Value:
    return f("Sub", f("Mul", f("Sigmoid", x), 2.0), 1.0)


@_activation("swish", becomes=("Sigmoid", "Mul"))
def _swish(f: _Formula, x: ir.Value) -> ir.Value:
    return f("Mul", x, f("Sigmoid", x))


@_activation("gelu", becomes=("Tanh", "Mul", "Add"))
def _gelu(f: _Formula, x: ir.Value) -> ir.Value:
    inner = f("Add", f("Mul", x, 0.797885), f("Mul", f("Mul", f("Mul", x, x), x), 0.035677))
    return f("Mul", f("Mul", x, 0.5), f("Add", f("Tanh", inner), 1.0))


@_activation("ramp", becomes=("Relu", "Mul", "Add"))
def _ramp(f: _Formula, x: ir.Value) -> ir.Value:
    return f("Add", f("Relu", x), f("Mul", x, 0.1))


@_activation("hard_mish", becomes=("Clip", "Mul", "Add", "Max"))
def _hard_mish(f: _Formula, x: ir.Value) -> ir.Value:
    # x * x / 2 + x between -2 and 0, where it is at most 0: 0 before and x behind.
    bent = f("Clip", x, -2.0, 0.0)
    return f("Add", f("Mul", f("Mul", bent, bent), 0.5), f("Max", x, -2.0))


@_activation("plse", becomes=("Clip", "Mul", "Add", "Sub"))
def _plse(f: _Formula, x: ir.Value) -> ir.Value:
    # The middle's slope is 0.125, and the rest's, beyond -4 and 4, is 0.01.
    middle = f("Clip", x, -4.0, 4.0)
    return f("Add", f("Add", f("Mul", middle, 0.125), 0.5), f("Mul", f("Sub", x, middle), 0.01))


@_activation("lhtan", becomes=("Clip", "Mul", "Add", "Sub"))
def _lhtan(f: _Formula, x: ir.Value) -> ir.Value:
    middle = f("Clip", x, 0.0, 1.0)
    return f("Add", middle, f("Mul", f("Sub", x, middle), 0.001))


@_activation("stair", becomes=("Floor", "Mul", "Sub", "Add"))
def _stair(f: _Formula, x: ir.Value) -> ir.Value:
    # Steps at even whole numbers and slopes from odd ones: floor(n / 2), and x - n where n = floor(x) is odd.
    n = f("Floor", x)
    half = f("Floor", f("Mul", n, 0.5))
    odd = f("Sub", n, f("Mul", half, 2.0))
    return f("Add", half, f("Mul", odd, f("Sub", x, n)))


@_activation("normalize_channels", "norm_channels", becomes=("Relu", "ReduceSum", "Add", "Div"))
def _normalize_channels(f: _Formula, x: ir.Value) -> ir.Value:
    return _shares(f, f("Relu", x))


@_activation("normalize_channels_softmax", becomes=("Exp", "ReduceSum", "Add", "Div"))
def _normalize_channels_softmax(f: _Formula, x: ir.Value) -> ir.Value:
    return _shares(f, f("Exp", x))


@_activation("normalize_channels_softmax_maxval", becomes=("ReduceMax", "Sub", "Exp", "ReduceSum", "Add", "Div"))
def _normalize_channels_softmax_maxval(f: _Formula, x: ir.Value) -> ir.Value:
    return _shares(f, f("Exp", f("Sub", x, f("ReduceMax", x, f.axes(1)))))


def _shares(f: _Formula, x: ir.Value) -> ir.Value:
    """Each channel's share of their sum at each point."""
    return f("Div", x, f("Add", f("ReduceSum", x, f.axes(1)), _NORMALIZATION_EPSILON))
