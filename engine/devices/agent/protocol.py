"""What the agent on a board and its client say to each other: handshake, frames and limits, one source for both ends.

A connection opens with a nonce from each side and a proof by HMAC-SHA256 that each knows the token. Then come frames::

    magic, 4 bytes | length of the header, u32 big-endian | MAC of the header, 32 bytes | header, JSON | blobs

The MAC is under a key of this connection alone, over the direction, the frame's number in it, and the header; sizes and
SHA-256 of the blobs stand in the header. So no frame can be made, changed, replayed or left out without the token.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import struct
import time
from typing import Any, Callable, Dict, Sequence  # noqa: UP035 - Python 3.7 has them there

PROTOCOL = 1
"""The version of all this; the two ends have to agree."""

TOKEN_BYTES = 32
HEADER_LIMIT = 1 << 20
"""The longest header, in bytes."""
BLOB_LIMIT = 512 << 20
"""The most bytes of blobs in one frame; models are sent in chunks, one in a frame."""
BLOB_COUNT = 256
"""The most blobs in one frame."""
CHUNK_BYTES = 1 << 20
"""How much of a model goes into one frame."""
BODY_SECONDS = 60.0
"""How long a frame may take that has begun to arrive."""
HANDSHAKE_SECONDS = 5.0

_PIECE_BYTES = 128 << 10
_MAGIC = b"RKTB"
_NONCE_BYTES = 32
_PROOF_BYTES = 32
_GREETING = struct.Struct(f"!4sI{_NONCE_BYTES}s")
_ANSWER = struct.Struct(f"!4sI{_NONCE_BYTES}s{_PROOF_BYTES}s")
_VERDICT = struct.Struct(f"!B{_PROOF_BYTES}s")
_FRAME = struct.Struct("!4sI")
_COUNTER = struct.Struct("!Q")

_ACCEPTED, _WRONG_VERSION, _WRONG_TOKEN = 0, 1, 2
_VERDICTS = {
    _WRONG_VERSION: "the agent speaks another version of the protocol",
    _WRONG_TOKEN: "the agent does not take the token",
}

Header = Dict[str, Any]  # noqa: UP006 - Python 3.7 has no dict[str, Any]
Blobs = Sequence[Any]


class Ended(Exception):
    """The other end closed the stream, or it broke."""


class Late(Exception):
    """The other end did not send, or take, what was due in time."""


class Refused(Exception):
    """What the other end sent cannot be accepted: forged, damaged, too large or of another version."""


class Fault(Exception):
    """A request that failed; the connection goes on.

    `kind` is 'request' (of no sense), 'model' (the runtime refuses; `code` is its own number), 'timeout', 'died',
    'stuck', 'busy' (another program uses the NPU), 'memory', 'disk', 'pin' or 'agent'. `printed` is what the library
    printed.
    """

    def __init__(self, kind: str, what: str, hint: str = "", code: int = 0, printed: str = "") -> None:
        super().__init__(what)
        self.kind, self.what, self.hint, self.code, self.printed = kind, what, hint, code, printed

    def header(self) -> Header:
        """As it goes over the wire."""
        # Every part has its bound, so that the header that tells of a fault always fits.
        return {
            "fault": {
                "kind": self.kind,
                "what": self.what[:4000],
                "hint": self.hint[:4000],
                "code": self.code,
                "printed": self.printed[-65536:],
            }
        }

    @classmethod
    def of(cls, header: Header) -> Fault | None:
        """The fault that an answer tells of, if it does."""
        told = header.get("fault")
        if not isinstance(told, dict):
            return None
        code = told.get("code")
        kind, what, hint, printed = (str(told.get(name, "")) for name in ("kind", "what", "hint", "printed"))
        return cls(kind, what, hint, code if isinstance(code, int) else 0, printed)


class Frames:
    """One end of a connection after its handshake. Without a key it is a pipe between two processes of one machine,
    which carries the same frames without MAC and checksums."""

    def __init__(self, stream: socket.socket, key: bytes = b"", ours: bytes = b"", theirs: bytes = b"") -> None:
        self.socket = stream
        self._key, self._ours, self._theirs = key, ours, theirs
        self._sent = self._received = 0

    def send(self, header: Header, blobs: Blobs = (), deadline: float | None = None) -> None:
        """Send one frame; a blob is anything of bytes. Raises Ended and Late."""
        views = [memoryview(blob).cast("B") for blob in blobs]
        told = dict(header)
        if views:
            told["blobs"] = [[len(one), hashlib.sha256(one).hexdigest() if self._key else ""] for one in views]
        text = json.dumps(told, separators=(",", ":")).encode()
        if len(text) > HEADER_LIMIT or len(views) > BLOB_COUNT:
            raise Refused(f"a header of {len(text)} bytes and {len(views)} blobs is more than a frame takes")
        mac = self._mac(self._ours, self._sent, text)
        self._sent += 1
        # Everything in one call of the system, since a header that goes alone waits for its acknowledgement.
        _send(self.socket, [_FRAME.pack(_MAGIC, len(text)) + mac + text, *views], deadline)

    def receive(
        self,
        deadline: float | None = None,
        allowed: Callable[[int], str] | None = None,
    ) -> tuple[Header, list[bytearray]]:
        """The next frame: its header, and its blobs.

        `deadline` is for its first byte. `allowed` says why so many bytes of blobs are too many, '' if they are not,
        and is asked before any memory is taken for them. Raises Ended, Late and Refused, after which there is no way
        to go on.
        """
        start = bytearray(_FRAME.size + _PROOF_BYTES)
        _read(self.socket, memoryview(start)[:1], deadline)
        body = time.monotonic() + BODY_SECONDS
        deadline = body if deadline is None else min(deadline, body)
        _read(self.socket, memoryview(start)[1:], deadline)
        magic, length = _FRAME.unpack_from(start)
        if magic != _MAGIC:
            raise Refused("what came is not a frame")
        if length > HEADER_LIMIT:
            raise Refused(f"a header of {length} bytes is over the limit of {HEADER_LIMIT}")
        text = bytearray(length)
        _read(self.socket, memoryview(text), deadline)
        mac = self._mac(self._theirs, self._received, text)
        if not hmac.compare_digest(mac, bytes(start[_FRAME.size :])):
            raise Refused("a frame is forged, replayed or damaged")
        self._received += 1
        header = _parsed(text)
        sizes = _sizes(header.pop("blobs", []))
        total = sum(size for size, _ in sizes)
        why = f"over the limit of {BLOB_LIMIT}" if total > BLOB_LIMIT else ""
        if not why and allowed is not None:
            why = allowed(total)
        if why:
            raise Refused(f"{total} bytes of data are too many: {why}")
        return header, [self._blob(size, digest, deadline) for size, digest in sizes]

    def _blob(self, size: int, digest: str, deadline: float) -> bytearray:
        content = bytearray(size)
        if not self._key:
            _read(self.socket, memoryview(content), deadline)
            return content
        # Each piece is summed up while the next one is on its way.
        found = hashlib.sha256()
        for start in range(0, size, _PIECE_BYTES):
            piece = memoryview(content)[start : start + _PIECE_BYTES]
            _read(self.socket, piece, deadline)
            found.update(piece)
        if not hmac.compare_digest(found.hexdigest().encode(), digest.encode()):
            raise Refused("data arrived damaged: its checksum is wrong")
        return content

    def _mac(self, direction: bytes, number: int, text: bytes | bytearray) -> bytes:
        if not self._key:
            return bytes(_PROOF_BYTES)
        return hmac.new(self._key, direction + _COUNTER.pack(number) + text, hashlib.sha256).digest()

    def close(self) -> None:
        """Close the stream; a thread that waits at it wakes up, which closing alone does not do."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def greet(stream: socket.socket, token: bytes, deadline: float) -> Frames:
    """The agent's side of the handshake. Raises Refused, after telling the client, and Ended and Late."""
    ours = os.urandom(_NONCE_BYTES)
    _send(stream, [_GREETING.pack(_MAGIC, PROTOCOL, ours)], deadline)
    answer = bytearray(_ANSWER.size)
    _read(stream, memoryview(answer), deadline)
    magic, version, theirs, proof = _ANSWER.unpack(answer)
    nonces = ours + theirs
    if magic != _MAGIC or version != PROTOCOL:
        verdict = _WRONG_VERSION
    elif not hmac.compare_digest(proof, _proof(token, b"client", nonces)):
        verdict = _WRONG_TOKEN
    else:
        _send(stream, [_VERDICT.pack(_ACCEPTED, _proof(token, b"agent", nonces))], deadline)
        return Frames(stream, _proof(token, b"key", nonces), b"agent", b"client")
    _send(stream, [_VERDICT.pack(verdict, bytes(_PROOF_BYTES))], deadline)
    raise Refused(_VERDICTS[verdict])


def meet(stream: socket.socket, token: bytes, deadline: float) -> Frames:
    """The client's side of the handshake. Raises Refused where either side does not know the token."""
    greeting = bytearray(_GREETING.size)
    _read(stream, memoryview(greeting), deadline)
    magic, version, theirs = _GREETING.unpack(greeting)
    if magic != _MAGIC:
        raise Refused("what answers there is not our agent")
    if version != PROTOCOL:
        raise Refused(f"the agent speaks version {version} of the protocol, and this program {PROTOCOL}")
    ours = os.urandom(_NONCE_BYTES)
    nonces = theirs + ours
    _send(stream, [_ANSWER.pack(_MAGIC, PROTOCOL, ours, _proof(token, b"client", nonces))], deadline)
    answer = bytearray(_VERDICT.size)
    _read(stream, memoryview(answer), deadline)
    verdict, proof = _VERDICT.unpack(answer)
    if verdict != _ACCEPTED:
        raise Refused(_VERDICTS.get(verdict, "the agent refuses the connection"))
    if not hmac.compare_digest(proof, _proof(token, b"agent", nonces)):
        raise Refused("what answers there does not know the token")
    return Frames(stream, _proof(token, b"key", nonces), b"client", b"agent")


def _proof(token: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.new(token, b"%s\0%d\0%s" % (role, PROTOCOL, nonces), hashlib.sha256).digest()


def _parsed(text: bytearray) -> Header:
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise Refused("a header is no JSON") from None
    if not isinstance(header, dict):
        raise Refused("a header is no object")
    return header


def _sizes(told: object) -> list[tuple[int, str]]:
    if not isinstance(told, list) or len(told) > BLOB_COUNT:
        raise Refused("a header tells of no blobs, or of too many")
    sizes = []
    for one in told:
        fits = isinstance(one, list) and len(one) == 2 and type(one[0]) is int and one[0] >= 0
        if not fits or not isinstance(one[1], str) or not one[1].isascii():
            raise Refused("a header tells of a blob without size and checksum")
        sizes.append((one[0], one[1]))
    return sizes


def _send(stream: socket.socket, parts: Sequence[Any], deadline: float | None) -> None:
    left = [memoryview(part) for part in parts if len(part)]
    try:
        while left:
            _limit(stream, deadline)
            sent = stream.sendmsg(left[:64])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]
    except socket.timeout:  # noqa: UP041 - an error of its own before Python 3.10
        raise Late("the other end takes nothing") from None
    except OSError as error:
        raise Ended(str(error)) from None


def _read(stream: socket.socket, view: memoryview, deadline: float | None) -> None:
    try:
        while len(view):
            _limit(stream, deadline)
            count = stream.recv_into(view)
            if not count:
                raise Ended("the other end closed the connection")
            view = view[count:]
    except socket.timeout:  # noqa: UP041
        raise Late("the other end does not answer") from None
    except OSError as error:
        raise Ended(str(error)) from None


def _limit(stream: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        stream.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise Late("the time is over")
    stream.settimeout(left)
