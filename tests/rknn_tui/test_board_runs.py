"""What is measured on boards: asked beside edits, kept through failures, told as old after an edit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rknn_tui.bench.dialogue import Notice
from rknn_tui.bench.job_records import CANCELLED, DONE, FAILED
from rknn_tui.bench.project import beside, load
from rknn_tui.charting.builders import CHARTS
from rknn_tui.screens.tune import TuneScreen
from tests.rknn_tui.test_app import User, opened
from tests.rknn_tui.test_tune_screen import analysed

BOARD = "515e9b401c060c0b"
WIDE = (200, 50)


@asynccontextmanager
async def measured(engine: list[str], folder: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[User]:
    """An analysed model of 40 layers with times and cosines of a board."""
    async with analysed(engine, folder, size) as user:
        runs = user.app.bench.board_runs
        runs.choose(BOARD)
        user.app.tune.tell(runs.time())
        user.app.tune.tell(runs.accuracy())
        await user.until(lambda: runs.report is not None, lambda: user.text("message"))
        yield user


def column(user: User, id: str, row: int) -> str:
    """A cell of the table; '' where there is no such column."""
    found = next((one for one in user.app.tune.graph._columns if one.id == id), None)
    return user.row(row)[found.start - 2 :][: found.width].strip() if found is not None else ""


def message(user: User) -> str:
    return " ".join(user.text("message").split())


async def test_times_and_cosines_of_a_board_stand_beside_the_estimates(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, model_folder) as user:
        assert "board" not in user.text("header")
        estimates = column(user, "time", 7)
        user.app.bench.board_runs.choose(BOARD)
        user.app.tune.perform("board_time")
        await user.sees("message", f"measured on {BOARD}: median 3.210 ms, p95 3.456 ms, 3.100 to 3.500 ms in 10 runs")
        assert column(user, "measured", 7) == "0.114"
        user.app.tune.tell(user.app.bench.board_runs.time("local"))
        await user.sees("message", "measured on local's CPU: median 3.210 ms")
        assert user.says("message", "; ' shows 1 note")
        assert user.says("status", "3.210 ms measured CPU"), "that is no time of the NPU"
        assert user.app.tune.notices[-2].text == "it has no binary for rk3588"
        assert column(user, "time", 7) == estimates, "an estimate stays one"
        assert user.says("status", "ms est")
        assert "~ms" in user.text("header").split() and "ms" in user.text("header").split()
        assert column(user, "measured", 2) == "", "the runtime's table has no line of it"
        user.app.tune.perform("board_accuracy")
        await user.sees("message", f"on {BOARD}: 39 of 40 layers compared; output cosine 0.98765 against the float")
        assert column(user, "board", 5) == "0.91000"
        assert column(user, "board", 6) == "0.99995"
        assert column(user, "board", 2) == ""
        assert [job.state for job in user.app.bench.jobs[-2:]] == [DONE, DONE]


async def test_after_an_edit_numbers_are_old_until_it_is_taken_back(
    engine_command: list[str], model_folder: Path
) -> None:
    async with measured(engine_command, model_folder) as user:
        runs = user.app.bench.board_runs
        assert not runs.stale
        await user.press("j", "f")
        assert runs.stale
        assert "old ms" in user.text("header")
        assert column(user, "measured", 7) == "0.114", "nothing goes with an edit"
        assert column(user, "board", 5) == "~0.9100"
        await user.press("u")
        assert not runs.stale
        assert "old ms" not in user.text("header")
        assert column(user, "board", 5) == "0.91000"
        await user.press("f")
        user.app.tune.tell(runs.time())
        await user.until(lambda: not runs.old(runs.timed))
        assert runs.old(runs.compared), "each measurement is of its own edits"
        await user.press("b", "y", "enter")
        await user.until(lambda: runs.old(runs.timed), lambda: user.text("message"))
        assert runs.perf is not None, "another build"


@pytest.mark.slow
async def test_edits_while_it_runs_are_not_what_is_measured(engine_command: list[str], model_folder: Path) -> None:
    async with analysed(engine_command, model_folder) as user:
        runs = user.app.bench.board_runs
        runs.time(BOARD)
        await user.press("j", "f")
        await user.until(lambda: runs.perf is not None)
        assert runs.old(runs.timed)
        await user.press("u")
        assert not runs.old(runs.timed)


async def test_a_measurement_can_be_cancelled_and_edits_go_on_beside_it(
    engine_command: list[str], model_folder: Path
) -> None:
    async with measured(engine_command, model_folder) as user:
        bench, runs = user.app.bench, user.app.bench.board_runs
        before = runs.timed
        user.app.tune.tell(runs.time("hanging"))
        await user.until(lambda: bench.running is not None and bench.running.stage == "run")
        assert bench.running is not None and bench.running.progress == "run 25%"
        await user.press("j", "f")
        await user.sees("status", "*1")
        user.app.tune.tell(runs.memory())
        assert message(user) == "memory on the board waits for time on the board"
        await user.press("x")
        await user.sees("message", "time on the board: cancelled")
        assert bench.running is None, "what waited is dropped with it"
        assert bench.jobs[-1].state == CANCELLED
        assert runs.timed is before


async def test_a_lost_board_says_what_to_do_and_what_was_measured_stays(
    engine_command: list[str], model_folder: Path
) -> None:
    async with measured(engine_command, model_folder) as user:
        runs = user.app.bench.board_runs
        before = runs.timed, runs.compared
        for ask in (runs.time, runs.memory, runs.accuracy):
            user.app.tune.tell(ask("lost"))
            await user.sees("message", "lost: the board is gone (plug it in again)")
            user.app.tune.drop_message()
            assert user.app.bench.jobs[-1].state == FAILED
        assert (runs.timed, runs.compared) == before
        assert column(user, "measured", 7) == "0.114"
        user.app.tune.tell(runs.memory())
        await user.sees("message", f"on {BOARD} the model takes 4.0M: 3.0M weights, 1.0M between layers")


@pytest.mark.slow
async def test_without_a_model_a_build_or_a_board_it_says_what_to_do(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        runs = user.app.bench.board_runs
        for ask in (runs.time, runs.memory, runs.accuracy):
            reply = ask(BOARD)
            assert reply == Notice("nothing is built yet: b quantizes to int8, F builds in float16", "warning")
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        for action in ("board_time", "board_memory", "board_accuracy"):
            user.app.tune.perform(action)
            assert message(user) == "no board is chosen: 3 lists the boards, space chooses one there"
            user.app.tune.drop_message()
    async with opened(engine_command, model_folder / "broken.onnx") as user:
        reply = user.app.bench.board_runs.time(BOARD)
        assert isinstance(reply, Notice) and reply.text.startswith("no model is loaded")


@pytest.mark.slow
async def test_the_sample_is_asked_for_where_none_is_known(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        bench = user.app.bench
        await user.press("F")
        await user.sees("message", "built float16")
        user.app.tune.tell(bench.board_runs.accuracy(BOARD))
        await user.sees("message", "sample to analyse")
        await user.type(str(model_folder / "images" / "a.npy"))
        await user.sees("message", f"on {BOARD}: 39 of 40 layers compared")
        assert bench.board_runs.chosen == BOARD, "the first that is used"


@pytest.mark.slow
async def test_filters_and_sorting_know_what_was_measured(engine_command: list[str], model_folder: Path) -> None:
    async with measured(engine_command, model_folder) as user:
        await user.press("slash")
        assert "measured>.5 board<.99" in user.text("message")
        await user.type("board<.99")
        assert [layer.index for layer in user.app.tune.graph.shown_layers()] == [5]
        await user.press("escape", "slash")
        await user.type("measured>.17")
        assert [layer.index for layer in user.app.tune.graph.shown_layers()] == [36, 37, 38, 39]
        await user.press("escape", "s")
        assert "T measured time b board" in message(user)
        await user.press("T")
        assert "/out_39" in user.row(0)
        await user.press("s", "b")
        assert "/out_5" in user.row(0)
        await user.press("s", "g", "g", "Z")
        assert column(user, "board", 0) == "0.91000", "the lowest of a folded block"
        assert float(column(user, "measured", 0)) > 0.5, "and the sum"


@pytest.mark.slow
async def test_details_tell_time_place_cycles_and_cosines_with_their_board(
    engine_command: list[str], model_folder: Path
) -> None:
    async with measured(engine_command, model_folder, WIDE) as user:
        assert user.says("status", f"3.210 ms p95 3.456 measured on {BOARD}")
        assert user.says("status", "ms est"), "beside the estimate"
        user.app.tune.graph.move_to(14)
        await user.sees("detail", f"measured 0.128 ms on the CPU {BOARD}")
        assert user.says("detail", "measured cycles NPU 280, DDR 140, in all 420")
        assert user.says("detail", "board to simulator cos 0.99995")
        assert user.says("detail", f"board to float model cos 0.97000 {BOARD}")
        assert "estimated" in user.text("detail")
        await user.press("f")
        await user.sees("status", f"measured on {BOARD} old")
        await user.sees("detail", "measured before the change 0.128 ms on the CPU")
        await user.pilot.resize_terminal(80, 24)
        await user.sees("detail", f"measured before the change 0.128 ms on the CPU {BOARD}")
        lines = user.app.tune.all_of_layer(100)
        assert any("to float model cos 0.97000" in line for line in lines), "what has no room is one key away"
        user.app.tune.graph.move_to(2)
        await user.until(lambda: "/out_2" in user.text("detail") and "measured" not in user.text("detail"))


@pytest.mark.slow
async def test_charts_show_measured_times_beside_estimates_and_a_line_of_the_board(
    engine_command: list[str], model_folder: Path
) -> None:
    async with measured(engine_command, model_folder) as user:
        bench = user.app.bench
        chart = CHARTS["time"](bench, 0.99)
        assert chart.title == "time by layer, measured"
        row = dict(zip(chart.header, chart.rows[7], strict=True))
        assert (row["measured_ms"], row["source"]) == (0.114, "measured")
        assert str(row["estimate"]).startswith("~") and float(row["estimated_ms"]) > 0
        assert dict(zip(chart.header, chart.rows[2], strict=True))["source"] == "estimated"
        assert "measured in 39 of 40 layers" in chart.note and "the same layers are estimated at" in chart.note
        chart = CHARTS["cosine"](bench, 0.99)
        assert chart.ys == ("entire", "single", "measured on board")
        assert "the board's tensors are compared with the float model's" in chart.note
        await user.press("j", "f")
        assert CHARTS["time"](bench, 0.99).title == "time by layer, measured before the last change"
        assert CHARTS["cosine"](bench, 0.99).note.startswith("measured before the last change; ")
        await user.press("2")
        await user.until(lambda: user.app.screen is not user.app.tune)


async def test_a_vendors_file_is_measured_as_it_is(engine_command: list[str], model_folder: Path) -> None:
    path = model_folder / "vendor-30.rknn"
    path.touch()
    async with opened(engine_command, path) as user:
        runs = user.app.bench.board_runs
        user.app.tune.tell(runs.time(BOARD))
        await user.sees("message", f"measured on {BOARD}")
        assert column(user, "measured", 7) == "0.114"
        assert "~ms" not in user.text("header"), "nothing is estimated of it"
        user.app.tune.tell(runs.memory(BOARD))
        await user.sees("message", "the model takes 4.0M")
        user.app.tune.tell(runs.accuracy(BOARD))
        await user.sees("message", "open the source model")
        await user.press("2")
        assert not isinstance(user.app.screen, TuneScreen), "there is something to see now"


@pytest.mark.slow
async def test_another_model_has_no_measurements_and_the_board_is_remembered(
    engine_command: list[str], model_folder: Path
) -> None:
    model = model_folder / "layers-40.onnx"
    async with measured(engine_command, model_folder) as user:
        assert load(model)[0].board == BOARD
        (model_folder / "layers-20.onnx").touch()
        user.app.tune.tell(user.app.open_file(str(model_folder / "layers-20.onnx")))
        await user.sees("message", "20 layers")
        assert user.app.bench.board_runs.perf is None and "board" not in user.text("header")
        assert user.app.bench.board_runs.chosen == BOARD, "it is still connected"
    async with opened(engine_command, model) as user:
        assert user.app.bench.board_runs.chosen == BOARD
        user.app.bench.board_runs.choose("other")
        assert "board: other" in beside(model).read_text()
