"""The agent's life on a board: what it opens there, what it leaves there, and how it ends."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from engine.devices import agent_file as agent_file_module
from engine.devices.agent import server
from engine.devices.agent.protocol import Ended, Fault, Refused, meet
from engine.devices.agent_file import agent_file
from engine.devices.link import BoardInput, ModelOptions, open_link
from engine.devices.transports.local import LocalTransport
from engine.errors import DeviceError
from tests.doubles.toy_agent import ToyBoard, WatchedTransport, killed, load, make_board, soon, there, toy

ONE = BoardInput(np.zeros((1, 4), np.float32))
AGENT = Path(server.__file__).parent


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyBoard]:
    with contextlib.ExitStack() as stack:
        yield make_board(tmp_path, monkeypatch, stack)


def test_the_file_is_the_same_every_time_and_small() -> None:
    first = agent_file()
    assert agent_file.__wrapped__() == first
    names = zipfile.ZipFile(BytesIO(first)).namelist()
    assert "__main__.py" in names and f"{agent_file_module.PACKAGE}/server.py" in names
    assert all(name.endswith(".py") for name in names) and len(first) < 200_000


@pytest.mark.parametrize("path", sorted(AGENT.glob("*.py")), ids=lambda path: path.stem)
def test_every_module_of_the_agent_is_python_3_7_on_its_own(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        top_level = node.col_offset == 0
        allowed = sys.stdlib_module_names if top_level else sys.stdlib_module_names | {"numpy", "onnxruntime"}
        assert {name.partition(".")[0] for name in names} <= allowed, path.name


def test_it_listens_on_the_boards_own_address_alone(board: ToyBoard) -> None:
    transport = board.transport()
    board.link(transport)
    owned = {str(one.readlink()) for one in Path(f"/proc/{transport.pids[0]}/fd").iterdir()}
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if f"socket:[{words[9]}]" in owned and words[3] != "01":
                listening.append(words[1])
    assert listening == [f"0100007F:{transport.ports[0]:04X}"]


def test_files_are_private_while_it_runs_and_gone_afterwards(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport)
    model = load(link, dump=True)
    (folder,) = board.agents()
    found = {path: path.lstat().st_mode for path in [folder, *folder.rglob("*")]}
    assert any(path.name.startswith("model-") for path in found)
    for path, mode in found.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path
    # The secret is in no file and no command line once it runs.
    assert not (folder / "token").exists()
    token = transport.token
    assert token not in Path(f"/proc/{transport.pids[0]}/cmdline").read_bytes()
    link.close()
    assert not board.agents()
    assert soon(lambda: not there(transport.pids[0]) and not there(model.pid))


def test_a_stranger_is_refused_and_others_go_on(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport)
    model = load(link)
    with transport.connect(transport.ports[0]) as stream, pytest.raises(Refused, match="token"):
        meet(stream, bytes(32), time.monotonic() + 5)
    for junk in (b"GET / HTTP/1.1\r\n\r\n" * 10, struct.pack("!4sI64s", b"RKTB", 7, bytes(64))):
        with transport.connect(transport.ports[0]) as stream:
            stream.sendall(junk)
            stream.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                while stream.recv(4096):
                    pass
    assert model.run([ONE])


@pytest.mark.slow
def test_connections_of_strangers_are_limited_in_number(board: ToyBoard) -> None:
    transport = board.transport()
    model = load(board.link(transport))
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(transport.connect(transport.ports[0])) for _ in range(30)]
        greeted = 0
        for stream in streams:
            stream.settimeout(2)
            with contextlib.suppress(OSError):
                greeted += len(stream.recv(40, socket.MSG_WAITALL)) == 40
        assert greeted == server.MOST_STRANGERS
        assert model.run([ONE])


def test_oversized_and_damaged_requests_are_refused_with_the_reason(board: ToyBoard) -> None:
    transport = board.transport()
    board.link(transport)

    def told(send: bytes | None = None, header: dict[str, object] | None = None) -> str:
        with transport.connect(transport.ports[0]) as stream:
            frames = meet(stream, transport.token, time.monotonic() + 5)
            if send is not None:
                stream.sendall(send)
            else:
                # A frame that promises more than it brings.
                text = json.dumps(header).encode()
                mac = frames._mac(b"client", 0, text)
                stream.sendall(struct.pack("!4sI", b"RKTB", len(text)) + mac + text + b"abcd")
            fault = Fault.of(frames.receive(time.monotonic() + 5)[0])
            assert fault is not None
            with pytest.raises(Ended):
                frames.receive(time.monotonic() + 5)
            return fault.what

    assert "over the limit of 1048576" in told(struct.pack("!4sI32s", b"RKTB", 1 << 30, bytes(32)))
    assert "over the limit of 536870912" in told(header={"call": "upload", "blobs": [[1 << 40, ""]]})
    assert "checksum is wrong" in told(header={"call": "upload", "blobs": [[4, "0" * 64]]})
    assert "forged" in told(struct.pack("!4sI32s", b"RKTB", 2, bytes(32)) + b"{}")
    assert "not a frame" in told(b"x" * 40)


def test_requests_of_no_sense_are_refused_and_the_link_goes_on(board: ToyBoard) -> None:
    link = board.link()
    for header in (
        {},
        {"call": "reboot"},
        {"call": "load", "sha256": "../../etc/passwd", "kind": "onnx", "options": {}, "seconds": 1},
        {"call": "load", "sha256": "0" * 64, "kind": "onnx", "options": {}, "seconds": 1},
        {"call": "upload", "sha256": "0" * 64, "size": 10, "offset": 5},
        {"call": "run", "model": 77, "seconds": 1, "inputs": []},
        {"call": "run", "model": "x", "seconds": None},
        {"call": "fetch", "model": 1, "name": "../alive"},
    ):
        with pytest.raises(DeviceError):
            link.ask(header, [b"12345"] if header.get("call") == "upload" else [])
    with pytest.raises(DeviceError, match="SHA-256 is another one"):
        link.ask({"call": "upload", "sha256": "0" * 64, "size": 3, "offset": 0}, [b"abc"])
    assert load(link).run([ONE])
    (folder,) = board.agents()
    assert not list(folder.glob("upload-*"))


def test_a_full_disk_is_told_and_leaves_nothing_of_the_model(board: ToyBoard) -> None:
    # A limit on the size of files is to a writer what a full disk is.
    link = board.link(board.transport("ulimit -f 4096; "))
    with pytest.raises(DeviceError, match="disk is full") as error:
        link.load(toy(size=8 << 20), "onnx", ModelOptions())
    assert error.value.hint and str(board.folder) in error.value.what
    (folder,) = board.agents()
    assert not [path for path in folder.iterdir() if path.stat().st_size > 1 << 20]
    assert load(link).run([ONE])


def test_a_full_disk_is_told_where_the_agent_itself_does_not_fit(board: ToyBoard) -> None:
    class Full(LocalTransport):
        def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
            # The kernel's own device that is always full.
            with contextlib.suppress(FileExistsError):
                Path(path).symlink_to("/dev/full")
            try:
                with Path(path).open("wb", buffering=0) as file:
                    file.write(data)
            except OSError as error:
                raise DeviceError(f"{path}: the disk is full", where=self.id) from error

    with pytest.raises(DeviceError, match="disk is full"):
        board.link(board.stack.enter_context(Full()))
    assert not board.agents()


@pytest.mark.slow
def test_it_ends_by_itself_when_nobody_comes(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport, idle=0.3)
    time.sleep(0.6)
    # A connection keeps it, whether it asks for something or not.
    assert there(transport.pids[0]) and load(link).run([ONE])
    transport.close()
    assert soon(lambda: not there(transport.pids[0]))
    assert not board.agents()


def test_it_ends_on_the_signal_to_end_and_takes_its_models_with_it(board: ToyBoard) -> None:
    transport = board.transport()
    model = load(board.link(transport))
    os.kill(transport.pids[0], signal.SIGTERM)
    assert soon(lambda: not there(transport.pids[0]) and not there(model.pid))
    assert not board.agents()
    with pytest.raises(DeviceError):
        model.run([ONE])


def test_no_process_stays_as_a_zombie(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport)
    models = [load(link, run=[["exit", 1]]) for _ in range(3)]
    for model in models[:2]:
        with pytest.raises(DeviceError):
            model.run([ONE])
    models[2].close()
    kin = subprocess.run(["ps", "-o", "stat=", "--ppid", str(transport.pids[0])], capture_output=True, text=True)
    assert kin.stdout == ""
    link.close()
    assert soon(lambda: not there(transport.pids[0]))


def test_the_next_agent_clears_away_a_killed_one_and_gives_back_its_clock(board: ToyBoard) -> None:
    device = board.add_clock()
    transport = board.transport()
    link = board.link(transport)
    assert link.pin() == 1_000_000_000
    assert (device / "governor").read_text() == "userspace"
    assert (device / "userspace" / "set_freq").read_text() == "1000000000"
    (dead,) = board.agents()
    killed(transport.pids[0])
    assert (device / "governor").read_text() == "userspace"
    # What is not ours, or in use, stays.
    busy = board.folder / "rknn-tui-000000000000"
    busy.mkdir(0o700)
    other = board.folder / "rknn-tui-notes"
    other.mkdir()
    alive = board.link()
    assert (device / "governor").read_text() == "rknpu_ondemand"
    assert not dead.exists() and busy.exists() and other.exists()
    board.link()
    assert load(alive).run([ONE])


def test_the_clock_is_given_back_however_the_link_ends(board: ToyBoard) -> None:
    device = board.add_clock()
    link = board.link()
    assert link.pin(600_000_000) == 600_000_000
    with pytest.raises(DeviceError, match="another program holds the NPU's clock"):
        board.link().pin()
    link.close()
    assert (device / "governor").read_text() == "rknpu_ondemand"
    transport = board.transport()
    board.link(transport, idle=0.5).pin()
    transport.close()
    assert soon(lambda: (device / "governor").read_text() == "rknpu_ondemand")
    transport = board.transport()
    board.link(transport).pin()
    os.kill(transport.pids[0], signal.SIGTERM)
    assert soon(lambda: not there(transport.pids[0]))
    assert (device / "governor").read_text() == "rknpu_ondemand"


def test_a_clock_that_is_not_there_or_may_not_be_set_is_told_of(board: ToyBoard) -> None:
    link = board.link()
    with pytest.raises(DeviceError, match="shows no clock of an NPU"):
        link.pin()
    device = board.add_clock()
    with pytest.raises(DeviceError, match="no 5") as error:
        link.pin(5)
    assert "300000000, 600000000, 1000000000" in error.value.hint
    (device / "userspace" / "set_freq").unlink()
    (device / "userspace").rmdir()
    with pytest.raises(DeviceError, match="cannot be set"):
        link.pin()
    # What was changed on the way to the failure is undone.
    assert (device / "governor").read_text() == "rknpu_ondemand"


def test_a_start_that_fails_leaves_nothing(board: ToyBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(WatchedTransport):
        def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
            super().push(data[:16] if path.endswith("/token") else data, path, mode=mode, seconds=seconds)

    with pytest.raises(DeviceError, match="token has a wrong length"):
        board.link(board.stack.enter_context(Short()))
    assert not board.agents()

    class Other(WatchedTransport):
        def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
            super().push(bytes(32) if path.endswith("/token") else data, path, mode=mode, seconds=seconds)

    transport = board.stack.enter_context(Other())
    with pytest.raises(DeviceError, match="token"):
        board.link(transport)
    assert not board.agents()
    assert soon(lambda: not there(transport.pids[0]))


@pytest.mark.slow
def test_a_stranger_who_says_nothing_is_sent_away(board: ToyBoard) -> None:
    transport = board.transport()
    board.link(transport)
    with transport.connect(transport.ports[0]) as stream:
        stream.settimeout(10)
        assert len(stream.recv(40, socket.MSG_WAITALL)) == 40
        start = time.monotonic()
        assert stream.recv(1) == b""
        assert 3 < time.monotonic() - start < 8


def _old_pythons() -> list[str]:
    found = sorted(Path("/root/.pyenv/versions").glob("3.[789].*/bin/python3")) if os.access("/root", os.R_OK) else []
    return [str(path) for path in found]


@pytest.mark.slow
def test_it_runs_under_older_pythons(board: ToyBoard) -> None:
    pythons = _old_pythons()
    if not pythons:
        pytest.skip("no Python older than 3.10 is installed")
    board.add_clock()
    for python in pythons:
        facts = dataclasses.replace(board.facts, interpreter=python)
        with open_link(board.transport(), facts) as link:
            assert link.hello.python.startswith("3.")
            model = load(link, "rknn", perf=True)
            np.testing.assert_array_equal(model.run([ONE])[0], ONE.array)
            assert model.measure([ONE], runs=3, warmup=1, seconds=5).call_us and model.layer_table()
            assert link.pin() == 1_000_000_000
            with pytest.raises(DeviceError, match="exit code 7"):
                load(link, run=[["exit", 7]]).run([ONE])
        assert not board.agents()
