"""What is made of boards' answers, real ones of stand-ins and any text."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.devices import probing
from engine.devices.probing import chip_of, parse, probe, readings
from engine.devices.transports.adb import AdbTransport
from engine.errors import DeviceError
from engine.summaries import to_plain
from engine.targets import TARGETS
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import Fault

LIBRARY = b"\x7fELF\0\1\2\n\0librknnrt version: 1.5.2 (c6b7b351a@2023-08-23T15:28:22)\0\n\xff more"


def test_an_rk3588_with_debian_tells_all(connected_board: ConnectedBoard) -> None:
    connected_board.board.write("/usr/lib/librknnrt.so", LIBRARY)
    facts = probe(AdbTransport(connected_board.id))
    assert (facts.chip, facts.board, facts.machine) == ("rk3588", "Fake RK3588 board", "aarch64")
    assert facts.system == "Debian GNU/Linux 11 (bullseye)"
    assert (facts.library, facts.runtime, facts.driver) == ("/usr/lib/librknnrt.so", "1.5.2", "0.8.2")
    assert facts.interpreter == "/usr/bin/python3"
    assert facts.python.startswith("3.") and facts.onnxruntime[:1].isdigit()
    assert facts.folder == "/tmp" and facts.free_disk and facts.free_disk > 1 << 20
    assert (facts.free_memory, facts.total_memory) == (6_000_000 << 10, 7_990_000 << 10)
    assert (facts.temperature, facts.npu_load, facts.npu_hz) == (43.5, (7, 0, 12), 300_000_000)
    assert facts.problems == ()


def test_an_rk3566_with_android_and_an_old_adbd(make_board: Callable[..., ConnectedBoard]) -> None:
    board = make_board("rk3566", kind="android", shell_v2=False, python=False)
    board.board.write("/vendor/lib64/librknnrt.so", LIBRARY)
    facts = probe(AdbTransport(board.id))
    assert (facts.chip, facts.system, facts.folder) == ("rk3566", "Android 12", "/data/local/tmp")
    assert facts.library == "/vendor/lib64/librknnrt.so"
    assert facts.npu_load == (5,)
    assert len(facts.problems) == 1 and "no Python" in facts.problems[0]


def test_an_rv1106_without_python_is_told_what_that_means(make_board: Callable[..., ConnectedBoard]) -> None:
    board = make_board("rv1106", kind="buildroot")
    board.board.write("/oem/usr/lib/librknnmrt.so", LIBRARY.replace(b"librknnrt", b"librknnmrt"))
    facts = probe(AdbTransport(board.id))
    assert (facts.chip, facts.library, facts.runtime) == ("rv1106", "/oem/usr/lib/librknnmrt.so", "1.5.2")
    assert facts.interpreter == facts.python == ""
    assert "RV1106" in facts.problems[0] and "vendor's own runtime program" in facts.problems[0]


def test_what_is_no_rockchip_board_says_so(make_board: Callable[..., ConnectedBoard]) -> None:
    board = make_board()
    board.board.write("/proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    facts = probe(AdbTransport(board.id))
    assert facts.chip == "" and facts.library == ""
    assert any("chip is unknown" in text for text in facts.problems)
    assert any("librknnrt.so" in text for text in facts.problems)


def test_what_changes_is_read_alone(connected_board: ConnectedBoard) -> None:
    connected_board.board.write("/sys/class/thermal/thermal_zone1/temp", "61000\n")
    facts = readings(AdbTransport(connected_board.id))
    assert (facts.temperature, facts.npu_load, facts.free_memory) == (61.0, (7, 0, 12), 6_000_000 << 10)
    assert facts.chip == facts.interpreter == ""


def test_a_shell_that_fails_is_no_board_without_anything(connected_board: ConnectedBoard) -> None:
    connected_board.board.faults.append(Fault("compatible", "fail"))
    with pytest.raises(DeviceError, match="a scripted failure"):
        probe(AdbTransport(connected_board.id))


@pytest.mark.parametrize(
    ("compatible", "chip"),
    [
        ("radxa,rock-5a\0rockchip,rk3588s\0", "rk3588"),
        ("xunlong,orangepi-5-plus\0rockchip,rk3588\0", "rk3588"),
        ("rockchip,rk3566-evb2-lp4x-v10\0rockchip,rk3566\0", "rk3566"),
        ("rockchip,rk3568-evb1-ddr4-v10\0rockchip,rk3568\0", "rk3568"),
        ("rockchip,rv1103g-38x38-ipc-v10\0rockchip,rv1103\0", "rv1103"),
        ("luckfox,luckfox-pico-pro\0rockchip,rv1106g-evb\0", "rv1106"),
        ("rockchip,rk3562\0", "rk3562"),
        ("rockchip,rk3576\0", "rk3576"),
        ("rockchip,rv1103b\0", ""),
        ("rockchip,rk3399pro\0rockchip,rk3399\0", ""),
        ("", ""),
    ],
)
def test_the_chip_is_known_by_the_device_tree(compatible: str, chip: str) -> None:
    assert chip_of(compatible) == chip


def test_old_runtimes_small_memory_and_full_disks_are_problems() -> None:
    facts = parse(
        "compatible=rockchip,rk3588\0\nlibrary=/usr/lib/librknnrt.so\nruntime=librknnrt version: 1.1.0\n"
        "interpreter=/usr/bin/python3\npython=3.6.9\nfolder=/tmp\ndisk=Filesystem 1K-blocks\n"
        "tmpfs 1000 900 100 90% /tmp\nMemTotal: 60000 kB\nMemFree: 4000 kB\n"
    )
    text = "\n".join(facts.problems)
    for words in ("Python 3.6.9 is too old", "1.1.0 is older", "100 KB are free", "3 MB of memory"):
        assert words in text
    assert facts.interpreter == ""


_WORDS = [
    *("compatible=", "rockchip,rk3588", "\0", "\n", "temp=", "99999", "-1", "load=", "NPU load: Core0: 900%,", "disk="),
    *("MemAvailable: ", "kB", "python=", "3.99", "interpreter=", "/", "folder=", "library=", "runtime=", "9" * 40),
]


@given(st.text(max_size=400) | st.lists(st.sampled_from(_WORDS), max_size=60).map("".join))
def test_any_answer_makes_facts_that_can_be_told(text: str) -> None:
    facts = parse(text)
    json.dumps(to_plain(facts), allow_nan=False)
    assert facts.chip in {"", *TARGETS}
    assert all(0 <= load <= 100 for load in facts.npu_load)
    assert facts.temperature is None or -50 < facts.temperature < 200
    for path in (facts.library, facts.interpreter, facts.folder):
        assert path == "" or (path.startswith("/") and path.isprintable())


def test_an_answer_without_end_is_cut() -> None:
    facts = parse("model=" + "x" * 1_000_000 + "\n" + "temp=40000\n" * 100_000)
    assert len(facts.board) <= 200


def test_the_script_is_posix_shell() -> None:
    assert "[[" not in probing.script() and "\r" not in probing.script()
