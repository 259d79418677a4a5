"""A model that takes the place of both runtimes in an agent: it does what its file, a piece of JSON, says.

It is put into the agent's own file under the names of the two modules that open models, and so needs nothing but the
standard library, and Python 3.7. Keys of the file: `open` and `run` are lists of steps that opening and every run go
through, each one of ["print", text], ["sleep", seconds], ["exit", code], ["signal", number], ["fault", what, hint,
code], ["dump", name, text], ["log", path] (appends the times at which the run began and ended).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class ModelFault(Exception):
    """As the runtime's."""

    def __init__(self, what: str, hint: str = "", code: int = 0) -> None:
        super().__init__(what)
        self.what, self.hint, self.code = what, hint, code


class ToyModel:
    """Gives back its inputs."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        # The rest of a large model is filling.
        self._told = json.loads(Path(path).read_bytes().split(b"\n")[0])
        self._options = options
        self._do("open")

    def _do(self, name: str) -> None:
        start = time.monotonic()
        logs = []
        for step, *words in self._told.get(name, []):
            if step == "print":
                sys.stderr.write(words[0])
                sys.stderr.flush()
            elif step == "sleep":
                time.sleep(words[0])
            elif step == "exit":
                os._exit(words[0])
            elif step == "signal":
                os.kill(os.getpid(), words[0])
            elif step == "fault":
                raise ModelFault(*words)
            elif step == "dump":
                Path(os.environ["RKNN_DUMP_DIR"], words[0]).write_text(words[1])
            elif step == "log":
                logs.append(words[0])
        for path in logs:
            with Path(path).open("a") as file:
                file.write(f"{start} {time.monotonic()}\n")

    def describe(self) -> dict[str, Any]:
        tensor = {"name": "x", "dims": [1, 4], "fmt": "", "dtype": "float32", "qnt": "none", "scale": 1.0}
        told = {"inputs": [dict(tensor, zero_point=0, size=16)], "outputs": [dict(tensor, zero_point=0, size=16)]}
        return dict(told, api="toy 1", driver="", custom_string="", **self._told.get("about", {}))

    def run(self, inputs: list[Any]) -> list[Any]:
        self._do("run")
        return [({"dtype": told["dtype"], "shape": told["shape"]}, bytes(content)) for told, content in inputs]

    def measure(self, inputs: list[Any], runs: int, warmup: int, lock: Any) -> dict[str, Any]:
        with lock:
            for _ in range(runs + warmup):
                self._do("run")
        assert inputs
        return {"call_us": [100.0 + warmup] * runs, "run_us": self._told.get("run_us", [50.0] * runs)}

    def layer_table(self) -> str:
        if not self._options["perf"]:
            raise ModelFault("there is no table", "load it with perf")
        return "ID OpType\n1 Conv\n"

    def memory(self) -> dict[str, Any]:
        return {"weight": 300, "internal": 200, "dma": None, "sram": None, "sram_free": None}

    def close(self) -> None:
        self._do("close")


def open_onnx(path: str, options: dict[str, Any]) -> ToyModel:
    """As in onnx_model.py."""
    return ToyModel(path, options)


def open_rknn(path: str, library: str, options: dict[str, Any]) -> ToyModel:
    """As in runtime.py."""
    return ToyModel(path, options)
