"""Reads the texts inside files of the vendor's compiler: JSON, and Python literals of which nothing is run."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_MOST_TEXT = 2 << 20
_MOST_PARTS = 400_000
_DEEPEST = 64

_NUMBERS = {"inf": "1e999", "-inf": "-1e999", "nan": "None"}
# What the repr of dicts, lists, numbers and strings is made of. Values stand apart by signs, so that nothing nests
# without a bracket, and the depth of brackets is that of the parser.
_VALUE = (
    r"(?P<endless>-?inf|nan)|True|False|None|-?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:e[+-]?\d{1,4})?"
    r"|'(?:[^'\\\n]|\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}))*'"
    r'|"(?:[^"\\\n]|\\(?:[\\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}))*"'
)
_PART = re.compile(rf"\s*(?:(?P<open>[\[({{])|(?P<close>[\])}}])|(?P<between>[,:])|(?P<value>{_VALUE}))\s*")


def literal(text: str) -> dict[str, Any]:
    """The dict that a Python literal stands for, with None for NaN. Raises ValueError for anything else, and for too
    large ones."""
    if len(text) > _MOST_TEXT:
        raise ValueError(f"longer than {_MOST_TEXT >> 20} MB")
    place = depth = 0
    ended = False
    parts = []
    for count, part in enumerate(_PART.finditer(text)):
        if part.start() != place or count > _MOST_PARTS or depth > _DEEPEST:
            break
        if ended and part.lastgroup in ("open", "value"):
            break
        place = part.end()
        parts.append(_NUMBERS[part["endless"]] if part["endless"] else part[0])
        depth += (part.lastgroup == "open") - (part.lastgroup == "close")
        ended = part.lastgroup in ("close", "value")
    if place != len(text):
        raise ValueError("not a Python literal, or too large a one")
    try:
        found = ast.literal_eval("".join(parts).strip())
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("not a Python literal") from error
    if not isinstance(found, dict):
        raise ValueError("not a dict")
    return {_text(str(key)): _plain(value) for key, value in found.items()}


def from_json(content: bytes) -> dict[str, Any]:
    """The object that JSON in UTF-8 stands for. Raises ValueError for anything else, and for too large ones."""
    if len(content) > _MOST_TEXT:
        raise ValueError(f"longer than {_MOST_TEXT >> 20} MB")
    # Every list, number and string of JSON stands between two of these.
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_PARTS:
        raise ValueError("too large")
    try:
        found = json.loads(content, parse_int=_whole)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return {_text(key): _plain(value) for key, value in found.items()}
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error


def _plain(value: Any) -> Any:
    """A value with lists for tuples and sets, and with text that can be written as UTF-8."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in value]
    return value


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")


def _whole(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError("a number of too many digits")
    return int(digits)
