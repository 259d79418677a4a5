"""The agent's end of a model's process: requests with a deadline, and the end of a process that does not answer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Sequence  # noqa: UP035 - Python 3.7 has it there

from .protocol import Blobs, Ended, Fault, Frames, Header, Late

PRINTED_BYTES = 64 << 10
"""How much of what a library printed last is kept."""
_POLITE_SECONDS = 1.0
_KILL_SECONDS = 2.0


class Model:
    """A model in a process of its own, which `command` starts with the number of a file descriptor appended.

    `environment` is added to the agent's own.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=dict(os.environ, **environment),
                # What ends the agent, such as a signal to its group, is not to end the model in the middle of a call.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Fault("agent", f"the board starts no process for the model: {error}") from None
        finally:
            theirs.close()
        self._frames = Frames(ours)
        # One request at a time; `end` may come from another thread in the midst of one.
        self._asking = threading.Lock()
        self._printed = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def printed(self) -> str:
        """The last that the library wrote to its standard output and error."""
        return self._printed.decode("utf-8", "replace")

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            while True:
                part = os.read(stream.fileno(), 1 << 16)
                if not part:
                    return
                self._printed = (self._printed + part)[-PRINTED_BYTES:]

    def ask(
        self, header: Header, blobs: Blobs, seconds: float, client: socket.socket | None = None
    ) -> tuple[Header, list[bytearray]]:
        """The process's answer. Raises Fault, after which the process is gone unless `alive`; Ended where `client`
        closed its connection meanwhile."""
        with self._asking:
            told, content = self._ask(header, blobs, seconds, client)
        fault = Fault.of(told)
        if fault is not None:
            fault.printed = self.printed
            raise fault
        return told, content

    def _ask(
        self, header: Header, blobs: Blobs, seconds: float, client: socket.socket | None
    ) -> tuple[Header, list[bytearray]]:
        deadline = time.monotonic() + seconds
        try:
            self._frames.send(header, blobs, deadline)
            self._await(deadline, client)
            return self._frames.receive(deadline)
        except Late:
            self.kill()
            raise Fault(
                "timeout",
                f"the runtime did not come back within {seconds:g} s, and its process was ended",
                "load the model again; where that hangs as well, restart the board",
                printed=self.printed,
            ) from None
        except _ClientGone:
            raise Ended("the client is gone") from None
        except Ended:
            raise self._died() from None

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def _await(self, deadline: float, client: socket.socket | None) -> None:
        """Wait for the answer's first byte, or for the end of the client that asked."""
        pipe = self._frames.socket
        watch = select.poll()
        watch.register(pipe, select.POLLIN)
        if client is not None:
            watch.register(client, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late("no answer")
            found = dict(watch.poll(left * 1000))
            if pipe.fileno() in found:
                return
            if client is not None and client.fileno() in found:
                if _gone(client):
                    raise _ClientGone
                # It has sent its next request already.
                watch.unregister(client)

    def _died(self) -> Fault:
        self.kill()
        code = self._process.returncode
        if code is not None and code < 0:
            try:
                how = f"by signal {signal.Signals(-code).name}"
            except ValueError:
                how = f"by signal {-code}"
        else:
            how = f"with exit code {code}"
        hint = "the board's memory may be full" if code == -signal.SIGKILL else "load the model again"
        return Fault("died", f"the process of the model ended {how}", hint, printed=self.printed)

    def kill(self) -> None:
        """End the process now. Raises Fault of the kind 'stuck' where the kernel does not let it go."""
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        try:
            self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            raise Fault(
                "stuck",
                "the process of the model cannot be ended: it waits inside the NPU's driver",
                "restart the board",
                printed=self.printed,
            ) from None
        self._reader.join(_KILL_SECONDS)

    def end(self) -> None:
        """Let the process close its model and end; after a second it is killed. Never raises."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_POLITE_SECONDS)
        with contextlib.suppress(Fault):
            self.kill()
        with self._asking:
            self._frames.close()

    def _hang_up(self) -> None:
        """Close the pipe for both processes; a thread that waits for an answer wakes up."""
        with contextlib.suppress(OSError):
            self._frames.socket.shutdown(socket.SHUT_RDWR)


class _ClientGone(Exception):
    pass


def _gone(client: socket.socket) -> bool:
    """Whether a connection that has something to be read has its end there."""
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def free_memory(path: str) -> int | None:
    """The bytes that are free for new processes, by the kernel's `meminfo` at `path`; None where it does not tell."""
    try:
        with Path(path).open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None
