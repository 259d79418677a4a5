"""Which tensors share a range: every rule of the toolkit, each with a near miss where it must not act."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from engine.quantization.ranges import Range, share_ranges
from tests.small_networks import Array, built, integers, network, random, typed

SHAPE = (1, 4, 6, 6)
CONSTANTS: dict[str, Array] = {
    "w": random(4, 4, 1, 1), "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32),
    "n0": np.float32(0).reshape(()), "n6": np.float32(6).reshape(()),
    "start": integers(0), "stop": integers(3), "axis": integers(2),
    "flat": integers(1, 144), "twice": np.array([1, 1, 2, 2], np.float32), "indices": integers(0, 2),
    "fixed": np.full((1, 1, 6, 6), 9, np.float32),
}  # fmt: skip


def shared(
    body: str,
    observed: Mapping[str, Range],
    outputs: Sequence[str] = ("y",),
    inputs: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Range]:
    """Ranges in use of the model `body` when calibration observed `observed`, and -1..1 elsewhere."""
    used = {
        name: array for name, array in CONSTANTS.items() if name in body.replace(",", " ").replace(")", " ").split()
    }
    model = ir.from_proto(typed(network(inputs or {"x": SHAPE}, body, used, outputs)))
    names = [v.name or "" for v in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]]
    return share_ranges(model, {name: observed.get(name, (-1.0, 1.0)) for name in names})


class TestReluAndClip:
    @pytest.mark.parametrize(
        "maker",
        [
            "Conv (x, w)", "Add (x, x)", "BatchNormalization (x, one, zero, zero, one)",
            "ConvTranspose (x, w)",
        ],
    )  # fmt: skip
    def test_the_producer_takes_the_range_behind_the_activation(self, maker: str) -> None:
        ranges = shared(f"c = {maker}\nr = Relu (c)\ny = Mul (r, r)", {"c": (-5, 7), "r": (0, 7)})
        assert ranges["c"] == ranges["r"] == (0, 7)
        ranges = shared(f"c = {maker}\nr = Clip (c, n0, n6)\ny = Mul (r, r)", {"c": (-5, 9), "r": (0, 6)})
        assert ranges["c"] == ranges["r"] == (0, 6)

    def test_not_when_another_layer_reads_the_producer(self) -> None:
        ranges = shared("c = Conv (x, w)\nr = Relu (c)\ny = Mul (r, c)", {"c": (-5, 7), "r": (0, 7)})
        assert (ranges["c"], ranges["r"]) == ((-5, 7), (0, 7))

    def test_not_when_the_producer_is_an_output_of_the_model(self) -> None:
        ranges = shared("c = Conv (x, w)\ny = Relu (c)", {"c": (-5, 7), "y": (0, 7)}, ["c", "y"])
        assert ranges["c"] == (-5, 7)

    def test_not_when_the_activation_reads_the_models_input(self) -> None:
        assert shared("y = Relu (x)", {"x": (-5, 7), "y": (0, 7)})["x"] == (-5, 7)

    @pytest.mark.parametrize("activation", ["LeakyRelu", "Elu", "Softplus", "Abs"])
    def test_other_activations_leave_their_input_alone(self, activation: str) -> None:
        ranges = shared(f"c = Conv (x, w)\na = {activation} (c)\ny = Mul (a, a)", {"c": (-5, 7), "a": (0, 3)})
        assert (ranges["c"], ranges["a"]) == ((-5, 7), (0, 3))

    def test_a_chain_of_them_hands_the_last_range_back(self) -> None:
        ranges = shared(
            "c = Conv (x, w)\nr = Relu (c)\np = MaxPool <kernel_shape = [2, 2]> (r)\ny = Mul (p, p)",
            {"c": (-5, 7), "r": (0, 7), "p": (0.5, 7)},
        )
        assert ranges["c"] == ranges["r"] == ranges["p"] == (0.5, 7)


TANH = float(np.float32(3.2))


class TestSaturation:
    @pytest.mark.parametrize(
        ("activation", "bounds"),
        [
            ("Sigmoid (c)", (-7.0, 7.0)),
            ("Tanh (c)", (-TANH, TANH)),
            ("HardSigmoid (c)", (-2.5, 2.5)),
            ("HardSigmoid <alpha = 0.2, beta = 0.5> (c)", (-2.5, 2.5)),
            ("HardSigmoid <alpha = 0.1666667> (c)", (-3.0, 3.0)),
            ("HardSwish (c)", (-3.0, math.inf)),
        ],
    )
    def test_the_input_is_clipped_where_the_activation_is_flat(self, activation: str, bounds: Range) -> None:
        body = f"c = Conv (x, w)\na = {activation}\ny = Mul (a, a)"
        ranges = shared(body, {"c": (-20, 30), "a": (0.25, 0.75)})
        assert ranges["c"] == pytest.approx((bounds[0], min(bounds[1], 30)), rel=1e-6)
        assert ranges["a"] == (0.25, 0.75)
        assert all(float(np.float32(v)) == v for v in ranges["c"])
        inside = shared(body, {"c": (-1.5, 2), "a": (0.25, 0.75)})
        assert inside["c"] == (-1.5, 2)
        assert shared(body, {"c": (-20, 2)})["c"][1] == 2

    @pytest.mark.parametrize("activation", ["Sigmoid", "HardSwish"])
    def test_a_range_wholly_beyond_keeps_its_nearer_end(self, activation: str) -> None:
        ranges = shared(f"c = Conv (x, w)\na = {activation} (c)\ny = Mul (a, a)", {"c": (-20, -10)})
        assert ranges["c"] == ((-7, -7) if activation == "Sigmoid" else (-3, -3))

    def test_not_when_another_layer_reads_the_tensor(self) -> None:
        assert shared("c = Conv (x, w)\na = Sigmoid (c)\ny = Add (a, c)", {"c": (-20, 30)})["c"] == (-20, 30)

    def test_not_when_it_is_an_output_or_the_input_of_the_model(self) -> None:
        assert shared("c = Conv (x, w)\ny = Sigmoid (c)", {"c": (-20, 30)}, ["c", "y"])["c"] == (-20, 30)
        assert shared("y = Sigmoid (x)", {"x": (-20, 30)})["x"] == (-20, 30)

    def test_x_times_sigmoid_of_x_keeps_its_input_and_its_output(self) -> None:
        ranges = shared("c = Conv (x, w)\ng = Sigmoid (c)\ny = Mul (c, g)", {"c": (-20, 30), "y": (-0.3, 30)})
        assert (ranges["c"], ranges["y"]) == ((-20, 30), (-0.3, 30))

    def test_the_widest_of_several_readers_counts(self) -> None:
        body = "c = Conv (x, w)\na = HardSigmoid (c)\nb = HardSigmoid <alpha = 0.1> (c)\ny = Mul (a, b)"
        assert shared(body, {"c": (-20, 30)})["c"] == pytest.approx((-5, 5))
        body = "c = Conv (x, w)\na = Sigmoid (c)\nb = Tanh (c)\ny = Mul (a, b)"
        assert shared(body, {"c": (-20, 30)})["c"] == (-7, 7)


class TestConcat:
    def test_the_output_takes_the_union_and_the_inputs_keep_theirs(self) -> None:
        body = "a = Conv (x, w)\nb = Relu (x)\ny = Concat <axis = 1> (a, b)"
        ranges = shared(body, {"a": (-2, 3), "b": (0, 9), "y": (-1, 8)})
        assert (ranges["a"], ranges["b"], ranges["y"]) == ((-2, 3), (0, 9), (-2, 9))

    def test_the_union_is_of_ranges_in_use(self) -> None:
        # b takes the range behind its only pool; the join then needs no more than that.
        body = "b = Conv (x, w)\nr = Relu (b)\na = Conv (x, w)\ny = Concat <axis = -3> (r, a)"
        assert shared(body, {"b": (-90, 4), "r": (0, 4), "a": (-2, 3), "y": (-2, 4)})["y"] == (-2, 4)

    def test_a_constant_part_counts(self) -> None:
        assert shared("a = Conv (x, w)\ny = Concat <axis = 1> (a, fixed)", {"a": (-2, 3)})["y"] == (-2, 9)


class TestPoolsAndMoves:
    READERS = (
        "MaxPool <kernel_shape = [2, 2]> (c)",
        "Slice (c, start, stop, axis)",
        'Resize <mode = "linear"> (c, , twice)',
        "Gather <axis = 1> (c, indices)",
    )

    @pytest.mark.parametrize("reader", READERS)
    def test_a_producer_with_this_reader_alone_takes_its_outputs_range(self, reader: str) -> None:
        ranges = shared(f"c = Conv (x, w)\np = {reader}\ny = Mul (p, p)", {"c": (-5, 7), "p": (-2, 6)})
        assert ranges["c"] == ranges["p"] == (-2, 6)

    @pytest.mark.parametrize("reader", READERS)
    def test_a_producer_with_other_readers_keeps_its_own(self, reader: str) -> None:
        body = f"c = Conv (x, w)\np = {reader}\nz = Mul (c, c)\ny = Mul (p, p)"
        assert shared(body, {"c": (-5, 7), "p": (-2, 6)}, ["z", "y"])["c"] == (-5, 7)

    @pytest.mark.parametrize("reader", READERS)
    def test_a_producer_that_is_an_output_keeps_its_own(self, reader: str) -> None:
        body = f"c = Conv (x, w)\np = {reader}\ny = Mul (p, p)"
        assert shared(body, {"c": (-5, 7), "p": (-2, 6)}, ["c", "y"])["c"] == (-5, 7)

    def test_a_maxpool_beside_other_readers_takes_its_inputs_range(self) -> None:
        body = f"c = Conv (x, w)\np = {self.READERS[0]}\nz = Mul (c, c)\ny = Mul (p, p)"
        assert shared(body, {"c": (-5, 7), "p": (-2, 6)}, ["z", "y"])["p"] == (-5, 7)

    @pytest.mark.parametrize("reader", READERS[1:3])
    def test_a_slice_or_linear_resize_beside_other_readers_keeps_its_own(self, reader: str) -> None:
        body = f"c = Conv (x, w)\np = {reader}\nz = Mul (c, c)\ny = Mul (p, p)"
        assert shared(body, {"c": (-5, 7), "p": (-2, 6)}, ["z", "y"])["p"] == (-2, 6)

    def test_two_slices_of_one_tensor_share_nothing(self) -> None:
        body = "c = Conv (x, w)\np = Slice (c, start, stop, axis)\nq = Slice (c, start, axis, axis)\ny = Mul (p, p)"
        ranges = shared(body, {"c": (-5, 7), "p": (-2, 6), "q": (-1, 1)}, ["y", "q"])
        assert (ranges["c"], ranges["p"], ranges["q"]) == ((-5, 7), (-2, 6), (-1, 1))

    def test_the_parts_of_a_split_take_the_whole_range(self) -> None:
        body = "c = Conv (x, w)\na, b = Split <axis = -3, num_outputs = 2> (c)\nr = Relu (a)\ny = Mul (r, b)"
        ranges = shared(body, {"c": (-5, 7), "a": (-2, 6), "b": (-5, 7), "r": (0, 6)})
        assert (ranges["a"], ranges["b"], ranges["r"], ranges["c"]) == ((-5, 7), (-5, 7), (0, 6), (-5, 7))

    def test_cubic_interpolation_overshoots_and_shares_nothing(self) -> None:
        body = 'c = Conv (x, w)\np = Resize <mode = "cubic"> (c, , twice)\ny = Mul (p, p)'
        ranges = shared(body, {"c": (-5, 7), "p": (-4, 9)})
        assert (ranges["c"], ranges["p"]) == ((-5, 7), (-4, 9))

    def test_an_average_pool_takes_its_inputs_range(self) -> None:
        body = "c = Conv (x, w)\np = AveragePool <kernel_shape = [2, 2]> (c)\ny = Mul (p, p)"
        ranges = shared(body, {"c": (-5, 7), "p": (-2, 6)})
        assert ranges["c"] == ranges["p"] == (-5, 7)

    @pytest.mark.parametrize("mean", ["GlobalAveragePool (c)", "ReduceMean (c, axis)"])
    def test_a_mean_over_the_picture_keeps_its_own(self, mean: str) -> None:
        ranges = shared(f"c = Conv (x, w)\np = {mean}\ny = Mul (p, p)", {"c": (-5, 7), "p": (-2, 6)})
        assert (ranges["c"], ranges["p"]) == ((-5, 7), (-2, 6))

    @pytest.mark.parametrize(
        "move",
        [
            'Resize <mode = "nearest"> (c, , twice)', "Transpose <perm = [0, 2, 3, 1]> (c)", "Reshape (c, flat)",
            "DepthToSpace <blocksize = 2> (c)", "Flatten (c)",
        ],
    )  # fmt: skip
    def test_tensors_of_the_same_values_have_the_same_range(self, move: str) -> None:
        observed: dict[str, Range] = {"c": (-5, 7), "m": (-5, 7), "r": (0, 7)}
        # Behind it, an activation narrows both; beside it, another reader keeps both wide.
        ranges = shared(f"c = Conv (x, w)\nm = {move}\nr = Relu (m)\ny = Mul (r, r)", observed)
        assert ranges["c"] == ranges["m"] == (0, 7)
        ranges = shared(f"c = Conv (x, w)\nm = {move}\nr = Relu (m)\ny = Mul (r, r)", observed, ["c", "y"])
        assert ranges["c"] == ranges["m"] == (-5, 7)

    @pytest.mark.parametrize(
        "op", ["Add (c, x)", "Mul (c, x)", "Sub (c, x)", "Div (c, x)", "Max (c, x)", "MatMul (c, x)"]
    )
    def test_arithmetic_shares_nothing(self, op: str) -> None:
        ranges = shared(f"c = Conv (x, w)\na = {op}\ny = Abs (a)", {"c": (-5, 7), "x": (-3, 4), "a": (-50, 60)})
        assert (ranges["c"], ranges["x"], ranges["a"], ranges["y"]) == ((-5, 7), (-3, 4), (-50, 60), (-1, 1))

    def test_a_softmax_in_the_middle_has_its_own_range(self) -> None:
        body = "c = Conv (x, w)\ns = Softmax <axis = 1> (c)\ny = Conv (s, w)"
        ranges = shared(body, {"c": (-50, 70), "s": (0.01, 0.9)})
        assert (ranges["c"], ranges["s"]) == ((-50, 70), (0.01, 0.9))


def test_a_build_writes_the_shared_range_beside_the_observed_one(tmp_path: Path) -> None:
    sample = random(1, 4, 6, 6, spread=3)
    proto = network({"x": SHAPE}, "c = Conv (x, w)\nr = Relu (c)\ny = Conv (r, w)", {"w": CONSTANTS["w"]})
    rows = built(tmp_path, proto, [[sample]]).table.rows
    c, r = rows["c"], rows["r"]
    assert c.ori_min < -1 and r.ori_min == 0.0
    assert (c.min, c.max, c.scale, c.zero_point) == (0.0, r.max, r.max / 255, -128)
    assert c.ori_max == r.ori_max == r.max
