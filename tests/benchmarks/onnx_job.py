"""Times a whole job on real ONNX models beside ONNX Runtime's own quantizer: `python -m tests.benchmarks.onnx_job`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engine.config import Config
from engine.graph.layers import layers
from engine.progress import Progress
from engine.quantization.dataset import Dataset
from engine.quantization.preprocessing import InputSpec
from engine.quantization.quantize import quantize
from engine.quantization.statistics import collect
from engine.session import Session
from tests.zoo import FOLDER

Array = np.ndarray[Any, Any]

MEGABYTE = 1 << 20
CONFIG = Config(mean_values=((127.5,) * 3,), std_values=((127.5,) * 3,))

PLAIN = "float inference of the samples (original model)"
BUILD = "calibration + table, jpg decoding included"
CALIBRATION = "calibration + table, samples decoded before"
PEER = "quantize_static (ONNX Runtime), samples decoded before"
LOAD = "load and optimize the model"
ANALYSIS = "accuracy analysis of all layers, one image"
ANALYSIS_NPY = "... and every tensor of both runs as npy files"
ANALYSIS_TEXT = "... and as npy and text files"
# Writes a gigabyte for det.
ONCE = {ANALYSIS_TEXT}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A real model with one image input, fixed to `shape` (NCHW)."""

    name: str
    file: str
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        return FOLDER / "onnx" / self.file / f"{self.file}.onnx"


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("cls", "ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192)),
        Subject("det", "ch_PP-OCRv4_det_infer", (1, 3, 480, 480)),
    )
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Median seconds by step, peak memory in bytes by who took it, and sizes of the results."""

    subject: str
    samples: int
    seconds: dict[str, float]
    peak: dict[str, int]
    rows: int
    tensors: int
    analysed: int
    peer_nodes: int

    def targets(self) -> dict[str, bool]:
        """What is aimed at on two cores, and whether it was reached."""
        quickest = self.seconds[CALIBRATION]
        found = {
            "calibration <= 2.5 x float inference": quickest <= 2.5 * self.seconds[PLAIN],
            "calibration <= quantize_static": quickest <= self.seconds[PEER],
        }
        if self.subject == "det":
            found["analysis <= 1.5 s"] = self.seconds[ANALYSIS] <= 1.5
            found["peak memory <= 700 MB"] = self.peak["ours"] <= 700 * MEGABYTE
        return found


class Reader(CalibrationDataReader):
    """Feeds samples to ONNX Runtime's quantizer."""

    def __init__(self, samples: Iterator[dict[str, Array]]) -> None:
        self._samples = samples

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


def photos(folder: Path) -> Path:
    """A dataset file, in `folder`, of the real photos."""
    dataset = folder / "dataset.txt"
    paths = sorted((FOLDER / "photos").glob("*.jpg"))
    dataset.write_text("".join(f'"{path}"\n' for path in paths), encoding="utf-8")
    return dataset


def read_photos(subject: Subject, dataset: Path) -> Dataset:
    """The photos as the model takes them: NCHW float32, (x - 127.5) / 127.5."""
    name = onnx.load(subject.path, load_external_data=False).graph.input[0].name
    spec = InputSpec(name, subject.shape, "float32", "nchw", CONFIG.mean_values[0], CONFIG.std_values[0])
    return Dataset(dataset, [spec])


def fixed(subject: Subject, folder: Path) -> Path:
    """A copy of the original model, in `folder`, whose input has a fixed shape; nothing else is changed."""
    model = onnx.load(subject.path)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, subject.shape, strict=True):
        dim.dim_value = size
    path = folder / f"{subject.name}.onnx"
    onnx.save(model, path)
    return path


def quantize_with_peer(model: Path, samples: Iterator[dict[str, Array]], folder: Path) -> Path:
    """The int8 model that ONNX Runtime's quantizer makes, with the preprocessing that it asks for."""
    prepared, result = folder / "prepared.onnx", folder / "quantized.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(result),
        Reader(samples),
        quant_format=QuantFormat.QDQ,
        calibrate_method=CalibrationMethod.MinMax,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return result


def measure(subject: Subject, repeats: int = 5) -> Measured:
    """Every step `repeats` times, in turns, so that a busy moment of the machine hits all steps alike."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as name:
        folder = Path(name)
        dataset = photos(folder)
        samples = list(read_photos(subject, dataset))
        original = fixed(subject, folder)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        plain = onnxruntime.InferenceSession(str(original), options, providers=["CPUExecutionProvider"])
        session = Session(CONFIG)
        image = [sorted((FOLDER / "photos").glob("*.jpg"))[0]]

        def load() -> None:
            session.load_onnx(subject.path, input_size_list=[subject.shape])

        def calibrate() -> None:
            found = collect(session.model, samples, len(samples), Progress())
            quantize(session.model, layers(session.model), found, CONFIG)

        # In this order each step finds what it needs from those before it.
        steps: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: [plain.run(None, sample) for sample in samples],
            LOAD: load,
            BUILD: lambda: session.build(dataset=dataset),
            CALIBRATION: calibrate,
            PEER: lambda: quantize_with_peer(original, iter(samples), folder),
            ANALYSIS: lambda: session.analyze(image),
            ANALYSIS_NPY: lambda: session.analyze(image, output_dir=folder / "npy", text=False),
            ANALYSIS_TEXT: lambda: session.analyze(image, output_dir=folder / "text"),
        }
        times: dict[str, list[float]] = {step: [] for step in steps}
        for repeat in range(repeats):
            for step, call in steps.items():
                if repeat == 0 or step not in ONCE:
                    started = time.perf_counter()
                    call()
                    times[step].append(time.perf_counter() - started)
        report = session.analyze(image)
        return Measured(
            subject.name,
            len(samples),
            {step: statistics.median(found) for step, found in times.items()},
            {who: peak_in_child(subject, who) for who in ("ours", "quantize_static")},
            rows=len(session.table.rows),
            tensors=sum(1 for node in session.model.graph for _ in node.outputs),
            analysed=sum(1 for line in report.layers if line.entire is not None),
            peer_nodes=len(onnx.load(folder / "quantized.onnx").graph.node),
        )


def peak_in_child(subject: Subject, who: str) -> int:
    """Bytes that a fresh process held at most, from its start to the quantized model."""
    command = [sys.executable, "-m", "tests.benchmarks.onnx_job", "--peak", who, subject.name]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"measuring the peak memory failed: {done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def run_for_peak(subject: Subject, who: str) -> int:
    """Quantize the model in this process and return its peak memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as name:
        folder = Path(name)
        dataset = photos(folder)
        if who == "ours":
            session = Session(CONFIG)
            session.load_onnx(subject.path, input_size_list=[subject.shape])
            session.build(dataset=dataset)
        else:
            # Decoded one by one, so that the peak is the quantizer's own.
            quantize_with_peer(fixed(subject, folder), iter(read_photos(subject, dataset)), folder)
    return peak_memory()


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which on Linux begins with the peak of the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table(measured: Sequence[Measured]) -> str:
    """The times and peaks as text, with ratios to plain float inference of the same run."""
    lines = []
    for one in measured:
        shape = "x".join(map(str, SUBJECTS[one.subject].shape))
        lines += ["", f"{one.subject} {shape}, {one.samples} samples; medians", f"{'':58}{'seconds':>9}{'ratio':>8}"]
        for step, seconds in one.seconds.items():
            ratio = "" if step == LOAD or step.startswith("...") else f"{seconds / one.seconds[PLAIN]:.2f}"
            lines.append(f"{step:58}{seconds:9.3f}{ratio:>8}".rstrip())
        for who, peak in one.peak.items():
            lines.append(f"peak memory of a process, {who:32} {peak / MEGABYTE:6.0f} MB")
        lines += [f"target: {what:50}{'ok' if met else 'missed':>9}" for what, met in one.targets().items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time a whole job on real models beside ONNX Runtime's quantizer.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", choices=("ours", "quantize_static"), help="only quantize, and tell the peak memory")
    parser.add_argument("subjects", nargs="*", metavar="MODEL", help=f"of {', '.join(SUBJECTS)}; default all")
    options = parser.parse_args(arguments)
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises steps that were taken
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown or not FOLDER.is_dir():
        parser.error(f"unknown models: {sorted(unknown)}" if unknown else f"no folder of real models at {FOLDER}")
    chosen = [SUBJECTS[name] for name in options.subjects or SUBJECTS]
    if options.peak:
        print(json.dumps({"peak": run_for_peak(chosen[0], options.peak)}))
    else:
        print(table([measure(subject, options.repeats) for subject in chosen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
