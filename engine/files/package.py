"""Our own .rknn package: the graph, the table and the corrections of a built model in one file.

The same build gives the same bytes. Every version ever written stays readable: version 1 held no corrections.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import FileError
from engine.files import encryption, members, vendor
from engine.files.keys import KeySource, required_key
from engine.files.stored import Stored, facts_of, members_of, stored_in
from engine.files.stored_graph import graph_to_bytes
from engine.files.writing import replacing
from engine.ort import LARGEST_MODEL

FORMAT, VERSION = "rknn-tui", 2
_GRAPH = "graph.onnx"


def write(path: str | Path, package: Stored) -> None:
    """Write the package; an existing file is replaced only when the new one is complete. Raises FileError."""
    content = {_GRAPH: graph_to_bytes(package.quantized.model), **members_of(package)}
    with replacing(path) as file:
        members.write(file, {"format": FORMAT, "version": VERSION, **facts_of(package)}, content)


def read(path: str | Path, key: KeySource | None = None) -> Stored:
    """The package in `path`, every member checked against its sum. Raises FileError on anything else.

    An encrypted one needs `key`, or one in the environment. Raises ConfigError without.
    """
    if _head(Path(path)).startswith(encryption.MAGIC):
        with encryption.decrypted(path, required_key(key, str(path))) as plain:
            return read(plain)
    if vendor.is_vendor_file(path):
        raise vendor.refusal(path)
    with members.opened(path, "package", FORMAT, VERSION) as package:
        return stored_in(package, package.read(_GRAPH, LARGEST_MODEL))


def is_package(path: str | Path) -> bool:
    """Whether the file looks like one of ours."""
    return members.has_manifest(path)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise FileError("does not exist", where=str(path), hint="check the path") from error
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
