"""Tables, shapes and names as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

NAME_CELLS = 60
"""The most that a layer's name takes of a table."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those listed in `numbers` are set to the right."""
    cells = [list(headers), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def printable(text: str) -> str:
    """`text` without characters that would move a terminal's cursor: model files choose their own names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(name: str, cells: int = NAME_CELLS) -> str:
    """The end of a long name, which is the part that tells layers of one block apart."""
    return name if len(name) <= cells else "…" + name[1 - cells :]


def shape_text(shape: Sequence[int | str]) -> str:
    """`1x3x48x192`; `scalar` for no dimensions."""
    return "x".join(str(size) for size in shape) or "scalar"


def counted(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
