"""What travels along the edges of a TensorFlow graph while it is interpreted, and what an operator is called with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import ModelError
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tensorflow.nodes import Node
from engine.graph.query import Array

if TYPE_CHECKING:
    from engine.frontends.tensorflow.interpreting import Interpreter, Scope


@dataclasses.dataclass(frozen=True)
class Dead:
    """What a branch that is not taken makes."""


@dataclasses.dataclass(frozen=True)
class Unknown:
    """What a refused node would make."""


@dataclasses.dataclass(frozen=True)
class TensorList:
    """A list of tensors of one type, as loops over time steps keep them; None where nothing was written yet."""

    items: tuple[Tensor | None, ...]
    dtype: int = 1
    shape: tuple[int, ...] | None = None


Value = Tensor | TensorList | Dead | Unknown
DEAD, UNKNOWN = Dead(), Unknown()


class Refused(Exception):
    """An operator cannot do what its node asks."""

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclasses.dataclass(frozen=True)
class Call:
    """One node that is to be written into the graph: its inputs, and the place of its first output."""

    node: Node
    inputs: tuple[Value, ...]
    place: Place
    interpreter: Interpreter
    scope: Scope

    def tensor(self, index: int) -> Tensor:
        """An input. Raises ModelError where it is no tensor, or not there."""
        value = self.inputs[index] if -len(self.inputs) <= index < len(self.inputs) else None
        if not isinstance(value, Tensor):
            raise self.place.error(f"{self.node.op} has no tensor as its input {index}")
        return value

    def tensors(self) -> list[Tensor]:
        """All inputs."""
        return [self.tensor(index) for index in range(len(self.inputs))]

    def array(self, index: int) -> Array:
        """What a constant input holds. Raises Refused where the model computes it from data."""
        found = self.tensor(index).array
        if found is None:
            raise Refused(f"input {index} is computed from data")
        return found

    def integers(self, index: int) -> list[int]:
        """The whole numbers that a constant input holds. Raises Refused, ModelError."""
        array = self.array(index)
        if array.dtype.kind not in "iu":
            raise self.place.error(f"{self.node.op} has {array.dtype} values as its input {index}")
        return [int(number) for number in array.reshape(-1)]

    def integer(self, index: int) -> int:
        """The one whole number that a constant input holds. Raises Refused, ModelError."""
        found = self.integers(index)
        if len(found) != 1:
            raise self.place.error(f"{self.node.op} has {len(found)} values as its input {index}")
        return found[0]

    def pairs(self, index: int) -> list[tuple[int, int]]:
        """The pairs of whole numbers that a constant input holds. Raises Refused, ModelError."""
        found = self.integers(index)
        if len(found) % 2:
            raise self.place.error(f"{self.node.op} has no pairs as its input {index}")
        return list(zip(found[::2], found[1::2], strict=True))

    def output(self, index: int) -> Place:
        """The place of an output."""
        if index == 0:
            return self.place
        return Place(self.place.maker, f"{self.place.name}:{index}", self.place.source)

    def constant(self, array: Array) -> Tensor:
        """A constant as the result."""
        return Tensor.constant(np.asarray(array), self.place)

    def error(self, what: str) -> ModelError:
        """An error that names the node."""
        return self.place.error(what)


Operator = Callable[[Call], "Value | list[Value]"]

OPERATORS: dict[str, Operator] = {}
"""How each TensorFlow operator is written into the graph."""

BECOMES: dict[str, tuple[str, ...]] = {}
"""The ONNX operators that each may become; none where it only decides what is computed."""


def operator(*names: str, becomes: tuple[str, ...] | str = ()) -> Callable[[Operator], Operator]:
    """Let a function handle these TensorFlow operators, which become these ONNX ones."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
            BECOMES[name] = (becomes,) if isinstance(becomes, str) else becomes
        return function

    return register
