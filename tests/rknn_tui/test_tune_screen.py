"""What the tune screen tells while a built model is edited: details, counts and marks follow every change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.targets import TARGETS
from rknn_tui.widgets.chart import ChartView
from tests.rknn_tui.test_app import User, opened


@asynccontextmanager
async def analysed(engine: list[str], folder: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[User]:
    """A model of 40 layers, built and analysed, with every edit measured from now on."""
    async with opened(engine, folder / "layers-40.onnx", size) as user:
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.press("a")
        await user.sees("message", "output cosine")
        await user.until(lambda: user.app.bench.running is None and user.app.bench.editing.live)
        yield user


async def test_what_other_precisions_would_give_follows_edits_of_other_layers(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, model_folder) as user:
        await user.press("j", "f", "G")
        await user.sees("detail", "cosine, ms with ▶default 0.99656")
        await user.press("u")
        await user.sees("detail", "cosine, ms with ▶default 0.99312")


async def test_what_was_said_goes_when_a_person_goes_on_but_warnings_stay(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, model_folder) as user:
        await user.press("W")
        await user.sees("message", "worst by its")
        await user.press("j")
        assert "worst by its" in user.text("message"), "moves are no reason"
        await user.press("f")
        await user.until(lambda: not user.text("message").strip(), lambda: user.text("message"))
        await user.press("g", *"jjjjjjjjj", "f")
        await user.sees("message", "cannot be wished for")
        await user.press("m")
        assert "cannot be wished for" in user.text("message")


async def test_after_a_jump_there_are_rows_above_the_cursor(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-200.onnx") as user:
        graph = user.app.tune.graph
        await user.press(*["j"] * (graph.page + 3))
        assert graph.cursor == graph.top + graph.page - 1, "moves scroll just far enough"
        graph.select_layer("/model.12/block.0/out_120")
        assert graph.cursor == 120
        assert graph.top < 120 < graph.top + graph.page - 1
        await user.press("g")
        assert (graph.cursor, graph.top) == (0, 0)
        await user.press("G")
        assert graph.top + graph.page == 200


async def test_what_must_be_done_first_is_named(engine_command: list[str], model_folder: Path) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        await user.press("F")
        await user.sees("message", "built float16")
        await user.press("W")
        await user.sees("message", "nothing is quantized yet: b quantizes to int8")
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.press("W")
        await user.sees("message", "no accuracy is known yet: a analyses")


async def test_estimates_are_there_before_a_build_and_follow_the_target(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        await user.sees("status", "2.694 ms as int8 est")
        await user.sees("status", "184K mem est")
        assert "~ms ~mem" in user.text("header")
        assert user.row(1).split()[-2:] == ["0.057", "32K"]
        await user.sees("detail", "memory-bound  0.02 ms estimated  16.38 kB estimated")
        await user.press("t", "t", "t", "t", "t", "t", "t", "t")
        await user.sees("status", "rk3568")
        await user.press("t", "t")
        await user.sees("status", "rk3588")
        await user.sees("status", "0.673 ms as int8 est")
        assert user.row(1).split()[-2:] == ["0.014", "32K"]


async def test_a_changed_precision_shows_its_time_with_the_key_and_the_exact_one_after(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, model_folder) as user:
        held = user.app.bench.calls.ended
        waiting: list[tuple[Any, ...]] = []
        user.app.bench.calls.ended = lambda *end: bool(waiting.append(end))  # type: ignore[method-assign, func-returns-value]
        await user.press("j", "f")
        # 57 us of int8 become 150.5, with what it reads converted; the whole goes from 2.694 to 2.788 ms.
        await user.sees("status", "2.788~ ms +3.5% est")
        assert "~.15" in user.row(1)
        user.app.bench.calls.ended = held  # type: ignore[method-assign]
        for end in waiting:
            held(*end)
        await user.until(lambda: "~" not in user.text("status"))
        await user.sees("status", " ms +1.0% est")
        assert "0.15" in user.row(1)
        assert user.row(2).split()[-2] == "0.102", "its reader converts what was float16"


async def test_what_was_built_for_one_target_is_estimated_for_another(
    engine_command: list[str], model_folder: Path
) -> None:
    async with analysed(engine_command, model_folder) as user:
        await user.press("t", "t", "t")
        await user.sees("status", "rk3588  int8 for rk3566")
        await user.sees("status", "0.673 ms est")
        await user.press("j", "f")
        await user.until(lambda: not user.app.bench.editing.pending and user.app.bench.costs.settled)
        await user.sees("status", "0.699 ms est")
        await user.press("F")
        await user.sees("status", "rk3588  float16")
        await user.sees("status", "1.684 ms est")
        await user.press("t")
        await user.sees("message", "shows 1 warning")
        assert user.app.tune.notices[-2].text.startswith("no estimate for rv1103: target_platform: rv1103 has no")
        assert " est" not in user.text("status")


async def test_targets_are_compared_and_layers_found_by_what_bounds_them(
    engine_command: list[str], model_folder: Path
) -> None:
    async with opened(engine_command, model_folder / "layers-40.onnx") as user:
        await user.press("slash", *"bound:cpu", "enter")
        await user.sees("status", "3/40 layers")
        await user.press("escape", "escape", "s", "t")
        assert user.row(0).split()[-2] == "0.114", "the longest first"
        await user.press("2", "G", "k", "k")
        view = user.app.screen.query_one(ChartView)
        await user.until(lambda: "rk3588 in use" in view.text or "rk3566 in use" in view.text, lambda: view.text)
        assert all(target in view.text for target in TARGETS)
