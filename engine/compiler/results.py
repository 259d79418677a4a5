"""What compiling gives besides the binary: how its ways compare, and the layers as two simulators see them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from engine.text_tables import shortened, table

WAYS = ("qdq", "cfg", "corrected", "default", "float16")
"""How a model is handed over.

'qdq': with Q/DQ nodes that hold our scales; 'cfg': as a float graph, with our ranges and precisions written into the
toolkit's cfg; 'corrected': so, but with the toolkit's own ranges; 'default': as the float graph before any correction,
which the toolkit quantizes by itself, without precisions of ours; 'float16': not quantized.
"""

SAME = 1e-6
"""A difference of cosines that comes from the order of sums."""


@dataclasses.dataclass(frozen=True)
class WayScore:
    """How a way came out on the toolkit's own simulator.

    `cosine` is that of the model's worst output to the float model's, the mean over `samples`; `outputs` has it for
    each output. `noise` is the outputs' noise-to-signal power ratio, before the activations that close them, as `tune`
    judges them. None where it was not measured. `problem` says why the way did not work, else ''.
    """

    way: str
    cosine: float | None = None
    noise: float | None = None
    outputs: dict[str, float] = dataclasses.field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class LayerPair:
    """A layer's cosine to the float model's, as our simulator has it and as the toolkit's has it."""

    name: str
    op: str
    ours: float | None
    theirs: float | None


@dataclasses.dataclass(frozen=True)
class CompileSummary:
    """A compiled model. `ways` are all that were tried, `way` the one whose binary was written to `path`."""

    path: str
    bytes: int
    target: str
    way: str
    ways: tuple[WayScore, ...]
    layers: tuple[LayerPair, ...]
    toolkit: str
    seconds: float
    notes: tuple[str, ...] = ()


def better(scores: Sequence[WayScore]) -> WayScore | None:
    """The way with the least noise of those whose outputs come out at least as near as by default; None where none
    works. Of those that are as good, the first of `WAYS`."""
    worked = [score for score in scores if not score.problem]
    default = next((score.cosine for score in worked if score.way == "default"), None)
    if default is not None:
        worked = [score for score in worked if (score.cosine or 0.0) >= default - SAME]
    return min(worked, key=lambda s: (math.inf if s.noise is None else s.noise, WAYS.index(s.way)), default=None)


def ways_text(summary: CompileSummary) -> str:
    """The ways side by side."""
    rows = [
        (
            ("* " if score.way == summary.way else "  ") + score.way,
            "" if score.cosine is None else f"{score.cosine:.6f}",
            "" if score.noise is None else f"{score.noise:.2e}",
            str(score.samples or ""),
            f"{score.seconds:.1f}",
            score.problem,
        )
        for score in summary.ways
    ]
    return table(("  way", "cosine", "noise", "samples", "seconds", "problem"), rows, numbers=(1, 2, 3, 4))


def layers_text(pairs: Sequence[LayerPair], worst: int | None = None) -> str:
    """Layers with both cosines, in the model's order; with `worst`, those that the toolkit's simulator has lowest."""
    shown = list(pairs)
    if worst is not None:
        shown = sorted((pair for pair in pairs if pair.theirs is not None), key=lambda pair: pair.theirs or 0.0)[:worst]
    rows = [(shortened(pair.name), pair.op, _cosine(pair.ours), _cosine(pair.theirs)) for pair in shown]
    return table(("layer", "operator", "ours", "toolkit's"), rows, numbers=(2, 3))


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
