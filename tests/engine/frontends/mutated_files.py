"""Loads damaged model files of every framework under watch: `python -m tests.engine.frontends.mutated_files`.

Every file is loaded in a worker process that may compute for 5 seconds and take 1 GB, and may raise EngineError only;
what does otherwise is kept, and printed with its place.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.engine.frontends.mutation_seeds import FRAMEWORKS, Seed, seeds, zoo_seeds
from tests.engine.frontends.mutation_worker import Outcome, serve
from tests.engine.frontends.mutations import mutate

MOST_SECONDS = 5.0
"""Of computing, which a busy machine does not change."""
_SLOWNESS = 6
"""A process that has not answered after so many times that by the clock hangs as well, whatever it waits for."""
_FILES_A_WORKER = 1000
_COMMAND = (sys.executable, "-m", "tests.engine.frontends.mutated_files", "--worker")
_ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass
class Report:
    """What became of all files of a framework; `faults` are kept with their files."""

    framework: str
    note: str = ""
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: list[Outcome] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.memory = max(self.memory, outcome.memory)
        if outcome.faulty:
            self.faults.append(outcome)


def missing(framework: str) -> str:
    """Why the framework's files cannot be tried here; empty where they can."""
    if importlib.util.find_spec(f"engine.frontends.{framework}") is None:
        return "no front end"
    if framework == "pytorch" and importlib.util.find_spec("torch") is None:
        return "needs torch"
    try:
        module = importlib.import_module(f"engine.frontends.{framework}")
    except ImportError as error:
        return f"cannot be imported: {error}"
    if not hasattr(module, "load"):
        return "no front end"
    return "" if zoo_seeds(framework) or seeds(framework) else "no seed files; is there a zoo?"


def try_files(framework: str, count: int, seed: int, keep: Path, *, workers: int = 1) -> Report:
    """Load `count` damaged files; those that show a fault are copied to `keep`."""
    report = Report(framework, missing(framework))
    if report.note:
        return report
    found = seeds(framework)
    lock = threading.Lock()

    def work(first: int) -> None:
        with tempfile.TemporaryDirectory(prefix="mutated.") as name, Worker() as worker:
            for index in range(first, count, workers):
                one = found[index % len(found)]
                folder = Path(name)
                files = damaged(one, framework, seed, index)
                for file, data in files.items():
                    (folder / file).write_bytes(data)
                outcome = worker.load(framework, folder, one)
                if outcome.faulty:
                    kept = keep / f"{framework}_{seed}_{index}_{one.name}"
                    shutil.copytree(folder, kept, dirs_exist_ok=True)
                    outcome = dataclasses.replace(outcome, files=tuple(str(kept / file) for file in files))
                for file in files:
                    (folder / file).unlink()
                with lock:
                    report.add(outcome)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def damaged(seed: Seed, framework: str, number: int, index: int) -> dict[str, bytes]:
    """The seed's files, of which one is damaged, or now and then all; the same for the same numbers."""
    source = random.Random(f"{framework} {number} {index}")
    names = sorted(seed.files)
    chosen = names if source.random() < 0.1 else [source.choice(names)]
    return {
        name: mutate(data, seed.forms[name], source) if name in chosen else data for name, data in seed.files.items()
    }


class Worker:
    """A process that loads one file after the other; a new one takes over when it dies, hangs or is old."""

    def __init__(self, most_seconds: float = MOST_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0
        self._with_torch = False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._errors.close()

    def load(self, framework: str, folder: Path, seed: Seed) -> Outcome:
        """Let the process load the files of `seed` in `folder`."""
        paths = [folder / name for name in sorted(seed.files, key=_main_file_first)]
        return self.load_with(f"engine.frontends.{framework}", paths, dict(seed.arguments))

    def load_with(self, module: str, paths: Sequence[Path], arguments: Mapping[str, Any]) -> Outcome:
        """Let the process call the module's `load`."""
        with_torch = module.endswith(".pytorch")
        if self._done >= _FILES_A_WORKER or self._with_torch != with_torch:
            self._stop()
        self._with_torch = with_torch
        process = self._running()
        job = {"module": module, "paths": [str(path) for path in paths], "arguments": dict(arguments)}
        assert process.stdin is not None
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        line = self._answer_to_job()
        seconds = time.monotonic() - started
        self._done += 1
        if line is None:
            self._stop()
            return Outcome("hang", f"no answer after {self._most_seconds:g} s of computing", seconds, 0)
        if not line:
            code = process.wait()
            self._stop()
            return Outcome("crash", f"the process ended with {code}: {self._last_errors()}", seconds, 0)
        return Outcome(**json.loads(line))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                [*_COMMAND, "torch" if self._with_torch else "plain"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
            self._done = 0
            if not self._answer(60.0):  # it tells that it has imported everything
                raise RuntimeError(f"the worker does not start: {self._last_errors()}")
        return self._process

    def _answer_to_job(self) -> bytes | None:
        """Like `_answer`, None when the process has computed for too long."""
        assert self._process is not None
        begun, computed = time.monotonic(), _computed(self._process.pid)
        waiting = self._most_seconds
        while (line := self._answer(waiting)) is None:
            used = _computed(self._process.pid) - computed
            if used >= self._most_seconds or time.monotonic() - begun > _SLOWNESS * self._most_seconds:
                return None
            waiting = max(0.1, self._most_seconds - used)
        return line

    def _answer(self, seconds: float) -> bytes | None:
        """The next line of the process; empty when it ended, None when it says nothing for so long."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return self._process.stdout.readline()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it started
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()

    def _last_errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-500:].strip()


def _computed(session: int) -> float:
    """Seconds of computing of all processes of a session, those that ended and were waited for included; on systems
    without /proc, those that the clock shows."""
    if not Path("/proc/self/stat").exists():
        return time.monotonic()
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended by now
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _main_file_first(name: str) -> bool:
    return name.endswith((".caffemodel", ".weights"))


# What is printed


def table(reports: Sequence[Report]) -> str:
    """The outcomes as text, a line a framework, and the faults below."""
    columns = f"{'':12}{'files':>8}{'loaded':>8}{'refused':>9}{'faults':>8}{'slowest':>11}{'memory':>10}"
    return "\n".join([columns, *_lines(reports)]) + "\n"


def _lines(reports: Sequence[Report]) -> Iterator[str]:
    for one in reports:
        if one.note:
            yield f"{one.framework:12}{one.note:>12}"
            continue
        yield (
            f"{one.framework:12}{one.counts.total():8}{one.counts['loaded']:8}{one.counts['refused']:9}"
            f"{len(one.faults):8}{one.slowest:9.2f} s{one.memory >> 20:7} MB"
        )
    for one in reports:
        for fault in one.faults:
            yield f"{one.framework}: {fault.kind}: {fault.detail}"
            yield from (f"    {file}" for file in fault.files)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Load damaged model files and tell what went wrong.")
    parser.add_argument("--framework", choices=FRAMEWORKS, action="append", help="one of them; default all")
    parser.add_argument("--count", type=int, default=10_000, help="files a framework; default 10000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--keep", type=Path, help="folder for files that show a fault; default a new one")
    parser.add_argument("--worker", choices=("plain", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        serve(options.worker == "torch")
        return 0
    keep = options.keep or Path(tempfile.mkdtemp(prefix="mutated_faults."))
    reports = []
    for framework in options.framework or FRAMEWORKS:
        reports.append(try_files(framework, options.count, options.seed, keep, workers=options.workers))
    print(table(reports))
    return 1 if any(one.faults for one in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
