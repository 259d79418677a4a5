"""Runs inside the vendor's environment: calls the toolkit's public API as asked, one JSON line a request.

Started as `python worker.py REPLIES`, where REPLIES is the number of a pipe's file descriptor. Requests come on
standard input, answers go to that pipe; all that the toolkit prints goes to standard output and standard error, which
the other side reads as a log. Nothing of this project is imported here: the file has to run with what the environment
has.

A request is {"call": NAME, "arguments": {...}}; an answer {"value": ...} or {"error": {"kind", "message"}}, in order.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import traceback
from typing import Any

_LONGEST_MESSAGE = 4000


class Refused(Exception):
    """A call of the toolkit that returned a failure instead of raising."""


class Worker:
    """The toolkit's object of this process, and the calls on it."""

    def __init__(self) -> None:
        self.toolkit: Any = None

    def versions(self) -> dict[str, str]:
        """What is installed here; does not import the toolkit, which takes seconds."""
        from importlib import metadata

        found = {"python": platform.python_version(), "machine": platform.machine()}
        for name in ("rknn-toolkit2", "torch", "onnx", "onnxruntime", "numpy", "protobuf", "setuptools"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = ""
        return found

    def open(self, verbose: bool = False) -> None:
        """A fresh toolkit object; one that was open is let go of."""
        from rknn.api import RKNN  # type: ignore[import-not-found]

        self.close()
        self.toolkit = RKNN(verbose=verbose)

    def close(self) -> None:
        """Let go of the toolkit object."""
        if self.toolkit is not None:
            self.toolkit.release()
            self.toolkit = None

    def config(self, **settings: Any) -> None:
        """RKNN.config."""
        self._ask("config", **settings)

    def load_onnx(self, **arguments: Any) -> None:
        """RKNN.load_onnx."""
        self._ask("load_onnx", **arguments)

    def build(self, **arguments: Any) -> None:
        """RKNN.build."""
        self._ask("build", **arguments)

    def hybrid_quantization_step1(self, **arguments: Any) -> None:
        """RKNN.hybrid_quantization_step1."""
        self._ask("hybrid_quantization_step1", **arguments)

    def hybrid_quantization_step2(self, **arguments: Any) -> None:
        """RKNN.hybrid_quantization_step2."""
        self._ask("hybrid_quantization_step2", **arguments)

    def export_rknn(self, path: str) -> None:
        """RKNN.export_rknn."""
        self._ask("export_rknn", export_path=path)

    def accuracy_analysis(self, inputs: list[str], output_dir: str) -> None:
        """RKNN.accuracy_analysis on its simulator."""
        self._ask("accuracy_analysis", inputs=inputs, output_dir=output_dir, target=None)

    def inference(self, samples: list[list[str]], layouts: list[str], outputs: str) -> int:
        """The outputs of its simulator for samples, each a list of npy files, one a model input.

        `layouts` has 'nhwc' or 'nchw' for each model input. The outputs of sample N are written to `outputs`/N_M.npy.
        """
        import numpy

        self._ask("init_runtime")
        for number, files in enumerate(samples):
            arrays = [numpy.load(file, allow_pickle=False) for file in files]
            found = self.toolkit.inference(inputs=arrays, data_format=layouts)
            if found is None:
                raise Refused("inference gave nothing")
            for index, array in enumerate(found):
                numpy.save(f"{outputs}/{number}_{index}.npy", array)
        return len(samples)

    def _ask(self, name: str, **arguments: Any) -> None:
        if self.toolkit is None:
            raise Refused("no toolkit object is open")
        result = getattr(self.toolkit, name)(**arguments)
        if result not in (0, None):
            raise Refused(f"{name} returned {result!r}")


CALLS = (
    "versions",
    "open",
    "close",
    "config",
    "load_onnx",
    "build",
    "hybrid_quantization_step1",
    "hybrid_quantization_step2",
    "export_rknn",
    "accuracy_analysis",
    "inference",
)


def main() -> None:
    """Answer requests until standard input ends; then end at once, whatever is under way."""
    replies = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    # Whatever the toolkit starts must neither take requests nor keep the pipe open.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.set_inheritable(replies.fileno(), False)
    worker, changed = Worker(), threading.Condition()
    waiting: list[str] = []

    def read() -> None:
        for line in requests:
            with changed:
                waiting.append(line)
                changed.notify()
        # The other side is gone, or wants no more: nobody reads a result.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with changed:
            while not waiting:
                changed.wait()
            line = waiting.pop(0)
        answer = _answer(worker, line)
        sys.stdout.flush()
        sys.stderr.flush()
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _answer(worker: Worker, line: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
        name = request["call"]
        if name not in CALLS:
            raise Refused(f"unknown call {name!r}")
        return {"value": getattr(worker, name)(**request["arguments"])}
    except BaseException as error:  # the toolkit may call sys.exit
        if not isinstance(error, Refused):
            traceback.print_exc()
        return {"error": {"kind": type(error).__name__, "message": str(error)[-_LONGEST_MESSAGE:]}}


if __name__ == "__main__":
    main()
