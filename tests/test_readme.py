"""The README promises only what is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

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


def test_the_script_on_the_typed_api_runs(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The second example, on the bundled model instead of the placeholder names."""
    from engine import demo

    script = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "Session(" in block)
    sample = demo.test_samples()[0][0]
    for old, new in {
        '"model.onnx", inputs=["x"], input_size_list=[[1, 3, 480, 480]]': repr(str(demo.MODEL)),
        "[127.5] * 3": "[127.5]",
        '"dataset.txt"': repr(str(demo.DATASET)),
        '"photo.jpg"': repr(str(sample)),
    }.items():
        assert old in script
        script = script.replace(old, new)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})
    assert (tmp_path / "model.rknn").stat().st_size > 10_000


def test_the_script_for_the_toolkits_calls_runs(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The first example, the same way."""
    import numpy as np

    from engine import demo

    script = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "RKNN(" in block)
    sample = demo.test_samples()[0][0]
    for old, new in {
        'model="model.onnx", inputs=["x"], input_size_list=[[1, 3, 480, 480]]': f"model={str(demo.MODEL)!r}",
        "127.5, 127.5, 127.5": "127.5",
        '"dataset.txt"': repr(str(demo.DATASET)),
        '"photo.jpg"': repr(str(sample)),
    }.items():
        assert old in script
        script = script.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names = {"image": np.zeros((1, 24, 24, 1), np.uint8)}
    exec(compile(script, "README.md", "exec"), names)
    assert names["outputs"][0].shape == (1, 10)
    assert (tmp_path / "snapshot" / "error_analysis.txt").exists()
