"""Times the way to a board beside a bare socket on the same machine: `python -m tests.benchmarks.boards`.

Needs a C compiler for the stand-in of the vendor's runtime, and adb for the second way. The board is this machine, or a
fake one behind a real adb server: neither a cable nor a slow processor is in these numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.boards import BoardFacts
from engine.devices.adb_server import Address
from engine.devices.link import AgentLink, BoardInput, BoardModel, ModelOptions, open_link
from engine.devices.transport import Transport
from engine.devices.transports.adb import AdbTransport
from engine.devices.transports.local import LocalTransport
from engine.devices.upload import send_model
from engine.progress import Progress
from tests.doubles.adb_device import AdbDevice, adb_found, running_adb_server
from tests.doubles.board_models import Answer, Port, stand_in_model
from tests.doubles.fake_board import FakeBoard
from tests.doubles.librknnrt import library

OVERHEAD_MS = 5.0
"""What is aimed at for the way of one run there and back, as a median."""
UPLOAD_MB = 50.0
"""What is aimed at for sending a model, in megabytes (10^6 bytes) a second."""
WAYS = ("local", "adb")
_SIZES = {"small": 32, "image of 224 x 224": 224, "image of 640 x 640": 640}
_CLASSES = 1000
_MODEL_BYTES = 64_000_000


@dataclasses.dataclass(frozen=True)
class Measured:
    """One way: by size of the input, milliseconds of a run as the client sees it beyond the model's own time, and of
    the same bytes through bare sockets, on loopback and to the board; megabytes a second of a model, and of the same
    bytes through the two sockets."""

    way: str
    overhead: dict[str, float]
    bare: dict[str, float]
    bare_way: dict[str, float]
    upload: float
    bare_upload: float
    bare_way_upload: float

    def targets(self) -> dict[str, bool]:
        """What is aimed at, and whether it was reached."""
        found = {
            f"overhead of a run <= {OVERHEAD_MS:g} ms ({size})": ms <= OVERHEAD_MS for size, ms in self.overhead.items()
        }
        return {**found, f"upload >= {UPLOAD_MB:g} MB/s": self.upload >= UPLOAD_MB}


def missing(way: str) -> str:
    """Why a way cannot be timed here, '' if it can."""
    return "adb is not installed" if way == "adb" and adb_found() is None else ""


def measure(way: str, runs: int = 200) -> Measured:
    """Time one way. Runs and bare transfers take turns, so that a busy moment hits all alike."""
    with tempfile.TemporaryDirectory(prefix="benchmark.") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        transport, facts = stack.enter_context(_board(way, folder))
        link = stack.enter_context(open_link(transport, facts))
        port = stack.enter_context(_echoing())
        bare = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        on_way = stack.enter_context(transport.connect(port))
        for stream in (bare, on_way):
            stream.settimeout(60)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = {
            size: _run_times(link, _model(folder, link, side), side, bare, on_way, runs)
            for size, side in _SIZES.items()
        }
        rates = [_rates(link, bare, on_way) for _ in range(5)]
    upload, bare_upload, bare_way_upload = (statistics.median(column) for column in zip(*rates, strict=True))
    columns = [{size: found[index] for size, found in times.items()} for index in range(3)]
    return Measured(way, columns[0], columns[1], columns[2], upload, bare_upload, bare_way_upload)


def table(measured: Sequence[Measured]) -> str:
    """All that was measured, with what is aimed at."""
    lines = [f"{'':<44}{'ours':>10}{'bare, loopback':>16}{'bare, same way':>16}"]
    for one in measured:
        for size, ms in one.overhead.items():
            lines.append(
                f"{one.way + ': overhead of a run, ' + size:<44}{ms:>7.2f} ms{one.bare[size]:>13.2f} ms"
                f"{one.bare_way[size]:>13.2f} ms"
            )
        lines.append(
            f"{one.way + ': model of 64 MB':<44}{one.upload:>5.0f} MB/s{one.bare_upload:>11.0f} MB/s"
            f"{one.bare_way_upload:>11.0f} MB/s"
        )
        lines += [f"  {'reached' if reached else 'MISSED '} {target}" for target, reached in one.targets().items()]
    return "\n".join(lines)


@contextlib.contextmanager
def _board(way: str, folder: Path) -> Iterator[tuple[Transport, BoardFacts]]:
    """The way to a board that runs the stand-in of the vendor's runtime."""
    runtime = library()
    if way == "local":
        with LocalTransport() as local:
            yield local, BoardFacts(interpreter=sys.executable, library=str(runtime), folder=str(folder))
        return
    (folder / "adb").mkdir()
    with (
        FakeBoard(folder / "board") as board,
        AdbDevice(board) as device,
        running_adb_server(folder / "adb") as server,
    ):
        board.write("/usr/lib/librknnrt.so", runtime.read_bytes())
        with AdbTransport(server.connect(device), Address("127.0.0.1", server.port)) as adb:
            yield adb, BoardFacts(interpreter="/usr/bin/python3", library="/usr/lib/librknnrt.so", folder="/tmp")


def _model(folder: Path, link: AgentLink, side: int) -> BoardModel:
    """A model of one image that gives as many numbers as a classifier."""
    output = np.arange(_CLASSES, dtype=np.float32).reshape(1, _CLASSES)
    path = stand_in_model(
        folder / f"{side}.rknn",
        "rk3588",
        [Port("image", (1, 3, side, side), "int8", 0.01, 0)],
        [Port("classes", (1, _CLASSES), "float32")],
        [Answer(None, [output])],
    )
    return link.load(path, "rknn", ModelOptions())


def _run_times(
    link: AgentLink, model: BoardModel, side: int, bare: socket.socket, on_way: socket.socket, runs: int
) -> tuple[float, float, float]:
    """Medians in milliseconds: a run beyond its own time, the same bytes on loopback, and to the board."""
    image = np.random.default_rng(8).integers(0, 256, (1, side, side, 3), np.uint8)
    given = [BoardInput(image, "nhwc")]
    sent = image.tobytes()
    columns: list[list[float]] = [[], [], []]
    for number in range(runs + 5):
        start = time.perf_counter()
        model.run(given)
        ours = (time.perf_counter() - start) * 1e3 - model.run_us / 1e3
        found = [ours, *(_exchange(stream, sent, 4 * _CLASSES) * 1e3 for stream in (bare, on_way))]
        if number >= 5:
            for column, one in zip(columns, found, strict=True):
                column.append(one)
    model.close()
    medians = [statistics.median(column) for column in columns]
    return medians[0], medians[1], medians[2]


def _rates(link: AgentLink, bare: socket.socket, on_way: socket.socket) -> tuple[float, float, float]:
    """Megabytes a second: a model that the agent does not have, and the same through the two sockets."""
    content = os.urandom(_MODEL_BYTES)

    def rate(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return _MODEL_BYTES / 1e6 / (time.perf_counter() - start)

    return (
        rate(lambda: send_model(link, content, Progress())),
        rate(lambda: _exchange(bare, content, 1)),
        rate(lambda: _exchange(on_way, content, 1)),
    )


def _exchange(stream: socket.socket, sent: bytes, back: int) -> float:
    """Seconds for some bytes there, and `back` bytes when all have come."""
    start = time.perf_counter()
    head = len(sent).to_bytes(4, "big") + back.to_bytes(4, "big")
    if len(sent) < 1 << 20:
        stream.sendall(head + sent)
    else:
        stream.sendall(head)
        stream.sendall(sent)
    _read(stream, back)
    return time.perf_counter() - start


def _read(stream: socket.socket, size: int) -> None:
    left = memoryview(bytearray(size))
    while left:
        count = stream.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]


@contextlib.contextmanager
def _echoing() -> Iterator[int]:
    """A process that takes some bytes and gives as many back as it is told; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A process of its own, as the agent is one: a thread would share this one's interpreter with the client.
        child = os.fork()
        if not child:
            try:
                for _ in range(2):
                    stream, _ = listener.accept()
                    threading.Thread(target=_echo, args=(stream,)).start()
            finally:
                while threading.active_count() > 1:
                    time.sleep(0.01)
                os._exit(0)
        try:
            yield int(listener.getsockname()[1])
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def _echo(stream: socket.socket) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with stream, contextlib.suppress(EOFError, OSError):
        while True:
            head = stream.recv(8, socket.MSG_WAITALL)
            if len(head) < 8:
                return
            _read(stream, int.from_bytes(head[:4], "big"))
            stream.sendall(bytes(int.from_bytes(head[4:], "big")))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    print(table([measure(way, given.runs) for way in WAYS if not missing(way)]))


if __name__ == "__main__":
    main()
