"""Equalization keeps what a network computes, and lets what lies between convolutions fill its range."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from engine.analysis.judging import Judge
from engine.config import Config
from engine.frontends import onnx as onnx_frontend
from engine.graph.execution import random_feeds, run_float
from engine.graph.given import GivenParameters, given, keep
from engine.graph.layers import layers
from engine.graph.optimize import optimize
from engine.graph.provenance import mark_source, sources
from engine.graph.query import constant
from engine.progress import Progress
from engine.quantization.equalization import equalize
from engine.quantization.quantize import quantize
from engine.quantization.quantized import Quantized
from engine.quantization.statistics import collect
from tests.small_networks import Array, integers, network, random, typed
from tests.zoo import needs_zoo, onnx_models


def uneven(*shape: int, axis: int = 0, seed: int = 0) -> Array:
    """Random weights whose channels along `axis` differ up to eightfold."""
    spread = np.linspace(0.25, 2.0, shape[axis], dtype=np.float32)
    return random(*shape, seed=seed) * spread.reshape([-1 if i == axis else 1 for i in range(len(shape))])


CONSTANTS = {
    "w": uneven(6, 3, 3, 3), "b": random(6), "v": uneven(4, 6, 1, 1, axis=1), "c": random(4),
    "depthwise": uneven(6, 1, 3, 3), "grouped": uneven(4, 3, 1, 1), "slope": np.full((6, 1, 1), 0.1, np.float32),
    "up": uneven(6, 2, 2, 2), "fromup": uneven(2, 4, 1, 1), "dense": uneven(6, 5),
    "dense2": uneven(3, 5, axis=1), "d": random(5), "flat": integers(1, 6), "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32), "one": np.array(1, np.float32), "around": integers(0, 0, 1, 1, 0, 0, 1, 1),
    "before": integers(0, 1, 0, 0, 0, -1, 0, 0), "twice": np.array([1, 1, 2, 2], np.float32),
}  # fmt: skip


def graph(body: str, outputs: tuple[str, ...] = ("y",), constants: Mapping[str, Array] = CONSTANTS) -> ir.Model:
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: array for name, array in constants.items() if name in words}
    model: ir.Model = ir.from_proto(typed(network({"x": (1, 3, 8, 8)}, body, used, outputs)))
    mark_source(model.graph)
    return model


def assert_same_function(before: ir.Model, after: ir.Model) -> None:
    feeds = random_feeds(before)
    for one, other in zip(run_float(before, feeds), run_float(after, feeds), strict=True):
        if one.dtype.kind == "f":
            assert float(np.abs(one - other).max(initial=0.0)) <= 1e-5 * float(np.abs(one).max(initial=0.0))


def arrays(model: ir.Model) -> dict[str, Array]:
    return {name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value is not None}


def samples(count: int) -> list[dict[str, Array]]:
    return [{"x": random(1, 3, 8, 8, seed=seed)} for seed in range(count)]


@pytest.mark.parametrize(
    ("between", "last"),
    [
        ("r = Identity (a)", "y = Conv (r, v, c)"),
        ("r = Relu (a)", "y = Conv (r, v)"),
        ("r = LeakyRelu <alpha = 0.2> (a)", "y = Conv (r, v, c)"),
        ("r = PRelu (a, slope)", "y = Conv (r, v, c)"),
        ("r = Clip (a, zero)", "y = Conv (r, v, c)"),
        ("m = MaxPool <kernel_shape = [2, 2]> (a)\nr = Relu (m)", "y = Conv (r, v, c)"),
        ("r = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (a)", "y = Conv (r, v, c)"),
        ("r = Pad (a, around)", "y = Conv (r, v, c)"),
        ('r = Resize <mode = "linear"> (a, , twice)', "y = Conv (r, v, c)"),
        ("r = Relu (a)", "y = Conv <group = 2> (r, grouped)"),
        ("r = Relu (a)", "y = Conv <group = 6> (r, depthwise)"),
        ("r = Relu (a)", "y = ConvTranspose <strides = [2, 2]> (r, up)"),
        ("r = Relu (a)\nt = ConvTranspose <group = 2, strides = [2, 2]> (r, up)", "y = Conv <group = 1> (t, fromup)"),
        ("p = GlobalAveragePool (a)\nr = Reshape (p, flat)", "y = Gemm (r, dense, d)"),
        ("p = GlobalMaxPool (a)\nr = Flatten (p)\ng = Gemm (r, dense, d)", "y = Gemm <transB = 1> (g, dense2)"),
        ("r = Relu (a)\nm = Conv <group = 6> (r, depthwise)\ns = Relu (m)", "y = Conv (s, v, c)"),
    ],
)
@pytest.mark.parametrize("with_samples", [False, True])
def test_channels_are_scaled_through_what_lets_factors_through(between: str, last: str, with_samples: bool) -> None:
    before = graph(f"a = Conv (x, w, b)\n{between}\n{last}")
    untouched = {name: array.copy() for name, array in arrays(before).items()}
    equalized = equalize(before, samples(2) if with_samples else ())
    convolutions = [n.outputs[0].name for n in before.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm")]
    assert [(p.first, p.second) for p in equalized.pairs] == list(itertools.pairwise(convolutions))
    assert all(pair.largest > 1.1 for pair in equalized.pairs)
    assert_same_function(before, equalized.model)
    assert all(np.array_equal(array, untouched[name]) for name, array in arrays(before).items())


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("a = Conv (x, w, b)\nr = Clip (a, zero, six)\ny = Conv (r, v, c)", ("y",)),
        ("a = Conv (x, w, b)\nr = HardSwish (a)\ny = Conv (r, v, c)", ("y",)),
        ("a = Conv (x, w, b)\nr = Sigmoid (a)\ny = Conv (r, v, c)", ("y",)),
        ("a = Conv (x, w, b)\nr = Pad (a, around, one)\ny = Conv (r, v, c)", ("y",)),
        ("a = Conv (x, w, b)\nr = Pad (a, before)\ny = Conv (r, v, c)", ("y",)),
        ("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)\nz = Tanh (r)", ("y", "z")),
        ("a = Conv (x, w, b)\ny = Conv (a, v, c)", ("y", "a")),
        ("a = Conv (x, w, b)\ny = Relu (a)", ("y",)),
        ("a = Conv (x, w, b)\ny = Mul (a, a)", ("y",)),
    ],
)
def test_a_model_without_pairs_is_given_back(body: str, outputs: tuple[str, ...]) -> None:
    model = graph(body, outputs)
    equalized = equalize(model, samples(1))
    assert equalized.model is model and equalized.pairs == ()


@pytest.mark.parametrize("name", ["w", "b", "v", "r"])
def test_grids_that_came_with_the_model_are_left_alone(name: str) -> None:
    model = graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)")
    value = next(
        v for v in [*model.graph.initializers.values(), *(n.outputs[0] for n in model.graph)] if v.name == name
    )
    keep(value, GivenParameters("int8", (0.1,), (0,)))
    assert equalize(model).pairs == ()


def test_weights_on_both_sides_of_a_channel_get_similar_ranges() -> None:
    model = equalize(graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)")).model
    made = np.abs(arrays(model)["w"]).max(axis=(1, 2, 3))
    read = np.abs(arrays(model)["v"]).max(axis=(0, 2, 3))
    assert np.ptp(np.log(made / read)) < 0.05


def test_with_samples_each_channel_is_balanced_with_the_weights_that_read_it() -> None:
    model = equalize(graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)", ("y",)), samples(4)).model
    model.graph.outputs.append(next(node.outputs[0] for node in model.graph if node.op_type == "Relu"))
    channel = np.max([run_float(model, sample)[1] for sample in samples(4)], axis=(0, 1, 3, 4))
    read = np.abs(arrays(model)["v"]).max(axis=(0, 2, 3))
    assert np.ptp(np.log(channel / read)) < 0.05


def test_an_equalized_model_loses_less_in_int8() -> None:
    # Channels that are faint but weigh much drown in the steps of the others.
    spread = np.geomspace(0.1, 10, 6).astype(np.float32)
    weights = {"w": random(6, 3, 3, 3) * spread.reshape(6, 1, 1, 1), "v": random(4, 6, 1, 1) / spread.reshape(6, 1, 1)}
    model = graph("a = Conv (x, w)\nr = Relu (a)\ny = Conv (r, v, c)", constants={**CONSTANTS, **weights})
    noise = judged(model, model)
    for few in ((), samples(4)):
        assert judged(model, equalize(model, few).model) < 0.5 * noise


def judged(original: ir.Model, model: ir.Model) -> float:
    """The noise of `model` in int8 against `original`, on samples that neither was made with."""
    config, further = Config(target_platform="rk3588"), [{"x": random(1, 3, 8, 8, seed=s)} for s in range(10, 20)]

    def quantized(one: ir.Model) -> Quantized:
        found = layers(one)
        return Quantized(one, found, quantize(one, found, collect(one, samples(4), 4, Progress()), config))

    return Judge(quantized(original), further).run(quantized(model)).noise


def test_a_constant_that_others_read_too_is_left_to_them() -> None:
    body = """
    a = Conv (x, w, b)
    r = Relu (a)
    y = Conv (r, v, c)
    e = Conv (x, w, b)
    t = Tanh (e)
    z = Conv (t, v, c)
    """
    before = graph(body, ("y", "z"))
    equalized = equalize(before)
    assert [(p.first, p.second) for p in equalized.pairs] == [("a", "y")]
    assert_same_function(before, equalized.model)


def test_channels_without_weights_stay_and_factors_are_bounded() -> None:
    extreme = {**CONSTANTS, "w": CONSTANTS["w"].copy(), "v": CONSTANTS["v"].copy()}
    extreme["w"][0], extreme["w"][1], extreme["v"][:, 2] = 0.0, 1e-9, 0.0
    before = graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)", constants=extreme)
    for equalized in (equalize(before), equalize(before, samples(2))):
        assert 1.0 < equalized.pairs[0].largest <= 8.0
        assert np.array_equal(arrays(equalized.model)["w"][[0, 2]], extreme["w"][[0, 2]])
        assert_same_function(before, equalized.model)


def test_names_and_origins_are_kept() -> None:
    before = graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)")
    output = before.graph.outputs[0]
    keep(output, GivenParameters("int8", (0.1,), (0,)))
    after = equalize(before).model
    assert [[v.name for v in n.outputs] for n in after.graph] == [[v.name for v in n.outputs] for n in before.graph]
    assert [sources(node) for node in after.graph] == [sources(node) for node in before.graph]
    assert list(after.graph.initializers) == list(before.graph.initializers)
    assert given(after.graph.outputs[0]) == given(output)


def test_a_wide_range_of_biases_stays_in_step() -> None:
    before = graph("a = Conv (x, w, b)\nr = Relu (a)\ny = Conv (r, v, c)")
    after = equalize(before).model
    first = [next(iter(model.graph)) for model in (before, after)]
    weights = [constant(node.inputs[1]) for node in first]
    biases = [constant(node.inputs[2]) for node in first]
    assert weights[0] is not None and weights[1] is not None and biases[0] is not None and biases[1] is not None
    factors = (weights[1] / weights[0]).max(axis=(1, 2, 3))
    np.testing.assert_allclose(biases[1], biases[0] * factors, rtol=1e-5)


@needs_zoo
@pytest.mark.parametrize(
    ("name", "sizes", "outputs"),
    [
        ("ch_ppocr_mobile_v2.0_cls_infer", [[1, 3, 48, 192]], None),
        # Behind its last Sigmoid almost nothing is left of random input.
        ("ch_PP-OCRv4_det_infer", [[1, 3, 96, 96]], ["p2o.Add.281"]),
        ("mtcnn_pnet", [[1, 64, 64, 3]], None),
        ("ultraface_slim320", None, None),
    ],
)
def test_real_models_compute_the_same(name: str, sizes: list[list[int]] | None, outputs: list[str] | None) -> None:
    path = next(path for path in onnx_models() if path.parent.name == name)
    model = onnx_frontend.load(path, None, sizes, outputs)
    optimize(model, 3)
    for few in ((), [random_feeds(model, 1)]):
        equalized = equalize(model, few)
        assert equalized.pairs
        assert_same_function(model, equalized.model)
