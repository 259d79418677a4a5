"""A session's calls that run its model, or a vendor's file, on a board."""

from __future__ import annotations

from pathlib import Path

from engine.boards import BoardMemory, BoardPerf
from engine.errors import NotYetError
from engine.progress import Progress
from engine.session_state import SessionState


class BoardSession(SessionState):
    """A session whose build runs on boards too.

    `device` is a board's id as `devices` lists it; None is the only one there is. `path` names a .rknn of the vendor's
    compiler, which runs instead of the session's model. `target`, where given, is checked against the board's chip.
    `core_mask` is one of the constants of `engine.core_masks`.
    """

    def board_perf(
        self,
        device: str | None,
        path: str | Path | None = None,
        target: str | None = None,
        runs: int = 10,
        warmup: int = 2,
        core_mask: int = 0,
        layers: bool = False,
        pin: bool = False,
        *,
        progress: Progress | None = None,
    ) -> BoardPerf:
        """Measure the time of an inference on a board."""
        raise NotYetError("boards are not supported by this version")

    def board_memory(
        self,
        device: str | None,
        path: str | Path | None = None,
        target: str | None = None,
        core_mask: int = 0,
        *,
        progress: Progress | None = None,
    ) -> BoardMemory:
        """What the model takes of a board's memory."""
        raise NotYetError("boards are not supported by this version")
