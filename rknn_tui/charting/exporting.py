"""Charts as files: as text to read, and as CSV to go on with."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from engine.files.writing import replacing
from rknn_tui.charting.chart import Chart
from rknn_tui.charting.drawing import as_text
from rknn_tui.symbols import UNICODE, Symbols

WIDTH, HEIGHT = 120, 40
"""Of a chart in a file, in characters and lines."""


def as_csv(chart: Chart) -> str:
    """The chart's table as RFC 4180 has it, with a header; numbers as Python writes them, to the last bit."""
    text = io.StringIO()
    csv.writer(text).writerows([chart.header, *chart.rows])
    return text.getvalue()


def export(chart: Chart, folder: str | Path, stem: str, symbols: Symbols = UNICODE) -> tuple[Path, Path]:
    """Write `{stem}.{id}.txt` and `{stem}.{id}.csv` into the folder, over those of an earlier export.

    Raises FileError.
    """
    lines = ("".join(text for text, _ in line).rstrip() for line in as_text(chart, WIDTH, HEIGHT, symbols))
    paths = tuple(Path(folder) / f"{stem}.{chart.id}.{suffix}" for suffix in ("txt", "csv"))
    for path, text in zip(paths, ("".join(f"{line}\n" for line in lines), as_csv(chart)), strict=True):
        with replacing(path) as file:
            file.write(text.encode(errors="replace"))
    return paths[0], paths[1]
