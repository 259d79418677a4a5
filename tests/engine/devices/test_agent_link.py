"""The client and a real agent on this machine, with a model in it that does as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.devices import link as link_module
from engine.devices import starting
from engine.devices.link import AgentLink, BoardInput, BoardModel, ModelOptions, open_link
from engine.errors import Cancelled, DeviceError, DeviceLostError, DeviceTimeoutError, FileError
from engine.progress import Progress
from tests.doubles.toy_agent import ToyBoard, killed, load, make_board, soon, there, toy

ONE = BoardInput(np.arange(4, dtype=np.float32).reshape(1, 4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentLink]:
    """An agent that serves many tests: none of them may do it harm."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        yield make_board(tmp_path_factory.mktemp("board"), patch, stack).link()


@pytest.fixture
def link(shared: AgentLink, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentLink]:
    with contextlib.ExitStack() as stack:
        load_on = shared.load
        monkeypatch.setattr(shared, "load", lambda *given, **named: stack.enter_context(load_on(*given, **named)))
        yield shared


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyBoard]:
    with contextlib.ExitStack() as stack:
        yield make_board(tmp_path, monkeypatch, stack)


def failing(model: BoardModel) -> None:
    """Run a model that will not come back."""
    with contextlib.suppress(DeviceError):
        model.run([ONE], seconds=30)


def test_a_model_runs_and_tells_of_itself(link: AgentLink) -> None:
    assert link.hello.python and not link.hello.library
    with load(link, perf=True) as model:
        assert [(one.name, one.dims, one.dtype) for one in model.inputs] == [("x", (1, 4), "float32")]
        assert model.api == "toy 1"
        for dtype in ("float32", "uint8", "int64"):
            given = np.arange(24).reshape(1, 2, 3, 4).astype(dtype)
            (found,) = model.run([BoardInput(given.transpose(0, 2, 3, 1), "nhwc")])
            assert found.dtype == given.dtype
            np.testing.assert_array_equal(found, given.transpose(0, 2, 3, 1))
        assert model.run_us > 0
        assert model.layer_table() == "ID OpType\n1 Conv\n"
        sizes = model.memory()
        assert (sizes.weight, sizes.internal, sizes.dma) == (300, 200, None)
    assert not there(model.pid)
    with pytest.raises(DeviceError, match="not open any more"):
        model.run([ONE])


def test_a_measurement_counts_its_runs_and_tells_how_far_it_is(link: AgentLink) -> None:
    model = load(link)
    told: list[tuple[str, int, int]] = []
    progress = Progress(lambda *step: told.append(step))
    times = model.measure([ONE], runs=25, warmup=3, seconds=10, progress=progress)
    assert len(times.call_us) == 25 and times.run_us == (50.0,) * 25
    # The warm-up comes once, before the first run.
    assert times.call_us[0] == 103.0 and set(times.call_us[1:]) == {100.0}
    assert told[0] == ("run", 1, 25) and told[-1] == ("run", 25, 25)
    silent = load(link, run_us=[])
    assert silent.measure([ONE], runs=2, warmup=0, seconds=10).run_us == ()


def test_a_cancelled_measurement_leaves_the_model_usable(link: AgentLink) -> None:
    model = load(link, run=[["sleep", 0.002]])
    with pytest.raises(Cancelled):
        model.measure([ONE], runs=5000, warmup=0, seconds=60, progress=Progress(None, lambda: True))
    np.testing.assert_array_equal(model.run([ONE])[0], ONE.array)


def test_a_model_is_sent_once(link: AgentLink, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(toy(size=3_500_000))
    sent: list[tuple[str, int, int]] = []
    progress = Progress(lambda *step: sent.append(step))
    first = link.load(path, "onnx", ModelOptions(), progress=progress)
    assert [done for _, done, _ in sent] == sorted(done for _, done, _ in sent) and len(sent) > 2
    assert sent[-1] == ("send", 3_500_000, 3_500_000)
    sent.clear()
    second = link.load(path.read_bytes(), "onnx", ModelOptions(), progress=progress)
    assert sent == [("send", 0, 3_500_000), ("send", 3_500_000, 3_500_000)]
    assert first.pid != second.pid and there(first.pid) and there(second.pid)


def test_a_cancelled_upload_leaves_the_link_usable(link: AgentLink) -> None:
    steps: list[int] = []
    progress = Progress(lambda stage, done, total: steps.append(done), lambda: len(steps) > 2)
    content = toy(size=12 << 20)
    with pytest.raises(Cancelled):
        link.load(content, "onnx", ModelOptions(), progress=progress)
    assert steps[-1] < len(content)
    assert link.load(content, "onnx", ModelOptions()).run([ONE])


def test_a_model_that_cannot_be_read_is_named(link: AgentLink, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for path, why in ((tmp_path / "none", "cannot be read"), (tmp_path / "empty", "is empty")):
        with pytest.raises(FileError, match=why) as error:
            link.load(path, "onnx", ModelOptions())
        assert error.value.where == str(path)
    with pytest.raises(FileError, match="is empty"):
        link.load(b"", "onnx", ModelOptions())


def test_what_the_runtime_refuses_is_told_with_what_it_printed(link: AgentLink) -> None:
    with pytest.raises(DeviceError) as error:
        load(
            link, open=[["print", "E RKNN: \x1b[31mbad model\n"], ["fault", "the model is of no use", "compile it", -6]]
        )
    assert type(error.value) is DeviceError
    assert error.value.where == "local" and error.value.hint == "compile it"
    assert error.value.what.startswith("the model is of no use; the runtime printed: E RKNN:")
    assert "\x1b" not in str(error.value)
    # A refused request does not end the model.
    model = load(link, run=[["fault", "not now", "", -2]])
    for _ in range(2):
        with pytest.raises(DeviceError, match="not now"):
            model.run([ONE])
    with pytest.raises(DeviceError, match="there is no table"):
        model.layer_table()


def test_only_the_end_of_endless_printing_is_kept(link: AgentLink) -> None:
    model = load(link, run=[["print", "x" * 300_000 + "the last words"], ["exit", 3]])
    with pytest.raises(DeviceError, match="exit code 3") as error:
        model.run([ONE])
    assert error.value.what.endswith("the last words") and len(error.value.what) < 4000


def test_a_hung_call_ends_in_time_and_takes_no_other_model_with_it(link: AgentLink) -> None:
    other = load(link)
    model = load(link, run=[["sleep", 600]])
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match=r"did not come back within 0\.3 s"):
        model.run([ONE], seconds=0.3)
    assert time.monotonic() - start < 4
    assert not there(model.pid)
    np.testing.assert_array_equal(other.run([ONE])[0], ONE.array)
    with pytest.raises(DeviceTimeoutError):
        link.load(toy(open=[["sleep", 600]]), "onnx", ModelOptions(), seconds=0.3)
    assert other.run([ONE])


@pytest.mark.parametrize(("step", "told"), [(["signal", 11], "SIGSEGV"), (["exit", 7], "exit code 7")])
def test_a_crash_is_told_and_takes_no_other_model_with_it(link: AgentLink, step: list[Any], told: str) -> None:
    other = load(link)
    model = load(link, run=[["print", "last words"], step])
    with pytest.raises(DeviceError, match=f"{told}; the runtime printed: last words"):
        model.run([ONE])
    assert other.run([ONE])


def test_a_model_whose_process_is_killed_while_it_idles_is_told_of(link: AgentLink) -> None:
    model = load(link)
    killed(model.pid)
    with pytest.raises(DeviceError, match="SIGKILL") as error:
        model.run([ONE])
    assert "memory" in error.value.hint
    assert load(link).run([ONE])


def test_an_agent_that_is_killed_during_a_run_is_an_error_at_once_and_leaves_no_process(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport)
    model = load(link, run=[["sleep", 600]])
    threading.Timer(0.1, os.kill, (transport.pids[0], signal.SIGKILL)).start()
    start = time.monotonic()
    with pytest.raises(DeviceLostError) as error:
        model.run([ONE], seconds=30)
    assert time.monotonic() - start < 5 and error.value.where == "local" and error.value.hint
    assert soon(lambda: not there(model.pid))
    with pytest.raises(DeviceLostError):
        model.run([ONE])
    with pytest.raises(DeviceLostError):
        load(link)
    link.close()
    # Connecting anew works, and clears away what the killed one has left.
    assert load(board.link()).run([ONE])
    assert len(board.agents()) == 1


@pytest.mark.slow
def test_an_agent_that_hangs_is_an_error_in_time(board: ToyBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "GRACE_SECONDS", 0.2)
    transport = board.transport()
    link = board.link(transport)
    model = load(link)
    os.kill(transport.pids[0], signal.SIGSTOP)
    try:
        with pytest.raises(DeviceTimeoutError, match=r"did not answer within 0\.4 s"):
            model.run([ONE], seconds=0.2)
        start = time.monotonic()
        link.close()
        assert time.monotonic() - start < 2.5
    finally:
        os.kill(transport.pids[0], signal.SIGCONT)
    assert soon(lambda: not there(model.pid))


@pytest.mark.slow
def test_models_end_with_a_client_that_goes_in_the_middle_of_a_run(board: ToyBoard) -> None:
    transport = board.transport()
    link = board.link(transport, idle=30)
    idle, busy = load(link), load(link, run=[["sleep", 600]])
    running = threading.Thread(target=failing, args=(busy,))
    running.start()
    time.sleep(0.1)
    # As when a cable is pulled: the stream ends without a word.
    transport.close()
    assert soon(lambda: not there(idle.pid) and not there(busy.pid))
    assert there(transport.pids[0])
    running.join(1)
    os.kill(transport.pids[0], signal.SIGTERM)
    assert soon(lambda: not there(transport.pids[0]))


def test_two_clients_are_both_served_and_take_turns_on_the_npu(board: ToyBoard, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    step = [["log", str(log)], ["sleep", 0.01]]
    models = [load(board.link(), "rknn", run=step) for _ in range(2)]
    threads = [threading.Thread(target=lambda m=model: [m.run([ONE]) for _ in range(4)]) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    assert len(spans) == 8 and len(board.agents()) == 2
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.slow
def test_who_waits_too_long_for_the_npu_is_told_why(board: ToyBoard) -> None:
    slow = load(board.link(), "rknn", run=[["sleep", 0.8]])
    quick = load(board.link(), "rknn")
    holding = threading.Thread(target=slow.run, args=([ONE],))
    holding.start()
    time.sleep(0.1)
    with pytest.raises(DeviceError, match="another program uses the board's NPU") as error:
        quick.run([ONE], seconds=0.3)
    assert type(error.value) is DeviceError and error.value.hint
    holding.join()
    # The process is still there: the next time goes well.
    assert quick.run([ONE])


@pytest.mark.slow
def test_a_killed_holder_of_the_npu_holds_it_no_longer(board: ToyBoard) -> None:
    slow = load(board.link(), "rknn", run=[["sleep", 600]])
    quick = load(board.link(), "rknn")
    threading.Timer(0.3, os.kill, (slow.pid, signal.SIGKILL)).start()
    holding = threading.Thread(target=failing, args=(slow,))
    holding.start()
    time.sleep(0.1)
    assert quick.run([ONE], seconds=5)
    holding.join()


def test_dumped_tensors_come_over_and_their_absence_is_told(link: AgentLink, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = load(link, dump=True)
    with pytest.raises(DeviceError, match="this runtime gives out no tensors"):
        silent.dump([ONE], seconds=5)
    seen: dict[str, bytes] = {}
    dumps = pytest.importorskip("engine.devices.dumps")
    monkeypatch.setattr(dumps, "read_dumps", lambda files: seen.update(files) or {})
    model = load(
        link, dump=True, run=[["dump", "001_Conv_a.npy", "abc"], ["dump", "002_b.npy", ""], ["dump", "log", "x"]]
    )
    model.dump([ONE], seconds=5)
    assert seen == {"001_Conv_a.npy": b"abc", "002_b.npy": b""}
    with pytest.raises(DeviceError, match="not loaded for dumps"):
        load(link).dump([ONE], seconds=5)


def test_no_model_is_loaded_that_the_boards_memory_does_not_hold(
    board: ToyBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 500000 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(starting, "MEMORY", str(meminfo))
    link = board.link()
    with pytest.raises(DeviceError, match="8192000 bytes are free on the board") as error:
        link.load(toy(size=5_000_000), "onnx", ModelOptions())
    assert error.value.hint
    model = link.load(toy(size=4_000_000), "onnx", ModelOptions())
    assert model.run([ONE])
    with pytest.raises(DeviceError, match="5000000 bytes of data are too many: 8192000 bytes are free on the board"):
        model.run([BoardInput(np.zeros(5_000_000, np.uint8))])
    # The connection is of no use any more, and the agent ends all the same when it is let go.
    link.close()
    assert soon(lambda: not board.agents())


@pytest.mark.parametrize(
    ("about", "wrong"),
    [({"inputs": 5, "outputs": [7]}, ()), ({"inputs": [{"name": ["x"], "dims": [-1, "a"], "scale": "z"}]}, (0, 0))],
)
def test_an_answer_of_no_sense_does_no_harm(link: AgentLink, about: dict[str, Any], wrong: tuple[int, ...]) -> None:
    model = load(link, about=about)
    assert [one.dims for one in model.inputs] == ([wrong] if wrong else [])
    assert model.run([ONE])


def test_a_board_without_python_is_told_of(board: ToyBoard) -> None:
    with pytest.raises(DeviceError, match=r"no Python 3\.7") as error:
        open_link(board.transport(), dataclasses.replace(board.facts, interpreter=""))
    assert error.value.hint
    with pytest.raises(DeviceError, match="did not start") as error:
        open_link(board.transport(), dataclasses.replace(board.facts, interpreter="/none/python3"))
    assert "/none/python3 --version" in error.value.hint
    with pytest.raises(DeviceError, match="no folder can be made in /none"):
        open_link(board.transport(), dataclasses.replace(board.facts, folder="/none"))
    assert not board.agents()
