"""Layers in the order of a column of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.summaries import LayerSummary
from rknn_tui.graph.layer_cells import with_precision
from rknn_tui.graph.layer_values import NOTHING, LayerValues

_Numbers = Callable[[LayerValues], float]
_Words = Callable[[LayerSummary, LayerValues], "str | int"]

# What is worst, or costs most, comes first.
_NUMBERS: dict[str, tuple[_Numbers, int]] = {
    "cosine": (lambda values: values.entire, 1),
    "single": (lambda values: values.single, 1),
    "share": (lambda values: values.share, -1),
    "time": (lambda values: values.milliseconds, -1),
    "memory": (lambda values: values.bytes, -1),
    "measured": (lambda values: values.measured, -1),
    "board": (lambda values: values.board, 1),
}
_WORDS: dict[str, _Words] = {
    "name": lambda layer, values: layer.name.lower(),
    "op": lambda layer, values: layer.op.lower(),
    "type": lambda layer, values: with_precision(values, layer.precision).precision,
    "index": lambda layer, values: layer.index,
}
SORT_KEYS = (*_NUMBERS, *_WORDS)
"""What the layers can be sorted by."""


def descending(key: str, reverse: bool) -> bool:
    """Whether large values come first."""
    return (key in _NUMBERS and _NUMBERS[key][1] < 0) != reverse


def sorted_places(
    layers: Sequence[LayerSummary], values: Mapping[str, LayerValues], key: str, *, reverse: bool = False
) -> list[int]:
    """The layers' indices in `layers`, sorted by one of SORT_KEYS: cosines with the lowest first, shares, times and
    memory with the largest first, words from a to z, or with `reverse` the other way round.

    What is equal keeps its order, and unknown numbers come last either way.
    """
    found = [values.get(layer.name, NOTHING) for layer in layers]
    if key in _WORDS:
        word = _WORDS[key]
        words = [word(layer, value) for layer, value in zip(layers, found, strict=True)]
        return sorted(range(len(layers)), key=words.__getitem__, reverse=reverse)
    number, _ = _NUMBERS[key]
    numbers = [number(value) for value in found]
    known = [place for place, value in enumerate(numbers) if value == value]
    known.sort(key=numbers.__getitem__, reverse=descending(key, reverse))
    return known + [place for place, value in enumerate(numbers) if value != value]
