"""Names of layers and files that would break what draws, wraps, filters, copies or writes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from engine import demo
from engine.cli import main
from rknn_tui.symbols import ASCII, UNICODE, drawable, fit, wrap
from rknn_tui.terminal.clipboard import clip_file
from tests.rknn_tui.hostile_engine import NAMES
from tests.rknn_tui.real_app import ESCAPE, Place, tells
from tests.rknn_tui.test_app import opened
from tests.terminal import Terminal, real, scripted

pytestmark = pytest.mark.slow

ENGINE = [sys.executable, str(Path(__file__).with_name("hostile_engine.py"))]
UNDECODABLE = os.fsdecode(b"we ird 'q\" \xff \xf0\x9f\x98\x80 $HOME\x1b[2J%s")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    (place.models / "dataset.txt").write_text("a.npy\n")
    yield place
    place.close()


def cells(terminal: Terminal, line: int) -> list[str]:
    """What stands in each cell of a line; '' in the second half of a wide character."""
    return [terminal.screen.buffer[line][column].data for column in range(terminal.screen.columns)]


def row(terminal: Terminal, line: int) -> str:
    return "".join(cells(terminal, line)).rstrip()


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((60, 16), (200, 50)))]
)
def test_hostile_names_are_drawn_in_their_columns_and_nothing_else(place: Place, width: int, height: int) -> None:
    command = scripted(place.models / "layers-30.onnx")
    terminal = place.started([*command[:-1], ENGINE[1]], width, height)
    data = terminal.waits(lambda: any("20 layers" in row(terminal, line) for line in range(height)), "the model")
    for keys in ("b", "\r", "a"):
        terminal.press(keys)
        data += terminal.read(0.5)
    # The precision stands in one column, whatever stands before it.
    found = set()
    for line in range(3, 3 + 8):
        # Terminals do not agree on how wide flags and families are.
        if "flag" not in row(terminal, line):
            drawn = cells(terminal, line)
            found.add(next(place for place in range(width) if drawn[place : place + 4] == list("int8")))
    assert len(found) == 1
    for _ in NAMES:
        terminal.press("j")
        data += terminal.read(0.03)
    for keys in (
        *("gW", "sn", "sg", "zzZZ", "vv", "*%BU", "/x\r", "/op:c\r", "/\x15名\r", "/\x15\r", "mjm8uu", "|/deep\r", "U"),
        *("\r", ESCAPE, "2", "]]]]]1", "4\r1", "51", "L", "1T1", "'", ESCAPE, "c", "\x1b[6~", ESCAPE, "R", ESCAPE, "5"),
        *("yn", "yr", "yt", "yl", "1"),
    ):
        terminal.press(keys)
        data += terminal.read(0.05)
        assert terminal.process.poll() is None, row(terminal, 0)
    written = data.decode(errors="replace")
    for code in (
        "\x1b[2J",
        "\x1b[31mred",
        "\x1b]0;",
        "\u202e",
        "\u2067",
        "\u200b",
        "\u2028",
        "\x9b",
        "\b",
        "\x7f",
        "\0",
    ):
        assert code not in written, repr(code)
    # The app rings no bell, and ends with one only what it copies and the pointer's shape.
    assert "\x07" not in re.sub(r"\x1b\](?:52;c;[A-Za-z0-9+/=]*|22;default)\x07", "", written)


async def test_every_name_can_be_found_changed_and_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "cache"))
    async with opened(ENGINE, place.models / "layers-30.onnx") as user:
        await user.press("b", "enter")
        await user.until(lambda: user.app.bench.editing.ready)
        for index, name in enumerate(NAMES[1:], 1):
            assert user.app.tune.show_layer_row(name)
            assert user.app.tune.graph.current is not None
            assert user.app.tune.graph.current.index == index
            await user.press("f")
            await user.until(lambda index=index: len(user.app.bench.editing.state.wishes) == index)  # type: ignore[misc]
        assert user.app.bench.keep_unsaved()
        await user.press("y", "t")
        await user.sees("message", "characters written to")
    clip = clip_file().read_bytes().decode()
    assert all(name.encode(errors="replace").decode() in clip for name in NAMES)


def test_a_path_of_any_bytes_is_opened_saved_exported_and_replayed(place: Place) -> None:
    folder = place.models / UNDECODABLE
    folder.mkdir()
    model = folder / f"{UNDECODABLE}.onnx"
    shutil.copy(demo.MODEL, model)
    options = ("--mean", "0", "--std", "255", "--dataset", demo.DATASET)
    terminal = place.started(real(model, *options))
    terminal.sees("17 layers")
    terminal.press("b")
    terminal.sees("built int8")
    terminal.press("f")
    terminal.sees("*1")
    for key, question, seen in (
        ("w", "save the cfg as", "digits.data"),
        ("e", "write to:", "written:"),
        ("J", "script", "wrote"),
    ):
        terminal.press(key)
        terminal.sees(question)
        terminal.press("\r")
        terminal.sees(seen) if seen != "digits.data" else tells(terminal, "builds from them")
    terminal.press("Y")
    terminal.loses("replay does it again")
    tells(terminal, "wrote ")
    terminal.press("yl")
    terminal.sees("sent to the terminal")
    terminal.press("q")
    assert terminal.process.wait(10) == 0
    names = {name.removeprefix(UNDECODABLE) for name in map(str, os.listdir(folder))}  # noqa: PTH208
    assert {".onnx", ".quantization.cfg", ".model", ".data", ".rknn", ".replay.jsonl"} <= names
    assert {".rknn-tui.yaml", ".rknn-tui.jsonl"} <= names

    recent = json.loads((place.folder / "state" / "rknn-tui" / "recent.json").read_text())
    assert recent[0][0] == str(model)
    again = place.started(real(model))
    again.sees("17 layers")
    again.press("b")
    tells(again, "was saved for this model")
    assert main(["replay", f"{folder}/{UNDECODABLE}.replay.jsonl", "-q"]) == 0


TEXTS = st.text(st.sampled_from("a名\u0301\u200b\x1b\n\u202e\U0001f468\ud800 é/") | st.characters(), max_size=60)


@given(TEXTS, st.integers(0, 30), st.booleans(), st.booleans())
def test_a_fitted_text_takes_its_cells_and_is_harmless(text: str, width: int, keep_end: bool, unicode: bool) -> None:
    symbols = UNICODE if unicode else ASCII
    shown = fit(drawable(text, symbols), width, symbols, keep_end=keep_end)
    assert cell_len(shown) == width
    assert all(character.isprintable() for character in shown)
    assert unicode or shown.isascii()


@given(TEXTS, st.integers(2, 20))
def test_wrapped_lines_fit_and_lose_no_character(text: str, width: int) -> None:
    shown = drawable(text)
    lines = wrap(shown, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(shown.split())


def test_names_of_a_million_characters_take_no_time_that_matters() -> None:
    for character in ("x", "名", "é"):
        name = character * 1_000_000
        assert cell_len(fit(name, 40, keep_end=True)) == 40
        assert len(wrap(name[:100_000], 80)) <= 100_000 * 2 // 79 + 1
