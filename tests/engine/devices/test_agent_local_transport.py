"""The machine itself as a board."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devices.transport import Transport, checked
from engine.devices.transports.local import LocalTransport
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError


@pytest.fixture
def transport() -> Iterator[LocalTransport]:
    with LocalTransport() as found:
        yield found


def test_commands_run_in_a_shell_with_their_input(transport: LocalTransport) -> None:
    way: Transport = transport
    assert way.id == "local"
    done = way.run("cat; echo oops >&2; exit 7", data=b"given")
    assert (done.code, done.out, done.err) == (7, b"given", b"oops\n")
    assert checked(way, "echo $((2+3))") == "5\n"
    with pytest.raises(DeviceError, match="exit code 7: oops") as error:
        checked(way, "echo oops >&2; exit 7")
    assert error.value.where == "local"


def test_a_command_that_hangs_ends_with_all_that_it_started(transport: LocalTransport, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match=r"did not end within 0\.2 s"):
        transport.run(f"(sleep 0.3; touch {tmp_path}/late) & sleep 60", seconds=0.2)
    assert time.monotonic() - start < 3
    time.sleep(0.25)
    assert not (tmp_path / "late").exists()


def test_files_have_their_mode_whatever_was_there(transport: LocalTransport, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o644)
    transport.push(b"content", str(path))
    assert path.read_bytes() == b"content" and stat.S_IMODE(path.stat().st_mode) == 0o600
    transport.push(b"more", str(path), mode=0o755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    with pytest.raises(DeviceError, match="none/file: cannot be written"):
        transport.push(b"", str(tmp_path / "none" / "file"))


def test_streams_end_with_the_way_to_the_board(transport: LocalTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stream = transport.connect(port)
        peer, _ = server.accept()
        with peer:
            stream.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            ended = threading.Event()

            def wait() -> None:
                with contextlib.suppress(OSError):
                    stream.recv(1)
                ended.set()

            threading.Thread(target=wait).start()
            time.sleep(0.05)
            transport.close()
            assert ended.wait(5) and peer.recv(1) == b""
    for call in (lambda: transport.connect(port), lambda: transport.run("true"), lambda: transport.push(b"", "/x")):
        with pytest.raises(DeviceLostError, match="closed"):
            call()
    with LocalTransport() as other, pytest.raises(DeviceLostError, match="nothing listens"):
        other.connect(port)
