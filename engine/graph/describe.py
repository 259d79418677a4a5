"""What a person is told of a graph: inputs and outputs with their layouts, layers, size."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from engine.graph.given import given
from engine.graph.layers import Layer
from engine.graph.query import attribute, sole_consumer, static_shape, tensors
from engine.summaries import LayerSummary, TensorSummary

_LAYOUT = "rknn_tui.layout"
_OPSET = "rknn_tui.opset"
# What exporters put between an image input and the transpose that turns NHWC into NCHW.
_PREPROCESSING = {"Cast", "Mul", "Div", "Sub", "Add", "Clip", "Identity", "Pad"}


def mark_layouts(model: ir.Model) -> None:
    """Note each four-dimensional input's layout: NHWC when a transpose to NCHW is the first real step, else NCHW.

    What a front end noted stays.
    """
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) == 4 and _LAYOUT not in value.metadata_props:
            mark_layout(value, "nhwc" if _transposed_first(value) else "nchw")


def mark_layout(value: ir.Value, layout: str) -> None:
    """Note that a four-dimensional input is 'nchw' or 'nhwc'."""
    value.metadata_props[_LAYOUT] = layout


def _transposed_first(value: ir.Value) -> bool:
    node = sole_consumer(value)
    while node is not None and node.op_type in _PREPROCESSING:
        value = node.outputs[0]
        node = sole_consumer(value)
    return node is not None and node.op_type == "Transpose" and list(attribute(node, "perm", [])) == [0, 3, 1, 2]


def mark_opset(model: ir.Model) -> None:
    """Note the standard opset that a freshly read model is written in, before it is brought to another."""
    model.metadata_props[_OPSET] = str(model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0)))


def source_opset(model: ir.Model) -> int:
    """The standard opset that the source model was written in; 0 when it is not known."""
    text = model.metadata_props.get(_OPSET, "")
    return int(text) if text.isdecimal() else 0


def describe_tensor(value: ir.Value) -> TensorSummary:
    """Name, shape, numpy dtype and layout of a graph input or output."""
    dtype = str(value.dtype.numpy()) if value.dtype is not None else "float32"
    layout = value.metadata_props.get(_LAYOUT, "")
    # A package may come from anywhere and say anything.
    layout = layout if layout in ("nchw", "nhwc") else ""
    parameters = given(value)
    grid = None if parameters is None else parameters.source_grid
    return TensorSummary(value.name or "", static_shape(value), dtype, layout, grid)


def describe_layers(
    model: ir.Model, layers: tuple[Layer, ...], precision: Callable[[str], str] | None = None
) -> tuple[LayerSummary, ...]:
    """The graph inputs as layers of op 'Input', then every layer.

    `precision` tells by name what each input is stored in and each layer computes in, as `traffic` knows it.
    """
    made_by: dict[str, str] = {v.name or "": v.name or "" for v in model.graph.inputs}
    values = {v.name or "": v for v in tensors(model.graph)}
    found: list[LayerSummary] = []
    for value in model.graph.inputs:
        tensor = describe_tensor(value)
        kept = precision(tensor.name) if precision is not None else ""
        found.append(
            LayerSummary(len(found), tensor.name, "Input", (), tensor.shape, tensor.dtype, kept, outputs=(tensor.name,))
        )
    for layer in layers:
        made_by.update(dict.fromkeys(layer.outputs, layer.name))
        tensor = describe_tensor(values[layer.name])
        found.append(
            LayerSummary(
                len(found),
                layer.name,
                layer.op,
                tuple(dict.fromkeys(made_by[name] for name in layer.inputs)),
                tensor.shape,
                tensor.dtype,
                precision(layer.name) if precision is not None else "",
                layer.sources,
                layer.outputs,
                layer.inputs,
            )
        )
    return tuple(found)


def count_parameters(model: ir.Model) -> int:
    """Numbers in the graph's constants."""
    return sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None)
