"""The cfg's text and the graph of one model in the app: what is typed, taken back and saved, with a scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.rknn_tui.test_app import User, opened

LAYER = "/model.0/block.1/out_1"


@asynccontextmanager
async def editing(engine: list[str], folder: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[User]:
    """A built and analysed model with the cursor behind the line `# made up` of its cfg."""
    async with opened(engine, folder / "layers-40.onnx", size) as user:
        await user.press("b", "enter")
        await user.sees("message", "built int8")
        await user.press("a")
        await user.sees("message", "output cosine")
        await user.until(lambda: user.app.bench.running is None and user.app.bench.editing.live)
        await user.press("c")
        await user.until(lambda: user.app.tune.editor is not None and "# made up" in user.app.tune.editor.text)
        if not user.app.tune.editing_text:
            await user.press("tab")
        await user.until(lambda: user.app.tune.editing_text)
        await user.press("ctrl+home", "end")
        yield user


async def typed(user: User, text: str) -> None:
    """Press the keys of a text, with the enter key for a line's end, and wait until the engine has read it."""
    await user.press(*("enter" if character == "\n" else character for character in text))
    await user.until(lambda: cfg(user) == user.app.bench.text.text and settled(user))


def settled(user: User) -> bool:
    text, editing = user.app.bench.text, user.app.bench.editing
    return not text._busy and not text._unread and not editing.pending


def cfg(user: User) -> str:
    """The text in the editor."""
    assert user.app.tune.editor is not None
    return user.app.tune.editor.text


def precision(user: User, layer: str) -> str:
    return user.app.bench.values()[layer].precision


async def test_text_moves_the_graph_while_the_graph_is_hidden(engine_command: list[str], model_folder: Path) -> None:
    async with editing(engine_command, model_folder) as user:
        await user.press("down", "end", *["backspace"] * 3)
        await typed(user, f"\n{LAYER}: float16")
        # The graph's cursor follows to the layer of the line.
        await user.press("up", "down", "end", *["backspace"] * len("float16"))
        await typed(user, "int16")
        assert precision(user, LAYER) == "int16"
        await user.press("escape")
        await user.until(lambda: not user.app.tune.editing_text)
        assert "i16*" in user.row(1)


async def test_a_mistake_is_taken_back_before_older_edits(engine_command: list[str], model_folder: Path) -> None:
    async with editing(engine_command, model_folder, (160, 40)) as user:
        await user.press("escape", "g", "j", "f")
        await user.until(lambda: precision(user, LAYER) == "float16" and settled(user))
        before = cfg(user)
        assert f"{LAYER}: float16" in before
        await user.press("tab", "ctrl+home", "end", "down", "end")
        await typed(user, "\n    nothing: float16")
        await user.sees("cfg-title", "1 fault!")
        faulty = cfg(user)

        await user.press("ctrl+z")
        await user.until(lambda: settled(user) and cfg(user) == before, lambda: cfg(user))
        assert precision(user, LAYER) == "float16"
        assert "fault" not in user.text("cfg-title")

        await user.press("ctrl+r")
        await user.until(lambda: settled(user) and cfg(user) == faulty, lambda: cfg(user))
        await user.sees("cfg-title", "1 fault!")
        await user.press("ctrl+z", "ctrl+z")
        await user.until(lambda: settled(user) and precision(user, LAYER) == "int8")
        await user.until(lambda: f"{LAYER}: float16" not in cfg(user), lambda: cfg(user))


async def test_taking_back_a_comment_keeps_what_the_graph_did_meanwhile(
    engine_command: list[str], model_folder: Path
) -> None:
    async with editing(engine_command, model_folder, (160, 40)) as user:
        await typed(user, "\n# one")
        await user.press("escape", "g", "j", "f")
        await user.until(lambda: settled(user) and f"{LAYER}: float16" in cfg(user))
        await user.press("tab", "ctrl+home", "end")
        await typed(user, "\n# two")
        assert "# one" in cfg(user)

        await user.press("ctrl+z")
        await user.until(lambda: settled(user) and "# two" not in cfg(user))
        assert precision(user, LAYER) == "float16"
        assert f"{LAYER}: float16" in cfg(user), "text and graph say the same"
        assert "# one" in cfg(user)


async def test_undo_within_a_moment_of_typing_takes_back_what_was_typed(
    engine_command: list[str], model_folder: Path
) -> None:
    async with editing(engine_command, model_folder, (160, 40)) as user:
        await user.press("escape", "g", "j", "f")
        await user.until(lambda: settled(user) and f"{LAYER}: float16" in cfg(user))
        await user.press("tab", "ctrl+home", "end")
        before = cfg(user)
        await user.press("#")
        user.app.tune.do_undo()
        await user.until(lambda: settled(user) and cfg(user) == before, lambda: cfg(user))
        assert precision(user, LAYER) == "float16"


async def test_a_mistake_is_not_saved_unasked_however_soon(engine_command: list[str], model_folder: Path) -> None:
    async with editing(engine_command, model_folder) as user:
        saved = model_folder / "layers-40.quantization.cfg"
        await user.press("ctrl+s", "enter")
        await user.sees("message", "saved")
        before = saved.read_text()
        await user.press("enter", *"    nothing: int8", "ctrl+s")
        await user.sees("message", "y saves it all the same")
        assert saved.read_text() == before
        # Sooner presses are taken for repeats of the key that asked.
        await user.pilot.pause(0.35)
        await user.press("n")
        await user.until(lambda: user.app.tune.editing_text)
        assert saved.read_text() == before
        await user.press("ctrl+s")
        await user.sees("message", "y saves it all the same")
        await user.confirm()
        await user.sees("message", "with its faults")
        assert "nothing: int8" in saved.read_text()


async def test_the_text_is_seen_although_the_graph_had_the_whole_screen(
    engine_command: list[str], model_folder: Path
) -> None:
    async with editing(engine_command, model_folder) as user:
        await user.press("escape", "+", "c")
        await user.until(lambda: user.app.tune.editing_text)
        editor = user.app.tune.editor
        assert editor is not None
        await user.until(lambda: editor.size.height > 10, lambda: str(editor.size))


async def test_keys_are_for_a_pane_that_is_seen_whatever_the_size(
    engine_command: list[str], model_folder: Path
) -> None:
    async with editing(engine_command, model_folder, (160, 40)) as user:
        tune = user.app.tune
        await user.press("escape")
        assert not tune.editing_text
        await user.pilot.resize_terminal(80, 24)
        await user.until(lambda: tune.editing_text)
        await user.pilot.resize_terminal(160, 40)
        await user.press("escape", "+")
        await user.until(lambda: tune.graph.size.width == 160)
        await user.press("tab")
        await user.until(lambda: tune.editing_text and tune.graph.size.width < 120)
        assert tune.editor is not None and tune.editor.size.width > 40
        tune.do_maximise()
        await user.until(lambda: tune.editor is not None and tune.editor.size.width == 160)
        await user.press("escape")
        await user.until(lambda: not tune.editing_text and tune.graph.size.width > 40)
