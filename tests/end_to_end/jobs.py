"""One job, from settings to analysis, taken through the session, the toolkit's calls or the command line."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from engine import cli
from engine.api import RKNN
from engine.config import Config
from engine.session import Session
from engine.tuning.search import Wish

Array = np.ndarray[Any, Any]

STEPS = ("config", "load", "build", "export", "infer", "analyze", "step1", "step2", "lint", "tune")
BUILDING = STEPS[:3]
"""What must go before the others, but for step 2 of hybrid quantization."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What the steps are given. The defaults work in a folder that `fill` filled. `files` and `save` are the command
    line's own, where it reads and writes what the other two hold in memory."""

    config: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"mean_values": [[128, 128, 128]], "std_values": [[64, 64, 64]]}
    )
    model: Any = "tiny.onnx"
    inputs: Any = None
    input_size_list: Any = None
    outputs: Any = None
    do_quantization: Any = True
    dataset: Any = "dataset.txt"
    rknn_batch_size: Any = 1
    export: Any = "out.rknn"
    feeds: Any = dataclasses.field(default_factory=lambda: [np.full((1, 8, 8, 3), 100, np.uint8)])
    data_format: Any = None
    inputs_pass_through: Any = None
    sample: Any = dataclasses.field(default_factory=lambda: ["0.png"])
    output_dir: Any = "snapshot"
    files: Any = dataclasses.field(default_factory=lambda: ["0.npy"])
    save: Any = "out.npz"
    proposal: Any = None
    model_input: Any = "tiny.model"
    data_input: Any = "tiny.data"
    cfg: Any = "tiny.quantization.cfg"
    wish: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    precision: Any = None

    @property
    def rebuilt(self) -> bool:
        """Whether a build by other settings, or of another kind, goes before the step."""
        return self.config != Job().config or not self.do_quantization

    @property
    def build(self) -> dict[str, Any]:
        """The arguments of building."""
        dataset = self.dataset if self.do_quantization else None
        return {
            "do_quantization": self.do_quantization,
            "dataset": dataset,
            "rknn_batch_size": self.rknn_batch_size,
        }

    @property
    def step1(self) -> dict[str, Any]:
        """The arguments of the first step of hybrid quantization."""
        size = 1 if self.proposal is None else self.proposal
        batch, asked = self.rknn_batch_size, self.proposal is not None
        return {"rknn_batch_size": batch, "proposal": asked, "proposal_dataset_size": size}

    @property
    def infer(self) -> dict[str, Any]:
        """The arguments of inference."""
        return {
            "inputs": self.feeds,
            "data_format": self.data_format,
            "inputs_pass_through": self.inputs_pass_through,
        }


def session_step(session: Session, job: Job, step: str) -> Any:
    """One step of `job` as a typed call."""
    if step == "config":
        session.config = Config.from_mapping(job.config)
        return None
    steps: dict[str, Callable[[], Any]] = {
        "load": lambda: session.load(job.model, job.inputs, job.input_size_list, job.outputs),
        "build": lambda: session.build(**job.build),
        "export": lambda: session.export(job.export),
        "infer": lambda: session.infer(**job.infer),
        "analyze": lambda: session.analyze(job.sample, output_dir=job.output_dir),
        "step1": lambda: session.hybrid_step1(job.dataset, **job.step1),
        "step2": lambda: session.hybrid_step2(job.model_input, job.data_input, job.cfg),
        "lint": lambda: session.lint(job.dataset, job.sample),
        "tune": lambda: session.tune(job.dataset, wish=Wish(**job.wish), precision=job.precision),
    }
    return steps[step]()


def rknn_step(rknn: RKNN, job: Job, step: str) -> Any:
    """One step of `job` as the toolkit's call."""
    if step == "load" and str(job.model).endswith(".rknn"):
        return rknn.load_rknn(job.model)
    if step == "infer":
        rknn.init_runtime()
        return rknn.inference(**job.infer)
    steps: dict[str, Callable[[], Any]] = {
        "config": lambda: rknn.config(**job.config),
        "load": lambda: rknn.load_onnx(job.model, job.inputs, job.input_size_list, job.outputs),
        "build": lambda: rknn.build(**job.build),
        "export": lambda: rknn.export_rknn(job.export),
        "analyze": lambda: rknn.accuracy_analysis(job.sample, output_dir=job.output_dir),
        "step1": lambda: rknn.hybrid_quantization_step1(job.dataset, **job.step1),
        "step2": lambda: rknn.hybrid_quantization_step2(job.model_input, job.data_input, job.cfg),
    }
    return steps[step]()


OPTIONS = {
    "mean_values": "--mean",
    "std_values": "--std",
    "quant_img_RGB2BGR": "--rgb2bgr",
    "target_platform": "--target",
    "quantized_dtype": "--dtype",
    "quantized_algorithm": "--algorithm",
    "quantized_method": "--method",
    "float_dtype": "--float-dtype",
    "optimization_level": "--optimization-level",
    "custom_string": "--custom-string",
}


def words(job: Job, step: str) -> list[str]:
    """The command line that gets as far as `step`."""
    found = []
    for name, value in job.config.items():
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        rows = value if isinstance(value, list) else [value]
        found += [f"{option}={','.join(map(str, row)) if isinstance(row, list) else row}" for row in rows]
    found += [f"--input={name}" for name in job.inputs or []]
    found += [f"--input-size={','.join(map(str, size))}" for size in job.input_size_list or []]
    found += [f"--output={name}" for name in job.outputs or []]
    if step == "step2":
        return ["build", job.model_input, f"--data={job.data_input}", f"--cfg={job.cfg}", f"--out={job.export}"]
    found += [f"--dataset={job.dataset}"] if job.do_quantization else ["--float16"]
    found += [] if job.rknn_batch_size == 1 else [f"--batch={job.rknn_batch_size}"]
    if step == "infer":
        format_words = [f"--data-format={job.data_format}"] if job.data_format else []
        return ["infer", str(job.model), *job.files, f"--save={job.save}", *format_words, *found]
    if step == "analyze":
        return ["analyze", str(job.model), "--sample", *job.sample, f"--output-dir={job.output_dir}", *found]
    if step == "step1":
        return ["hybrid", str(job.model), *found, *([] if job.proposal is None else [f"--proposal={job.proposal}"])]
    if step == "lint":
        return ["lint", str(job.model), "--sample", *job.sample, *found]
    if step == "tune":
        names = {"cosine": "--cosine", "cost": "--max-cost", "layers": "--max-layers"}
        found += [f"{names[name]}={value}" for name, value in job.wish.items()]
        found += [] if job.precision is None else [f"--precision={job.precision}"]
        return ["tune", str(job.model), f"--out={job.export}", *found]
    return ["build", str(job.model), f"--out={job.export}", *found]


def command(job: Job, step: str, *more: str) -> int:
    """Run that command line here; its exit code."""
    return cli.main([*words(job, step), "--quiet", *more])


def model_bytes(nodes: list[Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any], **constants: Array) -> bytes:
    """A model of `nodes`; `inputs` and `outputs` are float32 shapes by name."""

    def infos(shapes: Mapping[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "model", infos(inputs), infos(outputs), initializers)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def tiny_model(batch: int | str = 1, seed: int = 3) -> bytes:
    """8x8 colour pictures to five scores."""
    random = np.random.default_rng(seed)
    return model_bytes(
        [
            helper.make_node("Conv", ["image", "w"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
            helper.make_node("GlobalAveragePool", ["relu"], ["pool"], name="pool"),
            helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "m"], ["scores"], name="matmul"),
        ],
        {"image": [batch, 3, 8, 8]},
        {"scores": [batch, 5]},
        w=random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        m=random.normal(size=(4, 5)).astype(np.float32),
    )


@functools.cache
def hybrid_files(target_platform: str = "rk3566", seed: int = 3) -> Mapping[str, bytes]:
    """What step 1 of hybrid quantization writes of the good model, or one with other weights, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.onnx").write_bytes(tiny_model(seed=seed))
        np.save(folder / "a.npy", np.random.default_rng(5).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8))
        (folder / "list.txt").write_text("a.npy\n")
        session = Session(Config(target_platform=target_platform))
        session.load(folder / "tiny.onnx")
        session.hybrid_step1(folder / "list.txt", folder=folder)
        return {path.name: path.read_bytes() for path in folder.glob("tiny.*") if path.suffix != ".onnx"}


def fill(folder: Path) -> None:
    """What the default job needs, and older results that must not be lost."""
    for name, content in hybrid_files().items():
        (folder / name).write_bytes(content)
    random = np.random.default_rng(4)
    (folder / "tiny.onnx").write_bytes(tiny_model())
    for index in range(2):
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        np.save(folder / f"{index}.npy", pixels[np.newaxis])
    (folder / "dataset.txt").write_text("0.png\n1.png\n")
    (folder / "out.rknn").write_bytes(b"older package")
    (folder / "out.npz").write_bytes(b"older outputs")
    (folder / "snapshot").mkdir()
    (folder / "snapshot" / "error_analysis.txt").write_text("older report")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes by name, hidden ones too; None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
