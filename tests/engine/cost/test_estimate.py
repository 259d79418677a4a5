"""Estimated cycles meet the toolkit's own tables, and a higher precision costs what it moves and computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from engine.cost.estimate import CostModel
from engine.cost.layer_costs import Machine
from engine.cost.relative import RelativeCost
from engine.graph.layers import layers
from engine.graph.query import tensors
from engine.quantization.edits import layer_wishes
from engine.quantization.quantized import Quantized
from engine.quantization.table import Row, Table
from engine.session import Session
from engine.targets import TARGETS, find_target
from tests.simulated import wished
from tests.small_networks import Array, built, network, random, typed

# Lines of the tables that RKNN-Toolkit2 2.5.0 prints while it compiles generated models: target, precision, input,
# weight, stride, groups; then its cycles of the NPU and of memory.
TABLE = [
    ("rk3566", "float16", (16, 112, 112), (64, 16, 1, 1), 1, 1, 200704, 305785),
    ("rk3566", "float16", (16, 112, 112), (64, 16, 1, 1), 2, 1, 50176, 122525),
    ("rk3566", "float16", (16, 112, 112), (16, 16, 3, 3), 1, 1, 225792, 122885),
    ("rk3566", "float16", (16, 56, 56), (16, 16, 3, 3), 2, 1, 14112, 19801),
    ("rk3566", "float16", (16, 112, 112), (16, 1, 3, 3), 1, 16, 112896, 122228),
    ("rk3566", "float16", (512, 7, 7), (512, 1, 7, 7), 1, 512, 50176, 23220),
    ("rk3566", "int8", (64, 56, 56), (256, 64, 1, 1), 1, 1, 200704, 155522),
    ("rk3588", "float16", (64, 28, 28), (16, 64, 1, 1), 1, 1, 1568, 5393),
    ("rk3588", "float16", (32, 56, 56), (32, 32, 1, 1), 1, 1, 12544, 17062),
    ("rk3588", "float16", (128, 14, 14), (128, 128, 1, 1), 2, 1, 2048, 4059),
    ("rk3588", "int8", (3, 224, 224), (64, 3, 7, 7), 2, 1, 1229312, 42447),
    ("rv1106", "int8", (128, 56, 56), (128, 128, 1, 1), 2, 1, 25088, 84288),
    ("rv1106", "int8", (256, 14, 14), (256, 1, 7, 7), 2, 256, 25088, 12469),
]


@pytest.mark.parametrize(("target_name", "precision", "shape", "weight", "stride", "groups", "npu", "memory"), TABLE)
def test_a_convolution_takes_what_the_toolkit_says(
    target_name: str,
    precision: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    stride: int,
    groups: int,
    npu: int,
    memory: int,
) -> None:
    pads, kernel = [(weight[2] - 1) // 2] * 4, list(weight[2:])
    line = (
        f"y = Conv <kernel_shape = {kernel}, pads = {pads}, strides = [{stride}, {stride}], group = {groups}> (x, w, b)"
    )
    constants: dict[str, Array] = {"w": np.ones(weight, np.float32), "b": np.ones(weight[0], np.float32)}
    model = ir.from_proto(typed(network({"x": (1, *shape)}, line, constants)))
    target = find_target(target_name)
    estimate = CostModel(model, layers(model), Machine(target)).estimate(stored(model, precision), precision)
    (layer,) = estimate.layers
    assert layer.cycles_npu == npu
    assert layer.cycles_ddr == pytest.approx(memory, rel=0.02)
    assert layer.cycles_total == max(layer.cycles_npu, layer.cycles_ddr)
    assert layer.certainty == "high"
    depthwise = (1, weight[0], *weight[2:]) if groups > 1 else weight
    assert layer.in_shapes == ((1, *shape), depthwise, (weight[0],))


def stored(model: ir.Model, precision: str) -> Table:
    """A table with every tensor in one precision."""
    return Table({v.name or "": Row(precision, 0.0, 1.0, 1 / 255, 0) for v in tensors(model.graph)})


CHAIN = """
a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1)
b = Sigmoid (a)
c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, w2)
d = Tanh (c)
f = Flatten (d)
y = Gemm (f, w3)
"""
CONSTANTS = {"w1": random(32, 16, 3, 3), "w2": random(32, 32, 3, 3, seed=1), "w3": random(32 * 64, 10)}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Session:
    proto = network({"x": (1, 16, 8, 8)}, CHAIN, CONSTANTS)
    return built(tmp_path_factory.mktemp("chain"), proto, [[random(1, 16, 8, 8)]])


def table(quantized: Quantized, names: str, precision: str) -> Table:
    """The table with these layers wished into `precision`."""
    wishes: dict[str, str] = {}
    for layer in quantized.layers:
        if layer.name in names.split():
            wishes |= layer_wishes(layer, quantized.table, precision)
    return dataclasses.replace(quantized.table, wishes=wishes)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_finer_layer_costs_time_on_every_target(chain: Session, name: str) -> None:
    target, quantized = TARGETS[name], wished(chain)
    cost = RelativeCost(quantized, target)
    finer = target.precisions[-1]
    assert cost.extra(quantized.table) == 0.0
    for layer in quantized.layers:
        assert 0.0 < cost.extra(table(quantized, layer.name, finer)) < 2.0, layer.name


def test_neighbours_share_the_conversion_between_them(chain: Session) -> None:
    quantized = wished(chain)
    cost = RelativeCost(quantized, TARGETS["rk3588"])
    alone = [cost.extra(table(quantized, name, "float16")) for name in ("c", "d")]
    assert cost.extra(table(quantized, "c d", "float16")) < sum(alone) - 1e-6


def test_what_is_brought_back_to_int8_is_faster(chain: Session) -> None:
    quantized = wished(chain)
    finer = quantized.changed(table=table(quantized, "a b c d y", "float16"))
    assert RelativeCost(finer, TARGETS["rk3588"]).extra(quantized.table) < 0.0


def test_layers_of_integers_are_not_changed(tmp_path: Path) -> None:
    session = built(tmp_path, network({"x": (1, 8)}, "y = ArgMax <axis = -1> (x)", {}), [[random(1, 8)]])
    quantized = wished(session)
    cost = RelativeCost(quantized, TARGETS["rk3588"])
    assert cost.time_us(quantized.table) > 0.0
    assert cost.extra(table(quantized, "y", "float16")) == 0.0


def test_multiplications_are_counted_as_they_are_defined() -> None:
    constants: dict[str, Array] = {"w": random(8, 4, 3, 3), "t": random(8, 6, 2, 2), "m": random(6, 10)}
    body = """
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], group = 2> (x, w)
    u = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (c, t)
    g = GlobalAveragePool (u)
    f = Flatten (g)
    y = MatMul (f, m)
    """
    model = ir.from_proto(typed(network({"x": (1, 8, 16, 16)}, body, constants)))
    estimate = CostModel(model, layers(model), Machine(TARGETS["rk3588"])).estimate(stored(model, "int8"), "int8")
    found = {layer.name: layer.macs for layer in estimate.layers}
    assert found["c"] == 8 * 8 * 9 * 4 * 8
    assert found["u"] == 8 * 8 * 4 * 8 * 6
    assert found["g"] == 0 and found["y"] == 60
