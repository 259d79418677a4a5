"""Builds ONNX protobufs that hold copies of a graph's nodes beside new ones: for measuring, simulating, comparing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir

from engine.graph.names import Names

Array = np.ndarray[Any, Any]

# ONNX Runtime refuses models of an IR version newer than it knows; this one carries everything used here.
_IR_VERSION = 9


class GraphBuilder:
    """A growing GraphProto over the inputs, constants and opsets of `model`, or over other tensors of it as `inputs`.

    Tensor names are made unique by `name`, which goes by `names` where given; constants are shared by key, and those of
    the model are added when first used.
    """

    def __init__(
        self, model: ir.Model, title: str, inputs: Sequence[ir.Value] | None = None, names: Names | None = None
    ) -> None:
        self._model = model
        self._proto = onnx.ModelProto(ir_version=max(model.ir_version or _IR_VERSION, _IR_VERSION))
        for domain, version in model.graph.opset_imports.items():
            self._proto.opset_import.add(domain=domain, version=version)
        self._graph = self._proto.graph
        self._graph.name = title
        self._constants: set[str] = set()
        self._arrays: dict[str, str] = {}
        self._names = names or Names(model.graph)
        for value in model.graph.inputs if inputs is None else inputs:
            self._graph.input.append(ir.serde.serialize_value(value))
        self._protos: dict[ir.Node, onnx.NodeProto] = {}

    def name(self, base: str) -> str:
        """A tensor name that nothing has, made from `base`."""
        return self._names.fresh(base)

    def node(self, op_type: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's unique name. `domain` '' is the standard's."""
        result = self.name(output)
        if domain and all(entry.domain != domain for entry in self._proto.opset_import):
            self._proto.opset_import.add(domain=domain, version=1)
        self._graph.node.append(onnx.helper.make_node(op_type, list(inputs), [result], domain=domain, **attributes))
        return result

    def copy(
        self,
        node: ir.Node,
        read: Callable[[str], str],
        write: Callable[[str], str],
        constants: Mapping[int, str] | None = None,
    ) -> None:
        """Add a copy of a node of the model that reads and writes tensors under other names.

        `constants` are names that take certain places among its inputs, or the next one behind them; the rest go
        through `read`. Nodes with subgraphs do not get here: the front ends decide or refuse them.
        """
        proto = self._protos.get(node)
        if proto is None:
            proto = self._protos[node] = ir.serde.serialize_node(node)
            proto.ClearField("metadata_props")
            proto.ClearField("name")
        copied = self._graph.node.add()
        copied.CopyFrom(proto)
        placed = dict(constants or {})
        for index, name in enumerate(copied.input):
            if index in placed:
                copied.input[index] = placed.pop(index)
            elif name:
                copied.input[index] = read(name)
        copied.input.extend(placed.values())
        for index, name in enumerate(copied.output):
            if name:
                copied.output[index] = write(name)

    def copy_plain(self, node: ir.Node) -> None:
        """Add a copy of a node of the model under its own names, with the model's constants."""
        constants = self._model.graph.initializers
        self.copy(node, lambda name: self.constant(name) if name in constants else name, lambda name: name)

    def constant(self, name: str) -> str:
        """The model's constant `name`, unchanged."""
        if name not in self._constants:
            tensor = self._model.graph.initializers[name].const_value
            assert tensor is not None
            proto = ir.serde.serialize_tensor(tensor)
            proto.name = name
            self._graph.initializer.append(proto)
            self._constants.add(name)
        return name

    def array(self, key: str, array: Array) -> str:
        """The name of a new constant, made from `key`; the same `key` is added once."""
        if key not in self._arrays:
            # The model may have a tensor of that name: batch normalizations call theirs `NAME.scale`.
            self._arrays[key] = self.name(key)
            self._graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), self._arrays[key]))
        return self._arrays[key]

    def output(self, name: str) -> None:
        """Let `name` be an output of the built graph."""
        self._graph.output.add(name=name)

    def give(self, source: str, base: str) -> str:
        """Let the built graph give `source` out; returns the output's name, made from `base`.

        A copy, since ONNX Runtime gives out no graph input, no constant, and no tensor twice.
        """
        output = self.node("Identity", [source], base)
        self.output(output)
        return output

    def build(self) -> onnx.ModelProto:
        """The model built so far."""
        return self._proto
