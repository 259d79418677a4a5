"""Times live changes of every layer of real models beside float inference: `python -m tests.benchmarks.live`."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from engine.graph.layers import layers
from engine.quantization.edits import Edits, layer_wishes
from engine.quantization.quantized import Quantized
from engine.session import Session
from engine.tuning.live import Live
from tests.benchmarks.onnx_job import CONFIG, MEGABYTE, SUBJECTS, Subject, fixed, peak_memory, photos, read_photos
from tests.zoo import FOLDER

PLAIN = "float inference of the image (original model)"
START = "start of live evaluation"
FORWARD = "layer to float16, with output quality"
BACK = "... and back"
FORWARD_ALL = "layer to float16, with output quality and all errors"
BACK_ALL = "... and back, with all errors"

# Milliseconds on two cores.
TARGETS = {"cls": 10.0, "det": 50.0}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds by step: several times the same, or one for every layer. `peak` is in bytes, of the whole process."""

    subject: str
    layers: int
    seconds: dict[str, list[float]]
    peak: int

    def targets(self) -> dict[str, bool]:
        """What is aimed at on two cores, and whether it was reached."""
        limit = TARGETS[self.subject]
        both = statistics.median([*self.seconds[FORWARD], *self.seconds[BACK]])
        return {f"toggle with output quality <= {limit:g} ms (median)": both <= limit / 1000}


def measure(subject: Subject, repeats: int = 5) -> Measured:
    """Switch every layer to float16 and back, with plain inference in between, so that a busy moment hits all alike."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as name:
        folder = Path(name)
        dataset = photos(folder)
        sample = next(iter(read_photos(subject, dataset)))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Threads that spin on for a while would take a core from what is timed next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        plain = onnxruntime.InferenceSession(str(fixed(subject, folder)), options, providers=["CPUExecutionProvider"])
        session = Session(CONFIG)
        session.load_onnx(subject.path, input_size_list=[subject.shape])
        session.build(dataset=dataset)
    quantized = Quantized(session.model, layers(session.model), session.table)
    seconds: dict[str, list[float]] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        seconds.setdefault(step, []).append(time.perf_counter() - started)
        return result

    for _ in range(repeats):
        timed(START, lambda: Live(quantized, [sample], CONFIG.target))
    live = Live(quantized, [sample], CONFIG.target)
    live.errors()
    for layer in quantized.layers:
        edits = Edits(layer_wishes(layer, quantized.table, "float16"))
        timed(PLAIN, lambda: plain.run(None, sample))
        timed(FORWARD, lambda edits=edits: live.apply(edits))
        timed(BACK, live.reset)
    for layer in quantized.layers:
        edits = Edits(layer_wishes(layer, quantized.table, "float16"))
        timed(FORWARD_ALL, lambda edits=edits: (live.apply(edits), live.errors()))
        timed(BACK_ALL, lambda: (live.reset(), live.errors()))
    return Measured(subject.name, len(quantized.layers), seconds, peak_memory())


def table(measured: Sequence[Measured]) -> str:
    """The times as text, with ratios of the medians to plain float inference of the same run."""
    lines = []
    for one in measured:
        shape = "x".join(map(str, SUBJECTS[one.subject].shape))
        plain = statistics.median(one.seconds[PLAIN])
        lines += ["", f"{one.subject} {shape}, one sample, {one.layers} layers; milliseconds"]
        lines += [f"{'':54}{'median':>9}{'worst':>9}{'ratio':>8}"]
        for step, found in one.seconds.items():
            median = statistics.median(found)
            lines.append(f"{step:54}{1000 * median:9.1f}{1000 * max(found):9.1f}{median / plain:8.2f}")
        lines.append(f"peak memory of the process, build included {one.peak / MEGABYTE:26.0f} MB")
        lines += [f"target: {what:50}{'ok' if met else 'missed':>9}" for what, met in one.targets().items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time live changes of every layer of real models.")
    parser.add_argument("--repeats", type=int, default=5, help="of what is not done for every layer")
    parser.add_argument("subjects", nargs="*", metavar="MODEL", help=f"of {', '.join(SUBJECTS)}; default all")
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown or not FOLDER.is_dir():
        parser.error(f"unknown models: {sorted(unknown)}" if unknown else f"no folder of real models at {FOLDER}")
    print(table([measure(SUBJECTS[name], options.repeats) for name in options.subjects or SUBJECTS]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
