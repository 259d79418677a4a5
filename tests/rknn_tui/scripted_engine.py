"""An engine process for the app's tests: the real host with a session whose answers depend on the model's file name.

`layers-N.onnx` has N layers; `dynamic.onnx` needs input sizes; `broken.onnx` cannot be read, `halting.onnx` not until
it is cancelled. Building `slow.onnx` goes on until it is cancelled, `steady.onnx` for ten seconds with ten reports in
each, `stuck.onnx` ignores the cancel, `deadly.onnx` ends the process.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

# Run as a script, where a checkout that is not installed is not on the path.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from engine.config import Config
from engine.errors import ConfigError, DatasetError, ModelError
from engine.host import run
from engine.progress import Progress
from engine.summaries import (
    AccuracyReport,
    BuildSummary,
    ErrorPair,
    LayerError,
    LayerSummary,
    ModelSummary,
    TensorSummary,
)

OPS = ("Conv", "Relu", "Add", "Concat", "MaxPool")


def layer(index: int) -> LayerSummary:
    name = f"/model.{index // 10}/block.{index % 10}/out_{index}"
    before = (f"/model.{(index - 1) // 10}/block.{(index - 1) % 10}/out_{index - 1}",) if index else ()
    return LayerSummary(
        index, name, OPS[index % len(OPS)], before, (1, 16, 8, 8), "float32", sources=(f"node_{index}",)
    )


def cosine(index: int) -> float:
    """Falls below the default limit at layers 3, 10, 17, ..., a little more each time."""
    return 0.9 - index * 1e-5 if index % 7 == 3 else 0.99987


def single(index: int) -> float:
    """Lowest at layer 5, then at layer 6, and so on: not in the order of the entire cosines."""
    return 0.5 + index * 1e-3 if index >= 5 else 0.99999


class ScriptedSession:
    def __init__(self) -> None:
        self.config = Config()
        self.model: ModelSummary | None = None
        self.precision = ""

    def load(
        self, path: str, inputs: Any = None, input_size_list: Any = None, outputs: Any = None, *, progress: Progress
    ) -> ModelSummary:
        print("a library prints this on standard output")
        name = Path(path).name
        progress.step("read", 1, 1)
        while name == "halting.onnx":
            progress.step("read", 0, 0)
            time.sleep(0.01)
        if name == "broken.onnx":
            raise ModelError("is not an ONNX model", where=path, hint="export it again")
        if name == "dynamic.onnx" and not input_size_list:
            raise ConfigError("inputs have dynamic dimensions: 'x' [1, 3, ?, ?]", where="input_size_list")
        found = re.search(r"layers-(\d+)", name)
        count = int(found[1]) if found else 30
        tensor = TensorSummary("x", tuple(input_size_list[0]) if input_size_list else (1, 3, 8, 8), "float32", "nchw")
        self.model = ModelSummary(
            path, "onnx", 17, (tensor,), (tensor,), tuple(map(layer, range(count))), 123456, "rk3566"
        )
        self.precision = ""
        return self.summary()

    def build(
        self,
        *,
        do_quantization: bool = True,
        dataset: str | None = None,
        rknn_batch_size: int = 1,
        progress: Progress,
    ) -> BuildSummary:
        assert self.model is not None
        name = Path(self.model.path).name
        if not do_quantization and self.config.target_platform == "rv1103":
            raise ConfigError("rv1103 has no float16", where="do_quantization", hint="quantize the model")
        if do_quantization and not Path(dataset or "").is_file():
            raise DatasetError("cannot be read: no such file", where=str(dataset))
        if name == "deadly.onnx":
            print("out of cheese", file=sys.stderr, flush=True)
            os._exit(7)
        if name == "stuck.onnx":
            time.sleep(60)
        steps, seconds = {"slow.onnx": (1_000_000, 0.01), "steady.onnx": (100, 0.1)}.get(name, (10, 0.01))
        for step in range(steps):
            progress.step("calibrate", step + 1, steps)
            time.sleep(seconds)
        self.precision = "int8" if do_quantization else "float16"
        return BuildSummary(self.precision, 4 if do_quantization else 0, 60, rknn_batch_size, {"calibrate": 0.1})

    def analyze(self, inputs: Any, *, progress: Progress) -> AccuracyReport:
        assert self.model is not None
        progress.step("analyse", 1, 1)
        errors = tuple(
            LayerError(
                one.name, one.op, self.precision, ErrorPair(cosine(one.index), 0.5), ErrorPair(single(one.index), 0.01)
            )
            for one in self.model.layers
        )
        return AccuracyReport(errors, {"y": ErrorPair(0.99312, 1.5)}, 1, 0.1, warnings=(f"sample {inputs[0]}",))

    def export(self, path: str) -> Path:
        Path(path).write_bytes(b"package")
        return Path(path)

    def summary(self) -> ModelSummary:
        assert self.model is not None
        # The input stays in float: its row does not change with a build.
        layers = tuple(
            dataclasses.replace(one, precision=self.precision if one.index else "") for one in self.model.layers
        )
        return dataclasses.replace(self.model, layers=layers, target=self.config.target_platform, built=self.precision)


if __name__ == "__main__":
    run(ScriptedSession)
