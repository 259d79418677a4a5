"""Plain data: boards as they were found, and what was measured on them.

Nothing here imports numpy or ONNX, so that a process which only displays results stays small.
"""

from __future__ import annotations

import dataclasses

READY = "device"
"""The state of a board that can be used, in adb's word for it."""


@dataclasses.dataclass(frozen=True)
class BoardFacts:
    """What a board told of itself; '' and None for what cannot be read there.

    `chip` is a target's name ('rk3588'), `board` the device tree's own text, `system` the operating system's name,
    `machine` the processor's architecture as `uname -m` has it. `runtime` is the version of the vendor's library at
    `library`, `driver` that of the NPU's driver. `python` is the version of the interpreter at `interpreter`,
    `onnxruntime` that of the package in it. Memory and disk are in bytes; `folder` is where temporary files go, and
    `free_disk` what is free there. `temperature` is the highest of the chip's sensors in degrees Celsius, `npu_load`
    percent by core, `npu_hz` the NPU's clock. `problems` says in words what keeps models from being run.
    """

    chip: str = ""
    board: str = ""
    system: str = ""
    machine: str = ""
    runtime: str = ""
    library: str = ""
    driver: str = ""
    python: str = ""
    interpreter: str = ""
    onnxruntime: str = ""
    folder: str = ""
    free_memory: int | None = None
    total_memory: int | None = None
    free_disk: int | None = None
    temperature: float | None = None
    npu_load: tuple[int, ...] = ()
    npu_hz: int | None = None
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Board:
    """A board that was found, or one that is known from settings.

    `id` is what `--device` and `device_id` take: adb's serial number, `ssh://[user@]host[:port]`, or `local`.
    `transport` is 'adb', 'ssh', 'local', or 'ntb' and 'usb' for what cannot be used; `state` is READY, or in adb's
    words what it is instead ('offline', 'unauthorized', ..., for SSH 'unreachable'), and `note` says what that means
    and what to do. `model` and `product` are adb's, `path` where it is plugged in. `facts` is None until it was
    asked.
    """

    id: str
    transport: str
    state: str
    note: str = ""
    model: str = ""
    product: str = ""
    path: str = ""
    facts: BoardFacts | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MeasuredLayer:
    """One line of the runtime's table of layers, measured on a board.

    `name` is the runtime's own name of it; `layer` is the layer of our model that it belongs to, '' where none is
    known. `target` is 'NPU' or 'CPU'. `time_us` is in microseconds; cycles are None where the table has none.
    """

    name: str
    op: str
    target: str
    time_us: float
    layer: str = ""
    dtype: str = ""
    cycles_ddr: int | None = None
    cycles_npu: int | None = None
    cycles_total: int | None = None
    rw_kb: float | None = None


@dataclasses.dataclass(frozen=True)
class BoardRun:
    """Where something was measured: the board, its chip, and what ran there.

    `place` is 'npu' for a binary of the vendor's compiler under the vendor's runtime, 'cpu' for our model under ONNX
    Runtime on the board's processor; `runtime` is the version of either. `core_mask` is as in the runtime's C
    interface, 0 for automatic.
    """

    device: str
    chip: str
    place: str
    runtime: str
    driver: str = ""
    core_mask: int = 0
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class BoardPerf:
    """Times of one inference on a board, in microseconds, over `runs` runs after `warmup` that are not counted.

    `median_us`, `p95_us` (nearest rank), `fastest_us` and `slowest_us` are of the runtime's own time of a run where it
    tells that, else of the time that the call took on the board; the way to the board is in none of them. `layers` is
    filled where that was asked for and the runtime tells it; `layers_us` is their sum. `pinned_hz` is the NPU's
    clock where it was pinned.
    """

    where: BoardRun
    runs: int
    warmup: int
    median_us: float
    p95_us: float
    fastest_us: float
    slowest_us: float
    layers: tuple[MeasuredLayer, ...] = ()
    layers_us: float | None = None
    pinned_hz: int | None = None
    text: str = ""


@dataclasses.dataclass(frozen=True)
class BoardMemory:
    """Bytes that a model takes on a board, as its runtime tells: None for what it does not tell."""

    where: BoardRun
    weight_bytes: int
    internal_bytes: int
    total_bytes: int
    dma_bytes: int | None = None
    sram_bytes: int | None = None
    sram_free_bytes: int | None = None
