"""The layer view: which nodes the NPU runs as one step, and what flows between the steps.

Fusions follow what the toolkit's compiler does (ConvRelu, ConvAdd, ConvAddRelu, ConvExSwish, ConvHardSwish,
ConvHardSigmoid, ConvClip, BatchNormalizationRelu, AddRelu, exSwish); exLog is ours. The graph itself is not changed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from engine.graph.given import given
from engine.graph.provenance import sources
from engine.graph.query import Array, constant, sole_consumer, static_shape

CONVOLUTIONS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ACTIVATED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization"}
_FLOORS = {"Add", "Clip", "Max"}
_LEADS_TO_LOGARITHM = _FLOORS | {
    "Abs",
    "Div",
    "Mul",
    "Pow",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "Sqrt",
    "Sub",
}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One step of the NPU, named by its (first) output tensor.

    nodes: in execution order. inputs: tensors read that other layers or the caller make, without doubles.
    outputs: tensors that others read. inner: tensors that never leave the layer and are not quantized.
    """

    name: str
    op: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    inner: tuple[str, ...] = ()

    @property
    def last(self) -> ir.Node:
        """The node that makes the layer's output."""
        return self.nodes[-1]

    @property
    def on_processor(self) -> bool:
        """Whether the processor computes the layer, in float32 and with its constants as they are."""
        return self.last.op_type == "Log"

    @property
    def sources(self) -> tuple[str, ...]:
        """The source model's nodes that the layer stands for."""
        return tuple(dict.fromkeys(label for node in self.nodes for label in sources(node)))


def layers(model: ir.Model) -> tuple[Layer, ...]:
    """The graph's layers in execution order; every node is in exactly one."""
    graph = model.graph
    position = {node: index for index, node in enumerate(graph)}
    group: dict[ir.Node, tuple[ir.Node, ...]] = {}
    names: dict[ir.Node, str] = {}
    for node in graph:
        members = _logarithm(node)
        if len(members) > 1:
            group.update(dict.fromkeys(members, members))
            names[node] = "exLog"
    for node in graph:
        if node in group:
            continue
        members, op = _fuse(node, position)
        if any(member in group for member in members):
            members, op = (node,), node.op_type
        ordered = tuple(sorted(members, key=position.__getitem__))
        for member in ordered:
            group[member] = ordered
        names[ordered[-1]] = op
    return tuple(_layer(names[node], group[node]) for node in graph if group[node][-1] is node)


def _layer(op: str, nodes: tuple[ir.Node, ...]) -> Layer:
    inside = {v for node in nodes for v in node.outputs}
    inputs = dict.fromkeys(
        v.name or ""
        for node in nodes
        for v in node.inputs
        if v is not None and v not in inside and not v.is_initializer()
    )
    outputs = tuple(v.name for v in nodes[-1].outputs if v.name)
    inner = tuple(v.name for node in nodes[:-1] for v in node.outputs if v.name)
    return Layer(outputs[0], op, nodes, tuple(inputs), outputs, inner)


def _fuse(node: ir.Node, position: dict[ir.Node, int]) -> tuple[tuple[ir.Node, ...], str]:
    """The nodes that run in one step with `node` as the first of them, and the step's name."""
    op = node.op_type
    if op == "Sigmoid":
        swish = _swish(node)
        if swish is not None:
            return (node, swish), "exSwish"
        return (node,), op
    if op not in _ACTIVATED or (op in CONVOLUTIONS and not _convolves(node)):
        return (node,), op
    out = node.outputs[0]
    if op in CONVOLUTIONS:
        readers = {use.node for use in out.uses()}
        if len(readers) == 2 and not out.is_graph_output() and given(out) is None:
            sigmoid = next((r for r in readers if r.op_type == "Sigmoid"), None)
            product = _swish(sigmoid) if sigmoid is not None else None
            if sigmoid is not None and product in readers and len(out.uses()) == 2:
                return (node, sigmoid, product), op + "ExSwish"
    reader = sole_consumer(out)
    # A tensor with a grid of its own from the source model is quantized where that model quantizes it.
    if reader is None or given(out) is not None:
        return (node,), op
    if op in CONVOLUTIONS:
        if reader.op_type in ("HardSwish", "HardSigmoid"):
            return (node, reader), op + reader.op_type
        if _is_residual_add(reader, out, position):
            activation = _activation(reader)
            return (
                ((node, reader), op + "Add")
                if activation is None
                else ((node, reader, activation), op + "Add" + activation.op_type)
            )
    activation = _activation(node)
    return ((node,), op) if activation is None else ((node, activation), op + activation.op_type)


def _logarithm(log: ir.Node) -> tuple[ir.Node, ...]:
    """What computes log(x + floor), where float16 has no number as small as the floor, in execution order.

    No NPU has a logarithm: the processor computes it, and what makes its argument with it, in float32. In float16 the
    floor would be 0, and the logarithm of silence minus infinity.
    """
    if log.op_type != "Log":
        return (log,)
    found, floored = [log], False
    while (node := _sole_producer(found[-1])) is not None and node.op_type in _LEADS_TO_LOGARITHM:
        floors = [constant(v) for v in node.inputs if v is not None] if node.op_type in _FLOORS else []
        floored |= any(_too_small(array) for array in floors if array is not None)
        found.append(node)
    return tuple(reversed(found)) if floored else (log,)


def _sole_producer(node: ir.Node) -> ir.Node | None:
    """What makes all that `node` reads but constants, if nothing else reads it and it has no grid of its own."""
    read = {value for value in node.inputs if value is not None and constant(value) is None}
    if len(read) != 1:
        return None
    (value,) = read
    if value.is_graph_output() or given(value) is not None or {use.node for use in value.uses()} != {node}:
        return None
    return value.producer()


def _too_small(array: Array) -> bool:
    """Whether all of `array` lies between 0 and the smallest normal number of float16."""
    return bool(array.size and array.min() > 0 and array.max() < np.finfo(np.float16).smallest_normal)


def _activation(node: ir.Node) -> ir.Node | None:
    """The Relu, or Clip between constants, that alone reads the node's output."""
    reader = sole_consumer(node.outputs[0])
    if reader is None or given(node.outputs[0]) is not None:
        return None
    if reader.op_type == "Relu":
        return reader
    if reader.op_type == "Clip" and all(v is None or constant(v) is not None for v in reader.inputs[1:]):
        return reader
    return None


def _swish(sigmoid: ir.Node) -> ir.Node | None:
    """The Mul of x * sigmoid(x), if nothing else reads the sigmoid and it has no grid of its own."""
    gate = sigmoid.outputs[0]
    product = sole_consumer(gate)
    if product is None or product.op_type != "Mul" or sigmoid.inputs[0] not in product.inputs:
        return None
    return product if given(gate) is None else None


def _convolves(node: ir.Node) -> bool:
    """Whether `node` is a convolution, or a product with a constant, which the NPU runs as one."""
    if node.op_type not in CONVOLUTIONS:
        return False
    return node.op_type not in ("Gemm", "MatMul") or constant(node.inputs[1]) is not None


def _is_residual_add(add: ir.Node, out: ir.Value, position: dict[ir.Node, int]) -> bool:
    """Whether `add` joins `out` with another computed tensor of the same shape, and this convolution is its last."""
    if add.op_type != "Add":
        return False
    other = add.inputs[1] if add.inputs[0] is out else add.inputs[0]
    if other is None or other is out or other.is_initializer():
        return False
    if other.shape is None or out.shape is None or static_shape(other) != static_shape(out):
        return False
    rival = other.producer()
    if rival is None or not _convolves(rival) or sole_consumer(other) is not add or given(other) is not None:
        return True
    me = out.producer()
    return me is not None and position[rival] < position[me]
