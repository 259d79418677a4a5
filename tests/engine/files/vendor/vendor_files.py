"""Writes files in the layouts of the vendor's compiler, from the same facts as `VendorModel`; no board runs them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from engine.files.vendor.layouts import DTYPES, KINDS, LAYOUTS
from engine.files.vendor.model import VendorModel, VendorPort, VendorTensor

Slots = Mapping[int, tuple[str, Any]]
"""The fields of a table by their places, each with its type: 'i8', 'i32', 'u32', 'u64', 'string', '[i32]', '[f32]',
'[u8]', 'table' or '[table]'."""

_INLINE = {"i8": "<b", "i32": "<i", "u32": "<I", "u64": "<Q"}
_ELEMENTS = {"[i32]": "i", "[f32]": "f"}


class _Writer:
    """Writes tables with everything that they point at behind them; one that is several times in a list, once."""

    def __init__(self) -> None:
        self.data = bytearray()

    def table(self, slots: Slots) -> int:
        """Write a table with all that belongs to it; where it begins."""
        length = max(slots, default=-1) + 1
        places, size = [0] * length, 4
        for slot, (kind, _) in sorted(slots.items()):
            width = struct.calcsize(_INLINE.get(kind, "<I"))
            size = -(-size // width) * width
            places[slot] = size
            size += width
        self._align(8, 4 + 2 * length)
        vtable = len(self.data)
        self.data += struct.pack(f"<{2 + length}H", 4 + 2 * length, size, *places)
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable) + bytes(size - 4)
        for slot, (kind, value) in slots.items():
            at = start + places[slot]
            if kind in _INLINE:
                struct.pack_into(_INLINE[kind], self.data, at, value)
            else:
                struct.pack_into("<I", self.data, at, self._content(kind, value) - at)
        return start

    def _content(self, kind: str, value: Any) -> int:
        if kind == "table":
            return self.table(value)
        self._align(4)
        start = len(self.data)
        if kind == "[table]":
            self.data += struct.pack("<I", len(value)) + bytes(4 * len(value))
            written: dict[int, int] = {}
            for index, slots in enumerate(value):
                at = start + 4 + 4 * index
                if id(slots) not in written:
                    written[id(slots)] = self.table(slots)
                struct.pack_into("<I", self.data, at, written[id(slots)] - at)
            return start
        if kind in ("string", "[u8]"):
            raw = value.encode("utf-8") if isinstance(value, str) else bytes(value)
            self.data += struct.pack("<I", len(raw)) + raw + bytes(kind == "string")
            return start
        self.data += struct.pack(f"<I{len(value)}{_ELEMENTS[kind]}", len(value), *value)
        return start

    def _align(self, width: int, before: int = 0) -> None:
        self.data += bytes(-(len(self.data) + before) % width)


def flatbuffer(slots: Slots) -> bytes:
    """A FlatBuffer with the vendor's identifier and one root table."""
    writer = _Writer()
    writer.data += bytes(4) + b"RKNN"
    struct.pack_into("<I", writer.data, 0, writer.table(slots))
    return bytes(writer.data) + bytes(-len(writer.data) % 4)


def container(block: bytes, version: int, outline: bytes | None = None, reserved: bytes = bytes(40)) -> bytes:
    """The container around a model; `version` has the family above its low byte, the layout's revision."""
    header = struct.pack("<4s4xQQ", b"RKNN", version, len(block)) + (reserved if version & 0xFF > 1 else b"")
    outline = outline_of() if outline is None else outline
    return header + block + struct.pack("<Q", len(outline)) + outline


def outline_of(target: str = "rk3588", inputs: Sequence[VendorPort] = (), outputs: Sequence[VendorPort] = ()) -> bytes:
    """The JSON at the end of a file."""
    ports = [*inputs, *outputs]
    edges = [("input", index, index) for index in range(len(inputs))]
    edges += [("output", index, len(inputs) + index) for index in range(len(outputs))]
    return json.dumps(
        {
            "version": "2.5.0",
            "name": "rknn model",
            "network_platform": "ONNX",
            "ori_network_platform": "ONNX",
            "target_platform": [target],
            "norm_tensor": [
                {"tensor_id": index, "dim_num": len(port.shape), "size": list(port.shape), "url": port.name}
                for index, port in enumerate(ports)
            ],
            "graph": [
                {"left": left, "left_tensor_id": place, "right": "norm_tensor", "right_tensor_id": number}
                for left, place, number in edges
            ],
        }
    ).encode()


def full(model: VendorModel, revision: int = 6) -> bytes:
    """A file for RK35xx of revision 1, 2 or 6; the first two have no memory figures."""
    outline = outline_of(model.target, model.inputs, model.outputs)
    return container(flatbuffer(full_slots(model, revision)), revision, outline)


def full_slots(model: VendorModel, revision: int = 6) -> dict[int, tuple[str, Any]]:
    """The root table of a file for RK35xx."""
    stored = [tensor.stored for tensor in model.tensors if tensor.stored]
    blobs = [{}, *({0: ("[u8]", bytes(size))} for size in stored)]
    slots: dict[int, tuple[str, Any]] = {
        0: ("i32", revision),
        1: ("string", model.engine),
        2: ("[table]", [_graph(model, _full_tensors(model.tensors)), *map(_graph_of, model.input_shapes[1:])]),
        3: ("string", repr(model.build_info)),
        4 if revision < 6 else 20: ("[table]", blobs),
        6: ("i32", _number(model.compiler)),
        7: ("string", model.compiler_text),
        8: ("string", model.target),
        9: ("string", model.framework),
        11: ("string", model.custom_string),
        12: ("string", _handed(model.inputs)),
        13: ("string", _handed(model.outputs)),
    }
    if revision >= 6:
        memory = model.memory
        slots[16] = ("string", model.shapes)
        slots[19] = ("table", {0: ("u64", memory.weights or 0), 1: ("u64", memory.internal or 0)})
    return slots


def mini(model: VendorModel, version: int = 0x1004) -> bytes:
    """A file for RV1103 or RV1106; behind its header lie tasks, register commands, weights and operators' data."""
    memory = model.memory
    data = flatbuffer(
        {
            0: ("i32", 4),
            1: ("string", model.engine),
            2: ("[table]", [_graph(model, _mini_tensors(model.tensors))]),
            3: ("string", repr(model.build_info)),
            4: ("i32", _number(model.compiler)),
            5: ("string", model.compiler_text),
            6: ("string", model.target),
            7: ("string", model.framework),
            8: ("string", model.custom_string),
        }
    )
    sizes = memory.tasks, memory.register_commands, memory.weights or 0, memory.operator_data
    header = struct.pack("<7I", len(data), sizes[0], 1, sizes[1], memory.internal or 0, *sizes[2:])
    block = header.ljust(64, b"\0") + bytes(sum(sizes)) + data
    # What a program left in memory; every build differs there.
    return container(block, version, outline_of(model.target, model.inputs, model.outputs), b"\x7f" * 40)


def _graph(model: VendorModel, tensors: list[Slots]) -> Slots:
    nodes = [
        {
            1: ("string", node.op),
            2: ("string", node.name),
            **({3: ("i8", 2)} if node.target == "npu" else {}),
            4: ("[i32]", node.inputs),
            5: ("[i32]", node.outputs),
            **({10: ("[i32]", _tasks(node.cores))} if model.family == "full" else {}),
        }
        for node in model.nodes
    ]
    return {
        0: ("[table]", tensors),
        1: ("[table]", nodes),
        2: ("[i32]", [port.tensor for port in model.inputs]),
        3: ("[i32]", [port.tensor for port in model.outputs]),
        4: (
            "[table]",
            [{0: ("[f32]", one.mean), 1: ("[f32]", one.std), 2: ("[i32]", one.order)} for one in model.normalization],
        ),
    }


def _tasks(cores: int) -> list[int]:
    """Task counts of each core where one, two or three cores run a node that `cores` share."""
    return [count for most in (1, 2, 3) for count in [1] * min(cores, most) + [0] * (most - min(cores, most))]


def _graph_of(shapes: Sequence[Sequence[int]]) -> Slots:
    """A graph for other shapes, which has nothing but inputs."""
    return {0: ("[table]", [{4: ("[i32]", shape)} for shape in shapes]), 2: ("[i32]", range(len(shapes)))}


def _numbers(tensor: VendorTensor) -> dict[int, tuple[str, Any]]:
    codes = [
        {text: number for number, text in reversed(names.items())}[text]
        for names, text in ((DTYPES, tensor.dtype), (LAYOUTS, tensor.layout), (KINDS, tensor.kind))
    ]
    return {
        **{slot: ("i8", code) for slot, code in enumerate(codes)},
        3: ("[i32]", tensor.native),
        4: ("[i32]", tensor.shape),
        5: ("string", tensor.name),
    }


def _full_tensors(tensors: Sequence[VendorTensor]) -> list[Slots]:
    blob, found = 0, []
    for tensor in tensors:
        blob += bool(tensor.stored)
        found.append(
            {
                **_numbers(tensor),
                8: ("[f32]", tensor.minimum),
                9: ("[f32]", tensor.maximum),
                10: ("[f32]", tensor.scale),
                11: ("[i32]", tensor.zero_point),
                12: ("u32", tensor.bytes),
                13: ("u32", tensor.offset),
                18: ("u32", blob if tensor.stored else 0),
            }
        )
    return found


def _mini_tensors(tensors: Sequence[VendorTensor]) -> list[Slots]:
    return [
        {
            **_numbers(tensor),
            6: ("[f32]", tensor.scale),
            7: ("[i32]", tensor.zero_point),
            8: ("u32", tensor.bytes),
            9: ("u32", tensor.offset),
            10: ("i32", index),
        }
        for index, tensor in enumerate(tensors)
    ]


def _handed(ports: Sequence[VendorPort]) -> str:
    return json.dumps({port.name: {"dtype": port.dtype, "layout": port.layout.upper()} for port in ports})


def _number(version: str) -> int:
    major, minor, patch = map(int, version.split("."))
    return major * 10000 + minor * 100 + patch
