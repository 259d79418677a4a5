"""What a journal says: one entry for each thing that a person did, checked, as a line of JSON and back.

A journal is a text file. Its first line is `{"journal": "rknn-tui", "version": 1}`; each further line is an entry, a
JSON object with its "verb" and the verb's arguments:

    open     model, inputs, input_size_list, outputs, weights (of Caffe or Darknet), cfg (of a .model)
    config   settings: all that are not the defaults, by the names of `Config`
    build    dataset, do_quantization, batch
    analyze  inputs: the sample, one file a model input; edits are measured on it from then on
    set      wishes: tensor -> precision, the lines of custom_quantize_layers that change; "" takes a line away
    range    ranges: row -> [min, max], those that change; null goes back to the build's
    cfg      wishes, ranges: all edits in place of those in force; biases ("" or "{run}.{candidate}") if they change
    undo, redo
    tune     dataset, cosine, cost, layers, precision, run: the search's number, by default counted from the build on
    take     run, candidate (from 0), wishes: all lines that are in force with it
    save     cfg: the file; its .model and .data are written beside it
    export   path: the package

`set`, `range`, `cfg` and `take` are a step each, that `undo` takes back; with "joined": true, a part of the step
before, unless that is an `undo`. Paths are relative to the journal's folder, or absolute.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from engine.config import Config
from engine.errors import EngineError, FileError, InputError, nearest
from engine.files.portable_paths import portable
from engine.history import EditState

HEADER = '{"journal": "rknn-tui", "version": 1}'
LARGEST_JOURNAL = 16 << 20
MOST_LINES = 100_000
STEPS = ("set", "range", "cfg", "take")
"""The verbs that change edits."""

_PRECISIONS = ("int8", "int16", "float16")
_LARGEST_COUNT = 1 << 31

log = logging.getLogger("engine")


@dataclasses.dataclass(frozen=True)
class _Argument:
    """What an argument may be. `path` tells files that are read ('in') from those that are written ('out')."""

    expected: str
    read: Callable[[Any], Any]
    needed: bool = False
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing that a person did. `line` is its place in the journal that it was read from, 0 for none.

    Arguments are those of the module's table; lists become tuples, and None is an argument that is not given. Raises
    InputError for anything else.
    """

    verb: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    line: int = dataclasses.field(default=0, compare=False)

    def __post_init__(self) -> None:
        known = VERBS.get(self.verb) if isinstance(self.verb, str) else None
        if known is None:
            raise InputError(f"unknown verb {self.verb!r:.80}", hint=nearest(str(self.verb)[:80], VERBS))
        for name in self.arguments:
            if name not in known:
                hint = nearest(name[:80], known) if known else "leave it out"
                raise InputError(f"unknown argument {name!r:.80}", where=self.verb, hint=hint)
        found: dict[str, Any] = {}
        for name, argument in known.items():
            value = self.arguments.get(name)
            if value is not None:
                found[name] = _read(argument, value, f"{self.verb}: {name}")
            elif argument.needed:
                raise InputError(f"{name!r} is missing", where=self.verb, hint=f"give {argument.expected}")
        object.__setattr__(self, "arguments", found)

    def __getitem__(self, name: str) -> Any:
        """An argument, None where it was not given."""
        return self.arguments.get(name)

    def with_paths(self, change: Callable[[str, bool], str]) -> Entry:
        """The same with other paths: `change` gets each one, and whether the file is written."""

        def changed(argument: _Argument, value: Any) -> Any:
            if not argument.path:
                return value
            out = argument.path == "out"
            return change(value, out) if isinstance(value, str) else tuple(change(one, out) for one in value)

        known = VERBS[self.verb]
        arguments = {name: changed(known[name], value) for name, value in self.arguments.items()}
        return dataclasses.replace(self, arguments=arguments)


def change(before: EditState, after: EditState, *, joined: bool = False) -> Entry:
    """The entry of a step from some edits to others, in the fewest words."""
    more = {"joined": True} if joined else {}
    wishes = {n: after.wishes.get(n, "") for n in _differing(before.wishes, after.wishes)}
    ranges = {n: after.ranges.get(n) for n in _differing(before.ranges, after.ranges)}
    if wishes and not ranges and _same(before.with_wishes(wishes), after):
        return Entry("set", {"wishes": wishes, **more})
    if ranges and not wishes and _same(before.with_ranges(ranges), after):
        return Entry("range", {"ranges": ranges, **more})
    edits: dict[str, Any] = {"wishes": after.wishes, "ranges": after.ranges}
    if after.biases != before.biases:
        edits["biases"] = after.biases
    return Entry("cfg", {**edits, **more})


def check_header(line: str, where: str) -> None:
    """Raise FileError unless a journal of this version begins with the line."""
    try:
        header = _object(line)
    except ValueError:
        header = {}
    if header.get("journal") != "rknn-tui":
        raise FileError("is no journal of rknn-tui", where=f"{where} line 1", hint=f"a journal begins with {HEADER}")
    if header.get("version") != 1 or isinstance(header["version"], bool):
        raise FileError("is of another version", where=f"{where} line 1", hint="use the version that wrote it")


def parse(text: str, where: str = "journal") -> tuple[Entry, ...]:
    """The entries of a journal's text; `where` names it in errors. Nothing in it is run.

    A last line that was cut short, as by a crash, is passed over with a warning. Raises FileError naming the line.
    """
    if len(text) > LARGEST_JOURNAL:
        raise FileError(f"is larger than {LARGEST_JOURNAL >> 20} MB", where=where, hint="is it a journal at all?")
    lines = text.split("\n")
    if len(lines) > MOST_LINES + 1:
        raise FileError(f"has more than {MOST_LINES:,} lines", where=where, hint="leave out what is not needed")
    if not text.strip() or (len(lines) == 1 and HEADER.startswith(text)):
        log.warning("%s: is empty", where)
        return ()
    check_header(lines[0], where)
    entries = []
    for number, line in enumerate(lines[1:], start=2):
        place = f"{where} line {number}"
        if not line.strip():
            continue
        try:
            found = _object(line)
        except ValueError as error:
            if number == len(lines):
                log.warning("%s was cut short and is left out", place)
                break
            raise FileError(f"is not an entry: {error}", where=place, hint="mend the line, or leave it out") from error
        verb = found.pop("verb", None)
        if verb is None:
            raise FileError("has no verb", where=place, hint=f"one of {', '.join(VERBS)}")
        try:
            entries.append(Entry(verb, found, number))
        except EngineError as error:
            inner = f": {error.where}" if error.where else ""
            raise FileError(error.what, where=f"{place}{inner}", hint=error.hint) from error
    return tuple(entries)


def read(path: str | Path) -> tuple[Entry, ...]:
    """The entries of the journal at `path`, its paths as they are written there. Raises FileError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_JOURNAL + 1)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"cannot be read: {reason}", where=str(path)) from error
    return parse(content.decode(errors="surrogateescape"), str(path))


def written(entry: Entry, folder: str | Path | None = None) -> str:
    """The line of an entry, with its line break. For a journal in `folder`, paths are written as portable ones; without
    it they stay as they are."""
    if folder is not None:
        entry = entry.with_paths(lambda path, out: portable(path, folder))
    return json.dumps({"verb": entry.verb, **entry.arguments}, allow_nan=False) + "\n"


def _object(line: str) -> dict[str, Any]:
    """The JSON object on a line. Raises ValueError."""
    try:
        found = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("expected an object in braces")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _read(argument: _Argument, value: Any, where: str) -> Any:
    try:
        return argument.read(value)
    except EngineError as error:
        inner = f".{error.where}" if error.where else ""
        raise InputError(error.what, where=f"{where}{inner}", hint=error.hint) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"expected {argument.expected}, got {value!r:.80}", where=where) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: Any) -> str:
    if not _text(value) or "\0" in value:
        raise ValueError
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST_COUNT:
        raise TypeError
    return value


def _count(value: Any) -> int:
    if _index(value) < 1:
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError
    return value


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_text(name) for name in _items(value))


def _paths(value: Any) -> tuple[str, ...]:
    return tuple(_path(path) for path in _items(value))


def _sizes(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(_count(size) for size in _items(row)) for row in _items(value))


def _settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return Config.from_mapping(value).to_mapping()


def _precision(value: Any) -> str:
    if value not in _PRECISIONS:
        raise ValueError
    return str(value)


def _higher(value: Any) -> str:
    if value == "int8":
        raise ValueError
    return _precision(value)


def _pairs(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError
    return [(_text(name), item) for name, item in value.items()]


def _wishes(value: Any) -> dict[str, str]:
    return {name: _precision(item) for name, item in _pairs(value)}


def _wish_changes(value: Any) -> dict[str, str]:
    return {name: "" if item == "" else _precision(item) for name, item in _pairs(value)}


def _range(value: Any) -> tuple[float, float]:
    low, high = (_number(end) for end in _items(value))
    if low > high:
        raise ValueError
    return low, high


def _ranges(value: Any) -> dict[str, tuple[float, float]]:
    return {name: _range(item) for name, item in _pairs(value)}


def _range_changes(value: Any) -> dict[str, tuple[float, float] | None]:
    return {name: None if item is None else _range(item) for name, item in _pairs(value)}


def _biases(value: Any) -> str:
    if _text(value):
        run, candidate = value.split(".")
        if not (run.isascii() and candidate.isascii() and run.isdecimal() and candidate.isdecimal()):
            raise ValueError
        return f"{_count(int(run))}.{_index(int(candidate))}"
    return ""


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]


def _same(one: EditState, other: EditState) -> bool:
    """Whether they are equal, the order of the lines included."""
    return one == other and list(one.wishes) == list(other.wishes)


_PATH_IN = _Argument("a path", _path, path="in")
_NAMES = _Argument("a list of tensor names", _names)
_JOINED = _Argument("true or false", _flag)
_WISHES = _Argument(f"a mapping of tensors to {', '.join(_PRECISIONS)}", _wishes)
_RANGES = _Argument("a mapping of rows to [min, max]", _ranges, needed=True)


def _needed(argument: _Argument) -> _Argument:
    return dataclasses.replace(argument, needed=True)


VERBS: dict[str, dict[str, _Argument]] = {
    "open": {
        "model": _needed(_PATH_IN),
        "inputs": _NAMES,
        "input_size_list": _Argument("a list of lists of positive integers", _sizes),
        "outputs": _NAMES,
        "weights": _PATH_IN,
        "cfg": _PATH_IN,
    },
    "config": {"settings": _Argument("a mapping of settings", _settings, needed=True)},
    "build": {
        "dataset": _PATH_IN,
        "do_quantization": _Argument("true or false", _flag),
        "batch": _Argument("a positive integer", _count),
    },
    "analyze": {"inputs": _Argument("a list of paths, one a model input", _paths, needed=True, path="in")},
    "set": {
        "wishes": _Argument(f'a mapping of tensors to {", ".join(_PRECISIONS)} or ""', _wish_changes, needed=True),
        "joined": _JOINED,
    },
    "range": {
        "ranges": _Argument("a mapping of rows to [min, max] or null", _range_changes, needed=True),
        "joined": _JOINED,
    },
    "cfg": {
        "wishes": _needed(_WISHES),
        "ranges": _RANGES,
        "biases": _Argument('"" or "{run}.{candidate}"', _biases),
        "joined": _JOINED,
    },
    "undo": {},
    "redo": {},
    "tune": {
        "dataset": _needed(_PATH_IN),
        "cosine": _Argument("a number", _number),
        "cost": _Argument("a number", _number),
        "layers": _Argument("a positive integer", _count),
        "precision": _Argument("int16 or float16", _higher),
        "run": _Argument("a positive integer", _count),
    },
    "take": {
        "run": _Argument("the number of a search", _count, needed=True),
        "candidate": _Argument("a number from 0", _index, needed=True),
        "wishes": _WISHES,
        "joined": _JOINED,
    },
    "save": {"cfg": _Argument("a path", _path, needed=True, path="out")},
    "export": {"path": _Argument("a path", _path, needed=True, path="out")},
}
