"""What translating one node needs: writes ONNX nodes, turns constants into initializers, fits types and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.making import GraphMaker
from engine.frontends.pytorch import eager
from engine.frontends.pytorch.values import Grid, Refused, Tensor
from engine.graph.query import Array
from engine.graph.shapes import LARGEST_TENSOR

LARGEST_MADE = 1 << 24
"""Elements of a constant that is larger than what the file holds of it, as an expanded one."""
_MOST_NODES = 50_000
# What may be done with whole numbers before something is looked up with them.
_ON_INDICES = {
    "Add",
    "Clip",
    "Concat",
    "Expand",
    "Gather",
    "Identity",
    "Mul",
    "Reshape",
    "Slice",
    "Split",
    "Sub",
    "Transpose",
}
_INTEGERS = (ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64)

Operand = Tensor | Array | Sequence[int] | None


class WantsIntegers(Exception):
    """An input of the model turned out to be one of whole numbers; the argument is its name."""


class Translation:
    """The graph that is being made, and where in the source model it stands: `base` names the node's results, `source`
    is the node as a person would look for it."""

    def __init__(self, maker: GraphMaker) -> None:
        self.maker = maker
        self.base = self.source = "graph"
        self._constants: dict[int, tuple[Any, int, ir.Value]] = {}
        self.made: list[ir.Value] = []

    def emit(self, op_type: str, *inputs: Operand, **attributes: Any) -> Tensor:
        """Add a node with one output; arrays and lists of whole numbers become constants."""
        return self.emit_several(op_type, 1, *inputs, **attributes)[0]

    def emit_several(self, op_type: str, count: int, *inputs: Operand, **attributes: Any) -> list[Tensor]:
        """Like `emit`, for `count` outputs."""
        if len(self.made) > _MOST_NODES:
            raise ModelError(
                f"becomes more than {_MOST_NODES} nodes", where=self.maker.where, hint="do its loops run this long?"
            )
        values = [None if one is None else self.value(one) for one in inputs]
        names = [f"{self.base}/{op_type}"] * count
        made = self.maker.nodes(op_type, values, names, source=self.source, **attributes)
        self.made += made
        return [Tensor(value) for value in made]

    def value(self, one: Operand | ir.Value) -> ir.Value:
        """The graph's value for a tensor; a constant becomes an initializer, once."""
        if isinstance(one, ir.Value):
            return one
        if not isinstance(one, Tensor):
            array = np.asarray(one, np.int64) if isinstance(one, list) else np.asarray(one)
            return self.maker.constant(array, f"{self.base}/constant")
        content = one.content
        if isinstance(content, ir.Value):
            return content
        key = id(content)
        if key not in self._constants:
            # The tensor is kept, so that its number stays its own.
            self._constants[key] = (content, 0, self._constant(one))
        return self._constants[key][2]

    def _constant(self, tensor: Tensor) -> ir.Value:
        content = tensor.content
        elements = content.numel()
        if elements > LARGEST_TENSOR or (elements > LARGEST_MADE and elements > eager.stored_elements(content)):
            raise ModelError(f"a constant has {elements} elements", where=f"{self.maker.where}: {self.source}")
        name = tensor.label or f"{self.base}/constant"
        array, grids = eager.to_array(content)
        value = self.maker.constant(array, name)
        if grids is not None:
            dtype, scales, points, axis = grids
            self.maker.quantized(value, dtype, scales, points, axis)
        return value

    def array(self, tensor: Tensor) -> Array:
        """What a constant tensor holds. Raises Refused for one that is computed at run time."""
        if not tensor.is_constant:
            raise Refused("depends on data that is known at run time only")
        return eager.to_array(tensor.content)[0]

    def constant(self, array: Any) -> Tensor:
        """A new constant tensor: float32 for real numbers, int64 for Python's whole ones."""
        return Tensor(eager.from_array(np.asarray(array)))

    def quantized(self, tensor: Tensor, grid: Grid) -> Tensor:
        """The same values, quantized to `grid`: noted on what makes them."""
        if tensor.is_constant:
            tensor = self.emit("Identity", tensor)
        value = tensor.content
        self.maker.quantized(value, grid.dtype, [grid.scale], [grid.zero_point])
        return Tensor(value, grid=grid)

    def cast(self, tensor: Tensor, dtype: ir.DataType) -> Tensor:
        """The tensor in another type."""
        if tensor.dtype == dtype:
            return tensor
        if tensor.is_constant:
            return self.constant(self.array(tensor).astype(dtype.numpy()))
        return self.emit("Cast", tensor, to=dtype.value)

    def as_float(self, tensor: Tensor) -> Tensor:
        """The tensor as real numbers."""
        return self.cast(tensor, ir.DataType.FLOAT)

    def as_indices(self, tensor: Tensor) -> Tensor:
        """The tensor as whole numbers that count elements. Raises WantsIntegers for an input that was taken for one of
        real numbers, which a model file does not tell."""
        origin = tensor.content if tensor.is_float else None
        while isinstance(origin, ir.Value):
            if origin.is_graph_input():
                raise WantsIntegers(origin.name)
            producer = origin.producer()
            origin = producer.inputs[0] if producer is not None and producer.op_type in _ON_INDICES else None
        return tensor if tensor.dtype == ir.DataType.INT64 else self.cast(tensor, ir.DataType.INT64)

    def scalar(self, number: float, like: ir.DataType = ir.DataType.FLOAT) -> Tensor:
        """A constant without dimensions, of the graph's type `like`."""
        return self.constant(np.asarray(number, dtype=like.numpy()))

    def promoted(self, *operands: Any) -> list[Tensor]:
        """Tensors and numbers as tensors of the one type that torch computes in: real ones win over whole ones, these
        over truth values, and within these tensors with dimensions over those without, and these over numbers."""
        best: tuple[int, int, ir.DataType] | None = None
        for operand in operands:
            rank, dtype = self._kind(operand)
            group = 2 if dtype == ir.DataType.FLOAT else 0 if dtype == ir.DataType.BOOL else 1
            if best is None or group > best[0] or (group == best[0] and rank > best[1]):
                best = (group, rank, dtype)
            elif group == best[0] == 1 and rank == best[1] and dtype != best[2]:
                wide = max(dtype, best[2], key=_INTEGERS.index)
                mixed = ir.DataType.UINT8 in (dtype, best[2]) and wide == ir.DataType.INT8
                best = (group, rank, ir.DataType.INT16 if mixed else wide)
        if best is None:
            return []
        return [self.cast(one, best[2]) if isinstance(one, Tensor) else self.scalar(one, best[2]) for one in operands]

    @staticmethod
    def _kind(operand: Any) -> tuple[int, ir.DataType]:
        if isinstance(operand, Tensor):
            return (2 if operand.rank else 1), operand.dtype
        if isinstance(operand, bool):
            return 0, ir.DataType.BOOL
        if isinstance(operand, int):
            return 0, ir.DataType.INT64
        if isinstance(operand, float):
            return 0, ir.DataType.FLOAT
        raise Refused("computes with something that is no tensor and no number")

    def reshape(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """The elements in another shape."""
        if tuple(shape) == tensor.shape:
            return tensor
        return self.emit("Reshape", tensor, [int(d) for d in shape])

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """The dimensions in another order."""
        if list(order) == list(range(len(order))):
            return tensor
        if tensor.is_constant:
            label = tensor.label
            return Tensor(eager.call("aten::permute", "", [tensor.content, list(order)]), label=label)
        return self.emit("Transpose", tensor, perm=list(order))

    def slice(self, tensor: Tensor, axis: int, start: int, end: int, step: int = 1) -> Tensor:
        """A range of one dimension; `end` is cut to the size."""
        size = tensor.shape[axis]
        if start == 0 and end >= size and step == 1:
            return tensor
        return self.emit("Slice", tensor, [start], [min(end, size)], [axis], [step])

    def gather(self, tensor: Tensor, axis: int, index: int) -> Tensor:
        """One place of a dimension, which goes."""
        return self.emit("Gather", tensor, np.asarray(index, np.int64), axis=axis)

    def expand(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Repeated along dimensions of one element until it has `shape`."""
        if tensor.shape == tuple(shape):
            return tensor
        return self.emit("Expand", tensor, [int(d) for d in shape])


def axis_of(dim: int, rank: int) -> int:
    """A dimension counted from the front. Raises Refused for one that is not there."""
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise Refused(f"names dimension {dim} of {rank}")
    return dim % max(rank, 1)


def axes_of(dims: Sequence[int], rank: int) -> list[int]:
    """Several dimensions counted from the front; all for none."""
    return [axis_of(dim, rank) for dim in dims] if dims else list(range(rank))
