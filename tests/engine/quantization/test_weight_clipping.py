"""Clipped weights are never further from the original on their grid than unclipped ones, channel by channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engine.graph.given import GivenParameters, keep
from engine.quantization.weight_clipping import clip_weights
from engine.quantization.weights import quantize_weight
from tests.small_networks import Array, network, random, typed

NODES = {
    "conv": ("y = Conv (x, w)", (1, 6, 9, 9), (8, 6, 3, 3), (0,)),
    "depthwise": ("y = Conv <group = 6> (x, w)", (1, 6, 9, 9), (6, 1, 3, 3), (0,)),
    "deconvolution": ("y = ConvTranspose (x, w)", (1, 6, 9, 9), (6, 4, 3, 3), (1,)),
    "grouped deconvolution": ("y = ConvTranspose <group = 2> (x, w)", (1, 6, 9, 9), (6, 4, 3, 3), None),
    "gemm": ("y = Gemm (x, w)", (2, 64), (64, 10), (1,)),
    "transposed gemm": ("y = Gemm <transB = 1> (x, w)", (2, 64), (10, 64), (0,)),
    "matmul": ("y = MatMul (x, w)", (2, 64), (64, 10), (1,)),
}


def model(kind: str, weight: Array) -> ir.Model:
    body, shape, _, _ = NODES[kind]
    return ir.from_proto(typed(network({"x": shape}, body, {"w": weight})))


def tailed(*shape: int) -> Array:
    """Weights with a long tail, of which the ends are worth cutting."""
    return random(*shape) ** 3


def errors(graph: ir.Model, weight: Array, kept: Array, method: str, kind: str) -> Array:
    """Squared errors by channel, or in all, of the weight whose grid is that of `kept`."""
    node = next(iter(graph.graph))
    difference = (quantize_weight(node, method, "int8", kept).real.astype(np.float64) - weight) ** 2
    axes = NODES[kind][3]
    if method == "layer":
        return np.array([difference.sum()])
    if axes is None:
        return difference.reshape(2, 3, 4, 9).sum(axis=(1, 3)).reshape(-1)
    total: Array = difference.sum(axis=tuple(i for i in range(weight.ndim) if i not in axes))
    return total


@pytest.mark.parametrize("method", ["channel", "layer"])
@pytest.mark.parametrize("kind", NODES)
def test_no_channel_gets_worse(kind: str, method: str) -> None:
    weight = tailed(*NODES[kind][2])
    graph = model(kind, weight)
    clipped = clip_weights(graph, method).get("y", weight)
    assert clipped.dtype == np.float32 and clipped.shape == weight.shape
    before, after = (errors(graph, weight, kept, method, kind) for kept in (weight, clipped))
    # Sums in float32 leave ties to chance.
    assert (after <= before * (1 + 1e-5)).all()
    assert method == "layer" or after.sum() < before.sum()


def test_only_the_ends_of_a_weight_change() -> None:
    weight = tailed(8, 6, 3, 3)
    clipped = clip_weights(model("conv", weight))["y"]
    for before, after in zip(weight, clipped, strict=True):
        np.testing.assert_array_equal(after, before.clip(after.min(), after.max()))


@pytest.mark.parametrize("sign", [1, -1])
def test_one_large_weight_of_very_many_goes(sign: int) -> None:
    weight = random(512, 512, spread=0.1) * np.float32(sign)
    weight[0, 0] = sign
    graph = ir.from_proto(typed(network({"x": (1, 512)}, "y = Gemm (x, w)", {"w": weight})))
    clipped = clip_weights(graph, "layer")["y"]
    assert np.abs(clipped).max() < 0.8
    node = next(iter(graph.graph))
    before, after = (quantize_weight(node, "layer", "int8", kept).real - weight for kept in (weight, clipped))
    assert np.sum(after**2) < 0.8 * np.sum(before**2)


def test_weights_with_a_grid_of_their_own_and_those_that_fit_theirs_are_left_out() -> None:
    weight = tailed(8, 6, 3, 3)
    graph = model("conv", weight)
    value = next(iter(graph.graph)).inputs[1]
    assert value is not None
    keep(value, GivenParameters("int8", (0.5,), (0,)))
    assert clip_weights(graph) == {}
    on_grid = np.arange(-128, 128, dtype=np.float32).reshape(1, 256)
    fits = ir.from_proto(typed(network({"x": (2, 256)}, "y = Gemm <transB = 1> (x, w)", {"w": on_grid})))
    assert clip_weights(fits) == {}


def test_what_stands_in_for_a_weight_is_clipped_instead() -> None:
    graph = model("conv", random(8, 6, 3, 3))
    other = tailed(8, 6, 3, 3) * 10
    found = clip_weights(graph, replacements={"y": other})["y"]
    assert np.array_equal(found, clip_weights(model("conv", other))["y"])


@pytest.mark.parametrize("weight", [np.zeros((8, 6, 3, 3)), np.ones((8, 6, 3, 3)), -np.ones((8, 6, 3, 3))])
def test_constant_weights_stay(weight: Array) -> None:
    assert clip_weights(model("conv", weight.astype(np.float32))) == {}
