"""The life of the agent on its board: it starts, tells where it listens, serves, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import sys
import time
import traceback
from pathlib import Path

from . import frequency
from .protocol import PROTOCOL, TOKEN_BYTES
from .server import Server, Settings

_NAME = re.compile(r"rknn-tui-[0-9a-f]{12}")
_START_SECONDS = 15.0
_UNFINISHED_SECONDS = 600.0
"""A folder without a running agent may be one that a client is just filling, for so long."""


def start(library: str, idle: float, devices: str, meminfo: str) -> int:
    """Start the agent that lies in the folder of this program; the exit code of the process that was started.

    Once it listens, one line of JSON goes to standard output: its port, its process, the protocol's version, and the
    SHA-256 of the agent's file.
    """
    os.umask(0o077)
    program = Path(sys.argv[0]).absolute()
    folder = program.parent
    # Whatever the shell or adb has left open here would be held open by the agent as long as it lives.
    os.closerange(3, 256)
    sweep(folder.parent, folder.name, devices)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    command = (sys.executable, str(program), "model", "--folder", str(folder.parent), "--pipe")
    settings = Settings(folder, command, library, devices, meminfo, idle, digest)
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return _report(told, folder)
    os.close(told)
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        _redirect(folder / "log")
        _run(settings, tell)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    # Without the interpreter's own end: it would wait for threads that a stuck runtime holds.
    os._exit(code)


def _report(told: int, folder: Path) -> int:
    """Pass on what the agent says when it listens, or what went wrong."""
    line = b""
    while select.select([told], [], [], _START_SECONDS)[0]:
        part = os.read(told, 4096)
        if not part:
            break
        line += part
    os.close(told)
    if line.endswith(b"\n"):
        sys.stdout.write(line.decode())
        sys.stdout.flush()
        return 0
    with contextlib.suppress(OSError):
        sys.stderr.write((folder / "log").read_text(encoding="utf-8", errors="replace")[-4096:])
    sys.stderr.write("the agent did not start\n")
    shutil.rmtree(folder, ignore_errors=True)
    return 1


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(nothing)
    os.close(written)


def _run(settings: Settings, tell: int) -> None:
    """Serve until it is over."""
    claim = _claim(settings.folder)
    token = _token(settings.folder / "token")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # The board's own address only, and a port that the system chooses, so that none can be taken.
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.setblocking(False)
        server = Server(settings, token, listener)
        signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
        signal.signal(signal.SIGINT, lambda number, frame: server.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        told = {
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "protocol": PROTOCOL,
            "agent": settings.digest,
        }
        os.write(tell, json.dumps(told).encode() + b"\n")
        os.close(tell)
        server.serve()
    os.close(claim)


def _claim(folder: Path) -> int:
    """Lock a file of the folder, as long as this process lives: so others see that the folder is in use."""
    path = folder / "alive.new"
    claim = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(claim, fcntl.LOCK_EX)
    # It gets its name when it is locked already, since a sweep in between would take the folder for a dead one's.
    path.rename(folder / "alive")
    return claim


def _token(path: Path) -> bytes:
    token = path.read_bytes()
    path.unlink()
    if len(token) != TOKEN_BYTES:
        raise ValueError("the token has a wrong length")
    return token


def sweep(parent: Path, ours: str, devices: str) -> None:
    """Remove the folders of this user's agents in `parent` that were killed, and give back the clock that they held."""
    try:
        folders = list(parent.iterdir())
    except OSError:
        return
    for folder in folders:
        if folder.name != ours and _NAME.fullmatch(folder.name) and _dead(folder):
            frequency.restore(folder, devices)
            shutil.rmtree(folder, ignore_errors=True)


def _dead(folder: Path) -> bool:
    """Whether a folder is this user's, and the agent of it has ended without removing it."""
    try:
        told = folder.lstat()
        if not stat.S_ISDIR(told.st_mode) or told.st_uid != os.getuid():
            return False
        try:
            claim = os.open(folder / "alive", os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return time.time() - told.st_mtime > _UNFINISHED_SECONDS
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False
        finally:
            os.close(claim)
    except OSError:
        return False
