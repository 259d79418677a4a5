"""Keys of encrypted files: where they come from, and that nothing shows them."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from engine.errors import ConfigError, FileError

KEY_VARIABLE = "RKNN_TUI_KEY"
"""The environment variable that holds a passphrase."""

KEY_FILE_VARIABLE = "RKNN_TUI_KEY_FILE"
"""The environment variable that holds the path of a key file."""

RAW_KEY_BYTES = 32
"""The size of a raw key: AES-256's."""

LONGEST_PASSPHRASE = 1024
"""Bytes of UTF-8."""

WAYS = f"give key=, or set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
"""How a script gives a key, for hints."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PERMISSIONS_OF_OTHERS = stat.S_IROTH | stat.S_IWOTH

log = logging.getLogger("engine")


class Key:
    """A passphrase, or a raw key of 32 bytes. It shows itself nowhere, and can be neither copied nor pickled."""

    __slots__ = ("_secret", "is_raw")

    def __init__(self, secret: bytes, *, is_raw: bool) -> None:
        self._secret = secret
        self.is_raw = is_raw

    @classmethod
    def of_passphrase(cls, text: str, where: str = "key") -> Key:
        """Text of 1 to LONGEST_PASSPHRASE bytes: normalised (NFC), so that it is the same however it was typed.

        Raises ConfigError.
        """
        try:
            secret = unicodedata.normalize("NFC", text).encode()
        except UnicodeEncodeError:
            # The error itself would carry the text along.
            secret = None
        if secret is None:
            raise ConfigError("the passphrase is no valid Unicode text", where=where)
        if not secret:
            raise ConfigError("the passphrase is empty", where=where)
        if len(secret) > LONGEST_PASSPHRASE:
            raise ConfigError(f"the passphrase is longer than {LONGEST_PASSPHRASE} bytes", where=where)
        return cls(secret, is_raw=False)

    @classmethod
    def of_bytes(cls, raw: bytes, where: str = "key") -> Key:
        """A raw key. Raises ConfigError for other than 32 bytes."""
        if len(raw) != RAW_KEY_BYTES:
            raise ConfigError(
                f"a raw key has {RAW_KEY_BYTES} bytes, this one {len(raw)}", where=where, hint="a passphrase is a str"
            )
        return cls(bytes(raw), is_raw=True)

    def reveal(self) -> bytes:
        """The secret, for deriving what a file is encrypted with."""
        return self._secret

    def __repr__(self) -> str:
        return f"<{'raw key' if self.is_raw else 'passphrase'}, not shown>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not copied or stored")


KeySource = str | bytes | os.PathLike[str] | Key
"""A passphrase, a raw key of 32 bytes, the path (a `pathlib.Path`, not a str) of a key file, or a key."""


def key_of(source: KeySource) -> Key:
    """The key that is meant. Raises ConfigError, and FileError for a key file."""
    if isinstance(source, Key):
        return source
    if isinstance(source, str):
        return Key.of_passphrase(source)
    if isinstance(source, bytes | bytearray):
        return Key.of_bytes(source)
    if isinstance(source, os.PathLike):
        return read_key_file(source)
    raise ConfigError(
        f"a key is a str, bytes or the Path of a key file, not {type(source).__name__}", where="key", hint=WAYS
    )


def find_key(
    key: KeySource | None = None,
    key_file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Key | None:
    """The first that is given: `key`, `key_file`, RKNN_TUI_KEY, RKNN_TUI_KEY_FILE; None where there is none.

    `environment` is the process's own by default. Raises ConfigError and FileError for what is given but is no key.
    """
    variables = os.environ if environment is None else environment
    if key is not None:
        return key_of(key)
    if key_file is not None:
        return read_key_file(key_file)
    if KEY_VARIABLE in variables:
        return Key.of_passphrase(variables[KEY_VARIABLE], where=KEY_VARIABLE)
    if KEY_FILE_VARIABLE in variables:
        if not variables[KEY_FILE_VARIABLE]:
            raise ConfigError("names no file", where=KEY_FILE_VARIABLE, hint="give the path of a key file, or unset it")
        return read_key_file(variables[KEY_FILE_VARIABLE])
    return None


def required_key(key: KeySource | None = None, where: str = "") -> Key:
    """`find_key` for calls that need one; `where` is the file that it is for. Raises ConfigError if there is none."""
    found = find_key(key)
    if found is None:
        raise ConfigError("needs a key, and none was given", where=where, hint=WAYS)
    return found


def read_key_file(path: str | os.PathLike[str]) -> Key:
    """The key in a file: 32 raw bytes, or else a passphrase, which is the first line without its line break.

    32 bytes that are one line of text are a passphrase. A regular file of one's own that everybody may read is
    refused; one of somebody else's, which only they can change, such as a mounted secret, is warned of. Raises
    FileError.
    """
    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            # Enough to tell that it is too long; a device has no end.
            content = file.read(LONGEST_PASSPHRASE + len(_BYTE_ORDER_MARK) + len(b"\r\n") + 1)
    except FileNotFoundError:
        raise FileError("the key file does not exist", where=where, hint="check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"the key file cannot be read: {reason}", where=where) from None
    _check_permissions(status, where)
    if len(content) == RAW_KEY_BYTES and _line(content.rstrip(b"\r\n")) is None:
        return Key.of_bytes(content, where)
    first = content.removeprefix(_BYTE_ORDER_MARK).split(b"\n", 1)[0].removesuffix(b"\r")
    if not first:
        raise FileError("the key file is empty, or its first line is", where=where)
    if len(first) > LONGEST_PASSPHRASE:
        raise FileError(f"the key file's first line is longer than {LONGEST_PASSPHRASE} bytes", where=where)
    text = _line(first)
    if text is None:
        raise FileError("the key file holds neither a line of UTF-8 text nor exactly 32 bytes", where=where)
    if text.startswith("-----BEGIN "):
        # What everybody's key of that kind begins with would be the passphrase.
        raise FileError("is a key of another kind (PEM)", where=where, hint="a passphrase, or 32 random bytes")
    try:
        return Key.of_passphrase(text, where)
    except ConfigError as error:  # normalising may have made it longer
        raise FileError(error.what, where=where) from None


def _check_permissions(status: os.stat_result, where: str) -> None:
    if sys.platform == "win32" or not stat.S_ISREG(status.st_mode) or not status.st_mode & _PERMISSIONS_OF_OTHERS:
        return
    if status.st_uid == os.geteuid():
        raise FileError(
            "the key file is open to everybody on this machine", where=where, hint=f"chmod 600 {shlex.quote(where)}"
        )
    log.warning("%s: the key file is open to everybody on this machine", where)


def _line(content: bytes) -> str | None:
    """The text of a line without control characters, else None."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if any((c < " " and c != "\t") or c == "\x7f" for c in text) else text
