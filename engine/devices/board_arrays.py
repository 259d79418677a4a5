"""Arrays on their way to a board's runtime and back: layouts, types and shapes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from engine.devices.link import BoardInput
from engine.errors import DeviceError, InputError
from engine.quantization.preprocessing import InputSpec, as_given, convert, each_input, from_caller, normalize

Array = np.ndarray[Any, Any]

_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = (0, 3, 1, 2)
# What the runtime takes for an input of floats, and converts itself.
_TAKEN = frozenset(map(np.dtype, ("uint8", "int8", "float16", "float32")))


class Tensor(Protocol):
    """What a board's runtime tells of an input or output."""

    @property
    def name(self) -> str: ...
    @property
    def dims(self) -> tuple[int, ...]: ...
    @property
    def fmt(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def size(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Ports:
    """A model's inputs and outputs as its caller knows them.

    `inputs` have the shapes, layouts, mean and std of the model itself; `outputs` are names and shapes, empty where
    only the board knows them. `normalized_here`: whether mean and std are applied before the arrays are sent, because
    what runs on the board does not apply them.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...] = ()
    normalized_here: bool = False


def ports_of(tensors: Sequence[Tensor]) -> Ports:
    """The ports of a binary of which nothing is known but what the runtime tells."""
    specs = []
    for tensor in tensors:
        dims = tuple(tensor.dims)
        if len(dims) == 4 and tensor.fmt == "nhwc":
            dims = tuple(dims[axis] for axis in _TO_NCHW)
        dtype = tensor.dtype if tensor.dtype in ("int32", "int64", "uint32", "bool") else "float32"
        specs.append(InputSpec(tensor.name, dims, dtype))
    return Ports(tuple(specs))


def for_npu(
    inputs: Sequence[Any] | Mapping[str, Any],
    ports: Ports,
    tensors: Sequence[Tensor],
    device: str,
    *,
    data_format: str | Sequence[str] = "nhwc",
    pass_through: int | Sequence[int] = 0,
) -> list[BoardInput]:
    """A caller's arrays as a binary of the vendor's compiler takes them, in the order of `tensors`.

    Numbers go as they are, since the runtime takes mean and std from the binary and converts; only `normalized_here`
    changes that. float64 becomes float32, as do integers of other kinds than uint8 and int8. What is passed through
    has to be what the NPU itself takes. Raises InputError, and DeviceError where the binary has other inputs.
    """
    given = each_input(inputs, ports.inputs, data_format, pass_through)
    pairs = _paired([spec.name for spec in ports.inputs], tensors, device, "inputs")
    prepared: dict[str, BoardInput] = {}
    for (value, spec, layout, passed), tensor in zip(given, pairs, strict=True):
        own = as_given(value, spec, data_format=layout)
        array = own if passed else _values(own, spec, ports.normalized_here)
        array, sent_in = _as_dims(array, spec, tensor, device)
        if passed:
            _check_passed(array, spec, tensor)
        # The caller may go on writing into its array.
        array = array.copy() if np.may_share_memory(array, value) else array
        prepared[tensor.name] = BoardInput(array, sent_in, passed)
    return [prepared[tensor.name] for tensor in tensors]


def for_cpu(
    inputs: Sequence[Any] | Mapping[str, Any],
    ports: Ports,
    tensors: Sequence[Tensor],
    device: str,
    *,
    data_format: str | Sequence[str] = "nhwc",
    pass_through: int | Sequence[int] = 0,
) -> list[BoardInput]:
    """A caller's arrays as our graph takes them, prepared as for the simulator. Raises InputError, DeviceError."""
    feeds = {
        spec.name: from_caller(value, spec, data_format=layout, pass_through=passed)
        for value, spec, layout, passed in each_input(inputs, ports.inputs, data_format, pass_through)
    }
    if sorted(feeds) != sorted(tensor.name for tensor in tensors):
        raise DeviceError("the model on the board has other inputs than it was sent with", where=device)
    return [BoardInput(feeds[tensor.name]) for tensor in tensors]


def zeros_for(ports: Ports) -> tuple[list[Array], list[str]]:
    """Arrays of zeros, as a caller would give them who only wants to know the time, and their data formats."""
    arrays = []
    for spec in ports.inputs:
        image = len(spec.shape) == 4 and spec.dtype == "float32"
        arrays.append(np.zeros(spec.shape, np.uint8 if image else spec.dtype))
    return arrays, [spec.layout or "nhwc" for spec in ports.inputs]


def in_model_shapes(arrays: Sequence[Array], ports: Ports, tensors: Sequence[Tensor]) -> list[Array]:
    """The outputs of a board in the model's order, layouts and shapes, as far as they fit; floats as float32."""
    arrays = [np.asarray(one, np.float32) if one.dtype.kind == "f" else one for one in arrays]
    names = [tensor.name for tensor in tensors]
    if len(ports.outputs) != len(arrays):
        return arrays
    by_name = sorted(names) == sorted(name for name, _ in ports.outputs)
    found = []
    for index, (name, shape) in enumerate(ports.outputs):
        place = names.index(name) if by_name else index
        found.append(_as_shape(arrays[place], shape, tensors[place]))
    return found


def _paired(names: Sequence[str], tensors: Sequence[Tensor], device: str, what: str) -> list[Tensor]:
    """The runtime's tensor for each of `names`: by name where all agree, else in order."""
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(names) != len(tensors) or len(by_name) != len(tensors):
        raise DeviceError(
            f"the binary has {len(tensors)} {what}, the model {len(names)}", where=device, hint="compile the model anew"
        )
    return [by_name[name] for name in names] if by_name.keys() == set(names) else list(tensors)


def _values(own: Array, spec: InputSpec, normalized_here: bool) -> Array:
    if normalized_here or spec.grid is not None:
        return normalize(own, spec)
    plain = dataclasses.replace(spec, mean=(), std=())
    if np.dtype(spec.dtype).kind != "f":
        return convert(own, plain)
    return own if own.dtype in _TAKEN else convert(own, dataclasses.replace(plain, dtype="float32"))


def _as_dims(array: Array, spec: InputSpec, tensor: Tensor, device: str) -> tuple[Array, str]:
    """A model's own array as the runtime takes it, contiguous, and its layout.

    The vendor's compiler takes axis 1 of every four-dimensional input for its channels, and the runtime wants them
    last, whatever the axes mean to the model.
    """
    dims, layout = tuple(tensor.dims), ""
    if array.ndim == 4:
        last = array.transpose(_TO_NHWC)
        fits = last.shape == dims or tensor.fmt == "nchw" or len(dims) != 4
        array, layout = last if fits else array, "nhwc"
    if math.prod(dims) != array.size:
        raise DeviceError(
            f"input {spec.name!r} has shape {dims} there, and {spec.shape} in the model",
            where=device,
            hint="compile the model anew",
        )
    return np.ascontiguousarray(array), layout


def _check_passed(array: Array, spec: InputSpec, tensor: Tensor) -> None:
    if str(array.dtype) == tensor.dtype and tensor.size in (0, array.nbytes):
        return
    raise InputError(
        f"is passed through as {array.dtype} of {array.nbytes} bytes, but the NPU takes {tensor.dtype} of "
        f"{tensor.size or math.prod(tensor.dims)} bytes",
        where=f"input {spec.name!r}",
        hint="inputs_pass_through hands the bytes to the NPU as they are; leave it out for values to be converted",
    )


def _as_shape(array: Array, shape: tuple[int, ...], tensor: Tensor) -> Array:
    if array.ndim == 4 and len(shape) == 4 and tensor.fmt == "nhwc":
        first = array.transpose(_TO_NCHW)
        if first.shape == shape:
            return np.ascontiguousarray(first)
    return array.reshape(shape) if array.size == math.prod(shape) else array
