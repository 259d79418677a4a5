"""What changed between two texts: the smallest replacement, and the lines that differ."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

BREAKS = "\n\r\x85\u2028\u2029"
"""The characters that end a line in YAML; a carriage return and a newline together end one line."""

_LINE = re.compile(f"[^{BREAKS}]*(?:\r\n|[{BREAKS}])|[^{BREAKS}]+")
# Comparing two runs of lines takes time as their product: this many pairs take some 10 ms.
_MOST_PAIRS = 40_000
# Each level of anchors reads all lines that are left once; real texts need two or three.
_MOST_LEVELS = 12

Block = tuple[int, int, int, int]
"""Lines start to end of the old text, and start to end of the new one that stand in their place, from 0."""


def split_lines(text: str) -> list[str]:
    """The lines of `text`, counted as YAML does, each with its break; the last one has none and may be empty."""
    lines = _LINE.findall(text)
    if not lines or lines[-1][-1] in BREAKS:
        lines.append("")
    return lines


def smallest_change(old: str, new: str) -> tuple[int, int, str]:
    """(start, end, replacement): `old[:start] + replacement + old[end:]` is `new`, with little replaced."""
    start = _same(old, new, min(len(old), len(new)), from_end=False)
    rest = _same(old, new, min(len(old), len(new)) - start, from_end=True)
    return start, len(old) - rest, new[start : len(new) - rest]


def changed_lines(old: str, new: str) -> list[tuple[str, int, str]]:
    """What to take out of `old` ('-') and put in ('+') to get `new`: (sign, line number, line without its break).

    Numbers count from 1, in the old text for '-' and in the new one for '+'. In a place where both are, what is taken
    out comes first. Lines that only differ in their break are changed too.
    """
    before, after = split_lines(old), split_lines(new)
    changes: list[tuple[str, int, str]] = []
    for start, end, new_start, new_end in changed_blocks(before, after):
        changes += [("-", row + 1, before[row].rstrip(BREAKS)) for row in range(start, end) if before[row]]
        changes += [("+", row + 1, after[row].rstrip(BREAKS)) for row in range(new_start, new_end) if after[row]]
    return changes


def changed_blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[Block]:
    """Where two sequences of lines differ, in order.

    Lines that each have once tie them together, as in a patience diff; only between two such lines are the others
    compared with each other, and only while that is quick.
    """
    waiting = [(0, len(old), 0, len(new), 0)]
    while waiting:
        start, end, new_start, new_end, level = waiting.pop()
        while start < end and new_start < new_end and old[start] == new[new_start]:
            start, new_start = start + 1, new_start + 1
        while start < end and new_start < new_end and old[end - 1] == new[new_end - 1]:
            end, new_end = end - 1, new_end - 1
        block = start, end, new_start, new_end
        if start == end or new_start == new_end:
            if start < end or new_start < new_end:
                yield block
            continue
        in_place = _in_place(old, new, block)
        if in_place is not None:
            yield from in_place
            continue
        ties = _ties(old, new, block) if level < _MOST_LEVELS else []
        if not ties:
            yield from _compared(old, new, block)
            continue
        bounds = [(start - 1, new_start - 1), *ties, (end, new_end)]
        gaps = [(a + 1, c, b + 1, d, level + 1) for (a, b), (c, d) in pairwise(bounds)]
        waiting += reversed(gaps)


def _same(old: str, new: str, most: int, *, from_end: bool) -> int:
    # Halving compares slices in C: reading characters one by one takes seconds where this takes milliseconds.
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if from_end:
            same = old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]
        else:
            same = old[low:middle] == new[low:middle]
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def _in_place(old: Sequence[str], new: Sequence[str], block: Block) -> list[Block] | None:
    """The blocks where lines were changed one for one, as when numbers get other values; None where they were not."""
    start, end, new_start, new_end = block
    if end - start != new_end - new_start:
        return None
    changed = [row for row in range(end - start) if old[start + row] != new[new_start + row]]
    if 2 * len(changed) > end - start:
        return None
    blocks: list[Block] = []
    for row in changed:
        if blocks and blocks[-1][1] == start + row:
            blocks[-1] = (blocks[-1][0], start + row + 1, blocks[-1][2], new_start + row + 1)
        else:
            blocks.append((start + row, start + row + 1, new_start + row, new_start + row + 1))
    return blocks


def _ties(old: Sequence[str], new: Sequence[str], block: Block) -> list[tuple[int, int]]:
    """The longest rising chain of pairs of lines that both texts have once."""
    start, end, new_start, new_end = block
    places, new_places = _once(old, start, end), _once(new, new_start, new_end)
    pairs = [(row, new_places[line]) for line, row in places.items() if line in new_places]
    # Patience sorting: `last` holds the pair that ends the best chain of each length, `before` the one it follows.
    last: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (_, row) in enumerate(pairs):
        length = bisect_left(ends, row)
        before.append(last[length - 1] if length else -1)
        last[length : length + 1] = [number]
        ends[length : length + 1] = [row]
    chain: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _once(lines: Sequence[str], start: int, end: int) -> dict[str, int]:
    places: dict[str, int] = {}
    for row in range(start, end):
        places[lines[row]] = -1 if lines[row] in places else row
    return {line: row for line, row in places.items() if row >= 0}


def _compared(old: Sequence[str], new: Sequence[str], block: Block) -> list[Block]:
    start, end, new_start, new_end = block
    if (end - start) * (new_end - new_start) > _MOST_PAIRS:
        return [block]
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(None, old[start:end], new[new_start:new_end], autojunk=False)
    return [
        (start + a, start + b, new_start + c, new_start + d)
        for tag, a, b, c, d in matcher.get_opcodes()
        if tag != "equal"
    ]
