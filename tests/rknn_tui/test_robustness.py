"""The engine or the app is killed, stopped or told to end at a bad moment: nothing that a person did is lost."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rknn_tui.real_app import (
    ESCAPE,
    Place,
    cosine_of,
    engines_of,
    is_alive,
    kill_engine,
    wait_for,
)
from tests.terminal import SCRIPTED_ENGINE, Terminal, scripted

if sys.platform != "linux":
    pytest.skip("looks for processes in /proc", allow_module_level=True)

LAST_LINE = b"\x1b[1;5F"
FAULT = "  what: ["


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()
    assert place.left_over() == []


def analysed(place: Place) -> Terminal:
    """The built model with live evaluation."""
    terminal = place.built()
    terminal.press("a")
    terminal.sees("analysed 17 layers")
    terminal.loses("trace errors")
    return terminal


def edited(terminal: Terminal) -> str:
    """Put joined and joined_relu, which make three tensors, into float16; returns the cosine that was measured."""
    terminal.press("g;10jVjVf")
    terminal.sees("*2")
    terminal.waits(lambda: "~" not in cosine_of(terminal), "the cosine to be measured")
    return cosine_of(terminal).rpartition(">")[2]


def brought_back(terminal: Terminal) -> None:
    terminal.press("r")
    terminal.sees("built int8")


def type_fault(terminal: Terminal) -> None:
    """Open the cfg and type a last line that is no YAML."""
    terminal.press("c")
    terminal.sees("quantize_parameters")
    terminal.press(LAST_LINE)
    terminal.press(f"\r{FAULT}")
    terminal.sees("1 fault!")


# The engine


def test_a_killed_engine_loses_no_edit_and_no_number(place: Place) -> None:
    terminal = analysed(place)
    cosine = edited(terminal)
    assert cosine > "0.9"
    for _ in range(2):
        kill_engine(terminal)
        terminal.sees("the engine was ended by SIGKILL")
        terminal.sees("What was built is lost. 2 edits kept. r starts it")
        terminal.sees("engine ended")
        brought_back(terminal)
        terminal.sees("*2")
        terminal.press("a")
        terminal.sees("analysed 17 layers")
        terminal.waits(lambda: cosine_of(terminal).rpartition(">")[2] == cosine, f"the cosine {cosine} again")
    terminal.press("u")
    terminal.sees("undone: edits kept from before")
    terminal.loses("*2")


@pytest.mark.slow
def test_what_is_edited_while_there_is_no_engine_counts_too(place: Place) -> None:
    terminal = analysed(place)
    edited(terminal)
    kill_engine(terminal)
    terminal.sees("2 edits kept")
    terminal.press("Ugf")
    terminal.sees("*3")
    brought_back(terminal)
    terminal.sees("*3")
    assert "f16*" in terminal.line(2)


def test_text_with_a_fault_survives_the_engine(place: Place) -> None:
    terminal = analysed(place)
    edited(terminal)
    type_fault(terminal)
    kill_engine(terminal)
    terminal.sees("2 edits and the cfg as it was typed kept")
    terminal.press("more")
    terminal.sees(f"{FAULT}more")
    terminal.press(ESCAPE)
    terminal.sees("r again")
    brought_back(terminal)
    terminal.press("c")
    terminal.sees("1 fault!")
    terminal.press(LAST_LINE)
    terminal.sees(f"{FAULT}more")
    terminal.sees("did not find expected")
    # The fault mended, the graph's edits are in the text.
    terminal.press(b"\x7f" * (len(FAULT) + 5))
    terminal.loses("1 fault!")
    terminal.press(b"\x1b[1;5H")
    terminal.sees("joined_relu: float16")
    terminal.press(ESCAPE)
    terminal.sees("*2")


@pytest.mark.parametrize(
    ("moment", "then"),
    [
        ("load", "no model is loaded"),
        ("build", "not built"),
        ("search", "int8"),
    ],
)
def test_a_killed_job_is_told_and_can_be_begun_again(place: Place, moment: str, then: str) -> None:
    name = {"load": "halting.onnx", "build": "slow.onnx", "search": "long-20.onnx"}[moment]
    (place.models / "dataset.txt").write_text("a.npy\n")
    terminal = place.started(scripted(place.models / name))
    if moment == "load":
        terminal.sees("read")
    else:
        terminal.sees("30 layers")
        terminal.press("b")
        terminal.sees("calibration dataset")
        terminal.type(str(place.models / "dataset.txt"))
    if moment == "build":
        terminal.sees("calibrate 0%")
    if moment == "search":
        terminal.sees("built int8")
        terminal.press("jf")
        terminal.sees("*1")
        terminal.press("A")
        terminal.sees("search until")
        terminal.press("\r")
        terminal.sees("search 33%")
    kill_engine(terminal)
    terminal.sees("the engine was ended by SIGKILL")
    terminal.press("4")
    terminal.sees("failed")
    terminal.press(b"1")
    terminal.press("r")
    if moment == "load":
        terminal.sees("read")
        terminal.press("x")
        terminal.sees("load: cancelled")
    else:
        terminal.loses("engine ended")
        terminal.sees(then)
    if moment == "search":
        terminal.sees("*1")
        terminal.sees("built int8")


def test_an_engine_that_never_comes_up_is_started_once_and_can_be_left(place: Place) -> None:
    count = place.folder / "starts"
    dying = place.folder / "dying.py"
    dying.write_text(f"import sys; open({str(count)!r}, 'a').write('.'); sys.exit('no engine today')")
    command = scripted(place.models / "layers-5.onnx")
    assert command[-1] == str(SCRIPTED_ENGINE)
    terminal = place.started([*command[:-1], str(dying)])
    terminal.sees("the engine ended with exit code 1")
    terminal.sees("no engine today")
    terminal.read_for(1.0)
    assert count.read_text() == "."
    terminal.press("r")
    wait_for(lambda: count.read_text() == "..", "the second start")
    terminal.sees("no engine today")
    terminal.read_for(0.5)
    assert count.read_text() == ".."
    terminal.press("q")
    assert terminal.process.wait(10) == 0


def test_a_stopped_engine_holds_up_no_key(place: Place) -> None:
    terminal = analysed(place)
    (engine,) = engines_of(terminal)
    os.kill(engine, signal.SIGSTOP)
    terminal.press("c")
    # More than a pipe takes: each change sends the whole text.
    terminal.press(b"\x1b[200~" + b"# a long line\n" * 10_000 + b"\x1b[201~")
    terminal.sees("a long line")
    terminal.press("typed at the end")
    terminal.sees("typed at the end")
    os.kill(engine, signal.SIGCONT)


# The app


def app_ended(terminal: Terminal, engines: list[int]) -> None:
    terminal.process.wait(15)
    wait_for(lambda: not any(map(is_alive, engines)), "the engine to end with the app")


def sent(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: os.kill(terminal.process.pid, number)


WAYS = {
    "SIGKILL": (sent(signal.SIGKILL), -signal.SIGKILL),
    "SIGHUP": (sent(signal.SIGHUP), 129),
    "SIGTERM": (sent(signal.SIGTERM), 143),
    "hang-up": (Terminal.hang_up, 129),
}


@pytest.mark.parametrize(
    "way", ["SIGKILL", "hang-up", *(pytest.param(way, marks=pytest.mark.slow) for way in ("SIGHUP", "SIGTERM"))]
)
def test_edits_outlive_the_app(place: Place, way: str) -> None:
    terminal = place.built()
    engines = engines_of(terminal)
    end, code = WAYS[way]
    terminal.press("f")
    terminal.sees("*1")
    # SIGKILL cannot be heard: what was edited a moment before is in the file already.
    time.sleep(0.1 if way == "SIGKILL" else 0.0)
    end(terminal)
    app_ended(terminal, engines)
    assert terminal.process.returncode == code
    again = place.built(told="1 edit of ")
    again.sees("that were not saved are back: u takes")
    again.sees("*1")
    again.press("u")
    again.sees("undone: unsaved edits of")
    again.loses("*1")
    again.press("\x12")
    again.sees("*1")


def test_typed_text_outlives_the_app_with_its_fault_and_the_edits_beside_it(place: Place) -> None:
    terminal = place.built()
    type_fault(terminal)
    # An edit of the graph that the faulty text does not have.
    terminal.press(ESCAPE)
    terminal.sees("A repair")
    terminal.press("f")
    terminal.sees("*1")
    terminal.press("c")
    terminal.sees("tab graph")
    terminal.press("!")
    terminal.sees(f"{FAULT}!")
    time.sleep(0.1)
    os.kill(terminal.process.pid, signal.SIGKILL)
    terminal.process.wait(10)

    again = place.built(told="1 edit and the cfg's text of ")
    again.sees("*1")
    again.press("c")
    again.sees("1 fault!")
    again.press(LAST_LINE)
    again.sees(f"{FAULT}!")
    again.press(b"\x7f" * (len(FAULT) + 1))
    again.loses("1 fault!")
    again.press(b"\x1b[1;5H")
    again.sees("image: float16")
    # One step brought all of it, and one takes it away.
    again.press("\x1a")
    again.sees("undone: edit of the cfg")
    again.press("\x1a")
    again.sees("undone: unsaved edits of")
    again.loses("*1")
    again.sees("custom_quantize_layers: {}")


def test_what_was_saved_undone_or_left_on_purpose_is_not_offered_again(place: Place) -> None:
    terminal = place.built()
    terminal.press("f")
    terminal.sees("*1")
    terminal.press("w")
    terminal.sees("save the cfg as")
    terminal.press("\r")
    terminal.sees("digits.data")
    os.kill(terminal.process.pid, signal.SIGKILL)
    terminal.process.wait(10)

    undone = place.built(told="was saved for this model")
    undone.press("f")
    undone.sees("*1")
    undone.read_for(0.2)
    undone.press("u")
    undone.loses("*1")
    undone.read_for(0.2)
    os.kill(undone.process.pid, signal.SIGKILL)
    undone.process.wait(10)

    left = place.built(told="was saved for this model")
    left.press("f")
    left.sees("*1")
    left.press("q")
    left.sees("1 edit not saved")
    left.read_for(0.4)
    left.press("y")
    assert left.process.wait(10) == 0

    last = place.built(told="was saved for this model")
    assert "*1" not in last.line(0)


@pytest.mark.slow
def test_edits_wait_until_their_model_is_built(place: Place) -> None:
    """Neither another start without a build, nor a build in float16, loses them."""
    terminal = place.built()
    terminal.press("f")
    terminal.sees("*1")
    terminal.hang_up()
    terminal.process.wait(10)
    for key, seen in (("j", "layers, "), ("F", "built float16")):
        between = place.app()
        between.sees("layers, ")
        between.press(key)
        between.sees(seen)
        between.press("q")
        assert between.process.wait(10) == 0
    place.built(told="1 edit of ")


def loaded(terminal: Terminal, model: Path) -> None:
    """Wait until a model's load is over: what the load before it told may stand on the screen until then."""
    terminal.loses("open a model")
    terminal.waits(lambda: model.name in terminal.line(0), model.name)
    terminal.sees("layers, ")
    terminal.read(2.0)


@pytest.mark.slow
def test_another_model_is_opened_without_the_edits_which_come_back_with_theirs(place: Place) -> None:
    other = place.models / "other.onnx"
    other.write_bytes(place.model.read_bytes())
    terminal = place.built()
    terminal.press("f")
    terminal.sees("*1")
    kill_engine(terminal)
    terminal.sees("1 edit kept")
    terminal.press("o")
    terminal.sees("open a model")
    terminal.type(str(other))
    loaded(terminal, other)
    assert "*1" not in terminal.line(0)
    assert "not built" in terminal.line(0)
    terminal.press("o")
    terminal.sees("open a model")
    terminal.type(str(place.model))
    loaded(terminal, place.model)
    terminal.press("b")
    terminal.sees("1 edit of ")
    terminal.sees("*1")


def test_a_suspended_app_comes_back(place: Place) -> None:
    terminal = place.started(scripted(place.models / "layers-30.onnx"))
    terminal.sees("30 layers")
    os.kill(terminal.process.pid, signal.SIGTSTP)
    given_back = terminal.read_until(b"\x1b[?1049l")
    assert b"\x1b[?25h" in given_back
    assert termios.tcgetattr(terminal.slave)[3] == terminal.modes[3]
    os.kill(terminal.process.pid, signal.SIGCONT)
    terminal.read_until(b"out_3")
    terminal.press("jj")
    terminal.waits(lambda: terminal.line(4).startswith("▶"), "the cursor to move")
    terminal.press("q")
    assert terminal.process.wait(10) == 0


@pytest.mark.slow
def test_an_app_whose_terminal_takes_nothing_still_ends_when_told(place: Place) -> None:
    terminal = place.started(scripted(place.models / "layers-5000.onnx"))
    terminal.sees("5000 layers")
    engines = engines_of(terminal)
    # Nobody reads: the terminal's line is full after some pages.
    stop = threading.Event()

    def press() -> None:
        while not stop.is_set():
            try:
                os.write(terminal.master, b"\x1b[6~\x1b[5~" * 20)
            except OSError:
                return
            time.sleep(0.01)

    os.set_blocking(terminal.master, False)
    thread = threading.Thread(target=press)
    thread.start()
    try:
        time.sleep(2.0)
        os.kill(terminal.process.pid, signal.SIGTERM)
        app_ended(terminal, engines)
    finally:
        stop.set()
        thread.join()
    assert terminal.process.returncode == 143


CRASHING = """
import sys
from rknn_tui.app import Workshop
from rknn_tui.widgets.graph_view import GraphView
def row_line(self, row):
    if self.cursor == 2:
        raise ValueError("[/not] markup,\\n" + "x" * 10_000)
    return drawn(self, row)
drawn, GraphView.row_line = GraphView.row_line, row_line
import rknn_tui.app
sys.exit(rknn_tui.app.run(sys.argv[1], {"dataset": sys.argv[2], "config": {"std_values": [[255]]}}))
"""


def test_a_fault_of_the_app_is_one_sentence_and_keeps_edits(place: Place) -> None:
    from engine import demo

    terminal = place.started([sys.executable, "-c", CRASHING, str(place.model), str(demo.DATASET)])
    terminal.sees("layers, ")
    terminal.press("b")
    terminal.sees("built int8")
    engines = engines_of(terminal)
    terminal.press("f")
    terminal.sees("*1")
    terminal.press("jj")
    terminal.press("f")
    app_ended(terminal, engines)
    end = terminal.read(0.5)
    assert terminal.process.returncode == 1
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    told = end.rpartition(b"\x1b[?1004l")[2].decode()
    assert b"\x1b[?1049l" in end
    assert "Traceback" not in told
    assert "ended by a fault of its own (ValueError: [/not] markup, xxx" in " ".join(told.split())
    assert "Unsaved edits are kept" in " ".join(told.split())
    assert len(told) < 700
    log = place.folder / "state" / "rknn-tui" / "crash.log"
    assert "row_line" in log.read_text()
    place.built(told="are back")
