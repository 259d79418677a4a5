"""Reads TFLite's operators that rearrange, part, join and pick elements, and those that are about shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends import nhwc
from engine.frontends.nhwc import Tensor
from engine.frontends.tflite.conversion import Op, Refusal, operator
from engine.graph.shapes import LARGEST_TENSOR


@operator("RESHAPE", "Reshape", "ReshapeOptions")
def _reshape(op: Op) -> None:
    shape = list(op.options.new_shape)
    if op.has(1):
        found = op.input(1).integers()
        if found is None and not shape:
            shape = op.numbers(1)
        elif found is not None:
            shape = found
    # Early files write the shape of a scalar as [0].
    shape = [] if shape == [0] else shape
    op.set(nhwc.reshape(op.input(0), op.place(), shape))


@operator("SQUEEZE", "Reshape", "SqueezeOptions")
def _squeeze(op: Op) -> None:
    op.set(nhwc.squeeze(op.input(0), op.place(), op.options.squeeze_dims))


@operator("EXPAND_DIMS", "Reshape")
def _expand_dims(op: Op) -> None:
    op.set(nhwc.expand_dims(op.input(0), op.place(), op.number(1)))


@operator("TRANSPOSE", "Transpose")
def _transpose(op: Op) -> None:
    op.set(nhwc.transpose(op.input(0), op.place(), op.numbers(1)))


@operator("CONCATENATION", "Concat", "ConcatenationOptions")
def _concat(op: Op) -> None:
    tensors, axis = [t for t in op.inputs() if t.size], op.options.axis
    if not tensors:
        raise Refusal("joins nothing")
    op.make(lambda place: nhwc.concat(tensors, place, axis=axis), op.options.activation)


@operator("SPLIT", "Split", "SplitOptions")
def _split(op: Op) -> None:
    _set_all(op, nhwc.split(op.input(1), op.places(), axis=op.number(0)))


@operator("SPLIT_V", "Split")
def _split_v(op: Op) -> None:
    _set_all(op, nhwc.split(op.input(0), op.places(), axis=op.number(2), sizes=op.numbers(1)))


@operator("PACK", "Concat Reshape", "PackOptions")
def _pack(op: Op) -> None:
    op.set(nhwc.pack(op.inputs(), op.place(), axis=op.options.axis))


@operator("UNPACK", "Reshape Split", "UnpackOptions")
def _unpack(op: Op) -> None:
    _set_all(op, nhwc.unpack(op.input(0), op.places(), axis=op.options.axis))


def _set_all(op: Op, tensors: list[Tensor]) -> None:
    for index, tensor in enumerate(tensors):
        op.set(tensor, index)


@operator("STRIDED_SLICE", "Reshape Slice", "StridedSliceOptions")
def _strided_slice(op: Op) -> None:
    o, begin, end, strides = op.options, op.numbers(1), op.numbers(2), op.numbers(3)
    if o.offset:
        end = [b + e for b, e in zip(begin, end, strict=True)]
    op.set(
        nhwc.strided_slice(
            op.input(0),
            op.place(),
            begin=begin,
            end=end,
            strides=strides,
            begin_mask=o.begin_mask,
            end_mask=o.end_mask,
            ellipsis_mask=o.ellipsis_mask,
            new_axis_mask=o.new_axis_mask,
            shrink_axis_mask=o.shrink_axis_mask,
        )
    )


@operator("SLICE", "Slice")
def _slice(op: Op) -> None:
    op.set(nhwc.crop(op.input(0), op.place(), begin=op.numbers(1), size=op.numbers(2)))


def _pads(op: Op) -> list[tuple[int, int]]:
    flat = op.numbers(1)
    if len(flat) % 2:
        raise op.error(f"reads {len(flat)} numbers where pairs are due")
    return list(zip(flat[::2], flat[1::2], strict=True))


@operator("PAD PADV2", "Pad")
def _pad(op: Op) -> None:
    value = float(op.array(2).reshape(-1)[0]) if op.has(2) else 0.0
    op.set(nhwc.pad(op.input(0), op.place(), pads=_pads(op), value=value))


@operator("MIRROR_PAD", "Gather Pad", "MirrorPadOptions")
def _mirror_pad(op: Op) -> None:
    mode = {0: "reflect", 1: "symmetric"}.get(op.options.mode)
    if mode is None:
        raise Refusal(f"its mode has the number {op.options.mode}")
    op.set(nhwc.pad(op.input(0), op.place(), pads=_pads(op), mode=mode))


@operator("REVERSE_V2", "Slice")
def _reverse(op: Op) -> None:
    op.set(nhwc.reverse(op.input(0), op.place(), op.numbers(1)))


@operator("REVERSE_SEQUENCE", "ReverseSequence", "ReverseSequenceOptions")
def _reverse_sequence(op: Op) -> None:
    o, x, place = op.options, op.input(0), op.place()
    if {o.seq_dim, o.batch_dim} != {0, 1}:
        raise Refusal(f"reverses axis {o.seq_dim} of the batch {o.batch_dim}")
    lengths = place.inner("Cast", [op.input(1).plain()], "lengths", to=ir.DataType.INT64.value)
    value = place.node("ReverseSequence", [x.plain(), lengths], time_axis=o.seq_dim, batch_axis=o.batch_dim)
    op.set(Tensor.of(value, place))


@operator("GATHER", "Gather", "GatherOptions")
def _gather(op: Op) -> None:
    o = op.options
    op.set(nhwc.gather(op.input(0), op.input(1), op.place(), axis=o.axis, batch_axes=o.batch_dims))


@operator("EMBEDDING_LOOKUP", "Gather")
def _embedding_lookup(op: Op) -> None:
    op.set(nhwc.gather(op.input(1), op.input(0), op.place(), axis=0))


@operator("GATHER_ND", "Cast GatherND")
def _gather_nd(op: Op) -> None:
    place = op.place()
    index = place.inner("Cast", [op.input(1).plain()], "index", to=ir.DataType.INT64.value)
    op.set(Tensor.of(place.node("GatherND", [op.input(0).plain(), index]), place))


@operator("SCATTER_ND", "Cast Expand ScatterND")
def _scatter_nd(op: Op) -> None:
    place, shape, updates = op.place(), op.numbers(2), op.input(1)
    index = place.inner("Cast", [op.input(0).plain()], "index", to=ir.DataType.INT64.value)
    zeros = _filled(op, np.zeros((), updates.dtype.numpy()), shape, "zeros")
    op.set(Tensor.of(place.node("ScatterND", [zeros, index, updates.plain()], reduction="add"), place))


@operator("TILE", "Tile")
def _tile(op: Op) -> None:
    op.set(nhwc.tile(op.input(0), op.place(), op.numbers(1)))


@operator("BROADCAST_TO", "Expand")
def _broadcast_to(op: Op) -> None:
    op.set(nhwc.broadcast_to(op.input(0), op.place(), op.numbers(1)))


@operator("ONE_HOT", "Cast OneHot", "OneHotOptions")
def _one_hot(op: Op) -> None:
    on, off = op.input(2), op.input(3)
    op.set(nhwc.one_hot(op.input(0), op.place(), depth=op.number(1), on=on, off=off, axis=op.options.axis))


@operator("SHAPE", "Constant")
def _shape(op: Op) -> None:
    op.set(Tensor.constant(np.array(op.input(0).shape, op.output_type().numpy()), op.place()))


@operator("RANK", "Constant")
def _rank(op: Op) -> None:
    op.set(Tensor.constant(np.array(op.input(0).rank, np.int32), op.place()))


@operator("BROADCAST_ARGS", "Constant")
def _broadcast_args(op: Op) -> None:
    shapes = [tuple(op.numbers(index)) for index in (0, 1)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise op.error(f"broadcasts {shapes[0]} and {shapes[1]}") from error
    op.set(Tensor.constant(np.array(shape, op.output_type().numpy()), op.place()))


@operator("RANGE", "Constant")
def _range(op: Op) -> None:
    start, limit, delta = (op.array(index).reshape(-1)[0] for index in range(3))
    if not delta or not 0 <= (limit - start) / delta <= LARGEST_TENSOR >> 4:
        raise op.error(f"counts from {start} to {limit} by {delta}")
    op.set(Tensor.constant(np.arange(start, limit, delta).astype(op.output_type().numpy()), op.place()))


@operator("ZEROS_LIKE", "Expand")
def _zeros_like(op: Op) -> None:
    x = op.input(0)
    value = _filled(op, np.zeros((), op.output_type().numpy()), x.shape, "")
    op.set(Tensor.of(value, op.place()))


@operator("FILL", "Expand")
def _fill(op: Op) -> None:
    shape, value = op.numbers(0), op.input(1)
    op.set(nhwc.broadcast_to(nhwc.reshape(value, op.place().within("value"), []), op.place(), shape))


def _filled(op: Op, value: np.ndarray, shape: list[int] | tuple[int, ...], suffix: str) -> ir.Value:
    place = op.place()
    if any(n < 0 for n in shape):
        raise ModelError(f"makes the shape {list(shape)}", where=op.maker.where)
    inputs = [place.constant(value, "value"), place.constant(np.array(shape, np.int64), "shape")]
    return place.inner("Expand", inputs, suffix) if suffix else place.node("Expand", inputs)


@operator("DYNAMIC_UPDATE_SLICE", "Concat Slice")
def _update_slice(op: Op) -> None:
    x, update, starts = op.input(0), op.input(1), op.numbers(2)
    if x.rank != update.rank or len(starts) != x.rank:
        raise op.error(f"puts {list(update.shape)} into {list(x.shape)} at {starts}")
    # The start is moved so far that all of the update lies within.
    starts = [min(max(s, 0), n - m) for s, n, m in zip(starts, x.shape, update.shape, strict=True)]
    axes = [axis for axis in range(x.rank) if x.shape[axis] != update.shape[axis]]
    if len(axes) > 1:
        raise Refusal(f"puts {list(update.shape)} into {list(x.shape)}")
    if not axes:
        op.set(nhwc.unary(update, op.place(), "Identity"))
        return
    axis, start = axes[0], starts[axes[0]]
    parts = []
    for name, begin, end in (("before", 0, start), ("behind", start + update.shape[axis], x.shape[axis])):
        if end > begin:
            first, size = [0] * x.rank, list(x.shape)
            first[axis], size[axis] = begin, end - begin
            parts.append(nhwc.crop(x, op.place().within(name), begin=first, size=size))
        if name == "before":
            parts.append(update)
    op.set(nhwc.concat(parts, op.place(), axis=axis))
