"""The README promises only what is so."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cli, demo
from engine.cli_verbs import VERBS
from engine.config import ALGORITHMS, Config
from engine.session import Session
from rknn_tui.actions import ACTIONS
from tests import readme_operators

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


def test_every_operator_is_listed() -> None:
    assert readme_operators.renewed(README) == README, "python -m tests.readme_operators renews the lists"


def test_every_algorithm_and_command_is_told_of() -> None:
    assert all(f"| `{algorithm}` |" in README for algorithm in ALGORITHMS)
    assert all(re.search(rf"\b{verb}\b", README) for verb in VERBS)


def test_the_bundled_models_repair_is_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = README[README.index(" #  layers") :].partition("```")[0]
    assert cli.main(["tune", str(demo.MODEL), "--dataset", str(demo.DATASET), "--std", "255", "-q"]) == 0
    printed = capsys.readouterr().out

    def rows(text: str) -> list[list[str]]:
        return [line.split()[:4] + line.split()[7:] for line in text.splitlines()[2:5]]

    assert rows(printed) == rows(shown)


def run_example(call: str, placeholders: dict[str, str], names: dict[str, Any]) -> dict[str, Any]:
    """Run the example that makes `call` on the bundled model instead of the placeholder names; returns its names."""
    script = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if call in block)
    for old, new in placeholders.items():
        assert old in script
        script = script.replace(old, new)
    for old, path in (("dataset.txt", demo.DATASET), ("photo.jpg", demo.test_samples()[0][0])):
        script = script.replace(f'"{old}"', repr(str(path)))
    exec(compile(script, "README.md", "exec"), names)
    return names


def test_the_script_on_the_typed_api_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_example("Session(", {f'"model.onnx", {SIZES}': repr(str(demo.MODEL)), "[127.5] * 3": "[127.5]"}, {})
    assert (tmp_path / "model.rknn").stat().st_size > 10_000
    run_example("session.live(", {"conv7": "mix", "relu3": "features"}, names)
    assert names["change"].changed
    assert all((tmp_path / name).exists() for name in ("repaired.rknn", "repaired.quantization.cfg", "corrected.onnx"))


def test_the_script_for_the_toolkits_calls_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    placeholders = {f'model="model.onnx", {SIZES}': f"model={str(demo.MODEL)!r}", "127.5, 127.5, 127.5": "127.5"}
    names = run_example("RKNN(", placeholders, {"image": np.zeros((1, 24, 24, 1), np.uint8)})
    assert names["outputs"][0].shape == (1, 10)
    assert (tmp_path / "snapshot" / "error_analysis.txt").exists()


def test_the_script_for_hybrid_quantization_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.MODEL, "model.onnx")
    run_example("hybrid_quantization_step1", {f", {SIZES}": "", "127.5, 127.5, 127.5": "127.5"}, {})
    assert (tmp_path / "model.quantization.cfg").exists()
    assert Session().load("model.rknn").built == "int8"
