"""Times algorithms, the source map, `tune` and live changes on real models: `python -m tests.benchmarks.tuning`."""

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

from engine.analysis.judging import Judge
from engine.progress import Progress
from engine.quantization.recipes import recipe_of
from engine.quantization.samples import Samples
from engine.session import Session
from engine.summaries import Quality
from engine.tuning.automatic import choose
from engine.tuning.quantizing import quantize_by
from engine.tuning.search import SampleSplit, tune
from engine.tuning.sources import source_map
from tests.benchmarks import live
from tests.benchmarks.onnx_job import CONFIG, PLAIN, SUBJECTS, Subject, fixed, photos, read_photos
from tests.zoo import FOLDER

MMSE, KL, AUTO = "mmse", "kl_divergence", "auto"
SOURCES = "source map of the auto model, one image"
NORMAL = "normal"
TUNE = "tune of the normal model"
TARGETS = {"cls": {MMSE: 0.5, TUNE: 3.0}, "det": {MMSE: 6.0, TUNE: 30.0}}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Median seconds by step, and the quality of the auto model (on samples that it knows) and of the normal one before
    and after `tune` (on samples that the search did not see)."""

    subject: str
    samples: int
    seconds: dict[str, float]
    recipe: str
    auto: Quality
    base: Quality
    tuned: Quality
    layers: int
    changes: live.Measured

    def targets(self) -> dict[str, bool]:
        """What is aimed at on two cores, and whether it was reached."""
        return {f"{step} <= {limit:g} s": self.seconds[step] <= limit for step, limit in TARGETS[self.subject].items()}


def measure(subject: Subject, repeats: int = 3) -> Measured:
    """Every step `repeats` times, in turns, on samples that were decoded before; then the live changes."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as name:
        folder = Path(name)
        samples = Samples(list(read_photos(subject, photos(folder))))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        plain = onnxruntime.InferenceSession(str(fixed(subject, folder)), options, providers=["CPUExecutionProvider"])
        session = Session(CONFIG)
        session.load_onnx(subject.path, input_size_list=[subject.shape])

        def build(algorithm: str) -> Any:
            config = dataclasses.replace(CONFIG, quantized_algorithm=algorithm)
            if algorithm == AUTO:
                return choose(session.model, samples, config, Progress()).outcome
            return quantize_by(recipe_of(algorithm), session.model, samples, config, Progress())

        steps: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: [plain.run(None, dict(sample)) for sample in samples],
            NORMAL: lambda: build(NORMAL),
            MMSE: lambda: build(MMSE),
            KL: lambda: build(KL),
            AUTO: lambda: build(AUTO),
            SOURCES: lambda: source_map(results[AUTO].quantized, [samples[0]]),
            TUNE: lambda: tune(results[NORMAL].quantized, SampleSplit.of(samples), CONFIG.target),
        }
        times: dict[str, list[float]] = {step: [] for step in steps}
        results: dict[str, Any] = {}
        for _ in range(repeats):
            for step, call in steps.items():
                started = time.perf_counter()
                results[step] = call()
                times[step].append(time.perf_counter() - started)
    report = results[TUNE].report
    judge = Judge(results[AUTO].quantized, SampleSplit.of(samples).judge)
    found = report.candidates[report.chosen] if report.chosen >= 0 else None
    return Measured(
        subject.name,
        len(samples),
        {step: statistics.median(seconds) for step, seconds in times.items()},
        str(results[AUTO].recipe),
        judge.run(results[AUTO].quantized),
        report.base,
        found.quality if found else report.base,
        len(found.layers) if found else 0,
        live.measure(subject, repeats),
    )


def table(measured: Sequence[Measured]) -> str:
    """The times as text, with ratios to plain float inference of the same run."""
    lines = []
    for one in measured:
        shape = "x".join(map(str, SUBJECTS[one.subject].shape))
        lines += ["", f"{one.subject} {shape}, {one.samples} samples; medians", f"{'':58}{'seconds':>9}{'ratio':>8}"]
        lines += [
            f"{step:58}{seconds:9.3f}{seconds / one.seconds[PLAIN]:8.1f}" for step, seconds in one.seconds.items()
        ]
        lines += [
            f"auto took {one.recipe}: cosine {one.auto.cosine:.5f} (lowest {one.auto.lowest:.5f})",
            f"tune changed {one.layers} layers: cosine {one.base.cosine:.5f} -> {one.tuned.cosine:.5f} "
            f"(lowest {one.base.lowest:.5f} -> {one.tuned.lowest:.5f})",
            live.table([one.changes]).rstrip(),
        ]
        lines += [f"target: {what:50}{'ok' if met else 'missed':>9}" for what, met in one.targets().items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time algorithms, tune and live changes on real models.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("subjects", nargs="*", metavar="MODEL", help=f"of {', '.join(SUBJECTS)}; default all")
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown or not FOLDER.is_dir():
        parser.error(f"unknown models: {sorted(unknown)}" if unknown else f"no folder of real models at {FOLDER}")
    for name in options.subjects or SUBJECTS:
        print(table([measure(SUBJECTS[name], options.repeats)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
