"""The process that loads a TorchScript file with torch and translates it, within limits of memory and time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError, ModelError
from engine.frontends.finishing import SURPRISES

SPARE_MEMORY = 768 << 20
"""Bytes that a translation may take beside torch itself and copies of the file."""
COPIES = 6
"""How often the file's content may be in memory."""
SPARE_TIME = 30
"""Seconds of computing, beside one for every MB of the file."""


@dataclasses.dataclass(frozen=True)
class Paths:
    """The files by which the two processes speak, in a folder of their own."""

    folder: Path

    @property
    def request(self) -> Path:
        """What to load, in JSON."""
        return self.folder / "request.json"

    @property
    def progress(self) -> Path:
        """Steps done and in all, in JSON."""
        return self.folder / "progress.json"

    @property
    def error(self) -> Path:
        """What went wrong, in JSON."""
        return self.folder / "error.json"

    @property
    def model(self) -> Path:
        """The translated model."""
        return self.folder / "model.onnx"


def main(folder: str) -> None:
    """Do what the request in `folder` asks for; leave the model or the error there."""
    paths = Paths(Path(folder))
    request = json.loads(paths.request.read_text())
    try:
        _translate(paths, request)
    except EngineError as error:
        _write(paths.error, {"type": type(error).__name__, **_parts(error)})
    except SURPRISES as error:
        text = " ".join(str(error).split())[:500]
        what = f"cannot be loaded: {type(error).__name__}: {text}"
        _write(paths.error, {"type": "ModelError", "what": what, "where": request["path"], "hint": _hint(str(error))})
    sys.stdout.flush()
    # Nothing is left to tidy up, and torch takes its time.
    os._exit(0)


def _hint(text: str) -> str:
    """What to do about an error of torch, where that is known."""
    if any(name in text.lower() for name in ("xnnpack", "vulkan", "metal", "prepacked")):
        return "it was optimized for a phone with what this torch was built without: export it without that"
    if "torchvision" in text:
        return "cut operators of torchvision off before exporting"
    return ""


def _parts(error: EngineError) -> dict[str, str]:
    return {"what": error.what, "where": error.where, "hint": error.hint}


def _write(path: Path, content: Any) -> None:
    """The whole file, or none."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content))
    beside.replace(path)


def _translate(paths: Paths, request: dict[str, Any]) -> None:
    # Late: these import torch or onnx, and what goes wrong then is to be told.
    import onnx_ir as ir

    from engine.frontends.pytorch import eager
    from engine.frontends.pytorch.translate import Wishes, load_module, translate

    torch = eager.torch()
    torch.set_num_threads(1)
    _limit(request["bytes"])
    with _no_writing():
        module = load_module(request["path"])
    wishes = Wishes(
        request["sizes"], request["inputs"], request["outputs"], [(list(s), str(d)) for s, d in request["examples"]]
    )
    told = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - told[0] > 0.2:
            told[0] = time.monotonic()
            _write(paths.progress, [done, total])

    model = translate(module, request["path"], wishes, tell)
    beside = paths.model.with_suffix(".new")
    # Weights go past protobuf, which would copy them several times.
    ir.save(model, beside, format="protobuf", external_data="weights", size_threshold_bytes=1024)
    beside.replace(paths.model)


def _limit(size: int) -> None:
    """Take no more memory and time than a file of `size` bytes can need, from here on."""
    try:
        import resource
    except ImportError:  # Windows has none; there the watching process ends what takes too long
        return
    pages = _pages()
    if pages:
        most = pages + SPARE_MEMORY + COPIES * size
        _lower(resource, resource.RLIMIT_AS, most)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource, resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SPARE_TIME + (size >> 20))
    _lower(resource, resource.RLIMIT_CORE, 0)


@contextlib.contextmanager
def _no_writing() -> Iterator[None]:
    """Let no file grow: what is loaded may be a program."""
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _lower(resource: Any, kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (limit, hard))
    except (ValueError, OSError) as error:
        raise ModelError(f"cannot be loaded within limits: {error}") from error


def _pages() -> int:
    """The address space in use, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError):
        return 0


def command(arguments: Sequence[str]) -> list[str]:
    """What starts this process.

    Not `-m`: that would put the current folder first on the path, and a folder of models is not to be trusted with a
    torch.py. The package's own folder comes last, for a checkout that is not installed.
    """
    home = str(Path(__file__).resolve().parents[3])
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; "
        f"sys.path += [{home!r}] * ({home!r} not in sys.path); "
        "from engine.frontends.pytorch.worker import main; main(sys.argv[1])"
    )
    return [sys.executable, "-W", "ignore", "-c", code, *arguments]
