"""What the values of a TorchScript graph are while it is translated: tensors, views of tensors, and what is unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from engine.graph.query import static_shape

FLOATS = ("float32", "float64", "float16", "bfloat16")
DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT,
    "bfloat16": ir.DataType.FLOAT,
    "quint8": ir.DataType.FLOAT,
    "qint8": ir.DataType.FLOAT,
    "qint32": ir.DataType.FLOAT,
    "bool": ir.DataType.BOOL,
    "uint8": ir.DataType.UINT8,
    "int8": ir.DataType.INT8,
    "int16": ir.DataType.INT16,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
}
"""The graph's type for each of torch's: all that is real is float32."""

SCALAR_TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    12: "qint8",
    13: "quint8",
    14: "qint32",
    15: "bfloat16",
}
"""How TorchScript writes types down: the numbers of c10::ScalarType."""

NUMBERS = {name: number for number, name in SCALAR_TYPES.items()}


class Refused(Exception):
    """Nothing here can do what one node asks; the arguments are what of it, and what a person could do."""

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


class Spoiled(Refused):
    """A tensor is read that something wrote to which could not be translated, as has been told."""


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Stands for what could not be translated. `reason` is empty where the cause has been told already, else it is to
    be told once something reads the value."""

    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """real = (q - zero_point) * scale, with q of the source's `dtype` ('uint8', 'int8', 'int32')."""

    dtype: str
    scale: float
    zero_point: int


Content = Any
"""What a tensor holds: an `ir.Value` where it is computed at run time, a `torch.Tensor` where it is constant."""


class Tensor:
    """A tensor variable of the source model, which several names may share and writing in place changes.

    `label` is the parameter's path for those that are. A view shares the content of its `base`: `read` makes the view's
    content from the base anew, `write` makes the base's new content from the view's.
    """

    def __init__(self, content: Content, *, grid: Grid | None = None, label: str = "") -> None:
        self._content: Content = content
        self.grid = grid
        self.label = label
        self.version = 0
        self._base: Tensor | None = None
        self._read: Callable[[Tensor], Tensor] | None = None
        self._write: Callable[[Tensor, Tensor], Tensor] | None = None
        self._seen = 0
        self._spoiled = False

    def view_of(
        self,
        base: Tensor,
        read: Callable[[Tensor], Tensor] | None,
        write: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> None:
        """From now on share the content of `base`; without `read` or `write` that is refused once it is needed."""
        base.content  # noqa: B018  (a base that is a view itself must be up to date)
        self._base, self._read, self._write, self._seen = base, read, write, base.version

    @property
    def content(self) -> Content:
        """The content, up to date with the tensor that this is a view of."""
        if self._spoiled:
            raise Spoiled()
        base = self._base
        if base is not None:
            base.content  # noqa: B018
            if base.version != self._seen:
                if self._read is None:
                    raise Refused("reads a view of a tensor that was written to since")
                self._take(self._read(base))
                self._seen = base.version
        return self._content

    def assign(self, new: Tensor) -> None:
        """Take the content of `new`, and let the tensor that this is a view of have it too."""
        self.content  # noqa: B018
        base = self._base
        if base is not None:
            if self._write is None:
                raise Refused("writes into a view of a tensor")
            base.assign(self._write(base, new))
            self._seen = base.version
        self._take(new)

    def spoil(self) -> None:
        """Let nothing read it any more, nor what shares its content: what was written to it is not known."""
        self._spoiled = True
        if self._base is not None:
            self._base.spoil()

    def _take(self, new: Tensor) -> None:
        self._content, self.grid = new.content, new.grid
        self.label = ""
        self.version += 1

    @property
    def is_constant(self) -> bool:
        """Whether it does not depend on the model's inputs."""
        return not isinstance(self.content, ir.Value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions. Raises ValueError where they depend on data."""
        content = self.content
        return static_shape(content) if isinstance(content, ir.Value) else tuple(int(d) for d in content.shape)

    @property
    def rank(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    @property
    def dtype(self) -> ir.DataType:
        """Its type in the graph."""
        content = self.content
        if isinstance(content, ir.Value):
            return content.dtype or ir.DataType.FLOAT
        name = str(content.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise Refused(f"is of type {name}")
        return DTYPES[name]

    @property
    def is_float(self) -> bool:
        """Whether its elements are real numbers."""
        return self.dtype == ir.DataType.FLOAT


class Record:
    """An object of a class that the model defines, with its attributes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attributes: dict[str, Any] = {}


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a value: itself, or those in a list, tuple or dictionary, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    return []


def unknown_in(value: Any) -> Unknown | None:
    """The first unknown in a value, in lists too."""
    if isinstance(value, Unknown):
        return value
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := unknown_in(item)) is not None), None)
    return None
