"""Encrypted packages load wherever plain ones do, for who has the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import cli
from engine.api import RKNN
from engine.session import Session
from tests.small_networks import built, infer, network, random

SECRET = "correct horse battery staple"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A built model, exported as m.rknn and encrypted as m.crypt.rknn; no key in the environment."""
    for variable in ("RKNN_TUI_KEY", "RKNN_TUI_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    session = built(tmp_path, network({"x": (1, 4)}, "m = Mul (x, x)\ny = Relu (m)", {}), [[random(1, 4)]])
    session.export("m.rknn")
    assert RKNN().export_encrypted_rknn_model("m.rknn", key=SECRET) == 0
    return session


def test_it_computes_the_same(session: Session) -> None:
    other = Session()
    summary = other.load("m.crypt.rknn", key=SECRET)
    assert summary.path == "m.crypt.rknn" and summary.built == "int8"
    x = random(1, 4, seed=2)
    assert np.array_equal(infer(other, x)[0], infer(session, x)[0])


def test_the_toolkits_calls_return_0_or_minus_1(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    rknn = RKNN(verbose="Debug")
    for call, words in (
        (lambda: rknn.load_rknn("m.crypt.rknn"), "RKNN_TUI_KEY"),
        (lambda: rknn.load_rknn("m.crypt.rknn", key=f"{SECRET}!"), "wrong key, or the file was changed"),
        (lambda: rknn.export_encrypted_rknn_model("m.rknn"), "RKNN_TUI_KEY"),
        (lambda: rknn.export_encrypted_rknn_model("m.rknn", None, 4, key=SECRET), "crypt_level"),
        (lambda: rknn.export_encrypted_rknn_model("m.crypt.rknn", key=SECRET), "encrypted already"),
        (lambda: rknn.export_encrypted_rknn_model(None, key=SECRET), "input_model"),  # type: ignore[arg-type]
    ):
        assert call() == -1
        assert words in capsys.readouterr().err
    assert rknn.load_rknn("m.crypt.rknn", key=SECRET) == 0
    assert rknn.export_encrypted_rknn_model("m.rknn", "again.rknn", 2, key=SECRET) == 0
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err


def test_commands_take_the_key_of_the_environment(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", "m.crypt.rknn"]) == 0
    assert "encrypted with a passphrase, level 1" in capsys.readouterr().out
    np.save("x.npy", random(1, 4))
    assert cli.main(["infer", "m.crypt.rknn", "x.npy"]) == 2
    assert "RKNN_TUI_KEY" in capsys.readouterr().err
    monkeypatch.setenv("RKNN_TUI_KEY", SECRET)
    assert cli.main(["infer", "m.crypt.rknn", "x.npy"]) == 0
    assert cli.main(["inspect", "m.crypt.rknn"]) == 0
    printed = capsys.readouterr()
    assert "built int8" in printed.out and SECRET not in printed.out + printed.err
