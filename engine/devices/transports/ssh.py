"""The way to a board over SSH: one connection of the system's own `ssh`, which commands, files and streams share."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engine.devices.closing import Closing
from engine.devices.transport import SECONDS, Completed
from engine.errors import ConfigError, DeviceError, DeviceLostError, DeviceTimeoutError

CONNECT_SECONDS = 10
CLOSE_SECONDS = 2.0
MAX_OUTPUT_BYTES = 64 << 20
"""The most that a command may write: a board is not trusted with this computer's memory."""

_PIECE = 1 << 16

_ID = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9._][A-Za-z0-9._-]*)@)?"
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._][A-Za-z0-9._-]*))(?::(?P<port>[0-9]{1,5}))?"
)
_LOST = 255
"""What ssh ends with when the connection fails; a command may end so too."""

_OPTIONS = (
    # Nobody is there to type a password, and what the user's configuration starts for a person is not for us.
    *("BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}", "ServerAliveInterval=5", "ServerAliveCountMax=3"),
    *("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "RequestTTY=no", "PermitLocalCommand=no"),
    *("RemoteCommand=none", "EscapeChar=none", "LogLevel=ERROR"),
)


class SshAddress(NamedTuple):
    """Where a board is: `host` is a name, an address, or a Host of the ssh configuration; '' and None leave the rest to
    that."""

    host: str
    user: str = ""
    port: int | None = None


def parse_id(name: str) -> SshAddress:
    """What `ssh://[user@]host[:port]` names. Raises ConfigError."""
    found = _ID.fullmatch(name)
    if found is None or (found["port"] and not 0 < int(found["port"]) < 1 << 16):
        raise ConfigError(f"{name[:100]!r} is no board over SSH", where="device", hint="such as ssh://user@host:22")
    port = int(found["port"]) if found["port"] else None
    return SshAddress(found["host"] or found["address"], found["user"] or "", port)


class SshTransport(Closing):
    """A board that `ssh` reaches. Connected by the first call; keys, host keys and aliases are the user's own.

    `config` is a file for `ssh -F`, by default what RKNN_TUI_SSH_CONFIG names, else the user's configuration.
    """

    def __init__(self, id: str, *, config: str | None = None) -> None:
        self.id = id
        self.address = parse_id(id)
        self._config = config or os.environ.get("RKNN_TUI_SSH_CONFIG") or None
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._carriers: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def run(self, command: str, *, seconds: float = SECONDS, data: bytes = b"") -> Completed:
        """Run a line of POSIX shell; see Transport."""
        if "\0" in command:
            raise DeviceError("a command for the board holds a NUL character", where=self.id)
        end = time.monotonic() + seconds
        self._connected(end)
        # The user's shell on the board may be another one.
        process = self._ssh(["--", f"exec sh -c {shlex.quote(command)}"])
        with process:
            try:
                out, err = _talk(process, data, end)
            except TimeoutError:
                raise DeviceTimeoutError(
                    f"a command did not end within {seconds:g} s: {command[:200]}",
                    where=self.id,
                    hint="the board may hang: look at it, or restart it",
                ) from None
            except OverflowError:
                raise DeviceError("a command wrote more than 64 MB", where=self.id) from None
            finally:
                if process.poll() is None:
                    process.kill()
        if process.returncode == _LOST and not self._alive():
            raise self._lost()
        return Completed(process.returncode, out, err)

    def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
        """Write a file; see Transport. Its size is compared with what the board has afterwards."""
        quoted = shlex.quote(path)
        command = f"rm -f {quoted}; umask 077; cat > {quoted} && chmod {mode:o} {quoted} && wc -c < {quoted}"
        done = self.run(command, seconds=seconds, data=data)
        if done.code == 0 and done.out.strip() == b"%d" % len(data):
            return
        told = (done.err or done.out).decode("utf-8", "replace").strip()[-300:]
        full = "no space" in told.lower() or done.code == 0
        raise DeviceError(
            f"{path} cannot be written: {'the disk is full' if full else told or f'exit code {done.code}'}",
            where=self.id,
            hint="make room on the board" if full else "",
        )

    def connect(self, port: int, *, seconds: float = SECONDS) -> socket.socket:
        """A stream to `port` of the board's loopback address; it ends at once where nothing listens there."""
        if not 0 < port < 1 << 16:
            raise DeviceError(f"{port} is no port", where=self.id)
        self._connected(time.monotonic() + seconds)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                carrier = self._ssh(["-W", f"127.0.0.1:{port}"], theirs)
            except BaseException:
                ours.close()
                raise
        ours.settimeout(seconds)
        with self._lock:
            self._streams.add(ours)
            self._carriers = [one for one in self._carriers if one.poll() is None] + [carrier]
        return ours

    def close(self) -> None:
        """End the connection, its streams and its processes. Never raises."""
        self._closed = True
        with self._lock:
            streams, self._streams = list(self._streams), weakref.WeakSet()
            processes = [*self._carriers, *([self._master] if self._master else [])]
            folder, self._folder, self._master, self._carriers = self._folder, None, None, []
        for stream in streams:
            # Closing alone wakes no thread that waits for the stream.
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        end = time.monotonic() + CLOSE_SECONDS
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(max(0.01, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _connected(self, end: float) -> None:
        """Start the connection that all calls share, unless it is there."""
        with self._lock:
            if self._closed:
                raise DeviceLostError("the way to the board was closed", where=self.id)
            if self._master is None:
                # A socket's path has at most about 100 bytes, which the user's own folder for such files may exceed.
                base = "/tmp" if os.path.isdir("/tmp") else None  # noqa: PTH112
                self._folder = Path(tempfile.mkdtemp(prefix="rknn-ssh-", dir=base))
                with (self._folder / "log").open("wb") as log:
                    self._master = self._start(["-N", "-o", "ControlMaster=yes"], subprocess.DEVNULL, log.fileno())
            folder = self._folder
            assert folder is not None
            while not (folder / "control").exists():
                if self._master.poll() is not None:
                    raise self._lost()
                if time.monotonic() > end:
                    raise DeviceTimeoutError(
                        "no connection over SSH in time", where=self.id, hint=f"does `{self._by_hand()}` work?"
                    )
                time.sleep(0.01)
            if self._master.poll() is not None:
                raise self._lost()

    def _alive(self) -> bool:
        """Whether the connection still is; after a fault it takes a moment until ssh has noticed."""
        master = self._master
        if master is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            master.wait(0.3)
        return master.returncode is None

    def _ssh(self, words: Sequence[str], carried: socket.socket | None = None) -> subprocess.Popen[bytes]:
        """Start ssh over the connection that is there."""
        if carried is None:
            return self._start(words, subprocess.PIPE, subprocess.PIPE)
        return self._start(words, carried.fileno(), subprocess.DEVNULL, carried.fileno())

    def _start(
        self, words: Sequence[str], stdin: int, stderr: int, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        host, user, port = self.address
        command = ["ssh", *(["-F", self._config] if self._config else [])]
        for option in (*_OPTIONS, f"ControlPath={self._folder / 'control'}"):
            command += ["-o", option]
        command += ["-p", str(port)] if port else []
        command += ["-l", user] if user else []
        # The host stands between options and a command.
        split = words.index("--") if "--" in words else len(words)
        command += [*words[:split], host, *words[split + 1 :]]
        master = "ControlMaster=yes" in words
        try:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.DEVNULL if master else stdout,
                stderr=stderr,
                # A terminal's Ctrl-C is for this program, which ends what it started.
                start_new_session=True,
            )
        except FileNotFoundError:
            raise DeviceError(
                "the program ssh is not installed",
                where=self.id,
                hint="install it, such as with apt install openssh-client",
            ) from None
        except OSError as error:
            raise DeviceError(f"ssh cannot be started: {error.strerror}", where=self.id) from error

    def _by_hand(self) -> str:
        host, user, port = self.address
        options = [*(["-F", self._config] if self._config else []), *(["-p", str(port)] if port else [])]
        return shlex.join(["ssh", *options, f"{user}@{host}" if user else host])

    def _lost(self) -> DeviceError:
        """What ssh said when it ended, as an error that says what to do."""
        said = ""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                said = (self._folder / "log").read_bytes()[-4096:].decode("utf-8", "replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = "".join(one if one.isprintable() else " " for one in (lines[-1] if lines else ""))[:300]
        hand = self._by_hand()
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
            return DeviceError(
                "the board's host key is another one than before",
                where=self.id,
                hint=f"if the board was set up anew, `ssh-keygen -R {self.address.host}` forgets the old key",
            )
        if "Host key verification failed" in said:
            return DeviceError(
                "the board's host key is not known here",
                where=self.id,
                hint=f"run `{hand}` once, and accept the key if it is the board's",
            )
        if "Permission denied" in said or "Too many authentication failures" in said:
            return DeviceError(
                "the board accepts none of your keys, and a password cannot be asked for here",
                where=self.id,
                hint=f"`{hand.replace('ssh', 'ssh-copy-id', 1)}` brings your key there",
            )
        if "ad configuration option" in said or "an't open user config" in said:
            return DeviceError(f"ssh refuses its configuration: {last}", where=self.id)
        return DeviceLostError(
            f"the connection over SSH failed: {last}" if last else "the connection over SSH ended",
            where=self.id,
            hint=f"is the board on? does `{hand}` work?",
        )


def _talk(process: subprocess.Popen[bytes], data: bytes, end: float) -> tuple[bytes, bytes]:
    """What a process writes to both of its outputs while it is given `data`, until it has ended.

    Raises TimeoutError, and OverflowError where it writes more than MAX_OUTPUT_BYTES.
    """
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None and stdout is not None and stderr is not None
    waiting = memoryview(data)
    told = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in (stdin, stdout, stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE if pipe is stdin else selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is stdin:
                    try:
                        waiting = waiting[os.write(key.fd, waiting[:_PIECE]) if waiting else 0 :]
                    except BrokenPipeError:
                        # The command has ended; what it wrote is still to come.
                        waiting = waiting[len(waiting) :]
                    if not waiting:
                        selector.unregister(stdin)
                        stdin.close()
                    continue
                piece = os.read(key.fd, _PIECE)
                told[key.fd] += piece
                if not piece:
                    selector.unregister(key.fileobj)
                if sum(map(len, told.values())) > MAX_OUTPUT_BYTES:
                    raise OverflowError
        out, err = (bytes(one) for one in told.values())
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return out, err
