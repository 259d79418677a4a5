"""Which boards are found, and what is said where one is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.boards import READY, Board
from engine.devices import discovery, ntb
from engine.devices.discovery import (
    Listing,
    list_boards,
    local_chip,
    open_transport,
    settings_path,
    ssh_settings,
    toolkit_listing,
)
from engine.devices.transports.adb import AdbTransport
from engine.errors import ConfigError, DeviceError, DeviceLostError
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import Fault
from tests.doubles.own_adb_server import AdbServer, free_port

STARS = "*" * 25


@pytest.fixture(autouse=True)
def nothing_of_this_machine(adb_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ntb, "USB_DEVICES", tmp_path / "usb")
    monkeypatch.setattr(discovery, "_DEVICE_TREE", tmp_path / "compatible")


def settings(text: str) -> Path:
    path = settings_path()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def usb(folder: Path, name: str, serial: str, vendor: str = "2207", interface: tuple[str, ...] = ()) -> None:
    device = folder / name
    device.mkdir(parents=True)
    for key, text in (("idVendor", vendor), ("serial", serial), ("product", "USB device")):
        (device / key).write_text(text + "\n")
    if interface:
        (device / f"{name}:1.0").mkdir()
        for key, text in zip(("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"), interface, strict=True):
            (device / f"{name}:1.0" / key).write_text(text + "\n")


def test_two_boards_are_listed_with_what_they_are(make_board: Callable[..., ConnectedBoard]) -> None:
    first, second = make_board("rk3588"), make_board("rk3566")
    listing = list_boards(probe=True)
    chips = {one.id: (one.state, one.facts and one.facts.chip) for one in listing.boards}
    assert chips == {first.id: (READY, "rk3588"), second.id: (READY, "rk3566")}
    assert listing.faults == ()


@pytest.mark.slow
def test_a_board_that_hangs_keeps_no_other_from_being_told(make_board: Callable[..., ConnectedBoard]) -> None:
    slow, quick = make_board(), make_board("rk3568")
    slow.board.faults.append(Fault("compatible", "hang"))
    facts = {one.id: one.facts for one in list_boards(probe=True, seconds=0.6).boards}
    assert facts[quick.id] is not None and facts[quick.id].chip == "rk3568"  # type: ignore[union-attr]
    assert "within 0.6 s" in facts[slow.id].problems[0]  # type: ignore[union-attr]


def test_without_a_server_the_listing_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    listing = list_boards(probe=True)
    assert listing.boards == ()
    assert "nothing listens" in listing.faults[0]


def test_the_only_board_is_taken_and_several_are_told_apart(make_board: Callable[..., ConnectedBoard]) -> None:
    first = make_board("rk3588")
    with open_transport() as transport:
        assert transport.id == first.id
    second = make_board("rk3566")
    with pytest.raises(DeviceError, match="several boards") as caught:
        open_transport()
    assert first.id in str(caught.value) and second.id in str(caught.value)
    with open_transport(target="RK3566") as transport:
        assert transport.id == second.id
    with pytest.raises(ConfigError, match="unknown target"):
        open_transport(target="rk9999")


def test_where_no_board_is_the_reason_is_told(adb_server: AdbServer) -> None:
    with pytest.raises(DeviceLostError, match=r"no board is connected.*OTG"):
        open_transport()


def test_a_full_id_is_not_looked_up() -> None:
    assert isinstance(open_transport("515e9b401c060c0b"), AdbTransport)
    with pytest.raises(DeviceError, match="npu_transfer_proxy"):
        open_transport("TS018082190800645")


@pytest.mark.parametrize("name", ["ssh://-oProxyCommand=x", "ssh://", "ssh://a b", "ssh://host:port", "ssh://u@-h"])
def test_an_id_that_ssh_would_take_for_an_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no board over SSH"):
        open_transport(name)


def test_settings_name_boards_over_ssh(tmp_path: Path) -> None:
    assert ssh_settings().boards == ()
    config = tmp_path / "ssh_config"
    config.write_text("Host orange *.lan !not\n  User pi\nHost=lemon\nhost ?any\n")
    settings(f"ssh:\n- ssh://pi@rock:2222\n- orange\nfrom_ssh_config: true\nconfig: {config}\n")
    found = ssh_settings()
    assert found.boards == ("ssh://pi@rock:2222", "ssh://orange", "ssh://lemon")
    assert found.config == str(config)


def test_hosts_of_the_ssh_configuration_are_not_listed_unasked(tmp_path: Path) -> None:
    (tmp_path / "ssh_config").write_text("Host orange\n")
    settings(f"config: {tmp_path / 'ssh_config'}\n")
    assert ssh_settings().boards == ()


@pytest.mark.parametrize(
    "text",
    [
        "- a list\n",
        "shh: []\n",
        "ssh: name\n",
        "ssh: [1]\n",
        "ssh: ['-oProxyCommand=x']\n",
        "from_ssh_config: maybe\n",
        "config: [1]\n",
        "ssh: &a [*a]\n",
        "ssh: [\n",
        "ssh: !!python/object/apply:os.system [ls]\n",
    ],
)
def test_wrong_settings_are_told_with_the_file_and_hide_no_board(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    path = settings(text)
    with pytest.raises(ConfigError, match=str(path)):
        ssh_settings()
    assert any(str(path) in fault for fault in list_boards().faults)


def test_this_machine_is_listed_where_it_is_a_board_itself(tmp_path: Path, adb_server: AdbServer) -> None:
    assert local_chip() == ""
    (tmp_path / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    assert [(one.id, one.state) for one in list_boards().boards] == [("local", READY)]


def test_usb_devices_without_adb_are_listed_with_the_reason(tmp_path: Path) -> None:
    usb(tmp_path / "usb", "1-1", "TS018082190800645")
    usb(tmp_path / "usb", "1-2", "515e9b401c060c0b", interface=ntb.ADB_INTERFACE)
    usb(tmp_path / "usb", "1-3", "")
    usb(tmp_path / "usb", "1-4", "mouse", vendor="046d")
    old, other = ntb.list_usb()
    assert (old.id, old.transport, old.path) == ("TS018082190800645", "ntb", "usb:1-1")
    assert "NTB mode" in old.note
    assert (other.id, other.transport) == ("usb:1-3", "usb")
    assert "maskrom" in other.note


def test_the_toolkits_listing_is_as_the_guide_prints_it() -> None:
    assert toolkit_listing(Listing(())) == (f"{STARS}\nNone devices connected.\n{STARS}", [], [])
    boards = (
        Board("VD46C3KM6N", "adb", READY),
        Board("ssh://rock", "ssh", READY),
        Board("TS018082190800645", "ntb", "ntb"),
    )
    text, adb, others = toolkit_listing(Listing(boards))
    assert text.split("\n") == [
        STARS,
        "all device(s) with adb mode:",
        "VD46C3KM6N",
        "all device(s) with ntb mode:",
        "TS018082190800645",
        STARS,
    ]
    assert (adb, others) == (["VD46C3KM6N"], ["TS018082190800645"])


def test_finding_boards_needs_no_model_libraries() -> None:
    code = (
        "import sys, engine.devices.discovery, engine.devices.transports.adb\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'onnx_ir') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr
