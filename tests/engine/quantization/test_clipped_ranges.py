"""Which tensors a clipping criterion leaves alone, and where scores end that share a range with a mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from engine.errors import QuantizationError
from engine.graph.layers import layers
from engine.progress import Progress
from engine.quantization.clipped_ranges import clipped_ranges, never_clipped
from engine.quantization.clipping import clip
from engine.quantization.histograms import collect_histograms
from engine.quantization.ranges import Range, share_ranges
from engine.quantization.statistics import Statistics, collect
from tests.small_networks import Array, integers, network, random, typed

CONSTANTS: Mapping[str, Array] = {
    "w": random(4, 4, 1, 1), "flat": integers(1, 1024), "twice": np.array([1, 1, 2, 2], np.float32),
    "start": integers(0), "stop": integers(3), "axis": integers(2),
}  # fmt: skip


def model(
    body: str, outputs: Sequence[str] = ("y",), shape: Sequence[int] = (1, 4, 16, 16), **constants: Array
) -> ir.Model:
    words = re.findall(r"\w+", body)
    used = {name: array for name, array in {**CONSTANTS, **constants}.items() if name in words}
    return ir.from_proto(typed(network({"x": shape}, body, used, outputs)))


def kept(body: str, outputs: Sequence[str] = ("y",)) -> set[str]:
    graph = model(body, outputs)
    return never_clipped(graph, layers(graph))


def statistics(graph: ir.Model, *samples: Array) -> Statistics:
    given = [{"x": sample} for sample in samples]
    return collect_histograms(graph, collect(graph, given, len(given), Progress()), given, len(given), Progress())


class TestNeverClipped:
    def test_inputs_and_outputs_of_the_model(self) -> None:
        assert kept("a = Conv (x, w)\nb = Elu (a)\ny = Conv (b, w)") == {"x", "y"}

    def test_what_only_reorderings_part_from_an_output(self) -> None:
        assert kept("a = Conv (x, w)\nt = Transpose <perm = [0, 2, 3, 1]> (a)\ny = Reshape (t, flat)") == {
            "x", "y", "t", "a",
        }  # fmt: skip

    def test_parts_of_a_join_that_is_an_output(self) -> None:
        body = "a = Conv (x, w)\nb = Elu (x)\nr = Elu (b)\nj = Concat <axis = 1> (a, r)\ny = Transpose (j)"
        assert kept(body) == {"x", "y", "j", "a", "r"}

    @pytest.mark.parametrize(
        "operator", ["Sigmoid", "HardSigmoid", "Softmax <axis = 1>", "LogSoftmax <axis = 1>"]
    )  # fmt: skip
    def test_what_a_gate_or_a_softmax_reads_and_makes(self, operator: str) -> None:
        body = f"a = Conv (x, w)\ns = {operator} (a)\nb = Conv (s, w)\nc = Elu (b)\ny = Conv (c, w)"
        assert kept(body) == {"x", "y", "a", "s"}

    def test_but_not_the_swish_of_a_tensor(self) -> None:
        body = "a = Elu (x)\ns = Sigmoid (a)\nm = Mul (a, s)\ny = Conv (m, w)"
        assert kept(body) == {"x", "y"}

    def test_what_gets_its_range_from_such_a_tensor_or_gives_it_one(self) -> None:
        body = """
        a = Conv (x, w)
        p = MaxPool <kernel_shape = [2, 2]> (a)
        s = Sigmoid (p)
        r = Resize <mode = "linear"> (s, , twice)
        y = Conv (r, w)
        """
        assert kept(body) == {"x", "y", "a", "p", "s", "r"}

    def test_their_ranges_stay_through_the_range_rules(self) -> None:
        graph = model(
            "a = Conv (x, w)\ns = Sigmoid (a)\nt = Slice (s, start, stop, axis)\nb = Elu (t)\ny = Conv (b, w)"
        )
        spread = random(1, 4, 16, 16) ** 3
        seen = statistics(graph, spread)
        used = share_ranges(graph, clipped_ranges(graph, layers(graph), seen, "percentile"))
        plain = share_ranges(graph, seen.ranges)
        assert {name: used[name] for name in "xasty"} == {name: plain[name] for name in "xasty"}


class TestClipping:
    @pytest.mark.parametrize("criterion", ["mse", "kl_divergence", "percentile"])
    def test_other_tensors_get_the_range_of_the_criterion(self, criterion: str) -> None:
        graph = model("a = Conv (x, w)\nb = Elu (a)\ny = Conv (b, w)")
        seen = statistics(graph, random(1, 4, 16, 16) ** 5)
        found = clipped_ranges(graph, layers(graph), seen, criterion)
        assert (found["x"], found["y"]) == (seen.ranges["x"], seen.ranges["y"])
        for name in "ab":
            assert found[name] == clip(seen.histograms[name], criterion)
        assert criterion != "percentile" or found["a"] != seen.ranges["a"]

    def test_a_producer_takes_the_clipped_range_behind_its_relu(self) -> None:
        graph = model("a = Conv (x, w)\nb = Relu (a)\ny = Conv (b, w)")
        seen = statistics(graph, random(1, 4, 16, 16) ** 5)
        found = share_ranges(graph, clipped_ranges(graph, layers(graph), seen, "mse"))
        assert found["a"] == found["b"] == clip(seen.histograms["b"], "mse")

    def test_a_join_within_the_model_spans_the_clipped_ranges_of_its_parts(self) -> None:
        graph = model("a = Conv (x, w)\nb = Elu (x)\nj = Concat <axis = 1> (a, b)\ne = Elu (j)\ny = Neg (e)")
        seen = statistics(graph, random(1, 4, 16, 16) ** 5)
        found = share_ranges(graph, clipped_ranges(graph, layers(graph), seen, "mse"))
        parts = [clip(seen.histograms[name], "mse") for name in "ab"]
        assert found["j"] == (min(p[0] for p in parts), max(p[1] for p in parts))

    def test_extremes_alone_are_refused(self) -> None:
        graph = model("a = Conv (x, w)\ny = Elu (a)")
        seen = collect(graph, [{"x": random(1, 4, 16, 16)}], 1, Progress())
        with pytest.raises(QuantizationError, match="mse need histograms"):
            clipped_ranges(graph, layers(graph), seen, "mse")

    def test_a_model_that_saw_constants_only_has_none_to_miss(self) -> None:
        graph = model("a = Conv (x, w)\ny = Elu (a)")
        seen = statistics(graph, np.zeros((1, 4, 16, 16), np.float32))
        assert clipped_ranges(graph, layers(graph), seen, "mse") == seen.ranges


def masked_ranges(masking: str, lowest: float, scores: Array) -> tuple[dict[str, Range], Statistics]:
    """Ranges in use of attention scores `s` that `masking` makes `m` of, with a mask of 0 and `lowest`."""
    later = np.triu(np.ones((16, 16), bool), 1)
    body = f"s = Neg (x)\nm = {masking}\nr = Reshape (m, split)\np = Softmax <axis = -1> (r)\ny = Neg (p)"
    graph = model(
        body, shape=(1, 16, 16), split=integers(1, 2, 8, 16),
        mask=np.where(later, lowest, 0).astype(np.float32), later=later, far=np.array(lowest, np.float32),
    )  # fmt: skip
    seen = statistics(graph, scores)
    return share_ranges(graph, clipped_ranges(graph, layers(graph), seen, "mse")), seen


class TestMasks:
    @pytest.mark.parametrize("lowest", [-1e4, -1e9, float(np.finfo(np.float32).min)])
    @pytest.mark.parametrize("masking", ["Add (s, mask)", "Add (mask, s)", "Where (later, far, s)"])
    def test_scores_end_twelve_below_the_lowest_that_counts(self, masking: str, lowest: float) -> None:
        scores = random(1, 16, 16, spread=3.0)
        ranges, seen = masked_ranges(masking, lowest, scores)
        for name in ("m", "r"):
            assert ranges[name] == (pytest.approx(float(-scores.max()) - 12), seen.ranges[name][1])
            assert float(np.float32(ranges[name][0])) == ranges[name][0]

    def test_a_computed_mask_keeps_its_range(self) -> None:
        later = np.triu(np.ones((16, 16), np.float32), 1)
        body = "s = Neg (x)\nz = Mul (x, nothing)\nk = Sub (z, far)\nm = Add (s, k)\np = Softmax (m)\ny = Neg (p)"
        graph = model(body, shape=(1, 16, 16), nothing=np.zeros(1, np.float32), far=later * 1e4)
        seen = statistics(graph, random(1, 16, 16))
        ranges = clipped_ranges(graph, layers(graph), seen, "percentile")
        assert ranges["k"] == (-1e4, 0) and ranges["m"][0] == pytest.approx(seen.ranges["s"][0] - 12)

    def test_a_sum_that_is_no_mask_keeps_its_range(self) -> None:
        ranges, seen = masked_ranges("Add (s, mask)", -30.0, random(1, 16, 16))
        assert ranges["m"] == seen.ranges["m"]
