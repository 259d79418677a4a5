"""The jobs of this start of the app, as the jobs screen lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from rknn_tui.bench.job import Job

RUNNING, WAITING, DONE, FAILED, CANCELLED = STATES = ("running", "waiting", "done", "failed", "cancelled")


@dataclasses.dataclass
class JobRecord:
    """A job from when it was asked for until the app is left.

    `state` is one of STATES. `started` and `ended` are times of `time.monotonic`, None before. `message` is what it
    came to, in full. `job` tells its progress while it runs.
    """

    number: int
    name: str
    state: str = WAITING
    started: float | None = None
    ended: float | None = None
    message: str = ""
    job: Job | None = None

    def seconds(self, now: float) -> float | None:
        """How long it has run, or ran; None for one that never did."""
        if self.started is None:
            return None
        return max((now if self.ended is None else self.ended) - self.started, 0.0)

    @property
    def share(self) -> float | None:
        """How much of the running stage is done (0..1), None while that cannot be told."""
        if self.state != RUNNING or self.job is None or self.job.total <= 0:
            return None
        return min(max(self.job.done / self.job.total, 0.0), 1.0)


def in_order(records: Iterable[JobRecord]) -> list[JobRecord]:
    """Running ones first, then those that wait as they will come, then the ended ones, the latest first."""

    def place(record: JobRecord) -> tuple[int, int]:
        ended = record.state not in (RUNNING, WAITING)
        return (2, -record.number) if ended else (STATES.index(record.state), record.number)

    return sorted(records, key=place)


def clock(seconds: float | None) -> str:
    """A duration as `0:07` or `1:02:03`, '' for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
