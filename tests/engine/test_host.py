"""The engine's process answers, reports, cancels, survives nonsense, and its death is noticed."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import host as host_module
from engine.config import Config
from engine.errors import Cancelled, EngineError, ModelError
from engine.host import ThrottledProgress, serve
from engine.host_client import EngineHost
from engine.host_protocol import BACKGROUND, METHODS, EngineDiedError, decode, encode, error_event, error_from, rebuild
from engine.progress import Progress
from engine.session_live import LiveSession
from engine.summaries import (
    LARGEST_TEXT,
    AccuracyReport,
    Alternative,
    CfgReading,
    ErrorPair,
    Finding,
    LayerError,
    LayerFacts,
    LayerSummary,
    LiveState,
    ModelSummary,
    PartError,
    Quality,
    TensorFacts,
    TensorSummary,
    TuneReport,
    TuneRun,
    to_plain,
)
from tests.engine.live_bench import bench_in

ROOT = Path(__file__).resolve().parents[2]
MODEL = ModelSummary(
    "m.onnx",
    "onnx",
    17,
    (TensorSummary("x", (1, 3, 8, 8), "float32", "nchw"),),
    (),
    (LayerSummary(0, "y", "Conv", ("x",), (1, 4, 8, 8), "float32", "", ("conv0",)),),
    108,
    "rk3566",
)

QUALITY = Quality(0.9, 0.9, 0.1, ())


class Stand:
    """A session that does what its model's name says."""

    def __init__(self) -> None:
        self.config = Config()
        self.waiting = threading.Event()
        self.go_on = threading.Event()
        self.searching: queue.Queue[int] = queue.Queue()
        self.path = ""

    def load(self, path: str, *, progress: Progress, **given: Any) -> ModelSummary:
        if path == "missing":
            raise ModelError("does not exist", where=path, hint="check the path")
        if path == "bug":
            raise KeyError("oops")
        if path == "endless":
            for count in range(10**9):
                self.waiting.set()
                progress.step("read", count, 10**9)
                time.sleep(0.002)
        progress.step("read", 1, 2)
        progress.step("read", 2, 2)
        self.path = path
        return dataclasses.replace(MODEL, path=path)

    def aside(self) -> Stand:
        copy = Stand()
        copy.path, copy.searching, copy.go_on = self.path, self.searching, self.go_on
        return copy

    def apply(self, wishes: dict[str, str], ranges: Any, *, progress: Progress, **given: Any) -> LiveState:
        if wishes.get("wait"):
            self.waiting.set()
            assert self.go_on.wait(20)
        progress.check()
        return LiveState(wishes, {}, 0.0, 0.0)

    def tune_run(self, dataset: str, *, progress: Progress, **given: Any) -> TuneRun:
        """Counts its steps until it is cancelled, or as far as the dataset's name says."""
        if dataset == "bug":
            raise KeyError("oops")
        steps = 0
        while not dataset.isdecimal() or steps < int(dataset):
            progress.step(self.path, steps, 0)
            steps += 1
            self.searching.put(steps)
            time.sleep(0.001)
        return TuneRun(steps, TuneReport(QUALITY, (), -1, True, True, 1, 0.0))

    def cfg_read(self, text: str) -> CfgReading:
        return CfgReading({text[:5]: str(len(text))}, {})

    def summary(self) -> ModelSummary:
        return MODEL

    def export(self, path: str) -> Path:
        return Path(path)


class Conversation:
    """Both ends of the pipes of a `serve` that runs in a thread."""

    def __init__(self, session: Stand) -> None:
        self._requests, self._events = os.pipe(), os.pipe()
        self._writer = os.fdopen(self._requests[1], "wb")
        self._reader = os.fdopen(self._events[0], "rb")
        self._thread = threading.Thread(target=self._serve, args=(session,))
        self._thread.start()

    def _serve(self, session: Stand) -> None:
        with os.fdopen(self._requests[0], "rb") as reader, os.fdopen(self._events[1], "wb") as writer:
            serve(lambda: session, reader, writer)

    def send(self, message: Any) -> None:
        self._writer.write(message if isinstance(message, bytes) else encode(message))
        self._writer.flush()

    def hear(self) -> dict[str, Any]:
        return decode(self._reader.readline())

    def end_of(self, request: int) -> dict[str, Any]:
        """The result or error of a request."""
        while True:
            event = self.hear()
            if event.get("id") == request and event["event"] != "progress":
                return event

    def close(self) -> None:
        self._writer.close()
        self._thread.join(10)
        self._reader.close()
        assert not self._thread.is_alive()


@pytest.fixture
def session() -> Stand:
    return Stand()


@pytest.fixture
def talk(session: Stand) -> Iterator[Conversation]:
    conversation = Conversation(session)
    assert conversation.hear() == {"event": "ready"}
    yield conversation
    conversation.close()


def test_a_request_reports_progress_and_returns_a_plain_value(talk: Conversation) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "a.onnx"}})
    assert talk.hear() == {"id": 1, "event": "progress", "stage": "read", "done": 1, "total": 2}
    assert talk.hear() == {"id": 1, "event": "progress", "stage": "read", "done": 2, "total": 2}
    result = talk.hear()
    assert result["event"] == "result"
    assert result["value"]["path"] == "a.onnx"
    assert result["value"]["layers"][0]["sources"] == ["conv0"]


def test_an_engine_error_keeps_its_kind_place_and_hint(talk: Conversation) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "missing"}})
    assert talk.hear() == {
        "id": 1,
        "event": "error",
        "kind": "ModelError",
        "what": "does not exist",
        "where": "missing",
        "hint": "check the path",
    }


def test_a_fault_of_the_engine_itself_is_an_answer_too(talk: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "bug"}})
    event = talk.hear()
    assert (event["kind"], event["what"]) == ("InternalError", "KeyError: 'oops'")
    assert "Traceback" in capsys.readouterr().err
    talk.send({"id": 2, "method": "export", "params": {"path": "out.rknn"}})
    assert talk.end_of(2)["value"] == "out.rknn"


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"method": "explode"}, "unknown request 'explode'"),
        ({"method": "load"}, "parameter 'path' is missing"),
        ({"method": "load", "params": {"path": "a", "size": 1}}, "unknown parameter 'size'"),
        ({"method": "load", "params": [1]}, "parameters are not an object"),
    ],
)
def test_wrong_requests_are_refused_by_name(talk: Conversation, request_: dict[str, Any], fault: str) -> None:
    talk.send({"id": 1, **request_})
    assert talk.end_of(1)["what"] == fault


def test_lines_that_are_no_requests_do_not_end_the_conversation(talk: Conversation) -> None:
    for line in (b"{\n", b"[]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"):
        talk.send(line)
        assert talk.hear()["event"] == "error"
    talk.send({"id": 5, "method": "summary"})
    assert talk.end_of(5)["event"] == "result"


def test_configure_checks_settings_and_hands_them_to_the_session(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "configure", "params": {"config": {"target_platform": "RK3588"}}})
    assert talk.end_of(1)["value"]["target_platform"] == "rk3588"
    assert session.config.target_platform == "rk3588"
    talk.send({"id": 2, "method": "configure", "params": {"config": {"target_platfrom": "rk3588"}}})
    event = talk.end_of(2)
    assert event["kind"] == "ConfigError"
    assert "target_platform" in event["hint"]


def test_a_running_and_a_waiting_request_can_be_cancelled(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "endless"}})
    talk.send({"id": 2, "method": "load", "params": {"path": "endless"}})
    assert session.waiting.wait(10)
    talk.send({"cancel": 2})
    talk.send({"cancel": 1})
    talk.send({"cancel": 99})
    assert talk.end_of(1)["kind"] == "Cancelled"
    assert talk.end_of(2)["kind"] == "Cancelled"
    talk.send({"id": 3, "method": "summary"})
    assert talk.end_of(3)["event"] == "result"


def test_a_search_leaves_other_requests_to_be_answered(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "tune_run", "params": {"dataset": "endless"}})
    assert session.searching.get(timeout=10) == 1
    for number in range(2, 6):
        talk.send({"id": number, "method": "apply", "params": {"wishes": {"a": str(number)}, "ranges": {}}})
        assert talk.end_of(number)["value"]["precisions"] == {"a": str(number)}
    talk.send({"cancel": 1})
    assert talk.end_of(1)["kind"] == "Cancelled"


def test_a_search_waits_while_anything_else_is_to_be_done(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "tune_run", "params": {"dataset": "endless"}})
    assert session.searching.get(timeout=10) == 1
    talk.send({"id": 2, "method": "apply", "params": {"wishes": {"wait": "yes"}, "ranges": {}}})
    assert session.waiting.wait(10)
    # What was under way when the request came is finished, and then no step is begun.
    last, paused = 1, False
    while not paused and last < 1000:
        try:
            last = session.searching.get(timeout=0.2)
        except queue.Empty:
            paused = True
    assert paused
    session.go_on.set()
    assert talk.end_of(2)["event"] == "result"
    assert session.searching.get(timeout=10) == last + 1
    talk.send({"cancel": 1})
    assert talk.end_of(1)["kind"] == "Cancelled"


def test_a_search_that_waits_hears_that_it_is_cancelled(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "tune_run", "params": {"dataset": "endless"}})
    assert session.searching.get(timeout=10) == 1
    talk.send({"id": 2, "method": "apply", "params": {"wishes": {"wait": "yes"}, "ranges": {}}})
    assert session.waiting.wait(10)
    talk.send({"cancel": 1})
    assert talk.end_of(1)["kind"] == "Cancelled"
    session.go_on.set()
    assert talk.end_of(2)["event"] == "result"


def test_a_cancelled_request_leaves_a_search_alone(talk: Conversation, session: Stand) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "endless"}})
    talk.send({"id": 2, "method": "tune_run", "params": {"dataset": "3"}})
    assert session.waiting.wait(10)
    talk.send({"cancel": 1})
    assert talk.end_of(1)["kind"] == "Cancelled"
    assert talk.end_of(2)["value"]["number"] == 3


def test_a_search_is_of_the_model_before_the_requests_that_come_after_it(talk: Conversation) -> None:
    talk.send({"id": 1, "method": "load", "params": {"path": "first"}})
    talk.send({"id": 2, "method": "tune_run", "params": {"dataset": "2"}})
    talk.send({"id": 3, "method": "load", "params": {"path": "second"}})
    talk.send({"id": 4, "method": "tune_run", "params": {"dataset": "2"}})
    stages: dict[int, set[str]] = {2: set(), 4: set()}
    ends = set()
    while ends != {1, 2, 3, 4}:
        event = talk.hear()
        if event["event"] != "progress":
            ends.add(event["id"])
        elif event["id"] in stages:
            stages[event["id"]].add(event["stage"])
    assert stages == {2: {"first"}, 4: {"second"}}


def test_a_fault_in_a_search_is_an_answer_too(talk: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk.send({"id": 1, "method": "tune_run", "params": {"dataset": "bug"}})
    assert talk.end_of(1)["what"] == "KeyError: 'oops'"
    talk.send({"id": 2, "method": "tune_run", "params": {"datset": "1"}})
    assert talk.end_of(2)["what"] == "unknown parameter 'datset'"
    talk.send({"id": 3, "method": "tune_run", "params": {"dataset": "1"}})
    assert talk.end_of(3)["value"]["number"] == 1


def test_a_text_of_any_characters_fits_into_a_request(talk: Conversation) -> None:
    for text in ("a" * LARGEST_TEXT, "\x01" * LARGEST_TEXT, "\U0001f600" * (LARGEST_TEXT // 4)):
        talk.send({"id": 1, "method": "cfg_read", "params": {"text": text}})
        assert talk.end_of(1)["value"]["wishes"] == {text[:5]: str(len(text))}


@pytest.mark.parametrize("name", [[1], {"a": 1}])
def test_an_id_that_is_no_number_or_text_is_refused(name: Any, talk: Conversation) -> None:
    for message in ({"id": name, "method": "summary"}, {"cancel": name}):
        talk.send(message)
        assert "id" in talk.hear()["what"]
    for _ in range(2):  # the same id twice
        talk.send({"id": 1, "method": "summary"})
    assert [talk.end_of(1)["event"] for _ in range(2)] == ["result", "result"]


def test_every_method_is_one_of_the_session_with_the_parameters_that_requests_may_have() -> None:
    assert METHODS.keys() == host_module._PARAMETERS.keys()
    assert METHODS.keys() > BACKGROUND
    for method, (required, optional) in host_module._PARAMETERS.items():
        if method in ("configure", "summary", "export"):
            continue
        known = dict(inspect.signature(getattr(LiveSession, method)).parameters)
        del known["self"]
        # Keys are no parameter of a request: the engine's process finds them in its environment.
        known.pop("key", None)
        assert (known.pop("progress", None) is None) == (method in host_module._SHORT), method
        assert required == {name for name, one in known.items() if one.default is one.empty}, method
        assert optional == known.keys() - required, method


def test_a_real_session_answers_over_the_border(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    host = EngineHost()
    host.start()

    def ask(method: str, **params: Any) -> Any:
        return host.request(method, params).result(60)

    try:
        ask("load", path=str(tmp_path / "model.onnx"))
        ask("configure", config={"target_platform": "rk3588"})
        ask("build", dataset=bench.dataset)
        state = ask("live_start", inputs=bench.sample)
        assert state.quality == bench.session.live_start(bench.sample).quality
        search = host.request("tune_run", {"dataset": bench.dataset, "layers": 3})
        edits = {"wishes": {"m": "int16"}, "ranges": {"j": [-1.0, 2.0]}}
        state = ask("apply", **edits)
        assert state.quality == bench.session.apply(**edits).quality
        text = ask("cfg_text")
        assert text == bench.session.cfg_text()
        assert ask("cfg_read", text=text) == bench.session.cfg_read(text) == ask("edits")
        assert ask("cfg_write", text=text, wishes={}, ranges={}) == bench.session.cfg_write(text, {}, {})
        compared, expected = ask("compare_cfg", text=text), bench.session.compare_cfg(text)
        assert dataclasses.replace(compared, seconds=0.0) == dataclasses.replace(expected, seconds=0.0)
        assert ask("layer_facts", name="j") == bench.session.layer_facts("j")
        assert ask("alternatives", name="hs") == bench.session.alternatives("hs")
        (best,) = ask("layer_facts", name="best").makes
        assert best.scale is None and math.isnan(best.low)
        saved = ask("save_cfg", path=str(tmp_path / "net.quantization.cfg"), text=text)
        assert ask("cfg_open", path=saved[2])["text"] == text
        run = search.result(60)
        wishes = run.report.candidates[0].wishes
        assert ask("apply", wishes=wishes, ranges={}, biases=f"{run.number}.0").wishes.keys() >= wishes.keys()
        assert ask("trace", inputs=bench.sample).sources
        assert isinstance(ask("findings", dataset=bench.dataset, inputs=bench.sample), tuple)
        assert ask("live_stop") is None
        model, data, cfg = saved
        assert ask("hybrid_step2", model_input=model, data_input=data, model_quantization_cfg=cfg).tensors
        assert ask("live_start", inputs=bench.sample).quality == state.quality
    finally:
        host.kill()


def test_the_end_of_input_cancels_what_runs(session: Stand) -> None:
    talk = Conversation(session)
    talk.send({"id": 2, "method": "tune_run", "params": {"dataset": "endless"}})
    assert session.searching.get(timeout=10) == 1
    talk.send({"id": 1, "method": "load", "params": {"path": "endless"}})
    assert session.waiting.wait(10)
    talk.close()


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=8),
    tick=st.sampled_from([0.0, 0.01, 0.1, 0.3]),
)
def test_progress_is_thinned_but_never_loses_a_stage_s_first_or_last_report(
    steps: list[tuple[str, int]], tick: float
) -> None:
    now, heard = 0.0, []

    def clock() -> float:
        return now

    progress = ThrottledProgress(lambda *report: heard.append((now, report)), clock)
    expected: list[tuple[str, int, int]] = []
    previous = None
    for stage, total in steps:
        if stage == previous:
            continue
        previous = stage
        for done in range(1, total + 1):
            now += tick
            progress(stage, done, total)
        expected += [(stage, 1, total), (stage, total, total)]
    progress.flush()
    reports = [report for _, report in heard]
    assert set(expected) <= set(reports)
    middle = [at for at, (_, done, total) in heard if 1 < done < total]
    assert all(later - earlier >= 0.25 - 1e-9 for earlier, later in itertools.pairwise(middle))


def test_a_stage_left_before_its_end_still_shows_how_far_it_came() -> None:
    heard: list[tuple[str, int, int]] = []
    progress = ThrottledProgress(lambda *report: heard.append(report), lambda: 0.0)
    for done in (1, 2, 3):
        progress("a", done, 10)
    progress("b", 1, 1)
    assert heard == [("a", 1, 10), ("a", 3, 10), ("b", 1, 1)]


finite = st.floats(allow_nan=False, allow_infinity=False)
pairs = st.builds(ErrorPair, finite, finite)
parts = st.builds(PartError, st.text(), st.integers(), st.integers(), st.integers(), pairs, pairs, st.text())
layer_errors = st.builds(
    LayerError,
    st.text(),
    st.text(),
    st.text(),
    st.none() | pairs,
    st.none() | pairs,
    st.lists(parts, max_size=2).map(tuple),
)
reports = st.builds(
    AccuracyReport,
    st.lists(layer_errors, max_size=3).map(tuple),
    st.dictionaries(st.text(), pairs, max_size=2),
    st.integers(),
    finite,
    st.text(),
    st.lists(st.text(), max_size=2).map(tuple),
)


@given(reports)
def test_a_report_crosses_the_border_unchanged(report: AccuracyReport) -> None:
    line = encode({"value": to_plain(report)})
    assert line.count(b"\n") == 1
    assert rebuild(AccuracyReport, decode(line)["value"]) == report


@pytest.mark.parametrize("scale", [None, 0.5])
def test_what_is_not_there_stays_so_where_it_may_be(scale: float | None) -> None:
    facts = TensorFacts("a", "", (1,), math.nan, 1.0, math.nan, 1.0, scale, None, counts=(1, 2))
    found = rebuild(LayerFacts, to_plain(LayerFacts("a", (), (facts,), (Alternative("", 0.0),))))
    assert found.makes[0].scale == scale and found.makes[0].zero_point is None
    assert math.isnan(found.makes[0].low) and found.makes[0].counts == (1, 2)
    assert found.alternatives == (Alternative("", 0.0),)


def test_a_list_of_summaries_comes_back_as_a_tuple_of_them() -> None:
    findings = (Finding("a", "b", "c", "d", {"e": "int16"}), Finding("a", "b", "c", "d"))
    assert rebuild(METHODS["findings"], to_plain(findings)) == findings
    with pytest.raises(ValueError):
        rebuild(METHODS["findings"], [{"rule": 1}])


def test_numbers_that_json_lacks_come_back_as_nan() -> None:
    pair = rebuild(ErrorPair, to_plain(ErrorPair(math.nan, math.inf)))
    assert math.isnan(pair.cosine)
    assert math.isnan(pair.euclidean)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values | st.fixed_dictionaries({"layers": json_values, "outputs": json_values, "samples": json_values}))
def test_values_of_another_shape_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        rebuild(AccuracyReport, value)


@given(st.sampled_from(["ModelError", "ConfigError", "FileError", "InternalError", "NoSuch", "nearest", ""]), st.text())
def test_errors_cross_the_border_by_name_and_nothing_else_is_ever_called(kind: str, what: str) -> None:
    error = error_from({"kind": kind, "what": what, "where": "w", "hint": "h"})
    assert isinstance(error, EngineError)
    assert (error.what, error.where, error.hint) == (what, "w", "h")
    assert type(error).__name__ == (
        kind if kind in ("ModelError", "ConfigError", "FileError", "InternalError") else "EngineError"
    )


def test_a_cancelled_job_comes_back_as_cancelled() -> None:
    error = error_from(error_event(1, Cancelled("calibrate")))
    assert isinstance(error, Cancelled)
    assert error.where == "calibrate"


# A real process

SCRIPT = """
import os, signal, sys, time
sys.path.append(sys.argv[1])
from engine.config import Config
from engine.host import run
from engine.summaries import BuildSummary, ModelSummary

class Session:
    def __init__(self):
        self.config = Config()
    def load(self, path, *, progress):
        print("print to sys.stdout")
        os.write(1, b"write to descriptor 1\\n")
        os.system("echo a child process prints")
        assert sys.stdin.read() == ""
        return ModelSummary(path, "onnx", 17, (), (), (), 0, "rk3566")
    def build(self, *, dataset=None, progress):
        if dataset == "exit":
            print("line one", file=sys.stderr)
            print("cannot go on", file=sys.stderr, flush=True)
            os._exit(3)
        if dataset == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if dataset == "asleep":
            progress.step("asleep", 1, 2)
            time.sleep(60)
        for step in range(1000000):
            progress.step("count", step, 1000000)
            time.sleep(0.002)
        return BuildSummary("int8", 0, 0, 1, {})
run(Session)
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[EngineHost]:
    script = tmp_path / "session.py"
    script.write_text(SCRIPT)
    host = EngineHost([sys.executable, str(script), str(ROOT)], log_path=tmp_path / "engine.log")
    host.start()
    yield host
    host.kill()


def hearer() -> tuple[Callable[[str, int, int], None], queue.Queue[str]]:
    stages: queue.Queue[str] = queue.Queue()
    return (lambda stage, done, total: stages.put(stage)), stages


def test_what_libraries_print_reaches_the_log_and_never_the_stream(host: EngineHost, tmp_path: Path) -> None:
    value = host.request("load", {"path": "modèle\udcff.onnx"}).result(20)
    assert value == ModelSummary("modèle\udcff.onnx", "onnx", 17, (), (), (), 0, "rk3566")
    log = (tmp_path / "engine.log").read_text()
    for text in ("print to sys.stdout", "write to descriptor 1", "a child process prints"):
        assert text in log


def test_a_real_job_is_cancelled_and_the_process_stays_usable(host: EngineHost) -> None:
    progress, stages = hearer()
    request = host.request("build", {}, progress)
    assert stages.get(timeout=20) == "count"
    assert not request.cancel()
    host.cancel(request.number)
    with pytest.raises(Cancelled):
        request.result(20)
    assert host.request("load", {"path": "a"}).result(20).path == "a"


@pytest.mark.parametrize(
    ("way", "ending"),
    [
        ("exit", "exit code 3"),
        pytest.param("killed", "SIGKILL", marks=pytest.mark.skipif(os.name == "nt", reason="POSIX")),
    ],
)
def test_death_names_the_cause_with_the_last_words_and_a_restart_works(host: EngineHost, way: str, ending: str) -> None:
    deaths: queue.Queue[EngineDiedError] = queue.Queue()
    host.on_death = deaths.put
    running, waiting = host.request("build", {"dataset": way}), host.request("load", {"path": "a"})
    for request in (running, waiting):
        with pytest.raises(EngineDiedError, match=ending) as caught:
            request.result(20)
    if way == "exit":
        assert caught.value.hint == "line one\ncannot go on"
    assert deaths.get(timeout=20) is caught.value
    assert not host.alive
    with pytest.raises(EngineDiedError):
        host.request("summary", {}).result(20)
    host.restart()
    assert host.request("load", {"path": "again"}).result(20).path == "again"
    assert deaths.empty()


def test_kill_ends_work_that_does_not_listen_and_is_no_death(host: EngineHost) -> None:
    deaths: queue.Queue[EngineDiedError] = queue.Queue()
    host.on_death = deaths.put
    progress, stages = hearer()
    request = host.request("build", {"dataset": "asleep"}, progress)
    stages.get(timeout=20)
    host.kill()
    with pytest.raises(Cancelled):
        request.result(20)
    assert deaths.empty()


def test_a_command_that_cannot_start_is_said_so() -> None:
    host = EngineHost(["/no/such/program"])
    with pytest.raises(EngineDiedError, match="cannot be started"):
        host.start()
    with pytest.raises(EngineDiedError):
        host.request("summary", {}).result(1)


def test_the_process_ends_when_its_parent_s_end_of_the_pipe_closes() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "ready"}
    out, _ = process.communicate(timeout=20)
    assert out == b""
    assert process.returncode == 0


def test_an_interrupt_of_the_terminal_does_not_reach_the_engine(host: EngineHost) -> None:
    assert host.pid is not None
    assert os.getsid(host.pid) != os.getsid(0)


def test_a_module_in_the_current_folder_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os; os._exit(66)")
    (tmp_path / "engine.py").write_text("import os; os._exit(66)")
    code = (
        f"from engine.host_client import EngineHost; import os; os.chdir({str(tmp_path)!r})\n"
        "host = EngineHost(); host.start(); error = host.request('summary', {}).exception(60)\n"
        "print(type(error).__name__); host.kill()"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert out.stdout.strip() != "EngineDiedError", out.stderr
    assert out.returncode == 0, out.stderr


def test_the_client_loads_no_heavy_module() -> None:
    heavy = "{'numpy', 'onnx', 'onnxruntime', 'onnx_ir'}"
    code = f"import sys, engine.host_client; print(sorted({heavy} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
