"""Turns a model in float16, bfloat16 or float64 into the same model in float32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

_OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision"})
"""Attributes of standard operators that hold an element type: Cast, RandomNormal, EyeLike, HannWindow, ..."""


def to_float32(model: ir.Model) -> None:
    """Make every float16, bfloat16 and float64 of `model` a float32, in place.

    That covers inputs, outputs, the types of all values, initializers, constants inside nodes, and the attributes that
    name an element type, in subgraphs and functions too. Casts between kinds of floats stay and do nothing. float64
    numbers beyond the range of float32 become infinite.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        _convert_values((*graph.inputs, *graph.outputs, *graph.initializers.values()))
    for function in model.functions.values():
        _convert_values(function.inputs)
        for graph in function.subgraphs():
            _convert_values((*graph.inputs, *graph.outputs, *graph.initializers.values()))
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        for node in owner.all_nodes():
            _convert_values(node.outputs)
            _convert_attributes(node)


def _convert_values(values: Iterable[ir.Value]) -> None:
    for value in values:
        value.type = _converted_type(value.type)
        if value.const_value is not None:
            value.const_value = _converted_tensor(value.const_value)


def _converted_type(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """`kind` with float32 for the other floats, inside sequences and optionals as well."""
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        element = _converted_type(kind.elem_type)
        assert element is not None
        return type(kind)(element, denotation=kind.denotation)
    if isinstance(kind, (ir.TensorType, ir.SparseTensorType)) and kind.dtype in _OTHER_FLOATS:
        return type(kind)(ir.DataType.FLOAT, denotation=kind.denotation)
    return kind


def _converted_tensor(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if tensor.dtype not in _OTHER_FLOATS:
        return tensor
    with np.errstate(over="ignore"):
        array = tensor.numpy().astype(np.float32)
    return ir.Tensor(array, name=tensor.name, doc_string=tensor.doc_string)


def _convert_attributes(node: ir.Node) -> None:
    for name, attr in list(node.attributes.items()):
        if attr.is_ref():
            continue
        if attr.type == ir.AttributeType.TENSOR:
            node.attributes[name] = ir.AttrTensor(name, _converted_tensor(attr.value))
        elif attr.type == ir.AttributeType.TENSORS:
            node.attributes[name] = ir.AttrTensors(name, [_converted_tensor(tensor) for tensor in attr.value])
        elif attr.type == ir.AttributeType.TYPE_PROTO:
            kind = _converted_type(attr.value.type)
            node.attributes[name] = ir.AttrTypeProto(name, ir.TypeAndShape(kind, attr.value.shape))
        elif name in _TYPE_ATTRIBUTES and node.domain == "" and attr.type == ir.AttributeType.INT:
            if attr.value not in _OTHER_FLOATS:
                continue
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT.value)
