"""Lists of tensors, which loops over time steps read from and write to; as TensorList and as TensorArray."""

from __future__ import annotations

import dataclasses

import numpy as np

from engine.frontends import nhwc
from engine.frontends.nhwc import Place, Tensor
from engine.frontends.tensorflow.constants import numpy_type
from engine.frontends.tensorflow.elementwise import identity
from engine.frontends.tensorflow.values import Call, Refused, TensorList, Value, operator
from engine.graph.shapes import LARGEST_TENSOR

_LONGEST = 4096


def _list(call: Call, index: int) -> TensorList:
    value = call.inputs[index] if index < len(call.inputs) else None
    if not isinstance(value, TensorList):
        raise call.error(f"{call.node.op} has no list as its input {index}")
    return value


def _length(call: Call, count: int) -> int:
    if not 0 <= count <= _LONGEST:
        raise call.error(f"makes a list of {count} tensors")
    return count


def _parts(call: Call, x: Tensor) -> tuple[Tensor, ...]:
    if not x.rank:
        raise call.error("makes a list of a single number")
    places = [call.place.within(f"item{index}") for index in range(_length(call, x.shape[0]))]
    array = x.array if x.is_constant else None
    if array is not None:
        return tuple(Tensor.constant(row, place) for row, place in zip(array, places, strict=True))
    return tuple(nhwc.unpack(x, places, axis=0))


def _item(call: Call, source: TensorList, index: int, place: Place) -> Tensor:
    if not 0 <= index < len(source.items):
        raise call.error(f"reads item {index} of a list of {len(source.items)}")
    item = source.items[index]
    if item is not None:
        return item
    known = next((other for other in source.items if other is not None), None)
    shape = known.shape if known is not None else source.shape
    if shape is None:
        raise Refused("reads what was never written")
    return Tensor.constant(np.zeros(shape, numpy_type(source.dtype) or np.float32), place)


def _stack(call: Call, source: TensorList, indices: list[int]) -> Tensor:
    if not indices:
        raise Refused("stacks an empty list")
    items = [_item(call, source, index, call.place.within(f"item{index}")) for index in indices]
    arrays = [item.array if item.is_constant else None for item in items]
    if all(array is not None for array in arrays):
        return call.constant(np.stack([array for array in arrays if array is not None]))
    return nhwc.pack(items, call.place, axis=0)


def _replaced(call: Call, source: TensorList, index: int, value: Tensor) -> TensorList:
    items = list(source.items)
    if index >= len(items):
        items += [None] * (_length(call, index + 1) - len(items))
    if index < 0:
        raise call.error(f"writes item {index} of a list")
    items[index] = value
    return dataclasses.replace(source, items=tuple(items))


def _shape(call: Call, index: int) -> tuple[int, ...] | None:
    """A shape that an input holds, if all of it is known."""
    value = call.inputs[index] if index < len(call.inputs) else None
    array = value.array if isinstance(value, Tensor) else None
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu" or np.any(array < 0):
        return None
    shape = tuple(int(n) for n in array)
    return shape if np.prod([float(n) for n in shape]) <= LARGEST_TENSOR >> 8 else None


@operator("TensorListReserve")
def _reserve(call: Call) -> Value:
    count = _length(call, call.integer(1))
    return TensorList((None,) * count, call.node.dtype("element_dtype"), _shape(call, 0))


@operator("EmptyTensorList")
def _empty(call: Call) -> Value:
    return TensorList((), call.node.dtype("element_dtype"), _shape(call, 0))


@operator("TensorListFromTensor", becomes=("Reshape", "Split"))
def _from_tensor(call: Call) -> Value:
    return TensorList(_parts(call, call.tensor(0)), call.node.dtype("element_dtype"))


@operator("TensorListGetItem")
def _get_item(call: Call) -> Value:
    source = _list(call, 0)
    if source.shape is None:
        source = dataclasses.replace(source, shape=_shape(call, 2))
    return _item(call, source, call.integer(1), call.place)


@operator("TensorListSetItem")
def _set_item(call: Call) -> Value:
    return _replaced(call, _list(call, 0), call.integer(1), call.tensor(2))


@operator("TensorListPushBack")
def _push(call: Call) -> Value:
    source = _list(call, 0)
    return _replaced(call, source, len(source.items), call.tensor(1))


@operator("TensorListPopBack")
def _pop(call: Call) -> list[Value]:
    source = _list(call, 0)
    last = _item(call, source, len(source.items) - 1, call.place)
    return [dataclasses.replace(source, items=source.items[:-1]), last]


@operator("TensorListLength")
def _list_length(call: Call) -> Value:
    return call.constant(np.array(len(_list(call, 0).items), np.int32))


@operator("TensorListResize")
def _resize(call: Call) -> Value:
    source, count = _list(call, 0), _length(call, call.integer(1))
    items = source.items[:count] + (None,) * max(count - len(source.items), 0)
    return dataclasses.replace(source, items=items)


@operator("TensorListStack", becomes=("Concat", "Reshape"))
def _list_stack(call: Call) -> Value:
    source = _list(call, 0)
    if source.shape is None:
        source = dataclasses.replace(source, shape=_shape(call, 1))
    return _stack(call, source, list(range(len(source.items))))


@operator("TensorArrayV3")
def _array(call: Call) -> list[Value]:
    made = TensorList((None,) * _length(call, call.integer(0)), call.node.dtype("dtype"), _known(call, "element_shape"))
    return [TensorList(()), made]


def _known(call: Call, name: str) -> tuple[int, ...] | None:
    dims = call.node.shape(name)
    if dims is None or any(dim is None for dim in dims) or np.prod([float(n or 0) for n in dims]) > LARGEST_TENSOR >> 8:
        return None
    return tuple(int(dim or 0) for dim in dims)


@operator("TensorArrayWriteV3")
def _write(call: Call) -> Value:
    return _replaced(call, _list(call, 3), call.integer(1), call.tensor(2))


@operator("TensorArrayReadV3")
def _read(call: Call) -> Value:
    return _item(call, _list(call, 2), call.integer(1), call.place)


@operator("TensorArrayScatterV3", becomes=("Reshape", "Split"))
def _scatter(call: Call) -> Value:
    made, indices = _list(call, 3), call.integers(1)
    parts = _parts(call, call.tensor(2))
    if len(parts) != len(indices):
        raise call.error(f"writes {len(parts)} tensors to {len(indices)} places")
    for index, part in zip(indices, parts, strict=True):
        made = _replaced(call, made, index, part)
    return made


@operator("TensorArrayGatherV3", becomes=("Concat", "Reshape"))
def _gather(call: Call) -> Value:
    return _stack(call, _list(call, 2), call.integers(1))


@operator("TensorArraySizeV3")
def _array_size(call: Call) -> Value:
    return call.constant(np.array(len(_list(call, 1).items), np.int32))


@operator("TensorArrayConcatV3", becomes="Concat")
def _array_concat(call: Call) -> list[Value]:
    source = _list(call, 1)
    items = [_item(call, source, index, call.place.within(f"item{index}")) for index in range(len(source.items))]
    if not items:
        raise Refused("joins an empty list")
    joined = nhwc.concat(items, call.place, axis=0) if len(items) > 1 else identity(items[0], call.place)
    lengths = np.array([item.shape[0] if item.rank else 0 for item in items], np.int64)
    return [joined, Tensor.constant(lengths, call.output(1))]


@operator("TensorArrayCloseV3")
def _close(call: Call) -> Value:
    return TensorList(())
