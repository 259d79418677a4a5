"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in an empty folder, and gives what it printed; it must end with this exit code.

    Where it fails and prints nothing, that is its error.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert cli.main([*words, "-q"], program="rknn-tui") == code, capsys.readouterr()
        out, err = capsys.readouterr()
        return err if code and not out else out

    return run
