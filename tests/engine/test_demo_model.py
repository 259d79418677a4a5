"""The bundled demo: that it is valid and small, and has the damage that it is there to show."""

from __future__ import annotations

import collections
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from engine import demo

Array = np.ndarray[Any, Any]
SIDE = 24


def sample(path: Path) -> Array:
    with Image.open(path) as image:
        pixels = np.asarray(image, dtype=np.float32)
    return ((pixels - demo.MEAN[0]) / demo.STD[0]).astype(np.float32)[None, None]


def calibration_samples() -> list[Array]:
    return [sample(demo.DATASET.parent / line) for line in demo.DATASET.read_text(encoding="utf-8").splitlines()]


def run(model: onnx.ModelProto, outputs: Sequence[str], samples: Sequence[Array]) -> list[dict[str, Array]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Fusing Q/DQ pairs into int8 kernels would round otherwise than quantizing and dequantizing does.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return [dict(zip(outputs, session.run(list(outputs), {"image": x}), strict=True)) for x in samples]


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return shown


def top1(model: onnx.ModelProto) -> float:
    paths, labels = zip(*demo.test_samples(), strict=True)
    results = run(model, ["probabilities"], [sample(p) for p in paths])
    return float(
        np.mean([int(np.argmax(r["probabilities"])) == label for r, label in zip(results, labels, strict=True)])
    )


def in_int8(model: onnx.ModelProto, tensors: Sequence[str], ranges: dict[str, tuple[float, float]]) -> onnx.ModelProto:
    """The model with `tensors` rounded to asymmetric int8, one scale each: (max - min) / 255, the range holding 0."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    nodes = list(rounded.graph.node)
    del rounded.graph.node[:]
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = f"{name}/rounded" if name in tensors else name
    pairs = []
    for name in tensors:
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        scale = np.float32((high - low) / 255)
        zero_point = np.int8(np.clip(np.round(-128 - low / scale), -128, 127))
        rounded.graph.initializer.extend(
            [
                numpy_helper.from_array(np.asarray(scale), f"{name}/scale"),
                numpy_helper.from_array(np.asarray(zero_point), f"{name}/zero_point"),
            ]
        )
        parameters = [f"{name}/scale", f"{name}/zero_point"]
        pairs.append((name, helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}/int8"])))
        pairs.append((name, helper.make_node("DequantizeLinear", [f"{name}/int8", *parameters], [f"{name}/rounded"])))
    for node in nodes:
        rounded.graph.node.append(node)
        rounded.graph.node.extend(extra for name, extra in pairs if name == node.output[0])
    return rounded


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(demo.MODEL)


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every inner tensor over the calibration images."""
    names = [node.output[0] for node in model.graph.node if node.output[0] != "probabilities"]
    runs = run(with_outputs(model, names), names, calibration_samples())
    return {n: (min(float(r[n].min()) for r in runs), max(float(r[n].max()) for r in runs)) for n in names}


def test_the_model_is_valid_and_takes_one_grey_image(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {"image": [1, 1, SIDE, SIDE], "probabilities": [1, 10]}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]


def test_the_model_has_the_parts_that_it_is_there_to_show(model: onnx.ModelProto) -> None:
    made_by = {node.output[0]: node for node in model.graph.node}
    assert all(node.name == node.output[0] for node in model.graph.node)
    counts = collections.Counter(node.op_type for node in model.graph.node)
    assert {"BatchNormalization", "Relu", "Sigmoid", "Concat", "GlobalAveragePool", "Gemm", "Softmax"} <= set(counts)
    kernels = {i.name: list(i.dims) for i in model.graph.initializer}
    for name in ("local", "down"):
        assert helper.get_node_attr_value(made_by[f"{name}_depthwise"], "group") == 16
        assert kernels[f"{name}_depthwise.weight"] == [16, 1, 3, 3]
        assert kernels[f"{name}_pointwise.weight"][2:] == [1, 1]

    assert made_by["residual"].op_type == "Add"
    assert set(made_by["residual"].input) <= set(made_by), "both sides of the residual Add are computed"
    spelled_out = ["stem_plus_three", "stem_clip", "stem_product", "stem"]
    assert [made_by[name].op_type for name in spelled_out] == ["Add", "Clip", "Mul", "Div"]
    assert list(made_by["joined"].input) == ["size", "evidence"]


def test_the_joined_branches_differ_in_range_more_than_sixteenfold(ranges: dict[str, tuple[float, float]]) -> None:
    widths = {name: ranges[name][1] - min(ranges[name][0], 0.0) for name in ("size", "evidence")}
    assert widths["size"] > 16 * widths["evidence"]


def test_the_float_model_knows_the_test_digits(model: onnx.ModelProto) -> None:
    assert top1(model) >= 0.96


def test_one_int8_scale_over_the_concat_costs_accuracy_and_a_scale_for_each_branch_costs_none(
    model: onnx.ModelProto, ranges: dict[str, tuple[float, float]]
) -> None:
    # Batch normalizations and the hard-swish's insides are fused away before anything is rounded.
    inside = {"stem_plus_three", "stem_clip", "stem_product", "joined_norm"}
    rounded = [n for n in ranges if n not in inside and not n.endswith(("_conv", "_depthwise", "_pointwise"))]
    assert {"size", "evidence", "joined"} <= set(rounded)
    assert 0.6 <= top1(in_int8(model, rounded, ranges)) <= 0.9
    assert top1(in_int8(model, [n for n in rounded if n != "joined"], ranges)) >= 0.96


def test_every_dataset_line_is_a_small_grey_image_beside_it() -> None:
    lines = demo.DATASET.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) == 32
    for line in lines:
        assert not Path(line).is_absolute()
        with Image.open(demo.DATASET.parent / line) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (SIDE, SIDE))


def test_test_images_carry_labels_and_none_was_calibrated_on() -> None:
    samples = demo.test_samples()
    assert len(samples) == 64
    assert {label for _, label in samples} == set(range(10))
    calibrated = {line.split("-")[1] for line in demo.DATASET.read_text(encoding="utf-8").splitlines()}
    for path, label in samples:
        role, row, _, _ = path.stem.split("-")
        assert path.name == demo.image_name(role, int(row), label)
        assert role == "test" and row not in calibrated


def test_what_is_bundled_stays_small() -> None:
    assert demo.MODEL.stat().st_size <= 150_000
    images = list(demo.IMAGES.iterdir())
    assert len(images) == 32 + 64
    assert sum(path.stat().st_size for path in images) <= 100_000


def test_asking_for_the_demo_loads_no_model_library() -> None:
    script = "import sys, engine.demo; print({'onnx', 'onnxruntime', 'numpy', 'torch'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
