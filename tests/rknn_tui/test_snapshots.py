"""What a person sees, as pictures that were looked at and accepted: every screen, at three sizes, with and without
colours."""

from __future__ import annotations

import importlib
import pkgutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rknn_tui
from rknn_tui.bench.job import Job
from rknn_tui.screens.base import WorkScreen
from tests.rknn_tui.snapshot import FOLDER, UPDATE, differs, how_to_accept, picture
from tests.rknn_tui.test_app import keep_settings
from tests.rknn_tui.walking import HeldTimer, Walk, walk

SETTINGS = {"ink": "theme: ink\n", "ascii": "symbols: ascii\n"}
NOW, SECONDS_A_JOB = 1_000.0, 1.2
"""What the clock shows all the time, and for how long each job ran when it ends."""

STATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "loaded": ((), ()),
    "built": (("b", "enter"), ()),
    "analysed": (("a",), ()),
    "edited": (("j", "j", "j", "f", "j", "j", "6"), ()),
    "filtered": (("slash", *"conv cos<.99"), ("escape",)),
    "sorted": (("s", "e"), ("s", "g")),
    "marked": (("g", "j", "m", "j", "j", "V", "j", "j"), ("V", "U")),
    "folded": (("G", "z", "k", "k", "z"), ("Z",)),
    "mistake": (("c", "tab", "ctrl+home", "down", "end", "enter", *"nothing: int8"), ("ctrl+z", *["escape"] * 3)),
    "candidates": (("A", "enter", "T", "k", "space"), ("escape", "u")),
    "findings": (("L",), ("escape",)),
    "compare": (("5", "d", "j"), ("d", "escape")),
    "jobs": (("4", "enter", "l"), ("l", "enter", "escape")),
    "devices": (("3",), ("escape",)),
    "keys": (("question_mark",), ("escape",)),
    "commands": (("colon", *"prec"), ("escape",)),
    "open": (("o",), ("escape",)),
    "difference": (("=",), ("escape",)),
    "saving": (("w",), ("escape",)),
    "leaving": (("q",), ("escape",)),
    "chart-cosine": (("2",), ("escape",)),
    "chart-sources": (("2", "tab"), ("g", "escape")),
    "chart-time": (("2", "tab", "tab"), ("g", "escape")),
    "chart-memory": (("2", "tab", "tab", "tab"), ("g", "escape")),
    "chart-operators": (("2", "tab", "tab", "tab", "tab"), ("g", "escape")),
    "chart-targets": (("2", "G", "k", "k"), ("g", "escape")),
    "chart-candidates": (("2", "G", "k"), ("g", "escape")),
    "target": (("t", "t"), ("t",) * 5),
    "chart-range": (("2", "G"), ("g", "escape")),
}
"""The keys that lead to each state, from an analysed model with two edits or the state before it, and those back."""

START = ("loaded", "built", "analysed", "edited")

PICTURES: dict[tuple[str, str], tuple[str, ...]] = {
    ("80x24", "ansi"): (
        *("loaded", "built", "analysed", "edited", "filtered", "sorted", "marked", "folded", "mistake", "candidates"),
        *("findings", "compare", "jobs", "devices", "keys", "commands", "open", "difference", "saving", "target"),
        "leaving",
    ),
    ("80x24", "ink"): ("edited", "mistake", "candidates", "chart-sources", "chart-targets"),
    ("80x24", "none"): ("edited", "mistake", "keys", "chart-cosine"),
    ("80x24", "ascii"): ("edited", "folded", "candidates", "chart-cosine", "chart-memory"),
    ("120x34", "ansi"): ("analysed", "mistake", "chart-range"),
    ("120x34", "ink"): ("edited", "findings", "jobs"),
    ("120x34", "none"): ("marked", "compare", "chart-memory"),
    ("200x50", "ansi"): ("edited", "mistake", "chart-time", "chart-operators"),
    ("200x50", "ink"): ("candidates", "compare"),
    ("200x50", "none"): ("edited", "candidates", "chart-candidates"),
    ("60x16", "ansi"): ("loaded", "edited", "mistake", "candidates", "devices"),
    ("59x15", "ansi"): ("loaded",),
}
RUNNING = {("80x24", "ansi"), ("120x34", "none")}
MEASURED = {("80x24", "ansi"), ("120x34", "ansi")}


def names() -> list[str]:
    """The pictures that this module takes."""
    taken = [f"{state}-{size}-{look}" for (size, look), states in PICTURES.items() for state in states]
    taken += [f"running-{size}-{look}" for size, look in RUNNING]
    return [*taken, *(f"measured-{size}-{look}" for size, look in MEASURED)]


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    """Nothing that a picture shows depends on the time, the folder, or what else runs on this machine."""
    monkeypatch.chdir(model_folder)
    for name in ("digits.onnx", "detector.onnx"):
        (model_folder / name).touch()
    clock = SimpleNamespace(**vars(time))
    clock.monotonic, clock.time = (lambda: NOW), (lambda: NOW)
    clock.strftime = lambda text: time.strftime(text, time.gmtime(NOW))
    for module in pkgutil.walk_packages(rknn_tui.__path__, "rknn_tui."):
        if not module.name.endswith("__main__") and hasattr(importlib.import_module(module.name), "time"):
            monkeypatch.setattr(f"{module.name}.time", clock)
    begin = Job.__init__

    def begun(job: Job, *arguments: Any, **named: Any) -> None:
        begin(job, *arguments, **{"started": NOW - SECONDS_A_JOB, **named})

    monkeypatch.setattr(Job, "__init__", begun)

    def at_once(screen: WorkScreen, seconds: float, callback: Any) -> HeldTimer:
        screen.call_later(callback)
        return HeldTimer(seconds, callback)

    monkeypatch.setattr(WorkScreen, "set_timer", at_once)


def looks(look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if look == "none":
        monkeypatch.setenv("NO_COLOR", "1")
    elif look in SETTINGS:
        keep_settings(SETTINGS[look])


def sized(size: str) -> tuple[int, int]:
    width, height = size.split("x")
    return int(width), int(height)


def ready_to_look_at(screen: Any) -> bool:
    """Whether a screen that asks another process shows what it heard from it."""
    return not hasattr(screen, "boards") or bool(screen._listing.heard)


async def presses(user: Walk, keys: tuple[str, ...]) -> None:
    for key in keys:
        # On wide terminals the text stands beside the graph, and is gone to.
        if key != "tab" or not user.app.tune.editing_text:
            await user.does(key)
        screen: Any = user.app.screen
        await user.until(lambda screen=screen: ready_to_look_at(screen))  # type: ignore[misc]
    await user.rests()


@pytest.mark.parametrize(("size", "look"), list(PICTURES))
async def test_what_a_person_sees(
    engine_command: list[str], size: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(look, monkeypatch)
    wanted = PICTURES[size, look]
    changed = []
    async with walk(engine_command, Path("graph-60.onnx"), size=sized(size)) as user:
        for state in (*START, *(state for state in wanted if state not in START)):
            there, back = STATES[state]
            await presses(user, there)
            if state in wanted:
                changed.append(differs(f"{state}-{size}-{look}", picture(user.app)))
            await presses(user, back)
            if wanted[-1] == state:
                break
    changed = [text for text in changed if text]
    assert not changed, "\n\n".join([*changed, how_to_accept("tests/rknn_tui/test_snapshots.py")])


@pytest.mark.parametrize(("size", "look"), sorted(RUNNING))
async def test_what_a_person_sees_while_a_search_runs(
    engine_command: list[str], size: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(look, monkeypatch)
    async with walk(engine_command, Path("graph-60-long.onnx"), "b", "enter", "a", size=sized(size)) as user:
        user.holding = True
        await user.does("j", "f", "A", "enter", "4")
        await user.until(lambda: user.app.bench.running is not None and user.app.bench.running.total == 3)
        await user.does("1", "4")
        changed = differs(f"running-{size}-{look}", picture(user.app))
    assert not changed, "\n\n".join([changed, how_to_accept("tests/rknn_tui/test_snapshots.py")])


@pytest.mark.parametrize(("size", "look"), sorted(MEASURED))
async def test_what_a_person_sees_of_what_a_board_told(
    engine_command: list[str], size: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks(look, monkeypatch)
    async with walk(engine_command, Path("graph-60.onnx"), "b", "enter", "a", size=sized(size)) as user:
        runs = user.app.bench.board_runs
        for ask in (runs.time, runs.accuracy):
            user.app.tune.tell(ask("515e9b401c060c0b"))
            await user.until(lambda: user.app.bench.running is None)
        await presses(user, ("j",) * 5)
        changed = differs(f"measured-{size}-{look}", picture(user.app))
    assert not changed, "\n\n".join([changed, how_to_accept("tests/rknn_tui/test_snapshots.py")])


def test_every_picture_in_the_folder_is_one_that_is_taken() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(names())


def test_another_text_and_another_look_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UPDATE, raising=False)
    taken = (FOLDER / "edited-80x24-ansi.txt").read_text(encoding="utf-8")
    assert differs("edited-80x24-ansi", taken) == ""
    assert "-24| space type" in differs("edited-80x24-ansi", taken.replace("24| space", "24| enter"))
    assert "+1: 1-13 dim" in differs("edited-80x24-ansi", taken.replace("\n1: 1-13 bold", "\n1: 1-13 dim"))
    assert "accepted" in differs("another", taken)
