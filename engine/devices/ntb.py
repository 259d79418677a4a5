"""Finds Rockchip's USB devices that adb cannot reach, so that a person sees why: nothing runs a model on them.

Read from the kernel's list of USB devices on Linux; elsewhere there are none. Which product ids stand for the older NTB
mode is in no public text, so it is not guessed: what is known to be in that mode is known by its serial number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.boards import Board

USB_DEVICES = Path("/sys/bus/usb/devices")
VENDOR = "2207"
ADB_INTERFACE = ("ff", "42", "01")
"""Class, subclass and protocol of the USB interface that adb talks to (public in Android's sources)."""
NTB_SERIALS = (r"TS[0-9]{10,20}", r"TB-RK1808S[0-9A-Za-z]{1,20}")
"""Patterns of the serial numbers of boards in NTB mode, by the ids that the vendor's guides print."""
MOST_DEVICES = 64

NTB_NOTE = (
    "in NTB mode, which needs the vendor's closed npu_transfer_proxy: models cannot be run on it; RK3566, RK3568, "
    "RK3588, RV1103 and RV1106 boards are reached over adb or SSH"
)
OTHER_NOTE = (
    "a Rockchip USB device without adb: in maskrom or loader mode, or its system has no adbd running. Let it start its "
    "system, and turn on adb there"
)


def list_usb(
    known: Sequence[str] = (), folder: Path | None = None, serials: Sequence[str] = NTB_SERIALS
) -> list[Board]:
    """Rockchip's USB devices without adb's interface, and those in NTB mode; `known` are serials that adb lists."""
    found: list[Board] = []
    try:
        entries = sorted((USB_DEVICES if folder is None else folder).iterdir())
    except OSError:
        return []
    for entry in entries:
        # Interfaces have a colon in their names, root hubs begin with usb.
        if ":" in entry.name or _text(entry / "idVendor") != VENDOR:
            continue
        serial = _text(entry / "serial")
        if serial in known or len(found) == MOST_DEVICES:
            continue
        if _is_adb(entry):
            continue
        path = f"usb:{entry.name}"
        if any(re.fullmatch(pattern, serial) for pattern in serials):
            found.append(Board(serial, "ntb", "ntb", NTB_NOTE, product=_text(entry / "product"), path=path))
        else:
            found.append(
                Board(serial or path, "usb", "no adb", OTHER_NOTE, product=_text(entry / "product"), path=path)
            )
    return found


def _is_adb(device: Path) -> bool:
    names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    try:
        interfaces = list(device.glob(f"{device.name}:*"))
    except OSError:
        return False
    return any(tuple(_text(one / name) for name in names) == ADB_INTERFACE for one in interfaces)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(256).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""
