"""The commands with --device: what they print, their JSON, and what does not go together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from engine import session_boards
from engine.boards import MeasuredLayer
from engine.cli_options import expand_arguments
from engine.cost.schema import estimate_schema
from engine.devices.choosing import Runnable
from engine.files import vendor
from tests.engine.live_bench import Bench, bench_in
from tests.engine.scripted_boards import CPU, ScriptedBoard, binary_of, connect
from tests.engine.test_session_boards import with_binary

Run = Callable[..., str]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_in(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def package(bench: Bench) -> str:
    path = bench.folder / "compiled.rknn"
    with_binary(bench.fresh()).export(path)
    return str(path)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Iterator[ScriptedBoard]:
    name = next(layer.name for layer in bench.base.layers if layer.op.startswith("Conv"))
    row = MeasuredLayer(f"Conv:{name}", "Conv", "NPU", 7.25, layer=name)
    found = ScriptedBoard("515e9b401c060c0b", layers=(row,))
    connect(monkeypatch, found)
    yield found
    assert found.open == 0


def test_measured_times_stand_beside_the_estimate(run: Run, package: str, board: ScriptedBoard) -> None:
    text = run("perf", package, "--device", board.id, "--runs", "3", "--warmup", "1")
    assert "Total Time(us): 20.0 (median of 3 runs after 1)" in text and "p95(us): 30.0" in text
    assert "estimated: " in text and "Conv" not in text
    text = run("perf", package, "--device", "--layers", "--pin")
    assert "Estimated(us)" in text and "7.2" in text and "1000 MHz, pinned" in text


@pytest.mark.parametrize("verb", ["perf", "memory"])
def test_what_was_measured_is_in_the_document_as_the_schema_says(
    verb: str, run: Run, package: str, board: ScriptedBoard
) -> None:
    words = ["--layers"] if verb == "perf" else []
    found = json.loads(run(verb, package, "--device", *words, "--target", "rk3588", "--json"))
    fastjsonschema.validate(estimate_schema(), found)
    measured = found["measured"]
    assert (measured["kind"], measured["where"]["device"]) == ("measurement", board.id)
    assert (measured["median_us"] if verb == "perf" else measured["total_bytes"]) == (20.0 if verb == "perf" else 500)
    measured["median_us"] = -1
    with pytest.raises(fastjsonschema.JsonSchemaException):
        fastjsonschema.validate(estimate_schema(), found)


def test_outputs_of_a_board_are_those_of_the_simulator(
    run: Run, package: str, bench: Bench, board: ScriptedBoard
) -> None:
    board.facts = CPU
    words = ("infer", package, *bench.sample, "--save")
    run(*words, "simulated.npz")
    text = run(*words, "board.npz", "--device", board.id)
    assert "on the processor of rk3588, not on its NPU" in text
    with np.load("simulated.npz") as simulated, np.load("board.npz") as given:
        assert simulated.files == given.files
        for name in simulated.files:
            np.testing.assert_array_equal(simulated[name], given[name])


def test_analysis_shows_the_board_layer_by_layer(run: Run, package: str, bench: Bench, board: ScriptedBoard) -> None:
    board.facts = CPU
    words = ("analyze", package, "--sample", *bench.sample, "--device")
    text = run(*words, "--worst", "3")
    assert "cos to simulator" in text and "1.00000" in text and "on the processor" in text
    report = json.loads(run(*words, "--json"))["report"]
    assert report["board"]["place"] == "cpu" and report["board_outputs"]
    assert Path("snapshot/runtime/npy").is_dir()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["perf", "--runs", "3"], 2, "--runs"),
        (["infer", "x.npy", "--core-mask", "0"], 2, "--device ID names the board"),
        (["perf", "--device", "--csv", "a.csv"], 2, "--csv"),
        (["perf", "--device", "--cores", "2", "--target", "rk3588"], 2, "--core-mask"),
        (["perf", "--device", "--target", "rk3588,rk3566"], 2, "one chip"),
        (["perf", "--device", "--target", "rk3566"], 1, "not rk3566"),
        (["perf", "--device", "another"], 1, "no board 'another'"),
        (["perf", "--device", "--core-mask", "3"], 2, "core-mask"),
        (["perf", "--device", "--runs", "0"], 1, "runs"),
        (["infer", "--device"], 2, "no input files"),
    ],
)
def test_what_does_not_go_together_is_said(
    words: list[str], code: int, said: str, run: Run, package: str, board: ScriptedBoard
) -> None:
    assert said in run(words[0], package, *words[1:], code=code)


@pytest.mark.parametrize("call", ["probe", "load", "measure"])
def test_ctrl_c_and_a_lost_board_leave_nothing_open(call: str, run: Run, package: str, board: ScriptedBoard) -> None:
    board.fails[call] = KeyboardInterrupt()  # type: ignore[assignment]
    run("perf", package, "--device", code=130)
    assert board.open == 0
    board.lose(call)
    assert "gone" in run("perf", package, "--device", code=1)


@pytest.mark.parametrize(
    ("words", "device"),
    [
        (["--device", "515e9b401c060c0b", "m.rknn"], "515e9b401c060c0b"),
        (["--device", "m.rknn"], ""),
        (["m.rknn", "--device"], ""),
        (["m.rknn", "--device", "--json"], ""),
        (["--device", "ssh://user@board.local:22", "m.onnx"], "ssh://user@board.local:22"),
        (["--device", "adb-1._adb-tls-connect._tcp"], "adb-1._adb-tls-connect._tcp"),
    ],
)
def test_a_bare_device_takes_no_model_for_its_id(words: list[str], device: str) -> None:
    assert [word for word in expand_arguments(words) if word.startswith("--device")] == [f"--device={device}"]


def test_a_board_is_named_where_it_is_lost(run: Run, package: str, board: ScriptedBoard) -> None:
    board.lose("open_link")
    error: dict[str, Any] = json.loads(run("perf", package, "--device", "--json", code=1))["error"]
    assert (error["kind"], error["where"], error["hint"]) == ("DeviceLostError", board.id, "plug it in")


def test_a_vendors_file_is_measured_and_run_though_nothing_is_known_to_estimate(
    run: Run, package: str, bench: Bench, board: ScriptedBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vendor.rknn"
    file.write_bytes(binary_of(bench.base))
    monkeypatch.setattr(vendor, "is_vendor_file", lambda path: str(path).endswith("vendor.rknn"))
    monkeypatch.setattr(
        session_boards, "runnable_file", lambda path: Runnable(str(path), "rk3588", {"rk3588": lambda: path})
    )
    found = json.loads(run("perf", str(file), "--device", "--json"))
    assert found.keys() == {"kind", "model", "measured"} and found["measured"]["median_us"] == 20.0
    assert "estimated" not in run("memory", str(file), "--device", board.id)
    run("infer", str(file), *bench.sample, "--device", "--save", "board.npz")
    run("infer", package, *bench.sample, "--save", "simulated.npz")
    with np.load("board.npz") as given, np.load("simulated.npz") as simulated:
        for name in simulated.files:
            np.testing.assert_allclose(given[name], simulated[name], atol=1e-6)
    assert "nobody has" in run("analyze", str(file), "--sample", *bench.sample, "--device", code=2)
