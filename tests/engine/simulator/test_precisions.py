"""Layers in int8, int16 and float16 beside each other compute, read and write what the NPU would."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import demo
from engine.config import Config
from engine.graph.execution import random_feeds
from engine.graph.given import GivenParameters, keep
from engine.graph.layers import layers
from engine.ort import make_session
from engine.quantization.quantize import given_only, to_float16
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Row, Table
from engine.quantization.traffic import computed_in
from engine.session import Session
from engine.simulator.lowering import lower
from tests.plain_arithmetic import PlainGrid, activation_parameters, half, plain_weight
from tests.simulated import checked, stored_tensors, wished
from tests.small_networks import Array, built, integers, network, random, renamed

SHAPE = (1, 4, 6, 6)
W = {
    **{f"w{i}": random(4, 4, 1, 1, seed=i, spread=0.6) for i in range(4)},
    **{f"b{i}": random(4, seed=i, spread=0.5) for i in range(4)},
    "wg": random(4, 2, 1, 1, seed=5),
}
X = {"x": random(*SHAPE, seed=9)}
CHAIN = """
a = Conv (x, w0, b0)
m = Conv (a, w1, b1)
n = Conv (m, w2, b2)
y = Conv (n, w3)
"""


def build(folder: Path, body: str, outputs: tuple[str, ...] = ("y",), **settings: Any) -> Session:
    samples = [[X["x"]], [random(*SHAPE, seed=10)]]
    return built(folder, network({"x": SHAPE}, body, W, outputs), samples, **settings)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Four convolutions, int8."""
    return build(tmp_path_factory.mktemp("chain"), CHAIN)


def grid_of(quantized: Quantized, tensor: str, precision: str) -> PlainGrid:
    row = quantized.table.quantizer(tensor, precision)
    assert row is not None
    bits = {"int8": 8, "int16": 16}[precision]
    return PlainGrid(*activation_parameters(row.min, row.max, bits), bits)


def on_grid(values: Array, grid: PlainGrid) -> bool:
    return bool(np.array_equal(values, grid.rounded(values)))


def convolved(x: Array, weight: Array, bias: Array) -> Array:
    product: Array = np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x) + bias[:, None, None]
    return product


class TestInt16Builds:
    def test_rows_twins_and_operands_are_int16(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 6)}, "m = Mul (x, x)\ny = Concat <axis = 1> (m, joined)", {"joined": random(1, 2)})
        session = built(tmp_path, proto, [[random(1, 6)]], quantized_dtype="asymmetric_quantized-16")
        rows = session.table.rows
        assert list(rows) == ["x", "m", "y", "joined", "x_int16", "y_int16"]
        assert {name: row.dtype for name, row in rows.items() if row.dtype != "int16"} == {
            "x": "float32", "y": "float32",
        }  # fmt: skip
        low, high = min(random(1, 6).min(), 0), random(1, 6).max()
        assert rows["x_int16"].scale == pytest.approx((high - low) / 65535)
        checked(wished(session), {"x": random(1, 6, seed=1)})

    def test_layers_are_those_of_a_second_simulator_and_far_nearer_to_the_float_model(self, tmp_path: Path) -> None:
        (tmp_path / "8").mkdir()
        (tmp_path / "16").mkdir()
        errors = []
        for folder, dtype in (("8", "asymmetric_quantized-8"), ("16", "asymmetric_quantized-16")):
            quantized = wished(build(tmp_path / folder, CHAIN, quantized_dtype=dtype))
            exact = stored_tensors(dataclasses.replace(quantized, table=Table()), X)["y"]
            errors.append(np.abs(checked(quantized, X)["y"] - exact).max())
        assert 0 < errors[1] < errors[0] / 100


class TestWishes:
    def test_a_float16_layer_between_int8_layers_gains_the_precision_of_its_weights_only(self, chain: Session) -> None:
        found = checked(wished(chain, {"m": "float16"}), X)
        before = checked(wished(chain), X)
        assert np.array_equal(found["a"], before["a"])
        assert np.allclose(found["m"], half(convolved(half(before["a"]), half(W["w1"]), W["b1"])), atol=2e-3)
        assert np.array_equal(found["m"], half(found["m"]))
        # What comes next reads it on the grid that calibration gave, as if it had been int8 all along.
        read = grid_of(wished(chain), "m", "int8").rounded(found["m"])
        assert not np.array_equal(found["m"], read)
        weight = plain_weight("Conv", W["w2"], per_channel=True).real
        grid = grid_of(wished(chain), "n", "int8")
        expected = grid.rounded(convolved(read, weight, W["b2"]))
        # Sums in another order may fall on the other side of half a step.
        assert np.abs(found["n"] - expected).max() <= grid.scale * 1.01
        assert (np.abs(found["n"] - expected) > grid.scale / 2).mean() < 0.02

    def test_two_adjacent_float16_layers_pass_float16(self, chain: Session) -> None:
        found = checked(wished(chain, {"m": "float16", "n": "float16"}), X)
        assert np.allclose(found["n"], half(convolved(found["m"], half(W["w2"]), W["b2"])), atol=4e-3)
        alone = checked(wished(chain, {"n": "float16"}), X)
        assert not np.array_equal(alone["n"], found["n"])

    def test_an_int16_layer_between_int8_layers_rereads_the_same_range_in_finer_steps(self, chain: Session) -> None:
        quantized = wished(chain, {"m": "int16"})
        found = checked(quantized, X)
        assert on_grid(found["m"], grid_of(quantized, "m", "int16"))
        assert not on_grid(found["m"], grid_of(quantized, "m", "int8"))
        assert quantized.table.rows["m"].dtype == "int8"
        assert on_grid(found["a"], grid_of(quantized, "a", "int8"))

    def test_an_int8_wish_for_a_softmax_at_the_end_puts_it_on_a_grid(self, tmp_path: Path) -> None:
        session = build(tmp_path, "s = Conv (x, w0, b0)\ny = Softmax <axis = 1> (s)")
        assert session.table.precision("y") == "float16"
        quantized = wished(session, {"y": "int8"})
        found = checked(quantized, X)["y"]
        assert on_grid(found, grid_of(quantized, "y", "int8"))
        assert len(np.unique(found)) > 20

    def test_wishes_for_an_input_and_an_output(self, chain: Session) -> None:
        found = checked(wished(chain, {"x": "float16", "y": "int16"}), X)
        assert np.array_equal(found["x"], half(X["x"]))
        # The int8 layer that reads it converts it, so that only a float16 reader gains.
        assert np.array_equal(found["a"], checked(wished(chain, {"x": "int8"}), X)["a"])
        gained = checked(wished(chain, {"x": "float16", "a": "float16"}), X)
        assert np.allclose(gained["a"], half(convolved(half(X["x"]), half(W["w0"]), W["b0"])), atol=2e-3)
        assert on_grid(found["y"], grid_of(wished(chain), "y", "int16"))

    def test_a_layer_with_several_outputs_computes_in_the_first_wish(self, tmp_path: Path) -> None:
        body = "a = Conv (x, w0)\nl, r = Split <axis = 1, num_outputs = 2> (a)\ny = Concat <axis = 1> (r, l)"
        session = build(tmp_path, body)
        quantized = wished(session, {"r": "float16"})
        split = quantized.makers["l"]
        assert split is quantized.makers["r"]
        assert computed_in(split, quantized.table) == ["float16"]
        found = checked(quantized, X)
        assert np.array_equal(found["r"], half(found["r"]))
        assert on_grid(found["l"], grid_of(quantized, "l", "int8"))

    def test_a_recurrent_layer_stays_float16_between_whatever_it_is_wished_to_write(self, tmp_path: Path) -> None:
        constants = {"w": random(1, 20, 3), "r": random(1, 20, 5, spread=0.4), "b": random(1, 40)}
        body = "h = LSTM <hidden_size = 5> (x, w, r, b)\ny = Sigmoid (h)"
        session = built(tmp_path, network({"x": (6, 1, 3)}, body, constants), [[random(6, 1, 3)]])
        feeds = {"x": random(6, 1, 3, seed=4)}
        for wish in ("int8", "int16", "float16"):
            quantized = wished(session, {"h": wish})
            found = checked(quantized, feeds)
            assert computed_in(quantized.makers["h"], quantized.table) == ["float16"]
            assert np.array_equal(found["h"], half(found["h"])) == (wish == "float16")

    def test_integers_do_not_mind_a_wish_beside_them(self, tmp_path: Path) -> None:
        body = "values, indices = TopK <axis = 1> (x, k)\ny = Mul (values, values)"
        proto = network({"x": (1, 9)}, body, {"k": integers(3)}, ["y", "indices"])
        session = built(tmp_path, proto, [[random(1, 9)]])
        found = checked(wished(session, {"values": "float16", "indices": "float16"}), {"x": random(1, 9, seed=2)})
        assert found["indices"].dtype == np.int64


FUSED = {
    "ConvRelu": ("c = Conv (x, w0, b0)\nf = Relu (c)", "c f"),
    "ConvAdd": ("c = Conv (x, w0, b0)\nf = Add (c, x)", "c f"),
    "ConvAddRelu": ("c = Conv (x, w0, b0)\ns = Add (x, c)\nf = Relu (s)", "c s f"),
    "ConvExSwish": ("c = Conv (x, w0, b0)\ng = Sigmoid (c)\nf = Mul (c, g)", "c g f"),
    "ConvHardSwish": ("c = Conv (x, w0, b0)\nf = HardSwish (c)", "c f"),
    "AddRelu": ("c = Add (x, x)\nf = Relu (c)", "c f"),
}


class TestPartedLayers:
    @pytest.mark.parametrize(
        ("op", "wishes", "expected"),
        [
            ("ConvRelu", {"c": "float16"}, "float16 int8"),
            ("ConvRelu", {"f": "float16"}, "int8 float16"),
            ("ConvRelu", {"c": "int16", "f": "float16"}, "int16 float16"),
            ("ConvRelu", {"c": "float16", "f": "float16"}, "float16 float16"),
            ("ConvAdd", {"c": "int16"}, "int16 int8"),
            ("ConvAdd", {"f": "float16"}, "int8 float16"),
            ("ConvAddRelu", {"s": "float16"}, "int8 float16 int8"),
            ("ConvAddRelu", {"c": "float16", "f": "int16"}, "float16 int8 int16"),
            ("ConvExSwish", {"c": "float16"}, "float16 int8 int8"),
            ("ConvExSwish", {"f": "float16"}, "int8 float16 float16"),
            ("ConvExSwish", {"g": "float16"}, "int8 int8 int8"),
            ("ConvHardSwish", {"f": "int16"}, "int8 int16"),
            ("AddRelu", {"c": "float16"}, "float16 int8"),
        ],
    )
    def test_a_wish_within_a_fused_layer_parts_it_there(
        self, tmp_path: Path, op: str, wishes: dict[str, str], expected: str
    ) -> None:
        body, _ = FUSED[op]
        session = build(tmp_path, f"{body}\ny = Conv (f, w3)")
        quantized = wished(session, wishes)
        layer = quantized.makers["f"]
        assert layer.op == op
        assert computed_in(layer, quantized.table) == expected.split()
        found = checked(quantized, X)["f"]
        whole = checked(wished(session), X)["f"]
        assert np.array_equal(found, whole) == (len(set(expected.split())) == 1 and "int8" in expected)

    def test_what_passes_between_the_parts_is_rounded_as_any_tensor_is(self, tmp_path: Path) -> None:
        session = build(tmp_path, f"{FUSED['ConvRelu'][0]}\ny = Conv (f, w3)")
        # Float16 from the convolution's int8 result has at most as many values as int8; from float16, one a position.
        found = checked(wished(session, {"f": "float16"}), X)["f"]
        whole = checked(wished(session, {"c": "float16", "f": "float16"}), X)["f"]
        assert len(np.unique(found)) <= 60 < len(np.unique(whole))


class TestCorrections:
    @pytest.mark.parametrize("precision", ["int8", "int16", "float16"])
    @pytest.mark.parametrize("line", ["Conv (x, w0)", "Conv (x, w0, b0)", "ConvTranspose <group = 2> (x, wg)"])
    def test_a_corrected_bias_holds_also_where_there_was_none(self, tmp_path: Path, precision: str, line: str) -> None:
        session = build(tmp_path, f"m = {line}\ny = Relu (m)", ("m", "y"))
        bias = random(4, seed=40)
        before = checked(wished(session, {"m": precision}), X)["m"]
        found = checked(wished(session, {"m": precision}, biases={"m": bias}), X)["m"]
        moved = bias - (W["b0"] if "b0" in line else 0)
        scale = session.table.rows["m_int8"].scale
        assert scale is not None
        inside = (np.abs(found - found.max()) > scale) & (np.abs(found - found.min()) > scale)
        inside &= (np.abs(before - before.max()) > scale) & (np.abs(before - before.min()) > scale)
        assert np.abs((found - before) - moved[:, None, None])[inside].max() <= scale * 1.01

    def test_a_bias_that_is_left_out_by_an_empty_name_is_put_there(self, tmp_path: Path) -> None:
        plain, empty = (network({"x": SHAPE}, "y = Conv (x, w0)", W) for _ in range(2))
        empty.graph.node[0].input.append("")
        found = []
        for name, proto in (("plain", plain), ("empty", empty)):
            (tmp_path / name).mkdir()
            session = built(tmp_path / name, proto, [[X["x"]]])
            found.append(checked(wished(session, biases={"y": random(4, seed=40)}), X)["y"])
        assert np.array_equal(*found)

    @pytest.mark.parametrize("precision", ["int8", "int16", "float16"])
    def test_replaced_weights_hold_in_integer_layers(self, chain: Session, precision: str) -> None:
        weight = np.clip(W["w1"], -0.4, 0.4)
        found = checked(wished(chain, {"m": precision}, weights={"m": weight}), X)["m"]
        before = checked(wished(chain, {"m": precision}), X)["m"]
        assert np.array_equal(found, before) == (precision == "float16")

    def test_a_single_source_of_error_has_no_corrections(self, chain: Session) -> None:
        corrected = wished(chain, biases={"a": random(4, seed=40)})
        (found,) = make_session(lower(corrected, only=frozenset())).run(None, X)
        (plain,) = make_session(lower(wished(chain), only=frozenset())).run(None, X)
        assert np.array_equal(found, plain)


class TestConstantsOfSeveralReaders:
    def test_one_constant_read_by_layers_of_every_precision(self, tmp_path: Path) -> None:
        body = "a = Conv (x, w0, b0)\nb = Conv (a, w0, b0)\nc = Conv (b, w0, b0)\nd = Conv (c, w0, b1)\n"
        body += "e = Max (d, b0)\ny = Add (e, b0)"
        proto = network({"x": (1, 4, 1, 4)}, body, W)
        session = built(tmp_path, proto, [[random(1, 4, 1, 4)]], optimization_level=0)
        checked(wished(session, {"a": "float16", "b": "int16"}), {"x": random(1, 4, 1, 4, seed=2)})

    def test_one_constant_as_weight_and_bias(self, tmp_path: Path) -> None:
        square = random(4, 4, spread=3.0)
        session = built(
            tmp_path, network({"x": (4, 4)}, "y = Gemm (x, w, w)", {"w": square}), [[random(4, 4)]],
            optimization_level=0,
        )  # fmt: skip
        for wish in ("int8", "int16", "float16"):
            checked(wished(session, {"y": wish}), {"x": random(4, 4, seed=2)})

    def test_names_with_dots_and_of_operators(self, tmp_path: Path) -> None:
        body = "a = Conv (x, u, b0)\nb = Conv (a, v, b1)\nc = Mul (b, u)\ny = Mul (c, b0)"
        constants = {"u": random(4, 4, 1, 1, seed=5), "v": random(4, 4, 1, 1, seed=6), **W}
        proto = renamed(
            network({"x": (4, 4, 1, 4)}, body, constants), {"u": "n.1", "a": "Mul", "v": "n", "b": "1.Mul", "c": "Conv"}
        )
        session = built(tmp_path, proto, [[random(4, 4, 1, 4)]], optimization_level=0)
        checked(wished(session), {"x": random(4, 4, 1, 4, seed=2)})

    @pytest.mark.parametrize("line", ["MatMul (c, x)", "Gemm (c, x)", "Gemm (c, x, b)"])
    def test_a_constant_first_operand_is_rounded_like_an_activation(self, tmp_path: Path, line: str) -> None:
        constants = {"c": random(3, 5), "b": random(4)}
        session = built(
            tmp_path, network({"x": (5, 4)}, f"y = {line}", constants), [[random(5, 4)]], optimization_level=0
        )
        for wish in ("int8", "int16", "float16"):
            quantized = wished(session, {"x": wish, "y": wish})
            feeds = {"x": random(5, 4, seed=0)}
            found = checked(quantized, feeds)["y"]
            exact = constants["c"] @ feeds["x"] + (constants["b"] if "b)" in line else 0)
            assert 0 < np.abs(found - exact).max() < {"int8": 0.1, "int16": 4e-4, "float16": 1e-2}[wish]


class TestFloat16:
    def test_what_is_beyond_its_largest_number_becomes_infinite_and_int8_takes_its_end(self, tmp_path: Path) -> None:
        proto = network({"x": (1, 4)}, "m = Mul (x, x)\nn = LeakyRelu (m)\ny = Mul (n, s)", {"s": random(1)})
        top = np.array([[255.0, 255.875, 256.0, 300.0]], np.float32)
        session = built(tmp_path, proto, [[top]])
        found = checked(wished(session, {"x": "float16", "m": "float16", "n": "float16"}), {"x": top})
        # The largest is 65504; what lies at least half a step beyond it, as 65536 does, is infinite.
        assert found["m"].tolist() == [[65024.0, 65472.0, np.inf, np.inf]]
        assert np.isinf(found["n"][0, 2:]).all()
        assert np.isfinite(found["y"]).all()

    def test_a_weight_beyond_it_becomes_infinite(self, tmp_path: Path) -> None:
        weight = np.array([1.0, 7e4], np.float32).reshape(2, 1, 1, 1)
        proto = network({"x": (1, 1, 2, 2)}, "y = Conv (x, w)", {"w": weight})
        session = built(tmp_path, proto, [[np.ones((1, 1, 2, 2), np.float32)]])
        found = checked(wished(session, {"x": "float16", "y": "float16"}), {"x": np.ones((1, 1, 2, 2), np.float32)})
        assert np.isinf(found["y"][0, 1]).all() and np.isfinite(found["y"][0, 0]).all()

    def test_a_float16_build_equals_every_layer_wished(self, tmp_path: Path) -> None:
        session = build(tmp_path, CHAIN)
        everything = dict.fromkeys(("x", "a", "m", "n", "y"), "float16")
        mixed = wished(session, everything)
        whole = dataclasses.replace(mixed, table=to_float16(session.model))
        first, second = checked(mixed, X), checked(whole, X)
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_demo_in_all_three_precisions() -> None:
    session = Session(Config(mean_values=[demo.MEAN], std_values=[demo.STD], target_platform="rk3588"))
    session.load_onnx(demo.MODEL)
    session.build(dataset=demo.DATASET)
    names = [layer.name for layer in session.summary().layers]
    wishes = dict.fromkeys(names[1::3], "float16") | dict.fromkeys(names[2::3], "int16")
    quantized = wished(session, {name: wish for name, wish in wishes.items() if session.table.precision(name)})
    for seed in range(2):
        checked(quantized, random_feeds(session.model, seed))


class TestGivenParameters:
    """Models that brought parameters for some tensors, as after training with quantization."""

    @pytest.fixture
    def trained(self, tmp_path: Path) -> Quantized:
        session = build(tmp_path, "c = Conv (x, w0, b0)\nf = Relu (c)\nm = Conv (f, w1, b1)\ny = Conv (m, w2)")
        model = session.model
        values = {v.name: v for node in model.graph for v in node.outputs} | {v.name: v for v in model.graph.inputs}
        for name, scale, zero in (("x", 0.03, 3), ("f", 0.01, -128), ("y", 0.05, 0)):
            keep(values[name], GivenParameters("int8", (scale,), (zero,)))
        weight = model.graph.initializers["w1"]
        keep(weight, GivenParameters("int8", (0.01, 0.02, 0.03, 0.04), (0, 0, 0, 0), 0))
        found = layers(model)
        return Quantized(model, found, given_only(model, found))

    def test_what_came_without_is_float16(self, trained: Quantized) -> None:
        found = checked(trained, X)
        assert {name: trained.table.precision(name) for name in found} == {
            "x": "int8", "f": "int8", "m": "float16", "y": "int8",
        }  # fmt: skip
        assert on_grid(found["f"], PlainGrid(0.01, -128, 8)) and np.array_equal(found["m"], half(found["m"]))

    @pytest.mark.parametrize("wishes", [{"f": "float16"}, {"f": "int16"}, {"c": "float16"}, {"y": "int16"}])
    def test_wishes_hold_on_them_too(self, trained: Quantized, wishes: dict[str, str]) -> None:
        wishful = trained.changed(table=Table(trained.table.rows, wishes))
        before, after = checked(trained, X), checked(wishful, X)
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        # What reads a grid that came before it reads the same numbers in every precision.
        assert {wishful.makers[name].name for name in wishes} <= changed <= {"f", "m", "y"}

    def test_a_convolution_without_a_grid_goes_with_its_activation(self, trained: Quantized) -> None:
        # The tensor between them came without parameters: it cannot be stored in int8, so that nothing parts them.
        wishful = trained.changed(table=Table(trained.table.rows, {"f": "float16"}))
        assert computed_in(wishful.makers["f"], wishful.table) == ["float16", "float16"]

    def test_replaced_weights_leave_the_grid_that_came(self, trained: Quantized) -> None:
        rows = {**trained.table.rows, "m": Row("int8", -3.0, 3.0, *activation_parameters(-3, 3))}
        before = dataclasses.replace(trained, table=Table(rows))
        # A third of the weights would leave two thirds of the grid that came unused.
        after = dataclasses.replace(before, corrections=Corrections(weights={"m": W["w1"] / 3}))
        checked(after, X)
        node = after.makers["m"].last
        scale = plain_weight("Conv", W["w1"] / 3, per_channel=True).scale[:, :1]
        assert np.array_equal(after.constants.weight(node, "int8").scale, scale)
        assert before.constants.weight(node, "int8").scale.reshape(-1).tolist() == [0.01, 0.02, 0.03, 0.04]
