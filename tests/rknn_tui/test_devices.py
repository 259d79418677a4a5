"""What adb's server answers, and what the devices screen makes of it. The servers here are sockets of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from rknn_tui import adb
from rknn_tui.adb import AdbError, Address, Device, explanation, list_devices, parse_devices, server_address
from rknn_tui.screens.devices import DevicesScreen
from rknn_tui.symbols import ASCII
from tests.rknn_tui.stand_in import SIZES, User, shown

LISTING = """\
7f1a2b3c4d5e6f70       device usb:3-1 product:rk3588_s model:rk3588_s device:rk3588_s transport_id:4
192.168.1.17:5555      offline product:rv1106 model:RV1106 device:rv1106 transport_id:12
0123456789ABCDEF       unauthorized usb:1-4.2 transport_id:2
(no serial number)     no permissions (user in plugdev group; are your udev rules wrong?); \
see [http://developer.android.com/tools/device.html] usb:1-2 transport_id:1
"""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_settings_of_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT", "ANDROID_HOME")
    for name in (*names, "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)


def saying(raw: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(18) == b"000ehost:devices-l"
        writer.write(raw)

    return answer


def listing(text: str) -> bytes:
    return b"OKAY%04x%s" % (len(text.encode()), text.encode())


class Server:
    """A port on the loopback address, and how often it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.address = Address()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        try:
            await self.answer(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.address = Address(port=port)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    try:
        yield server
    finally:
        listener.close()


def test_the_listing_is_read_as_adb_writes_it() -> None:
    assert parse_devices(LISTING) == [
        Device("7f1a2b3c4d5e6f70", "device", "rk3588_s", "rk3588_s", "rk3588_s", "usb:3-1", "4"),
        Device("192.168.1.17:5555", "offline", "rv1106", "RV1106", "rv1106", "", "12"),
        Device("0123456789ABCDEF", "unauthorized", "", "", "", "usb:1-4.2", "2"),
        Device(
            "(no serial number)",
            "no permissions",
            path="usb:1-2",
            transport="1",
            note="(user in plugdev group; are your udev rules wrong?); "
            "see [http://developer.android.com/tools/device.html]",
        ),
    ]
    assert parse_devices("serial\tdevice\n") == [Device("serial", "device")]
    assert parse_devices("") == parse_devices("\n \nserial\n") == []


words = st.text("abcXYZ019_.-", min_size=1, max_size=12)
devices = st.builds(
    Device,
    serial=words | st.builds("{}:{}".format, words, st.integers(1, 65535)),
    state=st.sampled_from(["device", "offline", "unauthorized", "no permissions", "recovery", "brandnew"]),
    product=st.just("") | words,
    model=st.just("") | words,
    device=st.just("") | words,
    path=st.just("") | st.builds("usb:{}".format, words),
    transport=st.integers(1, 999).map(str),
)


def as_adb_lists(one: Device) -> str:
    fields = (("", one.path), ("product:", one.product), ("model:", one.model), ("device:", one.device))
    told = "".join(f" {key}{text}" for key, text in fields if text)
    return f"{one.serial:<22} {one.state}{told} transport_id:{one.transport}\n"


@given(st.lists(devices, max_size=6))
def test_what_adb_lists_is_read_back(some: list[Device]) -> None:
    assert parse_devices("".join(map(as_adb_lists, some))) == some


@given(st.text(max_size=300) | st.lists(st.sampled_from(["serial ", "device", "model:", "\n", "\t", "no permissions"])))
def test_any_answer_is_read_without_trouble(text: str | list[str]) -> None:
    for one in parse_devices("".join(text)):
        assert one.serial and one.state
        assert explanation(one)


def test_a_listing_without_end_is_cut() -> None:
    assert len(parse_devices("serial device\n" * 5000)) == adb.MOST_DEVICES


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


@pytest.mark.parametrize(
    "environment",
    [
        {"ANDROID_ADB_SERVER_PORT": "0"},
        {"ANDROID_ADB_SERVER_PORT": "65536"},
        {"ANDROID_ADB_SERVER_PORT": "port"},
        {"ADB_SERVER_SOCKET": "tcp:host"},
        {"ADB_SERVER_SOCKET": "vsock:1:2"},
        {"ADB_SERVER_SOCKET": "nonsense"},
        {"ADB_SERVER_SOCKET": "localfilesystem:"},
    ],
)
def test_a_wrong_address_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        server_address(environment)
    assert next(iter(environment)) in str(caught.value)
    assert "5037" in str(caught.value)


async def test_a_running_server_is_asked_over_its_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with serving(saying(listing(LISTING)), monkeypatch):
        assert [one.transport for one in await list_devices()] == ["4", "12", "2", "1"]
    path = str(tmp_path / "adb.socket")
    server = await asyncio.start_unix_server(Server(saying(listing("a device\n"))).serve, path)
    assert await list_devices(Address(path=path)) == [Device("a", "device")]
    server.close()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (saying(b"FAIL0013device unauthorized"), "says: device unauthorized"),
        (saying(b"OKAY00ffshort"), "ended its answer early"),
        (saying(b"OK"), "ended its answer early"),
        (saying(b"HTTP/1.1 400 Bad Request"), "is not an adb server"),
        (saying(b"OKAY-001abcdef"), "is not an adb server"),
        (silence, "gave no answer within"),
    ],
)
async def test_a_server_that_answers_otherwise_is_told_of(
    answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answer, monkeypatch) as server:
        with pytest.raises(AdbError) as caught:
            await list_devices(seconds=0.2 if answer is silence else 10)
        assert message in str(caught.value)
        assert str(server.address) in str(caught.value)


async def unused_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(silence, monkeypatch):
        pass


@pytest.mark.parametrize(
    ("installed", "message"),
    [(True, "no adb server runs: nothing listens"), (False, "adb is not installed: nothing listens")],
)
async def test_a_server_that_does_not_run_is_not_started(
    installed: bool, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if installed:
        program = tmp_path / "adb"
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    await unused_port(monkeypatch)
    with pytest.raises(AdbError) as caught:
        await list_devices()
    assert message in str(caught.value)
    assert "adb start-server" in str(caught.value)
    assert not (tmp_path / "started").exists()


def screen_text(user: User) -> str:
    return " ".join(user.text("rows").split())


async def test_boards_are_asked_for_once_and_again_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(listing(LISTING)), monkeypatch) as server, shown(DevicesScreen) as user:
        await user.sees("rows", "7f1a2b3c4d5e6f70")
        rows = user.text("rows").split("\n")
        assert rows[0].split()[:4] == ["7f1a2b3c4d5e6f70", "device", "rk3588_s", "rk3588_s"]
        assert "4 boards" in user.text("title")
        assert "running on boards comes later" in user.text("title")
        assert await user.paints() == 0
        assert server.asked == 1
        server.answer = saying(listing("fresh device transport_id:9\n"))
        await user.press("r")
        await user.sees("rows", "fresh")
        assert server.asked == 2
        assert "1 board at" in user.text("title")


async def test_details_explain_the_state_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(listing(LISTING)), monkeypatch), shown(DevicesScreen) as user:
        await user.sees("rows", "7f1a2b3c4d5e6f70")
        assert not user.screen.line("about").display
        await user.press("enter")
        about = " ".join(user.text("about").split())
        assert "state device: ready model rk3588_s product rk3588_s" in about
        assert "transport id 4 plugged in at usb:3-1" in about
        for text in ("does not answer", "accept the key on the board", "udev rule"):
            await user.press("j")
            await user.sees("about", text)
        assert "are your udev rules wrong?" in user.text("about")
        await user.press("enter")
        assert not user.screen.line("about").display


async def test_no_key_waits_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(silence, monkeypatch) as server, shown(DevicesScreen) as user:
        await user.until(lambda: server.asked == 1)
        assert "asking adb" in user.text("title")
        await user.press("r", "question_mark", "escape")
        assert user.app.tune.performed == ["keys"]
        assert user.app.went_to == ["tune"]
        assert server.asked == 1, "one question at a time"


async def test_a_hanging_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "SECONDS", 0.1)
    async with serving(silence, monkeypatch) as server, shown(DevicesScreen) as user:
        await user.sees("rows", "gave no answer")
        assert "adb kill-server" in screen_text(user)
        assert "r asks again" in screen_text(user)
        server.answer = saying(listing(""))
        await user.press("r")
        await user.sees("rows", "no board is connected")
        assert "adb connect" in screen_text(user)


async def test_without_a_server_or_with_a_wrong_address_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    await unused_port(monkeypatch)
    async with shown(DevicesScreen) as user:
        await user.sees("rows", "adb start-server")
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "nonsense")
        await user.press("enter", "r")
        await user.sees("rows", "ANDROID_ADB_SERVER_PORT: 'nonsense' is no port")


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_rests(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(listing(LISTING * 20)), monkeypatch), shown(DevicesScreen, size) as user:
        await user.sees("rows", "7f1a2b3c4d5e6f70")
        await user.press("G", "enter")
        assert user.fits()
        assert "no permissions" in "".join(user.lines())
        assert await user.paints() == 0


async def test_names_cannot_command_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\x1b[2Jserial device product:\x1b]0;x\x07 model:\u202e transport_id:1\n"
    async with serving(saying(listing(text)), monkeypatch), shown(DevicesScreen, signs=ASCII) as user:
        await user.sees("rows", "?[2Jserial")
        await user.press("enter")
        assert "?]0;x?" in user.text("about")
        assert all(line.isascii() and line.isprintable() for line in user.lines())
