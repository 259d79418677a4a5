"""What the tune screen tells while a built model is edited: details, counts and marks follow every change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
