"""The PyTorch front end: a TorchScript file in, a graph out; torch works in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from engine import errors
from engine.errors import EngineError, ModelError
from engine.frontends import onnx_file, onnx_operators
from engine.frontends.finishing import finish, surprises_told
from engine.frontends.pytorch import archive
from engine.frontends.pytorch.table import BECOMES
from engine.frontends.pytorch.worker import SPARE_TIME, Paths, command
from engine.graph import cutting
from engine.progress import Progress

_KINDS: dict[str, type[EngineError]] = {
    "ModelError": ModelError,
    "UnsupportedOperator": errors.UnsupportedOperator,
    "ConfigError": errors.ConfigError,
}
_LONGEST_TEXT = 1 << 20
_PAUSE = 0.02
# What other work on the machine, a slow disk and importing torch may add to the time of computing.
_SLOWNESS = 4
_START = 60


def operators() -> dict[str, tuple[str, ...]]:
    """Every operator of TorchScript that is read, and the ONNX operators that it becomes; torch is not needed."""
    from engine.frontends.pytorch import operators_all

    assert operators_all.__all__
    return dict(sorted(BECOMES.items()))


def load(
    path: Path,
    input_size_list: Sequence[Sequence[int]] | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read the TorchScript file `path` (.pt, .pth, .ptl) and make it a static float32 graph.

    `input_size_list` has a shape for every input of `forward`; without it, those count that the model was traced with,
    where the file has them. `inputs` and `outputs` cut the graph at tensors. Quantized models keep their parameters on
    their tensors. torch is needed and works in a process of its own, with limits of time and memory. Raises EngineError
    without torch, else FileError, ModelError, UnsupportedOperator, ConfigError.
    """
    with surprises_told(path, "export it again"):
        return _load(path, input_size_list, inputs, outputs, progress or Progress())


def _load(
    path: Path,
    sizes: Sequence[Sequence[int]] | None,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    progress: Progress,
) -> ir.Model:
    where = str(path)
    progress.step("read", 0, 4)
    if importlib.util.find_spec("torch") is None:
        raise EngineError("PyTorch models need the torch package", where=where, hint="pip install 'rknn-tui[pytorch]'")
    examples = archive.check(path, progress)
    with tempfile.TemporaryDirectory(prefix="rknn-tui-pytorch-") as folder:
        paths = Paths(Path(folder))
        request = {
            "path": str(Path(path).absolute()),
            "bytes": path.stat().st_size,
            "sizes": None if sizes is None else [[int(dim) for dim in size] for size in sizes],
            "inputs": None if inputs is None else list(inputs),
            "outputs": None if outputs is None else list(outputs),
            "examples": examples,
        }
        paths.request.write_text(json.dumps(request))
        _run(paths, where, path.stat().st_size, progress)
        model = _read(paths, where)
    progress.step("fold", 2, 4)
    if inputs is not None:
        cutting.cut_inputs(model.graph, inputs)
        cutting.drop_dead(model, keep_inputs=inputs)
        cutting.fix_sizes(model.graph, inputs, sizes)
    onnx_operators.check_supported(model, where)
    finish(model, where, keep_inputs=[value.name or "" for value in model.graph.inputs])
    progress.step("check", 4, 4)
    return model


def _run(paths: Paths, where: str, size: int, progress: Progress) -> None:
    """Let the other process translate; report its progress, end it when cancelled or too slow."""
    limit = _START + _SLOWNESS * (SPARE_TIME + (size >> 20))
    # One thread and few arenas: each reserves address space, which is limited.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    with (paths.folder / "log").open("wb") as log:
        child = subprocess.Popen(
            command([str(paths.folder)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=paths.folder,
            start_new_session=os.name == "posix",
        )
    start = time.monotonic()
    try:
        while child.poll() is None:
            if time.monotonic() - start > limit:
                raise ModelError(f"takes longer than {limit} seconds", where=where, hint="is the file whole?")
            progress.step("translate", *_steps(paths))
            time.sleep(_PAUSE)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
    if not paths.error.exists() and not paths.model.exists():
        raise ModelError(
            f"cannot be loaded: {_ending(child.returncode, paths)}", where=where, hint="is the file whole?"
        )


def _steps(paths: Paths) -> tuple[int, int]:
    content = _json(paths.progress)
    if isinstance(content, list) and len(content) == 2 and all(isinstance(one, int) for one in content):
        return content[0], content[1]
    return 0, 0


def _json(path: Path) -> Any:
    """What the other process wrote, None where it wrote nothing that can be read."""
    try:
        with path.open("rb") as stream:
            return json.loads(stream.read(_LONGEST_TEXT))
    except (OSError, ValueError, RecursionError):
        return None


def _ending(code: int, paths: Paths) -> str:
    """How the other process ended, in words."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        reason = {"SIGXCPU": ", since it takes too long", "SIGKILL": ", perhaps for want of memory"}.get(name, "")
        return f"torch was ended by {name}{reason}"
    try:
        with (paths.folder / "log").open("rb") as stream:
            stream.seek(max(0, (paths.folder / "log").stat().st_size - 2000))
            lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return f"torch ended with exit code {code}" + (f": {lines[-1][:300]}" if lines else "")


def _read(paths: Paths, where: str) -> ir.Model:
    """The model that the other process made, which a file may have misled."""
    error = _json(paths.error)
    if isinstance(error, dict):
        texts = {key: str(error.get(key, ""))[:20_000] for key in ("what", "where", "hint")}
        raise _KINDS.get(str(error.get("type")), ModelError)(
            texts["what"], where=_own(texts["where"], where), hint=texts["hint"]
        )
    try:
        return onnx_file.read(paths.model)
    except EngineError as problem:
        raise ModelError(f"cannot be translated: {problem.what}", where=where) from problem


def _own(place: str, where: str) -> str:
    """The place in the file as the caller called it."""
    return place.replace(str(Path(where).absolute()), where, 1) if place else where
