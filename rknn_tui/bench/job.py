"""The job that runs: its requests, and how far it is."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

SECONDS_BEFORE_ESTIMATE = 1.0
"""The first second of a stage is start-up: an estimate from it would jump about."""


@dataclasses.dataclass
class Job:
    """Requests that run one after the other under one name; `number`, `method` and `params` are the
    running one's.

    `done` of `total` steps of `stage` are finished; `total` is 0 when unknown. Times are those of `time.monotonic`.
    """

    name: str
    steps: list[tuple[str, dict[str, Any]]]
    number: int = 0
    method: str = ""
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    stage: str = ""
    done: int = 0
    total: int = 0
    cancelling: bool = False
    started: float = dataclasses.field(default_factory=time.monotonic)
    stage_started: float = 0.0

    def progressed(self, stage: str, done: int, total: int) -> None:
        """Note how far the job is."""
        if stage != self.stage:
            self.stage_started = time.monotonic()
        self.stage, self.done, self.total = stage, done, total

    @property
    def progress(self) -> str:
        """The stage and how far it is: `calibrate 35%`."""
        if self.cancelling:
            return "cancelling"
        share = f" {100 * self.done // self.total}%" if self.total > 0 else (f" {self.done} done" if self.done else "")
        return f"{self.stage or self.name}{share}"

    @property
    def left(self) -> str:
        """How long the stage will take still, `12 s left`, or '' while that cannot be told."""
        elapsed = time.monotonic() - self.stage_started
        if self.cancelling or not 0 < self.done < self.total or elapsed < SECONDS_BEFORE_ESTIMATE:
            return ""
        return f"{rough(elapsed / self.done * (self.total - self.done))} left"


def rough(seconds: float) -> str:
    """A duration in its largest unit, rounded up: `12 s`, `3 min`, `2 h`."""
    for unit, size in (("s", 1), ("min", 60)):
        if seconds <= 59 * size:
            return f"{max(math.ceil(seconds / size), 1)} {unit}"
    return f"{math.ceil(seconds / 3600)} h"
