"""The commands `perf` and `memory`: estimates of models, packages and cfgs, on one target or several."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from engine import cli, demo
from engine.cost.schema import estimate_schema
from engine.session import Session
from engine.targets import TARGETS
from tests.zoo import FOLDER, needs_zoo

MODEL = str(demo.MODEL)
Run = Callable[..., str]
Document = Callable[..., Any]


@pytest.fixture
def document(run: Run) -> Document:
    """The same with --json, read and held against the schema."""
    validate = fastjsonschema.compile(estimate_schema())
    return lambda *words: validate(json.loads(run(*words, "--json")))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, built for rk3588, and the files of its hybrid quantization beside it."""
    folder = tmp_path_factory.mktemp("package")
    build = (MODEL, "--dataset", str(demo.DATASET), "--std", "255", "--target", "rk3588", "-q")
    assert cli.main(["build", *build, "-o", str(folder / "digits.rknn")]) == 0
    assert cli.main(["hybrid", *build, "--folder", str(folder)]) == 0
    return folder / "digits.rknn"


def cfg(folder: Path, name: str = "one.quantization.cfg", **wishes: str) -> str:
    lines = [f"  {tensor}: {precision}" for tensor, precision in wishes.items()]
    path = folder / name
    path.write_text("\n".join(["custom_quantize_layers:", *lines]) if lines else "custom_quantize_layers: {}")
    return str(path)


def precisions(found: Any) -> dict[str, str]:
    return {layer["name"]: layer["precision"] for layer in found["layers"]}


# What is estimated


def test_a_model_is_int8_on_the_default_target_without_samples(document: Document) -> None:
    found = document("perf", MODEL)
    assert (found["kind"], found["model"], found["cfg"]) == ("estimate", MODEL, None)
    assert (found["target"], found["built"], found["cores"], found["batch"]) == ("rk3566", "int8", 1, 1)
    assert "estimates" not in found and "worst" not in found
    session = Session()
    names = [layer.name for layer in session.load(MODEL).layers if layer.op != "Input"]
    assert [layer["name"] for layer in found["layers"]] == names
    times = [layer["time_us"] for layer in found["layers"]]
    assert found["totals"]["time_us"] == pytest.approx(sum(times)) and sum(times) > 0
    assert "blocks" not in found["memory"]


def test_memory_adds_the_plan(document: Document) -> None:
    found, perf = document("memory", MODEL), document("perf", MODEL)
    blocks = found["memory"].pop("blocks")
    assert found == perf
    assert found["memory"]["internal_bytes"] == max(block["offset"] + block["bytes"] for block in blocks)


def test_float16_is_asked_for(document: Document) -> None:
    found, int8 = document("perf", MODEL, "--float16"), document("perf", MODEL)
    assert found["built"] == "float16"
    assert set(precisions(found).values()) <= {"float16", ""}
    assert found["memory"]["weight_bytes"] > int8["memory"]["weight_bytes"]


def test_batch_and_cores_are_told(document: Document) -> None:
    found = document("perf", MODEL, "--target", "rk3588", "--cores", "3", "--batch", "4")
    assert (found["cores"], found["batch"]) == (3, 4)
    assert found["totals"]["macs"] == 4 * document("perf", MODEL, "--target", "rk3588")["totals"]["macs"]


def test_a_cfg_gives_layers_other_precisions(run: Run, document: Document, tmp_path: Path) -> None:
    path = cfg(tmp_path, features="float16")
    found = document("perf", MODEL, "--cfg", path)
    assert found["cfg"] == path
    assert found["built"] == "int8"
    changed = {name for name, precision in precisions(found).items() if "float16" in precision}
    assert "features" in changed
    assert changed < set(precisions(found))


def test_a_settings_file_serves_as_for_build(document: Document, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("target_platform: rk3588\nfloat16: true\nstd_values: [[255]]\n")
    found = document("perf", MODEL, "--config", str(tmp_path / "model.yaml"))
    assert (found["target"], found["built"]) == ("rk3588", "float16")
    assert document("perf", MODEL, "--config", str(tmp_path / "model.yaml"), "--target", "rk3562")["target"] == "rk3562"


def test_a_package_is_taken_as_it_was_built(run: Run, document: Document, package: Path) -> None:
    found = document("perf", str(package))
    assert (found["target"], found["built"]) == ("rk3588", "int8")
    assert document("perf", str(package), "--target", "rk3566")["target"] == "rk3566"
    notes = document("perf", str(package), "--target", "rv1106")["notes"]
    assert any("built for rk3588" in note for note in notes) and any("float16" in note for note in notes)
    size = f"current model size is: {package.stat().st_size / (1 << 20):.2f} MiB"
    assert size in run("memory", str(package))
    assert "INFO" not in run("memory", MODEL)


def test_the_model_of_hybrid_quantization_is_taken_as_its_cfg_says(document: Document, package: Path) -> None:
    model = next(package.parent.glob("*.model"))
    beside = model.with_suffix(".quantization.cfg")
    found = document("perf", str(model))
    assert found["target"] == "rk3588"
    text = beside.read_text()
    wish = "custom_quantize_layers:\n    features: float16\n"
    edited = package.parent / "edited.cfg"
    edited.write_text(text.replace("custom_quantize_layers: {}\n", wish))
    assert wish in edited.read_text()
    two = document("perf", str(model), "--cfg", str(beside), "--cfg", str(edited))
    assert [precisions(one)["features"] for one in two["estimates"]] == ["int8", "int8+float16"]


# Side by side


def test_several_targets_stand_side_by_side(run: Run, document: Document) -> None:
    words = ("perf", MODEL, "--target", "rk3566,RK3588", "--target", "rk3566")
    assert [one["target"] for one in document(*words)["estimates"]] == ["rk3566", "rk3588"]
    head = next(line for line in run(*words).splitlines() if line.startswith("FullName"))
    assert head.split() == ["FullName", "rk3566", "rk3588"]
    assert document("perf", MODEL, "--target", "rk3588,rv1106")["estimates"][1] == document(
        *("perf", MODEL, "--target", "rv1106")
    )


def test_all_targets_but_those_that_cannot_are_shown(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [one["target"] for one in document("memory", MODEL, "--target", "all")["estimates"]] == list(TARGETS)
    for words in (["--float16"], ["--cfg", cfg(tmp_path, features="float16")]):
        capsys.readouterr()
        assert cli.main(["perf", MODEL, "--target", "all", *words]) == 0
        captured = capsys.readouterr()
        head = next(line for line in captured.out.splitlines() if line.startswith("FullName"))
        assert head.split()[1:] == [name for name in TARGETS if not name.startswith("rv")]
        assert "rv1106 is left out: it cannot run layers in float16" in captured.err
    cores = document("perf", MODEL, "--target", "all", "--cores", "2")
    assert [one["target"] for one in cores["estimates"]] == ["rk3576", "rk3588"]


def test_cfgs_stand_side_by_side(run: Run, document: Document, tmp_path: Path) -> None:
    paths = [cfg(tmp_path, "before.cfg"), cfg(tmp_path, "after.cfg", features="float16")]
    words = ("perf", MODEL, "--cfg", paths[0], "--cfg", paths[1])
    assert [one["cfg"] for one in document(*words)["estimates"]] == paths
    rows = {line.split()[0]: line.split()[1:] for line in run(*words).splitlines()}
    assert rows["FullName"] == ["before", "after"]
    assert rows["features"][::2] == ["int8", "int8+float16"]


# What is shown


def test_the_ten_slowest_layers_are_shown_or_all_or_fewer(run: Run, document: Document) -> None:
    layers = document("perf", MODEL)["layers"]
    assert len(layers) > 10

    def shown(*words: str) -> list[str]:
        lines = run("perf", MODEL, *words).splitlines()
        return [line.split()[-1] for line in lines if line.split()[:1] and line.split()[0].isdecimal()]

    by_time = [layer["name"] for layer in sorted(layers, key=lambda layer: -layer["time_us"])]
    assert shown()[:10] == by_time[:10]
    assert shown("--worst", "3")[:3] == by_time[:3]
    assert shown("--layers") == [layer["name"] for layer in layers]
    assert document("perf", MODEL, "--worst", "3")["worst"] == by_time[:3]


def test_both_forms_say_that_they_are_estimates(run: Run) -> None:
    for verb in ("perf", "memory"):
        for more in ((), ("--target", "rk3566,rk3588")):
            assert "ESTIMATE, not a measurement" in run(verb, MODEL, *more).splitlines()[2]


def test_the_layers_are_written_as_csv(run: Run, document: Document, tmp_path: Path) -> None:
    text = run("perf", MODEL, "--csv", "layers.csv")
    assert text.splitlines()[-1] == "wrote layers.csv"
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = document("perf", MODEL)["layers"]
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    assert [float(row["time_us"]) for row in rows] == [layer["time_us"] for layer in layers]
    run("memory", MODEL, "--target", "rk3566,rk3588", "--csv", "layers.csv")
    with (tmp_path / "layers.csv").open(newline="") as file:
        assert {row["target"] for row in csv.DictReader(file)} == {"rk3566", "rk3588"}
    assert [path.name for path in tmp_path.iterdir()] == ["layers.csv"]


@pytest.mark.parametrize("verb", ["perf", "memory"])
def test_the_schema_can_be_asked_for_without_a_model(verb: str, run: Run) -> None:
    assert json.loads(run(verb, "--schema")) == estimate_schema()


def test_every_field_of_the_schema_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Time and memory") : readme.index("## More accuracy")]
    schema = estimate_schema()
    for place in (schema, *schema["definitions"].values()):
        assert [name for name in place["properties"] if f"`{name}`" not in section] == []


# Wrong use


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "MODEL"),
        ([MODEL, "--target", "rk3658"], "'rk3568'"),
        ([MODEL, "--target", "rk3588,rk3658"], "'rk3568'"),
        ([MODEL, "--target", "rk3588,"], "--target"),
        ([MODEL, "--target", ""], "--target"),
        ([MODEL, "--cores", "0"], "positive"),
        ([MODEL, "--cores", "2"], "rk3566: has 1 NPU core, not 2"),
        ([MODEL, "--cores", "4", "--target", "rk3588"], "has 3 NPU cores"),
        ([MODEL, "--cores", "4", "--target", "all"], "rk3588 has 3 NPU cores, not 4"),
        ([MODEL, "--batch", "-1"], "positive"),
        ([MODEL, "--worst", "0"], "positive"),
        ([MODEL, "--worst", "3", "--layers"], "--layers"),
        ([MODEL, "--float16", "--cfg", "a.cfg"], "--float16"),
        ([MODEL, "--data", "a.data"], "--data"),
        (["a.model", "--float16"], "--float16"),
        ([MODEL, "--csv", MODEL], "would replace"),
        ([MODEL, "--layer"], "'--layers'"),
        ([MODEL, "--input-size", "1,-3"], "positive"),
        ([MODEL, "--std", "0"], "--std"),
        ([MODEL, "b.onnx"], "b.onnx"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_way_out(words: list[str], hint: str, run: Run) -> None:
    error = run("perf", *words, code=2)
    assert error.startswith("error: ") and hint in error


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["missing.onnx"], "missing.onnx"),
        ([MODEL, "--cfg", "missing.cfg"], "missing.cfg"),
        ([MODEL, "--csv", "no/such/folder.csv"], "folder does not exist"),
        ([MODEL, "--float16", "--target", "rv1106"], "rv1106: cannot run layers in float16"),
        ([MODEL, "--input-size", "1,1,24"], "--input-size"),
        ([MODEL, "--output", "fatures"], "'features'"),
        (["missing.model"], "missing."),
        ([MODEL, "--batch", "100000"], "--batch"),
    ],
)
def test_what_cannot_be_estimated_fails_with_its_reason(words: list[str], hint: str, run: Run) -> None:
    error = run("perf", *words, code=1)
    assert error.startswith("error: ") and hint in error
    assert "Traceback" not in error and "unexpected" not in error


@pytest.mark.parametrize(
    ("wishes", "target", "hint"),
    [
        ({"featuers": "float16"}, "rk3588", "'features'"),
        ({"features": "float17"}, "rk3588", "'features'"),
        ({"features": "float16"}, "rv1106", "'features'"),
        ({"features": "float17"}, "all", "'features'"),
    ],
)
def test_wishes_that_cannot_be_are_refused_with_the_cfgs_name(
    wishes: dict[str, str], target: str, hint: str, run: Run, tmp_path: Path
) -> None:
    error = run("perf", MODEL, "--target", target, "--cfg", cfg(tmp_path, **wishes), code=1)
    assert "one.quantization.cfg" in error and hint in error


def test_cores_are_judged_before_wishes(run: Run, tmp_path: Path) -> None:
    assert "--cores" in run("perf", MODEL, "--cores", "2", "--cfg", cfg(tmp_path, features="float16"), code=2)


def test_a_cfg_that_is_none_is_refused_with_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.cfg").write_text("custom_quantize_layers:\n  features: [1, 2]\n")
    assert "bad.cfg line 2" in run("perf", MODEL, "--cfg", "bad.cfg", code=1)
    (tmp_path / "bad.cfg").write_bytes(b"\xff\xfe\x00")
    assert "bad.cfg" in run("perf", MODEL, "--cfg", "bad.cfg", code=1)


# Real models


@needs_zoo
@pytest.mark.parametrize(
    "words",
    [
        ["onnx/ch_PP-OCRv4_det_infer/ch_PP-OCRv4_det_infer.onnx", "--input-size", "1,3,480,480"],
        ["tflite/mobilenet_v1_0.25_128_quant"],
        ["caffe/mtcnn_det1/det1.prototxt"],
        ["darknet/yoloface50k/yoloface-50k.cfg"],
    ],
)
def test_models_of_each_framework_are_estimated_as_the_schema_says(words: list[str], document: Document) -> None:
    path = FOLDER / words[0]
    model = next(path.glob("*.tflite")) if path.is_dir() else path
    for precision in ([], ["--float16"]):
        found = document("memory", str(model), *words[1:], "--target", "rk3566,rk3588", *precision)
        for one in found["estimates"]:
            assert one["totals"]["time_us"] > 0 and one["memory"]["total_bytes"] > 0
