"""The headless commands: arguments, output, errors, exit codes, and what starting them costs."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import rknn_tui.__main__ as program
from engine import cli, cli_jobs, demo
from engine.cli_console import Console, duration, progress_line
from engine.cli_options import UsageError, expand_arguments, job_options, read_config_file
from engine.cli_text import accuracy_text, worst_layers
from engine.cli_verbs import VERBS, verb_parser
from engine.errors import Cancelled, ConfigError, FileError, ModelError
from engine.summaries import AccuracyReport, ErrorPair, LayerError, Quality
from engine.text_tables import printable, table

HEAVY = ("numpy", "onnx", "onnxruntime", "onnx_ir", "textual", "PIL", "yaml")


def run(*words: str, folder: Path | None = None, module: str = "engine") -> subprocess.CompletedProcess[str]:
    """`python -m MODULE WORDS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def parse(*words: str, verb: str = "build") -> argparse.Namespace:
    return verb_parser(verb, "rknn-tui").parse_words(["m.onnx", *words])


# Starting


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("engine", ["--help"]),
        ("engine", ["build", "--help"]),
        ("engine", ["biuld"]),
        ("rknn_tui", ["--help"]),
        ("rknn_tui", ["--version"]),
        ("rknn_tui", ["analyze", "--help"]),
        ("rknn_tui", ["missing.onnx"]),
    ],
)
def test_help_and_wrong_usage_load_nothing_heavy(module: str, words: list[str]) -> None:
    code = f"""
import runpy, sys
sys.argv = ["program", *{words!r}]
try:
    runpy.run_module({module!r}, run_name="__main__")
except SystemExit:
    pass
print("LOADED", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"], program="rknn-tui") == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.startswith(f"  rknn-tui {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_the_help_are_valid(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([verb, "--help"], program="rknn-tui")
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    for example in examples:
        words = example.partition(" > ")[0].split()[2:]
        arguments = verb_parser(verb, "rknn-tui").parse_words(words)
        if verb not in ("demo", "ops", "set", "replay", "encrypt", "decrypt", "compiler", "devices"):
            arguments.config = None
            job_options(arguments)


# Arguments


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--mean", "127.5,127.5,127.5"], "mean_values", ((127.5, 127.5, 127.5),)),
        (["--mean", "1,2,3", "--mean", "4"], "mean_values", ((1.0, 2.0, 3.0), (4.0,))),
        (["--mean", "-1,-2,-3"], "mean_values", ((-1.0, -2.0, -3.0),)),
        (["--std", "58,57,59"], "std_values", ((58.0, 57.0, 59.0),)),
        (["--rgb2bgr"], "quant_img_RGB2BGR", (True,)),
        (["--rgb2bgr=no,yes"], "quant_img_RGB2BGR", (False, True)),
        (["--dtype", "w8a8"], "quantized_dtype", "w8a8"),
        (["--algorithm", "mmse"], "quantized_algorithm", "mmse"),
        (["--method", "layer"], "quantized_method", "layer"),
        (["--equalization"], "equalization", True),
        (["--no-equalization"], "equalization", False),
        ([], "equalization", None),
        (["--bias-correction"], "bias_correction", True),
        (["--no-bias-correction"], "bias_correction", False),
        (["--optimization-level", "0"], "optimization_level", 0),
        (["--target", "RK3588"], "target_platform", "rk3588"),
        (["--custom-string", "v1 of it"], "custom_string", "v1 of it"),
    ],
)
def test_every_setting_has_an_option(words: list[str], field: str, value: Any) -> None:
    assert getattr(job_options(parse(*words)).config, field) == value


def test_inputs_sizes_and_outputs_pair_up_in_order() -> None:
    options = job_options(
        parse("--input", "a", "--input-size", "1,3,48,192", "--input", "b", "--input-size", "1x4", "--output", "y")
    )
    assert options.inputs == ("a", "b")
    assert options.input_size_list == ((1, 3, 48, 192), (1, 4))
    assert options.outputs == ("y",)


def test_files_may_stand_between_options() -> None:
    arguments = verb_parser("infer", "p").parse_words(["m.onnx", "--rgb2bgr", "a.jpg", "--batch", "2", "b.npy"])
    assert (arguments.model, arguments.files) == ("m.onnx", ["a.jpg", "b.npy"])


@pytest.mark.parametrize(
    ("words", "number"), [(["--proposal"], 1), (["--proposal", "4"], 4), (["--proposal=3"], 3), ([], None)]
)
def test_a_proposal_may_have_a_number_and_stand_before_the_model(words: list[str], number: int | None) -> None:
    arguments = verb_parser("hybrid", "p").parse_words([*words, "m.onnx"])
    assert (arguments.proposal, arguments.model) == (number, "m.onnx")


def test_values_after_a_double_dash_are_left_alone() -> None:
    assert expand_arguments(["--", "--rgb2bgr"]) == ["--", "--rgb2bgr"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "build"),
        (["biuld"], "'build'"),
        (["build"], "--help"),
        (["build", str(demo.MODEL), "-q"], "--dataset"),
        (["build", "m.onnx", "--optmization-level", "3"], "--optimization-level"),
        (["build", "m.onnx", "--float16", "--target", "rk3658"], "rk3568"),
        (["build", "m.onnx", "--float16", "--batch", "0"], "positive"),
        (["build", "m.onnx", "--float16", "--mean", "a,b"], "numbers"),
        (["build", "m.onnx", "--float16", "--std", "0"], "--std"),
        (["build", "m.onnx", "--float16", "--input-size", "1,-3"], "positive"),
        (
            ["build", "m.onnx", "--float16", "--input", "a", "--input-size", "1", "--input-size", "2"],
            "one size for each",
        ),
        (["build", "m.onnx", "n.onnx", "--float16"], "n.onnx"),
        (["infer", "m.onnx", "--float16"], "each model input"),
        (["analyze", "m.onnx", "--worst", "-1"], "worst"),
        (["build", "m.onnx", "--float16", "--algorithm", "mse"], "'mmse'"),
        (["build", "m.onnx", "--float16", "--equalization=yes"], "--equalization"),
        (["build", "m.onnx", "--float16", "--no-bias"], "--no-bias-correction"),
        (["build", "m.onnx", "--float16", "--data", "m.data"], "--cfg"),
        (["build", "m.model"], "--cfg"),
        (["build", "m.onnx", "--float16", "--onnx", "m.rknn"], "replace another result"),
        (["build", "m.onnx", "--dataset", "d", "--onnx", "f.onnx", "--qdq", "f.onnx"], "replace another result"),
        (["build", "m.onnx", "--float16", "--qdq", "q.onnx"], "for quantized models"),
        (["hybrid", "m.onnx"], "--dataset"),
        (["hybrid", "m.onnx", "--float16"], "--float16"),
        (["hybrid", "m.onnx", "--dataset", "d.txt", "--proposal", "0"], "positive"),
        (["hybrid", "m.onnx", "--dataset", "d.txt", "--proposal", "-2"], "positive"),
        (["tune", "m.onnx"], "--dataset"),
        (["tune", "m.rknn"], "--dataset"),
        (["tune", "m.onnx", "--float16"], "--float16"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--cosine", "1.01"], "up to 1"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--cosine", "nan"], "up to 1"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--max-cost", "-0.1"], "0.2"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--max-cost", "20%"], "0.2"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--max-layers", "0"], "positive"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--jobs", "0"], "positive"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--precision", "int8"], "int16"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--candidate", "0", "-o", "t.rknn"], "positive"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--candidate", "1"], "--cfg"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--data", "m.data"], "--data"),
        (["tune", "m.onnx", "--dataset", "d.txt", "--cfg", "t.rknn", "-o", "t.rknn"], "replace the package"),
        (["--json", "build", "m.onnx"], "after the command"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_way_out(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    if "--json" in words:
        assert hint in json.loads(captured.out)["error"]["what"]
    else:
        assert captured.err.startswith("error: ")
        assert hint in captured.err


# The config file


def write(folder: Path, text: str) -> Path:
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_options_win_over_the_config_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
mean_values: [[127.5, 127.5, 127.5]]
quantized_method: layer
target_platform: rk3588
inputs: [a]
input_size_list: [[1, 3, 48, 192]]
outputs: y
dataset: photos/list.txt
batch: 4
""",
    )
    options = job_options(parse("--config", str(path), "--method", "channel", "--batch", "2"))
    assert options.config.quantized_method == "channel"
    assert options.config.target_platform == "rk3588"
    assert options.config.mean_values == ((127.5, 127.5, 127.5),)
    assert (options.inputs, options.input_size_list, options.outputs) == (("a",), ((1, 3, 48, 192),), ("y",))
    assert options.dataset == str(tmp_path / "photos" / "list.txt")
    assert options.batch == 2


def test_a_dataset_given_here_means_int8_whatever_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path, "float16: true\n")
    assert job_options(parse("--config", str(path))).float16
    assert not job_options(parse("--config", str(path), "--dataset", "d.txt")).float16


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target_platfrom: rk3588", "'target_platform'"),
        ("target_platform: rk1", "target_platform: unknown target"),
        ("batch: many", "a positive integer"),
        ("batch: true", "a positive integer"),
        ("inputs: [1, 2]", "tensor names"),
        ("input_size_list: [[1, -3]]", "positive integers"),
        ("float16: 1", "true or false"),
        ("a: b: c", "line 1"),
        ("[1, 2]", "name: value"),
        ("inputs: &x [a]\noutputs: *x", "references"),
        ("mean_values: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("custom_string: \x00", "not valid YAML"),
    ],
)
def test_a_wrong_config_file_names_its_fault(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config_file(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_config_file_is_bounded_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"1 MB"):
        read_config_file(write(tmp_path, "#" * (1 << 20) + "\n"))
    with pytest.raises(FileError, match="cannot be read"):
        read_config_file(tmp_path / "absent.yaml")


def test_an_empty_config_file_changes_nothing(tmp_path: Path) -> None:
    assert read_config_file(write(tmp_path, "# nothing yet\n")) == ({}, {})


# Errors and exit codes


def outcome(error: BaseException, *words: str) -> int:
    def fail() -> int:
        raise error

    return cli.guarded(fail, list(words))


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            ModelError("is empty", where="m.onnx", hint="export it again"),
            1,
            "error: m.onnx: is empty\nhint: export it again\n",
        ),
        (UsageError("no files"), 2, "error: no files\n"),
        (KeyboardInterrupt(), 130, "cancelled\n"),
        (Cancelled("calibrating"), 130, "cancelled\n"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'\nhint: run it again with -v for the traceback\n"),
        (FileNotFoundError(2, "No such file", "a.txt"), 1, "error: a.txt: No such file\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_what_ends_a_command_decides_its_exit_code(
    error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error) == code
    assert capsys.readouterr().err == shown


def test_errors_are_json_under_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ModelError("is empty", where="m.onnx", hint="export it again"), "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"kind": "ModelError", "what": "is empty", "where": "m.onnx", "hint": "export it again"}
    }
    assert captured.err == ""
    assert outcome(KeyError("x"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "KeyError"


def test_the_traceback_is_shown_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(KeyError("x")) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert outcome(KeyError("x"), "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_names_from_a_file_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ModelError("bad tensor \x1b[2J", where="图.onnx")) == 1
    assert capsys.readouterr().err == "error: 图.onnx: bad tensor \\x1b[2J\n"
    assert printable("a\nb\u202e") == "a\\nb\\u202e"


def test_results_have_a_place_before_the_work_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"never read")
    for words in (
        ["build", str(model), "--float16", "-o", str(tmp_path / "no" / "m.rknn")],
        ["build", str(model), "--float16", "-o", str(tmp_path)],
        ["infer", str(model), "--float16", "a.npy", "--save", str(tmp_path / "no" / "o.npz")],
        ["build", str(model), "--float16", "--onnx", str(tmp_path / "no" / "m.onnx")],
        ["tune", str(model), "--dataset", "d.txt", "-o", str(tmp_path / "no" / "m.rknn")],
        ["tune", str(model), "--dataset", "d.txt", "--cfg", str(tmp_path)],
        ["hybrid", str(model), "--dataset", "d.txt", "--folder", str(model)],
    ):
        assert cli.main(words) == 1
        assert "folder" in capsys.readouterr().err
    for words in (
        ["build", str(model), "--float16", "-o", str(model)],
        ["build", str(model), "--float16", "-o", str(tmp_path / "m.rknn"), "--onnx", str(model)],
        ["tune", str(model), "--dataset", "d.txt", "-o", str(model)],
        ["tune", str(model), "--dataset", "d.txt", "--cfg", str(model)],
    ):
        assert cli.main(words) == 2
        assert f"would replace {model}" in capsys.readouterr().err
        assert model.read_bytes() == b"never read"


# What is shown on the way


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_each_stage_is_one_line() -> None:
    stream = io.StringIO()
    with Console(stream=stream) as console:
        progress = console.progress()
        for done in range(50):
            progress.step("calibrating", done, 50)
        progress.step("packing", 0, 1)
    assert stream.getvalue() == "calibrating ...\npacking ...\n"


def test_on_a_terminal_one_line_is_redrawn_four_times_a_second_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    now = [0.0]
    stream = Terminal()
    with Console(stream=stream, clock=lambda: now[0]) as console:
        progress = console.progress()
        for step in range(200):
            now[0] = step / 100
            progress.step("calibrating", step, 200)
        logging.getLogger("engine.quantization").warning("one layer is constant")
    drawn = stream.getvalue().split("\r\x1b[K")
    lines = [line for line in drawn if line.startswith("calibrating")]
    assert len(lines) == 8
    assert lines[-1] == "calibrating  [##################--]  175/200  0 s left"[:59]
    assert "\n" not in "".join(lines)
    assert drawn[-1] == "warning: one layer is constant\n"


def test_quiet_shows_warnings_only_and_verbose_the_seconds() -> None:
    quiet, verbose = io.StringIO(), io.StringIO()
    for stream, options in ((quiet, {"quiet": True}), (verbose, {"verbose": True})):
        with Console(stream=stream, clock=lambda: 1.0, **options) as console:
            console.progress().step("calibrating", 0, 2)
            logging.getLogger("engine").info("143 tensors")
            console.warn("a sample is blank")
    assert quiet.getvalue() == "warning: a sample is blank\n"
    assert verbose.getvalue() == "143 tensors\nwarning: a sample is blank\ncalibrating: 0.00 s\n"
    assert logging.getLogger("engine").handlers == []


def test_progress_lines_say_only_what_is_known() -> None:
    assert progress_line("reading", 0, 0, 9) == "reading"
    assert progress_line("reading", 7, 0, 9) == "reading  7"
    assert progress_line("testing", 1, 4, 3) == "testing  [#####---------------]  1/4  9 s left"
    assert progress_line("testing", 4, 4, 3) == "testing  [####################]  4/4"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tables_align_names_left_and_numbers_right() -> None:
    assert table(("layer", "cos"), [("a", "0.9"), ("longer", "10.0")], numbers=(1,)).splitlines() == [
        "layer    cos",
        "------  ----",
        "a        0.9",
        "longer  10.0",
    ]


def report_of(*cosines: float | None) -> AccuracyReport:
    layers = tuple(
        LayerError(
            f"layer{i}",
            "Conv",
            "int8",
            None if c is None else ErrorPair(c, 1.0),
            None if c is None else ErrorPair(c, 1.0),
        )
        for i, c in enumerate(cosines)
    )
    return AccuracyReport(layers, {"y": ErrorPair(0.5, 2.0)}, 1, 0.1, warnings=("two parts share a scale",))


def test_the_worst_layers_are_those_that_lose_most_alone() -> None:
    report = report_of(0.9, None, float("nan"), 0.5, 1.0)
    assert [layer.name for layer in worst_layers(report, 3)] == ["layer2", "layer3", "layer0"]


def test_the_accuracy_table_has_outputs_and_warnings() -> None:
    lines = accuracy_text(report_of(0.9, None)).splitlines()
    assert lines[2].split() == ["layer0", "Conv", "int8", "0.90000", "1.00000", "0.90000", "1.00000"]
    assert lines[3].split() == ["layer1", "Conv", "int8"]
    assert "output y: cosine 0.50000, euclidean 2.00000" in lines
    assert lines[-1] == "warning: two parts share a scale"


def test_the_accuracy_table_ends_with_how_near_all_outputs_are() -> None:
    report = dataclasses.replace(report_of(0.9), quality=Quality(0.99312, 0.98, 10**-2.13, ()))
    assert "outputs   cosine 0.99312   SNR 21.3 dB" in accuracy_text(report).splitlines()


def test_saved_outputs_cannot_escape_the_folder_they_are_unpacked_to(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    outputs = [("../../evil", np.ones(2)), ("block/out:0", np.ones(3)), ("head/out", np.zeros((1, 2)))]
    cli_jobs.save_outputs(path, outputs)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["output_0.npy", "output_1.npy", "head/out.npy"]
    with np.load(path) as arrays:
        assert arrays["head/out"].shape == (1, 2)


# rknn-tui: the app or a command


def test_a_model_opens_the_app_with_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[tuple[str | None, dict[str, Any]]] = []
    monkeypatch.setattr(program, "_run_app", lambda path, options: opened.append((path, options)) or 0)
    monkeypatch.setattr(program, "_on_terminal", lambda: True)
    model = tmp_path / "m.onnx"
    model.write_bytes(b"x")
    assert program.main([str(model), "--target", "rk3588", "--dataset", "d.txt"]) == 0
    assert program.main([]) == 0
    assert program.main(["demo"]) == 0
    path, options = opened[0]
    assert path == str(model)
    assert options["dataset"] == "d.txt"
    assert options["config"]["target_platform"] == "rk3588"
    json.dumps(options)
    assert opened[1][0] is None
    assert opened[2][0] is not None and opened[2][0].endswith(".onnx")
    assert opened[2][1]["config"]["std_values"] == [[255.0]]


def test_the_app_is_not_opened_without_a_terminal_or_on_a_missing_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "_on_terminal", lambda: False)
    assert program.main([]) == 2
    assert "terminal" in capsys.readouterr().err
    assert program.main([str(tmp_path / "absent.onnx")]) == 1
    assert "absent.onnx: does not exist" in capsys.readouterr().err
    assert program.main(["biuld"]) == 2
    assert "did you mean 'build'" in capsys.readouterr().err
    assert program.main(["biuld", "m.onnx"]) == 2
    assert "did you mean 'build'" in capsys.readouterr().err


def test_commands_of_rknn_tui_name_it_in_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["build", "--help"]) == 0
    assert "usage: rknn-tui build" in capsys.readouterr().out


# From here on with the real engine.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.onnx (8x8 colour pictures to five scores), six png files, and dataset.txt."""
    folder = tmp_path_factory.mktemp("tiny")
    random = np.random.default_rng(11)
    weights = {
        "w": random.normal(size=(4, 3, 3, 3)).astype(np.float32) * 0.3,
        "m": random.normal(size=(4, 5)).astype(np.float32),
    }
    for name, batch in (("tiny", 1), ("dynamic", "batch")):
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["image", "w"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
                helper.make_node("GlobalAveragePool", ["relu"], ["pool"], name="pool"),
                helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
                helper.make_node("MatMul", ["flat", "m"], ["scores"], name="matmul"),
            ],
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
            [numpy_helper.from_array(array, key) for key, array in weights.items()],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / f"{name}.onnx"
        )
    for index in range(6):
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        np.save(folder / f"{index}.npy", pixels[np.newaxis])
    (folder / "dataset.txt").write_text("# calibration\n" + "".join(f"{index}.png\n" for index in range(6)))
    return folder


BUILD = ("--dataset", "dataset.txt", "--mean", "128,128,128", "--std", "64,64,64")


def test_build_then_infer_from_the_package_as_from_the_model(tiny: Path, tmp_path: Path) -> None:
    package = tmp_path / "out.rknn"
    done = run("build", "tiny.onnx", *BUILD, "-o", str(package), "--json", folder=tiny)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["build"]["precision"] == "int8"
    assert document["build"]["samples"] == 6
    assert document["output"] == str(package)
    assert document["bytes"] == package.stat().st_size

    outputs = []
    for words in (("tiny.onnx", *BUILD, "0.png"), (str(package), "0.npy")):
        saved = tmp_path / "outputs.npz"
        done = run("infer", *words, "--json", "--save", str(saved), folder=tiny)
        assert done.returncode == 0, done.stderr
        (output,) = json.loads(done.stdout)["outputs"]
        assert output["name"] == "scores" and output["shape"] == [1, 5]
        assert output["top"][0]["value"] == output["max"]
        with np.load(saved) as arrays:
            outputs.append(arrays["scores"])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_build_names_the_package_after_the_model_in_the_current_folder(tiny: Path, tmp_path: Path) -> None:
    done = run("build", str(tiny / "tiny.onnx"), "--float16", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.rknn"]
    assert "tiny.rknn: float16" in done.stdout


def test_infer_prints_range_and_top_five(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    assert cli.main(["infer", "tiny.onnx", "--float16", "0.png"]) == 0
    out = capsys.readouterr().out
    assert "scores  1x5" in out
    assert out.count("\n  [") == 5


def test_data_format_says_how_npy_files_lie(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    np.save(tmp_path / "nchw.npy", np.load("0.npy").transpose(0, 3, 1, 2))
    results = []
    for words in (["0.npy"], [str(tmp_path / "nchw.npy"), "--data-format", "nchw"]):
        assert cli.main(["infer", "tiny.onnx", "--float16", "--json", *words]) == 0
        results.append(json.loads(capsys.readouterr().out)["outputs"])
    assert results[0] == results[1]


def test_pass_through_leaves_out_mean_and_std(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    scaled = (np.load("0.npy").astype(np.float32) - 128) / 64
    np.save(tmp_path / "scaled.npy", scaled)

    def outputs(*words: str) -> Any:
        assert cli.main(["infer", "tiny.onnx", "--float16", "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)["outputs"]

    setting = ("--mean", "128,128,128", "--std", "64,64,64")
    expected = outputs(*setting, "0.npy")
    assert outputs(*setting, "--pass-through", str(tmp_path / "scaled.npy")) == expected
    assert outputs(*setting, "--pass-through=no", "0.png") == expected
    raw = outputs("0.npy")
    assert raw != expected
    assert outputs(*setting, "--pass-through=yes", "0.png") == raw
    assert cli.main(["infer", "tiny.onnx", "--float16", "--pass-through=yes,no", "0.png"]) == 2
    assert "2 answers for 1 input file" in capsys.readouterr().err


def test_the_dataset_gives_the_sample_that_is_not_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    assert cli.main(["analyze", "tiny.onnx", *BUILD, "--output-dir", str(tmp_path / "snapshot"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"] == ["0.png"]


def test_analyze_prints_a_line_a_layer_and_the_worst_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    folder = tmp_path / "snapshot"
    words = ["analyze", "tiny.onnx", *BUILD, "--output-dir", str(folder)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "entire cos" in out and "relu" in out and "output scores: cosine 0.99" in out
    assert (folder / "error_analysis.txt").is_file()
    assert cli.main([*words, "--worst", "1", "--json", "--sample", "3.png"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sample"] == ["3.png"]
    cosines = {layer["name"]: layer["single"]["cosine"] for layer in document["report"]["layers"] if layer["single"]}
    assert document["worst"] == [min(cosines, key=cosines.__getitem__)]


def test_inspect_shows_layers_and_where_they_came_from(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    assert cli.main(["inspect", "tiny.onnx", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert [tensor["name"] for tensor in model["inputs"]] == ["image"]
    assert model["inputs"][0]["layout"] == "nchw"
    assert model["parameters"] >= 4 * 27 + 20
    assert {"conv", "relu"} <= {source for layer in model["layers"] for source in layer["sources"]}


def test_inspect_shows_a_dynamic_model_as_far_as_it_goes(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny)
    assert cli.main(["inspect", "dynamic.onnx"]) == 0
    out = capsys.readouterr().out
    assert "batchx3x8x8" in out
    assert "not loaded" in out and "image" in out
    assert cli.main(["inspect", "dynamic.onnx", "--input-size", "1,3,8,8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["inputs"][0]["shape"] == [1, 3, 8, 8]


def test_a_file_that_is_no_model_fails_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"\xff" * 100)
    for verb in (["inspect"], ["build", "--float16"]):
        assert cli.main([verb[0], str(path), *verb[1:], "--json"]) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert "junk.onnx" in error["where"] + error["what"]
        assert error["kind"].endswith("Error")


def test_a_failed_build_leaves_the_old_package(tiny: Path, tmp_path: Path) -> None:
    package = tmp_path / "out.rknn"
    package.write_bytes(b"old")
    (tmp_path / "dataset.txt").write_text("absent.png\n")
    done = run("build", str(tiny / "tiny.onnx"), "--dataset", "dataset.txt", "-o", "out.rknn", folder=tmp_path)
    assert done.returncode == 1
    assert "absent.png" in done.stderr and "Traceback" not in done.stderr
    assert package.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.txt", "out.rknn"]


def test_ctrl_c_says_cancelled_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.txt").write_text(f"{tiny / '0.png'}\n" * 200_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "build", str(tiny / "tiny.onnx"), "--dataset", "dataset.txt"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    shown = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, shown + rest
    assert rest.splitlines()[-1] == "cancelled"
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.txt"]


def test_a_reader_that_stops_early_is_no_error(tiny: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "inspect", str(tiny / "tiny.onnx"), "-q"],
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


def test_the_demo_shows_what_int8_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["test_images"] == 64
    assert document["top1"]["float"] >= 0.95
    assert document["top1"]["int8"] < document["top1"]["float"] == document["top1"]["tuned"]
    assert [finding["rule"] for finding in document["lint"]] == ["join-ranges"]
    assert document["tune"]["reached"]
    assert document["report"]["layers"]


def test_a_table_too_wide_for_the_screen_leaves_out_the_distances() -> None:
    report = report_of(0.9, None)
    whole = accuracy_text(report).splitlines()[0]
    assert "entire euc" in whole
    assert accuracy_text(report, width=len(whole)).splitlines()[0] == whole
    narrow = accuracy_text(report, width=len(whole) - 1).splitlines()[0]
    assert "entire cos" in narrow and "single cos" in narrow and "euc" not in narrow
