"""How long work tells of its progress and learns that it was cancelled."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import Cancelled

ProgressCallback = Callable[[str, int, int], None]
"""Called with the stage's name, the steps done and the steps in all (0 when unknown)."""


class Progress:
    """Handed down through long work: `step` reports and raises `Cancelled` once cancelling was asked for."""

    def __init__(self, report: ProgressCallback | None = None, cancelled: Callable[[], bool] | None = None) -> None:
        self._report = report
        self._cancelled = cancelled
        self.stage = ""

    def step(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of `stage` are finished. Raises Cancelled."""
        self.stage = stage
        self.check()
        if self._report is not None:
            self._report(stage, done, total)

    def check(self) -> None:
        """Raise Cancelled if the job was cancelled meanwhile."""
        if self._cancelled is not None and self._cancelled():
            raise Cancelled(self.stage)
