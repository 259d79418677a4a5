"""What can be copied, and the two ways out: the terminal's own clipboard, and a file for where that does not work."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import FileError
from engine.files.writing import replacing
from rknn_tui.graph.bars import digits
from rknn_tui.graph.layer_values import NOTHING

if TYPE_CHECKING:
    from rknn_tui.bench.bench import Bench
    from rknn_tui.widgets.graph_view import GraphView

CHOICES = "n name  r row  t table  c cfg  l command line"
LARGEST_FOR_TERMINALS = 4096
"""Some terminals drop longer texts without a word."""


def copied_text(bench: Bench, graph: GraphView, choice: str) -> str:
    """The layer's name, its row, the table as shown (tab-separated), the cfg's text, or the headless command line."""
    layer = graph.current
    if choice == "n":
        return layer.name if layer is not None else ""
    if choice == "c":
        return bench.text.text or ""
    if choice == "l":
        return bench.command_line()
    rows = [layer] if choice == "r" and layer is not None else list(graph.shown_layers()) if choice == "t" else []
    lines = [] if choice == "r" else ["index\tname\top\tprecision\tcosine\tsingle\tshape"]
    for one in rows:
        values = graph.values.get(one.name, NOTHING)
        numbers = (digits(values.entire), digits(values.single))
        shape = "x".join(map(str, one.shape))
        lines.append("\t".join((str(one.index), one.name, one.op, values.precision, *numbers, shape)))
    return "\n".join(lines)


def clip_file() -> Path:
    """Where the text that was copied last lies."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "rknn-tui" / "clip.txt"


def sendable(text: str) -> str:
    """The text with a sign for what is in no encoding, such as an undecodable byte of a path."""
    return text.encode(errors="replace").decode()


def _encoded(text: str) -> bytes:
    """The text's bytes, with undecodable ones of paths as they are."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")


def write_clip(text: str) -> Path | None:
    """Write the text to the file for it; None where that cannot be written."""
    path = clip_file()
    with contextlib.suppress(OSError, FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(_encoded(text))
        return path
    return None
