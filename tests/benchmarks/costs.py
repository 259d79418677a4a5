"""Times estimates of real models beside float inference: `python -m tests.benchmarks.costs`."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from engine.config import Config
from engine.cost.estimate import CostModel
from engine.cost.layer_costs import Machine
from engine.graph.execution import random_feeds
from engine.ort import make_session, run, serialize
from engine.quantization.edits import Edits, edited, layer_wishes
from engine.quantization.quantize import uncalibrated
from engine.quantization.quantized import Quantized
from engine.session import Session
from engine.targets import TARGETS
from tests.benchmarks.onnx_job import SUBJECTS, Subject
from tests.zoo import FOLDER

PLAIN = "float inference of a sample"
FIRST = "estimate of a loaded model, from nothing"
AGAIN = "estimate again"
CHANGED = "estimate after a layer's precision changed"
CHANGED_ROWS = "the rows' costs after a layer's precision changed"
ALL_TARGETS = "estimates of all seven targets, from nothing"

# Milliseconds on two cores, for det.
LIMITS = {FIRST: 50.0, CHANGED: 5.0, CHANGED_ROWS: 5.0}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds by step."""

    subject: str
    layers: int
    seconds: dict[str, list[float]]

    def targets(self) -> dict[str, bool]:
        """What is aimed at on two cores, and whether it was reached."""
        return {
            f"{step} <= {limit:g} ms (median)": statistics.median(self.seconds[step]) <= limit / 1000
            for step, limit in LIMITS.items()
        }


def measure(subject: Subject, repeats: int = 15) -> Measured:
    """Load the model, estimate it on rk3588, and put each of its layers into float16 in turn."""
    session = Session(Config(target_platform="rk3588"))
    session.load(subject.path, input_size_list=[list(subject.shape)])
    model, layers, target = session.model, session._require_loaded("").layers, TARGETS["rk3588"]
    table = uncalibrated(model, layers, session.config)
    quantized = Quantized(model, layers, table)
    changed = [
        edited(quantized, Edits(layer_wishes(layer, table, "float16")), target).table
        for layer in layers
        if layer.name in table.rows
    ]
    floats, feeds = make_session(serialize(model)), random_feeds(model)
    costs = CostModel(model, layers, Machine(target))
    costs.estimate(table, "int8")
    seconds = {
        PLAIN: timed(lambda: run(floats, None, feeds), repeats),
        FIRST: timed(lambda: CostModel(model, layers, Machine(target)).estimate(table, "int8"), repeats),
        AGAIN: timed(lambda: costs.estimate(table, "int8"), repeats),
        CHANGED: [once(lambda one=one: costs.estimate(one, "int8")) for one in changed],
        CHANGED_ROWS: [once(lambda one=one: costs.costs(one)) for one in reversed(changed)],
        ALL_TARGETS: timed(
            lambda: [CostModel(model, layers, Machine(one)).estimate(table, "int8") for one in TARGETS.values()], 3
        ),
    }
    return Measured(subject.name, len(layers), seconds)


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    return [once(work) for _ in range(repeats)]


def once(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(measured: Measured) -> str:
    plain = statistics.median(measured.seconds[PLAIN])
    lines = [
        f"{measured.subject}, {measured.layers} layers; milliseconds",
        f"{'':52}{'median':>10}{'worst':>9}{'ratio':>8}",
    ]
    for step, seconds in measured.seconds.items():
        median, worst = statistics.median(seconds), max(seconds)
        lines.append(f"{step:52}{1000 * median:10.2f}{1000 * worst:9.2f}{median / plain:8.2f}")
    lines += [f"target: {text:58}{'ok' if met else 'missed':>8}" for text, met in measured.targets().items()]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print a table for each of the named models, by default for all."""
    if not FOLDER.is_dir():
        print(f"no folder of real models at {FOLDER}; set RKNN_TUI_ZOO to one", file=sys.stderr)
        return 2
    for name in words or sys.argv[1:] or SUBJECTS:
        print(table(measure(SUBJECTS[name])), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
