"""The app's process stays small: what the engine needs is loaded by the engine's process only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(module: str, *candidates: str) -> set[str]:
    code = f"import sys, {module}; print(*({set(candidates)!r} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_the_app_loads_no_engine_internals() -> None:
    heavy = ("onnx", "onnxruntime", "onnx_ir", "numpy", "PIL", "engine.session", "engine.graph", "engine.quantization")
    heavy += ("adbutils", "engine.devices.watch", "engine.devices.discovery")
    assert loaded_by("rknn_tui.app, rknn_tui.screens.devices", *heavy) == set()


def test_what_the_app_draws_with_knows_no_widgets() -> None:
    modules = (
        "actions",
        "completion",
        "keymap",
        "settings",
        "graph.bars",
        "graph.columns",
        "graph.filters",
        "graph.lanes",
    )
    for module in (*modules, "bench.dialogue", "bench.bench", "bench.boards", "text.text_buffer"):
        assert loaded_by(f"rknn_tui.{module}", "textual", "textual.app") == set(), module
