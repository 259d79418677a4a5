"""A graph with a multiplied batch computes for every sample what it computes for that sample alone, or is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from engine.demo import MODEL
from engine.errors import ModelError
from engine.frontends.onnx import load
from engine.graph.batching import with_batch
from engine.graph.execution import random_feeds, run_float
from engine.graph.optimize import optimize
from engine.graph.query import static_shape
from tests.engine.graph.graph_building import Array, build, integers, number, random

IMAGE = {"x": (1, 3, 4, 5)}


def assert_batch_equals_single_runs(model: ir.Model, batch: int = 4) -> ir.Model:
    """Also when the model's own batch is not 1. Returns the batched model."""
    before = {v.name: static_shape(v) for v in [*model.graph.inputs, *model.graph.outputs]}
    batched = with_batch(model, batch)
    for value in [*batched.graph.inputs, *batched.graph.outputs]:
        first, *rest = before[value.name]
        assert static_shape(value) == (first * batch, *rest)
    rows = [random_feeds(model, 100 + seed) for seed in range(batch)]
    together = run_float(batched, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    alone = [run_float(model, row) for row in rows]
    for index, found in enumerate(together):
        np.testing.assert_allclose(found, np.concatenate([one[index] for one in alone]), rtol=1e-4, atol=1e-5)
    assert {v.name: static_shape(v) for v in [*model.graph.inputs, *model.graph.outputs]} == before
    return batched


def test_a_batch_of_one_is_the_model_itself() -> None:
    model = build(IMAGE, "y = Relu (x)", {})
    assert with_batch(model, 1) is model


def test_the_demo_model_takes_a_batch() -> None:
    model = load(Path(MODEL))
    optimize(model, 3)
    assert_batch_equals_single_runs(model)


WEIGHTS = {"w": random(2, 3, 3, 3), "b": random(2)}


@pytest.mark.parametrize(
    ("inputs", "body", "constants"),
    [
        pytest.param(IMAGE, "y = Reshape (x, shape)", {"shape": integers(1, 60)}, id="a Reshape that spells the batch"),
        pytest.param(IMAGE, "y = Reshape (x, shape)", {"shape": integers(0, -1)}, id="a Reshape that copies it"),
        pytest.param(
            IMAGE,
            "a = Reshape (x, rows)\nr = Relu (a)\ny = Reshape (r, back)",
            {"rows": integers(12, 5), "back": integers(1, 3, 20)},
            id="Reshapes that merge the batch with another axis and part them again",
        ),
        pytest.param(
            {"x": (2, 3, 4, 5)}, "y = Reshape (x, shape)", {"shape": integers(2, 60)}, id="a model whose batch is two"
        ),
        pytest.param(
            IMAGE,
            'y = Resize <mode = "nearest"> (x, , , sizes)',
            {"sizes": integers(1, 3, 8, 10)},
            id="a Resize to sizes",
        ),
        pytest.param(
            IMAGE, "y = Resize <axes = [2, 3]> (x, , , sizes)", {"sizes": integers(8, 10)}, id="a Resize of some axes"
        ),
        pytest.param(
            IMAGE, "y = Concat <axis = 1> (x, c)", {"c": random(1, 2, 4, 5)}, id="a constant beside the channels"
        ),
        pytest.param(
            IMAGE, "y = Concat <axis = -1> (c, x)", {"c": random(1, 3, 4, 2)}, id="a constant before the columns"
        ),
        pytest.param(IMAGE, "a = Conv (x, w, b)\ny = Flatten (a)", WEIGHTS, id="a convolution"),
        pytest.param(IMAGE, "a = Transpose <perm = [0, 2, 3, 1]> (x)\ny = Softmax (a)", {}, id="another layout"),
        pytest.param(
            {"x": (1, 6), "z": (1, 6)}, "p = Add (x, z)\ny = Gemm (p, k)", {"k": random(6, 3)}, id="two inputs"
        ),
    ],
)
def test_what_spells_out_the_batch_is_rewritten(
    inputs: Mapping[str, Sequence[int]], body: str, constants: Mapping[str, Array]
) -> None:
    assert_batch_equals_single_runs(build(inputs, body, constants))


HIDDEN = 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, directions: int = 1) -> dict[str, Array]:
    rows = GATES[op] * HIDDEN
    return {
        "w": random(directions, rows, 5) / 2,
        "r": random(directions, rows, HIDDEN) / 2,
        "h": random(directions, 1, HIDDEN),
        "c": random(directions, 1, HIDDEN, seed=1),
        "lengths": np.array([6], np.int32),
    }


@pytest.mark.parametrize("op", sorted(GATES))
def test_constant_states_of_recurrent_layers_are_repeated(op: str) -> None:
    states = "h, c" if op == "LSTM" else "h"
    body = f"""
        t = Transpose <perm = [1, 0, 2]> (x)
        s, last = {op} <hidden_size = {HIDDEN}> (t, w, r, , lengths, {states})
        y = Transpose <perm = [2, 0, 1, 3]> (s)
    """
    assert_batch_equals_single_runs(build({"x": (1, 6, 5)}, body, recurrent(op)))


@pytest.mark.parametrize("level", [0, 1, 3])
def test_states_that_are_inputs_and_outputs_follow_their_samples(level: int) -> None:
    """The optimizer may drop the Transposes between a batch of one and a single direction."""
    body = f"""
        t = Transpose <perm = [1, 0, 2]> (x)
        hs = Squeeze (h0, second)
        hu = Unsqueeze (hs, first)
        c2 = Transpose <perm = [1, 0, 2]> (c0)
        s, hn, cn = LSTM <hidden_size = {HIDDEN}> (t, w, r, , , hu, c2)
        ys = Squeeze (s, second)
        y = Transpose <perm = [1, 0, 2]> (ys)
        a = Squeeze (hn, first)
        a1 = Unsqueeze (a, second)
        b1 = Transpose <perm = [1, 0, 2]> (cn)
        states = Concat <axis = 1> (a1, b1)
    """
    constants = recurrent("LSTM") | {"first": integers(0), "second": integers(1)}
    inputs = {"x": (1, 6, 5), "h0": (1, 1, HIDDEN), "c0": (1, 1, HIDDEN)}
    model = build(inputs, body, constants, ["y", "states"])
    optimize(model, level)
    assert_batch_equals_single_runs(model)


def test_two_directions_take_a_batch() -> None:
    body = f"""
        t = Transpose <perm = [1, 0, 2]> (x)
        s, hn = GRU <hidden_size = {HIDDEN}, direction = "bidirectional"> (t, w, r, , , h)
        y = Transpose <perm = [1, 0, 2]> (hn)
    """
    assert_batch_equals_single_runs(build({"x": (1, 6, 5)}, body, recurrent("GRU", 2)))


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        pytest.param("y = Softmax <axis = 0> (x)", {}, id="softmax over the batch"),
        pytest.param("m = ReduceMean (x, axes)\ny = Sub (x, m)", {"axes": integers(0)}, id="the mean of the batch"),
        pytest.param("y = CumSum (x, axis)", {"axis": np.array(0, np.int64)}, id="a running sum over the batch"),
        pytest.param("y = Transpose <perm = [1, 0, 2, 3]> (x)", {}, id="the batch leaves its place"),
        pytest.param(
            "y = Slice (x, s, e, a)", {"s": integers(0), "e": integers(1), "a": integers(0)}, id="a fixed row"
        ),
        pytest.param("y = ReduceMax (x)", {}, id="one number for all"),
        pytest.param("y = Add (x, c)", {"c": random(2, 3, 4, 5)}, id="a constant for each row"),
    ],
)
def test_a_model_that_mixes_samples_is_refused(body: str, constants: Mapping[str, Array]) -> None:
    model = build({"x": (2, 3, 4, 5)}, body, constants)
    with pytest.raises(ModelError) as caught:
        with_batch(model, 4)
    assert "rknn_batch_size=1" in caught.value.hint and caught.value.where


def test_an_input_without_axes_has_no_batch() -> None:
    with pytest.raises(ModelError, match="'s' is a scalar and has no batch"):
        with_batch(build({"x": (1, 3), "s": ()}, "y = Mul (x, s)", {"c": number(1)}), 2)
