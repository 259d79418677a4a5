"""The command that starts another process of this program."""

from __future__ import annotations

import sys
from pathlib import Path


def own_command(module: str) -> list[str]:
    """What calls `main()` of a module of ours, such as 'engine.host', in a Python of its own."""
    # Not `-m`: that would put the current folder first on the path, and a folder of models is not to be trusted with
    # a numpy.py. The package's own folder comes last, for a checkout that is not installed.
    home = str(Path(__file__).resolve().parents[1])
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; "
        f"sys.path += [{home!r}] * ({home!r} not in sys.path); "
        f"from {module} import main; main()"
    )
    return [sys.executable, "-c", code]
