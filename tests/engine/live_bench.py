"""A live session with a small model of many branches, its files, and what tests of such sessions ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.progress import Progress
from engine.quantization.edits import Edits
from engine.quantization.quantized import Quantized
from engine.session_live import LiveSession
from engine.tuning.live import Live
from tests.engine.tuning.changing_networks import BRANCH_CONSTANTS, BRANCHES
from tests.small_networks import built, network, random

SAMPLES = 6


@dataclasses.dataclass
class Bench:
    """A folder with the model of many branches, its samples and a session with it."""

    folder: Path
    session: LiveSession

    @property
    def dataset(self) -> str:
        return str(self.folder / "dataset.txt")

    @property
    def sample(self) -> list[str]:
        return [str(self.folder / f"sample-0-{position}.npy") for position in range(2)]

    @property
    def base(self) -> Quantized:
        return self.session._current().built.single

    def fresh(self, **settings: Any) -> LiveSession:
        session = LiveSession(Config.from_mapping({"target_platform": "rk3588", **settings}))
        session.load(self.folder / "model.onnx")
        session.build(dataset=self.dataset)
        return session

    def judged(self, model: Quantized) -> Live:
        """The model as it is evaluated anew."""
        return Live(model, [self.session._sample(self.sample, self.session.config)], self.session.config.target)


def bench_in(folder: Path) -> Bench:
    proto = network(
        {"x": (1, 3, 8, 8), "side": (1, 4, 4, 4)},
        BRANCHES,
        BRANCH_CONSTANTS,
        ["hs", "z", "best", "mean", "side", "ar"],
    )
    samples = [(random(1, 3, 8, 8, seed=seed), random(1, 4, 4, 4, seed=seed)) for seed in range(SAMPLES)]
    built(folder, proto, samples)
    bench = Bench(folder, LiveSession())
    bench.session = bench.fresh()
    return bench


def parameters(edits: Edits) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Edits as they come over the border."""
    return dict(edits.wishes), {row: list(ends) for row, ends in edits.ranges.items()}


def counting(after: int) -> Progress:
    """Cancelled once it was asked so many times."""
    questions = iter(range(10**6))
    return Progress(cancelled=lambda: next(questions) >= after)


def searched(bench: Bench) -> dict[str, str]:
    """The lines of a candidate of a search whose biases are '1.0'."""
    run = bench.session.tune_run(bench.dataset)
    assert run.number == 1 and run.report.candidates
    return run.report.candidates[0].wishes
