"""Lets the PyTorch front end translate in forks of a process that has imported torch, which takes it seconds each time.

What is started anew for every file otherwise is the same code, `engine.frontends.pytorch.worker.main`, with its limits.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from engine.errors import ModelError
from engine.frontends.pytorch import loading, worker
from engine.progress import Progress

memory = 0
"""The most bytes that a translation in a fork has held since this was last set to 0."""


def install() -> None:
    """Import torch and let `load` fork; to be called once, before anything computes."""
    import torch

    from engine.frontends.pytorch import translate

    assert translate.operators_all
    torch.set_num_threads(1)
    loading._run = _run


def _run(paths: worker.Paths, where: str, size: int, progress: Progress) -> None:
    global memory
    child = os.fork()
    if child == 0:
        log = os.open(paths.folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            worker.main(str(paths.folder))  # does not return
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    _, status, used = os.wait4(child, 0)
    memory = max(memory, used.ru_maxrss * 1024)
    if not Path(paths.error).exists() and not Path(paths.model).exists():
        code = os.waitstatus_to_exitcode(status)
        raise ModelError(f"cannot be loaded: {loading._ending(code, paths)}", where=where, hint="is the file whole?")


def in_fork(call: object) -> int:
    """Run `call` in a fork that ends afterwards; its exit code, negative for a signal."""
    assert callable(call)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
