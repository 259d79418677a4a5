"""Holding the NPU's clock by the kernel's devfreq files, and giving it back.

See the kernel's ABI documentation of `/sys/class/devfreq`: `governor`, `available_frequencies` (hertz), and with the
governor `userspace` the file `userspace/set_freq`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

from .locks import BoardLock, clock_lock
from .protocol import Fault

_GOVERNOR = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_NOTE = "pinned.json"


class Clock:
    """The NPU's clock. `folder` is the agent's own, where a note of what was changed lies while it is; `devices` is
    the folder of the kernel's devfreq devices."""

    def __init__(self, folder: Path, devices: str) -> None:
        self._folder, self._devices = folder, Path(devices)
        self._lock: BoardLock | None = None

    def pin(self, hertz: int | None) -> int:
        """Hold the clock at `hertz`, by default the highest that there is; what it is held at.

        Raises Fault of the kind 'pin' where there is no such clock, it may not be set, or another agent holds it.
        """
        device = self._device()
        known = sorted(int(one) for one in _read(device, "available_frequencies").split() if one.isdigit())
        wanted = max(known, default=0) if hertz is None else hertz
        if not wanted or (known and wanted not in known):
            there = ", ".join(map(str, known)) or "none that the kernel tells"
            raise Fault("pin", f"the NPU's clock has no {wanted or 'frequencies'}", f"there are, in hertz: {there}")
        if self._lock is None:
            lock = clock_lock(str(self._folder.parent))
            if not lock.acquire(0.0):
                raise Fault("pin", "another program holds the NPU's clock", "wait until it is done, or end it")
            self._lock = lock
            try:
                self._note(device)
            except BaseException:
                self.restore()
                raise
        try:
            _write(device, "governor", "userspace")
            _write(device, "userspace/set_freq", str(wanted))
        except BaseException:
            self.restore()
            raise
        return wanted

    def _device(self) -> Path:
        try:
            found = sorted(one for one in self._devices.iterdir() if one.name.endswith("npu"))
        except OSError:
            found = []
        if not found:
            raise Fault("pin", "the board's kernel shows no clock of an NPU", f"none is in {self._devices}")
        return found[0]

    def _note(self, device: Path) -> None:
        """Write down what there was, before it is changed: if this agent is killed, the next one restores it."""
        governor = _read(device, "governor").strip()
        told = {"device": device.name, "governor": governor}
        if governor == "userspace":
            told["set_freq"] = _read(device, "userspace/set_freq").strip()
        path = self._folder / f"{_NOTE}.new"
        with path.open("w", encoding="ascii") as note:
            json.dump(told, note)
            note.flush()
            os.fsync(note.fileno())
        path.rename(self._folder / _NOTE)

    def restore(self) -> None:
        """Give the clock back, if it was held."""
        if self._lock is not None:
            restore(self._folder, self._devices)
            self._lock.release()
            self._lock = None


def restore(folder: Path, devices: str | Path) -> None:
    """Undo what an agent that lived in `folder` has left a note of. Never raises: the board may have no such files."""
    path = folder / _NOTE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Fault):
        with path.open(encoding="ascii") as note:
            told = json.loads(note.read(4096))
        name, governor = told["device"], told["governor"]
        if Path(name).name == name and name.endswith("npu") and _GOVERNOR.fullmatch(governor):
            device = Path(devices) / name
            _write(device, "governor", governor)
            if str(told.get("set_freq", "")).isdigit():
                _write(device, "userspace/set_freq", told["set_freq"])
    with contextlib.suppress(OSError):
        path.unlink()


def _read(device: Path, name: str) -> str:
    try:
        with (device / name).open(encoding="ascii") as file:
            return file.read(1 << 16)
    except (OSError, ValueError) as error:
        raise Fault("pin", f"the NPU's clock cannot be read: {error}") from None


def _write(device: Path, name: str, text: str) -> None:
    try:
        with (device / name).open("w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        hint = "only root may set it on most boards: connect as root, or measure without pinning"
        raise Fault("pin", f"the NPU's clock cannot be set: {error}", hint) from None
