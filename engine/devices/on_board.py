"""A model that is open on a board: inference, time, memory, versions, and its tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.boards import BoardFacts, BoardMemory, BoardPerf, BoardRun, MeasuredLayer
from engine.devices import link, perf_table
from engine.devices.board_arrays import Ports, for_cpu, for_npu, in_model_shapes, ports_of, zeros_for
from engine.devices.choosing import Choice
from engine.devices.closing import Closing
from engine.devices.link import AgentLink, BoardInput, BoardModel, ModelOptions
from engine.devices.transport import Transport
from engine.errors import ConfigError, DeviceError
from engine.progress import Progress
from engine.quantization.preprocessing import InputSpec

Array = np.ndarray[Any, Any]
Inputs = Sequence[Any] | Mapping[str, Any]

RUN_SECONDS = 20.0
"""How long one inference may take."""
MOST_RUNS = 10_000
_LATER_RUN_SECONDS = 5.0
_RULE = "=" * 46


@dataclasses.dataclass(frozen=True)
class OpenOptions:
    """How a model is opened: see `Session.on_board`. `layers`: by the name of each layer, names of what it is made of,
    by which it is known in the runtime's table."""

    perf_debug: bool = False
    asynchronous: bool = False
    core_mask: int = 0
    layers: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Versions:
    """The versions of the runtime's interface and of the NPU's driver, in their own words."""

    api: str
    driver: str

    @property
    def text(self) -> str:
        """The form of `get_sdk_version` (guide 3.5.11)."""
        return "\n".join([_RULE, "RKNN VERSION:", f"  API: {self.api}", f"  DRV: {self.driver or '-'}", _RULE])


class OnBoard(Closing):
    """A model on a board, until `close` or the end of a `with` block.

    Calls raise DeviceError, after which the board may be lost: see DeviceLostError. Calls of several threads come one
    after the other; those of other boards do not wait for them.
    """

    def __init__(
        self, transport: Transport, facts: BoardFacts, choice: Choice, ports: Ports | None, options: OpenOptions
    ) -> None:
        """Made by `open_on_board`; it owns the transport from here on."""
        self.facts = facts
        self._transport = transport
        self._choice = choice
        self._options = options
        self._lock = threading.Lock()
        self._ending = contextlib.ExitStack()
        self._link: AgentLink | None = None
        self._model: BoardModel | None = None
        self._ports = ports
        self._before: list[Array] | None = None
        self._pinned: int | None = None
        self._run = BoardRun(transport.id, choice.chip, choice.place, "")

    def start(self, progress: Progress | None = None) -> None:
        """Start the agent and send the model. Whatever fails, `close` is still to be called."""
        progress = progress or Progress()
        progress.step("connect", 0, 1)
        self._link = link.open_link(self._transport, self.facts)
        self._ending.callback(self._link.close)
        progress.step("connect", 1, 1)
        self._model = self._ending.enter_context(contextlib.closing(self._loaded(progress)))
        if self._ports is None:
            self._ports = ports_of(self._model.inputs)
        self._run = dataclasses.replace(
            self._run,
            runtime=self._model.api,
            driver=self._model.driver,
            core_mask=self._options.core_mask,
            notes=self._choice.notes,
        )

    def _loaded(
        self, progress: Progress | None, content: bytes | None = None, *, perf: bool = False, dump: bool = False
    ) -> BoardModel:
        assert self._link is not None
        npu = self._choice.place == "npu"
        options = ModelOptions(
            core_mask=self._options.core_mask if npu else 0,
            perf=perf,
            asynchronous=self._options.asynchronous and npu and not (perf or dump),
            dump=dump,
        )
        given = self._choice.content() if content is None else content
        return self._link.load(given, self._choice.kind, options, progress=progress)

    def close(self) -> None:
        """End the model and the agent, and let go of the board; may be called twice, and never raises."""
        for close in (self._ending.close, self._transport.close):
            with contextlib.suppress(DeviceError, OSError):
                close()

    @property
    def where(self) -> BoardRun:
        """The board, and what runs there."""
        return self._run

    @property
    def asynchronous(self) -> bool:
        """Whether results come one frame late."""
        return self._options.asynchronous

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The model's inputs as `infer` takes them."""
        return self._open[1].inputs

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, in the order in which `infer` gives them."""
        model, ports = self._open
        theirs = [tensor.name for tensor in model.outputs]
        return [name for name, _ in ports.outputs] if len(ports.outputs) == len(theirs) else theirs

    @property
    def _open(self) -> tuple[BoardModel, Ports]:
        if self._model is None or self._ports is None:
            raise DeviceError("the model is not open on the board", where=self._run.device)
        return self._model, self._ports

    def infer(
        self,
        inputs: Inputs,
        *,
        data_format: str | Sequence[str] | None = None,
        inputs_pass_through: Sequence[int] | None = None,
    ) -> list[Array]:
        """Run the model on one array an input.

        Arguments are those of `Session.infer`; on the NPU, what is passed through goes to it byte by byte, and so has
        to be of its own type. Outputs are float32 (integers stay), in the model's order and shapes as far as those
        fit. In async mode the result is that of the frame before; the first call gives that of its own frame.
        """
        with self._lock:
            model, ports = self._open
            outputs = model.run(self._prepared(inputs, data_format, inputs_pass_through), seconds=RUN_SECONDS)
            found = in_model_shapes(outputs, ports, model.outputs)
            if self._options.asynchronous and self._choice.place == "cpu":
                # ONNX Runtime has no such mode: the same order of results, without the time that it saves.
                found, self._before = self._before or found, found
            return found

    def perf(
        self,
        inputs: Inputs | None = None,
        *,
        runs: int = 10,
        warmup: int = 2,
        layers: bool | None = None,
        pin: bool = False,
        data_format: str | Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> BoardPerf:
        """Measure one inference `runs` times, after `warmup` that are not counted.

        Without `inputs` they are zeros. `layers` (by default what perf_debug says) also asks the runtime for its table
        of layers, by a run of its own, since that makes a run slower. `pin` holds the NPU's clock at its highest until
        the board is closed. Raises ConfigError, DeviceError, Cancelled.
        """
        for name, value, least in (("runs", runs, 1), ("warmup", warmup, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_RUNS:
                raise ConfigError(
                    f"cannot be {value!r}", where=name, hint=f"a whole number from {least} to {MOST_RUNS}"
                )
        progress = progress or Progress()
        with self._lock:
            model, ports = self._open
            if inputs is None:
                inputs, data_format = zeros_for(ports)
            prepared = self._prepared(inputs, data_format, None)
            if pin and self._pinned is None and self._link is not None:
                self._pinned = self._link.pin()
            progress.step("run", 0, 1)
            # The first runs may be slow; all of them as slow are a board that hangs.
            seconds = RUN_SECONDS * 3 + _LATER_RUN_SECONDS * (runs + warmup)
            timings = model.measure(prepared, runs=runs, warmup=warmup, seconds=seconds, progress=progress)
            progress.step("run", 1, 1)
            notes = list(self._run.notes)
            text = ""
            rows: tuple[MeasuredLayer, ...] = ()
            if self._options.perf_debug if layers is None else layers:
                text, rows = self._layers(prepared, notes, progress)
            # Times of a run that the runtime does not tell are those of the whole call.
            times = sorted(float(one) for one in (timings.run_us or timings.call_us))
            if not times:
                raise DeviceError("the board told no times", where=self._run.device)
        return BoardPerf(
            dataclasses.replace(self._run, notes=tuple(notes)),
            runs,
            warmup,
            statistics.median(times),
            times[math.ceil(0.95 * len(times)) - 1],
            times[0],
            times[-1],
            rows,
            sum(row.time_us for row in rows) if rows else None,
            self._pinned if pin else None,
            text,
        )

    def _layers(
        self, prepared: list[BoardInput], notes: list[str], progress: Progress
    ) -> tuple[str, tuple[MeasuredLayer, ...]]:
        """The runtime's table of layers, as text and taken apart; a note where it has none."""
        if self._choice.place == "cpu":
            notes.append("ONNX Runtime on the processor tells no times of layers")
            return "", ()
        progress.step("read", 0, 1)
        try:
            with contextlib.closing(self._loaded(None, perf=True)) as model:
                model.run(prepared, seconds=RUN_SECONDS)
                text = model.layer_table()
        except DeviceError as error:
            if not _only_refused(error):
                raise
            notes.append(f"no times of layers: {error.what}")
            return "", ()
        progress.step("read", 1, 1)
        return text, perf_table.match_layers(perf_table.parse_table(text).layers, self._options.layers)

    def memory(self) -> BoardMemory:
        """The bytes that the model takes on the board, as the runtime tells. Raises DeviceError where it does not."""
        if self._choice.place == "cpu":
            raise DeviceError(
                "ONNX Runtime does not tell what memory a model takes",
                where=self._run.device,
                hint="`rknn-tui compile` makes a binary for the NPU, whose runtime does",
            )
        with self._lock:
            sizes = self._open[0].memory()
        weight, internal = sizes.weight or 0, sizes.internal or 0
        return BoardMemory(self._run, weight, internal, weight + internal, sizes.dma, sizes.sram, sizes.sram_free)

    def versions(self) -> Versions:
        """The versions of the runtime and the driver."""
        model, _ = self._open
        return Versions(model.api, model.driver)

    def outputs(self, inputs: Inputs, data_format: Sequence[str]) -> dict[str, Array]:
        """The model's outputs by name for one sample, which is given again and again to a model of more at once."""
        model, ports = self._open
        with self._lock:
            arrays = model.run(self._prepared(*_as_often(inputs, ports, data_format), None), seconds=RUN_SECONDS)
            arrays = in_model_shapes(arrays, ports, model.outputs)
        return dict(zip(self.output_names, arrays, strict=True))

    def tensors_of_graph(self, content: bytes, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """What another graph of ONNX gives on the board's processor for inputs by name, in the order of `names`."""
        with self._lock, contextlib.closing(self._loaded(None, content)) as model:
            arrays = model.run([BoardInput(feeds[tensor.name]) for tensor in model.inputs], seconds=RUN_SECONDS)
        if len(arrays) != len(names):
            raise DeviceError(f"gave {len(arrays)} tensors instead of {len(names)}", where=self._run.device)
        return arrays

    def dump(self, inputs: Inputs, data_format: Sequence[str]) -> dict[str, Array]:
        """The tensors between layers, as the runtime dumps them in a process of its own, by the names that it gives.

        Raises DeviceError where it dumps none.
        """
        _, ports = self._open
        with self._lock, contextlib.closing(self._loaded(None, dump=True)) as model:
            return model.dump(self._prepared(*_as_often(inputs, ports, data_format), None), seconds=2 * RUN_SECONDS)

    def _prepared(
        self, inputs: Inputs, data_format: str | Sequence[str] | None, pass_through: Sequence[int] | None
    ) -> list[BoardInput]:
        model, ports = self._open
        prepare: Callable[..., list[BoardInput]] = for_npu if self._choice.place == "npu" else for_cpu
        return prepare(
            inputs,
            ports,
            model.inputs,
            self._run.device,
            data_format=data_format or "nhwc",
            pass_through=pass_through or 0,
        )


def open_on_board(
    transport: Transport,
    facts: BoardFacts,
    choice: Choice,
    ports: Ports | None,
    options: OpenOptions,
    progress: Progress | None = None,
) -> OnBoard:
    """Open a model on a board; `ports` None are those that the runtime tells. Closes the transport where it fails."""
    found = OnBoard(transport, facts, choice, ports, options)
    try:
        found.start(progress)
    except BaseException:
        found.close()
        raise
    return found


def _as_often(inputs: Inputs, ports: Ports, data_format: Sequence[str]) -> tuple[Inputs, Sequence[str]]:
    """One sample as many times as the model takes at once."""
    if isinstance(inputs, Mapping):
        inputs = [inputs[spec.name] for spec in ports.inputs]
    repeated = []
    for array, spec in zip(inputs, ports.inputs, strict=True):
        times = spec.shape[0] // array.shape[0] if spec.shape and array.ndim and array.shape[0] else 1
        repeated.append(np.repeat(array, times, axis=0) if times > 1 else array)
    return repeated, data_format


def _only_refused(error: DeviceError) -> bool:
    """Whether the board is still there."""
    return type(error) is DeviceError
