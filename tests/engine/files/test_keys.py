"""Keys come from where the user put them, in a known order, and are shown nowhere."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import tempfile
import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, EngineError, FileError
from engine.files.keys import LONGEST_PASSPHRASE, Key, find_key, key_of, read_key_file, required_key
from engine.summaries import to_plain

SECRET = "correct horse battery staple"
RAW = bytes(range(200, 232))
needs_rights = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")


def key_file(folder: Path, content: bytes, rights: int = 0o600, name: str = "key") -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(rights)
    return path


def found(key: Key | None) -> tuple[bytes, bool]:
    assert key is not None
    return key.reveal(), key.is_raw


class TestPassphrases:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.text(min_size=1, max_size=40))
    def test_however_it_was_typed_it_is_the_same(self, text: str) -> None:
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
        assert len({found(key_of(form)) for form in forms}) == 1

    def test_composed_and_decomposed_letters_are_one(self) -> None:
        assert found(key_of("Zu\u0308rich")) == found(key_of("Z\u00fcrich")) == ("Zürich".encode(), False)

    def test_what_is_none_is_refused_without_being_shown(self) -> None:
        for wrong in ("", f"{SECRET}\udcff", SECRET + "x" * LONGEST_PASSPHRASE):
            with pytest.raises(ConfigError) as raised:
                key_of(wrong)
            assert SECRET not in str(raised.value)
            # The decoder's own error would carry the text along.
            assert raised.value.__cause__ is None and raised.value.__context__ is None

    def test_other_types_are_refused_without_being_shown(self) -> None:
        for wrong in ([SECRET], 31, {SECRET: 1}):
            with pytest.raises(ConfigError, match=r"not (list|int|dict)") as raised:
                key_of(wrong)  # type: ignore[arg-type]
            assert SECRET not in str(raised.value)


class TestRawKeys:
    def test_it_has_32_bytes(self) -> None:
        assert found(key_of(RAW)) == (RAW, True)
        for size in (0, 16, 31, 33):
            with pytest.raises(ConfigError, match="32 bytes"):
                key_of(b"k" * size)


class TestKeyFiles:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"secret", b"secret"),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\nuser: me\n", b"secret"),
            (b"  two words \n", b"  two words "),
            (b"\xef\xbb\xbfsecret\r\n", b"secret"),
            ("Zu\u0308rich\n".encode(), "Zürich".encode()),
            (b"0123456789abcdef0123456789abcdef", b"0123456789abcdef0123456789abcdef"),
            (b"0123456789abcdef0123456789abcde\n", b"0123456789abcdef0123456789abcde"),
            (b"0123456789abcdef0123456789abcd\r\n", b"0123456789abcdef0123456789abcd"),
        ],
    )
    def test_the_first_line_is_a_passphrase(self, content: bytes, expected: bytes, tmp_path: Path) -> None:
        assert found(read_key_file(key_file(tmp_path, content))) == (expected, False)

    @pytest.mark.parametrize(
        "content",
        [bytes(32), RAW, b"\n" * 31 + b"\0", b"0123456789abcdef0123456789abcd\0\n", b"secret\nsecret\n" + b"x" * 18],
    )
    def test_32_bytes_that_are_no_line_of_text_are_a_raw_key(self, content: bytes, tmp_path: Path) -> None:
        assert found(read_key_file(key_file(tmp_path, content))) == (content, True)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.binary(min_size=32, max_size=32))
    def test_random_bytes_are_a_raw_key(self, content: bytes) -> None:
        content = b"\xff" + content[1:]
        with tempfile.TemporaryDirectory() as folder:
            assert found(read_key_file(key_file(Path(folder), content))) == (content, True)

    @pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\nsecret\n"])
    def test_an_empty_one_is_refused(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="empty"):
            read_key_file(key_file(tmp_path, content))

    @pytest.mark.parametrize(
        "content", ["secret".encode("utf-16"), b"\xff" * 31, b"\xff" * 33, b"se\0cret", b"\x80secret\n", b"a\x7fb"]
    )
    def test_what_is_neither_text_nor_32_bytes_is_refused(self, content: bytes, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="neither a line of UTF-8 text nor exactly 32 bytes"):
            read_key_file(key_file(tmp_path, content))

    def test_a_line_without_end_is_refused(self, tmp_path: Path) -> None:
        assert read_key_file(key_file(tmp_path, b"x" * LONGEST_PASSPHRASE + b"\r\n"))
        with pytest.raises(FileError, match="longer than 1024"):
            read_key_file(key_file(tmp_path, b"x" * (LONGEST_PASSPHRASE + 1)))
        if sys.platform != "win32":
            with pytest.raises(FileError, match="longer than 1024"):
                read_key_file("/dev/zero")

    def test_the_begin_of_every_pem_file_is_no_passphrase(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="another kind"):
            read_key_file(key_file(tmp_path, b"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"))

    @needs_rights
    @pytest.mark.parametrize("rights", [0o644, 0o604, 0o602, 0o666])
    def test_one_that_everybody_can_open_is_refused(self, rights: int, tmp_path: Path) -> None:
        path = key_file(tmp_path, SECRET.encode(), rights, name="my key")
        with pytest.raises(FileError, match="open to everybody") as raised:
            read_key_file(path)
        assert raised.value.hint == f"chmod 600 '{path}'"
        assert SECRET not in str(raised.value)
        path.chmod(0o640)
        assert found(read_key_file(path)) == (SECRET.encode(), False)

    @needs_rights
    def test_somebody_elses_that_is_open_is_warned_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = key_file(tmp_path, SECRET.encode(), 0o644)
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        assert found(read_key_file(path)) == (SECRET.encode(), False)
        assert "open to everybody" in caplog.text and SECRET not in caplog.text

    @needs_rights
    def test_a_pipe_may_give_the_key(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(b"secret\n",))
        writer.start()
        assert found(read_key_file(pipe)) == (b"secret", False)
        writer.join()

    def test_what_is_no_file_is_told(self, tmp_path: Path) -> None:
        for path, message in ((tmp_path / "none", "does not exist"), (tmp_path, "cannot be read"), ("a\0b", "null")):
            with pytest.raises(FileError, match=message):
                read_key_file(path)


class TestOrder:
    def test_argument_then_file_then_environment(self, tmp_path: Path) -> None:
        named, listed = key_file(tmp_path, b"file"), key_file(tmp_path, b"listed", name="listed")
        environment = {"RKNN_TUI_KEY": "variable", "RKNN_TUI_KEY_FILE": str(listed)}
        assert found(find_key("argument", named, environment)) == (b"argument", False)
        assert found(find_key(None, named, environment)) == (b"file", False)
        assert found(find_key(None, None, environment)) == (b"variable", False)
        del environment["RKNN_TUI_KEY"]
        assert found(find_key(None, None, environment)) == (b"listed", False)
        assert find_key(None, None, {}) is None

    def test_an_argument_may_be_of_every_kind(self, tmp_path: Path) -> None:
        assert found(find_key(key_file(tmp_path, RAW))) == (RAW, True)
        assert found(find_key(bytearray(RAW))) == (RAW, True)
        key = key_of("secret")
        assert find_key(key) is key

    def test_a_variable_that_is_set_but_empty_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="RKNN_TUI_KEY: the passphrase is empty"):
            find_key(environment={"RKNN_TUI_KEY": ""})
        with pytest.raises(ConfigError, match="RKNN_TUI_KEY_FILE: names no file"):
            find_key(environment={"RKNN_TUI_KEY_FILE": ""})

    def test_the_processs_own_environment_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RKNN_TUI_KEY", SECRET)
        assert found(required_key()) == (SECRET.encode(), False)

    def test_without_a_key_the_ways_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RKNN_TUI_KEY", raising=False)
        monkeypatch.delenv("RKNN_TUI_KEY_FILE", raising=False)
        with pytest.raises(ConfigError) as raised:
            required_key(None, "m.rknn")
        for way in ("m.rknn", "key=", "RKNN_TUI_KEY", "RKNN_TUI_KEY_FILE"):
            assert way in str(raised.value)


def test_a_key_cannot_be_shown_or_stored() -> None:
    for key in (key_of(SECRET), key_of(RAW)):
        shown = f"{key} {key!r} {[key]} {dir(key)}"
        assert SECRET not in shown and repr(RAW)[2:-1] not in shown
        assert not hasattr(key, "__dict__")
        for store in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError):
                store(key)  # type: ignore[operator]
        with pytest.raises((TypeError, ValueError, EngineError)):
            json.dumps(to_plain({"key": key}))
