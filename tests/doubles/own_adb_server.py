"""A real adb server of a test's own, on a port of its own, that leaves the user's alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.doubles.adb_device import AdbDevice


class AdbServer:
    """A running adb server; `environment` is what makes programs use it and leave a user's own alone."""

    def __init__(self, program: str, port: int, environment: dict[str, str]) -> None:
        self.program, self.port, self.environment = program, port, environment

    def adb(self, *arguments: str, seconds: float = 20.0) -> str:
        """Run the adb program against this server."""
        done = subprocess.run(
            [self.program, "-P", str(self.port), *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout + done.stderr

    def ask(self, service: str) -> str:
        """Ask the server itself, without starting the program."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(b"%04x%s" % (len(service), service.encode()))
            text = b""
            while piece := connection.recv(1 << 16):
                text += piece
        return text[8:].decode()

    def connect(self, device: AdbDevice) -> str:
        """Make the board known; returns the serial number that adb has for it."""
        name = device.address
        end = time.monotonic() + 10
        while time.monotonic() < end:
            self.ask(f"host:connect:{name}")
            states = dict(line.split("\t") for line in self.ask("host:devices").splitlines() if "\t" in line)
            if states.get(name) == "device" or not device.authorized:
                break
            # adb still holds the connection that was cut.
            self.ask(f"host:disconnect:{name}")
            time.sleep(0.02)
        return name


def adb_found() -> str | None:
    """The adb program: the system's, else the one that adbutils brings."""
    found = shutil.which("adb")
    if found is None:
        import adbutils

        with contextlib.suppress(Exception):
            found = adbutils.adb_path()
    return found


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_adb_server(folder: Path) -> Iterator[AdbServer]:
    """Start a real adb server on a port of its own, with a home in `folder`; ends it, and it alone, at the end."""
    program = adb_found()
    assert program is not None
    port = free_port()
    environment = {
        "HOME": str(folder),
        "ANDROID_USER_HOME": str(folder / ".android"),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_SERVER_SOCKET": f"tcp:127.0.0.1:{port}",
        "ADB_MDNS": "0",
        "ADB_MDNS_OPENSCREEN": "0",
        "TMPDIR": str(folder),
    }
    with (folder / "adb.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-P", str(port), "nodaemon", "server"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError((folder / "adb.log").read_text(errors="replace")) from None
                time.sleep(0.02)
        yield AdbServer(program, port, environment)
    finally:
        process.kill()
        process.wait(10)


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition comes to hold within a time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
