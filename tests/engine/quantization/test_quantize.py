"""The table of a build: which tensors have rows, in which order and precision, under names that cannot be confused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DatasetError, QuantizationError
from engine.graph.given import GivenParameters, keep
from engine.graph.layers import layers
from engine.progress import Progress
from engine.quantization.histograms import collect_histograms
from engine.quantization.parameters import asymmetric
from engine.quantization.quantize import given_only, quantize
from engine.quantization.statistics import Statistics, collect
from engine.quantization.table import Row
from tests.small_networks import built, infer, integers, network, random, renamed


class TestRows:
    def test_activations_in_order_then_constants_then_copies_in_int8_then_in_float16(self, tmp_path: Path) -> None:
        body = """
        a = Conv (x, w, bias)
        r = Relu (a)
        m = Mul (r, factor)
        scores = Reshape (m, flat)
        y = Softmax <axis = -1> (scores)
        z = LeakyRelu (r)
        """
        constants = {
            "w": random(4, 4, 1, 1), "bias": random(4), "factor": random(1, 1, 3, 3), "flat": integers(1, 36),
        }  # fmt: skip
        proto = network({"x": (1, 4, 3, 3)}, body, constants, ["y", "z"])
        table = built(tmp_path, proto, [[random(1, 4, 3, 3)]], optimization_level=0).table
        assert list(table.rows) == [
            "x", "a", "r", "m", "scores", "y", "z", "factor", "x_int8", "z_int8", "scores__float16",
        ]  # fmt: skip
        kinds = {name: row.dtype for name, row in table.rows.items()}
        assert kinds["x"] == kinds["z"] == "float32" and kinds["y"] == kinds["scores__float16"] == "float16"
        assert {kinds[name] for name in ("a", "r", "m", "scores", "x_int8", "z_int8")} == {"int8"}
        floats = [row for row in table.rows.values() if row.dtype.startswith("float")]
        assert all(row.scale is None and row.zero_point is None for row in floats)
        assert all((row.min, row.max) == (row.ori_min, row.ori_max) for row in floats)
        assert (table.precision("x"), table.precision("y"), table.precision("r")) == ("int8", "float16", "int8")

    def test_operands_have_the_formats_of_their_operators(self, tmp_path: Path) -> None:
        body = "m = Mul (x, factor)\na = Add (m, offset)\ny = Concat <axis = 1> (a, part)"
        factor, offset = np.array([[0.5, 3]], np.float32), np.array([[-2, 1]], np.float32)
        proto = network({"x": (1, 2)}, body, {"factor": factor, "offset": offset, "part": factor})
        rows = built(tmp_path, proto, [[random(1, 2)]], optimization_level=0).table.rows
        assert (rows["factor"].dtype, rows["factor"].qtype) == ("int16", "asym")
        assert (rows["factor"].min, rows["factor"].max, rows["factor"].ori_min) == (0.0, 3.0, 0.5)
        assert (rows["factor"].scale, rows["factor"].zero_point) == (3 / 65535, -32768)
        assert (rows["offset"].dtype, rows["offset"].qtype, rows["offset"].zero_point) == ("int32", "sym", 0)
        assert (rows["offset"].min, rows["offset"].max, rows["offset"].scale) == (-2.0, 2.0, 2 / (2**31 - 1))
        assert (rows["part"].dtype, rows["part"].scale) == ("int8", 3 / 255)

    def test_a_swishs_gate_stays_inside_its_layer(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "m = LeakyRelu (x)\ng = Sigmoid (m)\ny = Mul (m, g)", {})
        assert "g" not in built(tmp_path, proto, [[random(1, 8)]]).table.rows

    def test_an_lstm_has_rows_for_what_goes_in_and_out(self, tmp_path: Path) -> None:
        proto = network(
            {"x": (5, 1, 4)},
            "y = LSTM <hidden_size = 3> (x, w, r)",
            {"w": random(1, 12, 4), "r": random(1, 12, 3)},
        )
        sample = random(5, 1, 4)
        session = built(tmp_path, proto, [[sample]])
        assert list(session.table.rows) == ["x", "y", "x_int8", "y_int8"]
        assert infer(session, sample)[0].shape == (5, 1, 1, 3)


class TestSoftmaxAtTheEnd:
    def kept(self, tmp_path: Path, body: str, outputs: list[str], **settings: str) -> set[str]:
        """Tensors in float16."""
        constants = {"flat": integers(1, 36), "w": random(4, 4, 1, 1)}
        used = {name: array for name, array in constants.items() if f"{name})" in body or f"{name}," in body}
        proto = network({"x": (1, 4, 3, 3)}, body, used, outputs)
        rows = built(tmp_path, proto, [[random(1, 4, 3, 3)]], optimization_level=0, **settings).table.rows
        return {name for name, row in rows.items() if row.dtype == "float16" and not name.endswith("__float16")}

    def test_it_and_reorderings_behind_it_are_float16(self, tmp_path: Path) -> None:
        assert self.kept(tmp_path, "s = Softmax <axis = 1> (x)\ny = Reshape (s, flat)", ["y"]) == {"s", "y"}

    def test_in_the_middle_it_is_int8(self, tmp_path: Path) -> None:
        assert self.kept(tmp_path, "s = Softmax <axis = 1> (x)\ny = Conv (s, w)", ["y"]) == set()

    def test_an_output_that_is_read_on_is_int8(self, tmp_path: Path) -> None:
        assert self.kept(tmp_path, "s = Softmax <axis = 1> (x)\ny = Conv (s, w)", ["s", "y"]) == set()

    def test_a_chip_without_float16_has_it_in_int8(self, tmp_path: Path) -> None:
        assert self.kept(tmp_path, "y = Softmax <axis = 1> (x)", ["y"], target_platform="rv1106") == set()


class TestRangesFromHistograms:
    """A tail of few values behind an Elu, and the table by each way to make ranges."""

    def table(self, tmp_path: Path, ranges: str, **settings: str) -> dict[str, Row]:
        sample = random(1, 4, 32, 32) ** 5
        body = "a = Conv (x, w)\ne = Elu (a)\ny = Conv (e, w)"
        session = built(tmp_path, network({"x": (1, 4, 32, 32)}, body, {"w": random(4, 4, 1, 1)}), [[sample]])
        samples, progress = [{"x": sample}], Progress()
        config = dataclasses.replace(session.config, **settings)
        model = session.model
        statistics = collect_histograms(model, collect(model, samples, 1, progress), samples, 1, progress)
        return quantize(model, layers(model), statistics, config, ranges).rows

    @pytest.mark.parametrize("ranges", ["mse", "kl_divergence", "percentile"])
    def test_a_row_tells_what_was_seen_and_what_is_used(self, tmp_path: Path, ranges: str) -> None:
        plain, rows = self.table(tmp_path, "minmax"), self.table(tmp_path, ranges)
        assert list(rows) == list(plain)
        for name, row in rows.items():
            assert (row.ori_min, row.ori_max) == (plain[name].ori_min, plain[name].ori_max)
        assert rows["x_int8"] == plain["x_int8"] and rows["y_int8"] == plain["y_int8"]
        cut = rows["e"]
        assert cut.max - cut.min < plain["e"].max - plain["e"].min
        assert (cut.scale, cut.zero_point) == asymmetric(cut.min, cut.max)

    def test_int16_rows_span_the_range_in_finer_steps(self, tmp_path: Path) -> None:
        row = self.table(tmp_path, "percentile", quantized_dtype="asymmetric_quantized-16")["e"]
        assert (row.dtype, row.scale) == ("int16", (row.max - row.min) / 65535)
        assert row.max < row.ori_max

    def test_statistics_without_histograms_are_refused(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 8)}, "m = LeakyRelu (x)\ny = Mul (m, m)", {}), [[random(1, 8)]])
        statistics = Statistics({"x": (-1, 1), "m": (-1, 1), "y": (0, 1)}, 1)
        with pytest.raises(QuantizationError, match="need histograms"):
            quantize(session.model, layers(session.model), statistics, session.config, "mse")


class TestGivenParameters:
    def test_a_tensor_keeps_the_grid_that_came_with_the_model(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 8)}, "m = LeakyRelu (x)\ny = Mul (m, m)", {}), [[random(1, 8)]])
        model = session.model
        m = next(iter(model.graph)).outputs[0]
        keep(m, GivenParameters("int8", (0.25,), (-28,)))
        statistics = Statistics({"x": (-1, 1), "m": (-1, 1), "y": (0, 1)}, 1)
        row = quantize(model, layers(model), statistics, session.config).rows["m"]
        assert (row.scale, row.zero_point, row.min, row.max) == (0.25, -28, -25.0, 38.75)
        alone = given_only(model, layers(model))
        assert alone.rows["m"].scale == 0.25
        assert (alone.precision("x"), alone.precision("y")) == ("float16", "float16")


class TestNames:
    def test_a_model_tensor_called_like_the_copy_of_its_input_is_refused_by_name(self, tmp_path: Path) -> None:
        proto = renamed(network({"x": (1, 8)}, "m = LeakyRelu (x)\ny = Mul (m, m)", {}), {"m": "x_int8"})
        with pytest.raises(QuantizationError, match=r"'x_int8'.*'x'"):
            built(tmp_path, proto, [[random(1, 8)]])

    def test_and_one_called_like_a_float16_copy(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "m = LeakyRelu (x)\nk = Mul (m, m)\ny = Softmax <axis = -1> (k)", {})
        with pytest.raises(QuantizationError, match="'k__float16'"):
            built(tmp_path, renamed(proto, {"m": "k__float16"}), [[random(1, 8)]])

    def test_such_names_are_fine_where_no_copy_is_made(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "m = LeakyRelu (x)\nk = Mul (m, m)\ny = Mul (k, m)", {})
        session = built(tmp_path, renamed(proto, {"k": "m_int8"}), [[random(1, 8)]])
        assert list(session.table.rows) == ["x", "m", "m_int8", "y", "x_int8", "y_int8"]


class TestCalibration:
    @pytest.mark.parametrize("position", [0, 7, 30])
    def test_a_nan_is_found_wherever_it_stands(self, tmp_path: Path, position: int) -> None:
        sample = np.abs(random(1, 40)) + np.float32(0.1)
        broken = sample.copy()
        broken[0, position] = -1
        proto = network({"x": (1, 40)}, "m = Log (x)\nr = Relu (m)\ny = Mul (r, r)", {})
        session = built(tmp_path, proto, [[sample]])
        with pytest.raises(QuantizationError, match=r"'m' becomes infinite or not a number on sample 2"):
            collect(session.model, [{"x": sample}, {"x": broken}, {"x": sample}], 3, Progress())

    def test_statistics_are_those_of_every_tensor(self, tmp_path: Path) -> None:
        body = "m = Mul (x, x)\nr = Relu (x)\nc = Clip (x, low, high)\nt = Transpose (c)\ny = Add (m, r)"
        constants = {"low": np.array(-0.5, np.float32), "high": np.array(0.25, np.float32)}
        samples = [random(3, 5, seed=seed) for seed in range(4)]
        session = built(tmp_path, network({"x": (3, 5)}, body, constants, ["y", "t"]), [[s] for s in samples])
        statistics = collect(session.model, [{"x": s} for s in samples], 4, Progress())
        x = np.concatenate(samples)
        m, r, c = x * x, np.maximum(x, 0), np.clip(x, np.float32(-0.5), np.float32(0.25))
        expected = {"x": x, "m": m, "r": r, "c": c, "t": c, "y": m + r}
        found = {name: statistics.ranges[name] for name in expected if name in statistics.ranges}
        assert found == {name: (float(expected[name].min()), float(expected[name].max())) for name in found}
        assert statistics.samples == 4 and {"x", "m", "r", "y"} <= set(found)

    def test_no_samples_is_an_error(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 4)}, "y = Mul (x, x)", {}), [[random(1, 4)]])
        with pytest.raises(DatasetError, match="no samples"):
            collect(session.model, [], 0, Progress())

    def test_a_model_of_integers_is_refused_in_plain_words(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 4)}, "y = Add (x, x)", {})
        proto.graph.input[0].type.tensor_type.elem_type = 7
        with pytest.raises(QuantizationError, match="no float tensors"):
            built(tmp_path, proto, [[np.ones((1, 4), np.int64)]])
