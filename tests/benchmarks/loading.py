"""Times loading real models beside the frameworks' own loaders: `python -m tests.benchmarks.loading`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.zoo import FOLDER

FACTOR, ALLOWANCE = 2.0, 1.0
"""What is aimed at: no load takes more than so many times the framework's own, and so many seconds."""

LEVEL = 3
"""The optimization level that a session takes unless told otherwise."""

_ENDINGS = {
    "onnx": (".onnx",),
    "tflite": (".tflite",),
    "tensorflow": (".pb",),
    "caffe": (".prototxt", ".caffemodel"),
    "darknet": (".cfg", ".weights"),
    "pytorch": (".pt", ".ptl"),
}
FRAMEWORKS = tuple(_ENDINGS)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A real model: its files, the one with the network first, and the shapes of its inputs by name."""

    framework: str
    name: str
    files: tuple[Path, ...]
    inputs: Mapping[str, Sequence[int]]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the front end is told besides the files."""
        if self.framework not in ("onnx", "tensorflow", "pytorch"):
            return {}
        sizes = {"input_size_list": [list(shape) for shape in self.inputs.values()]}
        return sizes | (
            {"inputs": [n.removesuffix(":0") for n in self.inputs]} if self.framework == "tensorflow" else {}
        )


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one process: what it took to import, to load, and (ours) to optimize the graph; nodes before that."""

    imported: float
    loaded: float
    optimized: float = 0.0
    nodes: int = 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """Medians of both sides; `note` says what the other side is, or why there is none."""

    subject: str
    framework: str
    ours: Times
    theirs: Times | None
    note: str

    @property
    def pair(self) -> tuple[float, float] | None:
        """Seconds of ours and theirs that are compared: with imports for PyTorch, which ours imports as it loads."""
        if self.theirs is None:
            return None
        theirs = self.theirs.loaded + (self.theirs.imported if self.framework == "pytorch" else 0.0)
        return self.ours.loaded + self.ours.optimized, theirs

    @property
    def reached(self) -> bool | None:
        """Whether it is as quick as is aimed at; None where there is nothing to compare with."""
        pair = self.pair
        return None if pair is None else pair[0] <= FACTOR * pair[1] + ALLOWANCE


def subjects() -> dict[str, Subject]:
    """Every model of the zoo by framework and name; empty where there is no zoo."""
    found = {}
    for framework, endings in _ENDINGS.items():
        for folder in sorted(FOLDER.glob(f"{framework}/*")):
            files = tuple(path for ending in endings for path in sorted(folder.glob(f"*{ending}")))
            if files and (folder / "meta.json").is_file():
                inputs = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["inputs"]
                shapes = {name: tuple(given["shape"]) for name, given in inputs.items()}
                found[f"{framework}/{folder.name}"] = Subject(framework, folder.name, files, shapes)
    return found


# What each process does


def load_with_ours(subject: Subject) -> Times:
    """Import the front end, load with it, and optimize as a session does."""
    started = time.perf_counter()
    load = importlib.import_module(f"engine.frontends.{subject.framework}").load
    optimize = importlib.import_module("engine.graph.optimize").optimize
    imported = time.perf_counter()
    model = load(*subject.files, **subject.arguments)
    loaded, nodes = time.perf_counter(), len(model.graph)
    optimize(model, LEVEL)
    return Times(imported - started, loaded - imported, time.perf_counter() - loaded, nodes)


def load_with_theirs(subject: Subject) -> Times:
    """Import the framework and let it load the file."""
    prepare = _THEIRS[subject.framework][2]
    started = time.perf_counter()
    load = prepare()
    imported = time.perf_counter()
    load(*map(str, subject.files))
    return Times(imported - started, time.perf_counter() - imported)


def _onnxruntime() -> Callable[[str], Any]:
    import onnxruntime

    return lambda path: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _litert() -> Callable[[str], Any]:
    from ai_edge_litert.interpreter import Interpreter

    return lambda path: Interpreter(path).allocate_tensors()


def _tensorflow() -> Callable[[str], Any]:
    import tensorflow

    def load(path: str) -> Any:
        graph = tensorflow.compat.v1.GraphDef()
        graph.ParseFromString(Path(path).read_bytes())
        with tensorflow.Graph().as_default():
            return tensorflow.import_graph_def(graph, name="")

    return load


def _protobuf() -> Callable[[str], Any]:
    """The message alone: what any reader of frozen graphs does first."""
    from engine.frontends.tensorflow.schema import CLASSES

    message: Any = CLASSES["GraphDef"]
    return lambda path: message.FromString(Path(path).read_bytes())


def _caffe() -> Callable[[str, str], Any]:
    import cv2

    return lambda network, weights: cv2.dnn.readNetFromCaffe(network, weights)


def _darknet() -> Callable[[str, str], Any]:
    import cv2

    return lambda network, weights: cv2.dnn.readNetFromDarknet(network, weights)


def _torch() -> Callable[[str], Any]:
    import torch

    if "qnnpack" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "qnnpack"
    return lambda path: torch.jit.load(path)


_HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
_THEIRS: Mapping[str, tuple[str, str, Callable[[], Callable[..., Any]]]] = {
    "onnx": ("onnxruntime", "session of ONNX Runtime", _onnxruntime),
    "tflite": ("ai_edge_litert", "LiteRT, with allocation", _litert),
    "tensorflow": ("tensorflow", "import_graph_def of TensorFlow", _tensorflow)
    if _HAS_TENSORFLOW
    else ("google.protobuf", "protobuf parse only: no TensorFlow here", _protobuf),
    "caffe": ("cv2", "readNetFromCaffe of OpenCV", _caffe),
    "darknet": ("cv2", "readNetFromDarknet of OpenCV", _darknet),
    "pytorch": ("torch", "torch.jit.load, import included", _torch),
}
"""Framework -> the module that it takes, what is timed, and what imports it and returns the loader."""


# Measuring


def measure(subject: Subject, repeats: int = 3) -> Measured:
    """Both sides in turns, each time in a fresh process."""
    module, note, _ = _THEIRS[subject.framework]
    there = importlib.util.find_spec(module) is not None
    found: dict[str, list[Times]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for side in found if there else ("ours",):
            found[side].append(_in_child(subject, side))
    theirs = _median(found["theirs"]) if there else None
    return Measured(subject.name, subject.framework, _median(found["ours"]), theirs, note if there else f"no {module}")


def _in_child(subject: Subject, side: str) -> Times:
    command = [sys.executable, "-m", "tests.benchmarks.loading", "--side", side]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, f"{subject.framework}/{subject.name}"], cwd=root, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"loading {subject.name} with {side} failed: {done.stderr[-2000:]}")
    return Times(**json.loads(done.stdout.splitlines()[-1]))


def _median(times: Sequence[Times]) -> Times:
    fields = {field.name: statistics.median(getattr(one, field.name) for one in times) for field in _FIELDS}
    return Times(**fields)


_FIELDS = dataclasses.fields(Times)


def making(nodes: int = 5000) -> tuple[float, float]:
    """Seconds that a front end takes to make a graph of so many nodes, and to finish it."""
    import numpy as np

    from engine.frontends.finishing import finish
    from engine.frontends.making import GraphMaker

    maker = GraphMaker("made")
    value = maker.input("data", [1, 16, 16, 16])
    weights = [maker.constant(np.ones((16, 16, 1, 1), np.float32), f"weights_{i}") for i in range(nodes // 3)]
    started = time.perf_counter()
    for index, constant in enumerate(weights):
        inner = maker.node("Conv", [value, constant], f"conv_{index}", kernel_shape=[1, 1])
        inner = maker.node("Relu", [inner], f"relu_{index}")
        value = maker.node("Add", [value, inner], f"sum_{index}")
    made = time.perf_counter()
    finish(maker.model([value], ["result"]), "made")
    return made - started, time.perf_counter() - made


def missing(framework: str) -> str:
    """Why nothing of the framework can be timed; empty where it can."""
    if importlib.util.find_spec(f"engine.frontends.{framework}") is None:
        return "no front end"
    try:
        there = hasattr(importlib.import_module(f"engine.frontends.{framework}"), "load")
    except ImportError as error:
        return f"cannot be imported: {error}"
    return "" if there else "no front end"


def table(measured: Sequence[Measured]) -> str:
    """The times as text, a line a model; imports stand apart and are not compared unless a line says so."""
    lines = [
        f"{'seconds, medians':46}{'ours':>24}{'framework':>18}",
        f"{'':38}{'nodes':>8}{'import':>8}{'load':>8}{'optim.':>8}{'import':>10}{'load':>8}{'ratio':>8}",
    ]
    for one in measured:
        ours = one.ours
        line = f"{one.framework + '/' + one.subject:38.38}{ours.nodes:8.0f}{ours.imported:8.2f}"
        line += f"{ours.loaded:8.3f}{ours.optimized:8.3f}"
        if one.theirs is not None and one.pair is not None:
            ratio = one.pair[0] / max(one.pair[1], 1e-6)
            line += f"{one.theirs.imported:10.2f}{one.theirs.loaded:8.3f}{ratio:8.1f}"
            line += "  ok    " if one.reached else "  missed"
        lines.append(f"{line}  {one.note}")
    judged = [one for one in measured if one.reached is not None]
    missed = [f"{one.framework}/{one.subject}" for one in judged if not one.reached]
    aim = f"nothing slower than {FACTOR:g} x the framework's own loader + {ALLOWANCE:g} s"
    lines.append(
        f"target: {aim}: " + (f"missed by {', '.join(missed)}" if missed else f"holds for {len(judged)} models")
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time loading real models beside the frameworks' own loaders.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "theirs"), help="only load, in this process, and tell the times")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="FRAMEWORK or FRAMEWORK/NAME; default all")
    options = parser.parse_args(arguments)
    known = subjects()
    if not known:
        parser.error(f"no folder of real models at {FOLDER}")
    chosen = [one for key, one in known.items() if not options.models or {key, one.framework} & set(options.models)]
    if not chosen:
        parser.error(f"unknown models: {options.models}; known: {', '.join(known)}")
    if options.side:
        times = (load_with_ours if options.side == "ours" else load_with_theirs)(chosen[0])
        print(json.dumps(dataclasses.asdict(times)), flush=True)
        os._exit(0)  # libraries that take long to end are not what is timed
    measured, left_out = [], {}
    for subject in chosen:
        reason = missing(subject.framework)
        if reason:
            left_out[subject.framework] = reason
        else:
            measured.append(measure(subject, options.repeats))
    print(table(measured))
    made, finished = making()
    print(
        f"a graph of 5000 nodes is made in {made:.2f} s, {5000 / made:.0f} nodes a second, finished in {finished:.2f} s"
    )
    for framework, reason in left_out.items():
        print(f"{framework}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
