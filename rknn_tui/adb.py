"""Asks a running adb server which boards it sees. It never starts one, and never waits for long."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from engine.errors import EngineError, InputError

SERVER_PORT = 5037
SECONDS = 4.0
"""The longest that all of a question and its answer may take: an adb server with a stuck USB bus answers never."""
MOST_DEVICES = 256

_STATES = (
    *("device", "offline", "unauthorized", "authorizing", "connecting", "no permissions", "bootloader", "recovery"),
    *("sideload", "rescue", "host", "detached", "unknown"),
)
_FIELD = re.compile(r"(product|model|device|transport_id):(.*)")
_NO_SERIAL = "(no serial number)"


class AdbError(EngineError):
    """The adb server cannot be reached, or did not answer as one does."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A board as adb lists it. `path` is where it is plugged in, `note` what adb adds to the state in words of its own.

    What adb does not tell is ''.
    """

    serial: str
    state: str
    product: str = ""
    model: str = ""
    device: str = ""
    path: str = ""
    transport: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Address:
    """Where the adb server listens: a host and port, or a Unix socket's `path` (an abstract one begins with NUL)."""

    host: str = "127.0.0.1"
    port: int = SERVER_PORT
    path: str = ""

    def __str__(self) -> str:
        return self.path.replace("\0", "@") or f"{self.host}:{self.port}"


def server_address(environment: Mapping[str, str] | None = None) -> Address:
    """Where adb itself would look for its server: ADB_SERVER_SOCKET, else ANDROID_ADB_SERVER_ADDRESS and _PORT.

    Raises InputError.
    """
    variables = os.environ if environment is None else environment
    socket = variables.get("ADB_SERVER_SOCKET", "")
    if not socket:
        port = variables.get("ANDROID_ADB_SERVER_PORT", "") or str(SERVER_PORT)
        return Address(_host(variables.get("ANDROID_ADB_SERVER_ADDRESS", "")), _port(port, "ANDROID_ADB_SERVER_PORT"))
    kind, _, rest = socket.partition(":")
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        return Address(_host(host.strip("[]")), _port(port, "ADB_SERVER_SOCKET"))
    if kind in ("local", "localfilesystem", "localabstract") and rest and "\0" not in rest:
        return Address(path=f"\0{rest}" if kind == "localabstract" else rest)
    raise InputError(
        f"{socket!r} is no address of an adb server", where="ADB_SERVER_SOCKET", hint="such as tcp:localhost:5037"
    )


def _host(name: str) -> str:
    # adb listens on the loopback address only: asking a resolver for it costs time and can go wrong.
    return "127.0.0.1" if name in ("", "localhost") else name


def _port(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 1 << 16:
        raise InputError(f"{text!r} is no port", where=where, hint="a number from 1 to 65535, such as 5037")
    return int(text)


def adb_program(environment: Mapping[str, str] | None = None) -> str | None:
    """The path of the adb program, None where it is not installed."""
    variables = os.environ if environment is None else environment
    found = shutil.which("adb", path=variables.get("PATH"))
    if found:
        return found
    kits = [Path(variables[name]) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if variables.get(name)]
    return next(
        (str(kit / "platform-tools" / "adb") for kit in kits if (kit / "platform-tools" / "adb").is_file()), None
    )


async def list_devices(address: Address | None = None, seconds: float | None = None) -> list[Device]:
    """The boards that the running adb server sees, in its order. Raises AdbError; InputError for a wrong address."""
    where, most = address or server_address(), SECONDS if seconds is None else seconds
    try:
        payload = await asyncio.wait_for(_ask(where, b"host:devices-l"), most)
    except asyncio.TimeoutError:
        raise AdbError(
            f"the adb server at {where} gave no answer within {most:.0f} s",
            hint="adb kill-server ends it, adb start-server starts a new one",
        ) from None
    except (ConnectionRefusedError, FileNotFoundError) as error:
        if adb_program() is None:
            what, hint = "adb is not installed", "install it, such as with apt install adb, then run adb start-server"
        else:
            what, hint = "no adb server runs", "start it with adb start-server"
        raise AdbError(f"{what}: nothing listens at {where}", hint=hint) from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AdbError(f"the adb server at {where} cannot be reached: {reason}") from error
    return parse_devices(payload.decode("utf-8", "replace"))


async def _ask(where: Address, question: bytes) -> bytes:
    """adb's protocol: four hex digits of length before what is asked, OKAY or FAIL and the same in return."""
    if where.path:
        reader, writer = await asyncio.open_unix_connection(where.path)
    else:
        reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        writer.write(b"%04x%s" % (len(question), question))
        await writer.drain()
        status = await reader.readexactly(4)
        size = await reader.readexactly(4) if status in (b"OKAY", b"FAIL") else b""
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", size):
            raise AdbError(f"what listens at {where} is not an adb server", hint="see ADB_SERVER_SOCKET")
        text = await reader.readexactly(int(size, 16))
    except asyncio.IncompleteReadError as error:
        raise AdbError(
            f"the adb server at {where} ended its answer early", hint="adb kill-server, then adb start-server"
        ) from error
    finally:
        writer.transport.abort()
    if status == b"FAIL":
        raise AdbError(f"the adb server at {where} says: {text.decode('utf-8', 'replace')}")
    return text


def parse_devices(text: str) -> list[Device]:
    """The devices in the answer to `host:devices-l`; lines that are none are left out."""
    found: list[Device] = []
    for line in text.split("\n"):
        device = _device(line.strip())
        if device is not None:
            found.append(device)
        if len(found) == MOST_DEVICES:
            break
    return found


def _device(line: str) -> Device | None:
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
    return Device(
        serial,
        state,
        fields.get("product", ""),
        fields.get("model", ""),
        fields.get("device", ""),
        fields.get("path", ""),
        fields.get("transport_id", ""),
        " ".join(note),
    )


def explanation(device: Device) -> str:
    """What the state means, and what to do where the board cannot be used as it is."""
    return {
        "device": "ready",
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
    }.get(device.state, f"adb says: {device.state}")
