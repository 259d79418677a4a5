"""Conversations with a running adb server. It is never started here, and every answer is waited for a bounded time."""

from __future__ import annotations

import dataclasses
import os
import re
import select
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from adbutils._adb import AdbConnection  # type: ignore[import-untyped, unused-ignore]

from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError, InputError

SERVER_PORT = 5037
SECONDS = 4.0
"""The longest that a question and its answer may take: an adb server with a stuck USB bus answers never."""
CONNECT_SECONDS = 3.0
MAX_ANSWER_BYTES = 0xFFFF
"""The most that four hex digits of length can announce."""


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
    named = variables.get("ADB_SERVER_SOCKET", "")
    if not named:
        port = variables.get("ANDROID_ADB_SERVER_PORT", "") or str(SERVER_PORT)
        return Address(_host(variables.get("ANDROID_ADB_SERVER_ADDRESS", "")), _port(port, "ANDROID_ADB_SERVER_PORT"))
    kind, _, rest = named.partition(":")
    if kind == "tcp":
        host, _, port = rest.rpartition(":")
        return Address(_host(host.strip("[]")), _port(port, "ADB_SERVER_SOCKET"))
    if kind in ("local", "localfilesystem", "localabstract") and rest and "\0" not in rest:
        return Address(path=f"\0{rest}" if kind == "localabstract" else rest)
    raise InputError(
        f"{named!r} is no address of an adb server", where="ADB_SERVER_SOCKET", hint="such as tcp:localhost:5037"
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


class Connection(AdbConnection):  # type: ignore[misc, unused-ignore]
    """A connection to a running adb server, on which every wait ends at `deadline` (of time.monotonic)."""

    def __init__(self, address: Address, seconds: float = SECONDS, *, device: str = "adb") -> None:
        self.address = address
        self.device = device
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        super().__init__(address.host, address.port)

    def _safe_connect(self) -> socket.socket:
        # The library's own way starts a server where none runs.
        return self._create_socket()

    def _create_socket(self) -> socket.socket:
        # The library's own leaves the socket open where it cannot connect, and knows no Unix sockets.
        address = self.address
        try:
            if not address.path:
                connection = socket.create_connection((address.host, address.port), min(self.seconds, CONNECT_SECONDS))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
        except TimeoutError:
            self._silent()
        except (OSError, UnicodeError) as error:
            self._refused(error)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(min(self.seconds, CONNECT_SECONDS))
            connection.connect(address.path)
        except TimeoutError:
            connection.close()
            self._silent()
        except OSError as error:
            connection.close()
            self._refused(error)
        return connection

    def ask(self, service: str) -> None:
        """Ask for a service, and wait until the server agrees. Raises DeviceError with what it says otherwise."""
        question = service.encode("utf-8")
        if len(question) > MAX_ANSWER_BYTES:
            raise DeviceError("a command for the board is too long for adb", where=self.device)
        self.write(b"%04x%s" % (len(question), question))
        status = self.exactly(4)
        if status == b"FAIL":
            failed(self.block().decode("utf-8", "replace"), self.device)
        if status != b"OKAY":
            raise self._no_server()

    def block(self) -> bytes:
        """Text of an announced length."""
        size = self.exactly(4)
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", size):
            raise self._no_server()
        return self.exactly(int(size, 16))

    def exactly(self, count: int) -> bytes:
        """`count` bytes. Raises DeviceLostError where the connection ends before."""
        parts = bytearray()
        while len(parts) < count:
            piece = self.some(count - len(parts))
            if not piece:
                raise self.lost()
            parts += piece
        return bytes(parts)

    def some(self, most: int) -> bytes:
        """Up to `most` bytes, b'' at the end of the connection."""
        stream: socket.socket = self.conn
        try:
            stream.settimeout(self._left())
            return stream.recv(most)
        except TimeoutError:
            self._silent()
        except OSError as error:
            raise self.lost() from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        stream: socket.socket = self.conn
        try:
            stream.settimeout(self._left())
            stream.sendall(data)
        except TimeoutError:
            self._silent()
        except OSError as error:
            raise self.lost() from error

    def ready(self, *, writing: bool) -> tuple[bool, bool]:
        """Wait until there is something to read, or where `writing` room to write; returns which of the two."""
        stream: socket.socket = self.conn
        readable, writable, _ = select.select([stream], [stream] if writing else [], [], self._left())
        if not readable and not writable:
            self._silent()
        return bool(readable), bool(writable)

    def waiting(self) -> bool:
        """Whether there is something to read already."""
        return bool(select.select([self.conn], [], [], 0)[0])

    def extend(self, seconds: float | None) -> None:
        """Wait for `seconds` from now on; None is for as long as it takes."""
        self.deadline = float("inf") if seconds is None else time.monotonic() + seconds

    def taken(self) -> socket.socket:
        """The bare stream, for the caller to close."""
        stream: socket.socket = self.conn
        return stream

    def close(self) -> None:
        """End the connection at once."""
        if not self.closed:
            self.conn.close()

    def lost(self) -> DeviceLostError:
        """The error for a connection that ended before it should."""
        if self.device == "adb":
            return DeviceLostError(
                f"the adb server at {self.address} ended its answer early",
                hint="adb kill-server, then adb start-server",
            )
        return DeviceLostError(
            "the connection to the board ended", where=self.device, hint="is it still plugged in and switched on?"
        )

    def _left(self) -> float | None:
        if self.deadline == float("inf"):
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            self._silent()
        return left

    def _silent(self) -> NoReturn:
        if self.device == "adb":
            raise DeviceTimeoutError(
                f"the adb server at {self.address} gave no answer within {self.seconds:.0f} s",
                hint="adb kill-server ends it, adb start-server starts a new one",
            )
        raise DeviceTimeoutError(f"the board did not answer within {self.seconds:g} s", where=self.device)

    def _refused(self, error: BaseException) -> NoReturn:
        where = "" if self.device == "adb" else self.device
        if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
            if adb_program() is None:
                what, hint = "adb is not installed", "install it, such as with apt install adb, then adb start-server"
            else:
                what, hint = "no adb server runs", "start it with adb start-server"
            raise DeviceLostError(f"{what}: nothing listens at {self.address}", where=where, hint=hint) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise DeviceLostError(f"the adb server at {self.address} cannot be reached: {reason}", where=where) from error

    def _no_server(self) -> DeviceError:
        return DeviceError(f"what listens at {self.address} is not an adb server", hint="see ADB_SERVER_SOCKET")


def failed(said: str, device: str) -> NoReturn:
    """Raise the error for what the server says of a board that cannot be used; it is adb's own text."""
    text = " ".join(said.split())[:500]
    if "unauthorized" in text:
        raise DeviceLostError(
            "the board does not accept this computer's key yet",
            where=device,
            hint="accept the key on the board, or plug it in again to be asked once more",
        )
    if "authorizing" in text:
        raise DeviceLostError("the board is still being asked whether it accepts this computer's key", where=device)
    if "offline" in text:
        raise DeviceLostError(
            "the board is offline", where=device, hint="plug it in again, or run adb reconnect offline"
        )
    if "not found" in text or "no devices" in text:
        raise DeviceLostError("no such board is connected", where=device, hint="`rknn-tui devices` lists what there is")
    if "permission" in text:
        raise DeviceLostError(
            "this user may not open the board's USB device", where=device, hint="add a udev rule for vendor 2207"
        )
    raise DeviceError(f"adb says: {text}", where=device)
