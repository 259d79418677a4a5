"""What a person does in the app is done again headless from its journal, to the same edits and the same cosine."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("ends processes by signals", allow_module_level=True)

from engine.cli import main
from engine.journal.entries import read
from tests.rknn_tui.real_app import Place
from tests.rknn_tui.test_app import User


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("config", "state", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    place = Place(tmp_path)
    monkeypatch.chdir(place.models)
    return place


@pytest.fixture
def replayed(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Any]:
    def replayed(journal: Path) -> Any:
        made = place.folder / f"made of {journal.stem}"
        made.mkdir()
        capsys.readouterr()
        assert main(["replay", str(journal), "--json", "-q", "--folder", str(made)], program="rknn-tui") == 0
        return json.loads(capsys.readouterr().out)

    return replayed


async def measured(user: User) -> None:
    await user.until(lambda: user.app.bench.running is None and not user.app.bench.editing.pending)


def held(user: User) -> dict[str, Any]:
    state = user.app.bench.editing.state
    ranges = {row: list(ends) for row, ends in state.ranges.items()}
    return {"wishes": dict(state.wishes), "ranges": ranges, "biases": state.biases}


async def built_and_analysed(user: User) -> None:
    await user.press("b")
    await user.sees("message", "built int8")
    await user.press("a")
    await user.sees("message", "analysed 17 layers")
    await measured(user)


@pytest.mark.slow
async def test_an_hour_with_the_app_is_a_journal_that_comes_to_the_same(
    place: Place, replayed: Callable[[Path], Any]
) -> None:
    async with place.opened() as user:
        await built_and_analysed(user)
        await user.press("semicolon", "1", "0", "j", "V", "j", "V", "f")
        await measured(user)
        await user.press("u", "ctrl+r", "U", "g", "f", "6", "u")
        await measured(user)
        await user.press("R")
        await user.type("-1.5 2")
        await measured(user)
        # By hand, first with a fault.
        await user.press("c")
        await user.until(lambda: user.app.tune.editing_text)
        await user.press("ctrl+home", "down", "end", "enter", *"stem: in")
        await user.until(lambda: user.app.bench.text.faulty)
        await user.press(*"t16")
        await user.until(lambda: not user.app.bench.text.faulty and "stem" in held(user)["wishes"])
        await measured(user)
        await user.press("escape")
        # The engine dies; what was there comes back.
        before = held(user)
        assert user.app.host.pid is not None
        os.kill(user.app.host.pid, signal.SIGKILL)
        await user.sees("message", "ended by SIGKILL")
        await user.press("r")
        await user.sees("message", "built int8")
        await user.until(lambda: held(user) == before)
        await user.press("a")
        await user.sees("message", "analysed 17 layers")
        await measured(user)
        await user.press("w", "enter")
        await user.until(lambda: place.cfg.is_file() and user.app.bench.unsaved == 0)
        await user.press("d")
        await measured(user)
        await user.press("J", "enter")
        await user.sees("message", "replay does it again")
        edits, cosine = held(user), user.app.bench.output_cosine
    for journal in (place.journal, place.models / "digits.replay.jsonl"):
        document = replayed(journal)
        assert document["final"]["edits"] == edits
        assert document["final"]["quality"]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert len(read(place.models / "digits.replay.jsonl")) < len(read(place.journal))
    # The cfg that replay wrote is the one that the app wrote.
    assert (place.folder / "made of digits.rknn-tui" / place.cfg.name).read_text() == place.cfg.read_text()


async def test_a_search_and_its_candidate_are_replayed(place: Place, replayed: Callable[[Path], Any]) -> None:
    async with place.opened() as user:
        await built_and_analysed(user)
        await user.press("A", "enter")
        await user.until(lambda: user.app.bench.tune_report is not None)
        await measured(user)
        await user.press("T")
        await user.until(lambda: user.app.screen is not user.app.tune)
        await user.press("down", "space", "down", "enter")
        await user.until(lambda: bool(held(user)["biases"]))
        await measured(user)
        edits, cosine = held(user), user.app.bench.output_cosine
        assert user.app.bench.text.left is None
    document = replayed(place.journal)
    assert document["final"]["edits"] == edits
    assert document["final"]["quality"]["cosine"] == pytest.approx(cosine, abs=1e-6)
    verbs = [entry.verb for entry in read(place.journal)]
    assert verbs[:4] == ["open", "config", "build", "analyze"]
    assert "tune" in verbs
