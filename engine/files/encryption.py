"""Encrypted .rknn files: AES-256-GCM over chunks of an open layout, with keys of the user's own.

It protects a model where it is stored and on its way: nobody reads or changes the file without the key. It cannot
protect a model that runs: whoever loads it, a board too, has it in plain memory then, and needs the key. Files that the
vendor's tool encrypted are another thing, with a secret inside the vendor's libraries; they are only recognised.

The layout, little-endian: a header of 48 bytes, then the chunks, each followed by its tag of 16 bytes.

    0   8s   "ORKNNENC"
    8   u8   version, 1
    9   u8   cipher, 1: AES-256-GCM
    10  u8   key: 1 a passphrase (scrypt, RFC 7914), 2 a raw key of 32 bytes (HKDF-SHA256, RFC 5869)
    11  u8   level, 1 to 3
    12  u32  bytes of plain data in a chunk; only the last has less. An empty file has one empty chunk
    16  u64  bytes of plain data
    24  16s  salt of the key derivation
    40  8s   nonce base

Chunk n is sealed under the nonce base + u32 n, and authenticates header + u32 n + u8 (1 for the last chunk, else 0)
with itself. So a chunk fits only its own place of its own file, and no field of the header can be another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from engine.errors import ConfigError, EngineError, FileError
from engine.files import members
from engine.files.keys import Key, KeySource, key_of, required_key
from engine.files.private_files import private_file
from engine.files.vendor.container import HEAD, kind_of
from engine.files.writing import replacing
from engine.progress import Progress

MAGIC = b"ORKNNENC"

COSTS = {1: 2**15, 2: 2**17, 3: 2**19}
"""Level -> scrypt's N; with r = 8 that is 32, 128 and 512 MB of memory to try one passphrase."""

CHUNK_BYTES = 1 << 20
LARGEST_CHUNK = 4 << 20
LARGEST_IN_MEMORY = 1 << 32
"""A package holds a graph of 2 GB at most, and its weights once more where they were corrected."""

_VERSION = 1
_AES_256_GCM = 1
_PASSPHRASE, _RAW_KEY = 1, 2
_HEADER = struct.Struct("<8s4BIQ16s8s")
_PLACE = struct.Struct("<IB")
_COUNTER = struct.Struct("<I")
_TAG_BYTES = 16
_SALT_BYTES = 16
_NONCE_BASE_BYTES = 8
_KEY_BYTES = 32
_INFO = b"ORKNNENC 1 AES-256-GCM"
_SCRYPT_R, _SCRYPT_P = 8, 1

_ZIP = b"PK\x03\x04"
_REFUSED = "cannot be decrypted: wrong key, or the file was changed"


@dataclasses.dataclass(frozen=True)
class Header:
    """What an encrypted file says of itself before anything of it is checked against a key.

    level: 1 to 3. is_raw: whether the key was 32 raw bytes, where the level makes no difference. chunk_bytes, length:
    of plain data.
    """

    level: int
    is_raw: bool
    chunk_bytes: int
    length: int
    salt: bytes
    nonce_base: bytes

    @property
    def chunks(self) -> int:
        """How many chunks the file has, at least 1."""
        return max(1, -(-self.length // self.chunk_bytes))

    @property
    def file_bytes(self) -> int:
        """The size of the whole file."""
        return _HEADER.size + self.length + self.chunks * _TAG_BYTES

    def packed(self) -> bytes:
        """The 48 bytes at the file's begin."""
        kind = _RAW_KEY if self.is_raw else _PASSPHRASE
        facts = _VERSION, _AES_256_GCM, kind, self.level, self.chunk_bytes, self.length
        return _HEADER.pack(MAGIC, *facts, self.salt, self.nonce_base)


def export_encrypted_rknn_model(
    input_model: str | os.PathLike[str],
    output_model: str | os.PathLike[str] | None = None,
    crypt_level: int = 1,
    key: KeySource | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Encrypt a .rknn, ours or the vendor's, with `key` or the one that the environment names.

    `output_model` is NAME.crypt.rknn beside the input by default. `crypt_level`, 1 to 3: how much it costs to try a
    passphrase, and to open the file (see COSTS). `key`: a passphrase, 32 raw bytes, or the Path of a key file.

    Returns the path written. Raises ConfigError for another level and without a key, FileError for files.
    """
    check_level(crypt_level)
    # A wrong file is told before a key is asked for.
    check_source(input_model)
    return encrypt(
        input_model,
        default_output(input_model) if output_model is None else output_model,
        required_key(key, os.fspath(input_model)),
        crypt_level,
        progress=progress,
    )


def default_output(model: str | os.PathLike[str]) -> Path:
    """NAME.crypt.rknn beside NAME.rknn."""
    path = Path(model)
    return path.with_name(f"{path.stem}.crypt.rknn")


def check_level(level: object) -> None:
    """Raise ConfigError unless it is 1, 2 or 3."""
    if type(level) is not int or level not in COSTS:
        raise ConfigError(f"is 1, 2 or 3, not {level!r:.40}", where="crypt_level", hint="1 opens fastest")


def check_source(path: str | os.PathLike[str]) -> None:
    """Raise FileError unless the file is a .rknn, ours or the vendor's, that is not encrypted yet."""
    where = os.fspath(path)
    with _regular(where) as file:
        head = _read(file, HEAD, where)
    kind = kind_of(head)
    if head.startswith(MAGIC) or kind == "encrypted":
        raise FileError(f"is encrypted already{', by the vendor' if kind else ''}", where=where)
    if not kind and not (head.startswith(_ZIP) and members.has_manifest(where)):
        raise FileError("is no .rknn file", where=where, hint="build and export the model first")


def encrypt(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    key: KeySource,
    level: int = 1,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Encrypt a .rknn, a chunk at a time; `destination` is replaced only when the new file is complete.

    Returns the destination. Raises FileError, and ConfigError for the key and the level.
    """
    check_level(level)
    check_source(source)
    where, target, secret = os.fspath(source), Path(destination), key_of(key)
    _spare(where, target)
    with _regular(where) as file:
        length = os.fstat(file.fileno()).st_size
        salt, nonce_base = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BASE_BYTES)
        header = Header(level, secret.is_raw, chunk_bytes, length, salt, nonce_base)
        _check_limits(header, where)
        with replacing(target) as output:
            derived = _derived(secret, header, where, progress)
            output.write(header.packed())
            left = length
            for number, place in _places(header):
                plain = _read(file, min(chunk_bytes, left), where)
                left -= len(plain)
                output.write(seal(derived, _nonce(header, number), plain, place))
                _tell(progress, "encrypting", number, header)
            if left or _read(file, 1, where):
                raise FileError("changed while it was read", where=where, hint="try again")
    return target


def decrypt(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    key: KeySource,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write the plain file, a chunk at a time; it takes its place only when all chunks are verified.

    Until then what is verified lies beside it in a file that only its owner can read. Returns the destination. Raises
    FileError: also for a wrong key, which nothing can tell from a changed file; ConfigError for what is no key.
    """
    where, target, secret = os.fspath(source), Path(destination), key_of(key)
    with _opened(where) as (file, header):
        _spare(where, target)
        with replacing(target) as output:
            derived = _derived(secret, header, where, progress)
            _write_plain(file, header, derived, output, where, progress)
    return target


def plain_bytes(path: str | os.PathLike[str], key: KeySource, *, largest: int = LARGEST_IN_MEMORY) -> bytes:
    """What is encrypted in the file, all of it verified. Raises FileError, also for more than `largest` bytes."""
    where, secret, plain = os.fspath(path), key_of(key), io.BytesIO()
    with _opened(where, largest) as (file, header):
        _write_plain(file, header, _derived(secret, header, where), plain, where)
    # Shares the memory: the buffer is held by nobody else.
    return plain.getvalue()


@contextlib.contextmanager
def decrypted(path: str | os.PathLike[str], key: KeySource, *, largest: int = LARGEST_IN_MEMORY) -> Iterator[Path]:
    """The path of a file with what is encrypted in `path`, all of it verified; it is gone when the block ends.

    It is a `private_file`: on Linux in memory, elsewhere in a private folder. What was mapped into memory stays
    readable. Errors that leave the block name `path` instead. Raises FileError, also for more than `largest` bytes.
    """
    where, secret = os.fspath(path), key_of(key)
    with contextlib.ExitStack() as stack:
        with _opened(where, largest) as (file, header):
            derived = _derived(secret, header, where)
            try:
                plain = stack.enter_context(
                    private_file(lambda output: _write_plain(file, header, derived, output, where))
                )
            except OSError as error:
                raise FileError(f"cannot be decrypted: {error.strerror or error}", where=where) from error
        try:
            yield plain
        except EngineError as error:
            error.where = error.where.replace(str(plain), where)
            error.what = error.what.replace(str(plain), where)
            raise


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as one that `encrypt` wrote; False where it cannot be read."""
    try:
        with _regular(os.fspath(path)) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (FileError, OSError):
        return False


def read_header(path: str | os.PathLike[str]) -> Header:
    """What an encrypted file says of itself; its size fits that. No key needed, so nothing is verified.

    Raises FileError.
    """
    with _opened(os.fspath(path)) as (_, header):
        return header


def seal(key: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    """AES-256-GCM (NIST SP 800-38D): the ciphertext of `plain`, then the tag of 16 bytes over it and `associated`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, plain, associated)


def unseal(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """The plain bytes of what `seal` made; None if any of it, or the key, is another."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        return None


def stretched(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    """32 bytes by scrypt (RFC 7914) with N = `cost`, r = 8, p = 1; takes 1024 * `cost` bytes of memory."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=_KEY_BYTES, n=cost, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)


def expanded(key: bytes, salt: bytes, info: bytes = _INFO, length: int = _KEY_BYTES) -> bytes:
    """`length` bytes by HKDF-SHA256 (RFC 5869): another key for every salt."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, info).derive(key)


def _derived(key: Key, header: Header, where: str, progress: Progress | None = None) -> bytes:
    """What the chunks are sealed with. Raises FileError for a key of the other kind, and where memory is short."""
    if key.is_raw != header.is_raw:
        kinds = ("a passphrase", "a raw key of 32 bytes")
        raise FileError(f"was encrypted with {kinds[header.is_raw]}, not with {kinds[key.is_raw]}", where=where)
    if progress is not None:
        progress.step("deriving the key", 0, 0)
    try:
        if key.is_raw:
            return expanded(key.reveal(), header.salt)
        return stretched(key.reveal(), header.salt, COSTS[header.level])
    except ImportError:
        raise FileError(
            "encryption needs the package cryptography", where=where, hint="pip install cryptography"
        ) from None
    except MemoryError:
        raise FileError(
            f"level {header.level} needs {COSTS[header.level] >> 10} MB of memory to derive the key", where=where
        ) from None


def _places(header: Header) -> Iterator[tuple[int, bytes]]:
    """Each chunk's number, and what it authenticates with itself."""
    packed, last = header.packed(), header.chunks - 1
    for number in range(header.chunks):
        yield number, packed + _PLACE.pack(number, number == last)


def _nonce(header: Header, number: int) -> bytes:
    return header.nonce_base + _COUNTER.pack(number)


def _write_plain(
    file: IO[bytes], header: Header, key: bytes, output: IO[bytes], where: str, progress: Progress | None = None
) -> None:
    """Verify the chunks one after the other into `output`, which nobody may take for the plain file before the end."""
    left = header.length
    for number, place in _places(header):
        size = min(header.chunk_bytes, left)
        plain = unseal(key, _nonce(header, number), _read(file, size + _TAG_BYTES, where), place)
        if plain is None or len(plain) != size:
            raise FileError(_REFUSED, where=where)
        output.write(plain)
        left -= size
        _tell(progress, "decrypting", number, header)
    if _read(file, 1, where):
        raise FileError(_REFUSED, where=where)


@contextlib.contextmanager
def _opened(where: str, largest: int | None = None) -> Iterator[tuple[IO[bytes], Header]]:
    """The file behind its header, whose every field is in its limits, and which fits the file's size."""
    with _regular(where) as file:
        head, size = _read(file, _HEADER.size, where), os.fstat(file.fileno()).st_size
        if kind_of(head) == "encrypted":
            raise FileError(
                "was encrypted by the vendor's toolkit; only the vendor's runtime on a board opens it", where=where
            )
        if not head.startswith(MAGIC):
            raise FileError("is not encrypted by this tool", where=where, hint="NAME.crypt.rknn is what it writes")
        header = _unpacked(head, where)
        if size != header.file_bytes:
            raise FileError(
                f"is damaged: it has {size} bytes, and {header.file_bytes} by its header",
                where=where,
                hint="copy it again",
            )
        if largest is not None and header.length > largest:
            raise FileError(f"is too large: {header.length} bytes", where=where)
        yield file, header


def _unpacked(head: bytes, where: str) -> Header:
    if len(head) < _HEADER.size:
        raise FileError("is truncated", where=where, hint="copy it again")
    _, version, cipher, kind, level, chunk_bytes, length, salt, nonce_base = _HEADER.unpack(head)
    if version != _VERSION or cipher != _AES_256_GCM:
        raise FileError(
            f"has encryption format {version}.{cipher}; this program reads {_VERSION}.{_AES_256_GCM}",
            where=where,
            hint="update the program, or the file is damaged",
        )
    if kind not in (_PASSPHRASE, _RAW_KEY) or level not in COSTS:
        raise FileError(f"is damaged: its header says key kind {kind} and level {level}", where=where)
    header = Header(level, kind == _RAW_KEY, chunk_bytes, length, salt, nonce_base)
    _check_limits(header, where)
    return header


def _check_limits(header: Header, where: str) -> None:
    """Raise FileError for chunks that memory or the counter have no room for."""
    if not 0 < header.chunk_bytes <= LARGEST_CHUNK or header.chunks > 1 << 32:
        raise FileError(f"has {header.length} bytes in chunks of {header.chunk_bytes}: not possible", where=where)


@contextlib.contextmanager
def _regular(where: str) -> Iterator[IO[bytes]]:
    """The open file. Raises FileError for what is none: a pipe has no size to check, and would wait."""
    try:
        if not stat.S_ISREG(Path(where).stat().st_mode):
            raise FileError("is not a file", where=where)
        file = Path(where).open("rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise FileError("does not exist", where=where, hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=where) from error
    with file:
        yield file


def _read(file: IO[bytes], size: int, where: str) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=where) from error


def _spare(where: str, target: Path) -> None:
    """Raise FileError if the result would replace what it is made from."""
    with contextlib.suppress(OSError, ValueError):
        if target.samefile(where):
            raise FileError("would be replaced by the result", where=where, hint="choose another name for the result")


def _tell(progress: Progress | None, stage: str, number: int, header: Header) -> None:
    if progress is not None:
        progress.step(stage, number + 1, header.chunks)
