"""What is made of adb's answers, with sockets of the test for servers that answer amiss."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.boards import Board
from engine.devices import adb_listing
from engine.devices.adb_listing import list_devices, parse_devices, track
from engine.devices.adb_server import Address, server_address
from engine.devices.transports.adb import AdbTransport
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError, InputError
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.own_adb_server import free_port, wait_for

LISTING = """\
7f1a2b3c4d5e6f70       device usb:3-1 product:rk3588_s model:rk3588_s device:rk3588_s transport_id:4
192.168.1.17:5555      offline product:rv1106 model:RV1106 device:rv1106 transport_id:12
0123456789ABCDEF       unauthorized usb:1-4.2 transport_id:2
(no serial number)     no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:1-2 transport_id:1
"""


@contextlib.contextmanager
def answering(*answers: bytes | None) -> Iterator[Address]:
    """A server that takes one question, then says each of `answers` to the next one; None says nothing at all."""
    over = threading.Event()

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                if answer is None:
                    over.wait(10)
                else:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Address(port=listener.getsockname()[1])
        finally:
            over.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def said(text: str, status: bytes = b"OKAY") -> bytes:
    return status + b"%04x" % len(text.encode()) + text.encode()


def test_the_listing_is_read_as_adb_writes_it() -> None:
    ready, offline, unauthorized, forbidden = parse_devices(LISTING)
    assert ready == Board("7f1a2b3c4d5e6f70", "adb", "device", "", "rk3588_s", "rk3588_s", "usb:3-1")
    assert (offline.id, offline.state) == ("192.168.1.17:5555", "offline")
    assert "plug it in again" in offline.note
    assert (unauthorized.state, unauthorized.path) == ("unauthorized", "usb:1-4.2")
    assert "accept the key" in unauthorized.note
    assert (forbidden.state, forbidden.path) == ("no permissions", "usb:1-2")
    assert "2207" in forbidden.note and "plugdev" in forbidden.note
    assert parse_devices("serial\tdevice\n") == [Board("serial", "adb", "device")]
    assert parse_devices("") == parse_devices("\n \nserial\n") == []


@given(st.text(max_size=300) | st.lists(st.sampled_from(["serial ", "device", "model:", "\n", "\t", "no permissions"])))
def test_any_answer_is_read_without_trouble(text: str | list[str]) -> None:
    for one in parse_devices("".join(text)):
        assert one.id and one.state
        assert one.note or one.state == "device"


def test_a_listing_without_end_is_cut() -> None:
    assert len(parse_devices("serial device\n" * 5000)) == adb_listing.MOST_DEVICES


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, Address("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "5038"}, Address("127.0.0.1", 5038)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "builder", "ANDROID_ADB_SERVER_PORT": "1"}, Address("builder", 1)),
        ({"ADB_SERVER_SOCKET": "tcp:5039", "ANDROID_ADB_SERVER_PORT": "5038"}, Address("127.0.0.1", 5039)),
        ({"ADB_SERVER_SOCKET": "tcp:localhost:5040"}, Address("127.0.0.1", 5040)),
        ({"ADB_SERVER_SOCKET": "tcp:[::1]:5041"}, Address("::1", 5041)),
        ({"ADB_SERVER_SOCKET": "localfilesystem:/run/adb"}, Address(path="/run/adb")),
        ({"ADB_SERVER_SOCKET": "localabstract:adb"}, Address(path="\0adb")),
    ],
)
def test_the_server_is_looked_for_where_adb_would(environment: dict[str, str], address: Address) -> None:
    assert server_address(environment) == address


@pytest.mark.parametrize("name", ["tcp:", "tcp:0", "tcp:70000", "vsock:1:2", "local:", "5037"])
def test_a_wrong_address_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(InputError, match="ADB_SERVER_SOCKET"):
        server_address({"ADB_SERVER_SOCKET": name})


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not an adb server"),
        (b"OKAYzzzz", "not an adb server"),
        (b"OKAY0100short", "ended its answer early"),
        (b"", "ended its answer early"),
        (said("unknown host service", b"FAIL"), "unknown host service"),
    ],
)
def test_a_server_that_answers_amiss_is_told_of(answer: bytes, text: str) -> None:
    with answering(answer) as address, pytest.raises(DeviceError, match=text):
        list_devices(address)


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with answering(None) as address, pytest.raises(DeviceTimeoutError, match="adb kill-server"):
        list_devices(address, seconds=0.1)


def test_a_server_behind_a_unix_socket_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DeviceLostError, match="nothing listens"):
        list_devices(Address(path=str(tmp_path / "none")))


def test_no_server_is_started_and_the_way_to_start_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adb_environment: None
) -> None:
    port = free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    called = tmp_path / "called"
    (tmp_path / "adb").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceLostError, match="start it with adb start-server"):
        list_devices()
    with pytest.raises(DeviceLostError, match="start it with adb start-server"):
        AdbTransport("board").run("true")
    (tmp_path / "adb").unlink()
    with pytest.raises(DeviceLostError, match="adb is not installed"):
        list_devices()
    assert not called.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_an_older_server_is_followed_too() -> None:
    with answering(said("unknown service", b"FAIL"), said("a\tdevice\n") + b"0000") as address:
        changes = list(track(address))
    assert [[one.id for one in boards] for boards in changes] == [["a"], []]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("device 'x' not found", "no such board"),
        ("device offline", "offline"),
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "accept the key"),
        ("insufficient permissions for device", "udev"),
    ],
)
def test_a_board_that_cannot_be_used_is_lost_with_the_reason(text: str, match: str) -> None:
    with answering(said("shell_v2"), said(text, b"FAIL")) as address, pytest.raises(DeviceLostError, match=match):
        AdbTransport("x", address).run("true")


def test_a_board_is_told_of_when_it_comes_and_goes(connected_board: ConnectedBoard) -> None:
    seen: list[tuple[Board, ...]] = []
    follow = track()
    seen.append(next(follow))
    assert connected_board.id in {one.id for one in seen[0]}
    thread = threading.Thread(target=lambda: seen.extend(iter(lambda: next(follow), None)), daemon=True)
    thread.start()
    connected_board.device.unplug()
    assert wait_for(lambda: not any(one.id == connected_board.id and one.state == "device" for one in seen[-1]))


def test_a_board_that_accepts_no_key_is_listed_as_such(make_board: Callable[..., ConnectedBoard]) -> None:
    board = make_board(authorized=False)
    assert wait_for(lambda: [one.state for one in list_devices() if one.id == board.id] == ["unauthorized"])
    with pytest.raises(DeviceLostError, match="key"):
        AdbTransport(board.id).run("true")
