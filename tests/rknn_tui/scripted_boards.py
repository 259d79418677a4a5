"""What the scripted engine tells of boards: `lost` is unplugged, `hanging` goes on until it is cancelled.

Other boards answer at once; `local` runs models on its processor.

Every layer takes twice its place in microseconds and 100 more; those whose number ends in 4 ran on the CPU, and layer 2
has no line of its own. What a board computes is near to the simulator, except layer 5.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from engine.boards import BoardMemory, BoardPerf, BoardRun, MeasuredLayer
from engine.errors import DeviceLostError
from engine.progress import Progress
from engine.summaries import AccuracyReport, ErrorPair, ModelSummary

HINT = "plug it in again"


def _run(device: str, progress: Progress) -> BoardRun:
    progress.step("connect", 1, 1)
    for _ in range(4):
        progress.step("run", 1, 4)
        time.sleep(0.005)
    while device == "hanging":
        progress.step("run", 1, 4)
        time.sleep(0.01)
    if device == "lost":
        raise DeviceLostError("the board is gone", where=device, hint=HINT)
    notes = ("it has no binary for rk3588",) if device == "local" else ()
    return BoardRun(device, "rk3588", "cpu" if device == "local" else "npu", "2.3.2", "0.9.8", notes=notes)


class ScriptedBoards:
    """The board jobs of a scripted session."""

    model: ModelSummary | None

    def analyze(self, inputs: Any, *, progress: Progress) -> AccuracyReport:
        """Compare in the simulator."""
        raise NotImplementedError

    def vendor_summary(self, path: str) -> ModelSummary | None:
        """What a vendor's file holds."""
        raise NotImplementedError

    def board_perf(
        self, device: str, path: str | None = None, layers: bool = False, *, progress: Progress
    ) -> BoardPerf:
        model = self.vendor_summary(path) if path else self.model
        assert model is not None
        where = _run(device, progress)
        lines = tuple(
            MeasuredLayer(
                f"{one.op}:{one.name}_npu" if one.index != 2 else "Reshape:added",
                one.op,
                "CPU" if one.index % 10 == 4 else "NPU",
                100.0 + 2 * one.index,
                "" if path or one.index == 2 else one.name,
                cycles_ddr=10 * one.index,
                cycles_npu=20 * one.index,
                cycles_total=30 * one.index,
            )
            for one in model.layers
        )
        total = sum(line.time_us for line in lines)
        return BoardPerf(where, 10, 2, 3210.0, 3456.0, 3100.0, 3500.0, lines if layers else (), total)

    def board_memory(self, device: str, path: str | None = None, *, progress: Progress) -> BoardMemory:
        assert path or self.model is not None
        return BoardMemory(_run(device, progress), 3 << 20, 1 << 20, 4 << 20)

    def board_accuracy(self, device: str, inputs: Any, *, progress: Progress) -> AccuracyReport:
        report = self.analyze(inputs, progress=progress)
        where = _run(device, progress)
        layers = tuple(
            dataclasses.replace(
                line,
                board=ErrorPair(0.97, 0.2),
                board_simulator=ErrorPair(0.91 if place == 5 else 0.99995, 0.1),
            )
            if place != 2
            else line
            for place, line in enumerate(report.layers)
        )
        return dataclasses.replace(report, layers=layers, board=where, board_outputs={"y": ErrorPair(0.98765, 0.4)})
