"""The process that watches boards, seen from the app: what it tells, what it is told, and that it ends."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rknn_tui.bench import boards as boards_module
from rknn_tui.bench.boards import MAX_LINE_BYTES, MOST_FAULTS, Boards

WATCH = Path(__file__).with_name("scripted_watch.py")


def board(name: str, state: str = "device", **told: Any) -> dict[str, Any]:
    return {"id": name, "transport": "adb", "state": state, **told}


class Script:
    """A process that tells what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boards = Boards([sys.executable, "-S", str(WATCH), str(folder)])

    def says(self, *lines: str | bytes) -> None:
        with (self.folder / "lines").open("ab") as file:
            file.writelines((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)

    def lists(self, *some: dict[str, Any], faults: tuple[str, ...] = ()) -> None:
        self.says(json.dumps({"boards": some, "faults": faults}))

    @property
    def commands(self) -> list[dict[str, Any]]:
        path = self.folder / "commands"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    folder = tmp_path / "watch"
    folder.mkdir()
    script = Script(folder)
    yield script
    script.boards.end()


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_starts_when_somebody_looks_and_is_told_who_does(script: Script) -> None:
    boards = script.boards
    boards.look(False)
    assert boards.pid is None
    boards.look(True)
    boards.look(False)
    boards.refresh()
    until(lambda: len(script.commands) == 3)
    assert script.commands == [{"visible": True}, {"visible": False}, {"refresh": True}]


def test_what_makes_no_sense_is_told_and_leaves_the_rest(script: Script) -> None:
    boards = script.boards
    script.lists(board("one"), board("one"), board("two", "offline", facts={"npu_load": [1, 2]}))
    boards.look(True)
    until(lambda: boards.listing.boards)
    assert [one.id for one in boards.listing.boards] == ["one", "two"]
    bad = [b"\xff", "[]", '{"boards": 3}', '{"boards": [{"id": 1}], "faults": []}', "[" * 5000, "x" * MAX_LINE_BYTES]
    for number, line in enumerate(bad, 1):
        script.says(line, line)
        until(lambda number=number: len(boards.listing.faults) == number)  # type: ignore[misc]
        assert [one.id for one in boards.listing.boards] == ["one", "two"]
    assert all("makes no sense" in fault and len(fault) < 300 for fault in boards.listing.faults)
    script.lists(faults=tuple(map(str, range(100))))
    until(lambda: not boards.listing.boards)
    assert len(boards.listing.faults) == MOST_FAULTS


def test_a_dead_process_is_told_of_and_started_again_on_demand(script: Script) -> None:
    boards = script.boards
    heard: list[str] = []
    boards.changed = lambda: heard.append(boards.listing.ended)
    script.lists(board("one"))
    boards.look(True)
    until(lambda: boards.listing.boards)
    script.says("!end 3")
    until(lambda: boards.listing.ended)
    assert "exit code 3" in heard[-1]
    assert not boards.alive
    boards.look(False)
    boards.look(True)
    assert not boards.alive, "looking again does not start it over and over"
    script.lists(board("two"))
    boards.refresh()
    until(lambda: [one.id for one in boards.listing.boards] == ["two"])
    assert not boards.listing.ended


@pytest.mark.parametrize("deaf", [False, True])
def test_it_ends_with_the_app_also_where_it_hangs(script: Script, deaf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards_module, "SECONDS_TO_END", 0.2 if deaf else 10.0)
    script.says(*["!deaf"] * deaf)
    script.lists(board("one"))
    script.boards.look(True)
    until(lambda: script.boards.listing.boards)
    pid = script.boards.pid
    assert pid is not None and runs(pid)
    script.boards.end()
    assert not runs(pid)
    assert script.boards.pid is None
    script.boards.end()


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    boards = Boards([str(tmp_path / "missing")])
    boards.look(True)
    assert "cannot be started: No such file" in boards.listing.ended
    assert not boards.alive
