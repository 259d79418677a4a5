"""The lines of a cfg's text: their colours, the entries that they begin, and the difference between two texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rknn_tui.pieces import Line, Piece
from rknn_tui.text.text_changes import BREAKS, changed_blocks, split_lines

SECTIONS = ("custom_quantize_layers", "quantize_parameters")
"""The two keys of a cfg's top level: precisions that a person asks for, and a row of parameters a tensor."""

ROW_KEYS = ("qtype", "qmethod", "dtype", "min", "max", "scale", "zero_point", "ori_min", "ori_max")
"""The keys of such a row."""

PRECISIONS = ("int8", "int16", "float16")

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
# What no name without quotes begins with; it goes on until a colon before a blank.
_NO_NAME = re.compile(r"""[#'"&*!|>%@`{}\[\],]|[-?:](?:\s|\Z)|\Z""")
_COLON = re.compile(r":(?=\s|\Z)")
_COMMENT = re.compile(r"(?:\A|(?<=\s))#.*", re.DOTALL)
_VALUE = re.compile(rf"(?<![^\s,\[{{])(?:(?P<precision>{'|'.join(PRECISIONS)})|(?P<anchor>[&*]\w+))(?![^\s,\]}}])")
_INDENT = re.compile(r" *")
# Blank lines, comments, list items and document marks are no keys, whatever they stand before.
_NOT_TOP = {*" \t#-", *BREAKS, ""}
# A row of parameters has 16 lines; farther up stands nothing that a change in it belongs to.
_ROW_LINES = 40


def pieces_of(line: str) -> Line:
    """The line in roles: keys of a row and anchors 'muted', sections 'title', precisions and comments by their own.

    The pieces together are the line, whatever it holds.
    """
    pieces: list[Piece] = []
    place = 0
    span = _key_span(line)
    if span is not None:
        start, end, place = span
        name = line[start:end]
        role = "muted" if name in ROW_KEYS else "title" if name in SECTIONS and not start else "text"
        pieces += [(line[:start], "text"), (line[start:place], role)]
    # A quoted value may hold a number sign; the toolkit writes none, and a colour too much does no harm.
    comment = _COMMENT.search(line, place)
    stop = comment.start() if comment else len(line)
    for match in _VALUE.finditer(line, place, stop):
        pieces += [(line[place : match.start()], "text"), (match[0], match["precision"] or "muted")]
        place = match.end()
    pieces += [(line[place:stop], "text"), (line[stop:], "comment")]
    return [piece for piece in pieces if piece[0]]


def key_of(line: str) -> str | None:
    """The key of the entry that a line begins, without its quotes; None where it begins none."""
    span = _key_span(line)
    if span is None:
        return None
    name = line[span[0] : span[1]]
    if name[0] == "'":
        return name[1:-1].replace("''", "'")
    return _unquoted(name) if name[0] == '"' else name


def tensor_at(lines: Sequence[str], row: int) -> str | None:
    """The tensor whose entry, in either section, holds line `row` (from 0)."""
    top = next((above for above in range(row, -1, -1) if _is_top(lines[above])), None)
    if top is None or top == row or key_of(lines[top]) not in SECTIONS:
        return None
    level = _level(lines, top)
    for above in range(row, top, -1):
        if _indent(lines[above]) <= level and (name := key_of(lines[above])) is not None:
            return name
    return None


def line_of(lines: Sequence[str], tensor: str) -> int | None:
    """The line (from 0) of a tensor's entry in custom_quantize_layers, else in quantize_parameters."""
    tops = [row for row, line in enumerate(lines) if _is_top(line)]
    sections = {key_of(lines[top]): (top, end) for top, end in pairwise([*tops, len(lines)])}
    for section in SECTIONS:
        if section not in sections:
            continue
        top, end = sections[section]
        level = _level(lines, top)
        plain = f"{' ' * level}{tensor}"
        for row in range(top + 1, end):
            line = lines[row]
            # Reading a key takes long for many thousand lines: only those that may be it are read.
            candidate = line.startswith(plain) or line[level : level + 1] in ("'", '"')
            if candidate and _indent(line) == level and key_of(line) == tensor:
                return row
    return None


def diff_lines(old: str, new: str) -> list[Line]:
    """What changed between two texts, ready to draw: a sign, the line's number and the line.

    '-' lines were taken out, '+' lines put in. Before a change within a row, the lines that tell which tensor and which
    of its values it is stand without a sign, numbered as in the new text (in the old one where only lines went).
    """
    before, after = split_lines(old), split_lines(new)
    digits = len(str(max(len(before), len(after))))

    def numbered(sign: str, row: int, lines: Sequence[str]) -> Line:
        pieces = pieces_of(lines[row].rstrip(BREAKS))
        if sign == "-":
            pieces = [(text, "muted") for text, _ in pieces]
        return [(f"{sign} {row + 1:>{digits}} ", "changed" if sign == "+" else "muted"), *pieces]

    lines: list[Line] = []
    told: set[tuple[int, bool]] = set()
    for start, end, new_start, new_end in changed_blocks(before, after):
        added = new_start < new_end
        shown, first = (after, new_start) if added else (before, start)
        around = [row for row in _enclosing(shown, first) if (row, added) not in told]
        told.update((row, added) for row in around)
        lines += [numbered(" ", row, shown) for row in around]
        lines += [numbered("-", row, before) for row in range(start, end) if before[row]]
        lines += [numbered("+", row, after) for row in range(new_start, new_end) if after[row]]
        told.update((row, True) for row in range(new_start, new_end))
    return lines


def _enclosing(lines: Sequence[str], row: int) -> list[int]:
    """The lines that begin what line `row` is in, the outermost first; sections are left out."""
    found: list[int] = []
    indent = _indent(lines[row])
    # A list's items may stand as far in as the key that they belong to.
    item = lines[row].lstrip(" ").startswith("-")
    for above in range(row - 1, max(row - _ROW_LINES, -1), -1):
        far = _indent(lines[above])
        if not (far < indent or (item and far == indent)) or key_of(lines[above]) is None:
            continue
        if far == 0:
            break
        found.append(above)
        indent, item = far, False
    return found[::-1]


def _key_span(line: str) -> tuple[int, int, int] | None:
    """Where the key that a line begins starts and ends, and the place behind its colon."""
    start = len(line) - len(line.lstrip())
    quoted = _QUOTED.match(line, start)
    if quoted is not None:
        end = quoted.end()
        colon = len(line) - len(line[end:].lstrip(" \t"))
        return (start, end, colon + 1) if _COLON.match(line, colon) else None
    found = None if _NO_NAME.match(line, start) else _COLON.search(line, start)
    if found is None or _COMMENT.search(line, start, found.start()):
        return None
    return start, start + len(line[start : found.start()].rstrip()), found.end()


def _is_top(line: str) -> bool:
    return line[:1] not in _NOT_TOP


def _level(lines: Sequence[str], top: int) -> int:
    """How far the entries of the section at line `top` stand in."""
    for row in range(top + 1, len(lines)):
        if key_of(lines[row]) is not None:
            return _indent(lines[row])
    return 0


def _indent(line: str) -> int:
    match = _INDENT.match(line)
    return match.end() if match else 0


def _unquoted(text: str) -> str | None:
    import yaml

    try:
        name = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return name if isinstance(name, str) else None
