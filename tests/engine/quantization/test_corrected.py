"""The corrected model leaves as plain ONNX: the same graph with other weights and biases, and the same integers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engine.graph.execution import random_feeds, run_float
from engine.graph.layers import layers
from engine.ort import make_session, run, serialize
from engine.quantization.corrected import corrected_model
from engine.quantization.quantized import Constants, Corrections, Quantized
from engine.quantization.table import Table
from tests.small_networks import network, random, typed

BODY = """\
a = Conv (x, w, b)
c = Conv (a, w)
d = ConvTranspose <group = 2> (c, t)
r = Relu (d)
y = Conv (r, v, z)
"""


def quantized(corrections: Corrections) -> Quantized:
    constants = {
        "w": random(4, 4, 1, 1), "b": random(4), "t": random(4, 3, 1, 1), "v": random(2, 6, 1, 1), "z": random(2),
    }  # fmt: skip
    model = ir.from_proto(typed(network({"x": (1, 4, 5, 5)}, BODY, constants)))
    return Quantized(model, layers(model), Table(), corrections=corrections)


def corrections() -> Corrections:
    weights = {"a": random(4, 4, 1, 1, seed=7) / 2, "c": random(4, 4, 1, 1, seed=8), "y": random(2, 6, 1, 1, seed=9)}
    return Corrections(weights, {"a": random(4, seed=3), "c": random(4, seed=4), "d": random(6, seed=5)})


def test_without_corrections_it_is_the_float_graph() -> None:
    model = quantized(Corrections()).model
    assert ir.to_proto(corrected_model(Quantized(model, layers(model), Table()))) == ir.to_proto(model)


def test_it_computes_what_the_corrections_say_and_leaves_the_float_graph_alone() -> None:
    base = quantized(corrections())
    before = serialize(base.model)
    result = corrected_model(base)
    assert serialize(base.model) == before
    onnx.checker.check_model(serialize(result), full_check=True)
    by_hand = onnx.ModelProto.FromString(before)
    node = {n.output[0]: n for n in by_hand.graph.node}
    for kind, index, arrays in (("w", 1, base.corrections.weights), ("b", 2, base.corrections.biases)):
        for name, array in arrays.items():
            by_hand.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{kind}:{name}"))
            node[name].input[index:] = [f"{kind}:{name}", *node[name].input[index + 1 :]]
    feeds = random_feeds(base.model)
    assert np.array_equal(run_float(result, feeds)[0], run(make_session(by_hand), None, feeds)[0])


def test_names_of_tensors_stay_and_constants_that_nodes_share_are_parted() -> None:
    result = corrected_model(quantized(corrections()))
    assert [n.outputs[0].name for n in result.graph] == ["a", "c", "d", "r", "y"]
    assert set(result.graph.initializers) == {"a.weight", "b", "w", "c.bias", "t", "d.bias", "v", "z"}


@pytest.mark.parametrize("method", ["channel", "layer"])
def test_its_own_integer_weights_are_those_of_the_corrected_model(method: str) -> None:
    base = quantized(corrections())
    result = corrected_model(base)
    old, new = Constants(method, base.corrections), Constants(method)
    for before, after in zip(base.model.graph, result.graph, strict=True):
        if before.op_type != "Relu":
            mine, theirs = old.weight(before, "int8"), new.weight(after, "int8")
            for field in ("real", "scale", "zero_point"):
                assert np.array_equal(getattr(mine, field), getattr(theirs, field))
            bias = old.bias(before)
            assert (bias is None) == (new.bias(after) is None)
            assert bias is None or np.array_equal(bias, new.bias(after))
