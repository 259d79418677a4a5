"""Level 2: an infinite mask before a softmax becomes a finite one, and masks elsewhere stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.graph.execution import random_feeds, run_float
from engine.session import Session
from tests.engine.graph.graph_building import Array, build, optimized
from tests.plain_arithmetic import cosine
from tests.small_networks import built, integers, network, random

LATER = np.triu(np.ones((6, 6), bool), 1)
CAUSAL = np.where(LATER, -np.inf, 0).astype(np.float32)
CONSTANTS: dict[str, Array] = {
    "causal": CAUSAL,
    "later": LATER,
    "infinite": np.array(-np.inf, np.float32),
    "split": integers(1, 2, 3, 6),
}
MASKINGS = ["Add (s, causal)", "Add (causal, s)", "Where (later, infinite, s)", "Where (later, causal, s)"]


@pytest.mark.parametrize("masking", MASKINGS)
def test_the_mask_is_finite_and_the_result_the_same(masking: str) -> None:
    body = f"s = Neg (x)\nm = {masking}\nr = Reshape (m, split)\ny = Softmax <axis = -1> (r)"
    model = build({"x": (1, 6, 6)}, body, {k: v for k, v in CONSTANTS.items() if k in body})
    feeds = random_feeds(model)
    before = run_float(model, feeds)
    assert optimized(model, 2) == ["Neg", masking.split()[0], "Reshape", "Softmax"]
    read = [v.const_value.numpy() for node in model.graph for v in node.inputs if v is not None and v.const_value]
    assert all(np.isfinite(array).all() for array in read)
    np.testing.assert_array_equal(run_float(model, feeds)[0], before[0])


@pytest.mark.parametrize("body", ["m = Add (x, causal)\ny = Relu (m)", "y = Add (x, causal)"])
def test_what_no_softmax_reads_stays_infinite(body: str) -> None:
    model = build({"x": (1, 6, 6)}, body, {"causal": CAUSAL})
    optimized(model, 2)
    assert list(model.graph.initializers) == ["causal"]


def attention(folder: Path, masking: str) -> tuple[Session, Array, Array]:
    """A built causal attention, a sample, and what it makes of the sample in float."""
    body = f"q = MatMul (x, w)\nk = Transpose <perm = [0, 2, 1]> (x)\ns = MatMul (q, k)\nm = {masking}"
    body += "\np = Softmax <axis = -1> (m)\ny = MatMul (p, x)"
    weight, sample = random(8, 8, spread=0.5), random(1, 6, 8)
    used = {name: array for name, array in CONSTANTS.items() if name in masking}
    session = built(folder, network({"x": (1, 6, 8)}, body, {"w": weight, **used}), [[sample]])
    scores = sample @ weight @ sample.transpose(0, 2, 1) + CAUSAL
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return session, sample, shares / shares.sum(-1, keepdims=True) @ sample


@pytest.mark.parametrize("masking", MASKINGS[::2])
def test_masked_attention_can_be_calibrated_and_says_what_the_mask_costs(tmp_path: Path, masking: str) -> None:
    session, sample, expected = attention(tmp_path, masking)
    assert np.isfinite(session.infer([sample])[0]).all()
    (warning,) = session.analyze([sample]).warnings
    assert "'m' holds scores and a mask" in warning
    assert cosine(run_float(session.model, {"x": sample})[0], expected) > 0.999999
