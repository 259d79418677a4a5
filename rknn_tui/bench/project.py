"""What the app remembers of a model, in a small YAML file beside it: how it is loaded, built and looked at.

The file holds the names of `engine.config.Config` and of Project's fields; `--config` of the headless commands takes
it as well. Where the model's folder cannot be written, it is kept in the app's own folder instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import ConfigError, FileError
from engine.files.portable_paths import located, portable
from engine.files.writing import replacing
from rknn_tui.settings import state_folder

SUFFIX = ".rknn-tui.yaml"
LARGEST_PROJECT = 1 << 20
LOAD_OPTIONS = ("inputs", "input_size_list", "outputs", "weights")
"""The arguments of the engine's `load`, besides the model's path."""

_MARK = "# rknn-tui project"
_SETTINGS = tuple(field.name for field in dataclasses.fields(Config))


@dataclasses.dataclass(frozen=True)
class Project:
    """The arguments of the engine's `load` and `build`, the sample that is analysed, the cfg that was saved last, and
    the id of the board to run on.

    `config` holds settings by the names of Config, those that are not the defaults. Paths lead from the current folder.
    """

    inputs: tuple[str, ...] | None = None
    input_size_list: tuple[tuple[int, ...], ...] | None = None
    outputs: tuple[str, ...] | None = None
    weights: str | None = None
    dataset: str | None = None
    sample: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    float16: bool = False
    batch: int = 1
    cfg: str | None = None
    board: str | None = None


def beside(model: str | Path) -> Path:
    """The project's file beside a model."""
    return Path(model).with_name(f"{Path(model).stem}{SUFFIX}")


def elsewhere(model: str | Path) -> Path:
    """The project's file where the model's folder cannot be written."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(model))).hexdigest()[:32]
    return state_folder() / "projects" / f"{name}.yaml"


def load(model: str | Path) -> tuple[Project, list[str]]:
    """The project of a model, as far as its file can be used, and what is wrong with the file.

    Where there are two files the one written last counts. Without a file it is an empty project.
    """
    path = max((beside(model), elsewhere(model)), key=_written_at)
    try:
        content = _read(path)
    except (FileError, ConfigError) as error:
        return Project(), [f"{error}"]
    values, faults = _values(content, path)
    return Project(**values), faults


def save(model: str | Path, project: Project) -> tuple[Path, list[str]]:
    """Write the project's file, if it says something else so far; keys that are not ours stay.

    Returns its path and what a person should know. Raises FileError for another file of that name, which stays, and
    where neither folder can be written.
    """
    first, second = beside(model), elsewhere(model)
    try:
        _write(first, model, project)
    except FileError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        with contextlib.suppress(OSError):
            second.parent.mkdir(parents=True, exist_ok=True)
        _write(second, model, project)
        return second, [f"{first} {error.what}; the project is kept in {second}"]
    with contextlib.suppress(OSError):
        second.unlink(missing_ok=True)
    return first, []


def _write(path: Path, model: str | Path, project: Project) -> None:
    old = _read(path)
    ours = _mapping(project, path.parent)
    # A value that could not be used may be a slip that someone wants to mend.
    usable, _ = _values(old, path)
    kept = {key: value for key, value in old.items() if key not in ours and not _is_used(key, usable)}
    new = {**ours, **kept}
    if path.exists() and new == old:
        return
    import yaml

    head = f"{_MARK}: what the app remembers of {Path(model).name!a}. It keeps keys that it does not know.\n"
    # Other line breaks than \n are escaped with all else that is not ASCII: YAML would fold them to spaces.
    readable = not any(mark in repr(new) for mark in (r"\x85", r"\u2028", r"\u2029"))
    text = yaml.safe_dump(new, sort_keys=False, default_flow_style=None, allow_unicode=readable, width=120)
    with replacing(path) as file:
        file.write((head + text).encode())


def _is_used(key: Any, usable: Mapping[str, Any]) -> bool:
    return key in usable or key in usable.get("config", {})


def _mapping(project: Project, folder: Path) -> dict[str, Any]:
    """What a file in `folder` says of a project: all that is not the default."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Project):
        value = getattr(project, field.name)
        if field.name == "config":
            settings = Config.from_mapping(value).to_mapping()
            found.update({name: setting for name, setting in settings.items() if value.get(name) is not None})
        elif value != field.default:
            found[field.name] = _plain(_PATHS[field.name](value, folder) if field.name in _PATHS else value)
    return found


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


_PATHS: Mapping[str, Callable[[Any, Path], Any]] = {
    "weights": portable,
    "dataset": portable,
    "sample": lambda paths, folder: tuple(portable(path, folder) for path in paths),
    "cfg": portable,
}


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return -1.0


def _read(path: Path) -> dict[Any, Any]:
    """What the file says, nothing where there is none. Raises FileError and ConfigError for what is no project."""
    try:
        if not path.exists():
            return {}
        if not path.is_file():
            raise FileError("is no file", where=str(path), hint="move it, for the project to be kept there")
        with path.open("rb") as file:
            data = file.read(LARGEST_PROJECT + 1)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(data) > LARGEST_PROJECT:
        raise FileError("is too large for a project", where=str(path), hint="move it, for the project to be kept there")
    from engine.plain_yaml import read_yaml  # it loads what reads YAML

    try:
        content = read_yaml(data, str(path))
    except ConfigError as error:
        # Another kind of error than what stands in the way of a file; save would not fall back.
        raise FileError(error.what, where=error.where, hint="mend the file, or remove it") from None
    content = {} if content is None else content
    known = isinstance(content, dict) and any(key in _READERS or key in _SETTINGS for key in content)
    if not known and not data.startswith(_MARK.encode()):
        raise FileError("is no project of rknn-tui", where=str(path), hint="move it, for the project to be kept there")
    if not isinstance(content, dict):
        raise FileError("expected 'name: value' lines", where=str(path), hint="mend the file, or remove it")
    return content


def _values(content: Mapping[Any, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of a Project that a file's content tells, and what is wrong with the rest."""
    values: dict[str, Any] = {}
    config: dict[str, Any] = {}
    faults = []
    for key, value in content.items():
        if value is None:
            continue
        if key in _SETTINGS:
            try:
                config[key] = Config.from_mapping({key: value}).to_mapping()[key]
            except (ConfigError, OverflowError, ValueError) as error:
                faults.append(f"{path}: {key}: {getattr(error, 'what', error)}")
            except KeyError:
                pass  # the default
        elif key in _READERS:
            expected, read = _READERS[key]
            try:
                values[key] = read(value, path.parent)
            except (TypeError, ValueError):
                faults.append(f"{path}: {key}: expected {expected}, got {value!r:.80}")
        else:
            faults.append(f"{path}: unknown {key!r:.80} is passed over")
    return {**values, "config": config}, faults


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise TypeError
    return value


def _names(value: Any, folder: Path) -> tuple[str, ...]:
    return tuple(_text(name) for name in ([value] if isinstance(value, str) else _items(value)))


def _path(value: Any, folder: Path) -> str:
    return located(_text(value), folder)


def _count(value: Any, folder: Path = Path()) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError
    return value


def _flag(value: Any, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_READERS: Mapping[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "inputs": ("a list of tensor names", _names),
    "input_size_list": (
        "a list of lists of positive integers",
        lambda value, folder: tuple(tuple(_count(size) for size in _items(row)) for row in _items(value)),
    ),
    "outputs": ("a list of tensor names", _names),
    "weights": ("a path", _path),
    "dataset": ("a path", _path),
    "sample": (
        "a list of paths",
        lambda value, folder: tuple(located(path, folder) for path in _names(value, folder)),
    ),
    "float16": ("true or false", _flag),
    "batch": ("a positive integer", _count),
    "cfg": ("a path", _path),
    "board": ("a board's id", lambda value, folder: _text(value)),
}
