"""The devices screen, live: boards come, change, go and come again, and what can be done with the one at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from rknn_tui.bench.boards import Boards
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.screens.devices import DevicesScreen
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from tests.rknn_tui.stand_in import SIZES, User, shown
from tests.rknn_tui.test_boards_watch import Script, board, script

__all__ = ["script"]

FACTS = {
    "chip": "rk3588",
    "board": "Radxa ROCK 5B",
    "system": "Debian 12",
    "machine": "aarch64",
    "runtime": "2.3.2",
    "library": "/usr/lib/librknnrt.so",
    "driver": "0.9.8",
    "python": "3.11.2",
    "interpreter": "/usr/bin/python3",
    "free_memory": 3 << 30,
    "total_memory": 8 << 30,
    "temperature": 41.2,
    "npu_load": [0, 12, 100],
    "folder": "/tmp",
    "free_disk": 1 << 33,
    "npu_hz": 1_000_000_000,
}
READY = board("515e9b401c060c0b", facts=FACTS)
SMALL = board("ssh://root@bench", facts={**FACTS, "chip": "rv1106", "problems": ["there is no Python 3 on it"]})
UNAUTHORISED = board("0123456789ABCDEF", "unauthorized", note="unauthorised: accept the key on the board")
NTB = board("TS018083201100828", "ntb", transport="ntb", note="in NTB mode: models cannot be run on it")


class BenchStandIn:
    """Writes down what is asked of boards."""

    def __init__(self) -> None:
        self.path, self.target = "model.onnx", "rk3588"
        self.search_job = self.running = None
        self.asked: list[tuple[str, str]] = []
        self.board_runs = SimpleNamespace(chosen="", choose=self._choose)
        for what in ("time", "memory", "accuracy"):
            setattr(self.board_runs, what, lambda id, what=what: self.asked.append((what, id)))

    def _choose(self, name: str) -> Reply:
        self.board_runs.chosen = name
        return Notice(f"chosen {name}")

    def cancel(self) -> Reply:
        return Notice("nothing is running")


@asynccontextmanager
async def live(
    script: Script, size: tuple[int, int] = (80, 24), signs: Symbols = UNICODE, bench: Any = None
) -> AsyncIterator[User]:
    async with shown(lambda app: DevicesScreen(app, bench, script.boards), size, signs) as user:
        yield user


def row_of(user: User, name: str) -> str:
    return next((line for line in user.text("rows").split("\n") if name in line), "")


async def test_rows_change_by_themselves_and_rest(script: Script) -> None:
    script.lists(READY, SMALL, UNAUTHORISED, NTB)
    async with live(script, (200, 50)) as user:
        await user.sees("rows", READY["id"])
        words = row_of(user, READY["id"]).split()
        assert words == [
            *(READY["id"], "adb", "ready", "rk3588", "Debian", "12", "2.3.2", "0.9.8", "3,072", "41"),
            *("0", "12", "100", "%"),
        ]
        assert "problem" in row_of(user, SMALL["id"])
        assert "accept the key on the board" in row_of(user, UNAUTHORISED["id"])
        assert "in NTB mode" in row_of(user, NTB["id"])
        assert "4 boards" in user.text("title")
        assert await user.paints() == 0
        script.lists(board(READY["id"], facts={**FACTS, "temperature": 77.0}), UNAUTHORISED)
        await user.sees("rows", " 77 ")
        assert "2 boards" in user.text("title")
        script.lists(READY, board(UNAUTHORISED["id"], facts=FACTS))
        await user.until(lambda: "ready" in row_of(user, UNAUTHORISED["id"]))


async def test_the_cursor_stays_on_its_board_and_goes_back_to_it(script: Script) -> None:
    script.lists(UNAUTHORISED, READY)
    async with live(script) as user:
        await user.sees("rows", READY["id"])
        await user.press("j")
        script.lists(NTB, UNAUTHORISED, READY)
        await user.sees("rows", NTB["id"])
        assert user.screen.board.id == READY["id"]
        script.lists(NTB, UNAUTHORISED)
        await user.until(lambda: not row_of(user, READY["id"]))
        assert user.screen.board.id == UNAUTHORISED["id"]
        script.lists(READY, NTB, UNAUTHORISED)
        await user.sees("rows", READY["id"])
        assert user.screen.board.id == READY["id"]
        script.lists()
        await user.sees("rows", "no board is connected")
        assert user.screen.board is None


async def test_a_reading_draws_its_own_cells_only(script: Script) -> None:
    script.lists(READY, SMALL)
    async with live(script, (200, 50)) as user:
        await user.sees("rows", READY["id"])
        drawn: list[Any] = []
        rows = user.screen.rows
        refresh = rows.refresh
        rows.refresh = lambda *regions, **how: drawn.extend(regions) or refresh(*regions, **how)
        changed = {**FACTS, "temperature": 102.0, "npu_load": [7, 100, 3], "free_memory": 999 << 20}
        script.lists(board(READY["id"], facts=changed), SMALL)
        await user.sees("rows", "102")
        assert [(region.y, region.height) for region in drawn] == [(0, 1)]
        assert drawn[0].width <= 32


async def test_details_tell_all_that_is_known_and_what_to_do(script: Script) -> None:
    script.lists(READY, SMALL, UNAUTHORISED, faults=("ssh is not installed",))
    async with live(script, bench=BenchStandIn()) as user:
        await user.sees("rows", READY["id"])
        assert not user.screen.line("about").display
        await user.press("enter")
        about = " ".join(user.text("about").split())
        for text in ("board Radxa ROCK 5B", "runtime 2.3.2 /usr/lib/librknnrt.so", "3,072 of 8,192 MB", "1000 MHz"):
            assert text in about
        assert "not asked ssh is not installed" in about
        await user.press("j")
        await user.sees("about", "there is no Python 3 on it")
        assert "its chip is rv1106, the model is for rk3588" in user.text("about")
        assert "rv1106!" in row_of(user, SMALL["id"])
        await user.press("j")
        await user.sees("about", "accept the key on the board")
        await user.press("enter")
        assert not user.screen.line("about").display


async def test_faults_and_an_ended_process_say_what_to_do(script: Script) -> None:
    script.lists(faults=("no adb server runs (start it with adb start-server)",))
    async with live(script) as user:
        await user.sees("rows", "adb start-server")
        assert "r asks again" in user.text("rows")
        script.says("!end 1")
        await user.sees("rows", "exit code 1")
        assert "r starts it again" in " ".join(user.text("rows").split())
        script.lists(READY)
        await user.press("r")
        await user.sees("rows", READY["id"])
        script.says("nonsense")
        await user.sees("title", "what watches the boards")
        assert READY["id"] in user.text("rows")


async def test_only_who_looks_has_boards_read(script: Script) -> None:
    async with live(script) as user:
        await user.until(lambda: script.commands == [{"visible": True}])
        user.app.push_screen(DevicesScreen(user.app, None, Boards(["/nonexistent"])))  # type: ignore[arg-type]
        await user.until(lambda: script.commands[1:] == [{"visible": False}])
        user.app.pop_screen()
        await user.until(lambda: script.commands[2:] == [{"visible": True}])


async def test_the_board_under_the_cursor_is_chosen_and_measured(script: Script) -> None:
    bench = BenchStandIn()
    script.lists(READY, SMALL, UNAUTHORISED)
    async with live(script, bench=bench) as user:
        await user.press("P", "space")
        assert "there is no board" in user.text("message") or bench.asked
        await user.sees("rows", READY["id"])
        bench.asked.clear()
        bench.board_runs.chosen = ""
        await user.press("space")
        assert bench.board_runs.chosen == READY["id"]
        assert row_of(user, READY["id"]).startswith("+")
        assert f"runs on {READY['id']}" in user.text("title")
        await user.press("P", "j", "M", "E")
        assert bench.asked == [("time", READY["id"]), ("memory", SMALL["id"]), ("accuracy", SMALL["id"])]
        await user.press("space")
        assert "its chip is rv1106" in user.text("title")
        await user.press("space")
        assert bench.board_runs.chosen == ""
        await user.press("j", "P")
        assert "is not ready: unauthorised: accept" in user.text("message")
        await user.press("space")
        assert bench.board_runs.chosen == ""
        await user.press("x")
        assert "nothing is running" in user.text("message")
        bench.path = ""
        await user.press("k", "P")
        assert "no model is open" in user.text("message")
        assert len(bench.asked) == 3


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int], script: Script) -> None:
    script.lists(*(board(f"{number:016x}", facts=FACTS) for number in range(40)), UNAUTHORISED, NTB, SMALL)
    async with live(script, size, bench=BenchStandIn()) as user:
        await user.sees("rows", SMALL["id"])
        await user.press("G", "enter")
        assert user.fits()
        assert "no Python 3" in "".join(user.lines())
        assert await user.paints() == 0


async def test_names_cannot_command_the_terminal(script: Script) -> None:
    facts = {**FACTS, "system": "\x1b]0;x\x07", "problems": ["\u202e\x1b[2J"]}
    script.lists(board("\x1b[2Jserial", facts=facts), board("two", "\x1b[1m", note="\x9b2J"))
    async with live(script, signs=ASCII) as user:
        await user.sees("rows", "?[2Jserial")
        await user.press("enter")
        assert "?]0;x?" in user.text("about")
        assert all(line.isascii() and line.isprintable() for line in user.lines())
