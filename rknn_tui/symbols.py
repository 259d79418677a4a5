"""The signs that the app draws with, in Unicode or plain ASCII, and text made safe to draw."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Mapping

from rich.cells import cell_len, get_character_cell_size, set_cell_size


@dataclasses.dataclass(frozen=True)
class Symbols:
    """One cell each. `unicode` tells whether bars may use block characters.

    `mark` is beside a marked row; `folded` stands for layers folded into one row, `dot` between their operators; `up`
    and `down` tell which way a column is sorted. The rest draws the graph: nodes (`output` when nobody reads what it
    makes, `cut` when the readers are out of reach), a `rail`, what goes `across`, and where a rail meets that: `joins`
    go on below, `last_reads` end and `starts` begin there; each has three signs: joined to the right, to the left, to
    both sides.
    """

    unicode: bool
    marker: str
    rule: str
    ellipsis: str
    times: str
    mark: str
    folded: str
    dot: str
    up: str
    down: str
    node: str
    input: str
    output: str
    cut: str
    rail: str
    across: str
    joins: str
    last_reads: str
    starts: str


UNICODE = Symbols(
    unicode=True,
    marker="▶",
    rule="─",
    ellipsis="…",
    times="×",
    mark="+",
    folded="▸",
    dot="·",
    up="▲",
    down="▼",
    node="●",
    input="○",
    output="◉",
    cut="◆",
    rail="│",
    across="─",
    joins="├┤┼",
    last_reads="╰╯┴",
    starts="╭╮┬",
)
ASCII = Symbols(
    unicode=False,
    marker=">",
    rule="-",
    ellipsis="~",
    times="x",
    mark="+",
    folded=">",
    dot=".",
    up="^",
    down="v",
    node="*",
    input="o",
    output="@",
    cut="#",
    rail="|",
    across="-",
    joins="+++",
    last_reads="'''",
    starts="...",
)


def choose(setting: str = "auto", environment: Mapping[str, str] | None = None) -> Symbols:
    """The symbols for the setting 'unicode', 'ascii' or 'auto', which asks the locale whether it is UTF-8."""
    if setting != "auto":
        return UNICODE if setting == "unicode" else ASCII
    variables = os.environ if environment is None else environment
    locale = next((variables[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if variables.get(name)), "")
    return UNICODE if locale.lower().replace("-", "").endswith("utf8") else ASCII


def drawable(text: str, symbols: Symbols = UNICODE) -> str:
    """`text` with every control, direction, escape or undecodable character replaced: names come from files.

    Marks that join the character before them are composed with it or replaced, so that each character has its cells.
    """
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        c if c.isprintable() and (c.isascii() or (symbols.unicode and cell_len(c))) else "?" for c in composed
    )


def fit(text: str, width: int, symbols: Symbols = UNICODE, *, keep_end: bool = False) -> str:
    """`text` in exactly `width` cells: padded, or cut with a sign where something is missing.

    `keep_end` cuts the beginning: the end of a layer's name or path tells more than its start.
    """
    if width <= 0:
        return ""
    length = cell_len(text)
    if length <= width:
        return text + " " * (width - length)
    if not keep_end:
        return set_cell_size(text, width - 1) + symbols.ellipsis
    if text.isascii():
        return symbols.ellipsis + text[len(text) - width + 1 :]
    start, cells = len(text), 0
    while start and (cells := cells + get_character_cell_size(text[start - 1])) < width:
        start -= 1
    # Characters may take other room together than one by one.
    while cell_len(text[start:]) > width - 1:
        start += 1
    return (symbols.ellipsis + text[start:]) + " " * (width - 1 - cell_len(text[start:]))


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at spaces and line ends, and inside words that are too long."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split(" "):
            if line and cell_len(line) + 1 + cell_len(word) > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while cell_len(line[: width + 1]) > width or cell_len(line) > width:
                # Of the rest only as much as may fit, with what joins its characters.
                head = set_cell_size(line[: 8 * max(width, 2)], max(width, 2)).rstrip()
                lines.append(head)
                line = line[max(len(head), 1) :]
        lines.append(line)
    return lines
