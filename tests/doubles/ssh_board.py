"""An SSH server in this process, behind which a FakeBoard is; with keys and a configuration of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from tests.doubles.fake_board import FakeBoard

_T = TypeVar("_T")
_PIECE = 1 << 16


class _Server(asyncssh.SSHServer):
    def __init__(self, board: SshBoard) -> None:
        self._board = board
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._board.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._board.connections.discard(self._connection)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_host == "127.0.0.1"


class SshBoard:
    """`board` behind `id`; `config` is what `ssh -F` takes to get there. Use it in a `with` block."""

    def __init__(self, board: FakeBoard, folder: Path) -> None:
        self.board = board
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self.folder = folder
        folder.mkdir(parents=True)
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / "key")
        (folder / "key").chmod(0o600)
        self._user_key = key.export_public_key().decode()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener: Any = None
        board.cut = self.unplug
        self.plug()
        self.id = f"ssh://root@127.0.0.1:{self.port}"
        known = self._host_key.export_public_key().decode()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {known}")
        self.config = folder / "config"
        self.config.write_text(
            f"Host *\n  IdentityFile {folder / 'key'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )

    def __enter__(self) -> SshBoard:
        return self

    def __exit__(self, *failure: object) -> None:
        self.unplug()
        self.board.kill_all()
        self._do(self._served())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def plug(self) -> None:
        """Listen, on the same port as before."""
        self._listener = self._do(self._listen())
        self.port = self._listener.get_port()

    def unplug(self) -> None:
        """Cut every connection at once, and take no new one."""
        self._do(self._cut())

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=lambda: _Server(self),
            server_host_keys=[self._host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(self._user_key),
            process_factory=self._serve,
            encoding=None,
            reuse_address=True,
            # As fast as the network: a test measures the way, not this server.
            compression_algs=None,
        )

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    async def _served(self) -> None:
        """Wait for the end of all commands."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=10)

    async def _serve(self, process: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        started: Any = self.board.start(process.command or "true")
        loop = self._loop

        async def feed() -> None:
            with contextlib.suppress(asyncssh.Error, OSError, ValueError):
                while piece := await process.stdin.read(_PIECE):
                    await loop.run_in_executor(None, _write, started.stdin, piece)
            with contextlib.suppress(OSError):
                started.stdin.close()

        async def drain(pipe: Any, target: Any) -> None:
            with contextlib.suppress(asyncssh.Error, OSError, ValueError):
                while piece := await loop.run_in_executor(None, pipe.read1, _PIECE):
                    target.write(self.board.told(piece))
                    await target.drain()

        feeding = loop.create_task(feed())
        try:
            await asyncio.gather(drain(started.stdout, process.stdout), drain(started.stderr, process.stderr))
            code = await loop.run_in_executor(None, started.wait)
            process.exit(code if code >= 0 else 128 - code)
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            for pipe in (started.stdin, started.stdout, started.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()


def _write(pipe: Any, piece: bytes) -> None:
    pipe.write(piece)
    pipe.flush()
