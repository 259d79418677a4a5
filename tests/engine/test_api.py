"""`RKNN` keeps the toolkit's calls, return values and order, and says in one line what went wrong."""

from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engine.api
from engine import demo
from engine.api import NPU_CORE_ALL, NPU_CORE_AUTO, RKNN
from engine.config import Config
from engine.errors import ModelError
from engine.estimates import CostTotals, LayerEstimate, MemoryEstimate, ModelEstimate
from engine.progress import Progress
from engine.session import Session
from engine.summaries import AccuracyReport, BuildSummary, ErrorPair, ModelSummary


class StandIn:
    """A session that remembers what it was asked and answers at once."""

    instances: ClassVar[list[StandIn]] = []

    def __init__(self, config: Config | None = None, *, on_check: Callable[[str, float, float], None] | None = None):
        self.config = config or Config()
        self.on_check = on_check
        self.calls: list[tuple[Any, ...]] = []
        self.released = False
        StandIn.instances.append(self)

    def load_onnx(self, model: str, *cut: Any, progress: Progress) -> ModelSummary:
        self.calls.append(("load_onnx", model, *cut))
        if "missing" in model:
            raise ModelError("does not exist", where=model, hint="check the path")
        if "bug" in model:
            raise KeyError("inside")
        if self.on_check:
            self.on_check("fold_batch_normalization", 0.999999, 0.25)
        progress.step("reading", 1, 1)
        return self._summary("")

    def load_rknn(self, path: str, *, key: object = None) -> ModelSummary:
        self.calls.append(("load_rknn", path))
        return self._summary("int8")

    def build(self, *, do_quantization: bool, dataset: str | None, rknn_batch_size: int, progress: Progress) -> Any:
        self.calls.append(("build", do_quantization, dataset, rknn_batch_size))
        progress.step("calibrating", 0, 2)
        progress.step("calibrating", 2, 2)
        precision, recipe = ("int8", "minmax") if do_quantization else ("float16", "")
        return BuildSummary(precision, 2, 5, rknn_batch_size, {"calibrating": 0.1}, recipe=recipe)

    def infer(self, inputs: Any, *, data_format: Any, inputs_pass_through: Any) -> list[Any]:
        self.calls.append(("infer", len(inputs), data_format, inputs_pass_through))
        return [np.zeros((1, 2), np.float32)]

    def analyze(self, inputs: Any, *, output_dir: str, progress: Progress) -> AccuracyReport:
        self.calls.append(("analyze", inputs, output_dir))
        return AccuracyReport((), {"y": ErrorPair(0.99, 1.5)}, 1, 0.1, output_dir, ("the head loses most",))

    def estimate(self, target: str | None = None, **options: int) -> ModelEstimate:
        self.calls.append(("estimate", target, options))
        shapes = ((1, 3, 8, 8),), ((1, 4, 8, 8),)
        layer = LayerEstimate(
            *("conv", "ConvRelu", "int8", *shapes, 100, 50, 60, 60, 0.06, 300, 256, "memory", "high"),
        )
        totals = CostTotals(100, 50, 60, 60, 0.06, 6_250, 300, 256, 4_312_608, 1_756_160, 159.94, 160.0)
        memory = MemoryEstimate(4_312_608, 1_756_160, 6_068_768, 1_700_000, ())
        cores = options.get("cores", 1)
        return ModelEstimate("estimate", "rk3566", "int8", cores, 1, 900.0, (layer,), totals, memory, ("a note",))

    def export(self, path: str) -> Path:
        self.calls.append(("export", path))
        return Path(path)

    def release(self) -> None:
        self.released = True

    def _summary(self, built: str) -> ModelSummary:
        return ModelSummary("m.onnx", "onnx", 18, (), (), (), 7, "rk3566", built)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    monkeypatch.setattr(engine.api, "Session", StandIn)
    monkeypatch.setattr(StandIn, "instances", [])
    yield StandIn


def loaded(**options: Any) -> RKNN:
    rknn = RKNN(**options)
    assert rknn.config() == 0
    assert rknn.load_onnx(model="m.onnx") == 0
    return rknn


def built(*, do_quantization: bool = True) -> RKNN:
    rknn = loaded()
    assert rknn.build(do_quantization=do_quantization, dataset="dataset.txt" if do_quantization else None) == 0
    return rknn


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("E ")
    return lines[0]


GUIDE_SIGNATURES = {
    "config": "mean_values std_values quant_img_RGB2BGR quantized_dtype quantized_algorithm quantized_method "
    "float_dtype optimization_level target_platform",
    "load_caffe": "model blobs input_name",
    "load_tensorflow": "tf_pb inputs input_size_list outputs",
    "load_tflite": "model",
    "load_onnx": "model inputs input_size_list outputs",
    "load_darknet": "model weight",
    "load_pytorch": "model input_size_list",
    "build": "do_quantization dataset rknn_batch_size",
    "export_rknn": "export_path",
    "load_rknn": "path",
    "init_runtime": "target device_id perf_debug eval_mem async_mode core_mask",
    "inference": "inputs data_format inputs_pass_through",
    "eval_perf": "inputs is_print fix_freq",
    "eval_memory": "is_print",
    "get_sdk_version": "",
    "hybrid_quantization_step1": "dataset rknn_batch_size proposal proposal_dataset_size",
    "hybrid_quantization_step2": "model_input data_input model_quantization_cfg",
    "accuracy_analysis": "inputs output_dir target device_id",
    "list_devices": "",
    "export_encrypted_rknn_model": "input_model output_model crypt_level",
    "release": "",
}


@pytest.mark.parametrize("call", GUIDE_SIGNATURES)
def test_calls_take_the_guides_arguments_in_its_order(call: str) -> None:
    ours = ("self", "key", "compile_npu")
    names = [name for name in inspect.signature(getattr(RKNN, call)).parameters if name not in ours]
    expected = GUIDE_SIGNATURES[call].split()
    assert names[: len(expected)] == expected
    assert call == "config" or len(names) == len(expected)


def test_the_guides_whole_flow_returns_zeros_and_reaches_the_session(stand_in: type[StandIn]) -> None:
    rknn = RKNN()
    assert rknn.config(mean_values=[128, 128, 128], std_values=[[128, 128, 128]], target_platform="RK3588") == 0
    assert rknn.load_onnx("m.onnx", ["a"], [[1, 3, 4, 4]], ["b"]) == 0
    assert rknn.build(do_quantization=True, dataset="./dataset.txt") == 0
    assert rknn.export_rknn("m.rknn") == 0
    assert rknn.init_runtime() == 0
    outputs = rknn.inference(inputs=[np.zeros((1, 4, 4, 3))])
    assert outputs is not None and outputs[0].shape == (1, 2)
    assert rknn.accuracy_analysis(inputs=["a.jpg"]) == 0
    assert rknn.release() is None

    session = StandIn.instances[0]
    assert session.config == Config(((128.0,) * 3,), ((128.0,) * 3,), target_platform="rk3588")
    assert session.calls == [
        ("load_onnx", "m.onnx", ["a"], [[1, 3, 4, 4]], ["b"]),
        ("build", True, "./dataset.txt", 1),
        ("export", "m.rknn"),
        ("infer", 1, None, None),
        ("analyze", ["a.jpg"], "./snapshot"),
    ]
    assert session.released


@pytest.mark.parametrize(
    ("make", "act", "failure", "words"),
    [
        (RKNN, lambda r: r.load_onnx("m.onnx"), -1, "config"),
        (RKNN, lambda r: r.build(dataset="d"), -1, "load_onnx"),
        (RKNN, lambda r: r.export_rknn("x"), -1, "load_onnx"),
        (RKNN, lambda r: r.init_runtime(), -1, "load_onnx"),
        (RKNN, lambda r: r.inference([]), None, "load_onnx"),
        (RKNN, lambda r: r.accuracy_analysis(["a"]), -1, "load_onnx"),
        (loaded, lambda r: r.export_rknn("x"), -1, "call build first"),
        (loaded, lambda r: r.init_runtime(), -1, "call build first"),
        (loaded, lambda r: r.inference([]), None, "call build first"),
        (loaded, lambda r: r.accuracy_analysis(["a"]), -1, "call build first"),
        (loaded, lambda r: r.build(), -1, "dataset"),
        (built, lambda r: r.build(dataset="d"), -1, "already built"),
        (built, lambda r: r.inference([]), None, "init_runtime"),
        (built, lambda r: r.accuracy_analysis("a.jpg"), -1, "['a.jpg']"),
        (lambda: built(do_quantization=False), lambda r: r.accuracy_analysis(["a"]), -1, "float16"),
        (lambda: built(do_quantization=False), lambda r: r.build(dataset="d"), -1, "already built"),
        (built, lambda r: r.init_runtime(target="rk3588"), -1, "rk3566, not for rk3588"),
        (built, lambda r: r.init_runtime(target="rk1"), -1, "unknown target"),
        (built, lambda r: r.init_runtime(core_mask=9), -1, "core_mask"),
        (loaded, lambda r: r.load_onnx("missing.onnx"), -1, "does not exist (missing.onnx; check the path)"),
        (RKNN, lambda r: r.config(quantized_algorithm="kl"), -1, "quantized_algorithm"),
        (RKNN, lambda r: r.config(target_platfrom="rk3588"), -1, "'target_platform'"),
        (RKNN, lambda r: r.load_onnx(), -1, "model"),
        (loaded, lambda r: r.build(data_set="d"), -1, "'dataset'"),
        (built, lambda r: r.init_runtime(core_mask="0"), -1, "core_mask"),
        (built, lambda r: r.init_runtime(core_mask=RKNN.NPU_CORE_0_1), -1, "rk3566 has 1 NPU core, so NPU_CORE_0_1"),
        (RKNN, lambda r: r.eval_perf(inputs=[], is_print=True), None, "load_onnx"),
        (RKNN, lambda r: r.eval_memory(), None, "load_onnx"),
        (loaded, lambda r: r.eval_perf(), None, "call build first"),
        (loaded, lambda r: r.eval_memory(), None, "call build first"),
        (built, lambda r: r.eval_perf(), None, "init_runtime"),
        (built, lambda r: r.eval_memory(), None, "init_runtime"),
        (built, lambda r: r.eval_perf(image=[]), None, "'image'"),
        (RKNN, lambda r: r.get_sdk_version(), None, "load_onnx"),
        (RKNN, lambda r: r.config(equalization="yes"), -1, "equalization"),
        (RKNN, lambda r: r.config(bias_corection=True), -1, "'bias_correction'"),
        (RKNN, lambda r: r.hybrid_quantization_step1("d", proposal=True), -1, "load_onnx"),
        (loaded, lambda r: r.hybrid_quantization_step1(), -1, "dataset"),
        (RKNN, lambda r: r.hybrid_quantization_step2("a"), -1, "data_input"),
        (RKNN, lambda r: r.export_encrypted_rknn_model("a.rknn"), -1, "does not exist"),
    ],
)
def test_a_failure_is_one_line_and_the_toolkits_value(
    make: Callable[[], RKNN],
    act: Callable[[RKNN], Any],
    failure: Any,
    words: str,
    stand_in: type[StandIn],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rknn = make()
    capsys.readouterr()
    assert act(rknn) == failure
    assert words in error_line(capsys)


@pytest.mark.parametrize(
    "act",
    [
        lambda r: r.config(),
        lambda r: r.load_onnx("m.onnx"),
        lambda r: r.build(dataset="d"),
        lambda r: r.export_rknn("x"),
        lambda r: r.init_runtime(),
        lambda r: r.inference([]),
        lambda r: r.load_rknn("x"),
        lambda r: r.accuracy_analysis(["a"]),
        lambda r: r.eval_perf(),
        lambda r: r.eval_memory(),
    ],
)
def test_after_release_every_call_says_so(
    act: Callable[[RKNN], Any], stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = built()
    rknn.release()
    rknn.release()
    capsys.readouterr()
    assert act(rknn) in (-1, None)
    assert "released" in error_line(capsys)


def test_a_failed_load_keeps_the_model_that_was_there(stand_in: type[StandIn]) -> None:
    rknn = built()
    assert rknn.load_onnx("missing.onnx") == -1
    assert rknn.init_runtime() == 0
    assert not StandIn.instances[0].released


def test_loading_again_starts_over_and_lets_go_of_the_old_model(stand_in: type[StandIn]) -> None:
    rknn = built()
    assert rknn.load_onnx("other.onnx") == 0
    assert rknn.init_runtime() == -1
    assert rknn.build(dataset="d") == 0
    assert [s.released for s in StandIn.instances] == [True, False]


def test_config_after_the_load_takes_effect(stand_in: type[StandIn]) -> None:
    rknn = loaded()
    assert rknn.config(target_platform="rk3588") == 0
    assert rknn.build(dataset="d") == 0
    last = StandIn.instances[-1]
    assert last.config.target_platform == "rk3588"
    assert [call[0] for call in last.calls] == ["load_onnx", "build"]


def test_a_wrong_config_changes_nothing(stand_in: type[StandIn]) -> None:
    rknn = RKNN()
    assert rknn.config(target_platform="rk3588") == 0
    assert rknn.config(std_values=[0]) == -1
    assert rknn.load_onnx("m.onnx") == 0
    assert StandIn.instances[-1].config.target_platform == "rk3588"


def test_the_guides_misspelt_custom_string_is_taken(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = RKNN()
    assert rknn.config(custom_stirng="v1") == 0
    assert rknn.load_onnx("m.onnx") == 0
    assert StandIn.instances[-1].config.custom_string == "v1"
    assert rknn.config(custom_string="a", custom_stirng="b") == -1


def test_a_package_needs_no_config_and_runs_on_the_simulator(stand_in: type[StandIn]) -> None:
    rknn = RKNN()
    assert rknn.load_rknn(path="m.rknn") == 0
    assert rknn.init_runtime(core_mask=NPU_CORE_AUTO) == 0
    assert rknn.inference([np.zeros(1)]) is not None
    assert rknn.build(dataset="d") == -1


def test_a_bare_array_is_one_input(stand_in: type[StandIn]) -> None:
    rknn = built()
    rknn.init_runtime()
    rknn.inference(np.zeros((3, 4)), data_format="nchw", inputs_pass_through=[1])
    assert StandIn.instances[0].calls[-1] == ("infer", 1, "nchw", [1])


# Time and memory


def running(**options: Any) -> RKNN:
    rknn = built()
    assert rknn.init_runtime(**options) == 0
    return rknn


def test_eval_perf_returns_what_it_prints_and_says_that_it_is_an_estimate(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    text = running().eval_perf(inputs=[np.zeros((1, 8, 8, 3))], is_print=True)
    captured = capsys.readouterr()
    assert text is not None and captured.out == f"{text}\n"
    assert captured.err == ""
    assert "ESTIMATE, not a measurement" in text
    assert "Total Time(us): 160.0" in text and "FPS: 6250" in text
    assert "ConvRelu" not in text


def test_eval_perf_tells_of_layers_after_perf_debug(stand_in: type[StandIn]) -> None:
    text = running(perf_debug=True).eval_perf(is_print=False)
    assert text is not None
    assert "ConvRelu" in text and "Total Time(us)" in text


@pytest.mark.parametrize(
    ("positional", "named", "printed"),
    [
        ((), {}, True),
        ((None, True), {}, True),
        ((None, False), {}, False),
        (([np.zeros(3)], False), {}, False),
        ((True,), {}, True),
        ((False,), {}, False),
        ((False, True), {}, False),
        ((True, False), {}, True),
        ((), {"is_print": False, "fix_freq": False}, False),
    ],
)
def test_eval_perf_is_called_as_in_old_and_new_toolkits(
    positional: tuple[Any, ...],
    named: dict[str, Any],
    printed: bool,
    stand_in: type[StandIn],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rknn = running()
    capsys.readouterr()
    assert rknn.eval_perf(*positional, **named) is not None
    assert bool(capsys.readouterr().out) == printed


def test_eval_memory_has_the_guides_keys_and_form(
    stand_in: type[StandIn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = running()
    expected = {
        "total_weight_allocation": 4_312_608,
        "total_internal_allocation": 1_756_160,
        "total_model_allocation": 6_068_768,
    }
    assert rknn.eval_memory() == expected
    text = capsys.readouterr().out
    assert "    Total Weight Memory: 4.11 MiB\n    Total Internal Tensor Memory: 1.67 MiB\n" in text
    assert "ESTIMATE, not a measurement" in text
    assert "INFO" not in text, "nobody knows the size of a package before there is one"
    assert rknn.eval_memory(is_print=False) == expected
    assert capsys.readouterr().out == ""
    package = tmp_path / "m.rknn"
    package.write_bytes(bytes(1 << 20))
    assert rknn.export_rknn(str(package)) == 0
    assert rknn.eval_memory(True) == expected
    assert "the size of model, current model size is: 1.00 MiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "core_mask", "cores"),
    [
        ("rk3588", RKNN.NPU_CORE_AUTO, 1),
        ("rk3588", RKNN.NPU_CORE_2, 1),
        ("rk3588", RKNN.NPU_CORE_0_1, 2),
        ("rk3588", RKNN.NPU_CORE_0_1_2, 3),
        ("rk3588", RKNN.NPU_CORE_ALL, 3),
        ("rk3576", RKNN.NPU_CORE_ALL, 2),
        ("rk3576", RKNN.NPU_CORE_0_1, 2),
        ("rk3576", RKNN.NPU_CORE_0_1_2, None),
        ("rk3566", RKNN.NPU_CORE_0, 1),
        ("rk3566", RKNN.NPU_CORE_ALL, 1),
        ("rk3566", RKNN.NPU_CORE_1, None),
    ],
)
def test_the_core_mask_decides_the_cores_of_the_estimate(
    target: str, core_mask: int, cores: int | None, stand_in: type[StandIn]
) -> None:
    rknn = RKNN()
    assert rknn.config(target_platform=target) == 0
    assert rknn.load_onnx("m.onnx") == 0
    assert rknn.build(dataset="d") == 0
    assert rknn.init_runtime(core_mask=core_mask, perf_debug=True, eval_mem=True) == (-1 if cores is None else 0)
    if cores is not None:
        assert rknn.eval_perf(is_print=False) is not None
        assert StandIn.instances[-1].calls[-1][2]["cores"] == cores


def test_another_model_needs_its_own_init_runtime(stand_in: type[StandIn]) -> None:
    rknn = running()
    assert rknn.load_onnx("other.onnx") == 0
    assert rknn.build(dataset="d") == 0
    assert rknn.eval_perf() is None
    assert rknn.eval_memory() is None


def test_core_masks_are_constants_of_the_class_and_the_module() -> None:
    assert RKNN.NPU_CORE_AUTO == NPU_CORE_AUTO == 0
    assert (RKNN.NPU_CORE_0, RKNN.NPU_CORE_1, RKNN.NPU_CORE_2) == (1, 2, 4)
    assert (RKNN.NPU_CORE_0_1, RKNN.NPU_CORE_0_1_2) == (3, 7)
    assert RKNN.NPU_CORE_ALL == NPU_CORE_ALL == 0xFFFF


def test_success_is_silent_unless_verbose(stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    built().release()
    assert capsys.readouterr() == ("", "")
    rknn = loaded(verbose=True)
    rknn.build(dataset="d")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("I ") for line in lines)
    assert any(line.startswith("I build: calibrating ") and line.endswith(" s") for line in lines)
    assert "I build: int8 by minmax, 5 tensors, 2 samples" in lines


def test_debug_prints_the_check_results_of_each_pass(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(verbose="Debug")
    assert "D check results: fold_batch_normalization cosine 0.999999 euclidean 0.250000" in capsys.readouterr().err
    loaded(verbose=True)
    assert StandIn.instances[-1].on_check is None


def test_analysis_warns_of_what_the_report_warns_of(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    built().accuracy_analysis(["a.jpg"], output_dir="out")
    assert capsys.readouterr().err == "W accuracy_analysis: the head loses most\n"


def test_the_verbose_file_gets_the_screens_lines_and_keeps_older_ones(
    stand_in: type[StandIn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "build.log"
    for _ in range(2):
        rknn = loaded(verbose=True, verbose_file=str(path))
        rknn.export_rknn("x")
        rknn.release()
    shown = capsys.readouterr().err.splitlines()
    written = path.read_text().splitlines()
    assert [line for line in written if not line.startswith("-- ")] == shown
    assert sum(line.startswith("-- ") for line in written) == 2


def test_an_object_that_is_forgotten_closes_its_verbose_file(stand_in: type[StandIn], tmp_path: Path) -> None:
    rknn = RKNN(verbose=True, verbose_file=str(tmp_path / "build.log"))
    handler = rknn._console._file
    assert isinstance(handler, logging.FileHandler) and handler.stream is not None
    del rknn
    gc.collect()
    assert handler.stream is None


def test_a_verbose_file_that_cannot_be_opened_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no" / "build.log"
    rknn = RKNN(verbose=True, verbose_file=str(path))
    assert str(path) in error_line(capsys)
    assert rknn.config() == 0


def test_two_objects_do_not_repeat_each_others_lines(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = loaded(), loaded()
    first.export_rknn("x")
    assert "export_rknn: the model is not built" in error_line(capsys)
    assert second.build(dataset="d") == 0
    assert logging.getLogger("engine").handlers == []
    assert logging.getLogger("engine").level == logging.NOTSET


def test_an_unexpected_exception_is_a_line_and_verbose_adds_the_traceback(
    stand_in: type[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    rknn = RKNN()
    rknn.config()
    assert rknn.load_onnx("bug.onnx") == -1
    assert "unexpected KeyError" in error_line(capsys)
    rknn = RKNN(verbose=True)
    rknn.config()
    assert rknn.load_onnx("bug.onnx") == -1
    assert "Traceback" in capsys.readouterr().err


# From here on with the real engine.


def tiny_model(folder: Path) -> tuple[Path, Path]:
    """A convolution and a classifier of 8x8 colour pictures, and a dataset of four npy files."""
    random = np.random.default_rng(5)
    weights = {
        "w": random.normal(size=(4, 3, 3, 3)).astype(np.float32) * 0.3,
        "b": random.normal(size=4).astype(np.float32) * 0.1,
        "m": random.normal(size=(4, 5)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w", "b"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
            helper.make_node("GlobalAveragePool", ["relu"], ["pool"], name="pool"),
            helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "m"], ["scores"], name="matmul"),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    for index in range(4):
        np.save(folder / f"{index}.npy", random.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8))
    dataset = folder / "dataset.txt"
    dataset.write_text("".join(f"{index}.npy\n" for index in range(4)))
    return model, dataset


TOOLKIT_SCRIPT = """
import numpy as np
from engine.api import RKNN

rknn = RKNN(verbose=True)
print('--> Config model')
rknn.config(mean_values=[128, 128, 128], std_values=[128, 128, 128])
print('--> Loading model')
ret = rknn.load_onnx(model='tiny.onnx')
if ret != 0:
    exit(ret)
print('--> Building model')
ret = rknn.build(do_quantization=True, dataset='./dataset.txt')
if ret != 0:
    exit(ret)
ret = rknn.export_rknn('./tiny.rknn')
if ret != 0:
    exit(ret)
ret = rknn.init_runtime()
if ret != 0:
    exit(ret)
outputs = rknn.inference(inputs=[np.load('0.npy')])
ret = rknn.accuracy_analysis(inputs=['./0.npy'])
if ret != 0:
    exit(ret)
rknn.release()
"""


def test_a_toolkit_script_runs_with_only_its_import_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(TOOLKIT_SCRIPT, "script.py", "exec"), names)
    captured = capsys.readouterr()
    assert captured.out == "--> Config model\n--> Loading model\n--> Building model\n"
    assert all(line[:2] in ("I ", "W ") for line in captured.err.splitlines()), captured.err
    assert (tmp_path / "tiny.rknn").stat().st_size > 0
    assert "relu" in (tmp_path / "snapshot" / "error_analysis.txt").read_text()
    outputs = names["outputs"]
    assert [(o.shape, o.dtype) for o in outputs] == [((1, 5), np.float32)]

    again = RKNN()
    assert again.load_rknn("./tiny.rknn") == 0
    assert again.init_runtime() == 0
    repeated = again.inference([np.load("0.npy")])
    assert repeated is not None
    np.testing.assert_array_equal(repeated[0], outputs[0])
    again.release()


def test_a_package_is_estimated_as_the_session_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, dataset = tiny_model(tmp_path)
    package = tmp_path / "tiny.rknn"
    rknn = RKNN()
    assert rknn.config(target_platform="rk3588") == 0
    assert rknn.load_onnx(str(model)) == 0
    assert rknn.build(dataset=str(dataset)) == 0
    assert rknn.export_rknn(str(package)) == 0
    assert rknn.load_rknn(str(package)) == 0
    assert rknn.init_runtime(perf_debug=True, eval_mem=True, core_mask=RKNN.NPU_CORE_0_1) == 0
    session = Session()
    session.load_rknn(package)
    estimate = session.estimate(cores=2)
    text = rknn.eval_perf(is_print=False)
    assert text is not None
    assert "rk3588, int8, 2 cores at" in text
    assert f"Total Time(us): {estimate.totals.latency_us:.1f}" in text
    assert all(layer.name in text for layer in estimate.layers)
    found = rknn.eval_memory()
    assert found is not None
    assert found["total_model_allocation"] == sum(found[f"total_{part}_allocation"] for part in ("weight", "internal"))
    assert found["total_weight_allocation"] == estimate.memory.weight_bytes
    assert "current model size is: 0.0" in capsys.readouterr().out


def test_int8_stays_close_to_float16_and_both_to_the_source_model(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, dataset = tiny_model(tmp_path)
    picture = np.load(tmp_path / "1.npy")
    feed = ((picture.astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2)
    expected = ort.InferenceSession(str(model)).run(None, {"image": feed})[0]
    for quantize, tolerance in ((False, 0.01), (True, 0.1)):
        rknn = RKNN()
        assert rknn.config(mean_values=[[128] * 3], std_values=[[128] * 3]) == 0
        assert rknn.load_onnx(str(model)) == 0
        assert rknn.build(do_quantization=quantize, dataset=str(dataset) if quantize else None) == 0
        assert rknn.init_runtime() == 0
        outputs = rknn.inference([picture])
        assert outputs is not None
        np.testing.assert_allclose(outputs[0], expected, atol=tolerance * np.abs(expected).max())
        rknn.release()


def test_debug_checks_each_pass_of_a_real_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = tiny_model(tmp_path)
    rknn = RKNN(verbose="Debug")
    rknn.config()
    assert rknn.load_onnx(str(model)) == 0
    checks = [line for line in capsys.readouterr().err.splitlines() if line.startswith("D check results: ")]
    assert checks
    assert all(float(line.split()[-3]) > 0.9999 for line in checks), checks
    rknn.release()


def test_a_missing_model_dataset_or_sample_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, dataset = tiny_model(tmp_path)
    rknn = RKNN()
    rknn.config()
    assert rknn.load_onnx(str(tmp_path / "absent.onnx")) == -1
    assert "absent.onnx" in error_line(capsys)
    assert rknn.load_onnx(str(model)) == 0
    assert rknn.build(dataset=str(tmp_path / "absent.txt")) == -1
    assert "absent.txt" in error_line(capsys)
    assert rknn.build(dataset=str(dataset)) == 0
    assert rknn.accuracy_analysis([str(tmp_path / "absent.npy")], output_dir=str(tmp_path / "out")) == -1
    assert "absent.npy" in error_line(capsys)
    rknn.release()


# Hybrid quantization


def with_wish(cfg: Path, line: str) -> None:
    text = cfg.read_text()
    assert "custom_quantize_layers: {}" in text
    cfg.write_text(text.replace("custom_quantize_layers: {}", f"custom_quantize_layers:\n    {line}"))


def test_hybrid_quantization_goes_from_step_to_step_in_two_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    picture = np.load("0.npy")
    first = RKNN()
    assert first.config(mean_values=[128] * 3, std_values=[128] * 3, target_platform="rk3588") == 0
    assert first.load_onnx("tiny.onnx") == 0
    assert first.hybrid_quantization_step1(dataset="./dataset.txt") == 0
    assert first.init_runtime() == 0
    int8 = first.inference([picture])
    assert first.build(dataset="./dataset.txt") == -1
    first.release()
    with_wish(tmp_path / "tiny.quantization.cfg", "scores: float16")

    capsys.readouterr()
    second = RKNN(verbose=True)
    files = {"model_input": "./tiny.model", "data_input": "./tiny.data"}
    assert second.hybrid_quantization_step2(**files, model_quantization_cfg="./tiny.quantization.cfg") == 0
    assert "I hybrid_quantization_step2: int8 by minmax, " in capsys.readouterr().err
    assert second.export_rknn("tiny.rknn") == 0
    assert second.inference([picture]) is None
    assert second.init_runtime() == 0
    hybrid = second.inference([picture])
    assert second.accuracy_analysis(["0.npy"]) == 0
    assert "scores" in (tmp_path / "snapshot" / "error_analysis.txt").read_text()
    second.release()
    assert int8 is not None and hybrid is not None
    assert not np.array_equal(int8[0], hybrid[0])

    third = RKNN()
    assert third.load_rknn("tiny.rknn") == 0
    assert third.init_runtime() == 0
    again = third.inference([picture])
    assert again is not None
    np.testing.assert_array_equal(again[0], hybrid[0])
    assert third.hybrid_quantization_step1("dataset.txt") == -1
    assert "load the source model" in capsys.readouterr().err
    third.release()


def test_a_proposal_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rknn = RKNN(verbose=True)
    assert rknn.config(std_values=[[255]], target_platform="rk3588") == 0
    assert rknn.load_onnx(str(demo.MODEL)) == 0
    assert rknn.hybrid_quantization_step1(str(demo.DATASET), proposal=True, proposal_dataset_size=2) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("I hybrid_quantization_step1: proposed 2 layers, cosine 0.") for line in lines)
    assert "    joined: float16\n" in (tmp_path / "digits.quantization.cfg").read_text()
    rknn.release()


def test_a_cfg_with_faults_fails_in_one_line_and_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    rknn = RKNN()
    assert rknn.config() == 0
    assert rknn.load_onnx("tiny.onnx") == 0
    assert rknn.hybrid_quantization_step1("dataset.txt") == 0
    assert rknn.init_runtime() == 0
    with_wish(tmp_path / "tiny.quantization.cfg", "relo: float16\n    relu: float8")
    assert rknn.hybrid_quantization_step2("tiny.model", "tiny.data", "tiny.quantization.cfg") == -1
    line = error_line(capsys)
    assert "2 faults" in line and "'relo'" in line and "float8" in line
    assert rknn.inference([np.load("0.npy")]) is not None
    rknn.release()


def test_auto_logs_what_it_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, dataset = tiny_model(tmp_path)
    rknn = RKNN(verbose=True)
    assert rknn.config(quantized_algorithm="auto", equalization=False, bias_correction=True) == 0
    assert rknn.load_onnx(str(model)) == 0
    assert rknn.build(dataset=str(dataset)) == 0
    lines = capsys.readouterr().err.splitlines()
    tried = [line for line in lines if line.startswith("I build: tried ")]
    assert len(tried) >= 3
    assert all("bias correction" in line and "equalization" not in line for line in tried)
    rknn.release()
