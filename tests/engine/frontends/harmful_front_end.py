"""A front end that does the harm that a file asks for, to show that it is noticed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine.errors import ModelError

_MEMORY = 1100 << 20


def load(path: Path) -> None:
    """Do what the file says: 'load', 'refuse', 'raise', 'abort', 'wait', 'compute' or 'grow'."""
    wish = path.read_text(encoding="utf-8")
    if wish == "refuse":
        raise ModelError("is refused", where=str(path))
    if wish == "raise":
        raise KeyError(wish)
    if wish == "abort":
        os.abort()
    if wish == "wait":
        time.sleep(60)
    while wish == "compute":
        pass
    if wish == "grow":
        bytearray(b"x") * _MEMORY
