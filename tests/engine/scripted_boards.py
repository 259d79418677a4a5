"""Boards that answer as they are told, without an agent or a transport; ONNX Runtime stands in for theirs."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine.boards import Board, BoardFacts, MeasuredLayer
from engine.devices import discovery, dumps, link, perf_table, probing
from engine.devices.discovery import Listing
from engine.errors import DeviceError, DeviceLostError
from engine.ort import make_simulation, run, serialize
from engine.progress import Progress
from engine.simulator.lowering import lower

Array = np.ndarray[Any, Any]

NPU = BoardFacts(chip="rk3588", library="/usr/lib/librknnrt.so", interpreter="/usr/bin/python3", folder="/tmp")
CPU = dataclasses.replace(NPU, library="", onnxruntime="1.22")


@dataclasses.dataclass
class Tensor:
    name: str
    dims: tuple[int, ...]
    fmt: str = ""
    dtype: str = "float32"
    size: int = 0


@dataclasses.dataclass
class ScriptedBoard:
    """One board: what it tells, what it was asked, and at which call it is lost or refuses."""

    id: str = "board"
    facts: BoardFacts = NPU
    mean: float = 0.0
    std: float = 1.0
    fails: dict[str, DeviceError] = dataclasses.field(default_factory=dict)
    times: tuple[float, ...] = (30.0, 10.0, 20.0)
    layers: tuple[MeasuredLayer, ...] = ()
    dumped: dict[str, Array] = dataclasses.field(default_factory=dict)
    calls: list[Any] = dataclasses.field(default_factory=list)
    open: int = 0

    def said(self, call: str, *more: Any) -> None:
        self.calls.append((call, *more))
        if call in self.fails:
            raise self.fails[call]

    def lose(self, call: str) -> None:
        self.fails[call] = DeviceLostError("the board is gone", where=self.id, hint="plug it in")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class _Model:
    """Runs ONNX. As a binary of the vendor's it takes NHWC, scales the numbers, and has its channels last."""

    def __init__(self, board: ScriptedBoard, content: bytes, kind: str, options: Any) -> None:
        self._board, self._npu, self.options = board, kind == "rknn", options
        self._session = make_simulation(content)
        self.inputs = [self._tensor(one) for one in self._session.get_inputs()]
        self.outputs = [
            Tensor(one.name.removesuffix(".output"), tuple(one.shape)) for one in self._session.get_outputs()
        ]
        self.api, self.driver = ("2.3.2 (runtime)", "0.9.8") if self._npu else ("onnxruntime 1.22", "")
        self._hold = contextlib.ExitStack()
        self._hold.enter_context(board.held())
        self._last: list[Array] | None = None

    def _tensor(self, value: Any) -> Tensor:
        dims = tuple(value.shape)
        if self._npu and len(dims) == 4:
            return Tensor(value.name, (dims[0], dims[2], dims[3], dims[1]), "nhwc", "int8", int(np.prod(dims)))
        return Tensor(value.name, dims)

    def run(self, inputs: Sequence[Any], *, seconds: float) -> list[Array]:
        self._board.said("run", [(one.array.dtype.name, one.array.shape, one.layout) for one in inputs])
        feeds = {}
        for one, tensor in zip(inputs, self.inputs, strict=True):
            assert one.array.shape == tensor.dims and one.array.flags.c_contiguous
            array = one.array.astype(np.float32)
            if self._npu and one.layout == "nhwc":
                array = ((array - self._board.mean) / self._board.std).transpose(0, 3, 1, 2)
            feeds[tensor.name] = np.ascontiguousarray(array, np.float32)
        found = run(self._session, None, feeds)
        if self.options.asynchronous:
            found, self._last = self._last or found, found
        return found

    def measure(self, inputs: Sequence[Any], *, runs: int, warmup: int, seconds: float, progress: Any) -> Any:
        self._board.said("measure", runs, warmup)
        return types.SimpleNamespace(call_us=[1000.0] * runs, run_us=list(self._board.times))

    def layer_table(self) -> str:
        self._board.said("layer_table")
        assert self.options.perf
        return "the runtime's own table"

    def memory(self) -> Any:
        self._board.said("memory")
        return types.SimpleNamespace(weight=300, internal=200, dma=4096, sram=None, sram_free=None)

    def dump(self, inputs: Sequence[Any], *, seconds: float) -> dict[str, Array]:
        self._board.said("dump")
        assert self.options.dump
        if not self._board.dumped:
            raise DeviceError("this runtime gives out no tensors", where=self._board.id)
        return self._board.dumped

    def close(self) -> None:
        self._hold.close()


class _Link:
    def __init__(self, board: ScriptedBoard) -> None:
        self._board = board
        self._hold = contextlib.ExitStack()
        board.said("open_link")
        self._hold.enter_context(board.held())

    def load(self, content: bytes | Path, kind: str, options: Any, *, progress: Progress | None = None) -> _Model:
        self._board.said("load", kind, options)
        return _Model(self._board, content.read_bytes() if isinstance(content, Path) else content, kind, options)

    def pin(self) -> int:
        self._board.said("pin")
        return 1_000_000_000

    def close(self) -> None:
        self._hold.close()


class _Transport:
    def __init__(self, board: ScriptedBoard) -> None:
        self.id, self.board = board.id, board
        self._hold = contextlib.ExitStack()
        self._hold.enter_context(board.held())

    def close(self) -> None:
        self._hold.close()


def connect(patch: pytest.MonkeyPatch, *boards: ScriptedBoard) -> None:
    """Let these be the boards that there are."""
    by_id = {board.id: board for board in boards}

    def open_transport(device: str | None, *, target: str | None = None) -> _Transport:
        if device is None and len(by_id) == 1:
            device = next(iter(by_id))
        if device not in by_id:
            raise DeviceLostError(f"there is no board {device!r}", hint=f"known: {', '.join(by_id)}")
        return _Transport(by_id[device])

    def probe(transport: _Transport) -> BoardFacts:
        transport.board.said("probe")
        return transport.board.facts

    def listing(**_: Any) -> Listing:
        found = tuple(Board(board.id, "adb", "device") for board in boards)
        return Listing(found, ("ssh: not asked",))

    def match(dumped: dict[str, Array], shapes: Any) -> dict[str, Array]:
        return {name: array for name, array in dumped.items() if name in shapes}

    def matched(rows: Any, names: Any) -> Any:
        return rows

    layers = tuple(layer for board in boards for layer in board.layers)
    for module, members in {
        link: {"open_link": lambda transport, facts: _Link(transport.board)},
        discovery: {"open_transport": open_transport, "list_boards": listing},
        probing: {"probe": probe},
        perf_table: {"parse_table": lambda text: types.SimpleNamespace(layers=layers), "match_layers": matched},
        dumps: {"match_tensors": match},
    }.items():
        for name, member in members.items():
            patch.setattr(module, name, member)


def binary_of(quantized: Any) -> bytes:
    """What stands for a binary of the vendor's compiler: our own graph."""
    proto: onnx.ModelProto = lower(quantized)
    return serialize(proto)
