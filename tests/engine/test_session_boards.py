"""A session's model on boards: what runs where, what it is given, and what is left when a board goes away."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.boards import BoardFacts, MeasuredLayer
from engine.core_masks import NPU_CORE_0, NPU_CORE_0_1, NPU_CORE_ALL, NPU_CORE_AUTO, board_mask
from engine.devices.choosing import Runnable, choose
from engine.errors import Cancelled, ConfigError, DeviceError, DeviceLostError, FileError, InputError, OrderError
from engine.files.compiled import compiled
from engine.host import dispatch
from engine.host_protocol import decode, encode, value_from
from engine.progress import Progress
from engine.session import Session
from engine.summaries import to_plain
from tests.engine.live_bench import Bench, bench_in, counting
from tests.engine.scripted_boards import CPU, NPU, ScriptedBoard, binary_of, connect
from tests.small_networks import random


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedBoard]:
    """The only board; whatever happens, nothing is open on it at the end."""
    found = ScriptedBoard()
    connect(monkeypatch, found)
    yield found
    assert found.open == 0


def with_binary(session: Session, target: str = "rk3588") -> Session:
    """The session with its model compiled, as it were."""
    built = session._require_built("")
    binary = compiled(binary_of(built.quantized), target, "a compiler")
    session._built = dataclasses.replace(built, stored=built.stored.with_compiled(binary))
    return session


def inputs(seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Two arrays as a caller gives them, NHWC."""
    return [random(1, 3, 8, 8, seed=seed).transpose(0, 2, 3, 1), random(1, 4, 4, 4, seed=seed)]


# What runs where

BINARY = {"rk3588": lambda: b"npu"}
OURS = Runnable("the model", "rk3588", BINARY, lambda: b"graph")
UNCOMPILED = dataclasses.replace(OURS, binaries={})
BOTH = dataclasses.replace(NPU, onnxruntime="1.22")


@pytest.mark.parametrize(
    ("model", "facts", "place", "note"),
    [
        (OURS, NPU, "npu", ""),
        (OURS, BOTH, "npu", ""),
        (OURS, CPU, "cpu", "no librknnrt.so"),
        (UNCOMPILED, BOTH, "cpu", "no binary for rk3588"),
        (OURS, dataclasses.replace(NPU, chip=""), "npu", "does not tell its chip"),
        (Runnable("secret.rknn", "", {"": lambda: b"npu"}), NPU, "npu", ""),
    ],
)
def test_the_npu_runs_a_binary_and_the_processor_our_graph(
    model: Runnable, facts: BoardFacts, place: str, note: str
) -> None:
    choice = choose(model, facts, "board")
    assert (choice.place, choice.content()) == (place, b"npu" if place == "npu" else b"graph")
    assert note in " ".join(choice.notes)


@pytest.mark.parametrize(
    ("model", "facts", "target", "words"),
    [
        (UNCOMPILED, NPU, None, ["no binary for rk3588", "rknn-tui compile", "no onnxruntime", "pip install"]),
        (OURS, dataclasses.replace(NPU, library=""), None, ["no librknnrt.so", "pip install onnxruntime"]),
        (OURS, dataclasses.replace(NPU, interpreter="", problems=("too small",)), None, ["Python 3.7", "too small"]),
        (OURS, dataclasses.replace(BOTH, chip="rk3566"), None, ["rk3588", "not for the board's rk3566"]),
        (OURS, NPU, "rk3566", ["a chip rk3588, not rk3566"]),
        (Runnable("m.rknn", "rk3588", BINARY), CPU, None, ["no librknnrt.so", "vendor's runtime"]),
        (
            Runnable("m.rknn", "rk3566", {"rk3566": lambda: b""}),
            dataclasses.replace(NPU, chip="rk3568"),
            None,
            ["for rk3566", "rk3568", "nothing but the name"],
        ),
    ],
)
def test_what_cannot_run_is_refused_with_what_is_missing(
    model: Runnable, facts: BoardFacts, target: str | None, words: list[str]
) -> None:
    with pytest.raises(DeviceError) as refused:
        choose(model, facts, "the board", target)
    assert refused.value.where == "the board"
    assert [word for word in words if word not in str(refused.value)] == []


def test_masks_are_of_cores_that_the_chip_has() -> None:
    assert board_mask(NPU_CORE_ALL, "rk3588") == 7
    assert board_mask(NPU_CORE_ALL, "rk3576") == board_mask(NPU_CORE_0_1, "rk3576") == 3
    assert board_mask(NPU_CORE_AUTO, "rk3566") == 0
    for mask in (NPU_CORE_0, NPU_CORE_0_1, NPU_CORE_ALL):
        with pytest.raises(ConfigError, match="rk3566 has 1 NPU core"):
            board_mask(mask, "rk3566")


# Inference


def test_the_processor_of_a_board_gives_what_the_simulator_gives(bench: Bench, board: ScriptedBoard) -> None:
    board.facts = CPU
    session = bench.fresh()
    with session.on_board() as opened:
        found = opened.infer(inputs())
        assert opened.where.place == "cpu"
    for ours, theirs in zip(session.infer(inputs()), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_npu_is_given_numbers_as_they_are_since_it_scales_them(bench: Bench, board: ScriptedBoard) -> None:
    board.mean, board.std = 3.0, 2.0
    session = with_binary(bench.fresh(mean_values=[[3.0] * 3, [3.0] * 4], std_values=[[2.0] * 3, [2.0] * 4]))
    image = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
    side = inputs()[1].astype(np.float64)
    expected = session.infer([image, side])
    with session.on_board(core_mask=NPU_CORE_ALL) as opened:
        found = opened.infer([image, side])
        as_nchw = opened.infer([image.transpose(0, 3, 1, 2), side.transpose(0, 3, 1, 2)], data_format="nchw")
        assert opened.where.core_mask == 7
    sent = [call[1] for call in board.calls if call[0] == "run"]
    assert sent == [[("uint8", (1, 8, 8, 3), "nhwc"), ("float32", (1, 4, 4, 4), "nhwc")]] * 2
    for ours, theirs, again in zip(expected, found, as_nchw, strict=True):
        assert theirs.shape == ours.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_array_equal(theirs, again)


@pytest.mark.parametrize("facts", [NPU, CPU])
def test_results_come_one_frame_late_in_async_mode_but_for_the_first(
    facts: BoardFacts, bench: Bench, board: ScriptedBoard
) -> None:
    board.facts = facts
    session = with_binary(bench.fresh())
    frames = [inputs(seed) for seed in range(3)]
    expected = [session.infer(frame)[0] for frame in frames]
    with session.on_board(async_mode=True) as opened:
        found = [opened.infer(frame)[0] for frame in frames]
    for one, place in zip(found, (0, 0, 1), strict=True):
        np.testing.assert_allclose(one, expected[place], atol=1e-6)


@pytest.mark.parametrize("facts", [NPU, CPU])
def test_wrong_inputs_are_refused_before_they_are_sent(facts: BoardFacts, bench: Bench, board: ScriptedBoard) -> None:
    board.facts = facts
    with with_binary(bench.fresh()).on_board() as opened:
        for wrong in ([inputs()[0]], [inputs()[0][:, 1:], inputs()[1]], [inputs()[0] * np.nan, inputs()[1]]):
            with pytest.raises(InputError):
                opened.infer(wrong)
        if facts is NPU:
            with pytest.raises(InputError, match="the NPU takes int8"):
                opened.infer(inputs(), inputs_pass_through=[1, 0])
            opened.infer([inputs()[0].astype(np.int8), inputs()[1]], inputs_pass_through=[1, 0])
    assert sum(call[0] == "run" for call in board.calls) == (facts is NPU)


def test_two_boards_run_at_once_each_by_its_id(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    boards = [ScriptedBoard("one", CPU), ScriptedBoard("two", CPU)]
    connect(monkeypatch, *boards)
    session, found = bench.fresh(), {}
    with pytest.raises(DeviceLostError, match="known: one, two"):
        session.on_board()

    def work(name: str, seed: int) -> None:
        with session.on_board(name) as opened:
            found[name] = [opened.infer(inputs(seed))[0] for _ in range(3)]

    threads = [threading.Thread(target=work, args=(name, seed)) for seed, name in enumerate(("one", "two"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for seed, name in enumerate(("one", "two")):
        for array in found[name]:
            np.testing.assert_array_equal(array, session.infer(inputs(seed))[0])
    assert [board.open for board in boards] == [0, 0]


def test_a_vendors_file_runs_without_a_model_in_the_session(
    bench: Bench, board: ScriptedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.session_boards as boards_of_sessions

    file = tmp_path / "vendor.rknn"
    file.write_bytes(binary_of(bench.base))
    with pytest.raises(FileError, match=r"no \.rknn of the vendor"):
        Session().on_board(path=file)
    with pytest.raises(OrderError):
        Session().on_board()
    monkeypatch.setattr(
        boards_of_sessions, "runnable_file", lambda path: Runnable(str(path), "rk3588", {"rk3588": lambda: path})
    )
    with Session().on_board(path=file) as opened:
        assert opened.output_names == [tensor.name for tensor in opened._model.outputs]
        found = opened.infer(inputs())
    for ours, theirs in zip(bench.session.infer(inputs()), found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# Time and memory


def test_times_are_median_and_nearest_rank_of_what_the_runtime_tells(bench: Bench, board: ScriptedBoard) -> None:
    board.times = tuple(float(number) for number in range(20, 0, -1))
    board.layers = (MeasuredLayer("Conv:a", "Conv", "NPU", 7.0),)
    session = with_binary(bench.fresh())
    found = session.board_perf(None, runs=20, warmup=3)
    assert (found.median_us, found.p95_us, found.fastest_us, found.slowest_us) == (10.5, 19.0, 1.0, 20.0)
    assert ("measure", 20, 3) in board.calls and found.layers == () and found.pinned_hz is None
    board.times = ()
    assert session.board_perf(None, pin=True).median_us == 1000.0
    assert ("pin",) in board.calls
    with pytest.raises(ConfigError, match="cannot be 0"):
        session.board_perf(None, runs=0)


def test_layers_are_measured_in_a_run_of_their_own_and_missing_ones_cost_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = ScriptedBoard(layers=(MeasuredLayer("Conv:a", "Conv", "NPU", 7.0), MeasuredLayer("b", "Add", "CPU", 2.5)))
    connect(monkeypatch, board)
    session = with_binary(bench.fresh())
    found = session.board_perf(None, layers=True)
    assert (found.layers_us, len(found.layers), found.text) == (9.5, 2, "the runtime's own table")
    assert [call[2].perf for call in board.calls if call[0] == "load"] == [False, True]
    board.fails["layer_table"] = DeviceError("not on this chip", where="board")
    found = session.board_perf(None, layers=True)
    assert found.layers == () and found.median_us == 20.0
    assert "not on this chip" in found.where.notes[-1]
    assert board.open == 0


def test_memory_is_the_runtimes_and_a_processor_tells_none(bench: Bench, board: ScriptedBoard) -> None:
    session = with_binary(bench.fresh())
    found = session.board_memory(None)
    assert (found.weight_bytes, found.internal_bytes, found.total_bytes, found.dma_bytes) == (300, 200, 500, 4096)
    board.facts = CPU
    with pytest.raises(DeviceError, match="does not tell"):
        session.board_memory(None)


def test_what_a_board_gave_crosses_the_apps_border(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board = ScriptedBoard(layers=(MeasuredLayer("Conv:a", "Conv", "NPU", 7.0),))
    connect(monkeypatch, board)
    session = bench.fresh()
    with_binary(session)
    stages = []
    progress = Progress(lambda stage, done, total: stages.append(stage))
    for method, params in (
        ("board_perf", {"layers": True, "runs": 3}),
        ("board_memory", {}),
        ("board_accuracy", {"inputs": bench.sample, "output_dir": str(tmp_path / "snapshot")}),
    ):
        request = {"method": method, "params": {"device": "board", **params}}
        value = dispatch(session.aside(), request, progress)
        assert value_from(method, decode(encode({"value": to_plain(value)}))["value"]) == value
    assert {"connect", "run", "read", "analyse"} <= set(stages)
    assert board.open == 0


def test_cancelling_lets_go_of_the_board(bench: Bench, board: ScriptedBoard) -> None:
    session = with_binary(bench.fresh())
    for after in range(3):
        with pytest.raises(Cancelled):
            session.board_perf(None, layers=True, progress=counting(after))
        assert board.open == 0


# Accuracy


def test_the_board_stands_beside_the_simulator_layer_by_layer(
    bench: Bench, board: ScriptedBoard, tmp_path: Path
) -> None:
    board.facts = CPU
    session = bench.fresh()
    report = session.board_accuracy(None, bench.sample, tmp_path / "snapshot")
    assert report.board is not None and report.board.place == "cpu"
    compared = [layer for layer in report.layers if layer.board_simulator is not None]
    assert len(compared) > 10
    assert all(layer.board_simulator.euclidean == 0 for layer in compared if layer.board_simulator)
    assert all(layer.board.cosine == pytest.approx(layer.entire.cosine) for layer in compared if layer.entire)
    assert report.board_outputs.keys() == report.outputs.keys()
    files = {path.name for path in (tmp_path / "snapshot" / "runtime" / "npy").iterdir()}
    assert files and files <= {path.name for path in (tmp_path / "snapshot" / "golden" / "npy").iterdir()}
    text = (tmp_path / "snapshot" / "error_analysis.txt").read_text()
    assert "runtime_error" in text and "not on its NPU" in text
    assert not session.analyze(bench.sample, output_dir=tmp_path / "snapshot").board_outputs
    assert not (tmp_path / "snapshot" / "runtime").exists()
    assert "runtime_error" not in (tmp_path / "snapshot" / "error_analysis.txt").read_text()


def test_a_runtime_that_gives_out_no_tensors_is_compared_by_its_outputs(bench: Bench, board: ScriptedBoard) -> None:
    session = with_binary(bench.fresh())
    report = session.board_accuracy(None, bench.sample)
    assert any("only outputs are compared" in warning for warning in report.warnings)
    assert report.board_outputs.keys() == report.outputs.keys()
    outputs = set(report.outputs)
    assert {layer.name for layer in report.layers if layer.board is not None} == outputs
    hidden = next(layer for layer in report.layers if layer.name not in outputs and layer.entire and layer.op == "Conv")
    value = next(v for node in session.model.graph for v in node.outputs if v.name == hidden.name)
    board.dumped = {hidden.name: np.zeros(tuple(value.shape or ()), np.float32), "strange": np.zeros(3)}
    report = session.board_accuracy(None, bench.sample)
    found = next(layer for layer in report.layers if layer.name == hidden.name)
    assert found.board is not None and found.board.cosine == 0.0
    assert not any("only outputs" in warning for warning in report.warnings)


# Failures


@pytest.mark.parametrize("call", ["probe", "open_link", "load", "run", "measure"])
def test_a_board_that_is_lost_at_any_step_leaves_the_session_as_it_was(
    call: str, bench: Bench, board: ScriptedBoard
) -> None:
    session = with_binary(bench.fresh())
    board.lose(call)
    with pytest.raises(DeviceLostError, match="gone"):
        if call == "run":
            session.board_accuracy(None, bench.sample)
        else:
            session.board_perf(None)
    assert board.open == 0
    session.infer(inputs())
    board.fails.clear()
    assert session.board_perf(None).median_us == 20.0


def test_nothing_is_sent_to_a_board_with_another_chip(bench: Bench, board: ScriptedBoard) -> None:
    board.facts = dataclasses.replace(BOTH, chip="rk3566")
    with pytest.raises(DeviceError, match="rk3566"):
        with_binary(bench.fresh()).on_board()
    with pytest.raises(ConfigError, match="unknown target"):
        bench.fresh().on_board(target="rk1")
    assert [call[0] for call in board.calls] == ["probe", "probe"]


def test_edits_that_are_taken_back_leave_what_was_compiled(bench: Bench) -> None:
    session = with_binary(bench.fresh())
    layer = session.summary().layers[0].name
    session.apply({layer: "float16"}, {})
    assert not session._require_built("").stored.compiled
    session.apply({}, {})
    assert [one.target for one in session._require_built("").stored.compiled] == ["rk3588"]
