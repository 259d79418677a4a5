"""Bad input is refused in words at every level, loses no file, leaves no litter, and the work goes on after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cli, errors
from engine.api import RKNN
from engine.config import Config
from engine.errors import EngineError, OrderError
from engine.session import Session
from tests.end_to_end.bad_inputs import ROWS, Row, file, one_node
from tests.end_to_end.jobs import BUILDING, Job, command, contents, fill, rknn_step, session_step, words

GOOD = Job()
AGAIN = ("config", "load", "build", "infer")
"""What must work after every failure."""
RKNN_CALLS = {
    "load": "load_onnx",
    "export": "export_rknn",
    "infer": "inference",
    "analyze": "accuracy_analysis",
    "step1": "hybrid_quantization_step1",
    "step2": "hybrid_quantization_step2",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what a good job needs and older results."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(level: str) -> pytest.MarkDecorator:
    found = {name: row for name, row in ROWS.items() if level in row.levels}
    return pytest.mark.parametrize("row", found.values(), ids=found)


def assert_says(row: Row, text: str) -> None:
    """`text` has every part; where a part has two spellings, one of them."""
    for part in row.says:
        assert any(spelling in text for spelling in part.split("|")), f"{part!r} is not said in: {text}"


def steps_to(step: str) -> tuple[str, ...]:
    """The steps of a job that ends with `step`."""
    return BUILDING[: BUILDING.index(step) + 1] if step in BUILDING else (*BUILDING, step)


def failed(result: Any) -> bool:
    return result is None or (isinstance(result, int) and result == -1)


@rows("session")
def test_the_session_raises_and_goes_on(row: Row, folder: Path) -> None:
    session = Session()
    for step in BUILDING:
        session_step(session, GOOD, step)
    expected = session_step(session, GOOD, "infer")
    job = row.job()
    before = contents(folder)
    with pytest.raises(row.error) as caught:
        for step in steps_to(row.step) if row.step in BUILDING or job.rebuilt else [row.step]:
            if step != "load" or row.step == "load" or job.model != GOOD.model:
                session_step(session, job, step)
    assert_says(row, str(caught.value))
    assert contents(folder) == before
    if not job.rebuilt and (row.step != "build" or job.model == GOOD.model):
        np.testing.assert_array_equal(session_step(session, GOOD, "infer"), expected)
    for step in AGAIN:
        session_step(session, GOOD, step)
    np.testing.assert_array_equal(session_step(session, GOOD, "infer"), expected)


@rows("rknn")
def test_the_toolkits_call_prints_one_line_and_goes_on(
    row: Row, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = RKNN()
    job = row.job()
    # The model that was there must outlive the failure, unless the bad job has to replace it on the way.
    keeps_model = row.step == "config" or (row.step != "build" and job.config == GOOD.config)
    earlier, steps = (GOOD, BUILDING) if keeps_model else (job, steps_to(row.step)[:-1])
    for step in steps:
        assert not failed(rknn_step(rknn, earlier, step))
    before = contents(folder)
    capsys.readouterr()
    assert failed(rknn_step(rknn, job, row.step))
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    call = (
        "load_rknn" if row.step == "load" and str(job.model).endswith(".rknn") else RKNN_CALLS.get(row.step, row.step)
    )
    assert line.startswith(f"E {call}: ")
    assert "unexpected" not in line
    assert_says(row, line)
    assert contents(folder) == before
    for step in ("infer", *AGAIN) if keeps_model else AGAIN:
        assert not failed(rknn_step(rknn, GOOD, step))
    rknn.release()


@rows("cli")
def test_the_command_fails_with_a_message_or_a_document(
    row: Row, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = row.job()
    before = contents(folder)
    assert command(job, row.step) == row.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "unexpected" not in captured.err and "Traceback" not in captured.err
    # Several faults are listed with an indent.
    further = [line for line in captured.err.splitlines()[1:] if not line.startswith("  ")]
    assert [line.partition(": ")[0] for line in further] in ([], ["hint"])
    assert_says(row, captured.err)

    assert command(job, row.step, "--json") == row.exit_code
    captured = capsys.readouterr()
    assert captured.err == ""
    error = json.loads(captured.out)["error"]
    assert sorted(error) == ["hint", "kind", "what", "where"]
    assert error["kind"] == "UsageError" if row.exit_code == 2 else hasattr(errors, error["kind"])
    assert_says(row, f"{error['where']}: {error['what']} ({error['hint']})")

    assert contents(folder) == before


# Calls out of order

STATES: dict[str, tuple[str, ...]] = {
    "new": (),
    "configured": ("config",),
    "loaded": ("config", "load"),
    "built": ("config", "load", "build"),
    "running": ("config", "load", "build", "infer"),
}
CALLS: dict[str, Callable[[RKNN], Any]] = {
    "config": lambda rknn: rknn.config(),
    "load_onnx": lambda rknn: rknn.load_onnx("tiny.onnx"),
    "build": lambda rknn: rknn.build(dataset="dataset.txt"),
    "export_rknn": lambda rknn: rknn.export_rknn("new.rknn"),
    "init_runtime": lambda rknn: rknn.init_runtime(),
    "inference": lambda rknn: rknn.inference(GOOD.feeds),
    "accuracy_analysis": lambda rknn: rknn.accuracy_analysis(["0.png"], output_dir="new"),
    "hybrid_quantization_step1": lambda rknn: rknn.hybrid_quantization_step1("dataset.txt"),
    "hybrid_quantization_step2": lambda rknn: rknn.hybrid_quantization_step2(
        "tiny.model", "tiny.data", "tiny.quantization.cfg"
    ),
}
OF_A_BUILD = ("export_rknn", "init_runtime", "inference", "accuracy_analysis")
OF_A_MODEL = ("build", *OF_A_BUILD, "hybrid_quantization_step1")
# What each state refuses, and the call that it asks for. A model needs no second build, only another load.
REFUSED: dict[str, dict[str, str]] = {
    "new": {"load_onnx": "config", **dict.fromkeys(OF_A_MODEL, "load_onnx")},
    "configured": dict.fromkeys(OF_A_MODEL, "load_onnx"),
    "loaded": dict.fromkeys(OF_A_BUILD, "build"),
    "built": {"build": "load it again", "inference": "init_runtime"},
    "running": {"build": "load it again"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", STATES)
def test_a_call_in_the_wrong_state_says_which_comes_first(
    state: str, call: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = RKNN()
    for step in STATES[state]:
        rknn_step(rknn, GOOD, step)
    before = contents(folder)
    capsys.readouterr()
    result = CALLS[call](rknn)
    shown = capsys.readouterr().err
    assert failed(result) == (call in REFUSED[state])
    if failed(result):
        (line,) = shown.splitlines()
        assert line.startswith(f"E {call}: ") and REFUSED[state][call] in line
        assert contents(folder) == before
    rknn.release()
    assert failed(CALLS[call](rknn))
    assert "released" in capsys.readouterr().err


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("step", ["build", "export", "infer", "analyze"])
def test_the_session_needs_its_earlier_steps_too(step: str, loaded: bool) -> None:
    session = Session()
    if loaded:
        session_step(session, GOOD, "load")
    if step == "build" and loaded:
        return
    with pytest.raises(OrderError) as caught:
        session_step(session, GOOD, step)
    assert ("build" if loaded else "load") in caught.value.hint


def test_a_float16_build_has_nothing_to_analyse() -> None:
    session = Session()
    session.load("tiny.onnx")
    session.build(do_quantization=False)
    with pytest.raises(OrderError, match=r"float16.*build with a dataset"):
        session_step(session, GOOD, "analyze")


def test_what_was_built_keeps_its_settings() -> None:
    session = Session()
    for step in BUILDING:
        session_step(session, GOOD, step)
    expected = session_step(session, GOOD, "infer")
    session.config = Config(target_platform="rk3588", quantized_method="layer")
    assert session.summary().target == "rk3566"
    session.export("kept.rknn")
    again = Session()
    again.load("kept.rknn")
    assert again.config == Config.from_mapping(GOOD.config)
    np.testing.assert_array_equal(session_step(again, GOOD, "infer"), expected)


# Numbers that the model itself spoils


def test_a_model_that_makes_nan_of_a_good_input_runs_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    file("log.onnx", one_node("Log"))()
    job = Job(model="log.onnx", do_quantization=False)
    rknn = RKNN()
    for step in BUILDING:
        rknn_step(rknn, job, step)
    capsys.readouterr()
    (output,) = rknn_step(rknn, job, "infer")
    assert np.isnan(output).any()
    assert "W output 'y' is infinite or not a number" in capsys.readouterr().err
    rknn.release()

    assert command(job, "infer", "--json") == 0
    captured = capsys.readouterr()
    assert "warning: output 'y'" in captured.err
    assert json.loads(captured.out)["outputs"][0]["max"] is None


# Places that cannot be written

LIMITED = """
import resource, signal, sys
from engine import cli, cli_jobs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("step", ["export", "infer", "analyze"])
def test_a_write_that_fails_half_way_leaves_everything_as_it_was(step: str, folder: Path) -> None:
    pytest.importorskip("resource")
    before = contents(folder)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words(GOOD, step), "--quiet"],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "cannot be written: File too large" in done.stderr and "Traceback" not in done.stderr
    assert contents(folder) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to a read-only folder")
@pytest.mark.parametrize(
    ("step", "change"), [("export", {"export": "shut/x.rknn"}), ("analyze", {"output_dir": "shut"})]
)
def test_a_read_only_folder_is_refused_at_once(
    step: str, change: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shut = folder / "shut"
    shut.mkdir(mode=0o555)
    session = Session()
    for before in BUILDING:
        session_step(session, GOOD, before)
    with pytest.raises(EngineError, match=r"shut.*cannot be written.*choose"):
        session_step(session, Job(**change), step)
    assert command(Job(**change), step) == 1
    assert "permission denied" in capsys.readouterr().err
    assert list(shut.iterdir()) == []


def test_a_result_goes_through_links_and_devices_and_keeps_rights(folder: Path) -> None:
    session = Session()
    for step in BUILDING:
        session_step(session, GOOD, step)
    (folder / "link.rknn").symlink_to("out.rknn")
    (folder / "out.rknn").chmod(0o600)
    session.export("link.rknn")
    assert (folder / "link.rknn").is_symlink()
    assert (folder / "out.rknn").stat().st_mode & 0o777 == 0o600
    Session().load("out.rknn")
    session.export(os.devnull)
    assert not Path(os.devnull).is_file()
