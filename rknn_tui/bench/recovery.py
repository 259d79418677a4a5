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
from rknn_tui.bench.kept import Kept, LeftText
from rknn_tui.bench.paths import absolute
from rknn_tui.settings import state_folder

LARGEST_RECOVERY = 64 << 20
_VERSION = 1
# Half of a file that a killed process left is of no use to anybody.
_PART = ".part"


@dataclasses.dataclass(frozen=True)
class Recovered:
    """Edits that were in force and not saved at `when` (seconds since 1970).

    `same_model`: the model's file is still the one of then. Biases of a search (`kept.state.biases`) are gone with the
    engine that found them.
    """

    kept: Kept
    when: float
    same_model: bool


class Recovery:
    """The file of one model. Every method may be called in any thread, and none of them raises anything."""

    def __init__(self, model: str | Path) -> None:
        self._model = str(model)
        name = hashlib.sha256(os.fsencode(os.path.realpath(model))).hexdigest()[:32]
        self.path = state_folder() / "recovery" / f"{name}.json"
        self._lock = threading.Lock()
        self._kept: Kept | None = None

    def keep(self, kept: Kept) -> bool:
        """Write down edits in force, and the cfg's text; whether that worked.

        What is kept already is not written again.
        """
        with self._lock:
            if self._kept is not None and _same(self._kept, kept):
                return True
            try:
                self._write(self._content(kept))
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

    def _content(self, kept: Kept) -> bytes:
        text = kept.text
        content = {
            "rknn-tui recovery": _VERSION,
            "model": self._model,
            "file": self._facts(),
            "when": time.time(),
            **_plain(kept.state),
            "biases": kept.state.biases,
            "saved": _plain(kept.saved),
            "text": None if text is None else text.text,
            "cfg": "" if text is None or not text.path else absolute(text.path),
        }
        if text is not None:
            content |= {"expresses": text.expresses and _plain(text.expresses), "typed": text.typed}
            content |= {"saved text": text.saved, "checksum": text.checksum}
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


def _same(one: Kept, other: Kept) -> bool:
    return one == other and list(one.state.wishes) == list(other.state.wishes)


def _plain(state: EditState) -> dict[str, Any]:
    return {
        "wishes": dict(state.wishes),
        "ranges": {row: list(ends) for row, ends in state.ranges.items()},
    }


def _recovered(content: Any, facts: list[int] | None) -> Recovered:
    """Raises ValueError, TypeError, KeyError or OverflowError for what `keep` never wrote."""
    if not isinstance(content, dict) or content["rknn-tui recovery"] != _VERSION:
        raise ValueError
    state = dataclasses.replace(_state(content), biases=_text(content["biases"]))
    saved = _state(content.get("saved", {"wishes": {}, "ranges": {}}))
    left: LeftText | None = None
    if content["text"] is not None:
        expresses, typed = content.get("expresses"), content.get("typed", True)
        left = LeftText(
            _text(content["text"]),
            _text(content["cfg"]),
            None if expresses is None else _state(expresses),
            typed is not False,
            _optional_text(content.get("saved text")),
            _optional_text(content.get("checksum")),
        )
    same = facts is not None and content["file"] == facts
    return Recovered(Kept(state, saved, left), _number(content["when"]), same)


def _state(content: Any) -> EditState:
    content = _mapping(content)
    wishes = {_text(name): _text(wish) for name, wish in _mapping(content["wishes"]).items()}
    ranges = {_text(row): tuple(map(_number, ends)) for row, ends in _mapping(content["ranges"]).items()}
    if any(len(ends) != 2 for ends in ranges.values()) or not all(wishes.values()):
        raise ValueError
    return EditState(wishes, ranges)


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


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
