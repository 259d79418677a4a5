"""Models that were sent to the agent: they come in chunks, are kept by their SHA-256, and so are sent once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import threading
from pathlib import Path
from typing import Any

from .protocol import Fault

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE_BYTES = 1 << 20


class Uploads:
    """The models in `folder`, and those that are still coming, one for each connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coming: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def path_of(self, digest: str) -> Path | None:
        """Where the model of this SHA-256 is; None where it was not sent."""
        if not _DIGEST.fullmatch(digest):
            raise Fault("request", "that is no SHA-256")
        path = self._folder / f"model-{digest}"
        return path if path.is_file() else None

    def take(self, key: str, digest: str, size: int, offset: int, content: bytearray) -> None:
        """Write the next chunk of the model of `size` bytes that the connection `key` sends; the first has offset 0.

        Raises Fault where the chunk is not the next one, the disk is full, or the whole is not what it should be.
        """
        self.path_of(digest)
        with self._lock:
            coming = self._coming.get(key)
        if offset == 0:
            self.drop(key)
            self._check_space(size)
            coming = _Upload(self._folder / f"upload-{key}", digest, size)
            with self._lock:
                self._coming[key] = coming
        if coming is None or (coming.digest, coming.size, coming.done) != (digest, size, offset):
            raise Fault("request", "that is not the next chunk of the model", "send it from its start")
        try:
            coming.write(content)
            if coming.done == size:
                coming.finish(self._folder / f"model-{digest}")
                self.drop(key)
        except OSError as error:
            self.drop(key)
            if error.errno in _FULL:
                raise self._full(size) from None
            raise Fault("disk", f"the board cannot write the model: {error}") from None
        except Fault:
            self.drop(key)
            raise

    def _check_space(self, size: int) -> None:
        space = os.statvfs(self._folder)
        if space.f_bavail * space.f_frsize < size + _SPARE_BYTES:
            raise self._full(size)

    def _full(self, size: int) -> Fault:
        free = 0
        with contextlib.suppress(OSError):
            space = os.statvfs(self._folder)
            free = space.f_bavail * space.f_frsize
        where = self._folder.parent
        what = f"the board's disk is full: the model has {size} bytes, and {where} has room for {free}"
        return Fault("disk", what, f"make room in {where}, or raise the limit of file sizes there")

    def drop(self, key: str) -> None:
        """Forget what a connection has sent of a model, if it is not complete."""
        with self._lock:
            coming = self._coming.pop(key, None)
        if coming is not None:
            coming.close()


class _Upload:
    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.digest, self.size, self.done = digest, size, 0
        self._path = path
        self._hash: Any = hashlib.sha256()
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, content: bytearray) -> None:
        if self.done + len(content) > self.size or not content:
            raise Fault("request", "the model has more bytes, or fewer, than was said")
        assert self._file is not None
        view = memoryview(content)
        self._hash.update(view)
        self.done += len(view)
        while len(view):
            view = view[os.write(self._file, view) :]

    def finish(self, path: Path) -> None:
        if self._hash.hexdigest() != self.digest:
            raise Fault("request", "the model arrived damaged: its SHA-256 is another one", "send it again")
        self._path.rename(path)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with contextlib.suppress(OSError):
            self._path.unlink()
