"""The environment of the vendor's toolkit: where it is looked for, what is said of it, and how it is made."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from engine.compiler import environment
from engine.compiler.environment import check_machine, check_versions, default_folder, find_python, install, status
from engine.compiler.errors import CompilerError
from engine.errors import Cancelled
from engine.progress import Progress
from tests.engine.compiler.conftest import stand_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the vendor's toolkit runs on Linux")

# A python that only notes what it is asked; its `venv` is a copy of itself, and its pip does what PIP_DOUBLE says.
_SCRIPT = """#!/bin/sh
echo "$@" >>"{log}"
case "$*" in
  "-m venv"*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
  *"pip install"*) eval "$PIP_DOUBLE" ;;
  "-c"*) echo "{version}" ;;
  *) PYTHONPATH="{packages}" exec "{python}" "$@" ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A python whose venv holds the stand-in of the toolkit."""
    monkeypatch.setattr(environment, "check_machine", lambda system, machine: None)
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setenv("PIP_DOUBLE", "true")
    return written(tmp_path, "3 11")


def written(folder: Path, version: str) -> Path:
    stand_in(folder / "environment")
    python = folder / "fake-python"
    packages = folder / "environment" / "packages"
    text = _SCRIPT.format(log=folder / "log.txt", version=version, packages=packages, python=sys.executable)
    python.write_text(text)
    python.chmod(0o755)
    return python


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "log.txt").read_text().splitlines()


def test_lives_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "rknn-tui" / "compiler"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_folder() == Path.home() / ".local/share/rknn-tui/compiler"


def test_a_python_of_the_users_own_is_used_instead(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(python))
    assert find_python() == python
    found = status()
    assert found.versions["rknn-toolkit2"] == "2.5.0" and not found.problem
    monkeypatch.setenv(environment.VARIABLE, "/nowhere/python")
    with pytest.raises(CompilerError, match=environment.VARIABLE):
        find_python()


def test_status_of_nothing_names_the_step_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    found = status(tmp_path / "none")
    assert "not installed" in found.problem and "rknn-tui compiler install" in found.hint


@pytest.mark.parametrize(("version", "problem"), [("1.6.0", "too old"), ("", "no rknn-toolkit2")])
def test_status_tells_a_toolkit_that_cannot_be_used(
    version: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(stand_in(tmp_path / "other", version)))
    found = status()
    assert problem in found.problem and found.hint


def test_versions_are_compared_as_numbers() -> None:
    assert check_versions({"rknn-toolkit2": "2.10.1"}) == "2.10.1"
    with pytest.raises(CompilerError, match="too old"):
        check_versions({"rknn-toolkit2": "2.2.0"})


def test_installs_once_with_pins_and_tells_its_progress(fake: Path, tmp_path: Path) -> None:
    folder, stages = tmp_path / "data", list[str]()
    found = install(folder, str(fake), progress=Progress(lambda stage, done, total: stages.append(stage)))
    assert not found.problem and found.versions["rknn-toolkit2"] == "2.5.0"
    pips = [line for line in asked(tmp_path) if "pip install" in line]
    assert "rknn-toolkit2==2.5.0" in pips[-1] and "onnx==1.18.0" in pips[-1]
    assert "torch==" in pips[-1]
    assert any("rknn-toolkit2" in stage for stage in stages)
    install(folder, str(fake))
    assert [line for line in asked(tmp_path) if "pip install" in line] == pips


def test_an_install_that_failed_says_so_and_can_be_run_again(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("PIP_DOUBLE", 'echo "ERROR: No matching distribution found for rknn-toolkit2"; exit 1')
    with pytest.raises(CompilerError, match="No matching distribution found") as caught:
        install(folder, str(fake))
    assert caught.value.where == str(folder / "install.log")
    assert "only in part" in status(folder).problem
    monkeypatch.setenv("PIP_DOUBLE", "true")
    assert not install(folder, str(fake)).problem


def test_an_install_that_is_cancelled_ends_at_once_and_can_be_run_again(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("PIP_DOUBLE", "sleep 60")
    begun = time.monotonic()
    progress = Progress(None, lambda: time.monotonic() > begun + 1)
    with pytest.raises(Cancelled):
        install(folder, str(fake), progress=progress)
    assert time.monotonic() < begun + 10
    assert "only in part" in status(folder).problem
    monkeypatch.setenv("PIP_DOUBLE", "true")
    assert not install(folder, str(fake)).problem


def test_looks_at_the_disk_before_it_begins(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 4 << 30})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(CompilerError, match=r"needs 9 GB, and there are 4.0") as caught:
        install(tmp_path / "data", str(fake))
    assert "--folder" in caught.value.hint and "--pip-option" in caught.value.hint
    assert not any("pip install" in line for line in asked(tmp_path))


def test_refuses_a_python_and_a_machine_that_there_are_no_wheels_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for system, machine in (("Darwin", "arm64"), ("Linux", "riscv64"), ("Windows", "AMD64")):
        with pytest.raises(CompilerError, match="no wheels"):
            check_machine(system, machine)
    monkeypatch.setattr(environment, "check_machine", lambda system, machine: None)
    with pytest.raises(CompilerError, match=r"Python 3\.14") as caught:
        install(tmp_path / "data", str(written(tmp_path, "3 14")))
    assert "--python" in caught.value.hint
    with pytest.raises(CompilerError, match="cannot be run"):
        install(tmp_path / "data", str(tmp_path / "no-python"))
