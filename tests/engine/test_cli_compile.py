"""`compile` and `compiler` on the command line, with a stand-in of the vendor's toolkit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine import cli, cli_compile
from engine.cli_compile_arguments import compile_arguments, compiler_arguments
from engine.cli_console import Console
from engine.cli_options import add_job_arguments
from engine.cli_verbs import Parser
from tests.engine.compiler.conftest import stand_in
from tests.small_networks import built, network, random

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the vendor's toolkit runs on Linux")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here: model.onnx, dataset.txt with four samples, and an environment with a stand-in of the toolkit."""
    monkeypatch.setenv("RKNN_TUI_TOOLKIT", str(stand_in(tmp_path / "environment")))
    proto = network({"x": (1, 3, 8, 8)}, "y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": random(4, 3, 3, 3)})
    built(tmp_path, proto, [[random(1, 3, 8, 8, seed=seed)] for seed in range(4)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(verb: str, *words: str) -> int:
    def work() -> int:
        parser = Parser(prog=f"rknn-tui {verb}")
        jobs: dict[str, Callable[..., int]] = {"compile": cli_compile.compile_model, "compiler": cli_compile.compiler}
        if verb == "compile":
            parser.add_argument("model")
            compile_arguments(parser)
            add_job_arguments(parser)
        else:
            compiler_arguments(parser)
        parser.add_argument("--json", action="store_true")
        arguments = parser.parse_words(words)
        with Console(as_json=arguments.json) as console:
            return jobs[verb](arguments, console)

    return cli.guarded(work, words)


def printed(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> dict[str, object]:
    assert run(*words) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_compiles_a_model_and_shows_what_each_way_gave(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", "model.onnx", "--dataset=dataset.txt", "--target=rk3566") == 0
    text = capsys.readouterr().out
    assert (folder / "model-rk3566.rknn").read_bytes().startswith(b"RKNN")
    assert "for rk3566, by toolkit 2.5.0" in text and "cosine" in text
    assert all(way in text for way in ("qdq", "cfg", "default"))


def test_json_has_the_ways_and_the_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compile", "model.onnx", "--dataset=dataset.txt", "--way=cfg", "-o", "out.rknn", "--json"]
    found = printed(capsys, words)["compiled"]
    assert isinstance(found, dict)
    assert (
        found["way"] == "cfg" and found["path"] == "out.rknn" and found["bytes"] == (folder / "out.rknn").stat().st_size
    )
    (layer,) = [pair for pair in found["layers"] if pair["name"] == "y"]
    assert 0.9 < layer["ours"] <= 1 and 0.9 < layer["theirs"] <= 1


def test_a_package_is_compiled_as_it_was_built(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", "model.onnx", "--dataset=dataset.txt", "--target=rk3588", "-o", "ours.rknn", "-q"]) == 0
    capsys.readouterr()
    assert run("compile", "ours.rknn", "--dataset=dataset.txt") == 0
    assert (folder / "ours-rk3588.rknn").read_bytes().startswith(b"RKNN")
    assert run("compile", "ours.rknn", "--dataset=dataset.txt", "--target=rk3566") == 2
    assert "was built for rk3588" in capsys.readouterr().err


def test_the_package_may_take_up_the_binary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compile", "model.onnx", "--dataset=dataset.txt", "-o", "out.rknn", "--package", "ours.rknn"]
    assert run(*words) == 0
    capsys.readouterr()
    assert cli.main(["inspect", "ours.rknn"]) == 0
    assert "rknn-toolkit2 2.5.0" in capsys.readouterr().out
    assert cli.main(["infer", "ours.rknn", (folder / "dataset.txt").read_text().split()[0], "-q"]) == 0


def test_says_before_the_build_that_the_toolkit_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKNN_TUI_TOOLKIT")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    assert run("compile", "model.onnx", "--dataset=dataset.txt") == 1
    error = capsys.readouterr().err
    assert "not installed" in error and "rknn-tui compiler install" in error and "calibrate" not in error
    assert not list(folder.glob("*.rknn"))


def test_a_failure_of_the_toolkit_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKNN_DOUBLE", "config=crashes")
    assert run("compile", "model.onnx", "--dataset=dataset.txt", "--way=qdq") == 1
    error = capsys.readouterr().err
    assert "SIGABRT" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--way=magic"], "magic"),
        (["--cfg=a.cfg"], "belongs to a .model"),
        (["-o", "model.onnx"], "would replace model.onnx"),
        (["-o", "a.rknn", "--package", "a.rknn"], "would replace the binary"),
        ([], "quantized with samples"),
    ],
)
def test_wrong_usage_is_told(words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", "model.onnx", *words) == 2
    assert said in capsys.readouterr().err


def test_status_tells_what_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("compiler", "status") == 0
    text = capsys.readouterr().out
    assert "rknn-toolkit2    2.5.0" in text and "ready" in text
    assert run("compiler", "status", "--folder=elsewhere", "--json") == 1
    found = json.loads(capsys.readouterr().out)["compiler"]
    assert "not installed" in found["problem"] and "install" in found["hint"]
    assert run("compiler", "status", "--python=python3") == 2
    assert run("compiler", "install", "--python=no-such-python") == 1


def test_asking_for_help_loads_neither_numpy_nor_onnx() -> None:
    code = "import sys, engine.cli_compile_arguments; print([m for m in ('numpy', 'onnx') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
