"""The process that loads damaged files, one after the other, and tells what became of each."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import IO, Any

from tests.engine.frontends.mutation_seeds import FRAMEWORKS

MOST_MEMORY = 1 << 30
"""Bytes that the resident memory may grow by while a file is loaded."""

_ROOM = 3 << 30
"""Bytes of address space beyond the start: libraries map more than they touch, and what is touched is measured."""

_LEVEL = 3  # of optimization, as a session has it unless told otherwise


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file. `kind`: 'loaded', 'refused', 'foreign', 'crash', 'hang' or 'memory'; `seconds` are of
    computing, `memory` is bytes."""

    kind: str
    detail: str
    seconds: float
    memory: int
    files: tuple[str, ...] = ()

    @property
    def faulty(self) -> bool:
        return self.kind not in ("loaded", "refused")


def serve(with_torch: bool) -> None:
    """Load what standard input names, line by line, and answer with outcomes, until it ends.

    `with_torch` is for PyTorch's files alone, each of which is loaded in a fork of this process.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print
    for name in FRAMEWORKS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"engine.frontends.{name}")
    if with_torch:
        from tests.engine.frontends import forked_torch

        forked_torch.install()
    limit_memory()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if with_torch:
            code = forked_torch.in_fork(lambda job=job: _answer(job, answers))
            if code:
                os._exit(code if code > 0 else 128 - code)
        else:
            _answer(job, answers)


def _answer(job: dict[str, Any], answers: IO[str]) -> None:
    """Load what the job names and write its outcome."""
    from engine.errors import EngineError
    from engine.graph.layers import layers
    from engine.graph.optimize import optimize

    load = importlib.import_module(job["module"]).load
    before = _resident()
    started = _own_time()
    try:
        model = load(*map(Path, job["paths"]), **_arguments(job))
        if model is not None:  # what a session does next
            optimize(model, _LEVEL)
            layers(model)
        kind, detail = "loaded", ""
    except EngineError as error:
        kind, detail = "refused", f"{type(error).__name__}: {error}"[:500]
    except BaseException as error:  # whatever else comes out is a fault
        kind, detail = "foreign", f"{type(error).__name__}: {error}"[:500]
    seconds = _own_time() - started
    peak = _peak()
    if "tests.engine.frontends.forked_torch" in sys.modules:
        peak = max(peak, sys.modules["tests.engine.frontends.forked_torch"].memory)
    grown = max(peak - before, 0)
    if grown > MOST_MEMORY and kind != "foreign":
        kind, detail = "memory", f"{kind}; {detail}"
    print(json.dumps(dataclasses.asdict(Outcome(kind, detail, seconds, grown))), file=answers, flush=True)


def _arguments(job: dict[str, Any]) -> dict[str, Any]:
    """The arguments besides the files; Caffe's weights may be absent, which is said."""
    arguments = dict(job["arguments"])
    if job["module"].endswith(".caffe") and len(job["paths"]) == 1:
        arguments["blobs"] = None
    return arguments


def limit_memory() -> None:
    """Let this process, and each that it starts, map no more than `_ROOM` beyond what it has mapped by now."""
    mapped = _status("VmSize") or (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _ROOM, mapped + _ROOM))


def _own_time() -> float:
    """Seconds that this process, and those that it waited for, have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _resident() -> int:
    """Bytes in memory now; the peak is counted anew from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    """Bytes that Linux notes of this process under `key`; 0 elsewhere."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0
