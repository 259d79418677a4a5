"""The binding of the vendor's runtime, against our stand-in of every version of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.devices.agent.layouts import ERRORS, VERSIONS
from engine.devices.agent.runtime import DUMP_FOLDER, ModelFault, RknnModel, open_rknn
from engine.devices.dumps import read_dumps
from engine.devices.perf_table import parse_table
from engine.files import vendor
from tests.doubles.board_models import Answer, Port, Step, stand_in_model
from tests.doubles.librknnrt import HERE, build, library
from tests.doubles.librknnrt import VERSIONS as TOLD

X = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
Y = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
Z = np.array([[1, -(1 << 40)]], np.int64)
INPUTS = [Port("x", (1, 3, 8, 8), "int8", 0.5, -3)]
OUTPUTS = [Port("y", (1, 4, 8, 8), "int8", 0.25, 1), Port("z", (1, 2), "int64")]
STEPS = [Step("InputOperator", "x", 5, "CPU", "UINT8"), Step("ConvRelu", "conv a", 42, cycles=(1, 2, 3))]


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Leave the environment as it was: the binding tells the runtime by it where to write tensors."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that names the calls which reached the library."""
    path = tmp_path / "calls"
    path.touch()
    monkeypatch.setenv("STANDIN_LOG", str(path))
    return path


def written(folder: Path, **settings: object) -> Path:
    answers = [Answer([X], [Y, Z], {"conv/out:0": Y}), Answer([X[:, ::-1]], [Y + 1, Z + 1])]
    return stand_in_model(
        folder / "model.rknn", "rk3588", INPUTS, OUTPUTS, answers, STEPS, custom_string="Zürich", settings=settings
    )


@contextlib.contextmanager
def opened(
    folder: Path,
    version: tuple[int, int] = (2, 0),
    options: dict[str, Any] | None = None,
    mini: bool = False,
    **settings: object,
) -> Iterator[RknnModel]:
    path = written(folder, **settings)
    with contextlib.closing(open_rknn(str(path), str(library(version, mini=mini)), options or {})) as model:
        yield model


def sent(array: np.ndarray[Any, Any] = X, **changes: Any) -> list[tuple[dict[str, Any], memoryview]]:
    told = {"dtype": str(array.dtype), "layout": "nhwc", "pass_through": False, "shape": list(array.shape)}
    return [({**told, **changes}, memoryview(bytearray(array.tobytes())))]


def arrays(outputs: list[tuple[dict[str, Any], bytes]]) -> list[np.ndarray[Any, Any]]:
    return [np.frombuffer(content, told["dtype"]).reshape(told["shape"]) for told, content in outputs]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_runtime_runs_a_model(version: tuple[int, int], tmp_path: Path, calls: Path) -> None:
    with opened(tmp_path, version, {"perf": True}) as model:
        told = model.describe()
        assert told["api"] == TOLD[version] and told["driver"] == "0.9.8" and told["custom_string"] == "Zürich"
        (x,), (y, z) = told["inputs"], told["outputs"]
        assert x == {"name": "x", "dims": [1, 8, 8, 3], "fmt": "nhwc", "dtype": "int8", "qnt": "affine"} | {
            "scale": 0.5,
            "zero_point": -3,
            "size": 192,
        }
        assert (y["name"], y["dims"], y["fmt"]) == ("y", [1, 4, 8, 8], "nchw")
        assert (z["dtype"], z["qnt"], z["fmt"]) == ("int64", "none", "")
        first, second = arrays(model.run(sent()))
        assert first.dtype == np.float32 and np.array_equal(first, Y)
        assert second.dtype == np.int64 and np.array_equal(second, Z)
        assert np.array_equal(arrays(model.run(sent(X[:, ::-1])))[0], Y + 1)
        layers = parse_table(model.layer_table())
        assert [(one.name, one.time_us, one.target) for one in layers.layers] == [
            ("InputOperator:x", 5.0, "CPU"),
            ("ConvRelu:conv a", 42.0, "NPU"),
        ]
        assert layers.total_us == 47
        known = version >= (1, 4)
        assert model.memory() == {"weight": 1216, "internal": 4352, "dma": 8192 if known else None} | dict.fromkeys(
            ("sram", "sram_free"), 0 if known else None
        )
    assert calls.read_text().split() == [
        "init",
        *["inputs_set", "run", "outputs_get", "outputs_release"] * 2,
        "destroy",
    ]


def test_a_measurement_counts_whole_cycles_and_the_runtimes_own_times(tmp_path: Path, calls: Path) -> None:
    held: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            held.append("taken")

        def __exit__(self, *_: object) -> None:
            held.append("given back")

    with opened(tmp_path, SLEEP_US=2000) as model:
        found = model.measure(sent(), 3, 2, Lock())
    assert len(found["call_us"]) == len(found["run_us"]) == 3
    assert all(call >= run >= 2000 for call, run in zip(found["call_us"], found["run_us"], strict=True))
    assert held == ["taken", "given back"]
    assert calls.read_text().split().count("run") == calls.read_text().split().count("outputs_release") == 5


def test_in_asynchronous_mode_a_result_is_one_frame_late_and_the_first_comes_twice(tmp_path: Path) -> None:
    other = np.ascontiguousarray(X[:, ::-1])
    with opened(tmp_path, options={"asynchronous": True}) as model:
        found = [arrays(model.run(sent(one)))[0] for one in (X, other, other, X)]
    for late, right in zip(found, (Y, Y, Y + 1, Y + 1), strict=True):
        assert np.array_equal(late, right)


@pytest.mark.parametrize("mask", [0, 1, 2, 3, 4, 7, 0xFFFF])
def test_cores_can_be_chosen_on_chips_that_have_several(mask: int, tmp_path: Path, calls: Path) -> None:
    with opened(tmp_path, options={"core_mask": mask}) as model:
        model.run(sent())
    assert ("set_core_mask" in calls.read_text()) == (mask != 0)


def test_a_chip_with_one_core_refuses_masks_and_the_model_is_closed(tmp_path: Path, calls: Path) -> None:
    with (
        pytest.raises(ModelFault, match="no choice of cores 0_1") as fault,
        opened(tmp_path, options={"core_mask": 3}, CORES=1),
    ):
        pass
    assert fault.value.code == -5 and "NPU_CORE_AUTO" in fault.value.hint
    assert calls.read_text().split()[-1] == "destroy"


@pytest.mark.parametrize(
    ("version", "mini", "options", "what"),
    [
        ((1, 0), False, {"core_mask": 1}, "does not let the NPU's cores be chosen"),
        ((2, 0), True, {"core_mask": 1}, "does not let the NPU's cores be chosen"),
        ((1, 3), False, {"batch_cores": 2}, "does not share a batch between cores"),
        ((2, 0), False, {"priority": "highest"}, "no priority 'highest'"),
    ],
)
def test_what_a_runtime_cannot_do_is_said_before_the_model_is_loaded(
    version: tuple[int, int], mini: bool, options: dict[str, Any], what: str, tmp_path: Path, calls: Path
) -> None:
    with pytest.raises(ModelFault, match=what) as fault, opened(tmp_path, version, options, mini):
        pass
    assert fault.value.hint and not calls.read_text()


def test_a_batch_is_shared_between_as_many_cores_as_there_are(tmp_path: Path) -> None:
    with opened(tmp_path, options={"batch_cores": 3}) as model:
        model.run(sent())
    with (
        pytest.raises(ModelFault, match="rknn_set_batch_core_num failed with -5"),
        opened(tmp_path, options={"batch_cores": 4}),
    ):
        pass


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_each_error_of_loading_has_its_meaning_and_what_to_do(code: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFault) as fault, opened(tmp_path, INIT_ERROR=code):
        pass
    assert fault.value.code == code
    assert (
        fault.value.what == f"rknn_init failed with {code}: {ERRORS[code][0]}" and fault.value.hint == ERRORS[code][1]
    )


def test_a_model_of_another_chip_and_a_damaged_one_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_CHIP", "rk3566")
    with pytest.raises(ModelFault, match="compiled for another chip") as fault, opened(tmp_path):
        pass
    assert fault.value.code == -13
    damaged = tmp_path / "damaged.rknn"
    damaged.write_bytes(b"RKNN" + bytes(100))
    with pytest.raises(ModelFault, match="not valid for this runtime") as fault:
        open_rknn(str(damaged), str(library()), {})
    assert fault.value.code == -6


def test_a_run_that_fails_says_so_and_the_model_can_still_be_closed(tmp_path: Path, calls: Path) -> None:
    with (
        opened(tmp_path, RUN_ERROR=-2) as model,
        pytest.raises(ModelFault, match="did not end the run in time") as fault,
    ):
        model.run(sent())
    assert fault.value.code == -2
    assert calls.read_text().split().count("destroy") == 1


def test_a_model_is_destroyed_once_however_often_it_is_closed(tmp_path: Path, calls: Path) -> None:
    with opened(tmp_path) as model:
        model.close()
        model.close()
        for call in (lambda: model.run(sent()), model.describe, model.memory, model.layer_table):
            with pytest.raises(ModelFault, match="is closed"):
                call()
    assert calls.read_text().split().count("destroy") == 1


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ([], "0 inputs were given to a model of 1"),
        (sent() * 2, "2 inputs were given to a model of 1"),
        (sent(X[:, :4]), "has 96 bytes of uint8 instead of 192"),
        (sent(dtype="float32"), "has 192 bytes of float32 instead of 768"),
        (sent(X[:, :4], pass_through=True), "has 96 bytes of uint8 instead of 192"),
        (sent(dtype="float64"), "is float64, which the runtime does not take"),
        (sent(layout="nc1hwc2"), "has the layout 'nc1hwc2', which is not known"),
    ],
)
def test_inputs_that_the_runtime_would_read_beyond_the_end_of_are_refused(
    inputs: list[tuple[dict[str, Any], memoryview]], what: str, tmp_path: Path, calls: Path
) -> None:
    with opened(tmp_path) as model, pytest.raises(ModelFault, match=what):
        model.run(inputs)
    assert "inputs_set" not in calls.read_text()


@pytest.mark.parametrize("told", ["", "a build without a number", "1.3.0", "9.9.9"])
def test_a_version_that_is_told_wrongly_costs_nothing(told: str, tmp_path: Path) -> None:
    for version in ((1, 2), (2, 0)):
        with opened(tmp_path, version, VERSION=told) as model:
            assert np.array_equal(arrays(model.run(sent()))[0], Y)
            assert model.memory()["weight"] == 1216


def test_memory_is_asked_for_again_in_the_form_of_early_versions(tmp_path: Path) -> None:
    with opened(tmp_path, (2, 0), OLD_SIZES=1) as model:
        assert model.memory() == {"weight": 1216, "internal": 4352, "dma": None, "sram": None, "sram_free": None}


def test_times_of_layers_need_the_flag_and_a_run(tmp_path: Path) -> None:
    with opened(tmp_path) as model:
        model.run(sent())
        with pytest.raises(ModelFault, match="not opened for times of layers"):
            model.layer_table()
    with opened(tmp_path, options={"perf": True}) as model, pytest.raises(ModelFault, match="no run yet"):
        model.layer_table()


def test_the_runtime_of_small_chips_tells_no_times_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, options={"perf": True}, mini=True) as model:
        assert np.array_equal(arrays(model.run(sent()))[0], Y)
        assert model.measure(sent(), 2, 0, contextlib.nullcontext())["run_us"] == []
        with pytest.raises(ModelFault, match="RV1103 and RV1106 does not tell times of layers"):
            model.layer_table()


def test_tensors_are_dumped_where_the_folder_was_named_before_loading(tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    with opened(tmp_path, options={"dump": str(folder)}) as model:
        model.run(sent())
    found = read_dumps({file.name: file.read_bytes() for file in folder.iterdir()})
    assert np.array_equal(found["conv_out_0"], Y)


@pytest.mark.parametrize(("options", "settings"), [({}, {}), ({"dump": True}, {"DUMPS": 0})])
def test_no_tensors_are_dumped_unasked_or_by_a_runtime_that_dumps_none(
    options: dict[str, Any], settings: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    os.environ[DUMP_FOLDER] = str(folder)
    with opened(tmp_path, options=options, **settings) as model:
        model.run(sent())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["absent", "no library", "another library"])
def test_what_is_no_runtime_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    library()
    path = tmp_path / "librknnrt.so"
    if kind == "no library":
        path.write_bytes(b"text")
    elif kind == "another library":
        (tmp_path / "other.c").write_text("int other(void);\nint other(void) { return 1; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "other.c", "-o", path], check=True)
    with pytest.raises(ModelFault, match=r"cannot be loaded|has no rknn_init") as fault:
        open_rknn(str(written(tmp_path)), str(path), {})
    assert fault.value.code == 0 and fault.value.hint


@pytest.mark.parametrize("content", [None, b""])
def test_a_model_that_is_absent_or_empty_never_reaches_the_runtime(
    content: bytes | None, tmp_path: Path, calls: Path
) -> None:
    path = tmp_path / "other.rknn"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFault, match=r"cannot be read|a model of 0 bytes"):
        open_rknn(str(path), str(library()), {})
    assert not calls.read_text()


@pytest.mark.parametrize("target", ["rk3566", "rk3588", "rv1106"])
def test_models_for_the_stand_in_are_files_of_the_vendors_compiler_to_our_reader(target: str, tmp_path: Path) -> None:
    path = stand_in_model(tmp_path / "m.rknn", target, INPUTS, OUTPUTS, [Answer(None, [Y, Z])], STEPS)
    found = vendor.read(path)
    assert (found.target, found.partial) == (target, ())
    assert [one.name for one in (*found.inputs, *found.outputs)] == ["x", "y", "z"]
    with contextlib.closing(open_rknn(str(path), str(library(mini=target == "rv1106")), {})) as model:
        assert np.array_equal(arrays(model.run(sent(X + 9)))[0], Y)


def _in_another_process(code: str, python: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[3]
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from engine.devices.agent.runtime import ModelFault, open_rknn\n"
        f"model = open_rknn({str(written(folder))!r}, {str(library())!r}, {{'perf': True}})\n"
        "given = [({'dtype': 'uint8', 'layout': 'nhwc', 'pass_through': False}, memoryview(bytes(range(192))))]\n"
        + code
    )
    return subprocess.run(
        [python, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_crash_of_the_runtime_ends_its_process_with_what_it_printed(tmp_path: Path) -> None:
    done = _in_another_process(
        "model.run(given)", sys.executable, tmp_path, STANDIN_CRASH="1", STANDIN_PRINT="E RKNN: x"
    )
    assert done.returncode < 0 and done.stderr.count("E RKNN: x") == 2


def test_the_binding_runs_under_python_3_7(tmp_path: Path) -> None:
    places = [shutil.which("python3.7"), *map(str, Path("~/.pyenv/versions").expanduser().glob("3.7.*/bin/python3.7"))]
    # A name on the path may be of a program that only says where the real one is.
    working = [one for one in places if one and not subprocess.run([one, "-c", ""], capture_output=True).returncode]
    if not working:
        pytest.skip("needs Python 3.7")
    code = "told = model.run(given)\nmodel.measure(given, 1, 0, __import__('threading').Lock())\n"
    code += (
        "print(told[0][0], len(told[0][1]), model.memory()['weight'], 'conv a' in model.layer_table()); model.close()"
    )
    done = _in_another_process(code, working[0], tmp_path)
    assert done.stdout.strip() == "{'dtype': 'float32', 'shape': [1, 4, 8, 8]} 1024 1216 True", done.stderr


PROGRAM = """
#include "interface.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#define GET(name) __typeof__(name) *p_##name = (__typeof__(name) *)dlsym(library, #name)
int main(int count, char **words)
{
    static unsigned char model[1 << 16], input[192];
    void *library = count == 3 ? dlopen(words[1], RTLD_NOW) : NULL;
    FILE *file = count == 3 ? fopen(words[2], "rb") : NULL;
    if (!library || !file)
        return 2;
    size_t size = fread(model, 1, sizeof model, file);
    fclose(file);
    GET(rknn_init); GET(rknn_query); GET(rknn_inputs_set); GET(rknn_run); GET(rknn_outputs_get); GET(rknn_destroy);
    rknn_context context;
    rknn_tensor_attr told = {.index = 1};
    rknn_output outputs[2] = {{.want_float = 1, .index = 0}, {.index = 1}};
    for (int at = 0; at < 192; at++)
        input[at] = (unsigned char)at;
    rknn_input given = {.buf = input, .size = 192, .type = UINT8, .fmt = 1};
    if (p_rknn_init(&context, model, (uint32_t)size, 0, NULL) || p_rknn_inputs_set(context, 1, &given))
        return 3;
    if (p_rknn_run(context, NULL) || p_rknn_outputs_get(context, 2, outputs, NULL))
        return 4;
    if (p_rknn_query(context, ASK_OUTPUT, &told, sizeof told))
        return 5;
    printf("%s %u %lld\\n", told.name, outputs[0].size, (long long)((int64_t *)outputs[1].buf)[1]);
    return p_rknn_destroy(context);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "emulator"),
    [("arm-linux-gnueabihf-gcc", "qemu-arm"), ("aarch64-linux-gnu-gcc", "qemu-aarch64")],
)
def test_a_program_of_a_boards_architecture_runs_a_model_on_the_stand_in(
    compiler: str, emulator: str, tmp_path: Path
) -> None:
    for tool in (compiler, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    build(tmp_path / "librknnrt.so", compiler=compiler)
    (tmp_path / "program.c").write_text(PROGRAM)
    command = [compiler, "-std=gnu11", "-Wall", f"-I{HERE}", tmp_path / "program.c", "-o", tmp_path / "program", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    sysroot = f"/usr/{compiler.removesuffix('-gcc')}"
    words = [emulator, "-L", sysroot, tmp_path / "program", tmp_path / "librknnrt.so", written(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, f"z 1024 {Z[0, 1]}\n"), done.stderr
