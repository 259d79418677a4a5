"""Commands, files and streams over a real adb server and a board's adbd of the tests' own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.devices.transport import checked
from engine.devices.transports.adb import AdbTransport
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import Fault
from tests.doubles.own_adb_server import wait_for


@pytest.fixture(params=[True, False], ids=["shell_v2", "first shell"])
def either(request: pytest.FixtureRequest, make_board: Callable[..., ConnectedBoard]) -> ConnectedBoard:
    return make_board(shell_v2=request.param)


@pytest.fixture
def echo() -> Iterator[int]:
    """A port that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection:
                while piece := connection.recv(1 << 16):
                    connection.sendall(piece)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_command_gives_its_exit_code_and_both_outputs(connected_board: ConnectedBoard) -> None:
    with AdbTransport(connected_board.id) as transport:
        done = transport.run("printf 'a\\000\\377'; echo wrong >&2; exit 7")
        assert (done.code, done.out, done.err) == (7, b"a\0\xff", b"wrong\n")
        with pytest.raises(DeviceError, match=r"exit code 3: told why"):
            checked(transport, "echo told why >&2; exit 3")


def test_an_old_adbd_gives_exit_codes_too(make_board: Callable[..., ConnectedBoard]) -> None:
    transport = AdbTransport(make_board(shell_v2=False).id)
    done = transport.run("echo 'it''s one'; exit 7")
    assert (done.code, done.out) == (7, b"its one\n")
    assert transport.run("true").code == 0


def test_input_and_long_commands_arrive_whole(either: ConnectedBoard) -> None:
    transport = AdbTransport(either.id)
    data = b"line\n" * 40_000
    assert transport.run("wc -c; exit 4", data=data).out.split() == [b"200000"]
    done = transport.run(f"cat > /tmp/put; : {'x' * 6000}", data=data)
    assert done.code == 0
    assert either.board.path("/tmp/put").read_bytes() == data
    assert [path.name for path in either.board.path("/tmp").iterdir()] == ["put"]


def test_a_command_that_writes_while_it_reads_blocks_nobody(connected_board: ConnectedBoard) -> None:
    data = os.urandom(4 << 20)
    assert AdbTransport(connected_board.id).run("cat", data=data).out == data


def test_a_file_arrives_with_its_mode(either: ConnectedBoard) -> None:
    transport = AdbTransport(either.id)
    data = os.urandom(300_001)
    for content, mode in ((data, 0o600), (b"", 0o755)):
        transport.push(content, "/tmp/a file", mode=mode)
        path = either.board.path("/tmp/a file")
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == mode


def test_a_full_disk_is_told(connected_board: ConnectedBoard) -> None:
    connected_board.board.disk_bytes = 1 << 20
    with pytest.raises(DeviceError, match="the disk is full") as caught:
        AdbTransport(connected_board.id).push(bytes(8 << 20), "/tmp/file")
    assert caught.value.where == connected_board.id
    assert "room" in caught.value.hint


def test_a_file_that_cannot_be_written_says_why(connected_board: ConnectedBoard) -> None:
    connected_board.board.path("/tmp/folder").mkdir()
    with pytest.raises(DeviceError, match="directory"):
        AdbTransport(connected_board.id).push(b"x", "/tmp/folder")


def test_streams_carry_bytes_both_ways_and_end_with_the_transport(connected_board: ConnectedBoard, echo: int) -> None:
    data = os.urandom(1 << 20)
    with AdbTransport(connected_board.id) as transport:
        first, second = transport.connect(echo), transport.connect(echo)
        for stream in (first, second):
            sender = threading.Thread(target=stream.sendall, args=(data,))
            sender.start()
            received = b""
            while len(received) < len(data):
                received += stream.recv(1 << 16)
            sender.join()
            assert received == data
    assert first.fileno() == second.fileno() == -1


def test_a_port_that_nothing_listens_on_is_refused(connected_board: ConnectedBoard, echo: int) -> None:
    transport = AdbTransport(connected_board.id)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(DeviceError):
        transport.connect(port)


def test_two_boards_at_once_keep_apart(make_board: Callable[..., ConnectedBoard]) -> None:
    boards = [make_board("rk3588"), make_board("rk3566")]
    answers: dict[str, bytes] = {}

    def ask(one: ConnectedBoard) -> None:
        transport = AdbTransport(one.id)
        transport.push(one.id.encode(), "/tmp/name")
        answers[one.id] = transport.run("sleep 0.1; cat /tmp/name").out

    threads = [threading.Thread(target=ask, args=(one,)) for one in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {one.id: one.id.encode() for one in boards}


def test_a_command_that_does_not_end_is_given_up_and_ended(connected_board: ConnectedBoard) -> None:
    with pytest.raises(DeviceTimeoutError, match="did not answer within") as caught:
        AdbTransport(connected_board.id).run("sleep 100", seconds=0.2)
    assert caught.value.where == connected_board.id
    assert wait_for(lambda: not connected_board.board.processes())


def test_unplugged_in_the_middle_of_a_command(either: ConnectedBoard) -> None:
    threading.Timer(0.2, either.device.unplug).start()
    began = time.monotonic()
    with pytest.raises(DeviceLostError):
        AdbTransport(either.id).run("echo begun; sleep 100", seconds=60)
    assert time.monotonic() - began < 30


def test_unplugged_when_a_command_begins(connected_board: ConnectedBoard) -> None:
    connected_board.board.faults.append(Fault("second", "unplug"))
    transport = AdbTransport(connected_board.id)
    assert transport.run("echo first").code == 0
    for _ in range(2):
        with pytest.raises(DeviceLostError):
            transport.run("echo second", seconds=20)


def test_unplugged_in_the_middle_of_a_file(connected_board: ConnectedBoard) -> None:
    connected_board.board.unplug_after_bytes = 1 << 20
    with pytest.raises(DeviceLostError):
        AdbTransport(connected_board.id).push(bytes(16 << 20), "/tmp/file", seconds=30)


def test_unplugged_in_the_middle_of_a_stream(connected_board: ConnectedBoard, echo: int) -> None:
    with AdbTransport(connected_board.id) as transport:
        stream = transport.connect(echo)
        stream.sendall(b"here")
        assert stream.recv(4) == b"here"
        connected_board.device.unplug()
        stream.settimeout(20)
        with contextlib.suppress(ConnectionError):
            assert stream.recv(4) == b""


def test_a_board_that_is_not_there_is_lost(connected_board: ConnectedBoard) -> None:
    with pytest.raises(DeviceLostError, match="no such board") as caught:
        AdbTransport("absent").run("true")
    assert caught.value.where == "absent"


def test_plugged_in_again_it_is_used_again(connected_board: ConnectedBoard, adb_server: object) -> None:
    transport = AdbTransport(connected_board.id)
    connected_board.device.unplug()
    assert wait_for(lambda: f"{connected_board.id}\tdevice" not in adb_server.ask("host:devices"))  # type: ignore[attr-defined]
    connected_board.device.plug()
    adb_server.connect(connected_board.device)  # type: ignore[attr-defined]
    assert transport.run("echo again").out == b"again\n"
