"""Every test of the app has its own settings and state folders, and an engine that follows a script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rknn_tui.bench import boards

WATCH = [sys.executable, "-S", str(Path(__file__).with_name("scripted_watch.py"))]
ENGINE = [sys.executable, str(Path(__file__).with_name("scripted_engine.py"))]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    # The boards of whoever runs the tests are nothing to them.
    monkeypatch.setattr(boards, "own_command", lambda: WATCH)
    for name in ("LC_ALL", "LC_CTYPE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def engine_command() -> list[str]:
    return ENGINE


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder with a dataset of one sample beside the models that a test names."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "dataset.txt").write_text("# calibration\n\nimages/a.npy\nimages/b.npy\n")
    (folder / "images").mkdir()
    (folder / "images" / "a.npy").touch()
    return folder
