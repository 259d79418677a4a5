"""The client of the agent on a board: models that are opened there, run, measured and asked."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from engine.boards import BoardFacts
from engine.devices.agent.protocol import BLOB_LIMIT, Blobs, Ended, Fault, Frames, Header, Late, Refused
from engine.devices.answers import BoardTensor as BoardTensor
from engine.devices.answers import Hello as Hello
from engine.devices.answers import MemorySizes as MemorySizes
from engine.devices.answers import (
    ModelAbout,
    arrays_of,
    error_of,
    hello_of,
    model_of,
    number_of,
    sizes_of,
    times_of,
)
from engine.devices.closing import Closing
from engine.devices.starting import start_agent, stop_agent
from engine.devices.transport import Transport
from engine.devices.upload import send_model
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError
from engine.progress import Progress

Array = np.ndarray[Any, Any]

GRACE_SECONDS = 5.0
"""How much longer than the agent the client waits: who does not answer then is not there any more."""
CALL_SECONDS = 20.0
CLOSE_SECONDS = 2.0
_SLICE_SECONDS = 0.5
_MOST_IN_A_SLICE = 1000
# The agent's own answers are small; what a model gives has its bound from the model's tensors.
_SMALL = 16 << 20
_DUMP_LIMIT = 2 << 30


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """How a model is opened: `core_mask` as in the runtime's C interface, 0 for automatic; `perf` lets the runtime
    keep times of layers; `asynchronous` gives results one frame late; `dump` lets it write its tensors;
    `batch_cores` spreads a batch over so many cores, 0 for what the runtime does by itself."""

    core_mask: int = 0
    perf: bool = False
    asynchronous: bool = False
    dump: bool = False
    batch_cores: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class BoardInput:
    """An array for one input. `layout` is 'nhwc' or 'nchw', '' where there is none to speak of; `pass_through` hands
    the bytes to the NPU without conversion."""

    array: Array
    layout: str = ""
    pass_through: bool = False


@dataclasses.dataclass(frozen=True)
class Timings:
    """Microseconds of each run: `call_us` of the whole call on the board, `run_us` by the runtime itself, empty where
    it does not tell."""

    call_us: tuple[float, ...]
    run_us: tuple[float, ...]


def open_link(transport: Transport, facts: BoardFacts, *, idle: float = 30.0, seconds: float = 20.0) -> AgentLink:
    """Start an agent on a board and connect to it.

    `idle` is how long the agent outlives its last client, in seconds. Ends within about `seconds`. Raises DeviceError
    where the board has no Python or the agent does not start, DeviceLostError, and DeviceTimeoutError; then nothing
    of ours is left there.
    """
    deadline = time.monotonic() + seconds
    started = start_agent(transport, facts, idle, deadline)
    link = AgentLink(transport.id, started.frames, functools.partial(stop_agent, transport, started))
    try:
        told, _ = link.ask({"call": "hello"}, seconds=max(deadline - time.monotonic(), 0.1))
        link.hello = hello_of(told)
        if link.hello.agent != started.digest:
            raise DeviceError("the agent arrived damaged on the board", where=transport.id, hint="try again")
    except BaseException:
        link.close()
        raise
    return link


class AgentLink(Closing):
    """A connection to an agent, which ends with it. Calls of several threads come one after the other.

    Every call raises DeviceLostError where the agent or the board is gone, DeviceTimeoutError where it does not answer
    in time, and DeviceError for what it refuses. After a loss nothing but a new link helps; after a time-out in a
    model, that model is gone, and the others go on.
    """

    hello: Hello

    def __init__(self, where: str, frames: Frames, stop: Callable[[float], None]) -> None:
        """Made by `open_link`; `stop` ends the agent within some seconds by another way than its connection."""
        self.where = where
        self._frames, self._stop = frames, stop
        self._lock = threading.RLock()
        self._number = 0
        self._lost: DeviceError | None = None
        self._closed = False

    def load(
        self,
        model: bytes | Path,
        kind: str,
        options: ModelOptions | None = None,
        *,
        seconds: float = 60.0,
        progress: Progress | None = None,
    ) -> BoardModel:
        """Send a model, unless this agent has it already, and open it.

        `kind` is 'rknn' for a binary of the vendor's compiler, which runs on the NPU, or 'onnx'. `seconds` is for the
        opening; the sending may take as long as it goes on. Raises FileError where `model` cannot be read, Cancelled.
        """
        options = options or ModelOptions()
        with self._lock:
            digest = send_model(self, model, progress or Progress())
            request = {"call": "load", "sha256": digest, "kind": kind, "seconds": seconds}
            told, _ = self.ask(dict(request, options=dataclasses.asdict(options)), seconds=seconds)
        return BoardModel(self, model_of(told), options)

    def pin(self, hertz: int | None = None) -> int | None:
        """Hold the NPU's clock at `hertz`, by default its highest; what it is held at.

        However this link ends, the clock is given back. Raises DeviceError where it may not be set.
        """
        told, _ = self.ask({"call": "pin", "hertz": hertz})
        held = told.get("hertz")
        return held if isinstance(held, int) else None

    def close(self) -> None:
        """Let the agent end and remove what it has on the board. Never raises, and never waits longer than 2 s."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + CLOSE_SECONDS
        told = False
        free = self._lock.acquire(timeout=CLOSE_SECONDS / 4)
        try:
            if free and self._lost is None:
                with contextlib.suppress(Ended, Late, Refused):
                    polite = deadline - CLOSE_SECONDS / 4
                    self._frames.send({"call": "shutdown"}, (), polite)
                    self._frames.receive(polite, _at_most(_SMALL))
                    told = True
            self._lost = self._lost or DeviceLostError("the link to the board was closed", where=self.where)
        finally:
            # Also ends a call of another thread that is under way.
            self._frames.close()
            if free:
                self._lock.release()
        if not told:
            # The agent would end by itself, but only after a while.
            self._stop(max(deadline - time.monotonic(), 0.2))

    def ask(
        self, header: Header, blobs: Blobs = (), *, seconds: float = CALL_SECONDS, most: int = _SMALL
    ) -> tuple[Header, list[bytearray]]:
        """The agent's answer to one request; `most` bounds the bytes that may come with it."""
        with self._lock:
            self.post(header, blobs, seconds=seconds)
            return self.take(seconds=seconds, most=most)

    def post(self, header: Header, blobs: Blobs = (), *, seconds: float = CALL_SECONDS) -> None:
        """Send a request without waiting for its answer, which `take` gives, in the order of the requests."""
        with self._lock, self._broken_off(seconds):
            if self._lost is not None:
                raise self._lost
            self._number += 1
            self._frames.send(dict(header, id=self._number), blobs, time.monotonic() + seconds + GRACE_SECONDS)

    def take(self, *, seconds: float = CALL_SECONDS, most: int = _SMALL) -> tuple[Header, list[bytearray]]:
        """The next answer."""
        with self._lock, self._broken_off(seconds):
            if self._lost is not None:
                raise self._lost
            told, content = self._frames.receive(time.monotonic() + seconds + GRACE_SECONDS, _at_most(most))
        fault = Fault.of(told)
        if fault is not None:
            raise error_of(fault, self.where)
        return told, content

    @contextlib.contextmanager
    def _broken_off(self, seconds: float) -> Iterator[None]:
        """Turn what goes wrong on the way into errors; afterwards the link is of no use."""
        try:
            yield
        except Late:
            self._lose(
                DeviceTimeoutError(
                    f"the agent on the board did not answer within {seconds + GRACE_SECONDS:g} s",
                    where=self.where,
                    hint="the board may hang: look at it, or restart it",
                )
            )
        except Ended as ended:
            told = self._last_words()
            self._lose(
                error_of(told, self.where)
                if told
                else DeviceLostError(
                    f"the connection to the agent on the board ended ({ended})",
                    where=self.where,
                    hint="is the board still there? connect to it again",
                )
            )
        except Refused as refused:
            self._lose(DeviceError(f"the agent's answer cannot be taken: {refused}", where=self.where))
        except DeviceError:
            raise
        except BaseException:
            # An answer may be half read: what comes next on this link could be taken for something else.
            self._lost = DeviceLostError("the link to the board was broken off", where=self.where)
            self._frames.close()
            raise

    def _lose(self, error: DeviceError) -> NoReturn:
        self._lost = DeviceLostError(error.what, where=self.where, hint=error.hint or "connect to the board again")
        self._frames.close()
        raise error from None

    def _last_words(self) -> Fault | None:
        """Why the agent closed the connection, if it said so before."""
        with contextlib.suppress(Ended, Late, Refused):
            return Fault.of(self._frames.receive(time.monotonic() + 0.5, _at_most(0))[0])
        return None


class BoardModel(Closing):
    """A model that is open on a board. Calls raise what AgentLink says."""

    def __init__(self, link: AgentLink, about: ModelAbout, options: ModelOptions) -> None:
        self._link, self._about, self.options = link, about, options
        self.inputs = about.inputs
        self.outputs = about.outputs
        self.api = about.api
        self.driver = about.driver
        self.custom_string = about.custom_string
        self.pid = about.pid
        """The process of the model on the board."""
        self.run_us = 0.0
        """How long the last `run` took on the board, in microseconds, without the way there and back."""

    def run(self, inputs: Sequence[BoardInput], *, seconds: float = CALL_SECONDS) -> list[Array]:
        """The outputs for one array an input: float32, or integers where the model gives such, in the shapes that
        `outputs` tells."""
        header, blobs = self._request("run", inputs, seconds)
        told, content = self._link.ask(header, blobs, seconds=seconds, most=self._most)
        self.run_us = number_of(told.get("us"), 0.0)
        return arrays_of(told.get("outputs"), content, self._link.where)

    def measure(
        self,
        inputs: Sequence[BoardInput],
        *,
        runs: int,
        warmup: int,
        seconds: float,
        progress: Progress | None = None,
    ) -> Timings:
        """Run the model `warmup` times and then `runs` times on the same inputs. Progress comes between slices of
        about half a second, as stage 'run', and so may Cancelled."""
        progress = progress or Progress()
        deadline = time.monotonic() + seconds
        calls: list[float] = []
        own: list[float] = []
        header, blobs = self._request("measure", inputs, seconds)
        size = 1
        while len(calls) < runs:
            size = min(size, runs - len(calls), _MOST_IN_A_SLICE)
            start = time.monotonic()
            left = max(deadline - start, 0.001)
            told, _ = self._link.ask(dict(header, runs=size, warmup=warmup, seconds=left), blobs, seconds=left)
            calls += times_of(told.get("call_us"), size, self._link.where)
            own += times_of(told.get("run_us") or [], size, self._link.where)
            progress.step("run", len(calls), runs)
            each = max(time.monotonic() - start, 1e-4) / (size + warmup)
            size = max(1, int(_SLICE_SECONDS / each))
            header, blobs, warmup = dict(header, again=True), [], 0
        return Timings(tuple(calls), tuple(own) if len(own) == len(calls) else ())

    def layer_table(self) -> str:
        """The runtime's table of times by layer, of the last run; needs `options.perf`."""
        _, content = self._link.ask({"call": "layers", "model": self._about.number, "seconds": CALL_SECONDS})
        return content[0].decode("utf-8", "replace") if content else ""

    def memory(self) -> MemorySizes:
        """What the model takes of the board's memory."""
        told, _ = self._link.ask({"call": "memory", "model": self._about.number, "seconds": CALL_SECONDS})
        return sizes_of(told.get("sizes"))

    def dump(self, inputs: Sequence[BoardInput], *, seconds: float) -> dict[str, Array]:
        """Run the model once, and give the tensors that its runtime has written; needs `options.dump`.

        Raises DeviceError where the runtime writes none.
        """
        from engine.devices.dumps import read_dumps

        where = self._link.where
        header, blobs = self._request("dump", inputs, seconds)
        told, _ = self._link.ask(header, blobs, seconds=seconds, most=self._most)
        files = _files_of(told.get("files"), where)
        if not files:
            raise DeviceError(
                "this runtime gives out no tensors",
                where=where,
                hint="it wrote no files, though it was asked to by RKNN_DUMP_DIR; another version of it may",
            )
        found: dict[str, bytes] = {}
        for name, size in files.items():
            _, content = self._link.ask(
                {"call": "fetch", "model": self._about.number, "name": name}, seconds=seconds, most=size
            )
            found[name] = bytes(content[0]) if content else b""
        tensors: dict[str, Array] = read_dumps(found)
        return tensors

    def close(self) -> None:
        """End the model on the board. Never raises."""
        with contextlib.suppress(DeviceError):
            self._link.ask({"call": "unload", "model": self._about.number})

    @property
    def _most(self) -> int:
        """More than the outputs can have: eight bytes for each number."""
        told = sum(max(one.size, 8 * math.prod(one.dims)) for one in self.outputs)
        return min(2 * told + _SMALL, BLOB_LIMIT)

    def _request(self, call: str, inputs: Sequence[BoardInput], seconds: float) -> tuple[Header, list[Any]]:
        arrays = [np.ascontiguousarray(one.array) for one in inputs]
        told = [
            {
                "dtype": str(array.dtype),
                "layout": one.layout,
                "pass_through": one.pass_through,
                "shape": list(one.array.shape),
            }
            for one, array in zip(inputs, arrays, strict=True)
        ]
        header: Header = {"call": call, "model": self._about.number, "seconds": seconds, "inputs": told}
        return header, [array.reshape(-1).view(np.uint8) for array in arrays]


def _at_most(most: int) -> Callable[[int], str]:
    return lambda size: f"no more than {most} can be right" if size > most else ""


def _files_of(told: object, where: str) -> Mapping[str, int]:
    """Names and sizes of dumped files, as far as they can be taken."""
    files = {}
    for one in told if isinstance(told, list) else []:
        if isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and type(one[1]) is int:
            files[one[0]] = one[1]
    if sum(files.values()) > _DUMP_LIMIT or any(not 0 <= size <= BLOB_LIMIT for size in files.values()):
        raise DeviceError("the runtime has written more tensors than can be taken", where=where)
    return files
