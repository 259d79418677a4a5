"""A folder that stands for a board: its files, the commands that run in it, and what can go wrong there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_TOOLS = (
    *("sh", "cat", "grep", "sed", "tr", "df", "ls", "mkdir", "chmod", "wc", "rm", "rmdir", "mv", "cp", "head", "tail"),
    *("sleep", "echo", "printf", "stat", "test", "true", "false", "id", "find", "dd", "touch", "kill", "sha256sum"),
)
_PLACES = (
    *("proc/device-tree", "proc/meminfo", "proc/rknpu", "sys", "etc", "usr", "bin", "sbin", "lib", "lib64", "opt"),
    *("tmp", "data", "userdata", "oem", "vendor", "system", "root", "home", "run", "var"),
)
_SYSTEMS = {"debian": "Debian GNU/Linux 11 (bullseye)", "buildroot": "Buildroot 2018.02-rc3"}


@dataclasses.dataclass
class Fault:
    """What goes wrong when a command matches `pattern`: 'unplug', 'hang', or 'fail' (code 1). Once, unless told."""

    pattern: str
    what: str
    times: int = 1


class FakeBoard:
    """A board whose file system is `root`; `kind` is 'debian', 'android' or 'buildroot' (which has no Python).

    Paths in commands stand for those below `root`, and outputs are told as if `root` were `/`. Programs are those of a
    small board: what the machine that runs the test has elsewhere is not found. `environment` is added to that of each
    command. Use it in a `with` block, which ends every process that it started.
    """

    def __init__(
        self,
        root: Path,
        chip: str = "rk3588",
        serial: str = "fake0001",
        *,
        kind: str = "debian",
        python: bool | None = None,
        environment: Mapping[str, str] | None = None,
        model: str = "",
    ) -> None:
        self.root = root.resolve()
        self.chip, self.serial, self.kind = chip, serial, kind
        self.model = model or f"Fake {chip.upper()} board"
        self.environment = dict(environment or {})
        self.commands: list[str] = []
        self.pushed = 0
        self.faults: list[Fault] = []
        self.unplug_after_bytes: int | None = None
        """Pushed bytes after which the board is unplugged."""
        self.disk_bytes: int | None = None
        """Pushed bytes that still fit on the disk."""
        self.cut: Callable[[], object] = lambda: None
        """What takes the board off its cable; the device that stands for it sets this."""
        self._mark = secrets.token_hex(8)
        self._make(kind != "buildroot" if python is None else python)

    def __enter__(self) -> FakeBoard:
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill_all()

    def path(self, name: str) -> Path:
        """Where a path of the board is on this machine."""
        return self.root / name.lstrip("/")

    def write(self, name: str, content: str | bytes) -> Path:
        """Put a file on the board."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rewritten(self, command: str) -> str:
        """A command with the board's paths made those below `root`."""
        places = "|".join(re.escape(place) for place in _PLACES)
        pattern = rf"{re.escape(str(self.root))}(?![\w.-])|(?<![\w./*?\]}}-])/(?:{places})(?![\w.-])"
        root = str(self.root)
        return re.sub(pattern, lambda found: found[0] if found[0] == root else root + found[0], command)

    def told(self, output: bytes) -> bytes:
        """An output as the board would tell it."""
        return output.replace(os.fsencode(str(self.root)), b"")

    def fault(self, command: str) -> str:
        """Which fault a command meets, '' for none; unplugging happens here."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, command):
                fault.times -= 1
                if fault.what == "unplug":
                    self.cut()
                return fault.what
        return ""

    def start(
        self, command: str, *, stdin: int | None = subprocess.PIPE, merged: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a command of POSIX shell in a session of its own, with pipes; `merged` is one pipe for both outputs."""
        self.commands.append(command)
        what = self.fault(command)
        line = {"hang": "exec sleep 600", "fail": "echo a scripted failure >&2; exit 1"}.get(what, command)
        return subprocess.Popen(
            [str(self.root / "bin/sh"), "-c", self.rewritten(line)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            env=self._variables(),
            cwd=self.root,
            start_new_session=True,
        )

    def room(self, count: int) -> bool:
        """Count pushed bytes in; False where they do not fit on the disk. May unplug the board."""
        self.pushed += count
        if self.unplug_after_bytes is not None and self.pushed >= self.unplug_after_bytes:
            self.unplug_after_bytes = None
            self.cut()
        return self.disk_bytes is None or self.pushed <= self.disk_bytes

    def processes(self) -> list[int]:
        """The processes that the board's commands started and that still run, daemons too."""
        mark = f"FAKE_BOARD={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0") and not _is_dead(entry):
                        found.append(int(entry.name))
        return found

    def kill_all(self, seconds: float = 5.0) -> None:
        """End every process of the board, as when its power goes."""
        end = time.monotonic() + seconds
        while (running := self.processes()) and time.monotonic() < end:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    def reboot(self) -> None:
        """Cut the board off and end all that runs on it; files in /tmp go. The device plugs it in again."""
        self.cut()
        self.kill_all()
        for entry in self.path("/tmp").iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _variables(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root}/usr/bin:{self.root}/bin",
            "HOME": f"{self.root}/root",
            "LANG": "C",
            "FAKE_BOARD": self._mark,
            **self.environment,
        }

    def _make(self, python: bool) -> None:
        folders = ["bin", "usr/bin", "usr/lib", "etc", "root", "proc/device-tree", "sys/class/devfreq/fdab0000.npu"]
        folders += ["sys/class/thermal/thermal_zone0", "sys/class/thermal/thermal_zone1", "sys/kernel/debug/rknpu"]
        # Android has no /tmp.
        folders += ["data/local/tmp", "vendor/lib64"] if self.kind == "android" else ["tmp", "userdata"]
        for folder in [*folders, "oem/usr/lib"]:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for tool in _TOOLS:
            found = shutil.which(tool)
            link = self.root / "bin" / tool
            if found and not link.is_symlink():
                link.symlink_to(found)
        machine = "armv7l" if self.chip.startswith("rv") else "aarch64"
        self._program("uname", f"echo {machine}")
        if python:
            # A link to it would lose the environment that its packages are in.
            self._program("python3", f'exec {shlex.quote(sys.executable)} "$@"')
        if self.kind == "android":
            self._program(
                "getprop", 'case "$1" in ro.build.version.release) echo 12;; ro.board.platform) echo rk356x;; esac'
            )
        else:
            self.write("/etc/os-release", f'NAME=x\nPRETTY_NAME="{_SYSTEMS[self.kind]}"\nVERSION_ID="11"\n')
        self.write("/proc/device-tree/compatible", f"vendor,{self.chip}-evb\0rockchip,{self.chip}\0")
        self.write("/proc/device-tree/model", f"{self.model}\0")
        self.write(
            "/proc/meminfo", "MemTotal:        7990000 kB\nMemFree:         100000 kB\nMemAvailable:    6000000 kB\n"
        )
        self.write("/sys/class/thermal/thermal_zone0/temp", "41230\n")
        self.write("/sys/class/thermal/thermal_zone1/temp", "43500\n")
        npu = "/sys/class/devfreq/fdab0000.npu"
        self.write(f"{npu}/cur_freq", "300000000\n")
        self.write(f"{npu}/min_freq", "300000000\n")
        self.write(f"{npu}/max_freq", "1000000000\n")
        self.write(f"{npu}/governor", "rknpu_ondemand\n")
        self.write(f"{npu}/available_frequencies", "300000000 600000000 1000000000\n")
        self.write(f"{npu}/available_governors", "rknpu_ondemand userspace performance\n")
        if self.chip == "rk3588":
            self.write("/sys/kernel/debug/rknpu/load", "NPU load:  Core0:  7%, Core1:  0%, Core2: 12%,\n")
        else:
            self.write("/sys/kernel/debug/rknpu/load", "NPU load:  5%\n")
        self.write("/sys/kernel/debug/rknpu/version", "RKNPU driver: v0.8.2\n")

    def _program(self, name: str, text: str) -> None:
        path = self.root / "usr/bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def _is_dead(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
