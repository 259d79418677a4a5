"""Work that is killed, interrupted or cancelled loses nothing, writes nothing, and can be done again."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import cli
from engine.cli_console import Console
from engine.errors import Cancelled, FileError
from engine.files.writing import replacing
from engine.progress import Progress
from engine.session import Session
from tests.end_to_end.jobs import STEPS, Job, command, contents, fill, session_step, words

GOOD = Job()
STAGES = {
    "export": ("read", "fold", "check", "optimize", "calibrate", "build"),
    "analyze": ("read", "calibrate", "build", "analyse", "write"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a good job needs and a good job's results."""
    folder = tmp_path_factory.mktemp("finished")
    fill(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert [command(GOOD, step) for step in ("export", "infer", "analyze")] == [0, 0, 0]
    return folder


@pytest.fixture(autouse=True)
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a copy of that one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Killed

PAUSES = {
    # All is written, nothing renamed.
    "export": "os.fsync = pause",
    "infer": "os.fsync = pause",
    # The second of five layers.
    "analyze": """
from engine.cli_console import Console
Console.report = lambda self, stage, done, total: pause() if (stage, done) == ("write", 1) else None
""",
    # The package's first part is written, the second is not.
    "export in the middle": """
import zipfile
begin = zipfile.ZipFile.open
zipfile.ZipFile.open = lambda self, info, mode: pause() if self.namelist() else begin(self, info, mode)
""",
}
PAUSED = """
import os, sys
def pause(*unused):
    print("half way", flush=True)
    sys.stdin.read()
from engine import cli, cli_jobs
{hook}
sys.exit(cli.main(sys.argv[1:]))
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_half_way(moment: str) -> None:
    """Run the step that `moment` begins with in a process that kill -9 ends there."""
    with child(PAUSED.format(hook=PAUSES[moment]), *words(GOOD, moment.split()[0]), "--quiet") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n", process.communicate()[1]
        process.kill()
        process.communicate()


def visible(folder: Path) -> dict[str, bytes | None]:
    return {name: data for name, data in contents(folder).items() if not any(p[0] == "." for p in Path(name).parts)}


@pytest.mark.parametrize("moment", PAUSES)
def test_what_a_killed_process_was_to_replace_is_intact_and_the_next_one_replaces_it(moment: str, folder: Path) -> None:
    before = contents(folder)
    killed_half_way(moment)
    assert visible(folder) == before
    assert Session().load("out.rknn").built == "int8"
    with np.load("out.npz") as outputs:
        assert outputs["scores"].shape == (1, 5)
    assert command(GOOD, moment.split()[0]) == 0
    # The results are the same again, and what was left is gone.
    assert contents(folder) == before


def test_an_unfinished_file_of_a_living_process_is_left_alone(folder: Path) -> None:
    before = contents(folder)
    with replacing("out.rknn") as first:
        first.write(b"slow")
        with replacing("out.rknn") as second:
            second.write(b"quick")
        assert Path("out.rknn").read_bytes() == b"quick"
    assert Path("out.rknn").read_bytes() == b"slow"
    assert contents(folder).keys() == before.keys()


def test_files_that_only_look_unfinished_are_left_alone(folder: Path) -> None:
    others = [".out.rknn.part", ".out.rknn.notes.part", ".other.rknn.abcdefgh.part", "out.rknn.abcdefgh.part"]
    for name in others:
        Path(name).write_text("mine")
    with replacing("out.rknn") as file:
        file.write(b"new")
    assert [Path(name).read_text() for name in others] == ["mine"] * len(others)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=4), st.booleans(), st.text("aé文 .%", min_size=1, max_size=85))
def test_a_write_ends_with_the_whole_file_or_the_old_one(parts: list[bytes], fails: bool, name: str) -> None:
    target = Path("names") / f"x{name}y"
    target.parent.mkdir(exist_ok=True)
    try:
        target.write_bytes(b"old")
    except OSError:  # a name of too many bytes
        with pytest.raises(FileError), replacing(target):
            pass
        return
    try:
        with replacing(target) as file:
            for part in parts:
                file.write(part)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert target.read_bytes() == b"old"
    else:
        assert target.read_bytes() == b"".join(parts)
    assert list(target.parent.iterdir()) == [target]
    target.unlink()


# Interrupted


@pytest.mark.parametrize(
    ("name", "step", "stage"),
    [(name, step, stage) for name in ("SIGINT", "SIGTERM") for step in STAGES for stage in STAGES[step]]
    + [("SIGHUP", "analyze", "write")],
)
def test_a_signal_at_any_stage_ends_the_command_quietly(
    name: str,
    step: str,
    stage: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    number = signal.Signals[name]

    def report(self: Console, at: str, done: int, total: int) -> None:
        if at == stage:
            signal.raise_signal(number)

    before = contents(folder)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)]
    with monkeypatch.context() as patched:
        patched.setattr(Console, "report", report)
        capsys.readouterr()
        assert command(GOOD, step) == 128 + number
    assert capsys.readouterr() == ("", "cancelled\n")
    assert contents(folder) == before
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == handlers


FOUND = [*STAGES["export"], "lint", "measure"]


def tuned(*more: str) -> int:
    """Run a search that goes on for as long as anything helps."""
    return cli.main([*words(Job(wish={"cosine": 1}), "tune"), "--cfg=t.cfg", *more])


@pytest.mark.parametrize("stage", FOUND)
def test_an_interrupt_before_anything_was_found_ends_a_search_quietly(
    stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "report", interrupting(stage))
    before = contents(folder)
    handler = signal.getsignal(signal.SIGINT)
    assert tuned() == 130
    captured = capsys.readouterr()
    # Once the model as it is was measured, that much is told.
    assert captured.err == "cancelled\n" or (stage == "measure" and "nothing was found so far" in captured.out)
    assert contents(folder) == before
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(("stage", "more"), [("trace errors", []), ("search", []), ("search", ["--json"])])
def test_an_interrupted_search_keeps_the_best_so_far(
    stage: str, more: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = (folder / "out.rknn").read_bytes()
    # One measurement of a set must be over.
    monkeypatch.setattr(Console, "report", interrupting(stage, least=1))
    assert tuned(*more) == 130
    captured = capsys.readouterr()
    if more:
        found = json.loads(captured.out)
        assert found["cancelled"] and found["taken"] == len(found["report"]["candidates"])
        assert (found["output"], found["cfg"]) == ("out.rknn", "t.cfg")
    else:
        assert "cancelled: this is the best so far" in captured.out and "wrote out.rknn" in captured.out
    assert (folder / "out.rknn").read_bytes() != old
    assert Session().load("out.rknn").built == "int8"
    assert "custom_quantize_layers" in (folder / "t.cfg").read_text()


def test_a_second_interrupt_ends_a_search_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "report", interrupting("search", times=2))
    before = contents(folder)
    assert tuned() == 130
    assert capsys.readouterr() == ("", "cancelled\n")
    assert contents(folder) == before


def test_a_candidate_asked_for_is_not_taken_from_an_unfinished_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Console, "report", interrupting("trace errors", least=1))
    before = contents(folder)
    assert tuned("--candidate=1") == 130
    assert "cancelled" in capsys.readouterr().out
    assert contents(folder) == before


def interrupting(stage: str, *, least: int = 0, times: int = 1) -> Callable[[Console, str, int, int], None]:
    """A report that presses Ctrl-C so many times in a row when the stage has done `least`."""

    def report(self: Console, at: str, done: int, total: int) -> None:
        if at == stage and done >= least:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return report


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_terminals_interrupt_reaches_the_processes_of_a_search_and_harms_none(folder: Path) -> None:
    (folder / "many.txt").write_text("0.png\n1.png\n" * 400)
    job = Job(dataset="many.txt", wish={"cosine": 1})
    code = "import sys; from engine import cli; sys.exit(cli.main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words(job, "tune"), "--jobs=2", "--json"],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        shown = ""
        while "search" not in shown:
            line = process.stderr.readline()
            assert line, shown
            shown += line
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0), err
    assert "Traceback" not in err
    assert json.loads(out)["cancelled"] == (process.returncode == 130)


def test_nohup_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(self: Console, at: str, done: int, total: int) -> None:
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(Console, "report", report)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command(GOOD, "export") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("name", "more"), [("SIGINT", []), ("SIGTERM", []), ("SIGTERM", ["--json"])])
def test_a_process_that_calibrates_ends_with_the_shells_code(name: str, more: list[str], folder: Path) -> None:
    (folder / "many.txt").write_text("0.png\n" * 200_000)
    before = contents(folder)
    number = signal.Signals[name]
    with child("import sys; from engine import cli; sys.exit(cli.main(sys.argv[1:]))",
               *words(Job(dataset="many.txt"), "export"), *more) as process:  # fmt: skip
        assert process.stderr is not None
        shown = ""
        while "calibrate" not in shown:
            line = process.stderr.readline()
            assert line, shown
            shown += line
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    if more:
        assert json.loads(out)["error"]["kind"] == "Cancelled"
    else:
        assert (out, err.splitlines()[-1]) == ("", "cancelled")
    assert contents(folder) == before


# Cancelled


def cancel_at(check: int) -> Progress:
    """Progress that is cancelled when it is asked for the time number `check`, counted from 0."""
    left = iter(range(check))
    return Progress(cancelled=lambda: next(left, None) is None)


def every_cancel(work: Callable[[Progress], Any]) -> Iterator[int]:
    """Do `work` with a cancel at each of its checks in turn, and at last without; yields after each cancel."""
    for check in range(1000):
        try:
            work(cancel_at(check))
        except Cancelled:
            yield check
        else:
            return
    raise AssertionError("the work never ends")


def works(session: Session) -> dict[str, Callable[[Progress], Any]]:
    return {
        "load": lambda progress: session.load("tiny.onnx", progress=progress),
        "build": lambda progress: session.build(dataset="dataset.txt", rknn_batch_size=2, progress=progress),
        "float16": lambda progress: session.build(do_quantization=False, progress=progress),
        "analyze": lambda progress: session.analyze(["0.png"], progress=progress),
        "snapshot": lambda progress: session.analyze(["0.png"], output_dir="snapshot", progress=progress),
        "new snapshot": lambda progress: session.analyze(["0.png"], output_dir="new/deep", progress=progress),
    }


@pytest.mark.parametrize(
    ("work", "checks"),
    [("load", 5), ("build", 4), ("float16", 2), ("analyze", 4), ("snapshot", 8), ("new snapshot", 8)],
)
def test_a_cancel_at_any_step_keeps_the_build_and_the_files(work: str, checks: int, folder: Path) -> None:
    session = Session()
    for step in STEPS[:3]:
        session_step(session, GOOD, step)
    expected = session_step(session, GOOD, "infer")
    files = {name: data for name, data in contents(folder).items() if data is not None}
    cancelled = 0
    for check in every_cancel(works(session)[work]):
        cancelled = check + 1
        np.testing.assert_array_equal(session_step(session, GOOD, "infer"), expected)
        assert {name: data for name, data in contents(folder).items() if data is not None} == files
    assert cancelled >= checks
    # The last round was not cancelled: the work is done, and the session goes on from there.
    if work == "load":
        session_step(session, GOOD, "build")
    if work in ("build", "float16"):
        assert session.summary().built == ("int8" if work == "build" else "float16")
        functools.reduce(lambda _, step: session_step(session, GOOD, step), STEPS)
