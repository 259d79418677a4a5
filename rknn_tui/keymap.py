"""Which key does what, and where: the defaults of the action table, changed by the user's keys file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import nearest
from rknn_tui.actions import ACTIONS, BY_ID, EVERYWHERE, PLACES, Action
from rknn_tui.settings import read_mapping


@dataclasses.dataclass(frozen=True)
class Keymap:
    """Keys by action and actions by key. A key is one character, or a name such as 'ctrl+d' or 'pagedown'."""

    keys: Mapping[str, tuple[str, ...]]

    def action(self, key: str, character: str | None, place: str = "tune") -> str | None:
        """The action for a key press in a screen or pane, told by its name and, where it types something, its
        character."""
        table = self._by_place[place]
        return table.get(character or "") or table.get(key)

    def first(self, action: str) -> str:
        """The key to show for an action, '' when it has none."""
        return next(iter(self.keys[action]), "")

    def shown(self, action: str) -> str:
        """What to press for an action, in a sentence: its first key, or its name in the command list."""
        return self.first(action) or f"'{action}'"

    @functools.cached_property
    def _by_place(self) -> dict[str, dict[str, str]]:
        return {
            place: {key: action.id for action in ACTIONS if action.works_in(place) for key in self.keys[action.id]}
            for place in PLACES
        }


DEFAULT = Keymap({action.id: action.keys for action in ACTIONS})


def key_name(key: str) -> str:
    """A key as people call it."""
    return {"escape": "esc", "pagedown": "pgdn", "pageup": "pgup"}.get(key, key)


def load(path: Path) -> tuple[Keymap, list[str]]:
    """The keymap with the changes that the file at `path` makes, and what is wrong with the file.

    The file maps action ids to a key, a list of keys, or [] for none. A key taken from another action that works in the
    same place leaves that one. A missing file changes nothing; a wrong entry is reported and skipped.
    """
    changes, faults = read_mapping(path)
    keys: dict[str, tuple[str, ...]] = dict(DEFAULT.keys)
    taken: dict[str, list[str]] = {}
    for action, value in changes.items():
        if action not in BY_ID:
            faults.append(f"{path}: no action {action!r} ({nearest(str(action), BY_ID)})")
            continue
        wanted = _keys(value)
        if wanted is None:
            faults.append(f"{path}: {action}: expected a key or a list of keys, got {value!r}")
            continue
        clash = [(key, other) for key in wanted for other in taken.get(key, ()) if _meet(BY_ID[other], BY_ID[action])]
        if clash:
            faults.append(f"{path}: {clash[0][0]!r} is given to both {clash[0][1]} and {action}")
            continue
        for key in wanted:
            taken.setdefault(key, []).append(action)
        keys[action] = wanted
    changed = {action for actions in taken.values() for action in actions}
    for action in keys:
        if action not in changed:
            keys[action] = tuple(
                key
                for key in keys[action]
                if not any(_meet(BY_ID[other], BY_ID[action]) for other in taken.get(key, ()))
            )
    if not keys["quit"]:
        keys["quit"] = ("ctrl+q",)
        faults.append(f"{path}: no key is left to quit with; ctrl+q stays")
    return Keymap(keys), faults


def _meet(one: Action, other: Action) -> bool:
    """Whether there is a place where the keys of both work."""
    places = {*one.places, *other.places}
    return EVERYWHERE in places or bool({*one.places} & {*other.places})


def _keys(value: Any) -> tuple[str, ...] | None:
    items: Iterable[Any] = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
        return None
    return tuple(item.strip() if len(item) > 1 else item for item in items)
