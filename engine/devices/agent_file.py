"""The agent as one file, as it is sent to a board."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import zipfile

PACKAGE = "board_agent"
"""What the agent's package is called inside the file."""

_MAIN = f"import sys\n\nfrom {PACKAGE}.__main__ import main\n\nsys.exit(main())\n"
# A board's Python may have no zlib, and the oldest time of the format makes the file the same every time.
_TIME = (1980, 1, 1, 0, 0, 0)


@functools.cache
def agent_file() -> bytes:
    """A zip file that Python runs: the modules of `engine.devices.agent`, the same bytes each time."""
    folder = importlib.resources.files("engine.devices.agent")
    modules = {
        f"{PACKAGE}/{one.name}": one.read_bytes()
        for one in sorted(folder.iterdir(), key=lambda one: one.name)
        if one.name.endswith(".py")
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, code in {"__main__.py": _MAIN.encode(), **modules}.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), code)
    return content.getvalue()


@functools.cache
def agent_digest() -> str:
    """The SHA-256 of the agent's file, in hexadecimal."""
    return hashlib.sha256(agent_file()).hexdigest()
