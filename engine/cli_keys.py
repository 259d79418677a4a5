"""Keys of encrypted files on the command line: by option, by environment, or typed; never in an argument."""

from __future__ import annotations

import getpass
import sys
import warnings
from pathlib import Path

from engine.cli_options import UsageError
from engine.errors import ConfigError
from engine.files.keys import KEY_FILE_VARIABLE, KEY_VARIABLE, Key, find_key

_ENVIRONMENT = f"{KEY_VARIABLE} or {KEY_FILE_VARIABLE} in the environment"


def key_for(path: str | Path, key_file: str | None) -> Key:
    """The key to encrypt the file with: asked for twice where nobody gave one.

    Raises UsageError where there is none and nobody to ask, ConfigError and FileError for what is given but is no key.
    """
    key = find_key(key_file=key_file)
    if key is not None:
        return key
    question = f"the key for {Path(path).name}"
    typed = _typed(question, path, f"--key-file FILE, or {_ENVIRONMENT}")
    if typed.reveal() != _typed(f"{question}, again", path, "").reveal():
        raise UsageError("the two are not the same", where="key", hint="try again")
    return typed


def key_of_file(path: str | Path, key_file: str | None = None, *, option: str = "") -> Key:
    """The key of an encrypted file, asked for once. `option` names that of the command which gives a key file.

    Raises as `key_for`.
    """
    key = find_key(key_file=key_file)
    ways = f"{option} FILE, or {_ENVIRONMENT}" if option else _ENVIRONMENT
    return _typed(f"the key of {Path(path).name}", path, ways) if key is None else key


def _typed(question: str, path: str | Path, ways: str) -> Key:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("needs a key", where=str(path), hint=ways)
    with warnings.catch_warnings():
        # It would read with what is typed on the screen.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return Key.of_passphrase(getpass.getpass(f"{question}: "))
        except (EOFError, getpass.GetPassWarning):
            raise ConfigError("cannot be asked for on this terminal", where="key", hint=ways) from None
