"""Pictures of the terminal as text that reads well in a diff, and their comparison with the ones that were accepted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.style import Style

from rknn_tui.app import Workshop

FOLDER = Path(__file__).with_name("snapshots")
UPDATE = "RKNN_TUI_UPDATE_SNAPSHOTS"
_ATTRIBUTES = ("bold", "dim", "italic", "underline", "blink", "reverse", "strike")

Cell = tuple[str, Style]
"""What one cell shows; the second cell of a wide character shows ''."""


def picture(app: Workshop) -> str:
    """What the terminal shows of the app: first its lines, then how they look.

    Lines are numbered from 1. After the lines, `plain` names the look of text that nothing is said about; then follow,
    for every line or run of lines that look alike, its cells from the first to the last that look otherwise, counted
    from 0: `3-7: 0 bold yellow, 12-19 dim`. A background that is `plain`'s is not named again, and blanks of which
    nothing can be seen have no look of their own.
    """
    screen = app.screen
    rows = [list(_cells(strip)) for strip in screen._compositor.render_strips()]
    plain = _look(app.palette["text"])
    lines = [f"{number:>2}|{''.join(text for text, _ in row)}".rstrip() for number, row in enumerate(rows, 1)]
    looks = [", ".join(_runs(row, plain)) for row in rows]
    return "\n".join([*lines, "", f"plain: {plain or 'as the terminal is'}", *_numbered(looks), ""])


def differs(name: str, taken: str) -> str:
    """What to tell where a picture is not the accepted one of that name, else ''. With the variable UPDATE set, it is
    accepted."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get(UPDATE):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(taken, encoding="utf-8")
    accepted = path.read_text(encoding="utf-8") if path.exists() else ""
    if taken == accepted:
        return ""
    diff = difflib.unified_diff(
        accepted.splitlines(), taken.splitlines(), f"{name}: accepted", f"{name}: now", lineterm=""
    )
    return "\n".join(diff)


def how_to_accept(test: str) -> str:
    """The command that accepts the pictures of a test as they are now."""
    return f"if it is meant to look so: {UPDATE}=1 python -m pytest {test}, and look at the diff in git"


def _cells(strip: Any) -> Iterator[Cell]:
    for segment in strip:
        for character in segment.text:
            yield character, segment.style or Style.null()
            for _ in range(cell_len(character) - 1):
                yield "", segment.style or Style.null()


def _look(style: Style) -> str:
    """A style in words, its default colours left out: `bold yellow on #15191f`."""
    words = [name for name in _ATTRIBUTES if getattr(style, name)]
    if style.color is not None and not style.color.is_default:
        words.append(style.color.name)
    if style.bgcolor is not None and not style.bgcolor.is_default:
        words += ["on", style.bgcolor.name]
    return " ".join(words)


def _visible(text: str, style: Style, plain: str) -> str:
    """How a cell looks; a blank shows its background and lines through it, not its colour."""
    look = _look(style)
    if text == " " and not (style.reverse or style.underline or style.strike):
        background, plain_background = look.partition("on ")[2], plain.partition("on ")[2]
        return plain if background == plain_background else f"on {background}"
    return look


def _runs(row: list[Cell], plain: str) -> Iterator[str]:
    """The look of a line's cells; blanks between words that look alike belong to them."""
    runs: list[tuple[int, int, str]] = []
    for x, (text, style) in enumerate(row):
        look = _visible(text, style, plain)
        if text == " " and look == plain:
            continue
        if runs and runs[-1][2] == look:
            runs[-1] = (runs[-1][0], x, look)
        else:
            runs.append((x, x, look))
    background = f" on {plain.partition('on ')[2]}"
    return (
        f"{_span(first, last)} {look.removesuffix(background) or 'as the terminal is'}"
        for first, last, look in runs
        if look != plain
    )


def _numbered(looks: list[str]) -> Iterator[str]:
    for look, group in groupby(enumerate(looks, 1), key=lambda line: line[1]):
        if look:
            numbers = [number for number, _ in group]
            yield f"{_span(numbers[0], numbers[-1])}: {look}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
