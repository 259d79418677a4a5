"""The commands `encrypt` and `decrypt`: keys by file, environment or prompt, and never on a command line."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import cli, cli_files
from engine.cli_console import Console
from engine.cli_keys import key_of_file
from engine.cli_options import UsageError
from engine.cli_verbs import VERBS
from engine.files.encryption import plain_bytes, read_header

SECRET = "correct horse battery staple"
MODEL = b"RKNN\0\0\0\0" + bytes(200)
ROOT = Path(__file__).resolve().parents[2]
wired = pytest.mark.skipif("encrypt" not in VERBS, reason="the command line does not have the commands yet")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def nothing_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with a model, no key in the environment, nobody to ask."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.rknn").write_bytes(MODEL)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "key").chmod(0o600)
    for variable in ("RKNN_TUI_KEY", "RKNN_TUI_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command as the command line does: its exit code, and what it printed on each stream."""

    def run(
        verb: str,
        model: str,
        out: str | None = None,
        *,
        level: int = 1,
        key_file: str | None = None,
        as_json: bool = False,
    ) -> tuple[int, str, str]:
        arguments = argparse.Namespace(model=model, out=out, level=level, key_file=key_file)
        body = {"encrypt": cli_files.encrypt, "decrypt": cli_files.decrypt}[verb]

        def work() -> int:
            with Console(as_json=as_json) as console:
                return body(arguments, console)

        capsys.readouterr()
        code = cli.guarded(work, ["-v", *(["--json"] if as_json else [])])
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return code, printed.out, printed.err

    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Answers what a person at a terminal is asked for; gives the questions."""

    def answers(*texts: str) -> list[str]:
        questions: list[str] = []
        left = iter(texts)

        def ask(prompt: str) -> str:
            questions.append(prompt)
            return next(left)

        monkeypatch.setattr(getpass, "getpass", ask)
        return questions

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    yield answers


class TestFiles:
    def test_there_and_back(self, run: Run) -> None:
        code, out, err = run("encrypt", "m.rknn", key_file="key")
        assert (code, out) == (0, "m.crypt.rknn: 272 bytes, encrypted with a passphrase, level 1\n")
        assert "encrypting" in err
        assert plain_bytes("m.crypt.rknn", SECRET) == MODEL
        Path("m.rknn").unlink()
        assert run("decrypt", "m.crypt.rknn", key_file="key")[:2] == (0, "m.rknn: 208 bytes, decrypted\n")
        assert Path("m.rknn").read_bytes() == MODEL

    def test_names_and_levels_can_be_chosen(self, run: Run) -> None:
        assert run("encrypt", "m.rknn", "out.bin", level=2, key_file="key")[0] == 0
        assert read_header("out.bin").level == 2
        assert run("decrypt", "out.bin", key_file="key")[0] == 0
        assert Path("out.plain.rknn").read_bytes() == MODEL
        Path("old").write_bytes(b"old")
        assert run("decrypt", "out.bin", "old", key_file="key")[0] == 0
        assert Path("old").read_bytes() == MODEL

    def test_decrypting_replaces_nothing_unasked(self, run: Run) -> None:
        assert run("encrypt", "m.rknn", key_file="key")[0] == 0
        Path("m.rknn").write_bytes(b"edited since")
        code, _, err = run("decrypt", "m.crypt.rknn", key_file="key")
        assert code == 1 and "m.rknn: exists already" in err and "-o FILE" in err
        assert Path("m.rknn").read_bytes() == b"edited since"

    def test_a_raw_key_in_a_file(self, run: Run) -> None:
        key = Path("raw")
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
        code, out, _ = run("encrypt", "m.rknn", key_file="raw")
        assert code == 0 and out.endswith("encrypted with a raw key\n")
        assert plain_bytes("m.crypt.rknn", key.read_bytes()) == MODEL

    def test_as_json(self, run: Run) -> None:
        code, out, _ = run("encrypt", "m.rknn", key_file="key", as_json=True)
        assert code == 0
        assert json.loads(out) == {
            "input": "m.rknn", "output": "m.crypt.rknn", "bytes": 272, "raw_key": False, "level": 1,
        }  # fmt: skip
        code, out, _ = run("decrypt", "m.crypt.rknn", "n.rknn", key_file="key", as_json=True)
        assert json.loads(out) == {"input": "m.crypt.rknn", "output": "n.rknn", "bytes": 208}

    @pytest.mark.parametrize("out", ["m.rknn", "key", "missing/out.rknn", "."])
    def test_a_result_without_a_place_is_told_before_a_key_is_asked_for(
        self, out: str, run: Run, asked: Callable[..., list[str]]
    ) -> None:
        questions = asked()
        code, _, err = run("encrypt", "m.rknn", out, key_file="key" if out == "key" else None)
        assert code in (1, 2) and "error: " in err and "unexpected" not in err
        assert questions == [] and Path("m.rknn").read_bytes() == MODEL and Path("key").read_text() == f"{SECRET}\n"

    def test_wrong_files_are_told_before_a_key_is_asked_for(self, run: Run, asked: Callable[..., list[str]]) -> None:
        questions = asked()
        assert "is no .rknn file" in run("encrypt", "key")[2]
        assert "is not encrypted by this tool" in run("decrypt", "m.rknn")[2]
        assert "does not exist" in run("encrypt", "none.rknn")[2]
        assert questions == []

    def test_a_wrong_key_is_one_line(self, run: Run) -> None:
        assert run("encrypt", "m.rknn", key_file="key")[0] == 0
        Path("key").write_text("another")
        code, out, _ = run("decrypt", "m.crypt.rknn", "n.rknn", key_file="key", as_json=True)
        assert code == 1
        assert json.loads(out)["error"] == {
            "kind": "FileError",
            "what": "cannot be decrypted: wrong key, or the file was changed",
            "where": "m.crypt.rknn",
            "hint": "",
        }
        assert not Path("n.rknn").exists()

    def test_an_encrypted_file_tells_how_without_its_key(self, run: Run) -> None:
        assert run("encrypt", "m.rknn", level=2, key_file="key")[0] == 0
        document, text = cli_files.encrypted_facts("m.crypt.rknn")
        assert text == "m.crypt.rknn: 208 bytes, encrypted with a passphrase, level 2; its key opens it"
        assert document["file"] == {
            "path": "m.crypt.rknn", "encrypted": True, "raw_key": False, "level": 2, "bytes": 272, "plain_bytes": 208,
        }  # fmt: skip


class TestKeys:
    def test_a_key_file_goes_before_the_environment(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RKNN_TUI_KEY", "variable")
        assert run("encrypt", "m.rknn", "a")[0] == 0
        assert run("encrypt", "m.rknn", "b", key_file="key")[0] == 0
        monkeypatch.delenv("RKNN_TUI_KEY")
        monkeypatch.setenv("RKNN_TUI_KEY_FILE", "key")
        assert run("encrypt", "m.rknn", "c")[0] == 0
        assert [plain_bytes(name, key) for name, key in (("a", "variable"), ("b", SECRET), ("c", SECRET))] == [
            MODEL
        ] * 3

    def test_a_person_is_asked_twice_to_encrypt_and_once_to_decrypt(
        self, run: Run, asked: Callable[..., list[str]]
    ) -> None:
        questions = asked(SECRET, SECRET)
        assert run("encrypt", "m.rknn")[0] == 0
        assert questions == ["the key for m.crypt.rknn: ", "the key for m.crypt.rknn, again: "]
        questions = asked(SECRET)
        assert run("decrypt", "m.crypt.rknn", "n.rknn")[0] == 0
        assert questions == ["the key of m.crypt.rknn: "]
        assert Path("n.rknn").read_bytes() == MODEL

    def test_a_command_that_opens_a_file_asks_once(
        self, asked: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        questions = asked(SECRET)
        assert key_of_file("folder/m.crypt.rknn").reveal() == SECRET.encode()
        assert questions == ["the key of m.crypt.rknn: "]
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(UsageError) as raised:
            key_of_file("m.crypt.rknn")
        assert raised.value.hint == "RKNN_TUI_KEY or RKNN_TUI_KEY_FILE in the environment"

    def test_two_different_answers_write_nothing(self, run: Run, asked: Callable[..., list[str]]) -> None:
        asked(SECRET, "correct horse")
        code, _, err = run("encrypt", "m.rknn")
        assert code == 2 and "the two are not the same" in err
        assert not Path("m.crypt.rknn").exists()

    def test_an_empty_answer_is_no_key(self, run: Run, asked: Callable[..., list[str]]) -> None:
        asked("")
        code, _, err = run("encrypt", "m.rknn")
        assert code == 1 and "the passphrase is empty" in err

    def test_ctrl_c_and_ctrl_d_at_the_question_end_it(
        self, run: Run, asked: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked()
        for end, code in ((KeyboardInterrupt, 130), (EOFError, 1), (getpass.GetPassWarning, 1)):

            def ask(prompt: str, end: type[BaseException] = end) -> str:
                raise end

            monkeypatch.setattr(getpass, "getpass", ask)
            assert run("encrypt", "m.rknn")[0] == code
        assert not Path("m.crypt.rknn").exists()

    def test_without_a_key_and_a_terminal_the_ways_are_told(self, run: Run) -> None:
        code, _, err = run("encrypt", "m.rknn")
        assert code == 2
        for way in ("--key-file", "RKNN_TUI_KEY", "RKNN_TUI_KEY_FILE"):
            assert way in err

    def test_a_key_file_that_everybody_reads_is_refused(self, run: Run) -> None:
        Path("key").chmod(0o644)
        code, _, err = run("encrypt", "m.rknn", key_file="key")
        assert code == 1 and "open to everybody" in err and "chmod 600 key" in err


@wired
class TestCommandLine:
    def test_every_process_on_the_way_has_no_key_in_its_arguments(self, tmp_path: Path) -> None:
        """Commands in a process of their own, with nobody to ask."""
        for words in (["encrypt", "m.rknn", "--level", "1"], ["decrypt", "m.crypt.rknn", "-o", "n.rknn"]):
            run = subprocess.run(
                [sys.executable, "-m", "engine", *words, "--key-file", "key", "--json"],
                cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert run.returncode == 0, run.stderr
            assert json.loads(run.stdout)["input"] == words[1]
        assert Path("n.rknn").read_bytes() == MODEL

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
    def test_what_is_typed_is_not_shown(self, tmp_path: Path) -> None:
        import pty

        terminal, inside = pty.openpty()
        words = [sys.executable, "-m", "engine", "encrypt", "m.rknn"]
        process = subprocess.Popen(
            words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        shown = b""
        for question in (b"the key for m.crypt.rknn: ", b"again: "):
            while not shown.endswith(question):
                shown += os.read(terminal, 1024)
            os.write(terminal, f"{SECRET}\n".encode())
        with contextlib.suppress(OSError):  # how the end of a terminal shows
            while more := os.read(terminal, 1024):
                shown += more
        os.close(terminal)
        assert process.wait(60) == 0, shown
        assert b"encrypted with a passphrase" in shown and SECRET.encode() not in shown
        assert plain_bytes(tmp_path / "m.crypt.rknn", SECRET) == MODEL

    @pytest.mark.parametrize("option", ["--key", "--password", "--passphrase"])
    def test_no_option_takes_a_key(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["encrypt", "m.rknn", option, SECRET]) == 2
        assert cli.main(["encrypt", "m.rknn", f"{option}={SECRET}"]) == 2
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        assert f"unknown option {option}" in printed.err

    @pytest.mark.parametrize("level", ["0", "4", "high", "1.5"])
    def test_a_level_that_does_not_exist_is_a_wrong_command_line(
        self, level: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["encrypt", "m.rknn", "--key-file", "key", "--level", level]) == 2
        assert "--level" in capsys.readouterr().err

    def test_help_says_what_is_protected_and_what_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["encrypt", "--help"]) == 0
        text = capsys.readouterr().out
        assert "RKNN_TUI_KEY" in text and "plain" in text
