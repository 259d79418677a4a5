"""Asks a running adb server which boards it sees, once or at every change."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.boards import Board
from engine.devices.adb_server import SECONDS, Address, Connection, server_address
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError

MOST_DEVICES = 256

_STATES = (
    *("device", "offline", "unauthorized", "authorizing", "connecting", "no permissions", "bootloader", "recovery"),
    *("sideload", "rescue", "host", "detached", "unknown"),
)
_FIELD = re.compile(r"(product|model|device|transport_id):(.*)")
_NO_SERIAL = "(no serial number)"

_EXPLANATIONS = {
    "device": "",
    "unauthorized": "unauthorised: accept the key on the board, or plug it in again to be asked once more",
    "authorizing": "the board is being asked whether it accepts this computer's key",
    "offline": "offline: the board does not answer; plug it in again, or run adb reconnect offline",
    "connecting": "adb is still connecting to it: ask again",
    "no permissions": "no permissions: this user may not open the USB device. Add a udev rule for Rockchip's "
    "vendor 2207 (or install android-sdk-platform-tools-common), plug the board in again, then run adb kill-server "
    "and adb start-server",
    "bootloader": "in the bootloader: let it start its system",
    "recovery": "in recovery: let it start its system",
    "sideload": "waits for a system to be sideloaded: let it start its system",
    "rescue": "in rescue mode: let it start its system",
}


def list_devices(address: Address | None = None, seconds: float | None = None) -> list[Board]:
    """The boards that the running adb server sees, in its order.

    Raises DeviceLostError where no server runs, DeviceTimeoutError, DeviceError; InputError for a wrong address.
    """
    connection = Connection(address or server_address(), SECONDS if seconds is None else seconds)
    try:
        connection.ask("host:devices-l")
        return parse_devices(connection.block().decode("utf-8", "replace"))
    finally:
        connection.close()


def track(address: Address | None = None) -> Iterator[tuple[Board, ...]]:
    """The boards that the running adb server sees: as it is now, then at each change, for as long as the server runs.

    Waits for a change without asking. Raises as list_devices where there is no server, and ends when the server ends.
    """
    where = address or server_address()
    for service in ("host:track-devices-l", "host:track-devices"):
        connection = Connection(where)
        try:
            try:
                connection.ask(service)
            except (DeviceLostError, DeviceTimeoutError):
                raise
            except DeviceError:
                # Servers before 1.0.40 tell of changes without the details.
                if service == "host:track-devices":
                    raise
                continue
            try:
                first = connection.block()
                connection.extend(None)
                while True:
                    yield tuple(parse_devices(first.decode("utf-8", "replace")))
                    first = connection.block()
            except DeviceLostError:
                return
        finally:
            connection.close()


def parse_devices(text: str) -> list[Board]:
    """The boards in the answer to `host:devices-l`; lines that are none are left out."""
    found: list[Board] = []
    for line in text.split("\n"):
        device = _device(line.strip())
        if device is not None:
            found.append(device)
        if len(found) == MOST_DEVICES:
            break
    return found


def _device(line: str) -> Board | None:
    if line.startswith(_NO_SERIAL):
        serial, rest = _NO_SERIAL, line[len(_NO_SERIAL) :].strip()
    else:
        serial, _, rest = line.partition(" " if "\t" not in line else "\t")
        rest = rest.strip()
    if not serial or not rest:
        return None
    state = next((name for name in _STATES if rest == name or rest.startswith((f"{name} ", f"{name};"))), "")
    state = state or rest.split()[0]
    fields: dict[str, str] = {}
    note: list[str] = []
    for word in rest[len(state) :].split():
        field = _FIELD.fullmatch(word)
        if field:
            fields[field[1]] = field[2]
        elif word.startswith("usb:"):
            fields["path"] = word
        elif not fields:
            note.append(word)
    text = ". ".join(part for part in (explanation(state), " ".join(note).lstrip("; ")) if part)
    return Board(serial, "adb", state, text, fields.get("model", ""), fields.get("product", ""), fields.get("path", ""))


def explanation(state: str) -> str:
    """What a state of adb's means and what to do, where the board cannot be used as it is; '' where it can."""
    return _EXPLANATIONS.get(state, f"adb says: {state}")
