"""A python that stands for the vendor's environment: it has a stand-in of the toolkit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOUBLES = Path(__file__).parents[2] / "doubles"


def stand_in(folder: Path, version: str = "2.5.0") -> Path:
    """A python in `folder` that finds a stand-in of the toolkit, of this version ('' for none at all)."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    if version:
        (packages / "rknn").symlink_to(DOUBLES / "rknn")
        about = packages / f"rknn_toolkit2-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: {version}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A python with a stand-in of toolkit 2.5.0."""
    return stand_in(tmp_path / "environment")
