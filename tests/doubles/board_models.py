"""Writes models for the stand-in of the vendor's runtime: files that our reader of vendor's files reads, and that hold
what the stand-in is to answer."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.devices.agent.layouts import FORMATS, TYPE_BYTES, TYPES
from engine.files.vendor.model import VendorMemory, VendorModel, VendorNode, VendorPort, VendorTensor
from tests.engine.files.vendor.vendor_files import container, flatbuffer, full_slots, mini, outline_of

Array = np.ndarray[Any, Any]

ENGINES = {
    "rk3566": "RKNPU lite",
    "rk3568": "RKNPU lite",
    "rk3562": "RKNPU t4",
    "rk3576": "RKNPU f2",
    "rk3588": "RKNPU v2",
    "rv1103": "RKNPU t3",
    "rv1106": "RKNPU t3",
}
_MINI = ("rv1103", "rv1106")
_TENSOR, _LAYER, _MEMORY, _CUSTOM, _TARGET, _ANSWER, _SETTING = range(1, 8)


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output: its name, its shape in the source model (NCHW), and the type that the NPU has it in.

    Quantized where `scale` is given: value = (q - zero_point) * scale. An input of four dimensions is told as NHWC, an
    output as `layout` says.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float = 0.0
    zero_point: int = 0
    layout: str = "nchw"


@dataclasses.dataclass(frozen=True)
class Step:
    """A line of the runtime's table of layers; `name` is the source's own, as in 'Conv:conv_a' behind the colon."""

    op: str
    name: str
    microseconds: int
    target: str = "NPU"
    dtype: str = "INT8"
    inputs: str = "\\"
    output: str = "(1,8,8,8)"
    cycles: tuple[int, int, int] = (0, 0, 0)
    kilobytes: float = 0.0

    @property
    def full_name(self) -> str:
        """As the runtime's table has it."""
        return f"{self.op}:{self.name}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the stand-in gives: `outputs` in the model's order and shapes (float32, wide integers as they are) where the
    bytes of the inputs are just those of `inputs`, arrays as the board's runtime gets them; where `inputs` is None, for
    all others.

    `tensors` are those that it dumps, by name, with the operator that made each or 'Conv'.
    """

    inputs: Sequence[Array] | None
    outputs: Sequence[Array]
    tensors: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    operators: Mapping[str, str] = dataclasses.field(default_factory=dict)


def stand_in_model(
    path: Path,
    target: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    answers: Sequence[Answer],
    layers: Sequence[Step] = (),
    *,
    memory: tuple[int, ...] = (1216, 4352, 8192, 0, 0),
    custom_string: str = "",
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write a model for `target` to `path`, and give that back.

    `memory`: bytes of weights, of tensors between layers, of DMA, of SRAM, and of SRAM that is free. `settings` are
    those at the top of librknnrt.c, for this model alone (`{"HANG": 30}`); the same are taken from the environment as
    STANDIN_HANG and so on.
    """
    block = _block(target, inputs, outputs, answers, layers, memory, custom_string, settings or {})
    model = _model(target, inputs, outputs, layers, memory, custom_string)
    if target in _MINI:
        held = dataclasses.replace(model, memory=VendorMemory(len(block), memory[1]))
        content = bytearray(mini(held))
        # Weights come first behind the two headers of 64 bytes, where there are no tasks and commands.
        content[128 : 128 + len(block)] = block
    else:
        slots = full_slots(model)
        kind, blobs = slots[20]
        slots[20] = (kind, [*blobs, {0: ("[u8]", block)}])
        content = bytearray(container(flatbuffer(slots), 6, outline_of(target, model.inputs, model.outputs)))
    path.write_bytes(content)
    return path


def hash_of(inputs: Sequence[Array]) -> int:
    """FNV-1a of 64 bits over the bytes of all inputs, by which the stand-in knows them."""
    found = 0xCBF29CE484222325
    for array in inputs:
        for byte in array.tobytes():
            found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def dump_name(number: int, op: str, name: str, array: Array) -> str:
    """The file that the vendor's runtime dumps a tensor to: signs that a file's name should not have are '_'."""
    shape = "_".join(map(str, array.shape))
    kind = "float" if array.dtype == np.float32 else str(array.dtype)
    return f"{number:03d}_{op}_{re.sub(r'[^0-9A-Za-z_.-]', '_', name)}_shape_{shape}_{kind}.npy"


def _block(
    target: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    answers: Sequence[Answer],
    layers: Sequence[Step],
    memory: tuple[int, ...],
    custom_string: str,
    settings: Mapping[str, object],
) -> bytes:
    records = [_record(_TENSOR, _tensor(0, one)) for one in inputs]
    records += [_record(_TENSOR, _tensor(1, one)) for one in outputs]
    records += [_record(_LAYER, _layer(one)) for one in layers]
    records.append(_record(_MEMORY, struct.pack("<IIQII", *memory)))
    records.append(_record(_CUSTOM, custom_string.encode()))
    records.append(_record(_TARGET, target.encode()))
    records += [_record(_SETTING, f"{name}={value}".encode()) for name, value in settings.items()]
    records += [_record(_ANSWER, _answer(one, outputs)) for one in answers]
    rest = b"".join(records)
    return b"STANDIN1" + struct.pack("<I", len(rest)) + rest


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def _told(port: Port, role: int) -> tuple[tuple[int, ...], str]:
    """Dimensions and layout as the runtime tells them."""
    if len(port.shape) != 4:
        return port.shape, ""
    if role == 0 or port.layout == "nhwc":
        return tuple(port.shape[axis] for axis in (0, 2, 3, 1)), "nhwc"
    return port.shape, "nchw"


def _tensor(role: int, port: Port) -> bytes:
    dims, layout = _told(port, role)
    size = int(np.prod(dims, dtype=int)) * TYPE_BYTES[port.dtype]
    numbers = FORMATS.index(layout), TYPES.index(port.dtype), 2 if port.scale else 0, port.zero_point
    return (
        struct.pack("<II16I", role, len(dims), *dims, *[0] * (16 - len(dims)))
        + struct.pack("<IIIifI", *numbers, port.scale, size)
        + port.name.encode()
    )


def _layer(step: Step) -> bytes:
    texts = (step.op, step.dtype, step.target, step.inputs, step.output, step.full_name)
    numbers = struct.pack("<4If", step.microseconds, *step.cycles, step.kilobytes)
    return numbers + b"".join(text.encode() + b"\0" for text in texts)


def _answer(answer: Answer, ports: Sequence[Port]) -> bytes:
    assert len(answer.outputs) == len(ports), "an answer has one array an output"
    parts = [
        struct.pack("<QII", 0 if answer.inputs is None else hash_of(answer.inputs), answer.inputs is None, len(ports))
    ]
    for array, port in zip(answer.outputs, ports, strict=True):
        wide = port.dtype in ("int32", "uint32", "int64", "bool")
        raw = np.ascontiguousarray(array, port.dtype if wide else np.float32)
        assert raw.size == int(np.prod(port.shape, dtype=int)), f"output {port.name} has shape {raw.shape}"
        if len(port.shape) == 4 and port.layout == "nhwc":
            raw = np.ascontiguousarray(raw.reshape(port.shape).transpose(0, 2, 3, 1))
        parts.append(struct.pack("<I", raw.nbytes) + raw.tobytes())
    parts.append(struct.pack("<I", len(answer.tensors)))
    for number, (name, array) in enumerate(answer.tensors.items()):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        called = dump_name(number, answer.operators.get(name, "Conv"), name, array).encode()
        parts.append(struct.pack("<I", len(called)) + called + struct.pack("<I", file.tell()) + file.getvalue())
    return b"".join(parts)


def _model(
    target: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    layers: Sequence[Step],
    memory: tuple[int, ...],
    custom_string: str,
) -> VendorModel:
    tensors = [VendorTensor("", (), "float32", "", "plain")]
    ports: list[list[VendorPort]] = []
    for role, given in enumerate((inputs, outputs)):
        ports.append([])
        for one in given:
            dims, layout = _told(one, role)
            grid = ((one.scale,), (one.zero_point,)) if one.scale else ((), ())
            kind = ("input", "output")[role]
            size = int(np.prod(dims, dtype=int)) * TYPE_BYTES[one.dtype]
            tensors.append(VendorTensor(one.name, one.shape, one.dtype, kind, "plain", dims, size, 0, 0, *grid))
            ports[role].append(
                VendorPort(one.name, one.shape, one.dtype, layout, one.dtype, dims, *grid, tensor=len(tensors) - 1)
            )
    return VendorModel(
        path="",
        file_bytes=0,
        container="container",
        revision=4 if target in _MINI else 6,
        family="mini" if target in _MINI else "full",
        engine=ENGINES.get(target, "RKNPU v2"),
        compiler="2.3.2",
        compiler_text="TOOLKIT(compiler version: 2.3.2 (0123abcd@2025-04-03))",
        target=target,
        framework="ONNX",
        custom_string=custom_string,
        shapes="static_shape",
        inputs=tuple(ports[0]),
        outputs=tuple(ports[1]),
        nodes=tuple(
            VendorNode(step.op, step.full_name, "npu" if step.target == "NPU" else "cpu", (), ()) for step in layers
        ),
        tensors=tuple(tensors),
        memory=VendorMemory(memory[0], memory[1]),
    )
