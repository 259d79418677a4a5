"""Files that the vendor's toolkit builds of generated models are read as they were built.

RKNN_TUI_TOOLKIT names a python with the toolkit; the files that it makes are gone with the tests.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from engine.errors import FileError
from engine.files import vendor
from engine.files.vendor.model import VendorModel
from tests.engine.files.vendor import toolkit_builds
from tests.engine.files.vendor.vendor_loading import load
from tests.engine.frontends.mutations import mutate

TOOLKIT = os.environ.get("RKNN_TUI_TOOLKIT", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOLKIT, reason="RKNN_TUI_TOOLKIT names no python with the vendor's toolkit"),
    pytest.mark.xdist_group("toolkit"),
]

FULL = ("rk3562", "rk3566", "rk3568", "rk3576", "rk3588")
MINI = ("rv1103", "rv1106")
CASES = [(target, precision) for target in FULL for precision in ("int8", "float16")]
CASES += [(target, "int8") for target in MINI]
ENGINES = {"rk3562": "RKNPU t4", "rk3566": "RKNPU lite", "rk3568": "RKNPU lite", "rk3576": "RKNPU f2"}
ENGINES |= {"rk3588": "RKNPU v2", "rv1103": "RKNPU t3", "rv1106": "RKNPU t3"}
MEAN, STD = (10.0, 20.0, 30.0), (60.0, 70.0, 80.0)
LOW, HIGH = -2.0, 3.0
"""The range of the second input, which nothing normalizes."""

# An output that another node reads too, a node whose range is a rule, and one that a CPU may have to run.
NETWORK = """
<ir_version: 8, opset_import: ["": 12]>
two (float[1, 3, 16, 20] picture, float[1, 8, 16, 20] side) => (float[1, 24, 16, 20] middle, float[1, 5] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (picture, wa, ba)
    middle = Relu (a)
    b = Conv (side, wb)
    s = Add (middle, b)
    t = Tanh (s)
    p = Conv <strides = [2, 2]> (t, wc)
    g = GlobalAveragePool (p)
    f = Flatten (g)
    scores = Gemm (f, wd)
}
"""
WEIGHTS = {"wa": (24, 3, 3, 3), "ba": (24,), "wb": (24, 8, 1, 1), "wc": (12, 24, 2, 2), "wd": (12, 5)}


@dataclasses.dataclass(frozen=True)
class Builds:
    """The folder of what was built, and the printed bytes of weights and of tensors between nodes, by file."""

    folder: Path
    printed: dict[str, tuple[float, float]]

    def path(self, target: str, precision: str) -> Path:
        return self.folder / f"{target}_{precision}.rknn"

    def read(self, target: str, precision: str) -> VendorModel:
        return vendor.read(self.path(target, precision))


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    folder = tmp_path_factory.mktemp("toolkit")
    source = np.random.default_rng(7)
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in WEIGHTS.items():
        model.graph.initializer.append(numpy_helper.from_array(source.normal(0, 0.3, shape).astype(np.float32), name))
    onnx.save(model, folder / "two.onnx")
    lines = []
    for number in range(3):
        picture = source.integers(0, 256, (1, 3, 16, 20)).astype(np.float32)
        side = source.uniform(LOW, HIGH, (1, 8, 16, 20)).astype(np.float32)
        # The extremes of every range are known.
        picture[0, :, 0, 0], picture[0, :, 0, 1] = 0, 255
        side[0, 0, 0, 0], side[0, 0, 0, 1] = LOW, HIGH
        for name, array in (("p", picture), ("s", side)):
            np.save(folder / f"{name}{number}.npy", array)
        lines.append(f"p{number}.npy s{number}.npy")
    (folder / "dataset.txt").write_text("\n".join(lines) + "\n")
    config = {
        "mean_values": [MEAN, [0] * 8],
        "std_values": [STD, [1] * 8],
        "custom_string": "hello 42",
    }
    common: dict[str, Any] = {"model": "two.onnx", "config": config}
    jobs = [
        {
            **common,
            "output": f"{target}_{precision}.rknn",
            "target": target,
            "dataset": "dataset.txt" if precision == "int8" else None,
        }
        for target, precision in CASES
    ]
    jobs.append({**common, "output": "cfg", "target": "rk3588", "dataset": "dataset.txt", "step1": True})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [TOOLKIT, toolkit_builds.__file__, "jobs.json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert "\nDONE" in done.stdout, done.stdout[-2000:]
    printed = {}
    for part in re.split(r"\nBUILD ", done.stdout)[1:]:
        sizes = dict(re.findall(r"Total (Weight|Internal) Memory Size: ([\d.]+)KB", part))
        if sizes:
            printed[part.split(maxsplit=1)[0]] = float(sizes["Weight"]) * 1024, float(sizes["Internal"]) * 1024
    return Builds(folder, printed)


@pytest.mark.parametrize(("target", "precision"), CASES)
class TestEveryBuild:
    def test_what_was_set_comes_back(self, target: str, precision: str, builds: Builds) -> None:
        model = builds.read(target, precision)
        assert not model.partial
        assert (model.target, model.engine, model.framework) == (target, ENGINES[target], "ONNX")
        assert model.family == ("mini" if target in MINI else "full")
        assert model.custom_string == "hello 42"
        assert model.compiler in model.compiler_text
        assert [(one.name, one.shape) for one in model.inputs] == [
            ("picture", (1, 3, 16, 20)),
            ("side", (1, 8, 16, 20)),
        ]
        assert [(one.name, one.shape) for one in model.outputs] == [("middle", (1, 24, 16, 20)), ("scores", (1, 5))]
        assert {one.dtype for one in (*model.inputs, *model.outputs)} == {precision}
        assert model.normalization[0].mean[:3] == MEAN and model.normalization[0].std[:3] == STD
        assert set(model.normalization[1].mean) == {0.0} and set(model.normalization[1].std) == {1.0}
        assert model.build_info["attrs"]["picture"]["shape"] == [1, 3, 16, 20]

    def test_memory_is_what_the_toolkit_prints(self, target: str, precision: str, builds: Builds) -> None:
        model = builds.read(target, precision)
        memory = model.memory
        weights, internal = builds.printed[f"{target}_{precision}.rknn"]
        # It prints six digits.
        assert memory.internal == pytest.approx(internal, rel=1e-5)
        held = [one for one in model.tensors if one.kind in ("weight", "constant")]
        assert sum(map(rounded, (one.bytes for one in held))) == pytest.approx(weights, rel=1e-5)
        if target in FULL:
            # The figure in the file counts what it stores, some of which is padded beyond what is printed.
            assert memory.weights == sum(map(rounded, (one.stored for one in held)))
            assert memory.weights == pytest.approx(weights, rel=0.02)
        else:
            assert memory.weights == weights
        assert memory.register_commands > 0 and memory.tasks > 0 and not memory.counted

    def test_layers_lead_from_the_inputs_to_the_outputs(self, target: str, precision: str, builds: Builds) -> None:
        summary = builds.read(target, precision).summary()
        layers = {layer.name: layer for layer in summary.layers}
        assert [name for name, layer in layers.items() if layer.op == "Input"] == ["picture", "side"]
        assert layers["middle"].op == "ConvRelu" and layers["middle"].inputs == ("picture",)
        assert layers["s"].inputs == ("side", "middle") and layers["s"].precision == precision
        seen, left = set(), ["middle", "scores"]
        while left:
            name = left.pop()
            seen.add(name)
            left += [one for one in layers[name].inputs if one not in seen]
        assert {"picture", "side"} <= seen
        assert summary.built == precision

    def test_damage_does_no_harm(self, target: str, precision: str, builds: Builds, tmp_path: Path) -> None:
        data = builds.path(target, precision).read_bytes()
        path = tmp_path / "m.rknn"
        for number in range(100):
            path.write_bytes(mutate(data, "bytes", random.Random(f"{target} {precision} {number}")))
            try:
                load(path)
            except FileError as error:
                assert str(path) in str(error)


def rounded(size: int) -> int:
    """Bytes that a weight takes: it begins at a multiple of 64."""
    return (size + 63) // 64 * 64


def grid(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a range, which is widened to contain 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    return scale, round(-128 - low / scale)


@pytest.mark.parametrize("target", [*FULL, *MINI])
class TestQuantized:
    def test_scales_and_zero_points_are_those_of_the_ranges_put_in(self, target: str, builds: Builds) -> None:
        picture, side = builds.read(target, "int8").inputs
        low = min((0 - mean) / std for mean, std in zip(MEAN, STD, strict=True))
        high = max((255 - mean) / std for mean, std in zip(MEAN, STD, strict=True))
        for port, (scale, zero_point) in ((picture, grid(low, high)), (side, grid(LOW, HIGH))):
            assert port.scale == pytest.approx((scale,), rel=1e-6) and port.zero_point == (zero_point,)
        if target in FULL:
            assert (*side.minimum, *side.maximum) == (LOW, HIGH)
            assert (*picture.minimum, *picture.maximum) == pytest.approx((low, high))

    def test_every_tensor_has_what_the_cfg_says(self, target: str, builds: Builds) -> None:
        rows = yaml.safe_load((builds.folder / "two.quantization.cfg").read_text())["quantize_parameters"]
        tensors = {one.name: one for one in builds.read(target, "int8").tensors if one.scale}
        compared = set()
        for name, tensor in tensors.items():
            # What the float model hands over has its integers in a row of their own.
            row = rows.get(f"{name}_int8") or rows.get(name)
            if row is not None and row["scale"]:
                assert tensor.scale == pytest.approx(row["scale"], rel=1e-6), name
                assert list(tensor.zero_point) == row["zero_point"], name
                compared.add(name)
        assert {"picture", "side", "middle", "s", "t", "p", "g", "scores"} <= compared

    def test_ranges_give_scales_and_zero_points(self, target: str, builds: Builds) -> None:
        for tensor in builds.read(target, "int8").tensors:
            if tensor.scale and tensor.minimum:
                scale, zero_point = grid(tensor.minimum[0], tensor.maximum[0])
                assert math.isclose(tensor.scale[0], scale, rel_tol=1e-6), tensor
                assert tensor.zero_point == (zero_point,), tensor


def test_twins_differ_in_the_target_only(builds: Builds) -> None:
    """RK3566 and RK3568, RV1103 and RV1106 have the same NPU."""
    for one, other in (("rk3566", "rk3568"), ("rv1103", "rv1106")):
        first, second = builds.read(one, "int8"), builds.read(other, "int8")
        assert (first.target, second.target) == (one, other)
        assert dataclasses.replace(second, path=first.path, target=one, file_bytes=first.file_bytes) == first


def test_cores_share_what_can_be_shared(builds: Builds) -> None:
    for target, most in (("rk3588", 3), ("rk3576", 2), ("rk3566", 1), ("rv1106", 1)):
        cores = {node.op: node.cores for node in builds.read(target, "int8").nodes}
        assert (cores["ConvRelu"], cores["Tanh"], cores["InputOperator"]) == (most, 1, 1)


def test_a_float16_model_has_no_scales(builds: Builds) -> None:
    for target in FULL:
        model = builds.read(target, "float16")
        assert not any(one.scale for one in model.tensors)
        assert {one.dtype for one in model.tensors if one.kind == "virtual"} == {"float16"}


def test_a_build_that_is_cut_short_is_refused_wherever_it_is_cut(builds: Builds, tmp_path: Path) -> None:
    path = tmp_path / "m.rknn"
    for target in ("rk3588", "rv1106"):
        data = builds.path(target, "int8").read_bytes()
        for percent in range(100):
            path.write_bytes(data[: len(data) * percent // 100])
            with pytest.raises(FileError):
                load(path)


def test_a_session_is_told_what_the_file_is(builds: Builds) -> None:
    error = vendor.refusal(builds.path("rk3588", "int8"))
    assert "rk3588" in str(error) and "only on a board" in str(error)
