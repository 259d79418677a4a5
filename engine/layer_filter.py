"""The filter language as far as it needs no analysis and no screen: layers by name, operator, precision and block."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from engine.errors import InputError
from engine.summaries import LayerSummary

Test = Callable[[LayerSummary], bool]

PLACES = ("op", "name", "type", "dt", "block")
_IN_THE_APP = re.compile(r"(is:|(cos|cosine|single|share|error|ms|time|mem|memory)[<>])")


def parse(words: Sequence[str]) -> Test:
    """The test that words describe together, each of which must hold, as on the app's filter line.

    A word is a part of a layer's name or operator in any case; `op:conv`, `name:head`, `type:int8`, `block:m.4` look in
    one place; `a|b` is one or the other, `!` before a word turns it round. Raises InputError for a word that looks for
    nothing, or for what only the app knows.
    """
    tests = [_word(word.lower()) for text in words for word in text.split()]
    if not tests:
        raise InputError("no word says which layers", hint="such as op:conv, name:head, block:model.4 or a name")
    return lambda layer: all(test(layer) for test in tests)


def _word(word: str) -> Test:
    if word.startswith("!"):
        test = _word(word[1:])
        return lambda layer: not test(layer)
    first, *others = word.split("|")
    # 'op:conv|gemm' looks for both in one place.
    place = first[: first.index(":") + 1] if ":" in first else ""
    tests = [_term(first), *[_term(part if ":" in part else place + part) for part in others]]
    return lambda layer: any(test(layer) for test in tests)


def _term(word: str) -> Test:
    if _IN_THE_APP.match(word):
        raise InputError(f"{word!r} asks for what only an analysis tells", hint="the app's filter line knows it")
    place, colon, value = word.partition(":")
    if not word or (colon and not value and place in PLACES):
        raise InputError(f"{word!r} looks for nothing", hint="such as op:conv, name:head, block:model.4 or a name")
    if colon and place == "op":
        return lambda layer: value in layer.op.lower()
    if colon and place == "name":
        return lambda layer: value in layer.name.lower()
    if colon and place in ("type", "dt"):
        return lambda layer: any(part.startswith(value) for part in layer.precision.lower().split("+"))
    if colon and place == "block":
        # 'm.1' is not 'm.10', but 'm.' is the beginning of both.
        inside = re.compile(re.escape(value) + (r"(?!\d)" if value[-1].isdigit() else ""))
        return lambda layer: any(inside.search(scope) for scope in _scopes(layer.name.lower()))
    return lambda layer: word in layer.name.lower() or word in layer.op.lower()


def _scopes(name: str) -> list[str]:
    """The scopes that a name is in: '/a.0/b/c' gives '/a.0' and '/a.0/b'."""
    # A number belongs to what stands before it: 'm.0' is one of several 'm'.
    ends = [match.start() for match in re.finditer(r"[/.](?!\d+(?:[/.]|$))", name)]
    return [name[:end] for end in ends if end]
