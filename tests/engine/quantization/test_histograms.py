"""Histograms count what numpy would count, sample large tensors fairly, and add up over sets of samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from engine.errors import Cancelled
from engine.ort import make_session, run, serialize
from engine.progress import Progress
from engine.quantization import histograms
from engine.quantization.histograms import BINS, collect_histograms
from engine.quantization.statistics import Statistics, collect
from tests.small_networks import Array, integers, network, random, typed

BODY = """
c = Conv <pads = [1, 1, 1, 1]> (x, w)
r = Relu (c)
t = Transpose <perm = [0, 2, 3, 1]> (r)
f = Reshape (t, flat)
d = Sub (x, x)
y = Add (c, d)
"""
CONSTANTS: Mapping[str, Array] = {"w": random(3, 3, 3, 3), "flat": integers(1, -1)}


def model() -> ir.Model:
    return ir.from_proto(typed(network({"x": (1, 3, 16, 16)}, BODY, CONSTANTS, ["y", "f"])))


def samples(*seeds: int) -> list[dict[str, Array]]:
    return [{"x": random(1, 3, 16, 16, seed=seed)} for seed in seeds]


def counted(graph: ir.Model, *seeds: int, over: Statistics | None = None) -> Statistics:
    given = samples(*seeds)
    over = over or collect(graph, given, len(given), Progress())
    return collect_histograms(graph, over, given, len(given), Progress())


def values(graph: ir.Model, tensor: str, *seeds: int) -> Array:
    """All values of a tensor, from ONNX Runtime."""
    proto = ir.to_proto(graph)
    del proto.graph.output[:]
    proto.graph.output.add(name=tensor)
    session = make_session(serialize(proto), optimization="none")
    return np.concatenate([run(session, None, sample)[0].reshape(-1) for sample in samples(*seeds)])


class TestCollecting:
    @pytest.mark.parametrize("tensor", ["c", "r", "y"])
    def test_counts_are_numpys(self, tensor: str) -> None:
        graph = model()
        found = counted(graph, 0, 1, 2).histograms[tensor]
        array = values(graph, tensor, 0, 1, 2)
        assert (found.low, found.high) == (float(array.min()), float(array.max()))
        assert found.counts.dtype == np.int64 and found.counts.shape == (BINS,) and found.total == array.size
        wanted = np.histogram(array.astype(np.float64), BINS, (found.low, found.high))[0]
        # A value on a border may fall to its other side.
        assert np.abs(np.cumsum(found.counts) - np.cumsum(wanted)).max() <= 2
        assert found.counts[0] >= 1 and found.counts[-1] >= 1

    def test_reorderings_share_their_sources_counts(self) -> None:
        found = counted(model(), 0).histograms
        assert found["f"] is found["t"] is found["r"]

    def test_inputs_are_counted_and_constant_tensors_are_not(self) -> None:
        found = counted(model(), 0).histograms
        assert found["x"].total == 3 * 16 * 16 and "d" not in found

    def test_ranges_and_the_number_of_samples_stay(self) -> None:
        graph = model()
        before = collect(graph, samples(0, 1), 2, Progress())
        after = counted(graph, 0, 1, over=before)
        assert after.ranges == before.ranges and after.samples == 2

    def test_extents_beyond_float32_are_left_out(self) -> None:
        graph = ir.from_proto(typed(network({"x": (1, 4)}, "y = Neg (x)", {})))
        sample = {"x": np.array([[-3e38, 3e38, 1, 0]], np.float32)}
        before = collect(graph, [sample], 1, Progress())
        assert collect_histograms(graph, before, [sample], 1, Progress()).histograms == {}

    def test_values_of_other_samples_beyond_the_range_count_at_its_ends(self) -> None:
        graph = ir.from_proto(typed(network({"x": (1, 4)}, "y = Neg (x)", {})))
        over = Statistics({"x": (0.0, 1.0)}, 1)
        sample = {"x": np.array([[-5, 5, 0.6, np.nan]], np.float32)}
        counts = collect_histograms(graph, over, [sample], 1, Progress()).histograms["x"].counts
        assert counts[0] >= 1 and counts[-1] == 1 and counts[int(0.6 * BINS)] == 1

    def test_a_large_tensor_is_sampled_from_all_channels_rows_and_columns(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(histograms, "SAMPLED_VALUES", 2000)
        shape = (1, 8, 64, 64)
        for axis in (1, 2, 3):
            graph = ir.from_proto(typed(network({"x": shape}, "y = Neg (x)", {})))
            place = np.arange(shape[axis], dtype=np.float32).reshape([-1 if i == axis else 1 for i in range(4)])
            sample = {"x": np.broadcast_to(place, shape).copy()}
            before = collect(graph, [sample], 1, Progress())
            found = collect_histograms(graph, before, [sample], 1, Progress()).histograms["x"]
            assert 1000 < found.total <= 2000
            per_place = found.counts[found.counts > 0]
            assert len(per_place) == shape[axis]
            assert per_place.min() > 0.8 * found.total / shape[axis]

    def test_it_can_be_cancelled(self) -> None:
        graph = model()
        before = collect(graph, samples(0), 1, Progress())
        with pytest.raises(Cancelled):
            collect_histograms(graph, before, samples(0), 1, Progress(cancelled=lambda: True))
