"""The structs and constants of the vendor's C interface to its runtime, for every version of it that boards have.

Structs are one table of fields; `structures` makes ctypes classes of it for a version. Names, numbers and sizes are
those of the vendor's public header.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, Dict, NamedTuple, Tuple  # noqa: UP035 - Python 3.7 has no dict[str, Any]

Version = Tuple[int, int]  # noqa: UP006

VERSIONS = ((1, 0), (1, 2), (1, 3), (1, 4), (1, 5), (2, 0))
"""The versions at which structs or functions changed."""
NEWEST = VERSIONS[-1]


class Field(NamedTuple):
    """A field of a struct: `kind` is one of KINDS; `since` the version that added it, `until` the first without it."""

    name: str
    kind: str
    length: int = 1
    since: Version = (1, 0)
    until: Version = (99, 0)


KINDS = {
    "u8": ctypes.c_uint8,
    "i8": ctypes.c_int8,
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "f32": ctypes.c_float,
    "char": ctypes.c_char,
}
"""Types of fields; besides these there are 'pointer', and 'context', which is as wide as one."""

_RESERVED = 124
"""What the extension of rknn_init has left in its last 124 bytes for later fields."""

STRUCTS: Dict[str, Tuple[Field, ...]] = {  # noqa: UP006
    "rknn_input_output_num": (Field("n_input", "u32"), Field("n_output", "u32")),
    "rknn_tensor_attr": (
        Field("index", "u32"),
        Field("n_dims", "u32"),
        Field("dims", "u32", 16),
        Field("name", "char", 256),
        Field("n_elems", "u32"),
        Field("size", "u32"),
        Field("fmt", "i32"),
        Field("type", "i32"),
        Field("qnt_type", "i32"),
        Field("fl", "i8"),
        Field("zp", "i32"),
        Field("scale", "f32"),
        # Called `stride` before 1.3.
        Field("w_stride", "u32"),
        Field("size_with_stride", "u32"),
        Field("pass_through", "u8"),
        Field("h_stride", "u32", since=(1, 3)),
    ),
    "rknn_input": (
        Field("index", "u32"),
        Field("buf", "pointer"),
        Field("size", "u32"),
        Field("pass_through", "u8"),
        Field("type", "i32"),
        Field("fmt", "i32"),
    ),
    "rknn_output": (
        Field("want_float", "u8"),
        Field("is_prealloc", "u8"),
        Field("index", "u32"),
        Field("buf", "pointer"),
        Field("size", "u32"),
    ),
    "rknn_perf_detail": (Field("perf_data", "pointer"), Field("data_len", "u64")),
    "rknn_perf_run": (Field("run_duration", "i64"),),
    "rknn_sdk_version": (Field("api_version", "char", 256), Field("drv_version", "char", 256)),
    "rknn_mem_size": (
        Field("total_weight_size", "u32"),
        Field("total_internal_size", "u32"),
        Field("total_dma_allocated_size", "u64", since=(1, 4)),
        Field("total_sram_size", "u32", since=(1, 4)),
        Field("free_sram_size", "u32", since=(1, 4)),
        Field("reserved", "u32", 10, since=(1, 4)),
    ),
    "rknn_custom_string": (Field("string", "char", 1024),),
    "rknn_tensor_mem": (
        Field("virt_addr", "pointer"),
        Field("phys_addr", "u64"),
        Field("fd", "i32"),
        Field("offset", "i32"),
        Field("size", "u32"),
        Field("flags", "u32"),
        Field("priv_data", "pointer"),
    ),
    "rknn_input_range": (
        Field("index", "u32", since=(1, 5)),
        Field("shape_number", "u32", since=(1, 5)),
        Field("fmt", "i32", since=(1, 5)),
        Field("name", "char", 256, since=(1, 5)),
        Field("dyn_range", "u32", 512 * 16, since=(1, 5)),
        Field("n_dims", "u32", since=(1, 5)),
    ),
    "rknn_init_extend": (
        Field("ctx", "context"),
        Field("real_model_offset", "i32"),
        Field("real_model_size", "u32", since=(1, 4)),
        Field("model_buffer_fd", "i32", since=(2, 0)),
        Field("model_buffer_flags", "u32", since=(2, 0)),
        Field("reserved", "u8", _RESERVED, until=(1, 4)),
        Field("reserved", "u8", _RESERVED - 4, since=(1, 4), until=(2, 0)),
        Field("reserved", "u8", _RESERVED - 12, since=(2, 0)),
    ),
    "rknn_run_extend": (
        Field("frame_id", "u64"),
        Field("non_block", "i32"),
        Field("timeout_ms", "i32"),
        Field("fence_fd", "i32"),
    ),
    "rknn_output_extend": (Field("frame_id", "u64"),),
}


def fields_of(name: str, version: Version) -> list[Field]:
    """The fields that a struct has in a version; none where the version does not have the struct."""
    return [field for field in STRUCTS[name] if field.since <= version < field.until]


def structures(version: Version, pointer_bytes: int = ctypes.sizeof(ctypes.c_void_p)) -> dict[str, Any]:
    """The structs of a version as ctypes classes, by name.

    `pointer_bytes` is 8, or 4 for 32-bit ARM; other widths than that of the own process serve to compare layouts.
    """
    if pointer_bytes == ctypes.sizeof(ctypes.c_void_p):
        pointer: Any = ctypes.c_void_p
    else:
        pointer = ctypes.c_uint32 if pointer_bytes == 4 else ctypes.c_uint64
    kinds: dict[str, Any] = dict(KINDS, pointer=pointer, context=context_type(pointer_bytes))
    found: dict[str, Any] = {}
    for name in STRUCTS:
        fields = fields_of(name, version)
        if fields:
            listed = [(one.name, kinds[one.kind] * one.length if one.length > 1 else kinds[one.kind]) for one in fields]
            found[name] = type(name, (ctypes.Structure,), {"_fields_": listed})
    return found


def context_type(pointer_bytes: int = ctypes.sizeof(ctypes.c_void_p)) -> Any:
    """The type of a context: 64 bits, but 32 on 32-bit ARM."""
    return ctypes.c_uint32 if pointer_bytes == 4 else ctypes.c_uint64


def version_of(text: str) -> Version | None:
    """The version in the runtime's own words, such as '1.4.0 (a10f100eb@2022-09-09T09:07:14)'; None without one."""
    found = re.search(r"(?<![\d.])(\d{1,3})\.(\d{1,3})", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def layout_version(version: Version | None) -> Version:
    """The newest of VERSIONS that is not newer than `version`; the newest of all for None."""
    known = [one for one in VERSIONS if version is None or one <= version]
    return known[-1] if known else VERSIONS[0]


FLAG_ASYNC, FLAG_COLLECT_PERF = 0x4, 0x8
PRIORITIES = {"high": 0, "medium": 1, "low": 2}
"""Flags of rknn_init."""

(
    QUERY_IN_OUT_NUM,
    QUERY_INPUT_ATTR,
    QUERY_OUTPUT_ATTR,
    QUERY_PERF_DETAIL,
    QUERY_PERF_RUN,
    QUERY_SDK_VERSION,
    QUERY_MEM_SIZE,
    QUERY_CUSTOM_STRING,
    QUERY_NATIVE_INPUT_ATTR,
    QUERY_NATIVE_OUTPUT_ATTR,
) = range(10)
"""Commands of rknn_query; the native ones since 1.2."""

TYPES = (
    "float32",
    "float16",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "bool",
    "int4",
    "bfloat16",
)
"""Types of elements by number, as numpy calls them; the last two since 2.0."""
TYPE_BYTES = {
    "float32": 4,
    "float16": 2,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "bool": 1,
    "bfloat16": 2,
}
FORMATS = ("nchw", "nhwc", "nc1hwc2", "")
"""Layouts by number; '' is 'undefined', which all have that are not four-dimensional."""
QUANTIZATIONS = ("none", "dfp", "affine")
"""Kinds of quantization by number; 'dfp' is dynamic fixed point."""
CORE_MASKS = {0: "auto", 1: "0", 2: "1", 4: "2", 3: "0_1", 7: "0_1_2", 0xFFFF: "all"}
"""The last part of a mask's name by its number; 'all' since 2.0."""

SUCCESS, PARAMETER_INVALID = 0, -5
ERRORS = {
    -1: ("the call failed", "see what the runtime printed; load the model again"),
    -2: ("the NPU did not end the run in time", "load the model again; where that hangs as well, restart the board"),
    -3: (
        "the NPU is not available",
        "see that its driver is loaded, and that the user may open it (/dev/dri/renderD*, /dev/rknpu)",
    ),
    -4: ("the board has too little memory for it", "end other programs there, or use a smaller model or batch"),
    -5: ("an argument is not valid for this chip or runtime", "another core mask, or a newer runtime on the board"),
    -6: (
        "the model is not valid for this runtime",
        "it may be damaged, or made by a newer compiler than the runtime knows: update librknnrt.so on the board, or "
        "compile with the runtime's version",
    ),
    -7: ("the runtime's context is not valid", "load the model again"),
    -8: ("an input does not fit the model", "compare its size, type and layout with the model's inputs"),
    -9: ("an output does not fit the model", "load the model again"),
    -10: ("runtime and driver, or runtime and NPU, do not fit together", "update the NPU's driver and librknnrt.so"),
    -11: ("the model was compiled for another driver", "compile the model again"),
    -12: ("the model's level of optimization does not fit the driver", "compile the model again, or update the driver"),
    -13: ("the model was compiled for another chip", "compile the model for the chip of this board"),
}
"""What each error of the runtime means, and what to do about it."""
