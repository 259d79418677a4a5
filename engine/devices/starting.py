"""Bringing an agent to a board, starting it there, and connecting to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
import secrets
import shlex
import socket
import time

from engine.boards import BoardFacts
from engine.devices.agent.protocol import PROTOCOL, TOKEN_BYTES, Ended, Frames, Late, Refused, meet
from engine.devices.agent_file import agent_digest, agent_file
from engine.devices.transport import Transport
from engine.errors import DeviceError, DeviceLostError, DeviceTimeoutError

CLOCKS = "/sys/class/devfreq"
MEMORY = "/proc/meminfo"
_LAST_LINE = 4096


@dataclasses.dataclass(frozen=True)
class Started:
    """An agent that runs: its connection, its folder and process on the board, and the SHA-256 of its file."""

    frames: Frames
    folder: str
    pid: int
    digest: str


def start_agent(transport: Transport, facts: BoardFacts, idle: float, deadline: float) -> Started:
    """Start an agent. Raises DeviceError, DeviceLostError and DeviceTimeoutError; then nothing of it is left."""
    if not facts.interpreter:
        raise DeviceError(
            "cannot run our agent: it has no Python 3.7 or newer", where=transport.id, hint="install python3 there"
        )
    folder = posixpath.join(facts.folder or "/tmp", f"rknn-tui-{secrets.token_hex(6)}")
    pid = 0
    try:
        token = _bring(transport, folder, deadline)
        port, pid = _start(transport, facts, folder, idle, deadline)
        frames = _connect(transport, port, token, deadline)
    except BaseException:
        _remove(transport, folder, pid)
        raise
    return Started(frames, folder, pid, agent_digest())


def stop_agent(transport: Transport, started: Started, seconds: float) -> None:
    """Tell an agent to end that cannot be told by its connection; it removes its folder itself. Never raises."""
    with contextlib.suppress(DeviceError):
        transport.run(_kill(started.folder, started.pid), seconds=seconds)


def _left(deadline: float, where: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeviceTimeoutError("the agent on the board did not start in time", where=where, hint="try again")
    return left


def _bring(transport: Transport, folder: str, deadline: float) -> bytes:
    """Make the agent's folder and fill it; the token."""
    done = transport.run(f"mkdir -m 700 {shlex.quote(folder)}", seconds=_left(deadline, transport.id))
    if done.code:
        said = _text(done.err or done.out)
        raise DeviceError(
            f"no folder can be made in {posixpath.dirname(folder)}: {said}",
            where=transport.id,
            hint="is its disk full, or read-only?",
        )
    token = secrets.token_bytes(TOKEN_BYTES)
    for name, content in (("agent.pyz", agent_file()), ("token", token)):
        transport.push(content, posixpath.join(folder, name), mode=0o600, seconds=_left(deadline, transport.id))
    return token


def _start(transport: Transport, facts: BoardFacts, folder: str, idle: float, deadline: float) -> tuple[int, int]:
    """Run the agent; its port and process."""
    words = [facts.interpreter, posixpath.join(folder, "agent.pyz"), "start", "--idle", f"{idle:g}"]
    words += ["--library", facts.library, "--sys", CLOCKS, "--meminfo", MEMORY]
    done = transport.run(shlex.join(words), seconds=_left(deadline, transport.id))
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        told = json.loads(done.out[-_LAST_LINE:].splitlines()[-1])
        port, pid = int(told["port"]), int(told["pid"])
        if told["protocol"] != PROTOCOL or not 0 < port < 65536 or pid < 2:
            raise DeviceError("another agent than ours answers", where=transport.id)
        return port, pid
    said = _text(done.err or done.out)
    raise DeviceError(
        f"the agent did not start on the board (exit code {done.code}): {said}",
        where=transport.id,
        hint=f"does `{facts.interpreter} --version` run there?",
    )


def _connect(transport: Transport, port: int, token: bytes, deadline: float) -> Frames:
    stream = transport.connect(port, seconds=_left(deadline, transport.id))
    try:
        # Not every way to a board is a connection of TCP.
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return meet(stream, token, deadline)
    except BaseException as error:
        stream.close()
        if isinstance(error, Late):
            raise DeviceTimeoutError(
                "the agent on the board does not answer", where=transport.id, hint="try again"
            ) from None
        if isinstance(error, Ended):
            raise DeviceLostError(f"the agent on the board is gone ({error})", where=transport.id) from None
        if isinstance(error, Refused):
            raise DeviceError(str(error), where=transport.id) from None
        raise


def _remove(transport: Transport, folder: str, pid: int) -> None:
    kill = f"{_kill(folder, pid)}; " if pid else ""
    with contextlib.suppress(DeviceError):
        transport.run(f"{kill}rm -rf {shlex.quote(folder)}", seconds=5.0)


def _kill(folder: str, pid: int) -> str:
    """The command that ends an agent, but no other process that has got its number since."""
    return f"grep -q {shlex.quote(posixpath.basename(folder))} /proc/{pid}/cmdline 2>/dev/null && kill {pid}"


def _text(said: bytes) -> str:
    """What a board's program wrote, on one line and without control characters."""
    text = said[-1000:].decode("utf-8", "replace").strip()
    return "".join(one if one.isprintable() else " " for one in text)
