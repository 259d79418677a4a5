"""Theme roles: what each kind of text looks like, read from the themes folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.color import ColorParseError
from rich.errors import StyleSyntaxError
from rich.style import Style

from rknn_tui.bench.paths import is_file
from rknn_tui.settings import config_folder, read_mapping

ROLES = (
    *("text", "muted", "title", "key", "marker", "mark", "lane", "changed"),
    *("int8", "int16", "float16", "bad", "warning", "error", "comment", "fault"),
)
"""The state that a role stands for always has a letter or word too: colour alone never tells it."""

COLOURS = ("background", "foreground", "primary")

_FALLBACK = {
    **dict.fromkeys(("muted", "lane", "comment"), "dim"),
    **dict.fromkeys(("title", "key", "marker", "mark", "changed", "bad", "error"), "bold"),
    "fault": "underline",
}


@dataclasses.dataclass(frozen=True)
class Palette:
    """Styles by role. `ansi`: the terminal's own colours are used; else `colours` has the three that widgets need."""

    name: str
    ansi: bool
    dark: bool
    styles: Mapping[str, Style]
    colours: Mapping[str, str]

    def __getitem__(self, role: str) -> Style:
        return self.styles[role]


def theme_folders() -> tuple[Path, ...]:
    """Where themes are looked for: the user's folder, then the one that comes with the program."""
    return config_folder() / "themes", Path(__file__).resolve().parents[1] / "themes"


def names() -> list[str]:
    """The themes that can be chosen."""
    return sorted({path.stem for folder in theme_folders() for path in folder.glob("*.yaml")})


def load(name: str) -> tuple[Palette, list[str]]:
    """The theme `name` and what is wrong with it; what is missing or broken falls back to the terminal's colours."""
    path = next((folder / f"{name}.yaml" for folder in theme_folders() if is_file(folder / f"{name}.yaml")), None)
    if path is None or Path(name).name != name:
        return _palette("ansi-dark", {}, "", [f"no theme {name!r}; there are: {', '.join(names())}"])
    mapping, faults = read_mapping(path)
    return _palette(name, mapping, str(path), faults)


def _palette(name: str, mapping: Mapping[object, object], where: str, faults: list[str]) -> tuple[Palette, list[str]]:
    roles = mapping.get("roles", {})
    colours = mapping.get("colours", {})
    styles = {role: Style.parse(_FALLBACK.get(role, "")) for role in ROLES}
    for role, text in (roles if isinstance(roles, dict) else {}).items():
        try:
            if role not in ROLES:
                raise StyleSyntaxError(f"no such role; there are: {', '.join(ROLES)}")
            styles[role] = Style.parse(str(text or ""))
        except (StyleSyntaxError, ColorParseError) as error:
            faults.append(f"{where}: {role}: {error}")
    chosen = {
        key: str(value) for key, value in (colours if isinstance(colours, dict) else {}).items() if key in COLOURS
    }
    ansi = len(chosen) < len(COLOURS)
    if not ansi:
        # On a background of its own, text without a colour would keep the terminal's, which may be the background's.
        base = Style.parse(f"{chosen['foreground']} on {chosen['background']}")
        styles = {role: base + style for role, style in styles.items()}
    return Palette(name, ansi, mapping.get("dark", True) is not False, styles, chosen), faults
