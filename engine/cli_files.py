"""`encrypt` and `decrypt`: packages and vendor files under a key of the user's own."""

from __future__ import annotations

import argparse
import getpass
import sys
import warnings
from pathlib import Path

from engine.cli_console import Console
from engine.cli_options import UsageError
from engine.cli_sessions import check_result
from engine.errors import ConfigError, FileError
from engine.files import encryption
from engine.files.keys import KEY_FILE_VARIABLE, KEY_VARIABLE, Key, find_key
from engine.text_tables import counted

_ENCRYPTED_SUFFIX = ".crypt.rknn"


def encrypt(arguments: argparse.Namespace, console: Console) -> int:
    """`encrypt MODEL.rknn`: an encrypted copy of a package or a vendor file."""
    model = arguments.model
    encryption.check_source(model)
    output = Path(arguments.out) if arguments.out else encryption.default_output(model)
    check_result(output, "--out", [model, arguments.key_file])
    key = required_key(arguments, f"the key for {output.name}", twice=True)
    encryption.encrypt(model, output, key, arguments.level, progress=console.progress())
    size, level = output.stat().st_size, "" if key.is_raw else f", level {arguments.level}"
    document = {"input": model, "output": str(output), "bytes": size, "raw_key": key.is_raw, "level": arguments.level}
    console.result(document, f"{output}: {counted(size, 'byte')}, encrypted with {_kind(key)}{level}")
    return 0


def decrypt(arguments: argparse.Namespace, console: Console) -> int:
    """`decrypt FILE`: the plain file again."""
    file = arguments.model
    header = encryption.read_header(file)
    output = Path(arguments.out) if arguments.out else _plain_name(Path(file))
    check_result(output, "--out", [file, arguments.key_file])
    if not arguments.out and output.exists():
        raise FileError("exists already", where=str(output), hint="-o FILE names another, or this one to replace it")
    key = required_key(arguments, f"the key of {Path(file).name}")
    encryption.decrypt(file, output, key, progress=console.progress())
    document = {"input": file, "output": str(output), "bytes": header.length}
    console.result(document, f"{output}: {counted(header.length, 'byte')}, decrypted")
    return 0


def required_key(arguments: argparse.Namespace, purpose: str, *, twice: bool = False) -> Key:
    """The key by --key-file or the environment, else what a person types; `purpose` is what they are asked for.

    Raises UsageError where there is none and nobody to ask, ConfigError and FileError for what is given but is no key.
    Commands without --key-file may use it too.
    """
    key = find_key(key_file=getattr(arguments, "key_file", None))
    if key is not None:
        return key
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            "needs a key",
            where=arguments.model,
            hint=f"--key-file FILE, or {KEY_VARIABLE} or {KEY_FILE_VARIABLE} in the environment",
        )
    typed = _typed(f"{purpose}: ")
    if twice and typed.reveal() != _typed(f"{purpose}, again: ").reveal():
        raise UsageError("the two are not the same", where="key", hint="try again")
    return typed


def _typed(prompt: str) -> Key:
    with warnings.catch_warnings():
        # It would read with what is typed on the screen.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return Key.of_passphrase(getpass.getpass(prompt))
        except (EOFError, getpass.GetPassWarning):
            raise ConfigError("cannot be asked for on this terminal", where="key", hint="--key-file FILE") from None


def _kind(key: Key) -> str:
    return "a raw key" if key.is_raw else "a passphrase"


def _plain_name(path: Path) -> Path:
    """NAME.rknn of NAME.crypt.rknn, NAME.plain.rknn of any other."""
    if path.name.endswith(_ENCRYPTED_SUFFIX) and path.name != _ENCRYPTED_SUFFIX:
        return path.with_name(f"{path.name.removesuffix(_ENCRYPTED_SUFFIX)}.rknn")
    return path.with_name(f"{path.stem}.plain.rknn")
