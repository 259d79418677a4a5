"""Evaluated states of a model, kept to be looked at side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.summaries import ErrorPair, Quality


@dataclasses.dataclass(frozen=True)
class Run:
    """One state of the model as it was evaluated: its name, and for each layer the precision and entire error.

    extra: estimated extra time over the model as it was built (0.1: a tenth longer). wishes: the lines of
    custom_quantize_layers. target: the chip.
    """

    label: str
    target: str
    quality: Quality | None
    extra: float
    precisions: Mapping[str, str]
    errors: Mapping[str, ErrorPair]
    wishes: Mapping[str, str]
