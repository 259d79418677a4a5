"""Finds the folder of real models that some tests run on, and skips those tests with a reason where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("RKNN_TUI_ZOO", Path(__file__).resolve().parents[2] / "shared" / "zoo"))

needs_zoo = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no folder of real models at {FOLDER}; set RKNN_TUI_ZOO to one"
)


def onnx_models() -> list[Path]:
    """Every ONNX model of the zoo; empty where there is no zoo."""
    return sorted(FOLDER.glob("onnx/*/*.onnx"))
