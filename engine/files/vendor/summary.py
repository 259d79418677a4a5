"""A vendor's file as the summary that models of every kind are shown by: layers with their edges, read-only."""

from __future__ import annotations

import math

from engine.files.vendor.model import CONSTANT, WEIGHT, VendorModel, VendorPort, VendorTensor
from engine.summaries import Grid, LayerSummary, ModelSummary, TensorSummary

FRAMEWORK = "vendor's .rknn"
"""What ModelSummary.framework says of such a file."""

_PRECISIONS = ("int8", "int16", "float16")
BORDERS = ("InputOperator", "OutputOperator")
"""Nodes that hand over what is an input or output of the model already."""


def summary_of(model: VendorModel) -> ModelSummary:
    """The model as layers in the order of its file, each named by the first tensor that it makes.

    A layer's precision is that of what it makes. What a node reads that is made behind it is no edge.
    """
    names = _unique_names(model)
    inputs = [port.tensor for port in model.inputs if port.tensor is not None]
    made: dict[int, str] = {}
    layers: list[LayerSummary] = []
    for place in dict.fromkeys(inputs):
        tensor = model.tensors[place]
        made[place] = names[place]
        layers.append(
            LayerSummary(
                len(layers),
                names[place],
                "Input",
                (),
                tensor.shape,
                tensor.dtype,
                _precision(tensor),
                (),
                (names[place],),
            )
        )
    for node in model.nodes:
        outputs = [place for place in dict.fromkeys(node.outputs) if place not in made]
        if node.op in BORDERS or not outputs:
            continue
        tensor, name = model.tensors[outputs[0]], names[outputs[0]]
        reads = [place for place in dict.fromkeys(node.inputs) if place in made]
        layers.append(
            LayerSummary(
                len(layers),
                name,
                node.op if node.target == "npu" else f"{node.op} (CPU)",
                tuple(dict.fromkeys(made[place] for place in reads)),
                tensor.shape,
                tensor.dtype,
                _precision(tensor),
                _sources(node.name),
                tuple(names[place] for place in outputs),
                tuple(names[place] for place in reads),
            )
        )
        made.update(dict.fromkeys(outputs, name))
    return ModelSummary(
        model.path,
        FRAMEWORK,
        0,
        tuple(map(_port, model.inputs)),
        tuple(map(_port, model.outputs)),
        tuple(layers),
        sum(math.prod(tensor.shape) for tensor in model.tensors if tensor.kind in (WEIGHT, CONSTANT) and tensor.shape),
        model.target,
        _built(model),
        _notes(model),
    )


def _unique_names(model: VendorModel) -> list[str]:
    """A name for each tensor, none twice; one without a name goes by its index."""
    taken: set[str] = set()
    found = []
    for index, tensor in enumerate(model.tensors):
        name = tensor.name or f"tensor {index}"
        if name in taken:
            name = f"{name} ({index})"
        taken.add(name)
        found.append(name)
    return found


def _precision(tensor: VendorTensor) -> str:
    return tensor.dtype if tensor.dtype in _PRECISIONS else ""


def _sources(name: str) -> tuple[str, ...]:
    """The source's node, which the compiler writes behind its operator: `Conv:conv_a`."""
    source = name.partition(":")[2]
    return (source,) if source else ()


def _port(port: VendorPort) -> TensorSummary:
    grid = None
    if len(port.scale) == 1 and len(port.zero_point) <= 1 and port.native_dtype in ("int8", "uint8", "int16"):
        grid = Grid(port.native_dtype, port.scale[0], (port.zero_point or (0,))[0])
    return TensorSummary(
        port.name, port.shape, port.dtype, port.layout if port.layout in ("nchw", "nhwc") else "", grid
    )


def _built(model: VendorModel) -> str:
    """The precisions of the layers' results."""
    found = [tensor.dtype for tensor in model.tensors if tensor.kind in ("input", "output", "virtual")]
    return "+".join(one for one in _PRECISIONS if one in found) or "unknown"


def _notes(model: VendorModel) -> tuple[str, ...]:
    compiler = f" by the vendor's compiler {model.compiler}" if model.compiler else ""
    return (
        f"compiled{compiler}: it runs only on a board, and nothing of it can be changed",
        *(f"not read: {line}" for line in model.partial),
    )
