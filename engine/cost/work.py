"""What each layer of a graph has to do, apart from precisions: multiplications, what is read and written, and shapes.

A layer is its main step, such as a convolution, with what is fused to it; the activations of a fused layer take no
time of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Literal

import onnx_ir as ir

from engine.cost.convolution import Convolution, mean_over_positions
from engine.cost.node_facts import facts_of
from engine.cost.placement import NO_FACTS, Facts
from engine.graph.layers import CONVOLUTIONS, FLOATS, Layer
from engine.graph.operators import REORDERINGS
from engine.graph.query import attribute, constant, static_shape, tensors
from engine.quantization.weights import output_channel_axis

Shape = tuple[int, ...]
Kind = Literal["convolution", "window", "elementwise", "movement", "reduction", "recurrent", "nothing"]

_WINDOWS = {"AveragePool", "MaxPool", "LpPool"}
_REDUCTIONS = {
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalLpPool",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceSum",
}
_MOVEMENTS = REORDERINGS | {
    *("Concat", "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Resize", "Slice"),
    *("SpaceToDepth", "Split", "Tile", "Upsample"),
}
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclasses.dataclass(frozen=True)
class LayerWork:
    """One layer's work.

    `main` is the node that it is about, and `kind` what that does. `convolution` is there for convolutions and
    products, `stages` for what becomes several of them, one after the other. `reads` and `writes` are names of tensors.
    `in_shapes` has the activations, then weights and biases of the main node, then what else the layer reads;
    `read_shapes` those of `reads`, and whether they hold floats. `window` are the positions of a pool's window, or
    those that a reduction takes together. `constants` counts the numbers of constants other than the convolution's own.
    `facts` decide whether the NPU or the processor runs it.
    """

    layer: Layer
    main: ir.Node
    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_shapes: tuple[Shape, ...]
    out_shapes: tuple[Shape, ...]
    read_shapes: tuple[tuple[Shape, bool], ...]
    convolution: Convolution | None = None
    stages: tuple[Convolution, ...] = ()
    window: int = 1
    constants: int = 0
    macs: int = 0
    facts: Facts = NO_FACTS


def shapes_of(model: ir.Model) -> dict[str, Shape]:
    """The shape of every tensor of the graph, by name."""
    return {value.name or "": static_shape(value) for value in tensors(model.graph)}


def work_of(layer: Layer, shapes: dict[str, Shape], integers: Collection[str]) -> LayerWork:
    """What a layer has to do; `shapes` has those of all tensors, `integers` names those that are not of floats."""
    main = next((node for node in layer.nodes if node.op_type in CONVOLUTIONS), layer.nodes[0])
    out_shapes = tuple(shapes[name] for name in layer.outputs)
    # Products of integers are no work for the multipliers, which take quantized numbers.
    product = main.op_type in CONVOLUTIONS and layer.name not in integers
    convolution, facts = _convolution(main, layer, shapes) if product else None, facts_of(main, shapes)
    kind: Kind = "convolution" if convolution is not None else _kind(main.op_type)
    macs = convolution.macs if convolution is not None else _recurrent_macs(main, shapes) if kind == "recurrent" else 0
    return LayerWork(
        layer,
        main,
        kind,
        layer.inputs,
        layer.outputs,
        _in_shapes(main, layer, shapes),
        out_shapes,
        tuple((shapes[name], name not in integers) for name in layer.inputs),
        convolution,
        _stages(main, layer, shapes, facts),
        _window(main, kind, shapes),
        _constants(layer, main if convolution is not None else None),
        macs,
        facts,
    )


def is_float(value: ir.Value | None) -> bool:
    """Whether the tensor holds numbers that precisions are about."""
    return value is not None and value.dtype in FLOATS


def _kind(operator: str) -> Kind:
    if operator in _WINDOWS:
        return "window"
    if operator in _REDUCTIONS:
        return "reduction"
    if operator in _RECURRENT:
        return "recurrent"
    if operator in ("Identity", "Dropout", "Constant", "Shape"):
        return "nothing"
    return "movement" if operator in _MOVEMENTS else "elementwise"


def _shape(value: ir.Value | None, shapes: dict[str, Shape]) -> Shape:
    if value is None:
        return ()
    known = shapes.get(value.name or "")
    return static_shape(value) if known is None else known


def _convolution(node: ir.Node, layer: Layer, shapes: dict[str, Shape]) -> Convolution | None:
    source, weight = _shape(node.inputs[0], shapes), _shape(node.inputs[1], shapes)
    out = _shape(node.outputs[0], shapes)
    if not source or not weight or not out or not math.prod(weight) or not math.prod(out):
        return None
    bias = len(node.inputs) > 2 and node.inputs[2] is not None
    added = any(other.op_type == "Add" for other in layer.nodes)
    weighed, given_out = constant(node.inputs[1]) is not None, layer.last.outputs[0].is_graph_output()
    if node.op_type in ("Gemm", "MatMul"):
        axis = output_channel_axis(node)
        outputs = out[-1] if axis is None else weight[axis]
        inputs = source[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else source[-1]
        rows = out[-2] if len(out) > 1 else 1
        batch = math.prod(out) // (rows * outputs)
        return Convolution(batch, inputs, outputs, rows, rows, 1, 1, bias, added, weighed, given_out)
    groups = int(attribute(node, "group", 1))
    return Convolution(
        source[0], source[1], out[1], math.prod(source[2:]), math.prod(out[2:]), math.prod(weight[2:]),
        groups, bias, added, weighed, given_out, node.op_type == "ConvTranspose",
    )  # fmt: skip


def _stages(node: ir.Node, layer: Layer, shapes: dict[str, Shape], facts: Facts) -> tuple[Convolution, ...]:
    """The convolutions that a mean over height and width becomes; none for all else."""
    mean = node.op_type == "GlobalAveragePool" or (node.op_type == "ReduceMean" and sorted(facts.axes) == [2, 3])
    source = _shape(node.inputs[0], shapes) if mean else ()
    if len(source) != 4:
        return ()
    return mean_over_positions(source[0], source[1], source[2:], layer.last.outputs[0].is_graph_output())


def _in_shapes(main: ir.Node, layer: Layer, shapes: dict[str, Shape]) -> tuple[Shape, ...]:
    """Of the main node's inputs, then of the tensors that the other nodes read."""
    own = [value for value in main.inputs if value is not None]
    found = [
        _depthwise_shape(main, _shape(value, shapes)) if index == 1 else _shape(value, shapes)
        for index, value in enumerate(own)
    ]
    named = {value.name for value in own}
    return (*found, *(shapes[name] for name in layer.inputs if name not in named))


def _depthwise_shape(node: ir.Node, weight: Shape) -> Shape:
    """The toolkit's tables write a depthwise convolution's weights as 1 x channels."""
    if (
        node.op_type == "Conv"
        and len(weight) > 2
        and weight[1] == 1
        and int(attribute(node, "group", 1)) == weight[0] > 1
    ):
        return (1, weight[0], *weight[2:])
    return weight


def _window(node: ir.Node, kind: Kind, shapes: dict[str, Shape]) -> int:
    if kind == "window":
        return math.prod(attribute(node, "kernel_shape", (1,)))
    if kind == "reduction":
        taken = math.prod(_shape(node.inputs[0], shapes))
        return max(taken // max(math.prod(_shape(node.outputs[0], shapes)), 1), 1)
    return 1


def _recurrent_macs(node: ir.Node, shapes: dict[str, Shape]) -> int:
    """Steps times batch times gates times hidden size times what a gate reads, in each direction."""
    steps, batch, inputs = _shape(node.inputs[0], shapes)
    hidden = int(attribute(node, "hidden_size", 1))
    directions = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
    return steps * batch * directions * _RECURRENT[node.op_type] * hidden * (inputs + hidden)


def _constants(layer: Layer, weighed: ir.Node | None) -> int:
    """Numbers in float constants, but for the weights and biases of `weighed`."""
    found = 0
    for node in layer.nodes:
        if node is weighed:
            continue
        for value in node.inputs:
            if value is not None and value.is_initializer() and is_float(value):
                found += math.prod(static_shape(value))
    return found
