"""Walks the operators of a TFLite graph and hands each to its function; keeps what they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.flatbuffers import absent
from engine.frontends import nhwc
from engine.frontends.making import GraphMaker
from engine.frontends.nhwc import Grid, Place, Tensor
from engine.frontends.reading import CORRUPT
from engine.frontends.tflite.network import Network, OperatorInfo, SubgraphInfo, TensorInfo, real_values
from engine.frontends.tflite.schema import ACTIVATIONS, OTHER_TYPES, TABLES
from engine.graph.query import Array

_DEEPEST = 16
# Enough for any real model with its loops written out; what a small file can ask for is without bound.
_MOST_INLINED = 1 << 13
_LARGEST_STATE = 1 << 24
# With these a layer is one step together with the activation behind it; see engine.graph.layers.
_FUSING = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "ADD", "CONV_3D"}


@dataclasses.dataclass(frozen=True)
class Handler:
    """What reads one operator: its function, the table of its options, and the ONNX operators that it becomes."""

    function: Callable[[Op], None]
    options: str
    becomes: tuple[str, ...]


_COMPLEX = {"COMPLEX_ABS", "IMAG", "REAL"}

HANDLERS: dict[str, Handler] = {}
"""All operators that are read, by name."""


def operator(
    kinds: str, becomes: str, options: str = "NoOptions"
) -> Callable[[Callable[[Op], None]], Callable[[Op], None]]:
    """Register the function that reads the operators `kinds`, with what they become, in words parted by spaces."""

    def register(function: Callable[[Op], None]) -> Callable[[Op], None]:
        for kind in kinds.split():
            HANDLERS[kind] = Handler(function, options, tuple(sorted(becomes.split())))
        return function

    return register


class Refusal(Exception):
    """Raised by an operator's function where it cannot do what is asked: `detail`, and what could be done."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class Conversion:
    """The graph being made of one subgraph; inner ones are written into the same graph under a `prefix`."""

    def __init__(
        self, maker: GraphMaker, network: Network, subgraph: SubgraphInfo, *, prefix: str = "", depth: int = 0
    ) -> None:
        self.maker = maker
        self.network = network
        self.subgraph = subgraph
        self.prefix = prefix
        self.depth = depth
        self.lost: set[int] = set()
        self.known: dict[int, Tensor] = {}
        self.imaginary: dict[int, Tensor] = {}
        self.budget = [_MOST_INLINED]

    def place(self, index: int, source: str = "") -> Place:
        """Where the tensor of that number goes."""
        name = self.prefix + self.subgraph.tensors[index].name
        return Place(self.maker, name, source or name)

    def tensor(self, index: int) -> Tensor:
        """The tensor of that number. Raises ModelError where nothing makes it."""
        if index not in self.known:
            self.known[index] = self._stored(index)
        return self.known[index]

    def _stored(self, index: int) -> Tensor:
        info = self.subgraph.tensors[index]
        place = self.place(index)
        if info.variable:  # what a model remembers from run to run starts at zero
            if math.prod(info.shape) > _LARGEST_STATE:
                raise ModelError(f"tensor {info.name!r} has the shape {list(info.shape)}", where=self.maker.where)
            return Tensor.constant(np.zeros(info.shape, np.float32), place)
        stored = info.stored
        if stored is None and 0 in info.shape and info.dtype not in OTHER_TYPES.values():
            stored = np.zeros(info.shape, info.dtype)
        if stored is None:
            detail = f"of the type {info.dtype} " if info.dtype in OTHER_TYPES.values() else ""
            raise ModelError(
                f"tensor {info.name!r} {detail}is read, but nothing makes it",
                where=self.maker.where,
                hint=CORRUPT,
            )
        if info.quantized and info.grid is not None:
            return Tensor.constant(real_values(stored, info.grid), place, info.grid)
        if info.dtype in ("float16", "float64"):
            stored = stored.astype(np.float32)
        return Tensor.constant(stored, place)

    def needed(self, wanted: Sequence[int]) -> list[OperatorInfo]:
        """The operators that make the tensors `wanted` from what is known, in order."""
        makers = {output: number for number, op in enumerate(self.subgraph.operators) for output in op.outputs}
        chosen: set[int] = set()
        waiting = list(wanted)
        while waiting:
            index = waiting.pop()
            number = makers.get(index, -1)
            if index not in self.known and number >= 0 and number not in chosen:
                if self.subgraph.operators[number].kind == "VAR_HANDLE":
                    continue  # names a variable; what reads it finds its content
                chosen.add(number)
                waiting += [i for i in self.subgraph.operators[number].inputs if i >= 0]
        return [self.subgraph.operators[number] for number in sorted(chosen)]

    def run(self, wanted: Sequence[int]) -> None:
        """Write what makes the tensors `wanted` into the graph."""
        operators = self.needed(wanted)
        if self.depth:
            self.budget[0] -= 1 + len(operators)
        if self.budget[0] < 0:
            what = f"calls graphs of more than {_MOST_INLINED} operators in all"
            raise ModelError(what, where=self.maker.where, hint="export the model without loops")
        for info in operators:
            self._convert(info)

    def _convert(self, info: OperatorInfo) -> None:
        handler = HANDLERS.get(info.shown)
        name = self.subgraph.tensors[info.outputs[0]].name if info.outputs else "?"
        if handler is None:
            self.maker.refuse(info.shown, name, "", _hint(info))
        elif self.lost.intersection(info.inputs):
            pass  # what it reads was refused already
        else:
            try:
                op = Op(self, info, handler)
                handler.function(op)
                return
            except Refusal as refusal:
                self.maker.refuse(info.shown, name, refusal.detail, refusal.hint)
        self.lost.update(info.outputs)

    def inline(self, number: int, inputs: Sequence[Tensor], prefix: str) -> list[Tensor]:
        """The outputs of another subgraph for these inputs, written into this graph. Raises ModelError."""
        graphs = self.network.subgraphs
        if not 0 < number < len(graphs) or len(graphs[number].inputs) != len(inputs):
            raise ModelError("calls a graph that is not there", where=self.maker.where, hint=CORRUPT)
        if self.depth >= _DEEPEST:
            raise ModelError("calls graphs in a circle", where=self.maker.where, hint=CORRUPT)
        inner = Conversion(self.maker, self.network, graphs[number], prefix=prefix, depth=self.depth + 1)
        inner.budget = self.budget
        inner.known = dict(zip(graphs[number].inputs, inputs, strict=True))
        inner.run(graphs[number].outputs)
        if any(index in inner.lost for index in graphs[number].outputs):
            raise Refusal("its graph has unsupported operators")
        return [inner.tensor(index) for index in graphs[number].outputs]


def _hint(info: OperatorInfo) -> str:
    if info.custom == "TFLite_Detection_PostProcess":
        return "name the tensors that TFLite_Detection_PostProcess reads as `outputs`, and run it on the host"
    if info.custom.startswith("Flex"):
        return "export the model with TFLite's own operators only"
    return ""


class Op:
    """One operator as its function sees it."""

    def __init__(self, conversion: Conversion, info: OperatorInfo, handler: Handler) -> None:
        self.conversion = conversion
        self.kind = info.kind
        self.info = info
        self.options: Any = info.table.view(handler.options) or absent(TABLES[handler.options])
        self.source = conversion.place(info.outputs[0]).name if info.outputs else ""

    @property
    def maker(self) -> GraphMaker:
        """The graph that is being made."""
        return self.conversion.maker

    @property
    def count(self) -> int:
        """How many inputs there are, absent ones included."""
        return len(self.info.inputs)

    def has(self, index: int) -> bool:
        """Whether the input of that place is there."""
        return index < len(self.info.inputs) and self.info.inputs[index] >= 0

    def input(self, index: int) -> Tensor:
        """The input of that place, of complex numbers the real part. Raises ModelError where it is absent."""
        if not self.has(index):
            raise self.error(f"lacks its input {index}")
        if self.info.inputs[index] in self.conversion.imaginary and self.kind not in _COMPLEX:
            raise Refusal("reads complex numbers")
        return self.conversion.tensor(self.info.inputs[index])

    def optional(self, index: int) -> Tensor | None:
        """The input of that place, or None."""
        return self.input(index) if self.has(index) else None

    def inputs(self) -> list[Tensor]:
        """All inputs; none is absent."""
        return [self.input(index) for index in range(self.count)]

    def tensor_info(self, index: int) -> TensorInfo:
        """What the file says of the input of that place."""
        if not self.has(index):
            raise self.error(f"lacks its input {index}")
        return self.conversion.subgraph.tensors[self.info.inputs[index]]

    def numbers(self, index: int) -> list[int]:
        """The whole numbers in the input of that place, which constants must decide."""
        found = self.input(index).integers()
        if found is None:
            name = self.tensor_info(index).name
            raise Refusal(f"its input {name!r} is not a constant")
        return found

    def array(self, index: int) -> Array:
        """The values in the input of that place, which constants must decide."""
        found = self.input(index).array
        if found is None:
            raise Refusal(f"its input {self.tensor_info(index).name!r} is not a constant")
        return found

    def number(self, index: int) -> int:
        """The one whole number in the input of that place."""
        found = self.numbers(index)
        if len(found) != 1:
            raise self.error(f"reads {len(found)} numbers where one is due")
        return found[0]

    def place(self, index: int = 0) -> Place:
        """Where the output of that place goes."""
        if index >= len(self.info.outputs):
            raise self.error("has too few outputs")
        return self.conversion.place(self.info.outputs[index], self.source)

    def places(self) -> list[Place]:
        """Where all outputs go."""
        return [self.place(index) for index in range(len(self.info.outputs))]

    def output_info(self, index: int = 0) -> TensorInfo:
        """What the file says of the output of that place."""
        if index >= len(self.info.outputs):
            raise self.error("has too few outputs")
        return self.conversion.subgraph.tensors[self.info.outputs[index]]

    def output_type(self, index: int = 0) -> ir.DataType:
        """The type that the output of that place has in the graph."""
        info = self.output_info(index)
        if info.quantized or info.dtype in ("float16", "float64"):
            return ir.DataType.FLOAT
        if info.dtype in OTHER_TYPES.values():
            raise Refusal(f"makes {info.dtype}")
        return ir.DataType.from_numpy(np.dtype(info.dtype))

    def set(self, tensor: Tensor, index: int = 0) -> None:
        """Let `tensor` be the output of that place."""
        if index < len(self.info.outputs):
            info = self.output_info(index)
            if info.quantized and tensor.dtype == ir.DataType.FLOAT:
                tensor.quantized(info.grid)
            self.conversion.known[self.info.outputs[index]] = tensor

    def make(self, function: Callable[[Place], Tensor], activation: int = 0) -> None:
        """Let what `function` makes, with a fused activation, be the output."""
        if not activation:
            self.set(function(self.place()))
            return
        kind = ACTIVATIONS.get(activation)
        if kind is None:
            raise Refusal(f"its activation has the number {activation}")
        inner = function(self.place().within("linear"))
        info = self.output_info()
        if info.quantized and inner.dtype == ir.DataType.FLOAT and self.kind not in _FUSING:
            # Both have the grid's ends, so rounding before the activation as well changes nothing.
            inner.quantized(info.grid)
        self.set(nhwc.activation(inner, self.place(), kind))

    def bias(self, index: int, x: Tensor, weights: Tensor) -> Tensor | None:
        """A bias: of integers it is in steps of the product of the scales of `x` and `weights`."""
        if not self.has(index):
            return None
        bias = self.input(index)
        if bias.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return bias
        stored = bias.array
        if stored is None or x.grid is None or weights.grid is None or x.grid.axis is not None:
            raise Refusal("its bias is of integers, and not its input or weights")
        scale = np.array(weights.grid.scale, np.float64) * x.grid.scale[0]
        if scale.size not in (1, stored.size):
            raise self.error(f"has {scale.size} scales for {stored.size} biases")
        scale = np.maximum(scale, float(np.finfo(np.float32).tiny))
        real = (stored.reshape(-1).astype(np.float64) * scale).astype(np.float32)
        grid = Grid("int32", tuple(scale.tolist()), (0,) * scale.size, 0 if scale.size > 1 else None)
        return Tensor.constant(real, bias.place, grid)

    def error(self, what: str) -> ModelError:
        """An error that names the operator."""
        return ModelError(what, where=f"{self.maker.where}: {self.source} ({self.info.shown})", hint=CORRUPT)


def operators_read() -> Mapping[str, tuple[str, ...]]:
    """Every operator that is read, and what it becomes."""
    return {kind: HANDLERS[kind].becomes for kind in sorted(HANDLERS)}
