"""Calibration notes exactly what numpy would find in every tensor of every sample, and never passes over NaN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from engine.errors import Cancelled, DatasetError, QuantizationError
from engine.frontends.onnx import load
from engine.graph.execution import random_feeds
from engine.graph.optimize import optimize
from engine.ort import make_session, run
from engine.progress import Progress
from engine.quantization.statistics import Array, collect, largest_working_set
from tests.zoo import needs_zoo, onnx_models

# One node of each kind whose range follows from its input's, behind and beside nodes that are measured.
MIXED = """
    <ir_version: 9, opset_import: ["": 18]>
    mixed (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,8,3,3] deep)
    <float[4,4,3,3] w, float low = {-0.25}, float high = {0.5},
     int64[3] flat = {1, 4, 36}, int64[4] four = {1, 4, 6, 6}>
    {
        conv = Conv <pads = [1, 1, 1, 1]> (x, w)
        relu = Relu (conv)
        clip = Clip (conv, low, high)
        least = Clip (conv, low)
        turned = Transpose <perm = [0, 1, 3, 2]> (relu)
        rows = Reshape (turned, flat)
        soft = Softmax <axis = -1> (rows)
        back = Reshape (soft, four)
        joined = Concat <axis = 1> (clip, least, back, conv)
        part, rest = Split <axis = 1, num_outputs = 2> (joined)
        deep = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (rest)
        hard = HardSwish (conv)
        y = Mul (hard, back)
    }
"""

# Of the real models whose own are not fixed.
SIZES = {
    "ch_PP-OCRv4_det_infer": [[1, 3, 96, 96]],
    "ch_ppocr_mobile_v2.0_cls_infer": [[1, 3, 48, 192]],
    "magika": [[1, 2048]],
    "mtcnn_pnet": [[1, 60, 80, 3]],
}


def text_model(text: str, **arrays: Array) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    for value in [v for v in proto.graph.value_info if v.name in arrays]:
        proto.graph.value_info.remove(value)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(arrays[value.name], value.name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def extremes(model: ir.Model, samples: list[dict[str, Array]]) -> dict[str, tuple[float, float]]:
    """numpy's minimum and maximum of every float tensor, all of them taken out of ONNX Runtime."""
    proto = ir.to_proto(model)
    inputs = [v.name or "" for v in model.graph.inputs if v.dtype == ir.DataType.FLOAT]
    names = [v.name or "" for n in model.graph for v in n.outputs if v.name and v.dtype == ir.DataType.FLOAT]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = make_session(proto, optimization="none", threads=1)
    found: dict[str, tuple[float, float]] = {}
    for sample in samples:
        arrays = [sample[name] for name in inputs] + run(session, names, dict(sample))
        for name, array in zip(inputs + names, arrays, strict=True):
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(array.min())), max(high, float(array.max()))
    return found


def test_every_tensor_has_numpys_extremes_to_the_bit_over_all_samples() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)
    model = text_model(MIXED, w=weight)
    samples = [random_feeds(model, seed) for seed in range(7)]
    statistics = collect(model, iter(samples), 7, Progress())
    assert statistics.samples == 7
    assert statistics.ranges == extremes(model, samples)
    assert statistics.ranges == collect(model, samples, 0, Progress()).ranges  # an unknown total changes nothing


@needs_zoo
@pytest.mark.parametrize("path", onnx_models(), ids=lambda path: path.parent.name)
def test_real_models_have_numpys_extremes_to_the_bit(path: Path) -> None:
    model = load(path, None, SIZES.get(path.parent.name))
    optimize(model, 3)
    samples = [random_feeds(model, seed) for seed in range(3)]
    assert collect(model, samples, 3, Progress()).ranges == extremes(model, samples)


@pytest.mark.parametrize(
    ("nodes", "guilty"),
    [
        ("a = Sqrt (x)\n y = Relu (a)", "a"),
        ("a = Mul (x, x)\n b = Log (a)\n c = Sub (b, b)\n y = Relu (c)", "b"),
        ("a = Div (x, x)\n y = Clip (a, low, high)", "a"),
    ],
)
def test_one_nan_among_many_numbers_is_found_where_it_arises(nodes: str, guilty: str) -> None:
    model = text_model(
        f"""<ir_version: 9, opset_import: ["": 18]>
        g (float[1,3,40,40] x) => (float[1,3,40,40] y) <float low = {{0}}, float high = {{1}}> {{ {nodes} }}"""
    )
    sample = np.random.default_rng(1).uniform(1, 2, (1, 3, 40, 40)).astype(np.float32)
    fine = {"x": sample.copy()}
    sample[0, 1, 20, 20] = -1.0 if guilty == "a" and "Sqrt" in nodes else 0.0
    with pytest.raises(QuantizationError, match=rf"tensor '{guilty}' .* on sample 2") as caught:
        collect(model, [fine, {"x": sample}], 2, Progress())
    assert caught.value.hint


def test_a_broken_weight_is_found_though_it_spoils_one_channel_only() -> None:
    weight = np.ones((4, 4, 3, 3), np.float32)
    weight[2, 0, 1, 1] = np.nan
    with pytest.raises(QuantizationError, match="tensor 'conv' becomes infinite or not a number"):
        model = text_model(MIXED, w=weight)
        collect(model, [random_feeds(model)], 1, Progress())


def test_a_dataset_without_samples_and_a_cancelled_run_are_told_apart() -> None:
    model = text_model(MIXED, w=np.ones((4, 4, 3, 3), np.float32))
    with pytest.raises(DatasetError, match="no samples"):
        collect(model, [], 0, Progress())
    read = 0

    def samples() -> Iterator[dict[str, Array]]:
        nonlocal read
        while True:
            read += 1
            yield random_feeds(model)

    with pytest.raises(Cancelled):
        collect(model, samples(), 1000, Progress(cancelled=lambda: read > 10))
    assert read < 30


def test_the_working_set_is_what_is_alive_at_once_not_the_sum() -> None:
    chain = "\n".join(f"t{i + 1} = Neg (t{i})" for i in range(20))
    model = text_model(
        f"""<ir_version: 9, opset_import: ["": 18]>
        chain (float[1,250,1000] t0) => (float[1,250,1000] t20) {{ {chain} }}"""
    )
    assert largest_working_set(model) == 2 * 1_000_000
