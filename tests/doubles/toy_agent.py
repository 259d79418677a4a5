"""The real agent with the toy model in it, and a way to the machine itself that remembers what went over it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.boards import BoardFacts
from engine.devices import starting
from engine.devices.agent_file import PACKAGE, agent_file
from engine.devices.link import AgentLink, BoardModel, ModelOptions, open_link
from engine.devices.transport import Completed
from engine.devices.transports.local import LocalTransport


def toy_agent() -> bytes:
    """The agent's file, in which the toy takes the place of both runtimes."""
    toy = Path(__file__).with_name("toy_model.py").read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(agent_file())) as real, zipfile.ZipFile(content, "w") as archive:
        replaced = [f"{PACKAGE}/{module}.py" for module in ("runtime", "onnx_model")]
        for name in sorted({*real.namelist(), *replaced}):
            archive.writestr(name, toy if name in replaced else real.read(name))
    return content.getvalue()


class WatchedTransport(LocalTransport):
    """The machine itself. `before` goes before the line that starts the agent; `ports` and `pids` are the agents'."""

    def __init__(self, before: str = "") -> None:
        super().__init__()
        self.before = before
        self.pushed: dict[str, bytes] = {}
        self.ports: list[int] = []
        self.pids: list[int] = []

    def run(self, command: str, *, seconds: float = 10.0, data: bytes = b"") -> Completed:
        starts = "agent.pyz start" in command
        done = super().run(self.before + command if starts else command, seconds=seconds, data=data)
        if starts and not done.code:
            told = json.loads(done.out)
            self.ports.append(told["port"])
            self.pids.append(told["pid"])
        return done

    def push(self, data: bytes, path: str, *, mode: int = 0o600, seconds: float = 60.0) -> None:
        self.pushed[path] = data
        super().push(data, path, mode=mode, seconds=seconds)

    @property
    def token(self) -> bytes:
        """What the agent that was started last has for its secret."""
        return [content for path, content in self.pushed.items() if path.endswith("/token")][-1]


@dataclasses.dataclass
class ToyBoard:
    """A board that is this machine: `folder` is where its agents live, `clocks` what the kernel has for devfreq."""

    folder: Path
    clocks: Path
    stack: contextlib.ExitStack

    @property
    def facts(self) -> BoardFacts:
        return BoardFacts(interpreter=sys.executable, folder=str(self.folder))

    def transport(self, before: str = "") -> WatchedTransport:
        return self.stack.enter_context(WatchedTransport(before))

    def link(self, transport: LocalTransport | None = None, **more: Any) -> AgentLink:
        """A link that ends with the test, whatever the test does."""
        return self.stack.enter_context(open_link(transport or self.transport(), self.facts, **more))

    def agents(self) -> list[Path]:
        """The folders of agents that are there."""
        return sorted(self.folder.glob("rknn-tui-*"))

    def add_clock(self, governor: str = "rknpu_ondemand") -> Path:
        """A devfreq device of an NPU, as files."""
        device = self.clocks / "fdab0000.npu"
        (device / "userspace").mkdir(parents=True)
        (device / "governor").write_text(governor + "\n")
        (device / "available_frequencies").write_text("300000000 1000000000 600000000\n")
        (device / "userspace" / "set_freq").write_text("undefined\n")
        return device


def make_board(folder: Path, patch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> ToyBoard:
    """A board whose agents have the toy model."""
    content = toy_agent()
    patch.setattr(starting, "agent_file", lambda: content)
    patch.setattr(starting, "agent_digest", lambda: hashlib.sha256(content).hexdigest())
    board = ToyBoard(folder / "tmp", folder / "devfreq", stack)
    board.folder.mkdir()
    board.clocks.mkdir()
    patch.setattr(starting, "CLOCKS", str(board.clocks))
    return board


def toy(size: int = 0, **told: Any) -> bytes:
    """The file of a toy model, filled to `size` bytes."""
    return json.dumps(told).encode().ljust(size, b"\n")


def load(link: AgentLink, kind: str = "onnx", perf: bool = False, dump: bool = False, **told: Any) -> BoardModel:
    """A toy model that is open."""
    return link.load(toy(**told), kind, ModelOptions(perf=perf, dump=dump))


def there(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(condition: Callable[[], Any], seconds: float = 8.0) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def killed(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(pid, 9)
    assert soon(lambda: not there(pid))
