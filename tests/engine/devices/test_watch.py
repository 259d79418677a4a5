"""The process that watches the boards: what it tells, when, and that it ends whatever a board does."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from engine.boards import READY, Board
from engine.host_protocol import rebuild
from tests.doubles.adb_device import AdbServer, free_port
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import Fault

Boards = Callable[..., ConnectedBoard]
pytestmark = pytest.mark.xdist_group("boards")


class Watcher:
    """The process, and the events that it told."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "engine.devices.watch"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def sees(self, wanted: Callable[[dict[str, Board], list[str]], bool], seconds: float = 15.0) -> dict[str, Board]:
        """The boards by id of the first event that is as `wanted`."""
        end = time.monotonic() + seconds
        told: Any = None
        while True:
            try:
                event = self.events.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not told in time; the last was {told}") from None
            boards = {one.id: one for one in rebuild(tuple[Board, ...], event["boards"])}
            told = event
            if wanted(boards, event["faults"]):
                return boards

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(10)
        self._reader.join(10)
        self.process.stdout.close()


@pytest.fixture
def watch(adb_server: AdbServer) -> Iterator[Watcher]:
    found = Watcher()
    yield found
    found.end()


def test_boards_come_and_go_and_tell_what_they_are(watch: Watcher, make_board: Boards, adb_server: AdbServer) -> None:
    watch.sees(lambda boards, faults: not boards and not faults)
    one, two = make_board("rk3588"), make_board("rk3566")
    boards = watch.sees(lambda boards, _: all(found.facts for found in boards.values()) and len(boards) == 2)
    assert [boards[found.id].facts.chip for found in (one, two)] == ["rk3588", "rk3566"]  # type: ignore[union-attr]
    two.device.unplug()
    boards = watch.sees(lambda boards, _: two.id not in boards or boards[two.id].state != READY)
    assert boards[one.id].state == READY
    two.device.plug()
    adb_server.ask(f"host:disconnect:{two.id}")
    adb_server.connect(two.device)
    watch.sees(lambda boards, _: two.id in boards and boards[two.id].facts is not None)


@pytest.mark.slow
def test_readings_come_while_somebody_looks_and_only_then(watch: Watcher, connected_board: ConnectedBoard) -> None:
    name, board = connected_board.id, connected_board.board
    watch.sees(lambda boards, _: name in boards and boards[name].facts is not None)
    board.write("/sys/class/thermal/thermal_zone1/temp", "61000\n")
    asked = len(board.commands)
    time.sleep(3.5)
    assert len(board.commands) == asked
    watch.tell(visible=True)
    found = watch.sees(lambda boards, _: boards[name].facts.temperature == 61.0)  # type: ignore[union-attr]
    assert found[name].facts is not None and found[name].facts.chip == "rk3588"
    watch.tell(visible=False)


def test_a_board_that_hangs_keeps_neither_the_others_nor_the_end_waiting(watch: Watcher, make_board: Boards) -> None:
    silent = make_board()
    silent.board.faults.append(Fault(".", "hang", times=100))
    other = make_board("rk3566")
    boards = watch.sees(lambda boards, _: other.id in boards and boards[other.id].facts is not None)
    assert boards[silent.id].facts is None
    began = time.monotonic()
    watch.end()
    assert time.monotonic() - began < 5


def test_without_a_server_it_says_so_and_goes_on_when_there_is_one(
    adb_server: AdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
    watch = Watcher()
    try:
        watch.sees(lambda boards, faults: not boards and any("adb start-server" in fault for fault in faults))
        watch.tell(nonsense=[1], refresh=True)
        assert watch.process.stdin is not None
        watch.process.stdin.write(b"no json\n[1]\n")
        watch.process.stdin.flush()
        assert watch.process.poll() is None
    finally:
        watch.end()
    assert watch.process.returncode == 0


def test_it_is_a_small_process(adb_server: AdbServer) -> None:
    code = "import sys, engine.devices.watch; print([m for m in ('numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
