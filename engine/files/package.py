"""Our own .rknn package: the graph, the table and the corrections of a built model in one file.

The same build gives the same bytes. A package is a zip whose members are stored, not compressed:

- manifest.json: `format` ("rknn-tui"), `version`, `target`, `precision` ("int8", "int16" or "float16"), `batch`;
  `config`, the settings of the build under the toolkit's names (mean_values, std_values, custom_string, ...);
  `provenance` (tool, source file's name and SHA-256, framework); `calibration` (algorithm, recipe, equalized layers,
  number of samples); `corrections`, where each corrected array begins in corrections.bin; `compiled`, the target, the
  compiler and other facts of each binary; and `members`, the bytes and the SHA-256 of each other member.
- graph.onnx: the float graph, in ONNX. Constants of 1 KiB and more are external data in weights.bin: with both files
  in one folder other programs load it.
- table.cfg: the quantization parameters and wishes, in the toolkit's cfg format.
- weights.bin, corrections.bin (each where there is something in it): float32 and other arrays, little-endian, by rows,
  each at a multiple of 64 bytes. The members begin at a multiple of 4096 bytes in the file, others of 64, so that
  they can be mapped. A corrected weight has the shape of its layer's, a corrected bias one number an output channel.
- npu/TARGET.rknn: a binary of the vendor's compiler for that chip, as it came.

Every version ever written stays readable: version 1 held no corrections, version 2 had all constants in graph.onnx and
each corrected array in a member of its own.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import FileError
from engine.files import encryption, members, vendor
from engine.files.compiled import Compiled, compiled, compiled_in
from engine.files.keys import KeySource, required_key
from engine.files.stored import Stored, content_of, stored_in, stored_in_arrays
from engine.files.writing import replacing
from engine.ort import LARGEST_MODEL

FORMAT, VERSION = "rknn-tui", 3
_ARRAYS_SINCE = 3
_GRAPH = "graph.onnx"


def write(path: str | Path, package: Stored) -> None:
    """Write the package; an existing file is replaced only when the new one is complete.

    Raises FileError and ModelError.
    """
    facts, content = content_of(package)
    with replacing(path) as file:
        members.write(file, {"format": FORMAT, "version": VERSION, **facts}, content)


def read(path: str | Path, key: KeySource | None = None) -> Stored:
    """The package in `path`, every member checked against its sum. Raises FileError on anything else.

    Its arrays lie in the file, mapped read-only: it may be replaced or removed meanwhile, not changed in place.
    Compiled models are read and checked when somebody asks for them. An encrypted package needs `key`, or one in the
    environment. Raises ConfigError without.
    """
    with _opened(path, key) as package:
        if package.version >= _ARRAYS_SINCE:
            return stored_in_arrays(package)
        return stored_in(package, package.read(_GRAPH, LARGEST_MODEL))


def read_manifest(path: str | Path, key: KeySource | None = None) -> Mapping[str, Any]:
    """What the package says of itself, in a few milliseconds; nothing but the manifest is looked at.

    Raises as `read`.
    """
    with _opened(path, key) as package:
        return package.manifest


def read_compiled(path: str | Path, key: KeySource | None = None) -> tuple[Compiled, ...]:
    """The compiled models that the package carries, by chip; nothing but them and the manifest is looked at.

    Each is read, and compared with its sum, when it is asked for its bytes. Raises as `read`.
    """
    with _opened(path, key) as package:
        return compiled_in(package, package.manifest["compiled"]) if package.version >= _ARRAYS_SINCE else ()


def with_compiled(
    path: str | Path, data: bytes, target: str, compiler: str, facts: Mapping[str, str] | None = None
) -> None:
    """Put a binary of the vendor's compiler for the chip `target` into the package `path`, in place of an earlier one.

    `compiler` is its version, `facts` what else is to be kept of how it was made. Raises FileError, for encrypted
    packages too, and ConfigError; the package then stays as it was.
    """
    if encryption.is_encrypted(path):
        raise FileError("is encrypted", where=str(path), hint="put the compiled model into the plain one first")
    write(path, read(path).with_compiled(compiled(data, target, compiler, facts)))


def is_package(path: str | Path) -> bool:
    """Whether the file looks like one of ours."""
    return members.has_manifest(path)


@contextlib.contextmanager
def _opened(path: str | Path, key: KeySource | None) -> Iterator[members.Members]:
    if _head(Path(path)).startswith(encryption.MAGIC):
        with encryption.decrypted(path, required_key(key, str(path))) as plain, _opened(plain, None) as package:
            yield package
        return
    if vendor.is_vendor_file(path):
        raise vendor.refusal(path)
    with members.opened(path, "package", FORMAT, VERSION, _ARRAYS_SINCE) as package:
        yield package


def _head(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise FileError("is no file", where=str(path))
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from error
