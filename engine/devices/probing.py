"""Asks a board what it is: one script of POSIX shell that prints `name=value` lines, and the reading of them."""

from __future__ import annotations

import dataclasses
import re
import shlex

from engine.boards import BoardFacts
from engine.devices.transport import Transport
from engine.errors import DeviceError
from engine.targets import TARGETS

SECONDS = 15.0
MAX_TEXT = 1 << 16
"""The most characters of an answer that are read."""
OLDEST_PYTHON = (3, 7)
OLDEST_RUNTIME = (1, 2)
"""Older runtimes have other structures than the ones that the agent knows."""
LITTLE_MEMORY = 24 << 20
LITTLE_DISK = 4 << 20
FOLDERS = ("/data/local/tmp", "/tmp", "/userdata")
"""Where temporary files may go, in the order of preference: Android has the first only."""

_MINI = ("rv1103", "rv1106")
_LIBRARY_FOLDERS = (
    *("/usr/lib", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/lib/arm-linux-gnueabihf", "/usr/local/lib", "/lib"),
    *("/lib64", "/vendor/lib64", "/vendor/lib", "/system/lib64", "/system/lib", "/oem/usr/lib"),
)
# Finds the package without importing it: an import takes seconds on a board, and one that crashes would tell nothing.
_ASK_PYTHON = """\
import sys
print('python=%d.%d.%d' % sys.version_info[:3])
import importlib.util, os
s = importlib.util.find_spec('onnxruntime') if importlib.util.find_spec('numpy') else None
if s and s.origin:
    d = os.path.dirname(os.path.dirname(s.origin))
    v = [n[:-10].split('-')[1] for n in os.listdir(d) if n.startswith('onnxruntime') and n[-10:] == '.dist-info']
    print('onnxruntime=' + (v or ['unknown'])[0])
"""

# The values come raw: what the answers hold is cut and checked on this side.
_READINGS = """\
say() { printf '%s=' "$1"; shift; "$@" 2>/dev/null; echo; }
for f in /sys/kernel/debug/rknpu/load /proc/rknpu/load; do if [ -r $f ]; then say load cat $f; break; fi; done
for f in /sys/class/devfreq/*npu*/cur_freq; do if [ -r $f ]; then say hertz cat $f; break; fi; done
for f in /sys/class/thermal/thermal_zone*/temp; do if [ -r $f ]; then say temp cat $f; fi; done
grep -E '^Mem(Total|Free|Available):' /proc/meminfo 2>/dev/null
"""

_SCRIPT = (
    _READINGS
    + """\
say machine uname -m
for f in /proc/device-tree/compatible /sys/firmware/devicetree/base/compatible; do
  if [ -r $f ]; then say compatible cat $f; break; fi; done
for f in /proc/device-tree/model /sys/firmware/devicetree/base/model; do
  if [ -r $f ]; then say model cat $f; break; fi; done
if [ -r /etc/os-release ]; then say system grep '^PRETTY_NAME=' /etc/os-release
elif command -v getprop >/dev/null 2>&1; then say android getprop ro.build.version.release
  say product getprop ro.board.platform; fi
for f in /sys/kernel/debug/rknpu/version /proc/rknpu/version; do if [ -r $f ]; then say driver cat $f; break; fi; done
for n in librknnrt.so librknnmrt.so; do for d in LIBRARY_FOLDERS; do if [ -f $d/$n ]; then
  echo "library=$d/$n"
  say runtime grep -a -o -m 1 'librknnm*rt version: [0-9][0-9A-Za-z._-]*' $d/$n
  break 2; fi; done; done
for p in python3 /usr/bin/python3 /usr/local/bin/python3 /opt/bin/python3; do
  q=$(command -v $p 2>/dev/null); if [ -n "$q" ]; then echo "interpreter=$q"; "$q" -c ASK_PYTHON 2>/dev/null; break; fi
done
for d in FOLDERS; do if [ -d $d ] && [ -w $d ]; then
  echo "folder=$d"; say disk df -k $d; break; fi; done
echo end=1
"""
)


def script() -> str:
    """The whole question, as text of POSIX shell."""
    return (
        _SCRIPT.replace("LIBRARY_FOLDERS", " ".join(_LIBRARY_FOLDERS))
        .replace("ASK_PYTHON", shlex.quote(_ASK_PYTHON))
        .replace("FOLDERS", " ".join(FOLDERS))
    )


def probe(transport: Transport, *, seconds: float = SECONDS) -> BoardFacts:
    """Ask a board for all that BoardFacts has. Raises DeviceError where the board cannot be asked."""
    done = transport.run(script(), seconds=seconds)
    text = done.out.decode("utf-8", "replace")
    if not re.search(r"^end=1", text, re.MULTILINE):
        said = done.err.decode("utf-8", "replace").strip() or text.strip()
        raise DeviceError(f"the board's shell did not answer what it was asked: {said[-300:]}", where=transport.id)
    return parse(text)


def readings(transport: Transport, *, seconds: float = 5.0) -> BoardFacts:
    """What changes all the time: temperature, load, clock and memory; nothing else is filled."""
    return _readings(_values(transport.run(_READINGS, seconds=seconds).out.decode("utf-8", "replace")))


def parse(text: str) -> BoardFacts:
    """The facts in what the script printed; any text is taken, and what is not understood is left out."""
    values = _values(text)
    read = _readings(values)
    first = {name: lines[0] for name, lines in values.items() if lines}
    chip = chip_of(first.get("compatible", "").replace("\n", " ")) or chip_of(first.get("product", ""))
    python, interpreter = _match(r"(\d+\.\d+(?:\.\d+)?)", first.get("python", "")), first.get("interpreter", "")
    usable = bool(python) and _numbers(python)[:2] >= OLDEST_PYTHON and interpreter.startswith("/")
    facts = BoardFacts(
        chip=chip,
        board=_line(first.get("model", "")),
        system=_system(first),
        machine=_line(first.get("machine", "")),
        runtime=_match(r"version: ([0-9][0-9A-Za-z._-]*)", first.get("runtime", "")),
        library=_path(first.get("library", "")),
        driver=_match(r"v?([0-9]+(?:\.[0-9]+)+)", first.get("driver", "")),
        python=python,
        interpreter=_path(interpreter) if usable else "",
        onnxruntime=_line(first.get("onnxruntime", "")) if usable else "",
        folder=_path(first.get("folder", "")),
        free_memory=read.free_memory,
        total_memory=read.total_memory,
        free_disk=_disk(first.get("disk", "")),
        temperature=read.temperature,
        npu_load=read.npu_load,
        npu_hz=read.npu_hz,
    )
    return _with_problems(facts)


def chip_of(compatible: str) -> str:
    """The target in a device tree's list of what it is compatible with (the chip comes last); '' where there is none.

    rk3588s is rk3588, and rv1103b and the like are told apart: they are other chips.
    """
    for word in reversed(re.split(r"[\0 ,]+", compatible[:4096].lower())):
        found = re.match(r"(rk3588)s?\d?(?=$|-)|((?:rk|rv)\d{4})g?\d?(?=$|-)", word)
        if found and (name := found[1] or found[2]) in TARGETS:
            return name
    return ""


def _values(text: str) -> dict[str, list[str]]:
    """Values by name; a value's further lines, such as df's, are kept with it."""
    values: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text[:MAX_TEXT].replace("\r", "").split("\n"):
        memory = re.match(r"(Mem[A-Za-z]{1,12}): *(.{1,40})", line)
        named = re.match(r"([a-z]{1,12})=(.*)", line, re.DOTALL)
        if memory:
            values[memory[1]] = [memory[2]]
        elif named:
            lines = values.setdefault(named[1], [])
            lines.append(named[2])
        elif lines and len(lines[-1]) < 4096:
            lines[-1] += "\n" + line
    return values


def _readings(values: dict[str, list[str]]) -> BoardFacts:
    temperatures = [
        degrees
        for text in values.get("temp", [])[:64]
        if (number := _match(r"(-?\d{1,7})\s*$", text))
        # Thousandths by the kernel's interface; some older drivers give whole degrees.
        and -50 < (degrees := int(number) / 1000 if abs(int(number)) > 200 else float(number)) < 200
    ]
    load = values.get("load", [""])[0]
    cores = re.findall(r"[Cc]ore\d+: *(\d{1,3}) *%", load) or re.findall(r"(\d{1,3}) *%", load)[:1]
    free = _kilobytes(values.get("MemAvailable"))
    return BoardFacts(
        free_memory=_kilobytes(values.get("MemFree")) if free is None else free,
        total_memory=_kilobytes(values.get("MemTotal")),
        temperature=max(temperatures) if temperatures else None,
        npu_load=tuple(min(100, int(core)) for core in cores[:16]),
        npu_hz=int(hertz) if (hertz := _match(r"^\s*([1-9]\d{0,11})\s*$", values.get("hertz", [""])[0])) else None,
    )


def _with_problems(facts: BoardFacts) -> BoardFacts:
    problems = []
    if not facts.interpreter:
        if facts.chip in _MINI:
            problems.append(
                f"no Python: the usual root file systems of {facts.chip.upper()} have none, and models are run by an "
                "agent that needs Python 3.7 or newer. Build a Python into the board's system, or run the model with "
                "the vendor's own runtime program there"
            )
        elif facts.python:
            problems.append(f"Python {facts.python} is too old: running models needs 3.7 or newer")
        else:
            problems.append("no Python: running models needs python3, 3.7 or newer, on the board")
    if not facts.library:
        name = "librknnmrt.so" if facts.chip in _MINI else "librknnrt.so"
        problems.append(f"no runtime library ({name}): the NPU cannot be used")
    elif facts.runtime and _numbers(facts.runtime)[:2] < OLDEST_RUNTIME:
        problems.append(f"the runtime {facts.runtime} is older than 1.2, the oldest that can be used: install a newer")
    if not facts.chip:
        problems.append("its chip is unknown: " + (facts.board or "the device tree names no chip that has a target"))
    if not facts.folder:
        problems.append(f"no folder for temporary files: none of {', '.join(FOLDERS)} can be written")
    elif facts.free_disk is not None and facts.free_disk < LITTLE_DISK:
        problems.append(f"only {facts.free_disk >> 10} KB are free in {facts.folder}")
    if facts.free_memory is not None and facts.free_memory < LITTLE_MEMORY:
        problems.append(f"only {facts.free_memory >> 20} MB of memory are free")
    return dataclasses.replace(facts, problems=tuple(problems))


def _system(first: dict[str, str]) -> str:
    named = re.match(r"PRETTY_NAME=(.*)", first.get("system", ""))
    if named:
        return _line(named[1].strip().strip("\"'"))
    android = _line(first.get("android", ""))
    return f"Android {android}" if android else ""


def _disk(text: str) -> int | None:
    """What `df -k` says is available: the number before the percentage."""
    found = re.search(r"(\d{1,15})\s+\d{1,3}%", text)
    return int(found[1]) << 10 if found else None


def _kilobytes(lines: list[str] | None) -> int | None:
    number = _match(r"^(\d{1,12}) *kB", lines[0]) if lines else ""
    return int(number) << 10 if number else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version)[:3])


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text[:4096], re.ASCII)
    return found[1] if found else ""


def _line(text: str) -> str:
    """The first line, without what does not print."""
    line = text.strip("\0 \n").split("\n")[0][:200]
    return "".join(letter for letter in line if letter.isprintable())


def _path(text: str) -> str:
    line = _line(text)
    return line if line.startswith("/") else ""
