"""Whatever keys are pressed: the app goes on, all can be undone, and its journal comes to the same without it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("looks for processes in /proc", allow_module_level=True)

from engine.cli import main
from tests.rknn_tui.random_walk import Walker, edits_of
from tests.rknn_tui.real_app import Place

FAULTS = ("InternalError", "this is a fault of the program", "makes no sense", "the journal misses")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path)
    monkeypatch.chdir(place.models)
    yield place
    place.close()
    assert place.left_over() == []


pytestmark = pytest.mark.slow

# More of them look deeper: RKNN_TUI_WALKS=16 takes some ten minutes.
WALKS = int(os.environ.get("RKNN_TUI_WALKS", "3"))


def seeds(first: int) -> range:
    return range(first, first + WALKS)


@pytest.mark.parametrize("seed", [8, *seeds(20)])
def test_all_that_was_done_can_be_undone_and_replayed(
    place: Place, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    walker = Walker(place, seed)
    walker.walk(100 if seed < 20 else 500)
    found = walker.settle()
    assert not [text for text in found["told"] if any(fault in text for fault in FAULTS)]
    # What is told of the layer under the cursor comes a moment later.
    walker.terminal.read(1.5, 10.0)
    assert walker.terminal.read_for(1.0) == b"", walker.story()

    walker.press("u" * found["steps"])
    walker.press("\x1b")
    undone = walker.settle()
    assert edits_of(undone) == {"wishes": {}, "ranges": {}, "biases": ""}, walker.story()
    assert undone["steps"] == 0
    walker.press("\x12" * found["steps"])
    again = walker.settle()
    assert edits_of(again) == edits_of(found), walker.story()
    if found["built"] != "int8" or not place.journal.exists():
        return
    made = place.folder / "made"
    made.mkdir()
    capsys.readouterr()
    code = main(["replay", str(place.journal), "--json", "-q", "--folder", str(made)], program="rknn-tui")
    replayed = json.loads(capsys.readouterr().out)
    assert code == 0, replayed
    assert replayed["final"]["edits"] == edits_of(again), walker.story()


@pytest.mark.parametrize("seed", [1, *seeds(100)])
def test_an_engine_that_dies_now_and_then_ends_nothing(place: Place, seed: int) -> None:
    walker = Walker(place, seed)
    walker.walk(120 if seed < 100 else 500, harm=True)
    found = walker.settle()
    assert not [text for text in found["told"] if any(fault in text for fault in FAULTS)]
    walker.press("jk")
    assert walker.ask()["screen"] == "TuneScreen", walker.story()


@pytest.mark.parametrize("seed", seeds(200))
def test_a_killed_app_comes_back_with_all_its_edits(place: Place, seed: int) -> None:
    walker = Walker(place, seed)
    walker.walk(80)
    found = walker.settle()
    walker.terminal.read_for(0.1)
    os.kill(walker.terminal.process.pid, signal.SIGKILL)
    walker.terminal.process.wait(10)
    walker.started()
    again = walker.settle()
    if found["unsaved"] and found["built"] == "int8":
        assert edits_of(again) == edits_of(found) | {"biases": ""}, walker.story()
