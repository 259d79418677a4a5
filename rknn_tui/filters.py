"""The little language of the filter line: which layers it lets through."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable

from engine.summaries import LayerError, LayerSummary

Test = Callable[[LayerSummary, "LayerError | None"], bool]

_COSINE = re.compile(r"cos(<=|>=|<|>)(\d*\.?\d+)")
_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


def parse(text: str) -> Test:
    """The test that `text` describes; every word must hold, and any text is valid.

    A word is a part of a layer's name or operator in any case; `op:conv`, `name:head`, `type:int8` look in one place;
    `cos<.99` compares the entire cosine (a layer without one does not match); `!` before a word turns it round.
    """
    tests = [_word(word) for word in text.lower().split()]
    return lambda layer, error: all(test(layer, error) for test in tests)


def _word(word: str) -> Test:
    if word.startswith("!") and len(word) > 1:
        inner = _word(word[1:])
        return lambda layer, error: not inner(layer, error)
    if match := _COSINE.fullmatch(word):
        compare, limit = _COMPARE[match[1]], float(match[2])
        return lambda layer, error: compare(cosine(error), limit)
    place, colon, value = word.partition(":")
    if colon and place == "op":
        return lambda layer, error: value in layer.op.lower()
    if colon and place in ("type", "dt"):
        return lambda layer, error: any(part.startswith(value) for part in layer.precision.lower().split("+"))
    if colon and place == "name":
        return lambda layer, error: value in layer.name.lower()
    return lambda layer, error: word in layer.name.lower() or word in layer.op.lower()


def cosine(error: LayerError | None) -> float:
    """The entire cosine, or NaN, which compares as false with every limit."""
    return math.nan if error is None or error.entire is None else error.entire.cosine
