"""A session's calls that run its model, or a vendor's file, on a board."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.boards import BoardMemory, BoardPerf
from engine.core_masks import NPU_CORE_AUTO, board_mask, mask_name
from engine.devices.board_arrays import Array, Ports
from engine.devices.choosing import Runnable, choose
from engine.devices.on_board import OnBoard, OpenOptions, open_on_board
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError, FileError
from engine.files import vendor
from engine.files.vendor.container import head_of, kind_of
from engine.graph.query import static_shape
from engine.ort import serialize
from engine.progress import Progress
from engine.quantization.dataset import read_sample
from engine.quantization.preprocessing import input_specs
from engine.quantization.quantized import Quantized
from engine.session_state import SessionState, path_from
from engine.simulator.lowering import lower
from engine.targets import TARGETS

_MOST_TENSOR_BYTES = 256 << 20
"""Of a graph whose tensors take more, a board's processor is asked for the outputs alone."""


class BoardTensors(NamedTuple):
    """What a board made of one sample: its outputs by name, tensors between layers by name where it gave any, and what
    a person should know of them."""

    outputs: dict[str, Array]
    tensors: dict[str, Array]
    warnings: tuple[str, ...]


class BoardSession(SessionState):
    """A session whose build runs on boards too.

    `device` is a board's id as `devices` lists it; None is the only one there is. `path` names a .rknn of the vendor's
    compiler, which runs instead of the session's model. `target`, where given, is checked against the board's chip.
    `core_mask` is one of the constants of `engine.core_masks`.
    """

    def on_board(
        self,
        device: str | None = None,
        *,
        target: str | None = None,
        perf_debug: bool = False,
        eval_mem: bool = False,
        async_mode: bool = False,
        core_mask: int = NPU_CORE_AUTO,
        path: str | Path | None = None,
        progress: Progress | None = None,
    ) -> OnBoard:
        """Open the built model, or the vendor's file `path`, on a board; it stays open until `OnBoard.close`.

        On the NPU runs what the vendor's compiler made: `path`, or what `compile` or the package brought. Without that
        runs our graph, with the simulator's arithmetic, on the board's processor, where its Python has onnxruntime.
        `OnBoard.where` says which. `perf_debug` lets `OnBoard.perf` tell of layers; `eval_mem` is taken, and memory can
        be asked for without it too. In `async_mode` results come one frame late, the first frame's twice.

        Raises OrderError before `build`, ConfigError for a target or core mask that cannot be, FileError for a file
        that is none of the vendor's, and DeviceError; then nothing of ours is left on the board.
        """
        from engine.devices.discovery import open_transport
        from engine.devices.probing import probe

        mask_name(core_mask)
        model, ports = self._runnable(path)
        progress = progress or Progress()
        progress.step("connect", 0, 1)
        transport = open_transport(device or None, target=target or None)
        try:
            facts = probe(transport)
            choice = choose(model, facts, transport.id, target or None)
            # Of a chip that we do not know the cores of, the runtime checks the mask.
            mask = board_mask(core_mask, choice.chip) if choice.chip in TARGETS else core_mask
        except BaseException:
            transport.close()
            raise
        if choice.place == "cpu" and ports is not None:
            ports = Ports(ports.inputs, ports.outputs)
        options = OpenOptions(bool(perf_debug), bool(async_mode), mask, {} if path is not None else self._layer_names())
        return open_on_board(transport, facts, choice, ports, options, progress)

    def board_perf(
        self,
        device: str | None,
        path: str | Path | None = None,
        target: str | None = None,
        runs: int = 10,
        warmup: int = 2,
        core_mask: int = NPU_CORE_AUTO,
        layers: bool = False,
        pin: bool = False,
        *,
        progress: Progress | None = None,
    ) -> BoardPerf:
        """Measure the time of an inference on a board, on inputs of zeros: see `OnBoard.perf`."""
        with self.on_board(device, target=target, core_mask=core_mask, path=path, progress=progress) as board:
            return board.perf(runs=runs, warmup=warmup, layers=layers, pin=pin, progress=progress)

    def board_memory(
        self,
        device: str | None,
        path: str | Path | None = None,
        target: str | None = None,
        core_mask: int = NPU_CORE_AUTO,
        *,
        progress: Progress | None = None,
    ) -> BoardMemory:
        """What the model takes of a board's memory, as its runtime tells."""
        progress = progress or Progress()
        with self.on_board(device, target=target, core_mask=core_mask, path=path, progress=progress) as board:
            progress.step("read", 0, 1)
            found = board.memory()
            progress.step("read", 1, 1)
            return found

    def _runnable(self, path: str | Path | None) -> tuple[Runnable, Ports | None]:
        """What could run on a board, and its inputs and outputs where they are known."""
        if path is not None:
            return runnable_file(path_from(path, "path")), None
        built = self._require_built("on_board")
        # The toolkit is given mean and std only where it applies them as we do.
        from engine.compiler.handing_over import normalized_by_us

        model = built.quantized.model
        outputs = tuple((value.name or "", static_shape(value)) for value in model.graph.outputs)
        runnable = Runnable(
            "the model",
            built.config.target_platform,
            {one.target: one.read for one in built.stored.compiled},
            lambda: serialize(lower(built.quantized)),
        )
        return runnable, Ports(built.specs, outputs, normalized_by_us(built.specs))

    def _layer_names(self) -> dict[str, tuple[str, ...]]:
        """By the name of each layer, its tensors and nodes, and those of the source model."""
        return {
            layer.name: (*layer.inner, *layer.outputs, *(node.name or "" for node in layer.nodes), *layer.sources)
            for layer in self._require_built("on_board").quantized.layers
        }

    def _board_tensors(
        self, board: OnBoard, inputs: Sequence[str | Path | Array], sample: Mapping[str, Array], progress: Progress
    ) -> BoardTensors:
        """What the board makes of a sample; `sample` is the same one, normalized."""
        built = self._require_quantized("board_accuracy")
        if board.where.place == "cpu":
            return _of_processor(board, built.single, sample, progress)
        raw, formats = self._raw(inputs)
        progress.step("run", 0, 2)
        outputs = board.outputs(raw, formats)
        if built.stored.batch > 1:
            outputs = {name: array[: len(array) // built.stored.batch] for name, array in outputs.items()}
        progress.step("run", 1, 2)
        tensors, warnings = _dumped(board, raw, formats, built.single)
        progress.step("run", 2, 2)
        return BoardTensors(outputs, {**tensors, **outputs}, warnings)

    def _raw(self, inputs: Sequence[str | Path | Array]) -> tuple[list[Array], list[str]]:
        """A sample as a program on the board would give it, without mean and std, in the model's own layouts."""
        specs = input_specs(self._require_built("board_accuracy").config, self._require_loaded("samples").inputs)
        plain = tuple(dataclasses.replace(spec, mean=(), std=()) for spec in specs)
        found = read_sample(inputs, plain)
        return [found[spec.name] for spec in plain], [spec.layout or "nhwc" for spec in plain]


def runnable_file(file: Path) -> Runnable:
    """A file of the vendor's compiler, to be run as it is. Raises FileError where it is none, or is corrupt."""
    kind = kind_of(head_of(file))
    if not kind:
        raise FileError(
            "is no .rknn of the vendor's compiler", where=str(file), hint="load a model or package of ours instead"
        )
    if kind == "encrypted":
        # The vendor's runtime decrypts it by itself, and nobody else knows what is in it.
        return Runnable(str(file), "", {"": lambda: file})
    try:
        target = vendor.read(file).target
    except FileError as error:
        raise vendor.refusal(file) from error
    return Runnable(str(file), target, {target: lambda: file})


def _of_processor(board: OnBoard, single: Quantized, sample: Mapping[str, Array], progress: Progress) -> BoardTensors:
    """Of our own graph a board's processor gives every tensor between layers, where those are not too many."""
    names = [value.name or "" for value in single.model.graph.outputs]
    values = {value.name or "": value for layer in single.layers for node in layer.nodes for value in node.outputs}
    between = [name for layer in single.layers for name in layer.outputs if name not in names]
    size = sum(4 * math.prod(static_shape(values[name])) for name in between)
    warnings: tuple[str, ...] = ()
    if size > min(_MOST_TENSOR_BYTES, (board.facts.free_memory or _MOST_TENSOR_BYTES) // 4):
        warnings = (f"the board was asked for the outputs alone: the tensors between layers take {size >> 20} MB",)
        between = []
    progress.step("run", 0, 1)
    content = serialize(lower(single, further=between))
    arrays = board.tensors_of_graph(content, [*names, *between], sample)
    progress.step("run", 1, 1)
    found = dict(zip([*names, *between], (_as_floats(array) for array in arrays), strict=True))
    return BoardTensors({name: found[name] for name in names}, found, warnings)


def _dumped(
    board: OnBoard, raw: Sequence[Array], formats: Sequence[str], single: Quantized
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The tensors that the runtime dumps, by the names of our graph; a warning where it dumps none."""
    from engine.devices.dumps import match_tensors

    try:
        dumped = board.dump(list(raw), list(formats))
    except (DeviceLostError, DeviceTimeoutError):
        raise
    except DeviceError as error:
        return {}, (f"only outputs are compared with the board: {error.what}",)
    shapes = {
        value.name or "": static_shape(value)
        for layer in single.layers
        for node in layer.nodes
        for value in node.outputs
    }
    shapes.update({value.name or "": static_shape(value) for value in single.model.graph.inputs})
    found = {name: _as_floats(array) for name, array in match_tensors(dumped, shapes).items()}
    if not found:
        return {}, ("only outputs are compared with the board: no tensor that its runtime dumped is one of the model",)
    return found, ()


_as_floats = functools.partial(np.asarray, dtype=np.float32)
