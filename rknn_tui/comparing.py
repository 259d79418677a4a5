"""What differs between two evaluated states of a model, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from engine.summaries import ErrorPair
from rknn_tui.bench.dialogue import counted
from rknn_tui.bench.runs import Run
from rknn_tui.graph.bars import digits

LEAST_CHANGE = 0.1
"""The share of what a layer lacks to a cosine of 1 that it must gain or lose to be worth a sign: after one change of a
precision, all layers behind it differ in some digit."""

_MEANINGS = {"P": "precision", "+": "nearer right", "-": "nearer left", "<": "only left", ">": "only right"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer on both sides. Precisions are None on a side that does not have it, errors where they are not known.

    `sign` says what differs: 'P' the precision, '+' and '-' the right side's cosine is nearer or less near, '<' and '>'
    only the left or the right side has it; '' for layers that are alike.
    """

    name: str
    precisions: tuple[str | None, str | None]
    errors: tuple[ErrorPair | None, ErrorPair | None]
    sign: str

    @property
    def difference(self) -> float:
        """The right cosine less the left one, NaN where one is not known."""
        left, right = self.errors
        return right.cosine - left.cosine if left is not None and right is not None else math.nan


def pairs(left: Run, right: Run) -> list[Pair]:
    """The layers of both runs in the left one's order; those that only the right one has follow the layer before."""
    found: list[Pair] = []
    for name in merged(list(left.precisions), list(right.precisions)):
        precisions = (left.precisions.get(name), right.precisions.get(name))
        errors = (left.errors.get(name), right.errors.get(name))
        found.append(Pair(name, precisions, errors, _sign(precisions, errors)))
    return found


def merged(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """All names, each once: those of `left` in its order, and those that only `right` has after the name that stands
    before them there."""
    known = dict.fromkeys(left)
    following: dict[str | None, list[str]] = {}
    before: str | None = None
    for name in dict.fromkeys(right):
        if name in known:
            before = name
        else:
            following.setdefault(before, []).append(name)
    names = list(following.get(None, ()))
    for name in known:
        names.append(name)
        names += following.get(name, ())
    return names


def signed(difference: float) -> str:
    """A difference of cosines with its sign; blank where it is not known, and where none of its digits would show."""
    if math.isnan(difference) or abs(difference) < 0.5e-5:
        return ""
    return f"{difference:+.5f}"


def summary(found: Sequence[Pair]) -> str:
    """How many layers differ, and in what; it is also what explains the signs."""
    told = []
    for letter, what in _MEANINGS.items():
        if count := sum(letter in pair.sign for pair in found):
            told.append(f"{count} {letter} {what}")
    return f"{counted(len(found), 'layer')}: {', '.join(told) if told else 'no differences'}"


def _sign(precisions: tuple[str | None, str | None], errors: tuple[ErrorPair | None, ErrorPair | None]) -> str:
    if precisions[1] is None:
        return "<"
    if precisions[0] is None:
        return ">"
    sign = "P" if precisions[0] != precisions[1] else ""
    left, right = errors
    if left is None or right is None or digits(left.cosine) == digits(right.cosine):
        return sign
    lost, still = 1 - left.cosine, 1 - right.cosine
    if math.isnan(lost) or math.isnan(still) or abs(still - lost) < LEAST_CHANGE * max(lost, still):
        return sign
    return sign + ("+" if still < lost else "-")
