"""Sending a model to an agent: in chunks, and not at all where the agent has it already."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.devices.agent.protocol import CHUNK_BYTES
from engine.errors import DeviceError, FileError
from engine.progress import Progress

if TYPE_CHECKING:
    from engine.devices.link import AgentLink

_AHEAD = 4
"""How many chunks are sent before the answer to the first of them is waited for."""


def send_model(link: AgentLink, model: bytes | Path, progress: Progress) -> str:
    """Send a model, with the steps of stage 'send' in bytes; its SHA-256, by which the agent knows it.

    Raises FileError, Cancelled, and what the link raises; after Cancelled the link can be used again.
    """
    with _content(model) as content:
        progress.step("send", 0, len(content))
        digest = hashlib.sha256(content).hexdigest()
        told, _ = link.ask({"call": "have", "sha256": digest})
        if told.get("have") is not True:
            _send(link, content, digest, progress)
        progress.step("send", len(content), len(content))
    return digest


@contextlib.contextmanager
def _content(model: bytes | Path) -> Iterator[memoryview]:
    if isinstance(model, bytes):
        if not model:
            raise FileError("is empty", where="the model")
        yield memoryview(model)
        return
    try:
        with (
            model.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as content,
        ):
            yield content
    except ValueError:
        raise FileError("is empty", where=str(model)) from None
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=str(model)) from None


def _send(link: AgentLink, content: memoryview, digest: str, progress: Progress) -> None:
    size = len(content)
    waiting = 0
    try:
        for offset in range(0, size, CHUNK_BYTES):
            chunk = content[offset : offset + CHUNK_BYTES]
            link.post({"call": "upload", "sha256": digest, "size": size, "offset": offset}, [chunk])
            waiting += 1
            if waiting == _AHEAD:
                waiting -= 1
                link.take()
                progress.step("send", offset + len(chunk) - (_AHEAD - 1) * CHUNK_BYTES, size)
        while waiting:
            waiting -= 1
            link.take()
    except BaseException:
        # The answers that are still on their way would be taken for those of the next request.
        for _ in range(waiting):
            with contextlib.suppress(DeviceError):
                link.take()
        raise
