"""Writes what the screen shows as an SVG file."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from textual.app import App

from engine.files.writing import replacing


def write_screenshot(app: App[Any], title: str, folder: Path) -> Path:
    """Write the current screen into `folder` and return the file's path. Raises FileError.

    The drawing names no font to be fetched: whoever looks at it sees their own monospace font. Blanks are kept by every
    viewer: some drop those at the start of a text, and the columns with them.
    """
    svg = re.sub(r"@font-face\s*\{[^}]*\}\s*", "", app.export_screenshot(title=title))
    svg = svg.replace("<text ", '<text xml:space="preserve" ')
    name = re.sub(r"[^\w.-]", "_", title)
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.svg"
    with replacing(path) as file:
        # The name of a model's file may hold undecodable bytes.
        file.write(svg.encode(errors="replace"))
    return path
