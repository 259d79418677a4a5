"""The agent on boards over a real adb server: models run there, and what is left behind when a board goes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.devices.link import AgentLink, BoardInput, ModelOptions, open_link
from engine.devices.probing import probe
from engine.devices.transports.adb import AdbTransport
from engine.errors import DeviceLostError
from tests.doubles.board_models import Answer, Port, stand_in_model
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.librknnrt import library
from tests.doubles.own_adb_server import AdbServer, wait_for

X = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
Y = np.arange(256, dtype=np.float32).reshape(1, 4, 8, 8)
INPUTS = [BoardInput(X, "nhwc")]


def model(folder: Path, **settings: object) -> bytes:
    ports = [Port("x", (1, 3, 8, 8), "int8", 0.5, -3)], [Port("y", (1, 4, 8, 8), "int8", 0.25, 1)]
    path = stand_in_model(folder / "model.rknn", "rk3588", *ports, [Answer([X], [Y])], settings=settings)
    return path.read_bytes()


def folders(one: ConnectedBoard) -> list[str]:
    return [path.name for path in one.board.path("/tmp").iterdir()]


@contextlib.contextmanager
def linked(one: ConnectedBoard, *, idle: float = 30.0) -> Iterator[AgentLink]:
    one.board.write("/usr/lib/librknnrt.so", library().read_bytes())
    with AdbTransport(one.id) as transport, open_link(transport, probe(transport), idle=idle) as link:
        yield link


def test_two_boards_run_models_at_once(make_board: Callable[..., ConnectedBoard], tmp_path: Path) -> None:
    content = model(tmp_path)
    with linked(make_board()) as first, linked(make_board()) as second:
        for link in (first, second):
            with link.load(content, "rknn", ModelOptions()) as loaded:
                assert np.array_equal(loaded.run(INPUTS)[0], Y)


def test_nothing_is_left_on_the_board_after_the_link(connected_board: ConnectedBoard, tmp_path: Path) -> None:
    with linked(connected_board) as link:
        link.load(model(tmp_path), "rknn", ModelOptions())
        assert folders(connected_board) and connected_board.board.processes()
    assert wait_for(lambda: not folders(connected_board) and not connected_board.board.processes())


@pytest.mark.slow
def test_unplugged_while_a_model_runs(connected_board: ConnectedBoard, tmp_path: Path) -> None:
    with linked(connected_board, idle=0.5) as link:
        loaded = link.load(model(tmp_path, HANG=30), "rknn", ModelOptions())
        threading.Timer(0.2, connected_board.device.unplug).start()
        began = time.monotonic()
        with pytest.raises(DeviceLostError) as caught:
            loaded.run(INPUTS, seconds=60)
        assert caught.value.where == connected_board.id
        assert time.monotonic() - began < 30
    # The agent ends by itself: nobody came back.
    assert wait_for(lambda: not folders(connected_board) and not connected_board.board.processes())


def test_a_board_that_was_restarted_is_used_again_and_swept(
    connected_board: ConnectedBoard, adb_server: AdbServer, tmp_path: Path
) -> None:
    with linked(connected_board) as link:
        loaded = link.load(model(tmp_path), "rknn", ModelOptions())
        connected_board.device.unplug()
        connected_board.board.kill_all()
        with pytest.raises(DeviceLostError):
            loaded.run(INPUTS)
    left = folders(connected_board)
    assert len(left) == 1
    connected_board.device.plug()
    adb_server.connect(connected_board.device)
    with linked(connected_board) as link, link.load(model(tmp_path), "rknn", ModelOptions()) as loaded:
        assert np.array_equal(loaded.run(INPUTS)[0], Y)
        assert not set(left) & set(folders(connected_board))


@pytest.mark.slow
def test_unplugged_at_any_byte_of_what_is_sent(make_board: Callable[..., ConnectedBoard]) -> None:
    size = 0
    for share in (0.0, 0.3, 0.6, 0.95):
        one = make_board()
        one.board.unplug_after_bytes = int(size * share) or None
        with contextlib.suppress(DeviceLostError), linked(one, idle=0.5):
            size = max(size, one.board.pushed)
        assert wait_for(lambda one=one: not one.board.processes())  # type: ignore[misc]


def test_the_board_has_no_file_that_others_may_read(connected_board: ConnectedBoard) -> None:
    with linked(connected_board):
        (folder,) = connected_board.board.path("/tmp").iterdir()
        for path in (folder, *folder.rglob("*")):
            assert os.lstat(path).st_mode & 0o077 == 0, path
