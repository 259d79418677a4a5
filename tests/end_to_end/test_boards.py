"""The whole way to a board without one: adb's own server or ssh, boards that are played, the real agent, and a runtime
library of our own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cli
from engine.api import RKNN
from engine.errors import DeviceError
from engine.files import vendor
from engine.session import Session
from tests.doubles import librknnrt
from tests.doubles.adb_device import wait_for
from tests.doubles.boards_fixtures import ConnectedBoard
from tests.doubles.fake_board import FakeBoard
from tests.doubles.ssh_board import SshBoard
from tests.end_to_end.compiled_demo import CUSTOM, LIBRARY, MEMORY, CompiledDemo, compiled_demo, with_runtime

Boards = Callable[..., ConnectedBoard]

pytestmark = pytest.mark.xdist_group("boards")


@pytest.fixture
def boards(make_board: Boards) -> Boards:
    """Makes connected boards that have the runtime."""

    def make(chip: str = "rk3588", version: tuple[int, int] = (2, 0), **more: Any) -> ConnectedBoard:
        return with_runtime(make_board(chip, **more), version)

    return make


def left_on(board: FakeBoard) -> list[str]:
    return [entry.name for entry in board.path("/tmp").iterdir() if entry.name.startswith("rknn-tui-")]


def opened(demo: CompiledDemo, device: str, **options: Any) -> RKNN:
    rknn = RKNN()
    assert rknn.load_rknn(str(demo.package)) == 0
    assert rknn.init_runtime(target=demo.target, device_id=device, **options) == 0
    return rknn


def test_the_toolkits_calls_go_the_whole_way(
    demo: CompiledDemo, boards: Boards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = boards()
    rknn = opened(demo, found.id, perf_debug=True, eval_mem=True, core_mask=RKNN.NPU_CORE_0_1)
    try:
        assert rknn.list_devices() == ([found.id], [])
        assert f"all device(s) with adb mode:\n{found.id}\n" in capsys.readouterr().out
        for image, expected in zip(demo.images, demo.outputs, strict=True):
            (output,) = rknn.inference(inputs=[image]) or [np.empty(0)]
            np.testing.assert_allclose(output, expected, atol=1e-6)
        text = rknn.eval_perf() or ""
        for name, microseconds in demo.layers.items():
            assert any(name in line and f"{microseconds}" in line for line in text.splitlines()), text
        assert rknn.eval_memory() == {
            "total_weight_allocation": MEMORY[0],
            "total_internal_allocation": MEMORY[1],
            "total_model_allocation": MEMORY[0] + MEMORY[1],
        }
        assert librknnrt.VERSIONS[2, 0] in (rknn.get_sdk_version() or "")
        folder = tmp_path / "snapshot"
        analysed = rknn.accuracy_analysis([str(demo.photos[0])], str(folder), target=demo.target, device_id=found.id)
        assert analysed == 0, capsys.readouterr().err
    finally:
        rknn.release()
    names = {path.name for path in (folder / "simulator/npy").iterdir()}
    given = {path.name for path in (folder / "runtime/npy").iterdir()}
    assert len(given) > len(names) // 2 and given <= names
    for name in given:
        np.testing.assert_allclose(np.load(folder / "runtime/npy" / name), np.load(folder / "simulator/npy" / name))
    assert "runtime_error" in (folder / "error_analysis.txt").read_text()
    assert wait_for(lambda: not found.board.processes() and not left_on(found.board))


def test_the_same_over_ssh(
    demo: CompiledDemo, adb_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeBoard(tmp_path / "board") as board, SshBoard(board, tmp_path / "ssh") as found:
        monkeypatch.setenv("RKNN_TUI_SSH_CONFIG", str(found.config))
        board.write(LIBRARY, librknnrt.library().read_bytes())
        rknn = opened(demo, found.id, perf_debug=True, core_mask=RKNN.NPU_CORE_0_1_2)
        try:
            for image, expected in zip(demo.images, demo.outputs, strict=True):
                (output,) = rknn.inference(inputs=[image]) or [np.empty(0)]
                np.testing.assert_allclose(output, expected, atol=1e-6)
            text = rknn.eval_perf() or ""
            assert all(name in text for name in demo.layers)
            assert (rknn.eval_memory() or {})["total_weight_allocation"] == MEMORY[0]
            assert librknnrt.VERSIONS[2, 0] in (rknn.get_sdk_version() or "")
            folder = tmp_path / "snapshot"
            assert rknn.accuracy_analysis([str(demo.photos[0])], str(folder), "rk3588", found.id) == 0
            assert any((folder / "runtime/npy").iterdir())
        finally:
            rknn.release()
        assert wait_for(lambda: not board.processes() and not left_on(board))


def test_the_command_line_says_what_is_measured_and_what_estimated(
    demo: CompiledDemo, boards: Boards, capsys: pytest.CaptureFixture[str]
) -> None:
    found = boards()

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert cli.main([*words, "-q"]) == code, capsys.readouterr()
        return capsys.readouterr().out

    (board,) = json.loads(run("devices", "--json"))["boards"]
    assert (board["id"], board["state"], board["facts"]["chip"]) == (found.id, "device", "rk3588")
    assert board["facts"]["runtime"] == "2.3.2" and board["facts"]["problems"] == []
    assert found.id in run("devices") and "Debian" in run("devices", "--facts")

    told = json.loads(run("perf", str(demo.package), "--device", "--runs", "20", "--layers", "--json"))
    measured = told["measured"]
    assert measured["where"]["place"] == "npu" and measured["runs"] == 20
    assert measured["fastest_us"] <= measured["median_us"] <= measured["p95_us"] <= measured["slowest_us"]
    assert {row["layer"]: row["time_us"] for row in measured["layers"]} == demo.layers
    assert told["totals"]["latency_us"] > 0

    told = json.loads(run("memory", str(demo.binary), "--device", found.id, "--json"))
    assert told["measured"]["weight_bytes"] == MEMORY[0]
    (output,) = json.loads(run("infer", str(demo.binary), str(demo.photos[1]), "--device", "--json"))["outputs"]
    assert output["top"][0]["index"] == int(demo.outputs[1].argmax())
    told = json.loads(
        run(
            "analyze",
            str(demo.package),
            "--sample",
            str(demo.photos[2]),
            "--device",
            "--json",
            "--output-dir",
            str(demo.package.parent / "snapshot"),
        )
    )
    pairs = [layer["board_simulator"] for layer in told["report"]["layers"] if layer["board_simulator"]]
    assert len(pairs) > 3 and all(pair["cosine"] > 0.99999 for pair in pairs)


def test_a_package_without_a_binary_runs_on_the_boards_processor_and_says_so(
    demo: CompiledDemo, boards: Boards, tmp_path: Path
) -> None:
    found = boards()
    session = Session()
    session.load_rknn(demo.package)
    session.edit(**_float16_somewhere(session))
    with session.on_board(found.id) as board:
        assert board.where.place == "cpu" and "onnxruntime" in board.where.runtime
        for image in demo.images:
            (here,), (there,) = session.infer([image]), board.infer([image])
            np.testing.assert_array_equal(here, there)


def _float16_somewhere(session: Session) -> dict[str, Any]:
    """An edit, after which the binary of the package is no longer that of the model."""
    from engine import Edits

    return {"edits": Edits(wishes={session.summary().layers[3].name: "float16"})}


def test_two_boards_at_once_each_by_its_id(demo: CompiledDemo, boards: Boards, tmp_path: Path) -> None:
    other = compiled_demo(tmp_path / "other", "rk3566")
    found = [(boards("rk3588"), demo), (boards("rk3566"), other)]
    session = Session()
    session.load_rknn(demo.package)
    with pytest.raises(DeviceError, match="several boards"):
        session.on_board()
    faults: list[BaseException] = []

    def work(connected: ConnectedBoard, model: CompiledDemo) -> None:
        try:
            mine = Session()
            mine.load_rknn(model.package)
            with mine.on_board(connected.id) as board:
                assert board.where.chip == model.target
                for _ in range(5):
                    for image, expected in zip(model.images, model.outputs, strict=True):
                        np.testing.assert_allclose(board.infer([image])[0], expected, atol=1e-6)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults
    with pytest.raises(DeviceError, match="rk3566"):
        session.on_board(found[1][0].id)


@pytest.mark.parametrize("version", sorted(librknnrt.VERSIONS))
@pytest.mark.slow
def test_every_version_of_the_runtime(demo: CompiledDemo, boards: Boards, version: tuple[int, int]) -> None:
    found = boards(version=version)
    session = Session()
    session.load_rknn(demo.package)
    with session.on_board(found.id) as board:
        np.testing.assert_allclose(board.infer([demo.images[0]])[0], demo.outputs[0], atol=1e-6)
        assert board.memory().weight_bytes == MEMORY[0]
        assert librknnrt.VERSIONS[version] in board.versions().text


def test_results_of_async_mode_are_one_frame_late(demo: CompiledDemo, boards: Boards) -> None:
    found = boards()
    rknn = opened(demo, found.id, async_mode=True)
    try:
        results = [(rknn.inference(inputs=[image]) or [np.empty(0)])[0] for image in demo.images]
    finally:
        rknn.release()
    for result, expected in zip(results[1:], demo.outputs, strict=False):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_the_vendors_file_runs_as_it_is(demo: CompiledDemo, boards: Boards, capsys: pytest.CaptureFixture[str]) -> None:
    found = boards()
    rknn = RKNN()
    try:
        assert rknn.load_rknn(str(demo.binary)) == 0
        assert rknn.init_runtime() == -1
        assert "board" in capsys.readouterr().err
        assert rknn.init_runtime(target="rk3588", device_id=found.id) == 0
        (output,) = rknn.inference(inputs=[demo.images[3]]) or [np.empty(0)]
        np.testing.assert_allclose(output, demo.outputs[3], atol=1e-6)
        assert rknn.inference(inputs=[demo.images[3][:, :8]]) is None
        assert vendor.read(demo.binary).custom_string == CUSTOM
    finally:
        rknn.release()
