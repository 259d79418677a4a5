"""The wire between agent and client: whoever does not know the token gets nowhere, and nothing grows without bound."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.devices.agent import protocol
from engine.devices.agent.protocol import Ended, Fault, Frames, Late, Refused, greet, meet

TOKEN = bytes(range(32))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def beside(call: Callable[[], Any]) -> Callable[[], Any]:
    """Run something in a thread; what is returned waits for it, and gives its result or raises its error."""
    results: list[Any] = []

    def body() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def joined() -> Any:
        thread.join(10)
        result = results[0]
        if isinstance(result, Exception):
            raise result
        return result

    return joined


def shaken(pair: tuple[socket.socket, socket.socket]) -> tuple[Frames, Frames]:
    """The agent's and the client's end after a handshake."""
    agent = beside(lambda: greet(pair[0], TOKEN, soon()))
    client = meet(pair[1], TOKEN, soon())
    return agent(), client


def test_frames_go_both_ways_with_their_blobs(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, client = shaken(pair)
    for number in range(3):
        sending = beside(lambda n=number: client.send({"call": "run", "n": n}, [b"abc", b"", bytes(300_000)]))
        header, blobs = agent.receive(soon())
        sending()
        assert header == {"call": "run", "n": number} and [len(one) for one in blobs] == [3, 0, 300_000]
        agent.send({"ok": number})
        assert client.receive(soon()) == ({"ok": number}, [])


def test_a_wrong_token_is_refused_by_either_side(pair: tuple[socket.socket, socket.socket]) -> None:
    agent = beside(lambda: greet(pair[0], TOKEN, soon()))
    with pytest.raises(Refused, match="does not take the token"):
        meet(pair[1], bytes(32), soon())
    with pytest.raises(Refused, match="token"):
        agent()


def test_a_client_sees_that_an_agent_does_not_know_the_token(pair: tuple[socket.socket, socket.socket]) -> None:
    def impostor() -> None:
        pair[0].sendall(struct.pack("!4sI32s", b"RKTB", protocol.PROTOCOL, bytes(32)))
        pair[0].recv(72, socket.MSG_WAITALL)
        pair[0].sendall(bytes(33))

    done = beside(impostor)
    with pytest.raises(Refused, match="does not know the token"):
        meet(pair[1], TOKEN, soon())
    done()


def test_another_version_is_named_by_both(pair: tuple[socket.socket, socket.socket]) -> None:
    agent = beside(lambda: greet(pair[0], TOKEN, soon()))
    greeting = pair[1].recv(40, socket.MSG_WAITALL)
    pair[1].sendall(struct.pack("!4sI32s32s", b"RKTB", 99, bytes(32), bytes(32)))
    verdict = pair[1].recv(33, socket.MSG_WAITALL)
    with pytest.raises(Refused, match="version"):
        agent()
    assert verdict[0] == 1
    # And the other way round: a client that meets an agent of a later version.
    pair[0].sendall(struct.pack("!4sI32s", b"RKTB", 99, greeting[8:]))
    with pytest.raises(Refused, match=r"version 99 .* this program 1"):
        meet(pair[1], TOKEN, soon())


def test_a_recorded_handshake_is_of_no_use(pair: tuple[socket.socket, socket.socket]) -> None:
    recorded: list[bytes] = []

    class Recorder:
        def __init__(self, stream: socket.socket) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def sendmsg(self, parts: list[memoryview]) -> int:
            recorded.append(b"".join(parts))
            return self.stream.sendmsg(parts)

    agent = beside(lambda: greet(pair[0], TOKEN, soon()))
    client = meet(Recorder(pair[1]), TOKEN, soon())  # type: ignore[arg-type]
    client.send({"call": "shutdown"})
    assert agent().receive(soon())[0] == {"call": "shutdown"}

    one, other = socket.socketpair()
    with one, other:
        again = beside(lambda: greet(one, TOKEN, soon()))
        other.recv(40, socket.MSG_WAITALL)
        other.sendall(recorded[0])
        with pytest.raises(Refused, match="token"):
            again()
        assert other.recv(33, socket.MSG_WAITALL)[0] != 0
    # A frame of that connection is worth nothing on another one.
    one, other = socket.socketpair()
    with one, other:
        theirs, _ = shaken((one, other))
        other.sendall(recorded[1])
        with pytest.raises(Refused, match="forged, replayed or damaged"):
            theirs.receive(soon())


def test_a_frame_that_comes_twice_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, client = shaken(pair)
    first = _frame(client, {"call": "pin"})
    pair[1].sendall(first)
    assert agent.receive(soon())[0] == {"call": "pin"}
    pair[1].sendall(first)
    with pytest.raises(Refused, match="forged, replayed or damaged"):
        agent.receive(soon())


def test_a_frame_of_the_other_direction_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, client = shaken(pair)
    agent.send({"fault": 1})
    echoed = pair[1].recv(65536)
    pair[1].sendall(echoed)
    with pytest.raises(Refused, match="forged"):
        agent.receive(soon())
    assert client is not None


@pytest.mark.parametrize("place", [8, 20, 45])
def test_a_changed_frame_is_refused(pair: tuple[socket.socket, socket.socket], place: int) -> None:
    agent, client = shaken(pair)
    frame = bytearray(_frame(client, {"call": "unload", "model": 12345}))
    frame[place] ^= 1
    pair[1].sendall(frame)
    with pytest.raises(Refused, match="forged, replayed or damaged"):
        agent.receive(soon())


def test_a_header_over_the_limit_is_refused_before_it_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, _ = shaken(pair)
    pair[1].sendall(struct.pack("!4sI32s", b"RKTB", (1 << 20) + 1, bytes(32)))
    with pytest.raises(Refused, match="over the limit of 1048576"):
        agent.receive(soon())


def test_data_over_a_limit_takes_no_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, client = shaken(pair)
    traced = tracemalloc.is_tracing()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    pair[1].sendall(_frame(client, {"call": "upload", "blobs": [[400 << 20, ""]]}))
    with pytest.raises(Refused, match="419430400 bytes of data are too many: too much"):
        agent.receive(soon(), lambda size: "too much" if size > 1000 else "")
    pair[1].sendall(_frame(client, {"call": "upload", "blobs": [[300 << 20, ""], [300 << 20, ""]]}))
    with pytest.raises(Refused, match="over the limit of 536870912"):
        agent.receive(soon())
    peak = tracemalloc.get_traced_memory()[1]
    if not traced:
        tracemalloc.stop()
    assert peak - before < 4 << 20


def test_damaged_data_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    agent, client = shaken(pair)
    pair[1].sendall(_frame(client, {"blobs": [[4, hashlib.sha256(b"good").hexdigest()]]}) + b"goob")
    with pytest.raises(Refused, match="checksum is wrong"):
        agent.receive(soon())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 200_000,
        b'{"blobs": 3}',
        b'{"blobs": [[-1, ""]]}',
        b'{"blobs": [[1.5, ""]]}',
        b'{"blobs": [[true, ""]]}',
        b'{"blobs": [[1, 2]]}',
        b'{"blobs": [["1", ""]]}',
        json.dumps({"blobs": [[1, ""]] * 257}).encode(),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(pair: tuple[socket.socket, socket.socket], text: bytes) -> None:
    agent, client = shaken(pair)
    sending = beside(lambda: pair[1].sendall(_sealed(client, text)))
    with pytest.raises(Refused):
        agent.receive(soon())
    sending()


def test_every_wait_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(Late):
        greet(pair[0], TOKEN, soon(0.05))
    agent, client = shaken(socket.socketpair())
    with agent.socket, client.socket:
        with pytest.raises(Late):
            agent.receive(soon(0.05))
        agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with pytest.raises(Late):
            agent.send({}, [bytes(8 << 20)], soon(0.05))
    other = shaken(socket.socketpair())
    with other[0].socket, other[1].socket:
        other[1].socket.sendall(b"RKTB\0")
        with pytest.raises(Late):
            other[0].receive(soon(0.05))
        other[1].close()
        with pytest.raises(Ended):
            other[0].receive(soon())


def test_a_fault_comes_over_whole_and_bounded() -> None:
    fault = Fault("model", "w" * 10_000, "h", -6, "\x1b" * 200_000)
    header = fault.header()
    assert len(json.dumps(header)) < protocol.HEADER_LIMIT
    back = Fault.of(json.loads(json.dumps(header)))
    assert back is not None
    assert (back.kind, back.hint, back.code, len(back.what)) == ("model", "h", -6, 4000)
    assert Fault.of({"outputs": []}) is None


def _frame(client: Frames, header: dict[str, Any]) -> bytes:
    return _sealed(client, json.dumps(header).encode())


def _sealed(client: Frames, text: bytes) -> bytes:
    """A frame of this client's with any text for its header, as only who has the key can make it."""
    number = client._sent
    client._sent += 1
    mac = hmac.new(client._key, b"client" + struct.pack("!Q", number) + text, hashlib.sha256).digest()
    return struct.pack("!4sI", b"RKTB", len(text)) + mac + text
