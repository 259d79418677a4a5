"""What can go wrong with a board, at every step of the way: the wait is bounded, the message clear, nothing stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api import RKNN
from engine.boards import READY
from engine.devices import discovery, on_board
from engine.devices.discovery import list_boards
from engine.errors import ConfigError, DeviceError, DeviceLostError, DeviceTimeoutError
from engine.session import Session
from tests.doubles.adb_device import AdbServer, wait_for
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import Fault
from tests.end_to_end.compiled_demo import CompiledDemo, compiled_demo, with_runtime

Boards = Callable[..., ConnectedBoard]
MOST_SECONDS = 30.0

pytestmark = pytest.mark.xdist_group("boards")


@pytest.fixture
def board(make_board: Boards) -> ConnectedBoard:
    return with_runtime(make_board())


def session_of(demo: CompiledDemo) -> Session:
    session = Session()
    session.load_rknn(demo.package)
    return session


def plugged_in_again(server: AdbServer, found: ConnectedBoard) -> None:
    found.board.faults.clear()
    found.device.plug()
    server.ask(f"host:disconnect:{found.id}")
    server.connect(found.device)


def works(demo: CompiledDemo, found: ConnectedBoard) -> None:
    with session_of(demo).on_board(found.id) as opened:
        np.testing.assert_allclose(opened.infer([demo.images[0]])[0], demo.outputs[0], atol=1e-6)


def nothing_left(found: ConnectedBoard) -> None:
    """No process and no folder of ours is on the board, at most a moment after its end was asked for."""
    assert wait_for(lambda: not found.board.processes() and not left_on(found))


def left_on(found: ConnectedBoard) -> list[str]:
    return [entry.name for entry in found.board.path("/tmp").iterdir() if entry.name.startswith("rknn-tui-")]


STEPS: dict[str, Callable[[ConnectedBoard], Any]] = {
    "while it is asked what it is": lambda found: found.board.faults.append(Fault("device-tree", "unplug")),
    "before the folder is made": lambda found: found.board.faults.append(Fault("^mkdir", "unplug")),
    "while the agent is pushed": lambda found: setattr(found.board, "unplug_after_bytes", 4096),
    "while the agent starts": lambda found: found.board.faults.append(Fault(" start ", "unplug")),
}


@pytest.mark.parametrize("step", STEPS)
def test_pulled_before_the_model_runs(
    demo: CompiledDemo, board: ConnectedBoard, adb_server: AdbServer, step: str
) -> None:
    STEPS[step](board)
    session, began = session_of(demo), time.monotonic()
    with pytest.raises(DeviceError) as caught:
        session.on_board(board.id)
    assert time.monotonic() - began < MOST_SECONDS
    assert caught.value.where == board.id and caught.value.hint
    # The session is as it was, and the board works once it is there again.
    np.testing.assert_allclose(session.infer([demo.images[0]])[0], demo.outputs[0], atol=1e-6)
    plugged_in_again(adb_server, board)
    works(demo, board)


def test_pulled_during_a_run_and_plugged_in_again(
    board: ConnectedBoard, adb_server: AdbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = compiled_demo(tmp_path, settings={"SLEEP_US": 1_500_000})
    rknn = RKNN()
    try:
        assert rknn.load_rknn(str(slow.package)) == 0
        assert rknn.init_runtime(target="rk3588", device_id=board.id) == 0
        threading.Timer(0.5, board.device.unplug).start()
        began = time.monotonic()
        assert rknn.inference(inputs=[slow.images[0]]) is None
        assert time.monotonic() - began < MOST_SECONDS
        error = capsys.readouterr().err
        assert error.startswith("E inference: ") and error.count("\n") == 1 and board.id in error
        assert not any(one.id == board.id and one.state == READY for one in list_boards().boards)
        # The agent, which nobody can reach, ends its model and then itself.
        plugged_in_again(adb_server, board)
        assert rknn.init_runtime(target="rk3588", device_id=board.id) == 0
        (output,) = rknn.inference(inputs=[slow.images[0]]) or [np.empty(0)]
        np.testing.assert_allclose(output, slow.outputs[0], atol=1e-6)
    finally:
        rknn.release()


def test_rebooted_during_a_measurement(board: ConnectedBoard, adb_server: AdbServer, tmp_path: Path) -> None:
    slow = compiled_demo(tmp_path, settings={"SLEEP_US": 300_000})
    session = session_of(slow)
    with session.on_board(board.id) as opened:
        finished = opened.perf(runs=1, warmup=0)
        threading.Timer(0.5, board.board.reboot).start()
        began = time.monotonic()
        with pytest.raises(DeviceError):
            opened.perf(runs=50, warmup=0)
        assert time.monotonic() - began < MOST_SECONDS
    assert finished.median_us >= 300_000
    nothing_left(board)
    plugged_in_again(adb_server, board)
    works(slow, board)


def test_a_runtime_that_hangs_is_ended(board: ConnectedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = compiled_demo(tmp_path, settings={"HANG": 600})
    monkeypatch.setattr(on_board, "RUN_SECONDS", 1.0)
    began = time.monotonic()
    with session_of(hanging).on_board(board.id) as opened:
        with pytest.raises(DeviceTimeoutError) as caught:
            opened.infer([hanging.images[0]])
        assert time.monotonic() - began < MOST_SECONDS
    assert caught.value.where == board.id
    nothing_left(board)


def test_a_runtime_that_crashes_is_told_with_what_it_printed(board: ConnectedBoard, tmp_path: Path) -> None:
    crashing = compiled_demo(tmp_path, settings={"CRASH": 1, "PRINT": "failed to submit"})
    with session_of(crashing).on_board(board.id) as opened, pytest.raises(DeviceError, match="failed to submit"):
        opened.infer([crashing.images[0]])
    nothing_left(board)


def test_a_model_for_another_chip_is_refused_before_anything_is_sent(demo: CompiledDemo, make_board: Boards) -> None:
    other = with_runtime(make_board("rk3566"))
    with pytest.raises(DeviceError, match="rk3588"):
        session_of(demo).on_board(other.id, path=demo.binary)
    with pytest.raises((DeviceError, ConfigError), match="rk3566"):
        session_of(demo).on_board(other.id, target="rk3588")
    assert other.board.pushed == 0 and not left_on(other)


def test_a_runtime_that_refuses_the_model_is_told_with_the_reason(board: ConnectedBoard, tmp_path: Path) -> None:
    # What the runtimes say of a model of a later compiler.
    refused = compiled_demo(tmp_path, settings={"INIT_ERROR": -6})
    with pytest.raises(DeviceError) as caught:
        session_of(refused).on_board(board.id)
    assert "-6" in str(caught.value) and caught.value.hint
    nothing_left(board)


def test_a_full_disk_is_told(demo: CompiledDemo, board: ConnectedBoard) -> None:
    board.board.disk_bytes = 2000
    with pytest.raises(DeviceError) as caught:
        session_of(demo).on_board(board.id)
    assert "space" in str(caught.value) or "disk" in str(caught.value)
    nothing_left(board)


def test_an_agent_that_is_killed_leaves_nothing_behind_but_for_the_next_to_clear(
    demo: CompiledDemo, board: ConnectedBoard
) -> None:
    with session_of(demo).on_board(board.id) as opened:
        board.board.kill_all()
        with pytest.raises(DeviceLostError):
            opened.infer([demo.images[0]])
    works(demo, board)
    nothing_left(board)


def test_two_clients_of_one_board_are_both_served(demo: CompiledDemo, board: ConnectedBoard) -> None:
    one, two = session_of(demo), session_of(demo)
    with one.on_board(board.id) as first, two.on_board(board.id) as second:
        for image, expected in zip(demo.images, demo.outputs, strict=True):
            np.testing.assert_allclose(first.infer([image])[0], expected, atol=1e-6)
            np.testing.assert_allclose(second.infer([image])[0], expected, atol=1e-6)
    nothing_left(board)


def test_boards_that_cannot_be_used_are_told_of(make_board: Boards, demo: CompiledDemo) -> None:
    locked = make_board(authorized=False)
    (listed,) = list_boards(probe=True).boards
    assert listed.id == locked.id and listed.state != READY and listed.note
    with pytest.raises(DeviceLostError):
        discovery.open_transport(None)
    with pytest.raises(DeviceError):
        session_of(demo).on_board(locked.id)


def test_a_board_without_python_says_what_it_needs(make_board: Boards, demo: CompiledDemo) -> None:
    small = make_board("rv1106", kind="buildroot")
    (listed,) = list_boards(probe=True).boards
    assert listed.facts is not None and any("Python" in problem for problem in listed.facts.problems)
    with pytest.raises(DeviceError):
        session_of(demo).on_board(small.id)
