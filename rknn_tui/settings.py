"""What the user has set for the app, and where the app keeps its files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from engine.errors import nearest

MOST_SETTINGS_BYTES = 1 << 20
MOST_RECENT = 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The contents of settings.yaml in the config folder."""

    theme: str = "ansi-dark"
    """A file of the themes folder. The ansi themes take the terminal's own colours and cost the fewest bytes."""

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

    mouse: bool = False
    """Whether the app takes the mouse from the terminal, which then cannot select text with it."""


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
            faults.append(f"{path}: no setting {name!r} ({nearest(str(name), defaults)})")
            continue
        default = defaults[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            faults.append(f"{path}: {name}: expected {type(default).__name__}, got {value!r}")
        elif name == "symbols" and value not in ("auto", "unicode", "ascii"):
            faults.append(f"{path}: symbols: expected auto, unicode or ascii, got {value!r}")
        elif name in ("cosine_limit", "bar_from") and not 0 <= value < 1:
            faults.append(f"{path}: {name}: expected a number from 0 to below 1, got {value!r}")
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
    import yaml  # most people have no such file, and the import takes 20 ms of the start

    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return {}, [f"{path}: not valid YAML: {' '.join(str(error).split())}"]
    if content is None:
        return {}, []
    if not isinstance(content, dict):
        return {}, [f"{path}: expected 'name: value' lines"]
    return content, []


def recent_files() -> list[str]:
    """Models opened before that still exist, the latest first."""
    try:
        with (state_folder() / "recent.json").open("rb") as file:
            names = json.loads(file.read(MOST_SETTINGS_BYTES))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(names, list):
        return []
    return [name for name in names[:MOST_RECENT] if isinstance(name, str) and _is_file(name)]


def remember_file(path: str) -> None:
    """Put a model first in the list of recent files. A folder that cannot be written is no reason to complain."""
    name = str(Path(path).absolute())
    names = [name, *(other for other in recent_files() if other != name)][:MOST_RECENT]
    target = state_folder() / "recent.json"
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        part.write_text(json.dumps(names), encoding="utf-8")
        part.replace(target)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
