"""The process of one model: it opens the model, does what the agent asks over a pipe, and ends with the pipe."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import threading
import time
from typing import Any, Callable  # noqa: UP035 - Python 3.7 has it there

from .locks import npu_lock
from .protocol import Ended, Fault, Frames, Header, Refused

_GRACE = 0.5
"""How long a model may take to be closed once the agent is gone."""
_LOCK_SHARE = 0.8
"""The part of a request's time that may go into waiting for the NPU, so that a wait ends as an answer."""

Opener = Callable[[Header], Any]


def serve(pipe: socket.socket, openers: dict[str, Opener], folder: str) -> None:
    """Answer the requests that come through `pipe`, until its end.

    The first one says of what kind the model is, and `openers` open those. `folder` is where the board's agents live.
    """
    threading.Thread(target=_end_with, args=(pipe.fileno(),), daemon=True).start()
    # The core of a process that has a whole model in its memory would fill the board's disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    served = _Served(openers, folder)
    frames = Frames(pipe)
    with contextlib.closing(frames), contextlib.closing(served), contextlib.suppress(Ended, Refused):
        while True:
            header, blobs = frames.receive()
            try:
                told, content = served.answer(header, blobs)
            except Fault as fault:
                told, content = fault.header(), []
            except Exception as error:
                told, content = _fault_of(error).header(), []
            frames.send(told, content)


class _Served:
    """The model of this process, once it is open."""

    def __init__(self, openers: dict[str, Opener], folder: str) -> None:
        self._openers, self._folder = openers, folder
        self._model: Any = None
        self._on_npu = False
        self._measured: list[Any] = []

    def answer(self, header: Header, blobs: list[bytearray]) -> tuple[Header, list[Any]]:
        call = header["call"]
        if call == "open":
            self._on_npu = header["kind"] == "rknn"
            self._model = self._openers[header["kind"]](header)
            return dict(self._model.describe()), []
        if call == "run":
            inputs = _inputs(header, blobs)
            with self._npu(header):
                start = time.perf_counter()
                outputs = self._model.run(inputs)
                taken = time.perf_counter() - start
            return {"outputs": [told for told, _ in outputs], "us": taken * 1e6}, [content for _, content in outputs]
        if call == "measure":
            # A measurement comes in slices, and its inputs with the first of them only.
            if not header.get("again"):
                self._measured = _inputs(header, blobs)
            lock = self._npu(header)
            return dict(self._model.measure(self._measured, header["runs"], header["warmup"], lock)), []
        if call == "layers":
            return {}, [self._model.layer_table().encode()]
        if call == "memory":
            return {"sizes": dict(self._model.memory())}, []
        raise Fault("request", f"there is no call {call!r}")

    def _npu(self, header: Header) -> Any:
        """What is held while the model runs."""
        if not self._on_npu:
            return contextlib.nullcontext()
        return npu_lock(self._folder, header["seconds"] * _LOCK_SHARE)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()


def _inputs(header: Header, blobs: list[bytearray]) -> list[Any]:
    told = header["inputs"]
    if len(told) != len(blobs):
        raise Fault("request", f"{len(blobs)} arrays came for {len(told)} inputs")
    return [(one, memoryview(blob)) for one, blob in zip(told, blobs)]  # noqa: B905 - Python 3.7 cannot check it


def _fault_of(error: Exception) -> Fault:
    """What a model's own error says: its `what`, `hint` and `code` where it has them."""
    what = getattr(error, "what", "") or f"{type(error).__name__}: {error}"
    return Fault("model", str(what), str(getattr(error, "hint", "")), int(getattr(error, "code", 0) or 0))


def _end_with(descriptor: int) -> None:
    """End this process when the other end of the pipe is closed, even while the runtime does not come back."""
    watch = select.poll()
    # Without events that are asked for, what remains is the hanging up.
    watch.register(descriptor, 0)
    with contextlib.suppress(OSError):
        while not watch.poll():
            pass
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
