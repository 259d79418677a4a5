"""The little language of the filter line: which layers it lets through."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable

from engine.summaries import LayerSummary
from rknn_tui.graph.layer_values import NOTHING, LayerValues


@dataclasses.dataclass(slots=True)
class Subject:
    """A layer as filters look at it; `name` and `op` in lower case, made once for all keystrokes.

    `limit` is the cosine under which it is bad. `marked` and `blocks` (names of the blocks around it, in lower case)
    have to be right only for filters that ask for them.
    """

    layer: LayerSummary
    name: str
    op: str
    values: LayerValues = NOTHING
    limit: float = 0.0
    marked: bool = False
    blocks: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """What the layer computes in."""
        return self.values.precision or self.layer.precision


Passes = Callable[[Subject], bool]


@dataclasses.dataclass(frozen=True)
class Test:
    """What a filter line says: call it with a layer. `asks_marks`, `asks_blocks`: what it looks at of a Subject."""

    __test__ = False

    passes: Passes
    asks_marks: bool = False
    asks_blocks: bool = False

    def __call__(self, subject: Subject) -> bool:
        return self.passes(subject)


_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_NUMBERS: dict[str, Callable[[Subject], float]] = {
    **dict.fromkeys(("cos", "cosine"), lambda it: it.values.entire),
    "single": lambda it: it.values.single,
    **dict.fromkeys(("share", "error"), lambda it: it.values.share),
    **dict.fromkeys(("ms", "time"), lambda it: it.values.milliseconds),
    **dict.fromkeys(("mem", "memory"), lambda it: it.values.bytes),
    "measured": lambda it: it.values.measured,
    "board": lambda it: it.values.board,
}
_SUFFIXES = {"": 1.0, "%": 0.01, "k": 2.0**10, "m": 2.0**20, "g": 2.0**30}
_COMPARISON = re.compile(rf"({'|'.join(_NUMBERS)})(<=|>=|<|>)(-?(?:\d+\.?\d*|\.\d+))?([%kmg]?)")
_STATES: dict[str, Passes] = {
    "changed": lambda it: it.values.changed,
    "marked": lambda it: it.marked,
    "bad": lambda it: it.values.entire < it.limit,
}


def parse(text: str) -> Test:
    """The test that `text` describes; every word must hold, and any text is valid.

    A word is a part of a layer's name or operator in any case; `op:conv`, `name:head`, `type:int8`, `block:m.4` look in
    one place; `bound:memory`, `bound:compute`, `bound:cpu` ask what it waits for; `cos<.99`, `single<.99`, `share>5%`,
    `ms>.1`, `mem>1M` compare (a layer without that number does not match), as do of what boards told `measured>.1`, in
    milliseconds, and `board<.99`, the cosine of the board to the simulator; `is:changed`, `is:marked`, `is:bad` ask for
    a state. Of states and bounds the beginning is enough. `a|b` is one or the other, `!` before a word turns it round.
    What is not typed to its end (`cos<`, `op:`) lets everything through.
    """
    words = [_word(word) for word in text.lower().split()]
    if len(words) == 1:
        return words[0]
    tests = [word.passes for word in words]
    return _all_asked(words, lambda subject: all(test(subject) for test in tests))


def describe(*, measured: bool = False) -> str:
    """The language in one line of at most 76 cells; with `measured` in place of some words those of measurements."""
    if measured:
        return "op:conv type:int8 cos<.99 ms>.1 measured>.5 board<.99 bound:cpu is:bad !x"
    return "name op:conv type:int8 cos<.99 share>5% ms>.1 bound:cpu block:m is:bad !x"


def _word(word: str) -> Test:
    if word.startswith("!"):
        inner = _word(word[1:])
        if inner.passes is _everything:
            return inner
        test = inner.passes
        return _all_asked([inner], lambda subject: not test(subject))
    first, *others = word.split("|")
    if not others:
        return _term(word)
    # 'op:conv|gemm' looks for both in one place.
    place = first[: first.index(":") + 1] if ":" in first else ""
    terms = [_term(first), *[_term(part if ":" in part else place + part) for part in others if part]]
    tests = [term.passes for term in terms if term.passes is not _everything]
    if not tests:
        return Test(_everything)
    return _all_asked(terms, lambda subject: any(test(subject) for test in tests))


def _all_asked(parts: list[Test], passes: Passes) -> Test:
    return Test(passes, any(part.asks_marks for part in parts), any(part.asks_blocks for part in parts))


def _everything(subject: Subject) -> bool:
    return True


def _term(word: str) -> Test:
    if match := _COMPARISON.fullmatch(word):
        if match[3] is None:
            return Test(_everything)
        number, compare, limit = _NUMBERS[match[1]], _COMPARE[match[2]], float(match[3]) * _SUFFIXES[match[4]]
        return Test(lambda subject: compare(number(subject), limit))
    place, colon, value = word.partition(":")
    if not word or (colon and not value and place in ("op", "name", "type", "dt", "block", "bound", "is")):
        return Test(_everything)
    if colon and place == "op":
        return Test(lambda subject: value in subject.op)
    if colon and place == "name":
        return Test(lambda subject: value in subject.name)
    if colon and place in ("type", "dt"):
        return Test(lambda subject: any(part.startswith(value) for part in subject.precision.split("+")))
    if colon and place == "bound":
        return Test(lambda subject: subject.values.bound.startswith(value))
    if colon and place == "block":
        # 'm.1' is not 'm.10', but 'm.' is the beginning of both.
        inside = re.compile(re.escape(value) + (r"(?!\d)" if value[-1].isdigit() else ""))
        return Test(lambda subject: any(inside.search(name) for name in subject.blocks), asks_blocks=True)
    if colon and place == "is":
        states = [test for name, test in _STATES.items() if name.startswith(value)]
        return Test(lambda subject: any(test(subject) for test in states), asks_marks="marked".startswith(value))
    return Test(lambda subject: word in subject.name or word in subject.op)
