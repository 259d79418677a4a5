"""Infers the type and shape of every tensor, node by node, so that no file can make inference run away."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError, infer_node_outputs

from engine.errors import ModelError, UnsupportedOperator
from engine.graph.provenance import label
from engine.graph.query import attribute, constant, static_shape
from engine.ort import make_session, reason

LARGEST_TENSOR = 1 << 28
"""Elements; 1 GiB in float32. No tensor of a model that an NPU runs comes near; larger ones are slips or attacks."""

# Constants that decide a shape (sizes, pads, axes) are short; weights need not be copied to infer one.
_LONGEST_SHAPE = 1024
_STANDARD = ("", "ai.onnx")
# Standard operators whose definitions infer nothing up to the opset that front ends write.
_KEEPS_SHAPE = {"GroupNormalization", "MeanVarianceNormalization"}
_RUNTIME_TYPES = {
    f"tensor({name})": kind
    for name, kind in {
        "float": ir.DataType.FLOAT,
        "float16": ir.DataType.FLOAT16,
        "bfloat16": ir.DataType.BFLOAT16,
        "double": ir.DataType.DOUBLE,
        "bool": ir.DataType.BOOL,
        "string": ir.DataType.STRING,
        **{f"int{bits}": ir.DataType[f"INT{bits}"] for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": ir.DataType[f"UINT{bits}"] for bits in (8, 16, 32, 64)},
    }.items()
}


# Standard operators of N,C,... and their inputs that have a number a channel of the result, which nothing else checks.
_PER_CHANNEL = {
    "InstanceNormalization": (1, 2),
    "Conv": (2,),
    "ConvTranspose": (2,),
}


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes anew from the graph inputs, in place; what cannot be inferred has shape None.

    Raises ModelError for shapes that cannot be, such as a picture smaller than the window that slides over it.
    """
    inference = Inference(model)
    for node in model.graph:
        inference.infer(node)


class Inference:
    """Infers one node at a time; the nodes before it must have been inferred.

    Inference of whole graphs by the onnx package also computes with the contents of constants; a file can make that
    take any amount of memory, and impossible shapes can end the process.
    """

    def __init__(self, model: ir.Model) -> None:
        self._versions = dict(model.graph.opset_imports)
        self._opsets = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in self._versions.items()]
        self._ir_version = model.ir_version

    def infer(self, node: ir.Node) -> None:
        """Set the types and shapes of the node's outputs. Raises ModelError for an impossible or huge shape."""
        for value in node.outputs:
            value.shape = None
        schema = self._schema(node)
        if schema is not None and schema.has_type_and_shape_inference_function:
            self._by_schema(node, schema)
            if node.op_type == "Compress" and node.domain in _STANDARD:
                _compress(node)
        elif schema is not None and node.op_type in _KEEPS_SHAPE and node.domain in _STANDARD and node.inputs[0]:
            node.outputs[0].type, node.outputs[0].shape = node.inputs[0].type, node.inputs[0].shape
        else:
            self._by_runtime(node)
        for value in node.outputs:
            _check(node, value)
        if node.op_type == "Reshape" and node.inputs[0] is not None:
            _check_elements(node, node.inputs[0], node.outputs[0])
        if node.op_type in _PER_CHANNEL and node.domain in _STANDARD:
            _check_channels(node, node.outputs[0])

    def _schema(self, node: ir.Node) -> onnx.defs.OpSchema | None:
        domain = "" if node.domain in _STANDARD else node.domain
        version = self._versions.get(node.domain, self._versions.get(domain, 1))
        try:
            return onnx.defs.get_schema(node.op_type, version, domain)
        except onnx.defs.SchemaError:
            return None

    def _by_schema(self, node: ir.Node, schema: onnx.defs.OpSchema) -> None:
        proto = ir.serde.serialize_node(node)
        inputs = [value for value in node.inputs if value is not None and value.name]
        types = {value.name or "": _type(value) for value in inputs}
        data = {}
        for value in inputs:
            if value.is_initializer() and value.const_value is not None and value.const_value.size <= _LONGEST_SHAPE:
                data[value.name or ""] = ir.serde.serialize_tensor(value.const_value)
        try:
            found = infer_node_outputs(schema, proto, types, data, None, self._opsets, self._ir_version)
        except (InferenceError, ValidationError) as error:
            raise ModelError(f"{node.op_type} does not fit its inputs: {reason(error)}", where=label(node)) from error
        except (RuntimeError, ValueError, TypeError, LookupError):
            return
        for value in node.outputs:
            kind = found.get(value.name or "")
            if value.name and kind is not None and kind.WhichOneof("value") is not None:
                value.type = _known_type(kind)
                if kind.HasField("tensor_type") and kind.tensor_type.HasField("shape"):
                    value.shape = ir.Shape([_dim(dim) for dim in kind.tensor_type.shape.dim])

    def _by_runtime(self, node: ir.Node) -> None:
        """Let ONNX Runtime say, which has operators of its own and knows those that are defined by others."""
        proto = onnx.ModelProto(ir_version=self._ir_version, opset_import=self._opsets)
        proto.graph.name = "one_node"
        proto.graph.node.append(ir.serde.serialize_node(node))
        inputs = {v for v in node.inputs if v is not None}
        for value in inputs:
            if value.is_initializer() and value.const_value is not None:
                tensor = ir.serde.serialize_tensor(value.const_value)
                tensor.name = value.name or ""
                proto.graph.initializer.append(tensor)
            else:
                proto.graph.input.add(name=value.name or "", type=_type(value))
        named = [value for value in node.outputs if value.name]
        for value in named:
            proto.graph.output.add(name=value.name or "")
        try:
            described = make_session(proto, optimization="none", threads=1).get_outputs()
        except ModelError as error:
            if any(value.shape is None or not value.shape.is_static() for value in inputs):
                return
            unknown = "is not a registered" in error.what or "No Op registered" in error.what
            kind = UnsupportedOperator if unknown else ModelError
            raise kind(error.what, where=label(node), hint=error.hint) from error
        for value, known in zip(named, described, strict=True):
            if known.type in _RUNTIME_TYPES:
                value.type = ir.TensorType(_RUNTIME_TYPES[known.type])
                value.shape = ir.Shape(list(known.shape)) if known.shape else None


def _type(value: ir.Value) -> onnx.TypeProto:
    proto = onnx.TypeProto()
    if isinstance(value.type, ir.TensorType):
        proto.tensor_type.elem_type = value.type.dtype.value
        if value.shape is not None:
            shape = proto.tensor_type.shape
            shape.SetInParent()  # a scalar has a shape, without dimensions
            for dim in value.shape.dims:
                added = shape.dim.add()
                if isinstance(dim, int):
                    added.dim_value = dim
                elif dim.value:
                    added.dim_param = dim.value
    elif value.type is not None:
        proto.CopyFrom(ir.to_proto(value).type)
    return proto


def _known_type(kind: onnx.TypeProto) -> ir.TypeProtocol | None:
    if kind.HasField("tensor_type"):
        return ir.TensorType(ir.DataType(kind.tensor_type.elem_type))
    known: ir.TypeProtocol | None = ir.from_proto(kind).type
    return known


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _compress(node: ir.Node) -> None:
    """The size that a constant condition leaves, which inference does not look at."""
    source, condition = node.inputs[0], constant(node.inputs[1])
    if source is None or source.shape is None or not source.shape.is_static() or condition is None:
        return
    dims = list(static_shape(source))
    axis = attribute(node, "axis")
    if axis is None:
        node.outputs[0].shape = ir.Shape([int(np.count_nonzero(condition))])
    elif -len(dims) <= axis < len(dims):
        dims[axis] = int(np.count_nonzero(condition))
        node.outputs[0].shape = ir.Shape(dims)


def _check(node: ir.Node, value: ir.Value) -> None:
    if value.shape is None:
        return
    if any(isinstance(dim, int) and dim < 0 for dim in value.shape.dims):
        shown = ", ".join(str(dim) for dim in value.shape.dims)
        raise ModelError(
            f"the result would have the shape [{shown}]", where=label(node), hint="are the input sizes too small?"
        )
    if value.shape.is_static() and math.prod(static_shape(value)) > LARGEST_TENSOR:
        raise ModelError(
            f"the result would have the shape {list(static_shape(value))}, more than {LARGEST_TENSOR} elements",
            where=label(node),
            hint="give smaller input sizes, or cut the model before it",
        )


def _check_elements(node: ir.Node, source: ir.Value, result: ir.Value) -> None:
    """A Reshape keeps the elements, which inference does not look at."""
    shapes = [value.shape for value in (source, result)]
    if any(shape is None or not shape.is_static() for shape in shapes):
        return
    if math.prod(static_shape(source)) != math.prod(static_shape(result)):
        raise ModelError(
            f"{list(static_shape(source))} cannot be reshaped to {list(static_shape(result))}",
            where=label(node),
            hint="do the input sizes fit the model?",
        )


def _check_channels(node: ir.Node, result: ir.Value) -> None:
    """A number a channel, neither more nor fewer."""
    if result.shape is None or not result.shape.is_static() or len(result.shape) < 2:
        return
    channels = static_shape(result)[1]
    for value in [node.inputs[place] for place in _PER_CHANNEL[node.op_type] if place < len(node.inputs)]:
        if value is None or value.shape is None or not value.shape.is_static():
            continue
        if static_shape(value) != (channels,):
            raise ModelError(
                f"{value.name!r} has the shape {list(static_shape(value))} for {channels} channels", where=label(node)
            )
