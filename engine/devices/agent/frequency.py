"""Holding the NPU's clock by the kernel's devfreq files, and giving it back.

See the kernel's ABI documentation of `/sys/class/devfreq`: `governor`, `available_frequencies` (hertz), and with the
governor `userspace` the file `userspace/set_freq`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re

from .locks import BoardLock, clock_lock
from .protocol import Fault

_GOVERNOR = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_NOTE = "pinned.json"


class Clock:
    """The NPU's clock. `folder` is the agent's own, where a note of what was changed lies while it is; `devices` is
    the folder of the kernel's devfreq devices."""

    def __init__(self, folder: str, devices: str) -> None:
        self._folder, self._devices = folder, devices
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
            lock = clock_lock(os.path.dirname(self._folder))
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

    def _device(self) -> str:
        try:
            names = sorted(name for name in os.listdir(self._devices) if name.endswith("npu"))
        except OSError:
            names = []
        if not names:
            raise Fault("pin", "the board's kernel shows no clock of an NPU", f"none is in {self._devices}")
        return os.path.join(self._devices, names[0])

    def _note(self, device: str) -> None:
        """Write down what there was, before it is changed: if this agent is killed, the next one restores it."""
        governor = _read(device, "governor").strip()
        told = {"device": os.path.basename(device), "governor": governor}
        if governor == "userspace":
            told["set_freq"] = _read(device, "userspace/set_freq").strip()
        path = os.path.join(self._folder, _NOTE)
        with open(path + ".new", "w", encoding="ascii") as note:
            json.dump(told, note)
            note.flush()
            os.fsync(note.fileno())
        os.rename(path + ".new", path)

    def restore(self) -> None:
        """Give the clock back, if it was held."""
        if self._lock is not None:
            restore(self._folder, self._devices)
            self._lock.release()
            self._lock = None


def restore(folder: str, devices: str) -> None:
    """Undo what an agent that lived in `folder` has left a note of. Never raises: the board may have no such files."""
    path = os.path.join(folder, _NOTE)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Fault):
        with open(path, encoding="ascii") as note:
            told = json.loads(note.read(4096))
        name, governor = told["device"], told["governor"]
        if os.path.basename(name) == name and name.endswith("npu") and _GOVERNOR.fullmatch(governor):
            device = os.path.join(devices, name)
            _write(device, "governor", governor)
            if str(told.get("set_freq", "")).isdigit():
                _write(device, "userspace/set_freq", told["set_freq"])
    with contextlib.suppress(OSError):
        os.unlink(path)


def _read(device: str, name: str) -> str:
    try:
        with open(os.path.join(device, name), encoding="ascii") as file:
            return file.read(1 << 16)
    except (OSError, ValueError) as error:
        raise Fault("pin", f"the NPU's clock cannot be read: {error}") from None


def _write(device: str, name: str, text: str) -> None:
    try:
        with open(os.path.join(device, name), "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        hint = "only root may set it on most boards: connect as root, or measure without pinning"
        raise Fault("pin", f"the NPU's clock cannot be set: {error}", hint) from None
