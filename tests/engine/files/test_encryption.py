"""Encrypted files give back what was put in, to who has the key and only as it was put in."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import subprocess
import sys
import textwrap
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Cancelled, ConfigError, EngineError, FileError
from engine.files import encryption, package, private_files
from engine.files.encryption import (
    COSTS,
    LARGEST_CHUNK,
    decrypt,
    decrypted,
    encrypt,
    export_encrypted_rknn_model,
    is_encrypted,
    plain_bytes,
    read_header,
)
from engine.progress import Progress
from tests.small_networks import built, network, random

RAW = bytes(range(32))
SECRET = "correct horse battery staple"
VENDOR = b"RKNN\0\0\0\0" + struct.pack("<Q", 6)
CHUNK = 64
HEADER, TAG = 48, 16
SEALED = CHUNK + TAG
ROOT = Path(__file__).resolve().parents[3]

Refused = Callable[..., str]

needs_rights = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in another way")


def content(size: int, seed: int = 0) -> bytes:
    """A file of `size` bytes that begins as the vendor's does."""
    body = hashlib.shake_128(bytes([seed])).digest(max(size, len(VENDOR)))
    return (VENDOR + body[len(VENDOR) :])[:size]


def source_of(folder: Path, data: bytes, name: str = "m.rknn") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def sealed(folder: Path, data: bytes, key: encryption.KeySource = RAW, level: int = 1, chunk: int = CHUNK) -> Path:
    return encrypt(source_of(folder, data), folder / "m.crypt.rknn", key, level, chunk_bytes=chunk)


class TestPrimitives:
    """The vectors that those who defined the primitives published, through the functions that files go through."""

    @pytest.mark.parametrize(
        ("key", "nonce", "plain", "associated", "expected"),
        [
            # McGrew and Viega, "The Galois/Counter Mode of Operation", submitted to NIST: test cases 13, 14 and 16.
            ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
            (
                "00" * 32,
                "00" * 12,
                "00" * 16,
                "",
                "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919",
            ),
            (
                "feffe9928665731c6d6a8f9467308308" * 2,
                "cafebabefacedbaddecaf888",
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
                "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ],
        ids=["13", "14", "16"],
    )
    def test_aes_256_gcm(self, key: str, nonce: str, plain: str, associated: str, expected: str) -> None:
        given = [bytes.fromhex(text) for text in (key, nonce, plain, associated)]
        result = encryption.seal(*given)
        assert result.hex() == expected
        secret, used, text, more = given
        assert encryption.unseal(secret, used, result, more) == text
        assert encryption.unseal(secret, used, result[:-1] + bytes([result[-1] ^ 1]), more) is None

    def test_scrypt(self) -> None:
        # RFC 7914 section 12, the third vector; of its 64 bytes the first 32, which do not depend on how many are made.
        assert encryption.stretched(b"pleaseletmein", b"SodiumChloride", 16384).hex() == (
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        )

    @pytest.mark.slow
    def test_scrypt_in_a_gigabyte(self) -> None:
        # RFC 7914 section 12, the fourth vector.
        assert encryption.stretched(b"pleaseletmein", b"SodiumChloride", 1048576).hex() == (
            "2101cb9b6a511aaeaddbbe09cf70f881ec568d574a2ffd4dabe5ee9820adaa47"
        )

    def test_hkdf(self) -> None:
        # RFC 5869 appendix A.1.
        derived = encryption.expanded(
            b"\x0b" * 22, bytes.fromhex("000102030405060708090a0b0c"), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42
        )
        assert derived.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


class TestRoundTrip:
    @settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        size=st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 7 * CHUNK + 5]) | st.integers(0, 9 * CHUNK),
        chunk=st.sampled_from([CHUNK, 1, 7, 10 * CHUNK]),
    )
    def test_every_size_comes_back(
        self, size: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Files of no content are no .rknn, but the layout has a place for them.
        monkeypatch.setattr(encryption, "check_source", lambda path: None)
        data = content(size)
        path = sealed(tmp_path, data, chunk=chunk)
        assert path.stat().st_size == HEADER + size + TAG * max(1, -(-size // chunk))
        assert plain_bytes(path, RAW) == data
        assert decrypt(path, tmp_path / "plain.rknn", RAW).read_bytes() == data
        with decrypted(path, RAW) as plain:
            assert plain.read_bytes() == data

    @pytest.mark.parametrize("level", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
    def test_every_level_with_a_passphrase(self, level: int, tmp_path: Path) -> None:
        data = content(3 * CHUNK + 1)
        path = sealed(tmp_path, data, SECRET, level)
        assert read_header(path).level == level
        assert plain_bytes(path, SECRET) == data

    def test_chunks_of_a_megabyte(self, tmp_path: Path) -> None:
        data = content((2 << 20) + 5)
        path = encrypt(source_of(tmp_path, data), tmp_path / "m.crypt.rknn", RAW)
        assert (read_header(path).chunk_bytes, read_header(path).chunks) == (1 << 20, 3)
        assert plain_bytes(path, RAW) == data

    def test_a_package_comes_back_and_loads(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 4)}, "m = Mul (x, x)\ny = Relu (m)", {})
        model = built(tmp_path, proto, [[random(1, 4)]]).export(tmp_path / "m.rknn")
        path = export_encrypted_rknn_model(model, key=SECRET)
        assert path == tmp_path / "m.crypt.rknn" and is_encrypted(path) and not is_encrypted(model)
        assert plain_bytes(path, SECRET) == model.read_bytes()
        with decrypted(path, SECRET) as plain:
            assert package.read(plain).quantized.table == package.read(model).quantized.table

    @pytest.mark.parametrize(
        "head",
        [VENDOR, b"\x20\0\0\0RKNN", b"RKNX\0\0\0\0"],
        ids=["container", "flatbuffer", "rknn3"],
    )
    def test_vendor_files_come_back(self, head: bytes, tmp_path: Path) -> None:
        data = head + bytes(100)
        assert plain_bytes(sealed(tmp_path, data), RAW) == data

    def test_no_two_files_are_alike(self, tmp_path: Path) -> None:
        files = [sealed(tmp_path, content(300)).read_bytes() for _ in range(2)]
        assert files[0][:24] == files[1][:24]
        for start, end in ((24, 40), (40, 48), (48, 112)):
            assert files[0][start:end] != files[1][start:end]

    def test_nothing_of_the_content_is_in_the_file(self, tmp_path: Path) -> None:
        data = content(4 * CHUNK)
        written = sealed(tmp_path, data).read_bytes()[HEADER:]
        assert not any(data[start : start + 8] in written for start in range(0, len(data), 8))


class TestLayout:
    def test_files_are_as_documented(self, tmp_path: Path) -> None:
        """Read by another program, which knows the layout and the primitives only."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data = content(2 * CHUNK + 9)
        file = sealed(tmp_path, data, SECRET).read_bytes()
        magic, version, cipher, kind, level, chunk, length, salt, base = struct.unpack_from("<8s4BIQ16s8s", file)
        assert (magic, version, cipher, kind, level, chunk) == (b"ORKNNENC", 1, 1, 1, 1, CHUNK)
        key = hashlib.scrypt(SECRET.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**28, dklen=32)
        plain, rest = b"", file[HEADER:]
        for number in range(3):
            piece, rest = rest[:SEALED], rest[SEALED:]
            place = file[:HEADER] + struct.pack("<IB", number, number == 2)
            plain += AESGCM(key).decrypt(base + struct.pack("<I", number), piece, place)
        assert (plain, len(plain), rest) == (data, length, b"")

    def test_version_1_stays_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "old.crypt.rknn"
        path.write_bytes(bytes.fromhex(VERSION_1))
        assert plain_bytes(path, "Zürich") == content(40)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four whole chunks and a last one of ten bytes."""
    return sealed(tmp_path_factory.mktemp("sealed"), content(4 * CHUNK + 10)).read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """What a changed file is refused with when it is read, in any of the ways or into memory only."""

    def refused(changed: bytes, every_way: bool = True) -> str:
        path, target = tmp_path / "changed.crypt.rknn", tmp_path / "plain.rknn"
        path.write_bytes(changed)
        with pytest.raises(FileError) as raised:
            plain_bytes(path, RAW)
        assert raised.value.where == str(path)
        if every_way:
            target.write_bytes(b"old")
            with pytest.raises(FileError):
                decrypt(path, target, RAW)
            with pytest.raises(FileError), decrypted(path, RAW):
                pytest.fail("was handed out")
            assert target.read_bytes() == b"old"
            assert sorted(file.name for file in tmp_path.iterdir()) == ["changed.crypt.rknn", "plain.rknn"]
        return raised.value.what

    return refused


class TestTampering:
    def test_a_flipped_bit_anywhere(self, file: bytes, tmp_path: Path) -> None:
        path = tmp_path / "changed.crypt.rknn"
        for position in range(len(file)):
            changed = bytearray(file)
            changed[position] ^= 1 << position % 8
            path.write_bytes(changed)
            with pytest.raises(FileError):
                plain_bytes(path, RAW)

    @pytest.mark.parametrize(
        "part", ["magic", "version", "cipher", "kind", "level", "chunk", "length", "salt", "nonce"]
    )
    def test_every_field_of_the_header(self, part: str, file: bytes, refused: Refused) -> None:
        starts = {"magic": 0, "version": 8, "cipher": 9, "kind": 10, "level": 11}
        starts |= {"chunk": 12, "length": 16, "salt": 24, "nonce": 40}
        ends = [*starts.values(), HEADER]
        start = starts[part]
        end = ends[ends.index(start) + 1]
        for bit in range(8 * (end - start)):
            value = int.from_bytes(file[start:end], "little") ^ 1 << bit
            refused(file[:start] + value.to_bytes(end - start, "little") + file[end:], bit % 16 == 0)

    def test_another_level_is_refused_although_a_raw_key_does_not_need_it(self, file: bytes, refused: Refused) -> None:
        for level in (2, 3):
            assert "wrong key, or the file was changed" in refused(file[:11] + bytes([level]) + file[12:])

    def test_the_header_of_a_file_with_a_passphrase(self, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(100), SECRET)
        file = path.read_bytes()
        for position, value in ((11, 2), (24, file[24] ^ 1), (40, file[40] ^ 1)):
            path.write_bytes(file[:position] + bytes([value]) + file[position + 1 :])
            with pytest.raises(FileError, match="wrong key, or the file was changed"):
                plain_bytes(path, SECRET)

    def test_truncation_at_every_length(self, file: bytes, tmp_path: Path) -> None:
        path = tmp_path / "changed.crypt.rknn"
        for size in range(len(file)):
            path.write_bytes(file[:size])
            with pytest.raises(FileError, match=r"damaged|truncated|is not encrypted"):
                plain_bytes(path, RAW)

    @pytest.mark.parametrize("more", [1, TAG, SEALED])
    def test_extension(self, more: int, file: bytes, refused: Refused) -> None:
        assert "is damaged" in refused(file + bytes(more))

    @pytest.mark.parametrize("chunks", [0, 1, 2, 3])
    def test_chunks_cut_off_with_a_length_to_match(self, chunks: int, file: bytes, refused: Refused) -> None:
        cut = file[: HEADER + max(chunks, 0) * SEALED] + (file[-TAG:] if not chunks else b"")
        length = struct.pack("<Q", chunks * CHUNK)
        assert "wrong key, or the file was changed" in refused(cut[:16] + length + cut[24:])

    def test_chunks_added_with_a_length_to_match(self, file: bytes, refused: Refused) -> None:
        for place in range(5):
            start = HEADER + place * SEALED
            longer = file[:start] + file[HEADER : HEADER + SEALED] + file[start:]
            length = struct.pack("<Q", 5 * CHUNK + 10)
            assert "wrong key, or the file was changed" in refused(longer[:16] + length + longer[24:])

    def test_chunks_swapped_or_repeated(self, file: bytes, refused: Refused) -> None:
        pieces = [file[start : start + SEALED] for start in range(HEADER, HEADER + 4 * SEALED, SEALED)]
        for first in range(4):
            for second in range(4):
                if first == second:
                    continue
                swapped, repeated = list(pieces), list(pieces)
                swapped[first], swapped[second] = pieces[second], pieces[first]
                repeated[first] = pieces[second]
                for changed in (swapped, repeated):
                    assert "wrong key" in refused(file[:HEADER] + b"".join(changed) + file[HEADER + 4 * SEALED :])

    def test_a_chunk_of_another_file_under_the_same_key(
        self, file: bytes, refused: Refused, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = sealed(tmp_path_factory.mktemp("other"), content(4 * CHUNK + 10, seed=1)).read_bytes()
        for start in range(HEADER, len(file), SEALED):
            assert "wrong key" in refused(file[:start] + other[start : start + SEALED] + file[start + SEALED :])
        assert "wrong key" in refused(other[:HEADER] + file[HEADER:])

    def test_a_chunk_of_a_longer_file_with_the_same_salt(
        self, file: bytes, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = iter([file[24:40], file[40:48]])
        monkeypatch.setattr(encryption.os, "urandom", lambda size: next(drawn))
        (tmp_path / "other").mkdir()
        longer = sealed(tmp_path / "other", content(6 * CHUNK)).read_bytes()
        monkeypatch.undo()
        for path in (tmp_path / "other").iterdir():
            path.unlink()
        (tmp_path / "other").rmdir()
        for start in range(HEADER, HEADER + 4 * SEALED, SEALED):
            assert "wrong key" in refused(file[:start] + longer[start : start + SEALED] + file[start + SEALED :])

    @settings(
        max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_bytes_behind_the_magic(self, data: st.DataObject, tmp_path: Path) -> None:
        path = tmp_path / "any.crypt.rknn"
        path.write_bytes(encryption.MAGIC + bytes([1, 1, 2]) + data.draw(st.binary(max_size=120)))
        with pytest.raises(FileError):
            plain_bytes(path, RAW)

    @pytest.mark.parametrize(
        ("field", "form", "value", "message"),
        [
            (8, "B", 2, "encryption format 2.1"),
            (9, "B", 7, "encryption format 1.7"),
            (11, "B", 30, "level 30"),
            (11, "B", 0, "level 0"),
            (10, "B", 3, "key kind 3"),
            (12, "I", 0, "not possible"),
            (12, "I", LARGEST_CHUNK + 1, "not possible"),
            (12, "I", 2**32 - 1, "not possible"),
            (16, "Q", 2**64 - 1, "not possible"),
            (16, "Q", 2**38, "is damaged: it has"),
        ],
    )
    def test_limits_are_checked_before_anything_is_derived_or_allocated(
        self, field: int, form: str, value: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = sealed(tmp_path, content(300), SECRET)
        file = bytearray(path.read_bytes())
        struct.pack_into(f"<{form}", file, field, value)
        path.write_bytes(file)
        monkeypatch.setattr(encryption, "stretched", lambda *_: pytest.fail("was derived"))
        with pytest.raises(FileError, match=message):
            plain_bytes(path, SECRET)

    def test_a_file_that_is_too_large_for_memory_is_refused_first(self, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        assert plain_bytes(path, RAW, largest=300)
        for read in (
            lambda: plain_bytes(path, RAW, largest=299),
            lambda: decrypted(path, RAW, largest=299).__enter__(),
        ):
            with pytest.raises(FileError, match="too large: 300 bytes"):
                read()


class TestKeys:
    def test_a_wrong_key_is_one_clean_error(self, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        with pytest.raises(FileError) as raised:
            decrypt(path, tmp_path / "plain.rknn", bytes(32))
        assert str(raised.value) == f"{path}: cannot be decrypted: wrong key, or the file was changed"
        assert not (tmp_path / "plain.rknn").exists()
        path = sealed(tmp_path, content(300), SECRET)
        with pytest.raises(FileError, match="wrong key, or the file was changed"):
            plain_bytes(path, f"{SECRET} ")

    def test_the_other_kind_of_key_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="encrypted with a raw key of 32 bytes, not with a passphrase"):
            plain_bytes(sealed(tmp_path, content(300)), SECRET)
        with pytest.raises(FileError, match="encrypted with a passphrase, not with a raw key of 32 bytes"):
            plain_bytes(sealed(tmp_path, content(300), SECRET), RAW)

    def test_a_passphrase_is_the_same_however_it_was_typed(self, tmp_path: Path) -> None:
        assert plain_bytes(sealed(tmp_path, content(300), "Z\u00fcrich"), "Zu\u0308rich") == content(300)

    def test_nothing_that_fails_tells_the_key(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        path = sealed(tmp_path, content(300), SECRET)
        changed = tmp_path / "changed.crypt.rknn"
        changed.write_bytes(path.read_bytes()[:-1] + b"\0")
        attempts: list[Callable[[], object]] = [
            lambda: plain_bytes(changed, SECRET),
            lambda: decrypt(changed, tmp_path / "missing" / "m.rknn", SECRET),
            lambda: encrypt(path, tmp_path / "n.rknn", SECRET),
            lambda: encrypt(tmp_path / "none", tmp_path / "n.rknn", SECRET),
            lambda: plain_bytes(path, SECRET + "\udcff"),
            lambda: plain_bytes(path, [SECRET]),  # type: ignore[arg-type]
            lambda: export_encrypted_rknn_model(path, None, 4, SECRET),
        ]
        for attempt in attempts:
            with pytest.raises(EngineError) as raised:
                attempt()
            shown = "".join(traceback.format_exception(raised.value)).replace(f'"{SECRET}"', "")
            assert SECRET not in shown and SECRET not in caplog.text
            assert SECRET not in repr(vars(raised.value))

    def test_without_memory_for_the_level_it_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = sealed(tmp_path, content(300), SECRET)

        def too_much(*_: object) -> bytes:
            raise MemoryError

        monkeypatch.setattr(encryption, "stretched", too_much)
        with pytest.raises(FileError, match="level 1 needs 32 MB of memory"):
            plain_bytes(path, SECRET)

    def test_without_the_package_it_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = sealed(tmp_path, content(300))
        for name in [name for name in sys.modules if name.startswith("cryptography.hazmat.primitives")]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(FileError, match="needs the package cryptography"):
            plain_bytes(path, RAW)


class TestSources:
    def test_what_is_no_rknn_is_refused(self, tmp_path: Path) -> None:
        for data in (b"", b"x", b"\x08\x0aonnx", b"PK\x03\x04" + bytes(100), b'{"version": 1}'):
            with pytest.raises(FileError, match=r"is no \.rknn file"):
                sealed(tmp_path, data)
        assert not (tmp_path / "m.crypt.rknn").exists()

    def test_what_is_encrypted_already_is_refused(self, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(100))
        with pytest.raises(FileError, match="is encrypted already"):
            encrypt(path, tmp_path / "twice.rknn", RAW)
        vendors = source_of(tmp_path, b"CYPTRKNN" + bytes(100), "vendor.rknn")
        with pytest.raises(FileError, match="already, by the vendor"):
            encrypt(vendors, tmp_path / "twice.rknn", RAW)
        with pytest.raises(FileError, match="only the vendor's runtime"):
            plain_bytes(vendors, RAW)

    def test_what_is_not_encrypted_is_not_decrypted(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="is not encrypted by this tool"):
            plain_bytes(source_of(tmp_path, content(100)), RAW)

    @pytest.mark.parametrize("name", ["none", ".", "m.rknn/below", "a\0b"])
    def test_what_cannot_be_read_is_told(self, name: str, tmp_path: Path) -> None:
        source_of(tmp_path, content(100))
        path = tmp_path / name
        for attempt in (
            lambda: encrypt(path, tmp_path / "out.rknn", RAW),
            lambda: decrypt(path, tmp_path / "out.rknn", RAW),
            lambda: plain_bytes(path, RAW),
            lambda: read_header(path),
        ):
            with pytest.raises(FileError):
                attempt()
        assert not is_encrypted(path)

    @needs_rights
    def test_a_pipe_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileError, match="is not a file"):
            plain_bytes(tmp_path / "pipe", RAW)

    def test_the_result_never_replaces_its_source(self, tmp_path: Path) -> None:
        plain = source_of(tmp_path, content(100))
        (tmp_path / "link.rknn").symlink_to(plain)
        for target in (plain, tmp_path / "link.rknn", tmp_path / "." / "m.rknn"):
            with pytest.raises(FileError, match="would be replaced"):
                encrypt(plain, target, RAW)
        path = sealed(tmp_path, content(100))
        with pytest.raises(FileError, match="would be replaced"):
            decrypt(path, path, RAW)
        assert plain.read_bytes() == content(100) and plain_bytes(path, RAW) == content(100)

    @pytest.mark.parametrize("size", [10, 500])
    def test_a_source_that_changes_meanwhile_is_told(self, size: int, tmp_path: Path) -> None:
        path = source_of(tmp_path, content(300))
        grow = Progress(lambda stage, done, total: stage == "encrypting" or os.truncate(path, size))
        with pytest.raises(FileError, match="changed while it was read"):
            encrypt(path, tmp_path / "m.crypt.rknn", RAW, chunk_bytes=CHUNK, progress=grow)
        assert [file.name for file in tmp_path.iterdir()] == ["m.rknn"]

    def test_the_toolkits_names_and_levels(self, tmp_path: Path) -> None:
        model = source_of(tmp_path, content(100), "net.v1.2.rknn")
        assert export_encrypted_rknn_model(str(model), key=RAW) == tmp_path / "net.v1.2.crypt.rknn"
        named = export_encrypted_rknn_model(str(model), str(tmp_path / "other.bin"), 3, RAW)
        assert named == tmp_path / "other.bin" and read_header(named).level == 3
        for level in (0, 4, -1, True, 1.0, "1", None):
            with pytest.raises(ConfigError, match="crypt_level: is 1, 2 or 3"):
                export_encrypted_rknn_model(str(model), None, level, RAW)  # type: ignore[arg-type]
        assert set(COSTS) == {1, 2, 3}

    def test_the_key_may_come_from_the_environment_and_must_come_from_somewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = source_of(tmp_path, content(100))
        monkeypatch.delenv("RKNN_TUI_KEY_FILE", raising=False)
        monkeypatch.setenv("RKNN_TUI_KEY", SECRET)
        assert plain_bytes(export_encrypted_rknn_model(model), SECRET) == content(100)
        monkeypatch.delenv("RKNN_TUI_KEY")
        with pytest.raises(ConfigError, match="RKNN_TUI_KEY"):
            export_encrypted_rknn_model(model)


class TestWriting:
    @pytest.mark.parametrize("stage", ["encrypting", "decrypting"])
    def test_a_cancelled_job_leaves_the_old_file(self, stage: str, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        target = tmp_path / "target.rknn"
        target.write_bytes(b"old")
        seen: list[tuple[str, int, int]] = []
        progress = Progress(lambda *step: seen.append(step), lambda: len(seen) >= 3)
        with pytest.raises(Cancelled):
            if stage == "encrypting":
                encrypt(tmp_path / "m.rknn", target, RAW, chunk_bytes=CHUNK, progress=progress)
            else:
                decrypt(path, target, RAW, progress=progress)
        assert seen == [("deriving the key", 0, 0), (stage, 1, 5), (stage, 2, 5)]
        assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 3

    @needs_signals
    @pytest.mark.parametrize("call", ["encrypt", "decrypt"])
    def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(self, call: str, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        source, target = {"encrypt": tmp_path / "m.rknn", "decrypt": path}[call], tmp_path / "target.rknn"
        target.write_bytes(b"old")
        script = f"""
            import os, signal
            from engine.files.encryption import {call}
            from engine.progress import Progress
            def end(stage, done, total):
                if done == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
            more = {{"chunk_bytes": {CHUNK}}} if {call!r} == "encrypt" else {{}}
            {call}({str(source)!r}, {str(target)!r}, bytes(range(32)), progress=Progress(end), **more)
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=False)
        assert run.returncode == -9
        assert target.read_bytes() == b"old"
        left = [file for file in tmp_path.iterdir() if file.name.endswith(".part")]
        assert len(left) == 1 and left[0].stat().st_mode & 0o777 == 0o600
        {"encrypt": encrypt, "decrypt": decrypt}[call](source, target, RAW)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["m.crypt.rknn", "m.rknn", "target.rknn"]


class TestPrivateFiles:
    @pytest.fixture(params=["memory", "folder"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where plain files are put: in memory where the system has such, else in a folder of this place."""
        place = tmp_path / "place"
        place.mkdir()
        monkeypatch.setattr(private_files.tempfile, "gettempdir", lambda: str(place))
        monkeypatch.setattr(private_files.tempfile, "tempdir", str(place))
        if request.param == "folder":
            monkeypatch.setattr(private_files, "_memory_file", lambda: None)
        elif sys.platform != "linux":
            pytest.skip("only Linux has files in memory")
        return place

    @needs_rights
    def test_only_its_owner_can_open_it_and_only_in_the_block(self, place: Path, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        descriptors = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
        with decrypted(path, RAW) as plain:
            assert plain.read_bytes() == content(300)
            assert plain.stat().st_mode & 0o777 == 0o600
            for folder in place.iterdir():
                assert folder.stat().st_mode & 0o777 == 0o700
        assert not plain.exists() and not list(place.iterdir())
        if sys.platform == "linux":
            assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

    def test_a_refused_file_leaves_none(self, place: Path, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(FileError), decrypted(path, RAW):
            pytest.fail("was handed out")
        assert not list(place.iterdir())

    def test_errors_in_the_block_name_the_encrypted_file(self, place: Path, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        with pytest.raises(FileError) as raised, decrypted(path, RAW) as plain:
            raise FileError(f"{plain} is odd", where=f"{plain}: member")
        assert (raised.value.what, raised.value.where) == (f"{path} is odd", f"{path}: member")
        assert not list(place.iterdir())

    @needs_rights
    def test_what_was_mapped_into_memory_stays_readable(self, place: Path, tmp_path: Path) -> None:
        with decrypted(sealed(tmp_path, content(300)), RAW) as plain:
            mapped = np.memmap(plain, mode="r")
        assert not plain.exists() and not list(place.iterdir())
        assert bytes(mapped) == content(300)

    @needs_signals
    def test_a_killed_process_leaves_nothing_for_long(self, place: Path, tmp_path: Path) -> None:
        path = sealed(tmp_path, content(300))
        descriptor = private_files._memory_file()
        in_folder = descriptor is None
        if descriptor is not None:
            os.close(descriptor)
        script = f"""
            import os, signal
            from engine.files import private_files
            from engine.files.encryption import decrypted
            if {in_folder}:
                private_files._memory_file = lambda: None
            with decrypted({str(path)!r}, bytes(range(32))):
                os.kill(os.getpid(), signal.SIGKILL)
        """
        environment = {**os.environ, "TMPDIR": str(place)}
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, env=environment, check=False)
        assert run.returncode == -9
        assert len(list(place.iterdir())) == in_folder
        with decrypted(path, RAW):
            assert len(list(place.iterdir())) == in_folder
        assert not list(place.iterdir())

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
    def test_a_file_in_memory_cannot_be_changed_any_more(self, tmp_path: Path) -> None:
        with decrypted(sealed(tmp_path, content(300)), RAW) as plain:
            assert plain.parent == Path("/proc/self/fd")
            descriptor = os.open(plain, os.O_RDWR)
            for change in (lambda: os.write(descriptor, b"x"), lambda: os.truncate(descriptor, 0)):
                with pytest.raises(PermissionError):
                    change()
            os.close(descriptor)
            assert plain.read_bytes() == content(300)


MEMORY = """
import resource, sys
from pathlib import Path
from engine.files import encryption
folder, key, level = Path(sys.argv[1]), eval(sys.argv[2]), int(sys.argv[3])
def peak():
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform == "linux" else 1024**2)
encryption.encrypt(folder / "small.rknn", folder / "small.crypt.rknn", bytes(32))
encryption.plain_bytes(folder / "small.crypt.rknn", bytes(32))
base = peak()
encryption.encrypt(folder / "large.rknn", folder / "large.crypt.rknn", key, level)
encryption.decrypt(folder / "large.crypt.rknn", folder / "plain.rknn", key)
print(peak() - base)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak of a process so")
@pytest.mark.parametrize(
    ("key", "level", "most"),
    # Megabytes: a few chunks, and what scrypt takes by itself.
    [("bytes(32)", 1, 20), ("'secret'", 1, 32 + 20), ("'secret'", 2, 128 + 20), ("'secret'", 3, 512 + 20)],
)
def test_a_file_of_100_megabytes_takes_little_memory(key: str, level: int, most: float, tmp_path: Path) -> None:
    source_of(tmp_path, content(100), "small.rknn")
    with source_of(tmp_path, content(1 << 20), "large.rknn").open("ab") as file:
        for seed in range(1, 100):
            file.write(hashlib.shake_128(bytes([seed])).digest(1 << 20))
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), key, str(level)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout) < most
    assert (tmp_path / "plain.rknn").read_bytes() == (tmp_path / "large.rknn").read_bytes()


def test_a_package_of_a_later_version_is_encrypted_too(tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", '{"format": "rknn-tui", "version": 99}')
    assert plain_bytes(export_encrypted_rknn_model(path, key=RAW), RAW) == path.read_bytes()


def test_importing_the_module_loads_no_cipher() -> None:
    script = "import sys, engine.files.encryption, engine.cli_files; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# 40 bytes of `content` in chunks of 16 under the passphrase 'Zürich', level 1.
VERSION_1 = (
    "4f524b4e4e454e43010101011000000028000000000000002e21710b6e62f55bb53b3649ef6380e12733d53d924c0bd0"
    "b79a61ca120d8ed5253e81821cf87cb15410d8365ec8aa54c8b3be089145d348ddb37a304cd494516e611eb31c746c0a"
    "635162ffd8fc84a9a941d0493034c68230032ecd2b27551c32be570f449d07b202e98b1b75258cb4"
)
