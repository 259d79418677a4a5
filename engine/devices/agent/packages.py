"""Which version of a Python package is installed, without importing it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path


def version_of(package: str) -> str:
    """The version by the folder of the package's metadata, which lies beside it; '?' without one, '' for no package.

    Variants under another name ('onnxruntime-gpu') count: they bring the same module.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.origin:
        return ""
    metadata = re.compile(rf"{re.escape(package)}(?:_\w+)?-(\d[^-]*)\.(?:dist-info|egg-info)")
    try:
        names = sorted(one.name for one in Path(found.origin).parent.parent.iterdir())
    except OSError:
        return "?"
    versions = [match.group(1) for match in map(metadata.fullmatch, names) if match]
    return versions[-1] if versions else "?"
