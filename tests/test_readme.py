"""The README promises only what is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import demo
from engine.config import Config
from rknn_tui.actions import ACTIONS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_key_table_is_the_action_table() -> None:
    listed = re.findall(r"^\| `.*` \| (.*) \|$", README, flags=re.MULTILINE)
    assert [action.description for action in ACTIONS] == [
        text for text in listed if text in {a.description for a in ACTIONS}
    ]


def test_every_setting_is_listed() -> None:
    for field in dataclasses.fields(Config):
        assert f"`{field.name}`" in README


SIZES = 'inputs=["x"], input_size_list=[[1, 3, 480, 480]]'


def run_example(call: str, placeholders: dict[str, str], names: dict[str, Any]) -> dict[str, Any]:
    """Run the example that makes `call` on the bundled model instead of the placeholder names; returns its names."""
    script = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if call in block)
    data = {'"dataset.txt"': repr(str(demo.DATASET)), '"photo.jpg"': repr(str(demo.test_samples()[0][0]))}
    for old, new in {**placeholders, **data}.items():
        assert old in script
        script = script.replace(old, new)
    exec(compile(script, "README.md", "exec"), names)
    return names


def test_the_script_on_the_typed_api_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_example("Session(", {f'"model.onnx", {SIZES}': repr(str(demo.MODEL)), "[127.5] * 3": "[127.5]"}, {})
    assert (tmp_path / "model.rknn").stat().st_size > 10_000


def test_the_script_for_the_toolkits_calls_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    placeholders = {f'model="model.onnx", {SIZES}': f"model={str(demo.MODEL)!r}", "127.5, 127.5, 127.5": "127.5"}
    names = run_example("RKNN(", placeholders, {"image": np.zeros((1, 24, 24, 1), np.uint8)})
    assert names["outputs"][0].shape == (1, 10)
    assert (tmp_path / "snapshot" / "error_analysis.txt").exists()
