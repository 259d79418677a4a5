"""Edits that were not saved outlive the process that held them, and no damage to their file does harm."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rknn_tui
from engine.history import EditState
from rknn_tui.bench.kept import Kept, LeftText
from rknn_tui.bench.recovery import LARGEST_RECOVERY, Recovered, Recovery

NAMES = st.text(max_size=6)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WISHES = st.dictionaries(NAMES, st.sampled_from(["int8", "int16", "float16"]), max_size=4)
RANGES = st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS), max_size=3)
PLAIN_STATES = st.builds(EditState, WISHES, RANGES)
TEXTS = st.builds(
    LeftText,
    st.text(),
    st.sampled_from(["", "/data/net.cfg", os.fsdecode(b"/x\xff.cfg")]),
    st.none() | PLAIN_STATES,
    st.booleans(),
    st.none() | st.text(),
    st.none() | st.text(),
)
KEPT = st.builds(
    Kept, st.builds(EditState, WISHES, RANGES, st.sampled_from(["", "3.1"])), PLAIN_STATES, st.none() | TEXTS
)
STATE = EditState({"a": "int8"}, {"b": (-1.0, 2.0)})
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def recovery(tmp_path: Path) -> Recovery:
    (tmp_path / "net.onnx").write_bytes(b"model")
    return Recovery(tmp_path / "net.onnx")


@shared_folder
@given(KEPT)
def test_what_was_kept_is_found_by_the_next_process(tmp_path: Path, recovery: Recovery, kept: Kept) -> None:
    assert recovery.keep(kept)
    found = Recovery(tmp_path / "net.onnx").found()
    assert found is not None
    assert (found.kept, found.same_model) == (kept, True)
    assert list(found.kept.state.wishes) == list(kept.state.wishes)
    recovery.drop()


def test_what_was_saved_is_not_found(recovery: Recovery) -> None:
    assert recovery.found() is None
    assert recovery.keep(Kept(STATE))
    recovery.drop()
    assert recovery.found() is None
    recovery.drop()
    assert recovery.keep(Kept(STATE))
    assert recovery.found() is not None


def test_another_model_file_of_that_name_is_told(tmp_path: Path, recovery: Recovery) -> None:
    recovery.keep(Kept(STATE))
    (tmp_path / "net.onnx").write_bytes(b"another one")
    found = recovery.found()
    assert found is not None and not found.same_model
    (tmp_path / "net.onnx").unlink()
    found = recovery.found()
    assert found is not None and not found.same_model
    assert Recovery(tmp_path / "other.onnx").found() is None


def test_a_cfg_is_named_from_everywhere(recovery: Recovery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recovery.keep(Kept(STATE, text=LeftText("text", "net.cfg")))
    found = recovery.found()
    assert found is not None and found.kept.text is not None
    assert found.kept.text.path == str(tmp_path / "net.cfg")


def test_only_its_owner_may_read_the_file(recovery: Recovery) -> None:
    mask = os.umask(0)
    try:
        recovery.keep(Kept(STATE, text=LeftText("text")))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(recovery.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(recovery.path.parent.stat().st_mode) == 0o700


def test_what_is_kept_already_is_not_written_again(recovery: Recovery) -> None:
    recovery.keep(Kept(STATE))
    before = recovery.path.stat().st_ino
    recovery.keep(Kept(EditState({"a": "int8"}, {"b": (-1.0, 2.0)})))
    assert recovery.path.stat().st_ino == before
    recovery.keep(Kept(EditState({"a": "int8", "c": "int16"}, {"b": (-1.0, 2.0)})))
    assert recovery.path.stat().st_ino != before
    recovery.keep(Kept(EditState({"c": "int16", "a": "int8"}, {"b": (-1.0, 2.0)})))
    found = recovery.found()
    assert found is not None and list(found.kept.state.wishes) == ["c", "a"]


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    recovery = Recovery(tmp_path / "net.onnx")
    assert not recovery.keep(Kept(STATE))
    assert recovery.found() is None
    recovery.drop()


def test_edits_that_cannot_be_written_leave_those_before(recovery: Recovery) -> None:
    recovery.keep(Kept(STATE))
    assert not recovery.keep(Kept(EditState(ranges={"a": (0.0, float("nan"))})))
    assert not recovery.keep(Kept(STATE, text=LeftText("x" * LARGEST_RECOVERY)))
    found = recovery.found()
    assert found is not None and found.kept.state == STATE
    assert [path.name for path in recovery.path.parent.iterdir()] == [recovery.path.name]


def test_threads_do_not_spoil_each_other_s_file(recovery: Recovery) -> None:
    def work(name: str) -> None:
        for count in range(50):
            assert recovery.keep(Kept(EditState({name: "int8", str(count): "int16"}), text=LeftText(name * count)))
            assert recovery.found() is not None

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    failed: list[Any] = []
    hook, threading.excepthook = threading.excepthook, failed.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert not failed


def test_a_process_that_is_killed_at_any_moment_leaves_whole_edits(recovery: Recovery, tmp_path: Path) -> None:
    script = f"""
import itertools
from engine.history import EditState
from rknn_tui.bench.kept import Kept, LeftText
from rknn_tui.bench.recovery import Recovery
recovery = Recovery({str(tmp_path / "net.onnx")!r})
for count in itertools.count():
    state = EditState({{"count": "int8"}}, {{"count": (0.0, float(count))}})
    recovery.keep(Kept(state, text=LeftText("x" * 100_000)))
    if count == 3:
        print("on", flush=True)
"""
    root = Path(rknn_tui.__file__).parents[1]
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        found = recovery.found()
        assert found is not None and found.kept.text == LeftText("x" * 100_000)
    recovery.drop()
    assert list(recovery.path.parent.iterdir()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@shared_folder
@given(st.data())
def test_any_damage_is_no_edits_or_whole_ones(recovery: Recovery, data: st.DataObject) -> None:
    recovery.drop()
    recovery.keep(Kept(STATE, text=LeftText("text", "/net.cfg")))
    content = recovery.path.read_bytes()
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(json.loads(content))))
        damaged = json.dumps({**json.loads(content), key: data.draw(JSON)}).encode()
    else:
        # The file's length differs from time to time, since it holds the time.
        cut = data.draw(st.integers(0, 1000)) % len(content)
        damaged = content[:cut] + data.draw(st.binary(max_size=5)) + content[cut + data.draw(st.integers(0, 5)) :]
    recovery.path.write_bytes(damaged)
    found = recovery.found()
    if found is not None:
        assert isinstance(found, Recovered)
        assert all(isinstance(wish, str) and wish for wish in found.kept.state.wishes.values())
        assert all(len(ends) == 2 for ends in found.kept.state.ranges.values())
        assert found.kept.text is None or isinstance(found.kept.text.text, str)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"null", b"\0" * 50, b'{"rknn-tui recovery": 2}'])
def test_what_is_no_recovery_is_nothing(recovery: Recovery, content: bytes) -> None:
    recovery.path.parent.mkdir(parents=True)
    recovery.path.write_bytes(content)
    assert recovery.found() is None
    assert recovery.keep(Kept(STATE))
    assert recovery.found() is not None
