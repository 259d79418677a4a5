"""What the user has set for the app, and where the app keeps its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import ConfigError, nearest
from rknn_tui.bench.paths import absolute, is_file

MOST_SETTINGS_BYTES = 1 << 20
MOST_RECENT = 20
# The year 3000: a date can be made of everything before.
_END_OF_TIME = 32503680000.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The contents of settings.yaml in the config folder."""

    theme: str = "ansi-dark"
    """A file of the themes folder. The ansi themes take the terminal's own colours and cost the fewest bytes."""

    theme_over_ssh: str = ""
    """The theme where the app runs over SSH; '' for the same as elsewhere."""

    symbols: str = "auto"
    """'unicode', 'ascii', or 'auto': by the locale."""

    cosine_limit: float = 0.99
    """Layers whose entire cosine is below are marked, and visited by the keys for bad layers."""

    bar_from: float = 0.95
    """The cosine at which a bar is empty; it is full at 1."""

    live: bool = True
    """Whether an analysis also starts live evaluation: every edit is then measured at once."""

    trace_layers: int = 300
    """Models of up to so many layers are traced for error sources after an analysis by themselves; 0 is for none."""

    restore: bool = True
    """Whether edits that were not saved, as when the link broke, are offered when their model is opened again."""

    read_only: bool = False
    """Whether nothing is written beside a model: no cfg, no package, no project and no journal. For shared machines."""

    mouse: bool = False
    """Whether the app takes the mouse from the terminal, which then cannot select text with it."""

    def theme_in(self, environment: Mapping[str, str]) -> str:
        """The theme for a process with this environment."""
        over_ssh = "SSH_CONNECTION" in environment or "SSH_TTY" in environment
        return self.theme_over_ssh if over_ssh and self.theme_over_ssh else self.theme


_PART = ("a number from 0 to below 1", lambda value: 0 <= value < 1)
_MAY_BE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "symbols": ("auto, unicode or ascii", lambda value: value in ("auto", "unicode", "ascii")),
    "cosine_limit": _PART,
    "bar_from": _PART,
    "trace_layers": ("a whole number from 0", lambda value: value >= 0),
}
"""What values of a setting are, beside being of its default's type."""


def config_folder() -> Path:
    """Where the user's settings.yaml and keys.yaml are."""
    return _base("XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """Where the app keeps the list of recent files and the engine's log."""
    return _base("XDG_STATE_HOME", ".local/state")


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # The XDG rules say that relative paths in these variables are to be ignored.
    return (Path(given) if given.startswith("/") else Path.home() / default) / "rknn-tui"


def load(path: Path) -> tuple[Settings, list[str]]:
    """The settings in the file at `path`, defaults where it says nothing, and what is wrong with it."""
    mapping, faults = read_mapping(path)
    defaults = dataclasses.asdict(Settings())
    given: dict[str, Any] = {}
    for name, value in mapping.items():
        if name not in defaults:
            faults.append(f"{path}: no setting {name!r:.80} ({nearest(str(name)[:80], defaults)})")
            continue
        default = defaults[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 1 << 53 else value
        expected, allowed = _MAY_BE.get(name, ("", lambda value: True))
        if type(value) is not type(default):
            faults.append(f"{path}: {name}: expected {type(default).__name__}, got {value!r:.80}")
        elif not allowed(value):
            faults.append(f"{path}: {name}: expected {expected}, got {value!r:.80}")
        else:
            given[name] = value
    return Settings(**given), faults


def read_mapping(path: Path) -> tuple[dict[Any, Any], list[str]]:
    """The mapping in a YAML file, empty when the file is missing, and what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{path}: cannot be read: {error.strerror}"]
    if len(data) > MOST_SETTINGS_BYTES:
        return {}, [f"{path}: larger than {MOST_SETTINGS_BYTES} bytes"]
    from engine.plain_yaml import read_yaml  # it loads what reads YAML, and most people have no such file

    try:
        content = read_yaml(data, str(path))
    except ConfigError as error:
        return {}, [" ".join(str(error).split())]
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        return {}, [f"{path}: expected 'name: value' lines"]
    return content, []


class Recent(NamedTuple):
    """A model that was opened, and when last: seconds since 1970, 0 where that is not known."""

    path: str
    opened: float


def recent_files() -> list[str]:
    """Models opened before that still exist, the latest first."""
    return [one.path for one in recent()]


def recent() -> list[Recent]:
    """The same, with the times."""
    try:
        with (state_folder() / "recent.json").open("rb") as file:
            content = json.loads(file.read(MOST_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return []
    found = [_recent(item) for item in content[:MOST_RECENT]] if isinstance(content, list) else []
    return [one for one in found if one is not None and is_file(one.path)]


def _recent(item: Any) -> Recent | None:
    # Lists without times were written before there were any.
    path, opened = item if isinstance(item, list) and len(item) == 2 else (item, 0.0)
    known = isinstance(opened, float) and 0.0 <= opened < _END_OF_TIME
    return Recent(path, opened if known else 0.0) if isinstance(path, str) else None


def remember_file(path: str) -> None:
    """Put a model first in the list of recent files. A folder that cannot be written is no reason to complain."""
    name = absolute(path)
    found = [Recent(name, time.time()), *(one for one in recent() if one.path != name)][:MOST_RECENT]
    target = state_folder() / "recent.json"
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(target)
