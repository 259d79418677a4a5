"""`encrypt` and `decrypt`: packages and vendor files under a key of the user's own, and what such a file tells."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.cli_console import Console
from engine.cli_keys import key_for, key_of_file
from engine.cli_sessions import check_result
from engine.errors import FileError
from engine.files import encryption
from engine.text_tables import counted

_ENCRYPTED_SUFFIX = ".crypt.rknn"


def encrypt(arguments: argparse.Namespace, console: Console) -> int:
    """`encrypt MODEL.rknn`: an encrypted copy of a package or a vendor file."""
    model = arguments.model
    encryption.check_source(model)
    output = Path(arguments.out) if arguments.out else encryption.default_output(model)
    check_result(output, "--out", [model, arguments.key_file])
    key = key_for(output, arguments.key_file)
    encryption.encrypt(model, output, key, arguments.level, progress=console.progress())
    size = output.stat().st_size
    document = {"input": model, "output": str(output), "bytes": size, "raw_key": key.is_raw, "level": arguments.level}
    console.result(
        document, f"{output}: {counted(size, 'byte')}, encrypted with {_key_text(key.is_raw, arguments.level)}"
    )
    return 0


def decrypt(arguments: argparse.Namespace, console: Console) -> int:
    """`decrypt FILE`: the plain file again."""
    file = arguments.model
    header = encryption.read_header(file)
    output = Path(arguments.out) if arguments.out else _plain_name(Path(file))
    check_result(output, "--out", [file, arguments.key_file])
    if not arguments.out and output.exists():
        raise FileError("exists already", where=str(output), hint="-o FILE names another, or this one to replace it")
    key = key_of_file(file, arguments.key_file, option="--key-file")
    encryption.decrypt(file, output, key, progress=console.progress())
    document = {"input": file, "output": str(output), "bytes": header.length}
    console.result(document, f"{output}: {counted(header.length, 'byte')}, decrypted")
    return 0


def encrypted_facts(path: str) -> tuple[dict[str, Any], str]:
    """What `inspect` tells of an encrypted file without its key, as a document and as text. Raises FileError."""
    header = encryption.read_header(path)
    facts = {
        "path": path,
        "encrypted": True,
        "raw_key": header.is_raw,
        "level": header.level,
        "bytes": header.file_bytes,
        "plain_bytes": header.length,
    }
    key = _key_text(header.is_raw, header.level)
    text = f"{path}: {counted(header.length, 'byte')}, encrypted with {key}; its key opens it"
    return {"model": None, "file": facts, "problem": None}, text


def _key_text(is_raw: bool, level: int) -> str:
    return "a raw key" if is_raw else f"a passphrase, level {level}"


def _plain_name(path: Path) -> Path:
    """NAME.rknn of NAME.crypt.rknn, NAME.plain.rknn of any other."""
    if path.name.endswith(_ENCRYPTED_SUFFIX) and path.name != _ENCRYPTED_SUFFIX:
        return path.with_name(f"{path.name.removesuffix(_ENCRYPTED_SUFFIX)}.rknn")
    return path.with_name(f"{path.stem}.plain.rknn")
