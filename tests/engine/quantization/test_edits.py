"""What a person may change in a quantized model, what is refused, and how it is said."""

from __future__ import annotations

import math

import pytest

from engine.errors import QuantizationError
from engine.graph.layers import layers
from engine.quantization.edits import Edits, check_wish, edited, layer_wishes, row_of, with_range
from engine.quantization.quantize import to_float16
from engine.quantization.quantized import Quantized
from engine.quantization.table import from_cfg, to_cfg
from engine.targets import find_target
from tests.simulated import checked, wished
from tests.small_networks import built, integers, network, random

BODY = """
conv_first = Conv (x, w, b)
relu_first = Relu (conv_first)
left, right = Split <axis = 1, num_outputs = 2> (relu_first)
m = Mul (left, right)
j = Concat <axis = 1> (m, joined)
values, indices = TopK <axis = 1> (j, k)
y = Mul (values, factor)
"""
CONSTANTS = {
    "w": random(4, 3, 1, 1), "b": random(4), "joined": random(1, 2, 5, 5), "k": integers(2),
    "factor": random(1, 2, 1, 1),
}  # fmt: skip
FULL, SMALL = find_target("rk3588"), find_target("rv1106")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    proto = network({"x": (1, 3, 5, 5)}, BODY, CONSTANTS, ["y", "indices"])
    return wished(built(tmp_path_factory.mktemp("edits"), proto, [[random(1, 3, 5, 5)]]))


class TestWishes:
    @pytest.mark.parametrize("tensor", ["x", "conv_first", "relu_first", "left", "y"])
    @pytest.mark.parametrize("precision", ["int8", "int16", "float16"])
    def test_inputs_inner_tensors_and_outputs_take_every_precision(
        self, quantized: Quantized, tensor: str, precision: str
    ) -> None:
        after = edited(quantized, Edits({tensor: precision}), FULL)
        assert after.table.precision(tensor) == precision
        checked(after, {"x": random(1, 3, 5, 5, seed=3)})

    def test_an_unknown_tensor_is_told_with_the_nearest_names(self, quantized: Quantized) -> None:
        with pytest.raises(QuantizationError) as caught:
            check_wish(quantized, "relu_first_", "float16", FULL)
        assert str(caught.value) == (
            "tensor 'relu_first_': the model has no such tensor (did you mean 'relu_first' or 'conv_first'?)"
        )

    @pytest.mark.parametrize("constant", ["w", "b", "joined", "factor", "indices", "y_int8"])
    def test_constants_integers_and_copies_are_no_tensors_to_wish_for(
        self, quantized: Quantized, constant: str
    ) -> None:
        with pytest.raises(QuantizationError, match="no such tensor"):
            check_wish(quantized, constant, "int16", FULL)

    def test_the_place_of_a_line_is_told_where_there_is_one(self, quantized: Quantized) -> None:
        with pytest.raises(QuantizationError, match=r"^model\.cfg, line 3: the model has no such tensor"):
            check_wish(quantized, "nothing", "float16", FULL, where="model.cfg, line 3")

    def test_a_precision_that_the_target_lacks(self, quantized: Quantized) -> None:
        with pytest.raises(QuantizationError) as caught:
            edited(quantized, Edits({"left": "float16"}), SMALL)
        assert str(caught.value) == "tensor 'left': rv1106 cannot run a layer in 'float16' (use int8, int16)"
        assert edited(quantized, Edits({"left": "int16"}), SMALL).table.precision("left") == "int16"

    @pytest.mark.parametrize("precision", ["float32", "int4", "", "FLOAT16"])
    def test_a_precision_that_nothing_has(self, quantized: Quantized, precision: str) -> None:
        with pytest.raises(QuantizationError, match="use int8, int16, float16"):
            check_wish(quantized, "left", precision, FULL)

    @pytest.mark.parametrize("precision", ["int8", "int16"])
    def test_a_grid_needs_a_range(self, quantized: Quantized, precision: str) -> None:
        model = quantized.model
        half = Quantized(model, layers(model), to_float16(model))
        with pytest.raises(QuantizationError) as caught:
            edited(half, Edits({"left": precision}), FULL)
        assert str(caught.value) == (
            f"tensor 'left': {precision} needs a range, and this tensor was never calibrated (build with a dataset)"
        )
        assert edited(half, Edits({"left": "float16"}), FULL).table.wishes == {"left": "float16", "right": "float16"}

    def test_outputs_of_one_layer_go_together_and_integers_stay_out(self, quantized: Quantized) -> None:
        assert edited(quantized, Edits({"right": "float16"}), FULL).table.wishes == {
            "right": "float16", "left": "float16",
        }  # fmt: skip
        assert edited(quantized, Edits({"right": "float16", "left": "int16"}), FULL).table.wishes == {
            "right": "float16", "left": "int16",
        }  # fmt: skip
        # The indices of a TopK have no precision; a line for them would be refused when the cfg is read again.
        after = edited(quantized, Edits({"values": "float16"}), FULL)
        assert after.table.wishes == {"values": "float16"}
        for name, precision in from_cfg(to_cfg(after.table)).wishes.items():
            check_wish(after, name, precision, FULL)

    def test_edits_replace_those_before(self, quantized: Quantized) -> None:
        once = edited(quantized, Edits({"m": "float16"}), FULL)
        again = edited(once, Edits({"j": "float16"}), FULL)
        assert again.table.wishes == {"j": "float16"} and once.table.wishes == {"m": "float16"}
        assert again.constants.weight(again.layers[0].nodes[0], "int8") is quantized.constants.weight(
            quantized.layers[0].nodes[0], "int8"
        )

    def test_a_whole_layer_is_a_line_for_each_tensor_of_it(self, quantized: Quantized) -> None:
        assert layer_wishes(quantized.makers["relu_first"], quantized.table, "int16") == {
            "conv_first": "int16", "relu_first": "int16",
        }  # fmt: skip
        assert layer_wishes(quantized.makers["values"], quantized.table, "int16") == {"values": "int16"}


class TestRanges:
    def test_scale_and_zero_point_follow(self, quantized: Quantized) -> None:
        after = edited(quantized, Edits(ranges={"m": (-0.5, 1.5)}), FULL).table
        row, before = after.rows["m"], quantized.table.rows["m"]
        assert (row.min, row.max, row.scale, row.zero_point) == (-0.5, 1.5, 2 / 255, -64)
        assert (row.ori_min, row.ori_max) == (before.ori_min, before.ori_max)
        wider = after.quantizer("m", "int16")
        assert wider is not None and wider.scale == 2 / 65535
        assert quantized.table.rows["m"] is before

    @pytest.mark.parametrize("low, high", [(-0.5, 1.5), (-500.0, 800.0), (0.0, 0.0), (2.0, 3.0), (-3.0, -2.0)])
    def test_narrowed_and_widened_ranges_are_what_is_simulated(
        self, quantized: Quantized, low: float, high: float
    ) -> None:
        found = checked(edited(quantized, Edits(ranges={"m": (low, high)}), FULL), {"x": random(1, 3, 5, 5)})["m"]
        step = (max(high, 0) - min(low, 0)) / 255 or 2 / 255
        width = 255 * step if low != high else 2
        assert found.max() - found.min() <= width + step

    def test_the_row_of_an_output_is_its_copys(self, quantized: Quantized) -> None:
        assert [row_of(quantized.table, name) for name in ("x", "y", "m", "nothing")] == [
            "x_int8", "y_int8", "m", "nothing",
        ]  # fmt: skip
        after = edited(quantized, Edits(ranges={"y_int8": (-1.0, 1.0)}), FULL)
        assert checked(after, {"x": random(1, 3, 5, 5)})["y"].max() <= 1 + 1 / 255

    @pytest.mark.parametrize(
        ("row", "low", "high", "message"),
        [
            ("m", 1.0, -1.0, "has min 1 above max -1"),
            ("m", math.nan, 1.0, "has a range that is not finite"),
            ("m", 0.0, math.inf, "has a range that is not finite"),
            ("y", 0.0, 1.0, "is not quantized, so its range cannot be set"),
            ("nothing", 0.0, 1.0, "is not in the table, so its range cannot be set"),
            ("joined", 0.0, 1.0, "is a constant of the model, whose range is that of its numbers"),
            ("factor", 0.0, 1.0, "is a constant of the model, whose range is that of its numbers"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, quantized: Quantized, row: str, low: float, high: float, message: str
    ) -> None:
        with pytest.raises(QuantizationError) as caught:
            edited(quantized, Edits(ranges={row: (low, high)}), FULL)
        assert str(caught.value) == f"tensor {row!r}: {message}"

    def test_the_place_of_a_row_is_told_where_there_is_one(self, quantized: Quantized) -> None:
        with pytest.raises(QuantizationError, match=r"^cfg, line 9: has min 2 above max 1"):
            with_range("m", quantized.table.rows["m"], 2.0, 1.0, where="cfg, line 9")
