"""Makes a graph node by node, for the front ends of frameworks other than ONNX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError, UnsupportedOperator
from engine.graph.describe import mark_layout
from engine.graph.given import GivenParameters, given, keep
from engine.graph.names import Names
from engine.graph.provenance import mark_source, set_sources
from engine.graph.query import Array, constant, new_attribute, static_shape
from engine.graph.shapes import Inference

OPSET = 19
"""The standard opset that front ends write: the newest whose operators all run in float everywhere."""

_IR_VERSION = 9
_SHOWN = 20

Input = ir.Value | None


class GraphMaker:
    """A growing graph of static shapes.

    Every node's output types and shapes are inferred as it is added, so `shape(value)` is known at once and an
    impossible node is refused where it stands. Values are made before they are read: cycles cannot be written.
    `where` is the model file, for messages. What a framework has and nothing here can run is gathered by `refuse`, and
    `model` then raises one error that lists all of it.
    """

    def __init__(self, where: str, *, opset: int = OPSET) -> None:
        self.where = where
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="graph")
        self._model = ir.Model(self._graph, ir_version=_IR_VERSION, producer_name="rknn-tui")
        self._names = Names(self._graph)
        self._inference = Inference(self._model)
        self._nodes: dict[str, int] = {}
        self._refused: dict[str, None] = {}
        self._hints: dict[str, None] = {}

    def input(
        self, name: str, shape: Sequence[int], dtype: ir.DataType = ir.DataType.FLOAT, *, layout: str = ""
    ) -> ir.Value:
        """A new input of the model. `layout` of four dimensions: 'nchw' or 'nhwc'. Raises ModelError for a dimension
        below 1 and for a name that is taken, which callers see and must be able to rely on."""
        if any(not isinstance(dim, int) or dim < 1 for dim in shape):
            raise ModelError(f"input {name!r} has the shape {list(shape)}", where=self.where, hint="give its size")
        value = ir.val(self._own_name(name), dtype=dtype, shape=ir.Shape(list(shape)))
        if layout and len(shape) == 4:
            mark_layout(value, layout)
        self._graph.inputs.append(value)
        return value

    def constant(self, array: Array | Sequence[int] | float, name: str) -> ir.Value:
        """A new constant, under `name` with a number behind it where that is taken. Lists of Python's whole numbers
        become int64, floats float32."""
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return self._names.constant(name, array)

    def node(
        self, op_type: str, inputs: Sequence[Input], name: str, *, source: str = "", domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Add a node with one output called `name` (with a number behind it where that is taken); returns the output.

        `source` is the source model's node, as a person would look for it there; `name` where not given. `attributes`
        are Python values; None leaves one out. Raises ModelError where the operator does not fit its inputs.
        """
        return self.nodes(op_type, inputs, [name], source=source, domain=domain, **attributes)[0]

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[Input],
        names: Sequence[str],
        *,
        source: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Like `node`, for several outputs; an empty name leaves one out."""
        given = [new_attribute(key, value) for key, value in attributes.items() if value is not None]
        outputs = [ir.val(self._names.fresh(name) if name else "") for name in names]
        source = source or names[0]
        # ONNX Runtime speaks of nodes by name, and wants no name twice.
        count = self._nodes[source] = self._nodes.get(source, 0) + 1
        name = source if count == 1 else f"{source}_{count}"
        node = ir.Node(domain, op_type, list(inputs), given, outputs=outputs, name=name)
        set_sources(node, [source])
        try:
            self._inference.infer(node)
        except ModelError as error:
            raise type(error)(error.what, where=f"{self.where}: {source}", hint=error.hint) from error
        self._graph.append(node)
        if domain:
            self._graph.opset_imports.setdefault(domain, 1)
        return outputs

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of a value of this graph. Raises ModelError where it depends on data."""
        try:
            return static_shape(value)
        except ValueError as error:
            raise ModelError(f"the shape of {value.name!r} depends on data", where=self.where) from error

    def array(self, value: ir.Value | None) -> Array | None:
        """What a constant holds; None for what is computed."""
        return constant(value)

    def quantized(
        self,
        value: ir.Value,
        dtype: str,
        scale: Iterable[float],
        zero_point: Iterable[int],
        axis: int | None = None,
    ) -> ir.Value:
        """Note the quantization parameters that the source model has for a value; returns the value.

        `dtype` is the source's: 'int8', 'uint8', 'int16', 'uint16', 'int32'; unsigned grids become the equal signed
        ones. `axis` is None for one pair. A constant's array is its real values. Raises ModelError for parameters that
        are none.
        """
        where = f"{self.where}: tensor {value.name!r}"
        parameters = GivenParameters.of(dtype, scale, zero_point, axis, where=where)
        # Where the same grid is written in other integers, an input is told in the first, and an output in the last.
        if not value.is_graph_input() or given(value) != parameters:
            keep(value, dataclasses.replace(parameters, integers=True))
        return value

    def rename(self, value: ir.Value, name: str) -> ir.Value:
        """Call a value `name`, as where the source's name was not known when it was made; returns the value."""
        value.name = self._names.fresh(name)
        return value

    def refuse(self, operator: str, node: str, detail: str = "", hint: str = "") -> None:
        """Note that nothing here can do what `node` asks of `operator`; `detail` says what of it. Go on as well as can
        be, so that all that is wrong is told at once; `model` raises."""
        self._refused[f"{operator} ({node}{': ' if detail else ''}{detail})"] = None
        if hint:
            self._hints[hint] = None

    def check_refused(self) -> None:
        """Raise UnsupportedOperator with all that was refused, if anything was."""
        if not self._refused:
            return
        shown = list(self._refused)[:_SHOWN]
        more = len(self._refused) - len(shown)
        text = ", ".join(shown) + (f" and {more} more" if more else "")
        hints = [*self._hints, "cut them off with `inputs` and `outputs`, or export the model without them"]
        raise UnsupportedOperator(f"unsupported operators: {text}", where=self.where, hint="; ".join(hints))

    def model(self, outputs: Sequence[ir.Value], names: Sequence[str] | None = None) -> ir.Model:
        """The finished model with these outputs, called `names` where given; raises UnsupportedOperator if anything was
        refused.

        An output that is an input or a constant, or comes twice, is passed through a node of its own.
        """
        self.check_refused()
        if not outputs:
            raise ModelError("has no outputs", where=self.where)
        inputs = set(self._graph.inputs)
        names = names or [value.name or "output" for value in outputs]
        for value, name in zip(outputs, names, strict=True):
            if value in inputs or value.is_initializer() or value in self._graph.outputs:
                value = self.node("Identity", [value], name)
            elif value.name != name:
                self.rename(value, name)
            self._graph.outputs.append(value)
        mark_source(self._graph)
        return self._model

    def _own_name(self, name: str) -> str:
        fresh = self._names.fresh(name)
        if not name or fresh != name:
            raise ModelError(f"input {name!r} is there twice, or has no name", where=self.where)
        return fresh
