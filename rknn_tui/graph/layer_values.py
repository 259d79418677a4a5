"""The numbers that a layer's row shows beside what the model says of it."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class LayerValues:
    """What is known of one layer now; NaN where it is not known.

    precision: what it computes in, '' while nothing is built. wished: the cfg's word for it, '' without one. changed:
    whether that differs from the saved cfg. entire, single: cosines against the float model (-1..1). share: its part
    (0..1) of the error of the outputs. milliseconds, bytes: time on the chip, and memory in use while it runs, as
    `estimated` or measured. expected: the time is what an edit should make of it; the engine has not told it yet.
    bound: what it waits for, 'compute', 'memory' or 'cpu', '' where that is not known. stale: the cosine is from before
    the last edit, and a new one is on its way. fused: it has no tensor of its own. measured: milliseconds on a board.
    board, board_entire: cosines of its tensor on a board against the simulator and against the float model.
    measured_old, board_old: these are from before the last edits.
    """

    precision: str = ""
    wished: str = ""
    changed: bool = False
    entire: float = math.nan
    single: float = math.nan
    share: float = math.nan
    milliseconds: float = math.nan
    bytes: float = math.nan
    estimated: bool = True
    stale: bool = False
    fused: bool = False
    expected: bool = False
    bound: str = ""
    measured: float = math.nan
    measured_old: bool = False
    board: float = math.nan
    board_entire: float = math.nan
    board_old: bool = False


BOUNDS = {"compute": "compute-bound", "memory": "memory-bound", "cpu": "on the CPU"}
"""What bounds a layer's time, in words."""

NOTHING = LayerValues()
