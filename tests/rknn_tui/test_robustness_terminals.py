"""Terminals of any size, kind and speed: no key is lost, nothing falls over, and the way out always works."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from tests.rknn_tui.real_app import ESCAPE, Place
from tests.terminal import Terminal, scripted

pytestmark = pytest.mark.slow

TOO_SMALL = "60x16 needed, q quits"
ESCAPES = (b"\x1b[?1049l", b"\x1b[?25h")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    (place.models / "dataset.txt").write_text("a.npy\n")
    yield place
    place.close()


def opened(place: Place, model: str, width: int = 80, height: int = 24, **environment: str | None) -> Terminal:
    return place.started(scripted(place.models / model), width, height, **environment)


def build(terminal: Terminal) -> None:
    terminal.press("b")
    terminal.sees("calibration dataset")
    terminal.press("\r")


def read_only(terminal: Terminal, quiet: float = 0.4, most: float = 30.0) -> bytes:
    """What is written, without emulating a terminal that large."""
    data, end = b"", time.monotonic() + most
    while time.monotonic() < end and select.select([terminal.master], [], [], quiet)[0]:
        data += os.read(terminal.master, 1 << 16)
    return data


def left(terminal: Terminal) -> bytes:
    """Quit; returns what was written until the end."""
    terminal.press("q")
    data = b""
    end = time.monotonic() + 15
    while terminal.process.poll() is None and time.monotonic() < end:
        data += read_only(terminal, 0.05, 0.5)
    assert terminal.process.wait(1) == 0
    return data + read_only(terminal, 0.1, 1.0)


# Sizes


@pytest.mark.parametrize(
    "way", ["window", *(pytest.param(way, marks=pytest.mark.slow) for way in ("variable", "report"))]
)
def test_a_hundred_thousand_columns_cost_no_more_than_a_large_screen(place: Place, way: str) -> None:
    # A window's size has 16 bits; the others may say anything.
    width = 65_535 if way == "window" else 80
    terminal = opened(place, "layers-30.onnx", **({"COLUMNS": "100000"} if way == "variable" else {}))
    terminal.sees("30 layers") if way == "report" else read_only(terminal)
    if way == "window":
        terminal._set_size(width, 24)
        os.kill(terminal.process.pid, signal.SIGWINCH)
    if way == "report":
        terminal.press(b"\x1b[48;24;100000;480;800000t")
    wide = len(read_only(terminal))
    assert wide < 200_000
    for key in ("j", "2", "4", "1", "?"):
        terminal.press(key)
        assert read_only(terminal), key
    terminal.press(ESCAPE)
    read_only(terminal)
    assert terminal.resident is None or terminal.resident < 100 << 20
    left(terminal)


@pytest.mark.parametrize(
    "size", [(80, 3), (0, 0), *(pytest.param(size, marks=pytest.mark.slow) for size in ((1, 1), (59, 15)))]
)
def test_a_terminal_too_small_for_anything_can_be_left(place: Place, size: tuple[int, int]) -> None:
    terminal = opened(place, "layers-30.onnx", *(80, 24))
    terminal.sees("30 layers")
    terminal.resize(*(max(one, 1) for one in size))
    terminal._set_size(*size)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.read(0.3)
    if size[0] >= 59:
        assert TOO_SMALL in terminal.text
    # No key does what nobody sees.
    terminal.press("jjFo")
    terminal.read(0.3)
    terminal.resize(80, 24)
    if size != (0, 0):
        terminal.sees("▶  0")
        assert "not built" in terminal.text
    terminal.press(ESCAPE)
    terminal.read(0.3)
    left(terminal)


def test_a_start_on_a_terminal_without_cells_is_one_on_80x24(place: Place) -> None:
    terminal = opened(place, "layers-30.onnx", 0, 0)
    assert b"30 layers" in read_only(terminal, 5.0)
    assert read_only(terminal, 1.0, 1.0) == b""
    left(terminal)


def test_three_rows_are_enough_to_be_asked_and_to_answer(place: Place) -> None:
    terminal = opened(place, "slow.onnx")
    terminal.sees("30 layers")
    terminal.press("F")
    terminal.sees("calibrate")
    terminal.resize(80, 3)
    terminal.sees(TOO_SMALL)
    terminal.press("q")
    terminal.sees("build float16 is running and would be lost. y quits")
    terminal.read_for(0.4)
    terminal.press("n")
    terminal.sees(TOO_SMALL)
    terminal.press("q")
    terminal.sees("y quits")
    terminal.read_for(0.4)
    terminal.press("y")
    assert terminal.process.wait(10) == 0


def test_a_prompt_goes_on_after_the_terminal_was_too_small(place: Place) -> None:
    terminal = opened(place, "layers-30.onnx")
    terminal.sees("30 layers")
    terminal.press("/out_1")
    terminal.sees("11/30 layers")
    terminal.resize(80, 3)
    terminal.sees("60x16 needed, esc goes back")
    terminal.resize(80, 24)
    terminal.sees("11/30 layers")
    terminal.press("2")
    terminal.sees("1/30 layers")
    terminal.press("\r")
    terminal.sees("q quit")


SIZES = [(80, 24), (80, 3), (1, 1), (0, 0), (59, 15), (60, 16), (200, 50), (120, 34), (119, 20), (300, 10), (20, 60)]
PLACES = {
    "layers": "",
    "charts": "2",
    "devices": "3",
    "log": "4l",
    "compare": "5",
    "keys": "?",
    "messages": "'",
    "picker": "o",
    "candidates": "T",
    "prompt": "/out",
    "dataset": "D",
    "whole": "+",
}


@pytest.mark.parametrize(
    "name", [*(pytest.param(n, marks=pytest.mark.slow) for n in list(PLACES)[2:]), "charts", "layers"]
)
def test_two_hundred_sizes_in_a_burst_while_a_job_runs(place: Place, name: str) -> None:
    resized_while_a_job_runs(place, name, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize("name", PLACES)
def test_more_bursts_of_sizes(place: Place, name: str, seed: int) -> None:
    resized_while_a_job_runs(place, name, seed)


def resized_while_a_job_runs(place: Place, name: str, seed: int) -> None:
    chance = random.Random(seed)
    terminal = opened(place, "graph-60-lasting.onnx")
    terminal.sees("60 layers")
    build(terminal)
    terminal.sees("calibrate")
    terminal.press(PLACES[name])
    terminal.read(0.2, 1.0)
    for _ in range(200):
        size = chance.choice(SIZES) if chance.random() < 0.5 else (chance.randint(0, 250), chance.randint(0, 70))
        terminal._set_size(*size)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        if chance.random() < 0.2:
            terminal.press(chance.choice(["\x1b[A", "\x1b[B", "\x1b[5~", "\x1b[6~"]))
        if chance.random() < 0.2:
            read_only(terminal, 0.005, 0.02)
    read_only(terminal, 0.2, 2.0)
    terminal.screen.reset()
    terminal.resize(81, 24)
    terminal.resize(80, 24)
    terminal.read(0.4, 3.0)
    assert terminal.process.poll() is None, terminal.text
    for _ in range(3):
        terminal.press(ESCAPE)
        terminal.read(0.2, 1.0)
    terminal.sees("x cancel")
    terminal.press("x")
    terminal.sees("build int8: cancelled")
    left(terminal)


# Kinds


@pytest.mark.parametrize(
    "environment",
    [
        {"TERM": "linux", "COLORTERM": ""},
        pytest.param({"TERM": "vt100", "COLORTERM": ""}, marks=pytest.mark.slow),
        {"TERM": None, "COLORTERM": None},
        pytest.param({"TERM": "nonsense"}, marks=pytest.mark.slow),
        pytest.param({"LANG": "C", "LC_ALL": "C"}, marks=pytest.mark.slow),
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"NO_COLOR": "1"}, marks=pytest.mark.slow),
        pytest.param({"COLUMNS": "banana", "LINES": "-5"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_any_kind_of_terminal_is_one(place: Place, environment: dict[str, str | None]) -> None:
    terminal = opened(place, "layers-30 ü 名.onnx", **environment)
    terminal.sees("30 layers, 123.5k parameters")
    terminal.press("jj")
    terminal.waits(lambda: terminal.line(4).lstrip(">▶").startswith("  2 "), "the cursor to move")
    if environment.get("LANG") == "C":
        assert terminal.text.isascii()
    end = left(terminal)
    assert all(code in end for code in ESCAPES)


# Keys


def test_bytes_that_are_no_utf_8_are_keys_like_others(place: Place) -> None:
    terminal = opened(place, "layers-30.onnx")
    terminal.sees("30 layers")
    terminal.press(b"\xe9\xff\xfe\x80j")
    terminal.waits(lambda: terminal.line(3).startswith("▶"), "the key after them")
    terminal.press(b"/o\xe9\x7fut_2")
    terminal.sees("11/30 layers")
    # Characters that are cut in two by the line come whole.
    terminal.press(b"\xc3")
    terminal.read_for(0.3)
    terminal.press(b"\xa9")
    terminal.sees("out_2é")


def test_keys_typed_ahead_go_where_they_are_meant_to(place: Place) -> None:
    terminal = opened(place, "layers-30.onnx")
    terminal.sees("30 layers")
    terminal.press("/out_17\r")
    terminal.sees("  1/30 layers")
    assert "out_17" in terminal.line(2)
    terminal.press("/\x15\r:last row\r")
    terminal.waits(lambda: terminal.line(-8).startswith("▶ 29"), "the last row")
    terminal.press("2]]1kk")
    terminal.waits(lambda: terminal.line(-10).startswith("▶ 27"), "the moves after the charts")
    terminal.press("?quit")
    terminal.sees("leave  :quit")
    terminal.press(ESCAPE)
    terminal.loses("leave  :quit")
    (place.models / "layers-7.onnx").touch()
    terminal.press(f"o{place.models}/layers-7.onnx\r")
    terminal.sees("7 layers")
    terminal.press("b\rjf")
    terminal.sees("built int8")


@pytest.mark.parametrize(
    "keys", ["jjjkjj/out_9\r", pytest.param("jj\x04\x15" * 5 + "2143125112jj1/out_9\r", marks=pytest.mark.slow)]
)
def test_a_slow_terminal_loses_no_key(place: Place, keys: str) -> None:
    """A hundred bytes every 50 ms: a page takes a second, and keys come faster than what they show."""
    terminal = opened(place, "layers-300.onnx")
    terminal.sees("300 layers")
    waiting, quiet = list(keys), 0
    end = time.monotonic() + 120
    while (waiting or quiet < 10) and time.monotonic() < end:
        if waiting:
            terminal.press(waiting.pop(0))
        quiet += 1
        if select.select([terminal.master], [], [], 0)[0]:
            terminal.feed(os.read(terminal.master, 100))
            quiet = 0
        time.sleep(0.05)
    assert "11/300 layers" in terminal.text
    left(terminal)
