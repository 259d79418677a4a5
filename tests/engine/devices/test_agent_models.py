"""A model's process as the agent has it, and the locks that hold for a whole board."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.devices.agent import locks, models
from engine.devices.agent.locks import BoardLock, npu_lock
from engine.devices.agent.models import Model, free_memory
from engine.devices.agent.packages import version_of
from engine.devices.agent.protocol import Fault
from tests.doubles.toy_agent import there

DEAF = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def test_a_process_that_cannot_be_killed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a call inside a kernel's driver does that waits for a device: SIGKILL has to wait as well.
    model = Model(DEAF, {})
    kill = model._process.kill
    monkeypatch.setattr(model._process, "kill", lambda: None)
    monkeypatch.setattr(models, "_KILL_SECONDS", 0.1)
    with pytest.raises(Fault, match="cannot be ended") as fault:
        model.ask({"call": "run"}, (), 0.1)
    assert (fault.value.kind, fault.value.hint) == ("stuck", "restart the board")
    kill()
    model.end()
    assert not there(model.pid)


def test_a_program_that_is_not_there_is_told_of() -> None:
    with pytest.raises(Fault, match="starts no process") as fault:
        Model(["/none/python3"], {})
    assert fault.value.kind == "agent"


def test_a_process_ends_while_another_thread_waits_for_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_POLITE_SECONDS", 0.1)
    model = Model(DEAF, {})
    faults: list[Fault] = []

    def ask() -> None:
        try:
            model.ask({"call": "run"}, (), 60)
        except Fault as fault:
            faults.append(fault)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.1)
    model.end()
    waiting.join(5)
    assert faults and faults[0].kind == "died"
    model.end()


def test_a_lock_is_one_holders_at_a_time_and_goes_to_who_waits(tmp_path: Path) -> None:
    first, second = (npu_lock(str(tmp_path), seconds) for seconds in (5.0, 0.05))
    with first:
        with pytest.raises(Fault, match="another program uses the board's NPU") as fault, second:
            pass
        assert fault.value.kind == "busy"
        # Another board's, or another purpose's, is another lock.
        with npu_lock(str(tmp_path / "other"), 0.0), BoardLock("clock", str(tmp_path), 0.0, "busy"):
            pass
        taken = threading.Event()
        other = npu_lock(str(tmp_path), 5.0)
        waiting = threading.Thread(target=lambda: (other.__enter__(), taken.set()))
        waiting.start()
        assert not taken.wait(0.05)
    assert taken.wait(2)
    waiting.join()
    other.release()
    with second:
        pass


def test_a_killed_holders_lock_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from engine.devices.agent.locks import npu_lock; lock = npu_lock(sys.argv[1], 1.0)\n"
        "print(lock.acquire(1.0), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"True\n"
        lock = npu_lock(str(tmp_path), 5.0)
        assert not lock.acquire(0.0)
        holder.kill()
        with lock:
            pass


def test_a_system_without_such_locks_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(locks.socket.socket):  # type: ignore[name-defined]
        def bind(self, address: object) -> None:
            raise PermissionError(13, "not here")

    monkeypatch.setattr(locks.socket, "socket", Forbidden)
    with npu_lock(str(tmp_path), 0.1), npu_lock(str(tmp_path), 0.1):
        pass


@pytest.mark.parametrize(
    ("text", "found"),
    [("MemTotal: 9 kB\nMemAvailable:  5 kB\n", 5120), ("MemTotal: 9 kB\n", None), ("MemAvailable: x kB\n", None)],
)
def test_free_memory_is_what_the_kernel_tells(tmp_path: Path, text: str, found: int | None) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert free_memory(str(tmp_path / "meminfo")) == found
    assert free_memory(str(tmp_path / "none")) is None


def test_versions_of_packages_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_runtime").mkdir()
    (tmp_path / "toy_runtime" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version_of("toy_runtime") == "?"
    (tmp_path / "toy_runtime_gpu-1.2.3.dist-info").mkdir()
    assert version_of("toy_runtime") == "1.2.3"
    assert version_of("no_such_package_here") == ""
