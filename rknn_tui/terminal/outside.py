"""Edits a text in another program, which has the terminal meanwhile."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

from engine.errors import FileError
from engine.files.writing import replacing
from engine.summaries import LARGEST_TEXT
from rknn_tui.bench.dialogue import Notice


def edit_outside(app: App[Any], command: str, name: str, text: str) -> tuple[str, str] | Notice:
    """Have `command` edit `text` in a file called `name`; returns what it wrote, and what is wrong with that, else ''.

    A notice tells why there is nothing: the text stays as it was then.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        return Notice(f"EDITOR={command} is no command: {error}", "error")
    try:
        with tempfile.TemporaryDirectory(prefix="rknn-tui-") as folder:
            path = Path(folder) / name
            with replacing(path) as file:
                file.write(text.encode())
            refusal: Notice | None = None
            with app.suspend():
                # Nothing may be raised in here: the terminal would not be taken back.
                try:
                    code = subprocess.call([*words, str(path)])
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or error
                    refusal = Notice(f"{words[0]} cannot be started: {reason}; the cfg stays as it was", "error")
            if refusal is not None:
                return refusal
            if code:
                ended = f"exit code {code}" if code > 0 else f"signal {-code}"
                return Notice(f"{words[0]} ended with {ended}: the cfg stays as it was", "warning")
            with path.open("rb") as file:
                data = file.read(LARGEST_TEXT + 1)
    except (OSError, ValueError, FileError, SuspendNotSupported) as error:
        reason = getattr(error, "strerror", None) or error
        return Notice(f"what {words[0]} wrote cannot be read: {reason}; the cfg stays as it was", "error")
    if len(data) > LARGEST_TEXT:
        return Notice(f"what {words[0]} wrote is too large: the cfg stays as it was", "error")
    try:
        return data.decode(), ""
    except UnicodeDecodeError as error:
        return data.decode(errors="replace"), f"; from byte {error.start} on it is not UTF-8"
