"""What the vendor's toolkit is given: Q/DQ nodes where it needs them, and the wishes and ranges that it takes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from engine.compiler.handing_over import cfg_with_ours, with_outputs
from engine.compiler.results import WayScore, better
from engine.quantization.edits import Edits, edited
from engine.quantization.quantized import Quantized
from engine.quantization.table import from_cfg, to_cfg
from engine.simulator.quantized_onnx import to_qdq
from engine.targets import find_target
from tests.small_networks import built, network, random

BODY = """a = Conv (x, w)
    b = HardSwish (a)
    c = Conv (b, v)
    y = Relu (c)"""
SAMPLES = [[random(1, 3, 6, 6, seed=seed)] for seed in range(4)]


@pytest.fixture
def quantized(tmp_path: Path) -> Quantized:
    constants = {"w": random(4, 3, 1, 1, seed=1), "v": random(2, 4, 1, 1, seed=2)}
    session = built(tmp_path, network({"x": (1, 3, 6, 6)}, BODY, constants), SAMPLES, target_platform="rk3588")
    assert session._built is not None
    return session._built.single


def readers(model: onnx.ModelProto, tensor: str) -> list[str]:
    return [node.op_type for node in model.graph.node if tensor in node.input]


def test_fused_layers_are_rounded_within_only_for_compilers_that_need_it_and_never_before_limits(
    quantized: Quantized,
) -> None:
    plain, within = to_qdq(quantized), to_qdq(quantized, within=True)
    assert readers(plain, "a") == ["HardSwish"]
    assert readers(within, "a") == ["QuantizeLinear"]
    assert readers(within, "c") == ["Relu"]
    onnx.checker.check_model(within)


def test_tensors_that_are_watched_are_given_out_as_they_are_stored(quantized: Quantized) -> None:
    model = with_outputs(to_qdq(quantized), ["b"])
    copy = next(node for node in model.graph.node if node.output[0] == model.graph.output[-1].name)
    (maker,) = (node for node in model.graph.node if copy.input[0] in node.output)
    assert maker.op_type == "DequantizeLinear"


def test_ranges_are_narrowed_only_and_inputs_get_no_wish(quantized: Quantized) -> None:
    theirs = to_cfg(quantized.table)
    row = quantized.table.rows["b"]
    edits = Edits({"x": "float16", "b": "float16"}, {"b": (row.min, row.max * 0.5), "a": (-900.0, 900.0)})
    text, notes = cfg_with_ours(theirs, edited(quantized, edits, find_target("rk3588")))
    found = from_cfg(text)
    assert found.rows["b"].max == pytest.approx(row.max * 0.5)
    assert found.rows["a"] == from_cfg(theirs).rows["a"]
    assert found.wishes == {"b": "float16"}
    assert any("precision of x" in note for note in notes) and any("wider" in note for note in notes)
    without, _ = cfg_with_ours(theirs, edited(quantized, edits, find_target("rk3588")), ranges=False)
    assert from_cfg(without).rows == from_cfg(theirs).rows


def test_no_way_is_taken_whose_outputs_are_farther_than_by_default() -> None:
    default, quiet, near = WayScore("default", 0.99, 0.1), WayScore("cfg", 0.98, 0.01), WayScore("qdq", 0.99, 0.05)
    assert better([quiet, near, default]) is near
    assert better([quiet, default]) is default
    assert better([WayScore("qdq", problem="crashed"), quiet]) is quiet
    assert better([WayScore("qdq", problem="crashed")]) is None
