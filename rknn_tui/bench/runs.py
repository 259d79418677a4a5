"""Evaluated states of a model, kept to be looked at side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from engine.summaries import ErrorPair, Quality
from rknn_tui.graph.bars import milliseconds


@dataclasses.dataclass(frozen=True)
class Run:
    """One state of the model as it was evaluated: its name, and for each layer the precision and entire error.

    extra: estimated extra time over the model as it was built (0.1: a tenth longer). wishes: the lines of
    custom_quantize_layers. target: the chip. milliseconds: estimated time of an inference, NaN where it is not known.
    """

    label: str
    target: str
    quality: Quality | None
    extra: float
    precisions: Mapping[str, str]
    errors: Mapping[str, ErrorPair]
    wishes: Mapping[str, str]
    milliseconds: float = math.nan

    @property
    def time(self) -> str:
        """The estimated time in words."""
        known = f"{milliseconds(self.milliseconds)} ms, " if math.isfinite(self.milliseconds) else ""
        return f"{known}{self.extra:+.1%} time (est)"
