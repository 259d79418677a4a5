"""Reads a vendor's file as `inspect` and the app do; the process that tries damaged files calls `load`."""

from __future__ import annotations

import json
from pathlib import Path

from engine.cli_vendor import inspected
from engine.errors import FileError
from engine.summaries import to_plain


def load(path: Path) -> None:
    """Read the file and write what it tells, as text and as JSON. Raises FileError."""
    found = inspected(str(path))
    if found is None:
        raise FileError("is not the vendor's", where=str(path))
    document, text = found
    json.dumps(to_plain(document), allow_nan=False).encode("utf-8")
    text.encode("utf-8")
