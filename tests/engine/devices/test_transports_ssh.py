"""Boards over SSH: the system's own ssh against a server in this process."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.boards import READY
from engine.devices.discovery import list_boards
from engine.devices.probing import probe
from engine.devices.transports.ssh import SshTransport, parse_id
from engine.errors import ConfigError, DeviceError, DeviceLostError, DeviceTimeoutError
from tests.doubles.fake_board import FakeBoard, Fault
from tests.doubles.ssh_board import SshBoard

pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed"),
    pytest.mark.xdist_group("boards"),
]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    with FakeBoard(tmp_path / "board") as fake, SshBoard(fake, tmp_path / "ssh") as found:
        monkeypatch.setenv("RKNN_TUI_SSH_CONFIG", str(found.config))
        yield found


@pytest.fixture
def way(board: SshBoard) -> Iterator[SshTransport]:
    with SshTransport(board.id) as found:
        yield found


def test_commands_have_input_both_outputs_and_an_exit_code(way: SshTransport) -> None:
    done = way.run("cat; echo told; echo aside >&2; exit 7", data=b"\0\xff\n")
    assert (done.code, done.out, done.err) == (7, b"\0\xff\ntold\n", b"aside\n")
    assert way.run("exit 255").code == 255
    assert way.run('printf %s "it\'s"').out == b"it's"


def test_files_arrive_whole_with_their_mode(way: SshTransport, board: SshBoard) -> None:
    content = os.urandom(3 << 20)
    way.push(content, "/tmp/a file's name")
    path = board.board.path("/tmp/a file's name")
    assert path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o600
    way.push(b"", "/tmp/a file's name", mode=0o700)
    assert path.read_bytes() == b"" and path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(DeviceError, match="no/where cannot be written"):
        way.push(b"x", "/tmp/no/where")


def test_streams_lead_to_ports_of_the_board(way: SshTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            connection, _ = listener.accept()
            with connection:
                while piece := connection.recv(1 << 16):
                    connection.sendall(piece)

        thread = threading.Thread(target=echo)
        thread.start()
        stream = way.connect(listener.getsockname()[1])
        content = os.urandom(1 << 20)
        sender = threading.Thread(target=stream.sendall, args=(content,))
        sender.start()
        back = bytearray()
        while len(back) < len(content):
            back += stream.recv(1 << 16)
        assert back == content
        stream.close()
        sender.join(10)
        thread.join(10)
        assert not thread.is_alive()
        unused = listener.getsockname()[1]
    with way.connect(unused) as nothing:
        assert nothing.recv(1) == b""


def test_a_board_is_asked_what_it_is_and_listed(
    way: SshTransport, board: SshBoard, adb_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RKNN_TUI_SSH_CONFIG", str(board.config))
    assert probe(way).chip == "rk3588"
    gone = "ssh://root@127.0.0.1:1"
    found = {one.id: one for one in list_boards([board.id, gone], probe=True).boards}
    assert found[board.id].state == READY and found[board.id].facts is not None
    assert found[gone].state == "unreachable" and "refused" in found[gone].note


CUTS: dict[str, Callable[[SshTransport, SshBoard], object]] = {
    "a command": lambda way, _: way.run("sleep 30", seconds=20),
    "a file": lambda way, board: (
        board.board.faults.append(Fault("cat >", "hang")),
        way.push(bytes(8 << 20), "/tmp/x"),
    ),
}


@pytest.mark.parametrize("during", CUTS)
def test_a_cut_ends_what_is_under_way(way: SshTransport, board: SshBoard, during: str) -> None:
    way.run("true")
    threading.Timer(0.3, board.unplug).start()
    began = time.monotonic()
    with pytest.raises(DeviceLostError) as caught:
        CUTS[during](way, board)
    assert time.monotonic() - began < 10 and caught.value.where == board.id and caught.value.hint
    with pytest.raises(DeviceLostError):
        way.run("true")
    board.plug()
    with SshTransport(board.id) as again:
        assert again.run("echo back").out == b"back\n"


def test_a_cut_ends_a_stream(way: SshTransport, board: SshBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = way.connect(listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection, stream:
            threading.Timer(0.2, board.unplug).start()
            stream.settimeout(10)
            assert stream.recv(1) == b""


def test_a_command_that_hangs_is_given_up(way: SshTransport) -> None:
    with pytest.raises(DeviceTimeoutError):
        way.run("sleep 30", seconds=0.5)
    assert way.run("echo on").out == b"on\n"


def test_what_a_board_writes_without_end_is_bounded(way: SshTransport) -> None:
    with pytest.raises(DeviceError, match="64 MB"):
        way.run("cat /dev/zero", seconds=30)


def test_closing_leaves_no_process_and_no_file(board: SshBoard) -> None:
    way = SshTransport(board.id)
    way.run("true")
    stream = way.connect(board.port)
    folder, processes = way._folder, [way._master, *way._carriers]
    assert folder is not None and folder.stat().st_mode & 0o777 == 0o700
    way.close()
    way.close()
    assert stream.fileno() == -1 and not folder.exists()
    assert all(process is not None and process.returncode is not None for process in processes)
    with pytest.raises(DeviceLostError):
        way.run("true")


def test_refusals_say_what_to_do(board: SshBoard, tmp_path: Path) -> None:
    def refused(text: str, address: str = board.id) -> DeviceError:
        config = tmp_path / "other"
        config.write_text(board.config.read_text() + text)
        with SshTransport(address, config=str(config)) as way, pytest.raises(DeviceError) as caught:
            way.run("true")
        assert caught.value.where == address
        return caught.value

    board.config.write_text(board.config.read_text().replace(str(board.folder / "known_hosts"), str(tmp_path / "none")))
    error = refused("")
    assert "host key is not known" in error.what and "accept the key" in error.hint
    board.config.write_text(board.config.read_text().replace("StrictHostKeyChecking yes", "StrictHostKeyChecking no"))
    board.config.write_text(board.config.read_text().replace(str(board.folder / "key"), str(tmp_path / "nokey")))
    error = refused("")
    assert "none of your keys" in error.what and "ssh-copy-id" in error.hint
    assert "configuration" in refused("  NoSuchOption yes\n").what
    error = refused("", "ssh://127.0.0.1:1")
    assert isinstance(error, DeviceLostError) and "refused" in error.what


@pytest.mark.parametrize(
    "name", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://a:0", "ssh://a:99999", "ssh://a@-b"]
)
def test_what_is_no_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_id(name)


def test_addresses_are_taken_apart() -> None:
    assert parse_id("ssh://root@192.168.1.20:2222") == ("192.168.1.20", "root", 2222)
    assert parse_id("ssh://board") == ("board", "", None)
    assert parse_id("ssh://[fe80::1]:22") == ("fe80::1", "", 22)


def test_without_ssh_it_says_so(board: SshBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with SshTransport(board.id) as way, pytest.raises(DeviceError, match="not installed"):
        way.run("true")
