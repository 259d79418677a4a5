"""A person's way through the app, key by key, with an engine in a process of its own that follows a script."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Region
from textual.pilot import Pilot

from rknn_tui import settings
from rknn_tui.app import Workshop
from rknn_tui.screens.choose import ChooseScreen, OpenScreen
from rknn_tui.widgets.graph_view import GraphView
from rknn_tui.widgets.marked_list import ChoiceList

SECONDS = 15


class User:
    """Presses keys and reads the screen."""

    def __init__(self, app: Workshop, pilot: Pilot[int]) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Replace what the prompt holds."""
        self.app.screen.query_one("Prompt").value = text  # type: ignore[attr-defined]
        await self.pilot.press("enter")

    def text(self, part: str) -> str:
        return self.app.tune.line(part).text

    def says(self, part: str, text: str) -> bool:
        """Whether a part says so, wherever its lines are broken."""
        said = self.text(part)
        return text in said or text in " ".join(said.split())

    def row(self, index: int) -> str:
        return "".join(text for text, _ in self.app.tune.graph.row_line(index))

    async def sees(self, part: str, text: str) -> None:
        await self.until(lambda: self.says(part, text), lambda: f"{text!r} not in {part}: {self.text(part)!r}")

    async def until(self, condition: Callable[[], bool], reason: Callable[[], str] = lambda: "") -> None:
        for _ in range(SECONDS * 20):
            if condition():
                return
            await self.pilot.pause(0.05)
        raise AssertionError(reason())

    async def confirm(self) -> None:
        # Sooner presses are taken for repeats of the key that asked.
        await self.pilot.pause(0.35)
        await self.press("y")


def keep_settings(text: str) -> None:
    """Write the user's settings, before the app starts."""
    folder = settings.config_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_text(text)


@asynccontextmanager
async def opened(
    engine: list[str], path: Path | str | None, size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncIterator[User]:
    app = Workshop(str(path) if path else None, options, engine_command=engine)
    async with app.run_test(size=size) as pilot:
        user = User(app, pilot)
        if path and "loaded" not in options:
            await user.until(lambda: app.bench.job is None, lambda: user.text("message"))
        yield user


async def test_open_build_analyse_export_quit(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        await user.sees("message", "40 layers")
        assert "/model.0/block.3/out_3" in user.row(3)

        await user.press("b")
        await user.sees("message", "calibration dataset")
        assert user.app.tune.prompt.value == str(model_folder / "dataset.txt")
        await user.press("enter")
        await user.sees("message", "built int8 with 4 samples")
        await user.sees("status", "int8")
        assert "int8" in user.row(3)

        await user.press("a")
        await user.sees("message", "output cosine 0.99312")
        assert "0.89997!" in user.row(3)
        assert user.app.tune.notices[-2].text == f"sample {model_folder / 'images' / 'a.npy'}"
        await user.sees("status", "cos 0.99312")
        await user.press("]")
        await user.sees("detail", "/model.0/block.3/out_3")
        assert "entire cos 0.89997  single cos 0.99999  share 60.0 %  compute-bound" in user.text("detail")
        await user.press("right_square_bracket", "left_square_bracket")
        assert user.app.tune.graph.cursor == 3
        await user.until(lambda: user.app.bench.running is None)
        await user.press("g", "W")
        assert user.app.tune.graph.cursor == 3, "by its share of the outputs' error, where that was traced"
        await user.press("W")
        assert user.app.tune.graph.cursor == 4

        await user.press("e", "enter")
        await user.sees("message", "written")
        assert (model_folder / "layers-40.rknn").read_bytes() == b"package"
        await user.press("e", "enter")
        await user.sees("message", "exists. y replaces it")
        await user.pilot.pause(0.35)
        await user.press("n")
        assert user.app.bench.job is None
        assert user.app.tune.question is None
        await user.press("q")
    assert user.app.return_value == 0
    assert not user.app.host.alive


async def test_every_cell_that_changes_is_drawn_and_no_other(
    engine_command: list[str], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_settings("live: false\ntrace_layers: 0")
    async with opened(engine_command, model_folder / "layers-12.onnx") as user:
        graph = user.app.tune.graph
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.press("escape")
        await user.pilot.pause(0.2)
        drawn: list[Region] = []
        refresh = graph.refresh

        def recorded(*regions: Region, **how: Any) -> GraphView:
            drawn.extend(regions or [graph.size.region])
            return refresh(*regions, **how)

        monkeypatch.setattr(graph, "refresh", recorded)
        before = [user.row(row) for row in range(12)]
        await user.press("a")
        await user.sees("message", "analysed 12 layers")
        after = [user.row(row) for row in range(12)]
        changed = {
            (column + 2, row)
            for row in range(12)
            for column, (old, new) in enumerate(zip(before[row].ljust(78), after[row].ljust(78), strict=True))
            if old != new
        }
        cells = {
            (x, y) for region in drawn for x in range(region.x, region.right) for y in range(region.y, region.bottom)
        }
        assert changed
        assert changed <= cells
        assert len(cells) < 12 * 78 / 2


async def test_a_job_can_be_cancelled_while_every_key_answers(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "slow.onnx") as user:
        await user.press("b", "enter")
        await user.sees("job", "calibrate 0%")
        await user.press("j", "j")
        assert user.app.tune.graph.cursor == 2
        await user.press("a")
        await user.sees("message", "build int8 is running: x cancels it")
        await user.press("slash", "o", "u", "t", "_", "7", "enter")
        assert user.app.tune.graph.row_count == 1
        await user.press("escape")
        assert user.app.tune.graph.row_count == 30
        await user.press("x")
        await user.sees("message", "build int8: cancelled")
        assert "not built" in user.text("status")
        await user.press("F")
        await user.sees("job", "calibrate")


async def test_leaving_asks_only_while_a_job_runs_and_only_y_leaves(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "slow.onnx") as user:
        await user.press("F")
        await user.sees("job", "calibrate")
        await user.press("q", "y")
        assert user.app.is_running, "a key within a moment of the question is a repeat, not an answer"
        await user.pilot.pause(0.35)
        await user.press("q")
        assert user.app.tune.question is None
        await user.press("q")
        await user.confirm()
    assert user.app.return_value == 0


async def test_a_dead_engine_is_told_with_its_last_words_and_restarted(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "deadly.onnx") as user:
        await user.press("b", "enter")
        await user.sees("message", "exit code 7")
        assert "out of cheese" in user.text("message")
        assert "r starts the engine again" in user.text("message")
        assert "engine ended" in user.text("job")
        assert len(user.app.tune.notices) == 2
        await user.press("j", "b")
        await user.sees("message", "the engine has ended: r starts it again")
        await user.press("r")
        await user.sees("message", "30 layers")
        assert "engine ended" not in user.text("job")


async def test_an_idle_engine_s_death_is_noticed(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-5.onnx") as user:
        assert user.app.host.pid is not None
        os.kill(user.app.host.pid, signal.SIGKILL)
        await user.sees("message", "ended by SIGKILL")


async def test_a_job_that_does_not_listen_can_be_ended_with_its_process(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "stuck.onnx") as user:
        await user.press("b", "enter", "x")
        await user.sees("job", "cancelling")
        await user.press("x")
        await user.sees("message", "still cancelling")
        await user.confirm()
        await user.sees("message", "30 layers")


async def test_dynamic_sizes_are_asked_for_until_they_make_sense(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "dynamic.onnx") as user:
        await user.sees("message", "inputs have dynamic dimensions")
        await user.type("1,3,?")
        await user.sees("message", "is not a size")
        assert user.app.tune.prompt.value == "1,3,?"
        await user.press("escape")
        await user.sees("message", "no model is loaded: o opens a model, r tries this one again")
        await user.press("r")
        await user.sees("message", "inputs have dynamic dimensions")
        await user.type("1x3x64x64")
        await user.sees("message", "30 layers")
        assert user.app.bench.summary is not None
        assert user.app.bench.summary.inputs[0].shape == (1, 3, 64, 64)


async def test_errors_are_shown_whole_and_a_wrong_dataset_is_asked_for_again(
    engine_command: list[str], model_folder: Path
) -> None:
    broken = model_folder / ("a-folder-with-a-long-name/" * 4) / "broken.onnx"
    async with opened(engine_command, broken) as user:
        shown = user.text("message").replace("\n", "").replace(" ", "")
        assert f"{broken}: is not an ONNX model (export it again)".replace(" ", "") in shown
        await user.press("b")
        await user.sees("message", "no model is loaded")
    async with opened(engine_command, model_folder / "layers-3.onnx", dataset="/no/dataset.txt") as user:
        await user.press("b")
        await user.sees("message", "/no/dataset.txt: cannot be read")
        await user.press("b")
        assert user.app.tune.prompt.value == "/no/dataset.txt"
        await user.press("escape")
        await user.press("apostrophe")
        await user.until(lambda: isinstance(user.app.screen, ChooseScreen))
        assert "cannot be read" in str(user.app.screen.query_one(ChoiceList)._choices)


async def test_options_of_the_command_line_reach_the_engine(engine_command: list[str], model_folder: Path) -> None:
    options = {"dataset": str(model_folder / "dataset.txt"), "input_size_list": [[1, 3, 32, 32]]}
    async with opened(
        engine_command, model_folder / "dynamic.onnx", config={"target_platform": "rk3588"}, **options
    ) as user:
        await user.sees("status", "rk3588")
        await user.press("b")
        await user.sees("message", "built int8")
        await user.press("t")
        await user.sees("message", "target rv1103; what was built is for rk3588: build again")
        await user.sees("status", "int8 for rk3588")


async def test_float16_and_batch_of_the_command_line_count(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-3.onnx", float16=True, batch=4) as user:
        await user.sees("message", "F builds float16, in batches of 4")
        await user.press("F")
        await user.sees("message", "built float16, batch 4, in")
        await user.press("a")
        await user.sees("message", "a float16 build has no quantization error: b quantizes to int8")
        (model_folder / "layers-5.onnx").touch()
        await user.press("o")
        user.app.screen.query_one("Prompt").value = str(model_folder / "layers-5.onnx")  # type: ignore[attr-defined]
        await user.press("enter")
        await user.sees("message", "5 layers, 123.5k parameters: b quantizes to int8")
        await user.press("F")
        await user.sees("message", "built float16 in")


async def test_engine_errors_speak_of_options_rather_than_arguments(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "layers-3.onnx", config={"target_platform": "rv1103"}) as user:
        await user.press("F")
        await user.sees("message", "--float16: rv1103 has no float16")


async def test_the_target_key_counts_however_fast_it_is_pressed(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-3.onnx") as user:
        await user.press("t", "t", "t")
        await user.until(lambda: user.app.bench.job is None)
        await user.sees("message", "target rk3588")
        await user.sees("status", "rk3588")
        assert user.app.bench.summary is not None
        assert user.app.bench.summary.target == "rk3588"


async def test_a_load_can_be_cancelled_and_tried_again(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "halting.onnx", loaded=False) as user:
        await user.sees("job", "read")
        assert "x cancel" in user.text("keys")
        await user.press("x")
        await user.sees("message", "load: cancelled; o opens a model, r tries this one again")
        assert "r again" in user.text("keys")
        await user.press("r")
        await user.sees("job", "read")
        await user.press("x")
        await user.sees("message", "load: cancelled")


async def test_the_keys_below_are_those_that_lead_somewhere(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "slow.onnx") as user:
        assert "b int8" in user.text("keys")
        assert "export" not in user.text("keys")
        assert "cancel" not in user.text("keys")
        await user.press("b", "enter")
        await user.sees("keys", "x cancel")
        assert "int8" not in user.text("keys")
    async with opened(engine_command, model_folder / "layers-9.onnx") as user:
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.sees("keys", "a analyse  A repair")
        assert "e export" in user.text("keys")
        await user.press("a")
        await user.sees("keys", "W worst")
        await user.sees("status", "1 warning")
        await user.sees("message", "' shows 1 warning")


async def test_a_folder_is_no_place_to_export_to(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-3.onnx") as user:
        await user.press("F")
        await user.sees("message", "built float16")
        await user.press("e")
        await user.type(str(model_folder))
        await user.sees("message", "name a file in it")
        assert user.app.tune.prompt.value == str(model_folder)


async def test_notices_name_the_user_s_own_keys(engine_command: list[str], model_folder: Path) -> None:
    folder = settings.config_folder()
    folder.mkdir(parents=True)
    (folder / "keys.yaml").write_text("cancel: X\nbuild_int8: i\n")
    async with opened(engine_command, model_folder / "slow.onnx") as user:
        await user.sees("message", "i quantizes to int8")
        await user.press("F", "a")
        await user.sees("message", "X cancels it")


async def test_leaving_the_picker_without_a_model_says_how_to_come_back(engine_command: list[str]) -> None:
    async with opened(engine_command, None) as user:
        await user.until(lambda: isinstance(user.app.screen, OpenScreen))
        await user.press("escape")
        await user.sees("message", "no model is open: o opens one")
        assert "o open" in user.text("keys")


async def test_a_wrong_setting_is_said_and_no_model_shown(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-3.onnx", config={"target_platform": "rk9999"}) as user:
        await user.sees("message", "unknown target platform 'rk9999'")


async def test_without_a_model_the_picker_offers_recent_files_and_paths(
    engine_command: list[str], model_folder: Path, tmp_path: Path
) -> None:
    (model_folder / "layers-4.onnx").touch()
    settings.remember_file(str(model_folder / "layers-4.onnx"))
    async with opened(engine_command, None) as user:
        await user.until(lambda: isinstance(user.app.screen, OpenScreen))
        recent = str(model_folder / "layers-4.onnx")
        await user.until(lambda: user.app.screen.query_one(ChoiceList).chosen == recent)
        await user.press("enter")
        await user.sees("message", "4 layers")
        await user.press("o")
        await user.until(lambda: isinstance(user.app.screen, OpenScreen))
        (model_folder / "layers-6.onnx").touch()
        user.app.screen.query_one("Prompt").value = f"{tmp_path}/mod"  # type: ignore[attr-defined]
        await user.press("tab", "l", "tab", "6", "enter")
        await user.sees("message", "6 layers")
        assert user.app.bench.path == str(model_folder / "layers-6.onnx")


async def test_help_finds_a_key_by_what_it_does_and_runs_it(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-20.onnx") as user:
        await user.press("question_mark", *"last row")
        assert user.app.screen.query_one(ChoiceList).chosen == "last"
        await user.press("enter")
        await user.until(lambda: user.app.tune.graph.cursor == 19)
        await user.press("colon", "escape")
        assert user.app.screen is user.app.tune


async def test_the_user_s_keys_and_faults_in_the_file_show(engine_command: list[str], model_folder: Path) -> None:
    folder = settings.config_folder()
    folder.mkdir(parents=True)
    (folder / "keys.yaml").write_text("down: n\nflly: z\n")
    async with opened(engine_command, model_folder / "layers-20.onnx") as user:
        await user.press("n", "n", "j")
        assert user.app.tune.graph.cursor == 2
        assert "no action 'flly'" in user.app.tune.notices[0].text


@pytest.mark.parametrize("size", [(200, 50), (100, 30), (80, 24), (60, 16)])
async def test_it_fits(engine_command: list[str], model_folder: Path, size: tuple[int, int]) -> None:
    async with opened(engine_command, model_folder / "layers-30.onnx", size) as user:
        for part in ("status", "header", "detail", "message", "keys"):
            region = user.app.tune.line(part).region
            assert region.width and region.right <= size[0] and region.bottom <= size[1], part
        assert user.app.tune.graph.size.height >= 7
        assert "q quit" in user.text("keys")
        await user.press("G")
        assert user.app.tune.graph.cursor == 29


async def test_a_terminal_too_small_says_so_and_can_be_left(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-30.onnx", (50, 10)) as user:
        assert "50x10 is too small" in user.text("too-small")
        assert user.app.tune.line("too-small").region.height == 1
        assert not user.app.tune.graph.region
        await user.pilot.resize_terminal(80, 24)
        await user.until(lambda: bool(user.app.tune.graph.region))
        await user.pilot.resize_terminal(40, 5)
        await user.until(lambda: not user.app.tune.graph.region)
        await user.press("q")
    assert user.app.return_value == 0


async def test_hostile_names_are_drawn_harmlessly(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "\x1b[2Jlayers-3.onnx") as user:
        assert "?[2Jlayers-3.onnx" in user.text("status")
        await user.press("b", "escape")
