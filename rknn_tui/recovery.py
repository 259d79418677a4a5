"""Keeps edits that are not saved yet in a file of the app's own, should the link break or a process die."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.history import EditState
from rknn_tui.settings import state_folder

LARGEST_RECOVERY = 64 << 20
_VERSION = 1
# Half of a file that a killed process left is of no use to anybody.
_PART = ".part"


@dataclasses.dataclass(frozen=True)
class Recovered:
    """Edits that were in force and not saved at `when` (seconds since 1970).

    `text` is the cfg's text where that had been changed by hand, else None; `cfg` the file that it is of, '' for none
    yet. `same_model`: the model's file is still the one of then. Biases of a search (`state.biases`) are gone with the
    engine that found them.
    """

    state: EditState
    text: str | None
    cfg: str
    when: float
    same_model: bool


class Recovery:
    """The file of one model. Every method may be called in any thread, and none of them raises anything."""

    def __init__(self, model: str | Path) -> None:
        self._model = str(model)
        name = hashlib.sha256(os.fsencode(os.path.realpath(model))).hexdigest()[:32]
        self.path = state_folder() / "recovery" / f"{name}.json"
        self._lock = threading.Lock()
        self._kept: tuple[EditState, str | None, str] | None = None

    def keep(self, state: EditState, text: str | None, cfg: str) -> bool:
        """Write down edits in force, and the cfg's text where it was changed by hand; whether that worked.

        What is kept already is not written again.
        """
        with self._lock:
            kept = (state, text, cfg)
            if self._kept is not None and _same(self._kept, kept):
                return True
            try:
                self._write(self._content(state, text, cfg))
            except (OSError, ValueError, MemoryError):
                return False
            self._kept = kept
            return True

    def drop(self) -> None:
        """Nothing is unsaved any more: let the file go."""
        with self._lock:
            self._kept = None
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for part in self.path.parent.glob(f"{self.path.stem}.*{_PART}"):
                    part.unlink(missing_ok=True)

    def found(self) -> Recovered | None:
        """What was kept and not dropped; None where nothing was, or it cannot be read."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    data = file.read(LARGEST_RECOVERY + 1)
                if len(data) > LARGEST_RECOVERY:
                    return None
                return _recovered(json.loads(data), self._facts())
            except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError):
                return None

    def _content(self, state: EditState, text: str | None, cfg: str) -> bytes:
        content = {
            "rknn-tui recovery": _VERSION,
            "model": self._model,
            "file": self._facts(),
            "when": time.time(),
            "wishes": dict(state.wishes),
            "ranges": {row: list(ends) for row, ends in state.ranges.items()},
            "biases": state.biases,
            "text": text,
            "cfg": str(Path(cfg).absolute()) if cfg else "",
        }
        data = json.dumps(content, allow_nan=False).encode("ascii")
        if len(data) > LARGEST_RECOVERY:
            raise ValueError("too large")
        return data

    def _facts(self) -> list[int] | None:
        """What tells that the model's file is another one."""
        try:
            found = os.stat(self._model)  # noqa: PTH116, a path with a zero byte raises ValueError either way
        except (OSError, ValueError):
            return None
        return [found.st_mtime_ns, found.st_size]

    def _write(self, data: bytes) -> None:
        """Beside, and then in place of the old one. It does not wait for the disk, which outlives a process."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self.path.with_name(f"{self.path.stem}.{os.getpid()}{_PART}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(data)
            part.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def _same(one: tuple[EditState, str | None, str], other: tuple[EditState, str | None, str]) -> bool:
    return one == other and list(one[0].wishes) == list(other[0].wishes)


def _recovered(content: Any, facts: list[int] | None) -> Recovered:
    """Raises ValueError, TypeError, KeyError or OverflowError for what `keep` never wrote."""
    if not isinstance(content, dict) or content["rknn-tui recovery"] != _VERSION:
        raise ValueError
    wishes = {_text(name): _text(wish) for name, wish in _mapping(content["wishes"]).items()}
    ranges = {_text(row): tuple(map(_number, ends)) for row, ends in _mapping(content["ranges"]).items()}
    if any(len(ends) != 2 for ends in ranges.values()) or not all(wishes.values()):
        raise ValueError
    text = None if content["text"] is None else _text(content["text"])
    state = EditState(wishes, ranges, _text(content["biases"]))
    same = facts is not None and content["file"] == facts
    return Recovered(state, text, _text(content["cfg"]), _number(content["when"]), same)


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError
    return float(value)
