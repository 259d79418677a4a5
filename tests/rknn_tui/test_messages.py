"""What goes through the app for each thing that a person does: keys, messages, requests and answers, in this order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rknn_tui.messages import EngineEnded
from tests.rknn_tui.walking import walk

BUILT = ("b", "enter")
ANALYSED = (*BUILT, "a")
WIDE = (120, 34)
FACTS = ["> layer_facts", "< layer_facts"]
MEASURED = [*FACTS, "> alternatives", "< alternatives"]


@pytest.fixture(autouse=True)
def answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rknn_tui.screens.asking.SECONDS_BEFORE_CONFIRMING", 0.0)


@pytest.fixture
def model(model_folder: Path) -> Path:
    return model_folder / "layers-40.onnx"


async def test_a_build_and_an_analysis(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model) as user:
        assert await user.does("b") == ["key b", "Input.Changed"]
        assert await user.does("enter") == [
            *("key enter", "Input.Submitted", "> build", "< build", "> summary", "< summary"),
            *("> apply", "< apply", "rows 40"),
        ]
        assert await user.rests() == FACTS
        assert await user.does("a") == [
            *("key a", "> analyze", "< analyze", "> live_start", "LayerTable.HeaderChanged", "< live_start", "rows 40"),
            *("> trace", "< trace", "rows 40", "LayerTable.HeaderChanged"),
        ]
        assert await user.rests() == ["> alternatives", "< alternatives"], "the facts were told already"
        assert await user.rests() == []


async def test_an_edit_is_seen_at_once_then_measured_and_once_only(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "j") as user:
        user.holding = True
        assert await user.does("f") == ["key f", "rows 1", "> apply"]
        assert "f16*" in user.row(2)
        assert await user.goes_on() == ["< apply", "rows 8"]
        assert "0.99950" in user.row(2)
        assert await user.rests() == MEASURED
        assert await user.does("f") == ["key f"], "it is so already"
        assert await user.rests() == []
        assert await user.does("u") == ["key u", "rows 1", "> apply", "< apply", "rows 8"]
        assert await user.rests() == MEASURED
        assert await user.does("u") == ["key u"]
        assert await user.does("ctrl+r") == ["key ctrl+r", "rows 1", "> apply", "< apply", "rows 8"]
        assert await user.does("ctrl+r") == ["key ctrl+r"]


async def test_keys_that_come_faster_than_answers_are_one_request_more(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j") as user:
        user.holding = True
        keys = await user.does("f", "j", "f", "j", "6", "8")
        assert [entry for entry in keys if entry.startswith(">")] == ["> apply"]
        assert await user.goes_on() == ["< apply", "rows 8", "> apply", "< apply", "rows 9"]
        names = [layer.name for layer in user.app.bench.layers]
        assert user.asked[-1][1]["wishes"] == {names[1]: "float16", names[2]: "float16", names[3]: "int8"}
        assert await user.rests() == MEASURED


async def test_marked_layers_are_one_edit(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED) as user:
        assert await user.does("j", "m", "j", "m", "f") == [
            *("key j", "MarkedList.Moved", "key m", "key j", "MarkedList.Moved", "key m"),
            *("key f", "rows 2", "> apply", "< apply", "rows 9"),
        ]


async def test_a_refused_edit_goes_with_its_mark(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, *"jjjjjjjjj") as user:
        assert user.app.tune.graph.cursor == 9
        assert await user.does("f") == [
            *("key f", "rows 1", "> apply", "< apply QuantizationError", "rows 1", "> apply", "< apply"),
        ]
        assert "int8 " in user.row(9)


async def test_text_moves_the_graph_and_nothing_comes_back(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "f", "c", "tab", size=WIDE) as user:
        editor = user.app.tune.editor
        assert editor is not None and user.app.tune.editing_text
        assert await user.does("end", *["backspace"] * 7) == ["key end", *["key backspace", "CfgEditor.Changed"] * 7]
        assert await user.rests() == ["> cfg_read", "< cfg_read"], "a mistake changes no layer"
        assert user.app.bench.text.faults
        assert await user.does(*"int16") == [part for key in "int16" for part in (f"key {key}", "CfgEditor.Changed")]
        typed = editor.text
        assert await user.rests() == [
            *("> cfg_read", "< cfg_read", "rows 1", "> apply", "< apply", "rows 8"),
            *MEASURED,
        ]
        assert editor.text == typed
        assert "int16*" in user.row(1) or "i16*" in user.row(1)


async def test_the_graph_moves_the_text_and_nothing_comes_back(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "c", size=WIDE) as user:
        editor = user.app.tune.editor
        assert editor is not None and not user.app.tune.editing_text
        edit = ["rows 1", "> apply", "> cfg_write", "< apply", "rows 8", "< cfg_write"]
        assert await user.does("f") == ["key f", *edit]
        assert "out_1: float16" in editor.text
        assert await user.rests() == MEASURED
        assert await user.does("u") == ["key u", *edit]
        assert "float16" not in editor.text
        assert await user.does("j") == ["key j", "MarkedList.Moved"]
        assert await user.rests() == MEASURED
        assert editor.tensor_at_cursor == "/model.0/block.2/out_2", "the text follows without a word"


async def test_undo_takes_text_and_graph_back_one_request_each(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "f", "c", "tab", size=WIDE) as user:
        await user.does(
            "end", "backspace", "backspace", "backspace", "backspace", "backspace", "backspace", "backspace"
        )
        await user.does(*"int16")
        await user.rests()
        assert await user.does("ctrl+z") == [
            *("key ctrl+z", "rows 1", "> apply", "> cfg_read", "< apply", "rows 8", "< cfg_read"),
        ]
        await user.rests()
        assert await user.does("ctrl+z") == [
            *("key ctrl+z", "rows 1", "> apply", "> cfg_write", "< apply", "rows 8", "< cfg_write"),
        ]
        assert await user.does("ctrl+z") == ["key ctrl+z"]


async def test_the_cursor_in_the_text_takes_the_graph_s_along(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "c", "tab", size=WIDE) as user:
        assert await user.does("ctrl+home") == ["key ctrl+home", "CfgEditor.Moved"]
        assert await user.does("down", "down") == ["key down", "CfgEditor.Moved"] * 2
        assert await user.does("down", "down", "down") == [
            *["key down", "CfgEditor.Moved"] * 3,
            "MarkedList.Moved",
        ]
        assert user.app.tune.graph.cursor == 1
        assert await user.rests() == MEASURED
        assert await user.does("ctrl+x") == ["key ctrl+x", "CfgEditor.Copied", "CfgEditor.Changed"]


async def test_a_cfg_that_may_not_be_written_says_so_and_asks_nothing(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "c", "tab", size=WIDE) as user:
        assert user.app.tune.editor is not None
        user.app.tune.editor.read_only = True
        assert await user.does("x") == ["key x", "CfgEditor.Refused"]
        assert await user.rests() == []


async def test_saving_asks_once_where(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "f") as user:
        assert await user.does("w") == ["key w", "Input.Changed"]
        assert await user.does("enter") == [
            *("key enter", "Input.Submitted", "> cfg_text", "< cfg_text"),
            # What the edits are compared with, and then the edits.
            *("> cfg_write", "< cfg_write", "> cfg_write", "< cfg_write", "> save_cfg", "< save_cfg", "rows 1"),
        ]
        assert await user.does("w") == ["key w", "> save_cfg", "< save_cfg"]
        assert await user.does("8") == ["key 8", "rows 1", "> apply", "< apply", "rows 8"]
        assert await user.does("w") == [
            *("key w", "> cfg_write", "< cfg_write", "> save_cfg", "< save_cfg", "rows 1"),
        ]


@pytest.mark.parametrize("key", ["2", "3", "4", "5", "T"])
async def test_a_screen_comes_and_goes_without_a_request(engine_command: list[str], model: Path, key: str) -> None:
    async with walk(engine_command, model, *ANALYSED) as user:
        for _ in range(2):
            shown = [entry for entry in await user.does(key) if entry != "MarkedList.Moved"]
            assert shown == [f"key {key}", "ScreenSuspend", "ScreenResume"]
            assert user.app.screen is not user.app.tune
            left = [entry for entry in await user.does("escape") if entry != "MarkedList.Moved"]
            assert sorted(left) == ["ScreenResume", "ScreenSuspend", "key escape"]
            assert user.app.screen is user.app.tune
        assert await user.rests() == []


async def test_a_list_of_choices_comes_and_goes(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED) as user:
        await user.does("question_mark")
        assert user.log.count("ScreenSuspend") == user.log.count("ScreenResume") == 1
        log = await user.does("r", "o", "w")
        assert log == [part for key in "row" for part in (f"key {key}", "Input.Changed", "MarkedList.Moved")]
        await user.does("space", "l", "a", "s", "t")
        log = await user.does("enter")
        assert sorted(log) == ["Input.Submitted", "MarkedList.Moved", "ScreenResume", "ScreenSuspend", "key enter"]
        assert user.app.tune.graph.cursor == 39


async def test_a_job_ends_while_another_screen_is_in_front(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, "b") as user:
        user.holding = True
        assert await user.does("enter") == ["key enter", "Input.Submitted", "> build"]
        await user.does("4")
        jobs: Any = user.app.screen
        assert "running" in jobs.rows.text
        await user.until(lambda: bool(user._held))
        assert await user.goes_on() == [
            *("< build", "> summary", "< summary", "> apply", "MarkedList.Moved", "< apply", "rows 40"),
        ]
        assert user.app.screen is jobs
        assert "built int8" in jobs.line("message").text
        assert "running" not in jobs.rows.text
        assert sorted(await user.does("escape")) == ["ScreenResume", "ScreenSuspend", "key escape"]
        assert "int8" in user.row(1)


async def test_moving_on_leaves_what_was_asked_of_the_layer_before(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED) as user:
        await user.does("j")
        user.holding = True
        assert await user.rests() == ["> layer_facts"]
        assert await user.does("j", "j") == ["key j", "MarkedList.Moved"] * 2
        assert await user.rests() == [], "one at a time"
        log = await user.goes_on()
        assert log[1:] == FACTS, log
        assert user.asked[-1] == ("layer_facts", {"name": user.app.bench.layers[3].name})


async def test_sorting_filtering_and_folding_ask_nothing(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "G") as user:
        for keys in (("s", "1"), ("s", "g"), ("slash", "c", "o", "enter"), ("escape",), ("z",), ("Z",), ("v",), ("W",)):
            log = await user.does(*keys)
            assert not [entry for entry in log if entry[:2] in ("> ", "< ")], log
            assert log.count("LayerTable.HeaderChanged") <= 1
        assert await user.does("slash", "x", "escape") == [
            *("key slash", "Input.Changed", "key x", "Input.Changed", "MarkedList.Moved"),
            *("key escape", "MarkedList.Moved"),
        ]


async def test_a_job_that_is_cancelled_ends_once(engine_command: list[str], model_folder: Path) -> None:
    async with walk(engine_command, model_folder / "slow.onnx") as user:
        user.log.clear()
        await user.press("F")
        await user.sees("job", "calibrate")
        assert user.log == ["key F", "> build"]
        assert await user.does("x") == ["key x", "< build Cancelled"]
        assert await user.does("x") == ["key x"]


async def test_an_engine_that_dies_is_told_once_and_asked_nothing_more(
    engine_command: list[str], model_folder: Path
) -> None:
    async with walk(engine_command, model_folder / "fragile.onnx", *ANALYSED, "j") as user:
        log = await user.does("f")
        await user.until(lambda: user.app.bench.died is not None)
        await user.pilot.pause()
        assert log[:3] == ["key f", "rows 1", "> apply"]
        assert user.log.count("EngineEnded") == 1
        assert await user.does("f", "b", "j") == ["key f", "key b", "key j", "MarkedList.Moved"]
        user.app.tune.post_message(EngineEnded(user.app.bench.died))  # type: ignore[arg-type]
        said = len(user.app.tune.notices)
        await user.answered()
        assert len(user.app.tune.notices) == said
        assert await user.rests() == []


async def test_leaving_with_nothing_to_lose(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED) as user:
        user.log.clear()
        await user.press("q")
    assert user.log[:2] == ["key q", "ExitApp"]
    assert not [entry for entry in user.log if entry.startswith(">")]


async def test_leaving_with_edits_asks_and_only_y_leaves(engine_command: list[str], model: Path) -> None:
    async with walk(engine_command, model, *ANALYSED, "j", "f") as user:
        assert await user.does("q") == ["key q"]
        assert await user.does("f") == ["key f"], "another key is no answer, and no edit"
        assert user.app.is_running and user.app.tune.question is None
        user.log.clear()
        await user.press("q", "y")
    assert user.log[:3] == ["key q", "key y", "ExitApp"]
    assert not [entry for entry in user.log if entry.startswith(">")]
    assert user.app.return_value == 0
