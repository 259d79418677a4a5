"""Operators that tell shapes, and that rearrange, part, join and pick elements."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.frontends import nhwc
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.nhwc.tensors import normal_axis
from engine.frontends.tensorflow import axes
from engine.frontends.tensorflow.constants import numpy_type
from engine.frontends.tensorflow.elementwise import identity
from engine.frontends.tensorflow.values import Call, Refused, TensorList, Value, operator
from engine.graph.query import Array

_MOST_PARTS = 4096
_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


@operator("Shape", "ShapeN")
def _shape(call: Call) -> list[Value]:
    dtype = numpy_type(call.node.dtype("out_type", default=3))
    return [
        Tensor.constant(np.array(tensor.shape, dtype), call.output(index))
        for index, tensor in enumerate(call.tensors())
    ]


@operator("Rank")
def _rank(call: Call) -> Value:
    return call.constant(np.array(call.tensor(0).rank, np.int32))


@operator("Size")
def _size(call: Call) -> Value:
    return call.constant(np.array(call.tensor(0).size, numpy_type(call.node.dtype("out_type", default=3))))


@operator("Reshape", becomes="Reshape")
def _reshape(call: Call) -> Value:
    return nhwc.reshape(call.tensor(0), call.place, call.integers(1))


@operator("Transpose", becomes="Transpose")
def _transpose(call: Call) -> Value:
    return nhwc.transpose(call.tensor(0), call.place, call.integers(1))


@operator("Squeeze", becomes="Reshape")
def _squeeze(call: Call) -> Value:
    chosen = call.node.integers("squeeze_dims") or call.node.integers("axis")
    return axes.squeeze(call.tensor(0), call.place, chosen)


@operator("ExpandDims", becomes="Reshape")
def _expand_dims(call: Call) -> Value:
    return axes.expand_dims(call.tensor(0), call.place, call.integer(1))


@operator("EnsureShape")
def _ensure_shape(call: Call) -> Value:
    return call.tensor(0)


@operator("ConcatV2", "Concat", becomes="Concat")
def _concat(call: Call) -> Value:
    tensors = call.tensors()
    last = call.node.op == "ConcatV2"
    axis = call.integer(len(tensors) - 1 if last else 0)
    parts = tensors[:-1] if last else tensors[1:]
    parts = [part for part in parts if part.size] or parts[:1]
    return nhwc.concat(parts, call.place, axis=axis) if len(parts) > 1 else identity(parts[0], call.place)


@operator("Pack", "ParallelConcat", becomes=("Concat", "Reshape"))
def _pack(call: Call) -> Value:
    return nhwc.pack(call.tensors(), call.place, axis=call.node.integer("axis"))


def _places(call: Call, count: int) -> list[Place]:
    if not 1 <= count <= _MOST_PARTS:
        raise call.error(f"makes {count} tensors")
    return [call.output(index) for index in range(count)]


@operator("Unpack", becomes=("Reshape", "Split"))
def _unpack(call: Call) -> list[Value]:
    return [*nhwc.unpack(call.tensor(0), _places(call, call.node.integer("num")), axis=call.node.integer("axis"))]


@operator("Split", becomes="Split")
def _split(call: Call) -> list[Value]:
    x, axis, count = call.tensor(1), call.integer(0), call.node.integer("num_split", 1)
    if -x.rank <= axis < x.rank and x.shape[axis] % max(count, 1):
        raise call.error(f"parts axis {axis} of {list(x.shape)} into {count}")
    return [*nhwc.split(x, _places(call, count), axis=axis)]


@operator("SplitV", becomes="Split")
def _split_sizes(call: Call) -> list[Value]:
    sizes = call.integers(1)
    return [*nhwc.split(call.tensor(0), _places(call, len(sizes)), axis=call.integer(2), sizes=sizes)]


@operator("StridedSlice", becomes=("Reshape", "Slice"))
def _strided_slice(call: Call) -> Value:
    x, node = call.tensor(0), call.node
    masks = {f"{name}_mask": node.integer(f"{name}_mask") for name in _MASKS}
    begin = call.tensor(1)
    if begin.array is None and begin.size == 1 and node.integer("shrink_axis_mask") == 1 and x.rank:
        # One slice of an index that is computed from data.
        return nhwc.gather(x, nhwc.reshape(begin, call.place.within("index"), []), call.place)
    return nhwc.strided_slice(
        x, call.place, begin=call.integers(1), end=call.integers(2), strides=call.integers(3), **masks
    )


@operator("Slice", becomes="Slice")
def _slice(call: Call) -> Value:
    return nhwc.crop(call.tensor(0), call.place, begin=call.integers(1), size=call.integers(2))


@operator("ReverseV2", becomes="Slice")
def _reverse(call: Call) -> Value:
    return nhwc.reverse(call.tensor(0), call.place, call.integers(1))


@operator("ReverseSequence", becomes=("Cast", "ReverseSequence"))
def _reverse_sequence(call: Call) -> Value:
    lengths = call.tensor(1).plain()
    if lengths.dtype != ir.DataType.INT64:
        lengths = call.place.inner("Cast", [lengths], "wide", to=ir.DataType.INT64.value)
    x, time, batch = call.tensor(0), call.node.integer("seq_dim"), call.node.integer("batch_dim")
    if sorted((time, batch)) != [0, 1]:
        raise Refused(f"along axis {time} with the batch in axis {batch}")
    inputs = [x.plain(), lengths]
    return Tensor.of(call.place.node("ReverseSequence", inputs, time_axis=time, batch_axis=batch), call.place)


@operator("Roll", becomes="Gather")
def _roll(call: Call) -> Value:
    x, shifts, axes = call.tensor(0), call.integers(1), call.integers(2)
    if len(shifts) != len(axes) or not axes:
        raise call.error(f"shifts by {shifts} along {axes}")
    for number, (shift, axis) in enumerate(zip(shifts, axes, strict=True)):
        axis = normal_axis(axis, x.rank, call.place)
        index = (np.arange(x.shape[axis]) - shift) % max(x.shape[axis], 1)
        x = nhwc.pick(x, call.place if number == len(axes) - 1 else call.place.within(f"axis{axis}"), index, axis)
    return x


@operator("TensorScatterUpdate", "TensorScatterAdd", "ScatterNd", becomes=("Cast", "Expand", "ScatterND"))
def _scatter(call: Call) -> Value:
    order = (2, 0, 1) if call.node.op == "ScatterNd" else (0, 1, 2)
    if call.node.op == "ScatterNd":
        zero = Tensor.constant(np.array(0, call.tensor(1).dtype.numpy()), call.place.within("zero"))
        target = nhwc.broadcast_to(zero, call.place.within("zeros"), call.integers(2)).plain()
    else:
        target = call.tensor(0).plain()
    indices = call.tensor(order[1]).plain()
    if indices.dtype != ir.DataType.INT64:
        indices = call.place.inner("Cast", [indices], "wide", to=ir.DataType.INT64.value)
    # Indices that come twice add up, except where values are replaced.
    reduction = None if call.node.op == "TensorScatterUpdate" else "add"
    inputs = [target, indices, call.tensor(order[2]).plain()]
    return Tensor.of(call.place.node("ScatterND", inputs, reduction=reduction), call.place)


@operator("Tile", becomes="Tile")
def _tile(call: Call) -> Value:
    return nhwc.tile(call.tensor(0), call.place, call.integers(1))


@operator("BroadcastTo", becomes="Expand")
def _broadcast_to(call: Call) -> Value:
    return nhwc.broadcast_to(call.tensor(0), call.place, call.integers(1))


@operator("Fill", becomes="Expand")
def _fill(call: Call) -> Value:
    return nhwc.broadcast_to(call.tensor(1), call.place, call.integers(0))


@operator("Gather", "GatherV2", "ResourceGather", becomes=("Add", "Cast", "Gather", "Reshape", "Transpose"))
def _gather(call: Call) -> Value:
    x, indices = call.tensor(0), call.tensor(1)
    axis = call.integer(2) if len(call.inputs) > 2 else 0
    batch = call.node.integer("batch_dims")
    return nhwc.gather(x, indices, call.place, axis=axis, batch_axes=batch)


@operator("GatherNd", becomes=("Cast", "GatherND"))
def _gather_each(call: Call) -> Value:
    indices = call.tensor(1).plain()
    if indices.dtype != ir.DataType.INT64:
        indices = call.place.inner("Cast", [indices], "wide", to=ir.DataType.INT64.value)
    return Tensor.of(call.place.node("GatherND", [call.tensor(0).plain(), indices]), call.place)


@operator("OneHot", becomes=("Cast", "OneHot"))
def _one_hot(call: Call) -> Value:
    return nhwc.one_hot(
        call.tensor(0),
        call.place,
        depth=call.integer(1),
        on=call.tensor(2),
        off=call.tensor(3),
        axis=call.node.integer("axis", -1),
    )


@operator("Pad", "PadV2", becomes="Pad")
def _pad(call: Call) -> Value:
    value = 0.0
    if call.node.op == "PadV2":
        value = float(call.array(2).reshape(-1)[0])
    return nhwc.pad(call.tensor(0), call.place, pads=call.pairs(1), value=value)


@operator("MirrorPad", becomes=("Gather", "Pad"))
def _mirror_pad(call: Call) -> Value:
    mode = call.node.text("mode", "REFLECT").lower()
    if mode not in ("reflect", "symmetric"):
        raise Refused(f"mode {mode}")
    return nhwc.pad(call.tensor(0), call.place, pads=call.pairs(1), mode=mode)


@operator("MatrixBandPart", becomes="Mul")
def _band(call: Call) -> Value:
    x, lower, upper = call.tensor(0), call.integer(1), call.integer(2)
    rows, columns = np.indices(x.shape[-2:])
    kept = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    mask = Tensor.constant(kept.astype(x.dtype.numpy()), call.place.within("mask"))
    return nhwc.binary(x, mask, call.place, "Mul")


@operator("Where")
def _where(call: Call) -> Value:
    raise Refused("how much it finds depends on data", "cut the model before it with `outputs`")


@operator("RandomUniform")
def _random(call: Call) -> Value:
    return call.constant(_kept(call, call.integers(0)))


def _kept(call: Call, shape: list[int]) -> Array:
    """What stands for random numbers from 0 to 1: dropout, which alone asks for them at inference, keeps everything."""
    if len(shape) > 8 or any(n < 0 for n in shape) or np.prod([float(n) for n in shape]) > 1 << 24:
        raise call.error(f"makes the shape {shape[:8]}")
    return np.full(shape, 0.9, np.float32)


@operator("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "PlaceholderWithDefault", "Print")
def _same(call: Call) -> Value:
    return call.inputs[0]


@operator("Enter", "RefEnter", "NextIteration", "LoopCond", "DeepCopy", "DebugGradientIdentity", "_Retval")
def _passed(call: Call) -> Value:
    return call.inputs[0]


@operator("IdentityN")
def _all_same(call: Call) -> list[Value]:
    return list(call.inputs)


@operator("NoOp", "Assert")
def _nothing(call: Call) -> Value:
    return TensorList(())
