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
write = zipfile.ZipFile.writestr
zipfile.ZipFile.writestr = lambda self, info, data: pause() if self.namelist() else write(self, info, data)
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
