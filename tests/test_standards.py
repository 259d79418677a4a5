"""The code's own rules: formatting, lint, types, and which package may import which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "ruff", "format", "--check", "."], id="formatting"),
        pytest.param(["-m", "ruff", "check", "."], id="lint"),
        pytest.param(["-m", "mypy"], id="types"),
        pytest.param(["-c", "from importlinter.cli import lint_imports_command as main; main()"], id="imports"),
    ],
)
def test_the_code_keeps_its_own_rules(command: list[str]) -> None:
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


FORBIDDEN_AT_START = "numpy onnx onnx_ir onnxruntime textual rich PIL yaml"


@pytest.mark.parametrize("module", ["rknn_tui", "engine"])
def test_asking_for_help_loads_nothing_heavy(module: str) -> None:
    script = (
        f"import runpy, sys\nsys.argv = [{module!r}, '--help']\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__')\n"
        f"except SystemExit as end:\n    assert not end.code, end.code\n"
        f"found = [m for m in {FORBIDDEN_AT_START.split()!r} if m in sys.modules]\nassert not found, found"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "usage" in run.stdout.lower()


def test_the_engine_never_loads_the_user_interface() -> None:
    script = (
        "import sys, engine.session, engine.api, engine.cli, engine.host\n"
        "found = [m for m in ('textual', 'rich', 'rknn_tui') if m in sys.modules]\nassert not found, found"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
