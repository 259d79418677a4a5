"""The simulated graph rounds where the table says so and nowhere else, and ONNX Runtime computes it as written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engine import demo
from engine.config import Config
from engine.graph.execution import random_feeds
from engine.graph.layers import layers
from engine.quantization.quantized import Quantized
from engine.quantization.table import Row, changed, twin
from engine.session import Session
from engine.simulator.lowering import lower
from engine.simulator.runner import Simulator
from tests.plain_arithmetic import PlainSimulator, from_grid, half, to_grid
from tests.small_networks import Array, built, infer, integers, network, random, renamed
from tests.zoo import FOLDER, needs_zoo

BRANCHES = """
a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
ar = Relu (a)
s = Conv <kernel_shape = [1, 1]> (ar, w2, b2)
g = Sigmoid (s)
sw = Mul (s, g)
r = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2> (sw, w3, b3)
sum = Add (r, ar)
p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (sum)
q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (sum)
t = Tanh (q)
j = Concat <axis = -3> (p, t)
m = Mul (j, scale)
u = Resize <mode = "nearest"> (m, , twice)
y = Conv <kernel_shape = [1, 1]> (u, w4)
pooled = GlobalAveragePool (j)
flat = Flatten (pooled)
scores = Gemm (flat, w5, b5)
z = Softmax <axis = -1> (scores)
"""
CONSTANTS = {
    "w1": random(8, 3, 3, 3), "b1": random(8),
    "w2": random(8, 8, 1, 1, seed=1), "b2": random(8, seed=1),
    "w3": random(8, 4, 3, 3, seed=2, spread=0.3), "b3": random(8, seed=2),
    "scale": np.abs(random(1, 16, 1, 1)) + np.float32(0.1),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "w4": random(5, 16, 1, 1, seed=3), "w5": random(16, 6), "b5": random(6),
}  # fmt: skip
SAMPLE = random(1, 3, 8, 8, seed=21)


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A network with a residual, a swish, pools and a join, calibrated on two samples."""
    proto = network({"x": (1, 3, 8, 8)}, BRANCHES, CONSTANTS, ["y", "z"])
    return built(tmp_path_factory.mktemp("branches"), proto, [[SAMPLE], [random(1, 3, 8, 8, seed=22)]])


@pytest.fixture(scope="module")
def digits() -> Session:
    """The bundled demo, built for rk3588."""
    session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD], target_platform="rk3588"))
    session.load_onnx(demo.MODEL)
    session.build(dataset=demo.DATASET)
    return session


def optimization_changes_nothing(session: Session) -> bool:
    """Whether the simulator's outputs are those of the same graph computed node for node, to the bit."""
    model, table = session.model, session.table
    proto = lower(Quantized(model, layers(model), table))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    as_written = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    simulator = Simulator(Quantized(model, layers(model), table))
    same = True
    for seed in range(3):
        feeds = random_feeds(model, seed)
        expected = as_written.run(None, feeds)
        same &= all(np.array_equal(a, b) for a, b in zip(expected, simulator.run(feeds), strict=True))
    return same


class TestExactness:
    def test_optimizing_the_simulated_graph_changes_no_bit_of_branches_and_joins(self, branches: Session) -> None:
        assert optimization_changes_nothing(branches)

    def test_nor_of_the_demo(self, digits: Session) -> None:
        assert optimization_changes_nothing(digits)

    @needs_zoo
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "size"),
        [("ch_ppocr_mobile_v2.0_cls_infer", [1, 3, 48, 192]), ("ch_PP-OCRv4_det_infer", [1, 3, 480, 480])],
    )
    def test_nor_of_real_models(self, tmp_path: Path, name: str, size: list[int]) -> None:
        dataset = tmp_path / "dataset.txt"
        dataset.write_text("".join(f"{photo}\n" for photo in sorted((FOLDER / "photos").iterdir())[:3]))
        session = Session(Config(mean_values=[[127.5] * 3], std_values=[[127.5] * 3]))  # type: ignore[arg-type]
        session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[size])
        session.build(dataset=dataset)
        assert optimization_changes_nothing(session)

    def test_runs_repeat_to_the_bit(self, branches: Session) -> None:
        first, second = infer(branches, SAMPLE), infer(branches, SAMPLE)
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))

    def test_the_one_graph_gives_what_layers_computed_one_by_one_give(self, branches: Session) -> None:
        _, entire, _ = PlainSimulator(branches.model, layers(branches.model), branches.table).run({"x": SAMPLE})
        y, z = infer(branches, SAMPLE)
        assert np.array_equal(y, entire["y"])
        assert np.array_equal(z, entire["z"])


class TestPrecisions:
    def test_int8_outputs_lie_on_their_grid_and_use_it(self, branches: Session) -> None:
        y = infer(branches, SAMPLE)[0]
        row = branches.table.rows["y_int8"]
        assert row.scale is not None and row.zero_point is not None
        points = to_grid(y, row.scale, row.zero_point)
        assert np.array_equal(from_grid(points, row.scale, row.zero_point), y)
        assert len(np.unique(points)) > 50

    def test_a_softmax_at_the_end_is_float16(self, branches: Session) -> None:
        z = infer(branches, SAMPLE)[1]
        assert branches.table.precision("z") == "float16"
        assert np.array_equal(z, half(z))

    def test_a_float16_build_rounds_every_tensor_to_float16(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 4)}, "m = Mul (x, x)\ny = Add (m, x)", {}), [[random(1, 4)]])
        session.build(do_quantization=False)
        x = random(1, 4, seed=5)
        (y,) = infer(session, x)
        assert np.array_equal(y, half(half(half(x) * half(x)) + half(x)))

    def test_the_logarithm_of_silence_is_that_of_its_floor_in_float16(self, tmp_path: Path) -> None:
        body = "p = Mul (x, x)\na = Add (p, floor)\ny = Log (a)"
        x = random(1, 4, spread=1e-3)
        x[0, 0] = 0
        session = built(tmp_path, network({"x": (1, 4)}, body, {"floor": np.array([1e-10], np.float32)}), [[x]])
        session.build(do_quantization=False)
        (y,) = infer(session, x)
        np.testing.assert_allclose(y, np.log(half(x).astype(np.float64) ** 2 + 1e-10), rtol=1e-3)

    def test_a_float16_layer_between_int8_layers_reads_and_writes_int8(self, tmp_path: Path) -> None:
        body = "a = Conv (x, w1, b1)\nm = Conv (a, w2, b2)\ny = Conv (m, w3)"
        constants = {
            "w1": random(6, 4, 1, 1), "b1": random(6), "w2": random(6, 6, 1, 1, seed=1), "b2": random(6, seed=1),
            "w3": random(3, 6, 1, 1),
        }  # fmt: skip
        session = built(tmp_path, network({"x": (1, 4, 5, 5)}, body, constants), [[random(1, 4, 5, 5)]])
        model, table = session.model, session.table
        quantized = table.rows["m"]
        mixed = changed(
            table,
            [
                ("m", dataclasses.replace(quantized, dtype="float16", scale=None, zero_point=None)),
                (twin("m", "int8"), quantized),
            ],
        )
        feeds = {"x": random(1, 4, 5, 5, seed=9)}
        (found,) = Simulator(Quantized(model, layers(model), mixed)).run(feeds)

        plain = PlainSimulator(model, layers(model), table)
        _, entire, _ = plain.run(feeds)
        a = entire["a"]  # int8, as before
        weight, bias = half(constants["w2"])[:, :, 0, 0], constants["b2"]
        raw = np.einsum("oi,bihw->bohw", weight, half(a)) + bias[:, None, None]
        # Read by an int8 layer, it is converted to the grid that calibration gave it.
        read = half(raw)
        assert quantized.scale is not None and quantized.zero_point is not None
        read = from_grid(to_grid(read, quantized.scale, quantized.zero_point), quantized.scale, quantized.zero_point)
        kernel = plain.constants_of(next(n for n in model.graph if n.outputs[0].name == "y"), "int8")[1]
        row = table.rows["y_int8"]
        assert row.scale is not None and row.zero_point is not None
        y = np.einsum("oi,bihw->bohw", kernel[:, :, 0, 0], read)
        expected = from_grid(to_grid(y, row.scale, row.zero_point), row.scale, row.zero_point)
        # Sums in another order may fall on the other side of half a step.
        assert np.abs(found - expected).max() <= row.scale * 1.01
        assert (found != expected).mean() < 0.02
        (before,) = Simulator(Quantized(model, layers(model), table)).run(feeds)
        assert not np.array_equal(found, before)

    def test_integers_pass_untouched(self, tmp_path: Path) -> None:
        body = "best = ArgMax <axis = 1, keepdims = 0> (x)\ni = Add (ids, best)\ny = Mul (x, x)"
        proto = network({"x": (1, 9)}, body, {}, ["i", "y"])
        proto.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [1]))
        large = np.array([2**40 + 1], np.int64)
        session = built(tmp_path, proto, [[random(1, 9), large]])
        sample = random(1, 9, seed=4)
        i, _ = infer(session, sample, large)
        row = session.table.rows["x_int8"]
        assert row.scale is not None and row.zero_point is not None
        assert i.dtype == np.int64
        rounded = from_grid(to_grid(sample, row.scale, row.zero_point), row.scale, row.zero_point)
        assert i.tolist() == [int(large[0]) + int(rounded.argmax())]
        assert session.table.precision("ids") == "" and session.table.precision("i") == ""

    def test_a_zero_that_pads_is_the_zero_point(self, tmp_path: Path) -> None:
        # All weights 1 and all values 5: a corner sums up four of nine, an edge six.
        proto = network(
            {"x": (1, 1, 4, 4)},
            "y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)",
            {"w": np.ones((1, 1, 3, 3), np.float32)},
        )
        sample = np.full((1, 1, 4, 4), 5, np.float32)
        session = built(tmp_path, proto, [[sample], [-sample]])
        (y,) = infer(session, sample)
        step = session.table.rows["y_int8"].scale
        assert step is not None
        assert y[0, 0, 0, 0] == pytest.approx(20, abs=step) and y[0, 0, 0, 1] == pytest.approx(30, abs=step)


class TestNamesAndShapes:
    """Models whose names or outputs could trip the graph that is built around them."""

    def test_a_tensor_named_as_the_simulator_names_its_own(self, tmp_path: Path) -> None:
        # A normalization that stays by itself reads constants called like the scale of the tensor it makes.
        body = """
        n = BatchNormalization (x, factor, offset, mean, variance)
        m = LeakyRelu (n)
        y = Mul (m, n)
        """
        constants = {
            "factor": np.array([3, 1], np.float32), "offset": np.array([0, 1], np.float32),
            "mean": np.zeros(2, np.float32), "variance": np.ones(2, np.float32),
        }  # fmt: skip
        proto = network({"x": (1, 2, 4, 4)}, body, constants)
        proto = renamed(proto, {"factor": "n.scale", "offset": "n.zero_point", "m": "x.quantized"})
        sample = random(1, 2, 4, 4)
        session = built(tmp_path, proto, [[sample]], optimization_level=0)
        n = sample * np.array([3, 1], np.float32).reshape(2, 1, 1) + np.array([0, 1], np.float32).reshape(2, 1, 1)
        expected = np.where(n < 0, n * 0.01, n) * n
        (y,) = infer(session, sample)
        assert np.abs(y - expected).max() < 0.03 * expected.max()
        report = session.analyze([sample.transpose(0, 2, 3, 1)])
        assert all(line.entire is None or line.entire.cosine > 0.999 for line in report.layers)

    def test_the_demo_unoptimized_with_its_normalizations(self) -> None:
        session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD], optimization_level=0))
        session.load_onnx(demo.MODEL)
        session.build(dataset=demo.DATASET)
        path, _ = demo.test_samples()[0]
        report = session.analyze([path])
        stem = next(line for line in report.layers if line.name == "stem_norm")
        assert stem.single is not None and stem.single.cosine > 0.999

    def test_one_constant_as_the_weight_of_products_that_read_it_differently(self, tmp_path: Path) -> None:
        weight = random(4, 4) * np.geomspace(0.05, 5, 4, dtype=np.float32)
        body = "a = Gemm (x, w)\nb = Gemm <transB = 1> (x, w)\nc = MatMul (x, w)\nd = MatMul (w, x)"
        proto = network({"x": (4, 4)}, body, {"w": weight}, ["a", "b", "c", "d"])
        sample = random(4, 4, seed=3)
        session = built(tmp_path, proto, [[sample]], optimization_level=0)
        _, entire, _ = PlainSimulator(session.model, layers(session.model), session.table).run({"x": sample})
        for name, found in zip("abcd", infer(session, sample), strict=True):
            assert np.array_equal(found, entire[name]), name

    def test_an_output_that_is_also_read_inside_is_rounded_once_for_both(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "m = LeakyRelu (x)\ny = Mul (m, m)", {}, ["m", "y"])
        session = built(tmp_path, proto, [[random(1, 8)]])
        m, y = infer(session, random(1, 8, seed=1))
        row = session.table.rows["y_int8"]
        assert row.scale is not None and row.zero_point is not None
        assert np.array_equal(y, from_grid(to_grid(m * m, row.scale, row.zero_point), row.scale, row.zero_point))
        assert list(session.table.rows) == ["x", "m", "y", "x_int8", "m_int8", "y_int8"]

    def test_an_input_that_is_an_output_comes_back_rounded(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "y = LeakyRelu (x)", {}, ["y", "x"])
        proto.graph.output[1].CopyFrom(proto.graph.input[0])
        session = built(tmp_path, proto, [[random(1, 8)]])
        sample = random(1, 8, seed=1)
        _, x = infer(session, sample)
        row = session.table.rows["x_int8"]
        assert row.scale is not None and row.zero_point is not None
        assert np.array_equal(x, from_grid(to_grid(sample, row.scale, row.zero_point), row.scale, row.zero_point))
        assert set(session.analyze([sample]).outputs) == {"x", "y"}

    def test_an_output_that_is_a_constant_comes_as_it_is(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 8)}, "y = LeakyRelu (x)", {"fixed": random(3)}, ["y", "fixed"])
        proto.graph.output[1].CopyFrom(helper.make_tensor_value_info("fixed", TensorProto.FLOAT, [3]))
        session = built(tmp_path, proto, [[random(1, 8)]])
        assert np.array_equal(infer(session, random(1, 8))[1], random(3))
        assert set(session.analyze([random(1, 8)]).outputs) >= {"y"}

    def test_a_model_without_an_order_of_names_keeps_its_outputs_order(self, branches: Session) -> None:
        assert [v.name for v in branches.model.graph.outputs] == ["y", "z"]
        assert [a.shape for a in infer(branches, SAMPLE)] == [(1, 5, 8, 8), (1, 6)]


def test_operands_are_rounded_as_the_table_says(tmp_path: Path) -> None:
    body = """
    m = Mul (x, factor)
    a = Add (m, offset)
    p = PRelu (a, slope)
    r = Reshape (p, shape)
    y = Concat <axis = 1> (r, joined)
    """
    constants = {
        "factor": random(1, 5, seed=1), "offset": random(1, 5, seed=2), "slope": np.abs(random(1, 5, seed=3)),
        "shape": integers(1, 5), "joined": random(1, 3, seed=4),
    }  # fmt: skip
    sample = random(1, 5)
    session = built(tmp_path, network({"x": (1, 5)}, body, constants), [[sample]], optimization_level=0)
    rows: dict[str, Row] = session.table.rows
    kinds = {name: (rows[name].qtype, rows[name].dtype) for name in constants if name in rows}
    assert kinds == {
        "factor": ("asym", "int16"), "offset": ("sym", "int32"), "slope": ("asym", "int16"), "joined": ("asym", "int8"),
    }  # fmt: skip
    _, entire, _ = PlainSimulator(session.model, layers(session.model), session.table).run({"x": sample})
    found: Array = infer(session, sample)[0]
    assert np.array_equal(found, entire["y"])


def test_a_weight_computed_at_run_time_is_an_activation(tmp_path: Path) -> None:
    proto = network({"x": (2, 3), "k": (3, 2)}, "h = LeakyRelu (k)\ny = Gemm (x, h, b)", {"b": random(2)})
    session = built(tmp_path, proto, [[random(2, 3), random(3, 2)]], optimization_level=0)
    feeds = {"x": random(2, 3, seed=1), "k": random(3, 2, seed=1)}
    _, entire, _ = PlainSimulator(session.model, layers(session.model), session.table).run(feeds)
    assert np.array_equal(infer(session, feeds["x"], feeds["k"])[0], entire["y"])
