"""The structs of the runtime's interface, compared with the public figures and with what C compilers make of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.devices.agent.layouts import NEWEST, STRUCTS, VERSIONS, fields_of, layout_version, structures, version_of
from tests.doubles.librknnrt import HERE, build
from tests.doubles.librknnrt import VERSIONS as TOLD

# Sizes and offsets of the vendor's public header, on 64 and on 32 bits.
SIZES = {
    "rknn_input_output_num": (8, 8),
    "rknn_tensor_attr": (376, 376),
    "rknn_input": (32, 24),
    "rknn_output": (24, 16),
    "rknn_perf_detail": (16, 16),
    "rknn_perf_run": (8, 8),
    "rknn_sdk_version": (512, 512),
    "rknn_mem_size": (64, 64),
    "rknn_custom_string": (1024, 1024),
    "rknn_tensor_mem": (40, 40),
    "rknn_input_range": (33040, 33040),
    "rknn_init_extend": (136, 132),
    "rknn_run_extend": (24, 24),
    "rknn_output_extend": (8, 8),
}
OFFSETS = {
    "rknn_input_output_num": {"n_input": (0, 0), "n_output": (4, 4)},
    "rknn_tensor_attr": {
        name: (offset, offset)
        for name, offset in {
            "index": 0,
            "n_dims": 4,
            "dims": 8,
            "name": 72,
            "n_elems": 328,
            "size": 332,
            "fmt": 336,
            "type": 340,
            "qnt_type": 344,
            "fl": 348,
            "zp": 352,
            "scale": 356,
            "w_stride": 360,
            "size_with_stride": 364,
            "pass_through": 368,
            "h_stride": 372,
        }.items()
    },
    "rknn_input": {"index": (0, 0), "buf": (8, 4), "size": (16, 8), "pass_through": (20, 12), "type": (24, 16)}
    | {"fmt": (28, 20)},
    "rknn_output": {"want_float": (0, 0), "is_prealloc": (1, 1), "index": (4, 4), "buf": (8, 8), "size": (16, 12)},
    "rknn_perf_detail": {"perf_data": (0, 0), "data_len": (8, 8)},
    "rknn_mem_size": {"total_weight_size": (0, 0), "total_internal_size": (4, 4), "total_dma_allocated_size": (8, 8)}
    | {"total_sram_size": (16, 16), "free_sram_size": (20, 20), "reserved": (24, 24)},
    "rknn_tensor_mem": {"virt_addr": (0, 0), "phys_addr": (8, 8), "fd": (16, 16), "offset": (20, 20), "size": (24, 24)}
    | {"flags": (28, 28), "priv_data": (32, 32)},
    "rknn_input_range": {"name": (12, 12), "dyn_range": (268, 268), "n_dims": (33036, 33036)},
    "rknn_init_extend": {"ctx": (0, 0), "real_model_offset": (8, 4), "real_model_size": (12, 8)}
    | {"model_buffer_fd": (16, 12), "model_buffer_flags": (20, 16)},
    "rknn_run_extend": {"frame_id": (0, 0), "non_block": (8, 8), "timeout_ms": (12, 12), "fence_fd": (16, 16)},
}
COMPILERS = {"cc": 8, "aarch64-linux-gnu-gcc": 8, "arm-linux-gnueabihf-gcc": 4}
C_TYPES = {
    "u8": "uint8_t",
    "i8": "int8_t",
    "i32": "int32_t",
    "u32": "uint32_t",
    "i64": "int64_t",
    "u64": "uint64_t",
    "f32": "float",
    "char": "char",
    "pointer": "void *",
    "context": "context",
}


def _needs(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")


def _compile(compiler: str, text: str, folder: Path, *options: str) -> None:
    """Compile a file whose assertions are all there is to it."""
    file = folder / "layouts.c"
    file.write_text(text)
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-c", *options, str(file), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _assertions(version: tuple[int, int], width: int) -> list[str]:
    """What ctypes makes of the table, as C's assertions."""
    found = []
    for name, struct in structures(version, width).items():
        found.append(f'_Static_assert(sizeof({name}) == {ctypes.sizeof(struct)}, "{name}");')
        for field in fields_of(name, version):
            offset, size = getattr(struct, field.name).offset, getattr(struct, field.name).size
            found.append(f'_Static_assert(offsetof({name}, {field.name}) == {offset}, "{name}.{field.name}");')
            found.append(f'_Static_assert(sizeof((({name} *)0)->{field.name}) == {size}, "{name}.{field.name}");')
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiler_lays_out_the_table_of_fields_as_ctypes_does(
    compiler: str, version: tuple[int, int], tmp_path: Path
) -> None:
    _needs(compiler)
    width = COMPILERS[compiler]
    lines = ["#include <stddef.h>", "#include <stdint.h>", f"typedef uint{8 * width}_t context;"]
    lines.append(f'_Static_assert(sizeof(void *) == {width}, "pointers");')
    for name in STRUCTS:
        fields = fields_of(name, version)
        length = {one.name: f"[{one.length}]" if one.length > 1 else "" for one in fields}
        inner = " ".join(f"{C_TYPES[one.kind]} {one.name}{length[one.name]};" for one in fields)
        lines += [f"typedef struct {{ {inner} }} {name};"] if fields else []
    _compile(compiler, "\n".join([*lines, *_assertions(version, width), ""]), tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_structs_that_are_written_in_c_have_the_same_fields(
    compiler: str, version: tuple[int, int], tmp_path: Path
) -> None:
    _needs(compiler)
    lines = ["#include <stddef.h>", '#include "interface.h"', *_assertions(version, COMPILERS[compiler]), ""]
    _compile(compiler, "\n".join(lines), tmp_path, f"-I{HERE}", f"-DSTANDIN_API={version[0] * 100 + version[1]}")


@pytest.mark.parametrize(("place", "width"), [(0, 8), (1, 4)])
def test_sizes_and_offsets_are_those_of_the_public_header(place: int, width: int) -> None:
    found = structures(NEWEST, width)
    assert {name: ctypes.sizeof(struct) for name, struct in found.items()} == {
        name: sizes[place] for name, sizes in SIZES.items()
    }
    for name, fields in OFFSETS.items():
        offsets = {field: getattr(found[name], field).offset for field in fields}
        assert offsets == {field: both[place] for field, both in fields.items()}, name


@pytest.mark.parametrize(
    ("version", "attribute", "memory"),
    [((1, 0), 372, 8), ((1, 2), 372, 8), ((1, 3), 376, 8), ((1, 4), 376, 64), ((1, 5), 376, 64), ((2, 0), 376, 64)],
)
def test_early_versions_have_smaller_structs(version: tuple[int, int], attribute: int, memory: int) -> None:
    for width in (4, 8):
        found = structures(version, width)
        assert ctypes.sizeof(found["rknn_tensor_attr"]) == attribute
        assert ctypes.sizeof(found["rknn_mem_size"]) == memory
        assert ctypes.sizeof(found["rknn_init_extend"]) == (136 if width == 8 else 132)
        assert ("rknn_input_range" in found) == (version >= (1, 5))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        *((text, version) for version, text in ((one, TOLD[one]) for one in VERSIONS[:-1])),
        ("librknnrt version: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)", (2, 3)),
        ("2.5.0", (2, 5)),
        ("", None),
        ("unknown", None),
    ],
)
def test_a_runtimes_own_words_tell_its_version(text: str, version: tuple[int, int] | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("version", "known"),
    [((0, 9), (1, 0)), ((1, 1), (1, 0)), ((1, 6), (1, 5)), ((2, 5), (2, 0)), ((9, 0), (2, 0)), (None, (2, 0))],
)
def test_versions_between_those_that_changed_structs_have_those_before(
    version: tuple[int, int] | None, known: tuple[int, int]
) -> None:
    assert layout_version(version) == known


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc"])
def test_the_stand_in_is_built_for_boards_without_a_warning(
    compiler: str, version: tuple[int, int], tmp_path: Path
) -> None:
    _needs(compiler)
    build(tmp_path / "librknnrt.so", version, compiler=compiler)
    build(tmp_path / "librknnmrt.so", version, compiler=compiler, mini=True)
