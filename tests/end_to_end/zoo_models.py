"""The real models of the zoo, of every framework: how each is loaded, what it is fed, and how near its outputs come."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.config import Config
from engine.graph.execution import run_float
from engine.graph.given import given
from engine.graph.query import tensors
from engine.session import Session
from engine.summaries import AccuracyReport, TensorSummary
from tests.rknn_tui.real_app import Place, tells
from tests.terminal import real
from tests.zoo import FOLDER

Array = np.ndarray[Any, Any]

ENDINGS = {
    "onnx": (".onnx",),
    "tflite": (".tflite",),
    "tensorflow": (".pb",),
    "caffe": (".prototxt", ".caffemodel"),
    "darknet": (".cfg", ".weights"),
    "pytorch": (".pt", ".ptl"),
}
"""The files of each framework; of Caffe and Darknet both, of PyTorch one."""

QUICK = (
    "onnx/mtcnn_pnet",
    "tflite/hello_world_int8",
    "tensorflow/tf2onnx_fc-layers",
    "caffe/mtcnn_det1",
    "darknet/yoloface50k",
    "pytorch/mtcnn_pnet",
)
"""Models that take the least time."""

COSINE, DIFFERENCE = 0.9999, 1e-3
"""What is asked of float models; the difference is relative to the range of the output."""
ROUNDING = 2
"""In float16 the difference may be larger where rounding alone makes it so: at most so many times that of the float
graph with every weight and tensor rounded. A steep Sigmoid behind a hundred layers makes much of the last bit."""
QUANTIZED_COSINE, FAR, FAR_STEPS = 0.995, 0.01, 2
"""What is asked of models that came quantized: at most so many outputs more than so many steps away."""

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A folder of the zoo."""

    framework: str
    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def label(self) -> str:
        """Framework and name."""
        return f"{self.framework}/{self.name}"

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        """The model's files, that with the network first."""
        return tuple(path for ending in ENDINGS[self.framework] for path in sorted(self.folder.glob(f"*{ending}")))

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(path.stat().st_size for path in self.files)

    @functools.cached_property
    def stored(self) -> Mapping[str, Array]:
        """What the framework's own runtime was fed, `in|NAME`, and gave, `out|NAME`."""
        with np.load(self.folder / "io.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    @functools.cached_property
    def fed(self) -> dict[str, Array]:
        """The reference inputs in order, as the framework takes them."""
        names = json.loads((self.folder / "meta.json").read_text())["inputs"]
        return {name: self.stored[f"in|{name}"] for name in names}

    @functools.cached_property
    def expected(self) -> dict[str, Array]:
        """The reference outputs in order; detections that another program decoded are left out."""
        names = json.loads((self.folder / "meta.json").read_text())["outputs"]
        return {name: self.stored[f"out|{name}"] for name in names if not name.startswith("cvdecoded_")}

    @property
    def arguments(self) -> dict[str, Any]:
        """What a person says besides the files: inputs, sizes, outputs."""
        sizes = [list(array.shape) for array in self.fed.values()]
        if self.framework == "onnx":
            return {"inputs": list(self.fed), "input_size_list": sizes}
        if self.framework == "pytorch":
            return {"input_size_list": sizes}
        if self.framework == "tensorflow":
            operations = [[name.removesuffix(":0") for name in names] for names in (self.fed, self.expected)]
            return {"inputs": operations[0], "input_size_list": sizes, "outputs": operations[1]}
        return {}

    def load(self, session: Session) -> None:
        """Load it by its framework's own call. Raises EngineError."""
        getattr(session, f"load_{self.framework}")(*self.files, **self.arguments)

    def words(self, folder: Path) -> list[str | Path]:
        """The command line that opens a copy in `folder`."""
        copies = [Path(shutil.copy(path, folder)) for path in self.files]
        found: list[str | Path] = [copies[0]]
        arguments = self.arguments
        for name, size in itertools.zip_longest(arguments.get("inputs", ()), arguments.get("input_size_list", ())):
            if size:  # a number alone has no size that could be written
                found += [] if name is None else [f"--input={name}"]
                found.append(f"--input-size={','.join(map(str, size))}")
        return [*found, *(f"--output={name}" for name in arguments.get("outputs", ()))]


def models() -> list[ZooModel]:
    """Every model of the zoo; none where there is no zoo."""
    return [
        ZooModel(framework, path.parent)
        for framework in ENDINGS
        for path in sorted(FOLDER.glob(f"{framework}/*/meta.json"))
    ]


def quick_ones() -> list[ZooModel]:
    """One of each framework: of `QUICK`, or else that of the fewest bytes."""
    found = models()
    by_framework = {name: [m for m in found if m.framework == name] for name in ENDINGS}
    return [min(group, key=lambda m: (m.label not in QUICK, m.bytes)) for group in by_framework.values() if group]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How near outputs come to the reference, each measure for the output where it is worst.

    `difference` is the largest one, relative to the output's range (to its size where all numbers are one). `far` is
    the share of numbers more than `FAR_STEPS` steps away, a step being that of the output's own grid or else a 255th
    of its range. `top` tells whether the largest number is the reference's.
    """

    cosine: float
    difference: float
    far: float
    top: bool


def session() -> Session:
    """A fresh one, for a chip that has every precision."""
    return Session(Config(target_platform="rk3588"))


def loaded(model: ZooModel) -> tuple[Session, float]:
    """The model in a session of its own, and how many seconds that took."""
    made = session()
    begun = time.perf_counter()
    model.load(made)
    return made, time.perf_counter() - begun


def came_quantized(made: Session) -> bool:
    """Whether the model has quantization parameters of its own."""
    values = [*tensors(made.model.graph), *made.model.graph.initializers.values()]
    return any(given(value) is not None for value in values)


def feeds(model: ZooModel, made: Session) -> list[Array]:
    """The reference inputs as real values, in the order of the session's inputs."""
    inputs = made.summary().inputs
    arrays = _by_name(model.fed, [tensor.name for tensor in inputs])
    return [_real(array, tensor) for array, tensor in zip(arrays, inputs, strict=True)]


def references(model: ZooModel, made: Session) -> list[Array]:
    """The reference outputs as real values, in the order of the session's outputs."""
    known = made.summary().outputs
    arrays = _by_name(model.expected, [tensor.name for tensor in known])
    return [_real(array, tensor) for array, tensor in zip(arrays, known, strict=True)]


def infer(model: ZooModel, made: Session) -> list[Array]:
    """What the build makes of the reference inputs."""
    layouts = [tensor.layout or "nhwc" for tensor in made.summary().inputs]
    return made.infer(feeds(model, made), data_format=layouts)


def infer_float(model: ZooModel, made: Session) -> list[Array]:
    """What the float graph makes of the reference inputs."""
    names = [tensor.name for tensor in made.summary().inputs]
    return run_float(made.model, dict(zip(names, feeds(model, made), strict=True)))


def infer_rounded(model: ZooModel, made: Session) -> list[Array]:
    """What the float graph makes of them with its weights and all that it computes rounded to float16."""
    copy = ir.from_proto(ir.to_proto(made.model))
    graph = copy.graph
    read = {value for node in graph if node.op_type in _WEIGHTED for value in node.inputs if value is not None}
    for value in read & set(graph.initializers.values()):
        array = value.const_value.numpy() if value.const_value is not None else np.zeros(0)
        if array.dtype == np.float32 and array.ndim >= 2:
            value.const_value = ir.tensor(_half(array), name=value.name)
    for node in list(graph):
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT and not value.is_graph_output():
                uses = list(value.uses())
                half = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16})
                whole = ir.node("Cast", half.outputs, {"to": ir.DataType.FLOAT})
                half.outputs[0].name, whole.outputs[0].name = f"{value.name}.half", f"{value.name}.whole"
                graph.insert_after(node, [half, whole])
                for use in uses:
                    use.node.replace_input_with(use.idx, whole.outputs[0])
    names = [tensor.name for tensor in made.summary().inputs]
    arrays = [_half(array) if array.dtype == np.float32 else array for array in feeds(model, made)]
    return [_half(array) for array in run_float(copy, dict(zip(names, arrays, strict=True)))]


def _half(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


def agreement(model: ZooModel, made: Session, outputs: Sequence[Array]) -> Agreement:
    """Compare the outputs of a build. Asserts that they have the reference's names where it has the model's, and its
    shapes."""
    found = []
    for output, array, tensor in zip(outputs, references(model, made), made.summary().outputs, strict=True):
        assert output.shape == array.shape, f"{tensor.name!r} has the shape {output.shape}, not {array.shape}"
        found.append(_agreement(output.astype(np.float64), array.astype(np.float64), tensor))
    return Agreement(
        min(one.cosine for one in found),
        max(one.difference for one in found),
        max(one.far for one in found),
        all(one.top for one in found),
    )


def _agreement(output: Array, expected: Array, tensor: TensorSummary) -> Agreement:
    away = np.abs(output - expected)
    span = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    step = tensor.grid.scale if tensor.grid is not None else span / 255
    # Half a step of tolerance: real values of a grid are told apart in float32.
    far = float((away > (FAR_STEPS + 0.5) * step).mean())
    top = float(expected.reshape(-1)[int(output.argmax())]) == float(expected.max())
    return Agreement(cosine(output, expected), float(away.max()) / span, far, top)


def cosine(first: Array, second: Array) -> float:
    """Of the angle between two outputs; 1 for two that are zero."""
    a, b = first.astype(np.float64).reshape(-1), second.astype(np.float64).reshape(-1)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float(not a.any() and not b.any())


def _real(array: Array, tensor: TensorSummary) -> Array:
    """Integers of a quantized tensor as the values that they stand for."""
    if array.dtype.kind not in "iu" or tensor.grid is None or np.dtype(tensor.dtype).kind != "f":
        return array
    return ((array.astype(np.float32) - tensor.grid.zero_point) * np.float32(tensor.grid.scale)).astype(np.float32)


def _by_name(arrays: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """The arrays in the order of the names, or in their own where the reference calls them otherwise."""
    return [arrays[name] for name in names] if set(names) == set(arrays) else list(arrays.values())


# What follows loading


def dataset(model: ZooModel, made: Session, folder: Path) -> tuple[Path, list[Path]]:
    """A list of three samples: the reference input, backwards, and turned by half; and the files of the first."""
    changes = (lambda a: a, lambda a: np.flip(a, -1), lambda a: np.roll(a, a.shape[-1] // 2, -1))
    lines = []
    for number, change in enumerate(changes):
        files = []
        for index, (array, tensor) in enumerate(zip(feeds(model, made), made.summary().inputs, strict=True)):
            array = change(array) if array.ndim else array
            if tensor.layout == "nchw":
                array = array.transpose(0, 2, 3, 1)  # samples on disk have their channels last
            files.append(folder / f"{number}-{index}.npy")
            np.save(files[-1], np.ascontiguousarray(array) if array.ndim else array)
        lines.append(files)
    path = folder / "dataset.txt"
    path.write_text("".join(" ".join(file.name for file in files) + "\n" for files in lines))
    return path, lines[0]


def analyzed(made: Session, sample: Sequence[Path]) -> AccuracyReport:
    """The analysis of a build."""
    return made.analyze(list(sample))


def packaged(model: ZooModel, made: Session, folder: Path) -> list[Array]:
    """What the exported package makes of the reference inputs when it is loaded again."""
    again = session()
    again.load_rknn(made.export(folder / "model.rknn"))
    return infer(model, again)


def shown_by_the_app(model: ZooModel, made: Session, folder: Path) -> str:
    """Open the model in the app on a terminal and wait for its layers; what is on the screen then."""
    place = Place(folder)
    try:
        terminal = place.started(real(*model.words(place.models), "--target", "rk3588"), 120, 40)
        terminal.sees(" layers, ")
        tells(terminal, next(layer.name for layer in made.summary().layers)[:12])
        return terminal.text
    finally:
        place.close()
