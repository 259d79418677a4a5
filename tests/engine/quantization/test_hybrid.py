"""An edited cfg becomes the model that it asks for, or is refused with every line that is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import QuantizationError
from engine.graph.layers import layers
from engine.quantization.cfg_edit import with_ranges, with_wishes
from engine.quantization.edits import edited
from engine.quantization.hybrid import apply_cfg, fault_message, read_edits, remarks
from engine.quantization.parameters import asymmetric
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import from_cfg, to_cfg
from engine.simulator.runner import Simulator
from engine.targets import find_target
from tests.small_networks import built, integers, network, random, renamed

RK3588 = find_target("rk3588")
BODY = """\
c = Conv (x, w)
r = Relu (c)
k = Mul (r, m)
a, b = Split <axis = 1> (k, sizes)
s = Softmax <axis = 1> (a)
y = Add (b, b)
"""
# Names as source models have them, which YAML may read as numbers.
NAMES = {"c": "conv1/Conv:0", "r": "conv/Relu:0", "k": "1.10", "a": "512"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    constants = {"w": random(6, 3, 1, 1), "m": random(1, 6, 1, 1), "sizes": integers(3, 3)}
    proto = renamed(network({"x": (1, 3, 4, 4)}, BODY, constants, outputs=("s", "y")), NAMES)
    session = built(tmp_path_factory.mktemp("base"), proto, [[random(1, 3, 4, 4)]])
    return Quantized(session.model, layers(session.model), session.table)


@pytest.fixture(scope="module")
def text(base: Quantized) -> str:
    return to_cfg(base.table)


def edit(text: str, row: str, key: str, value: str) -> str:
    """The cfg with one value of a row replaced; values are lists of one number on a line of their own, or words."""
    lines = text.splitlines()
    start = lines.index(f"    {row}:")
    index = next(i for i in range(start, len(lines)) if lines[i].startswith(f"        {key}:"))
    if lines[index].endswith(":"):
        lines[index + 1] = f"        -   {value}"
    else:
        lines[index] = f"        {key}: {value}"
    return "\n".join(lines) + "\n"


def place(text: str, row: str, key: str) -> int:
    """The line of a row's key, counted from 1."""
    lines = text.splitlines()
    start = lines.index(f"    {row}:")
    return next(i for i in range(start, len(lines)) if lines[i].startswith(f"        {key}:")) + 1


class TestReading:
    @given(data=st.data())
    def test_what_is_read_is_what_is_applied(self, base: Quantized, text: str, data: st.DataObject) -> None:
        rows = st.sampled_from([*base.table.rows, "nowhere"])
        wishes = data.draw(st.dictionaries(rows, st.sampled_from(["int8", "int16", "float16", "float"]), max_size=3))
        edited_text = with_wishes(text, wishes)
        plain = [name for name in base.table.rows if f"    {name}:\n" in text]
        for row in data.draw(st.lists(st.sampled_from(plain), max_size=3)):
            key = data.draw(st.sampled_from(["min", "max", "scale", "dtype"]))
            edited_text = edit(edited_text, row, key, data.draw(st.sampled_from(["-1.5", "2.5", "0", "low", "[]"])))
        edits, faults = read_edits(base, edited_text, RK3588)
        if not faults:
            assert apply_cfg(base, edited_text, RK3588).table == edited(base, edits, RK3588).table
            return
        with pytest.raises(QuantizationError) as caught:
            apply_cfg(base, edited_text, RK3588)
        told = str(caught.value)
        assert all(str(fault.error) in told for fault in faults)
        assert ("faults" in told) == (len(faults) > 1)
        for line, column, error in faults:
            assert f"line {line}, column {column}" in error.where
            assert "cfg line" not in fault_message(error) and error.what in fault_message(error)

    def test_what_can_be_used_is_read_beside_what_cannot(self, base: Quantized, text: str) -> None:
        wished = with_wishes(text, {"b": "int16", "nowhere": "int8"})
        wrong = edit(edit(wished, "conv/Relu:0", "min", "low"), "b", "max", "9.5")
        edits, faults = read_edits(base, wrong, RK3588)
        assert edits.wishes == {"b": "int16"}
        assert edits.ranges == {"b": (base.table.rows["b"].min, 9.5)}
        assert len(faults) == 2


class TestAcceptance:
    def test_an_unedited_cfg_changes_nothing(self, base: Quantized, text: str) -> None:
        assert apply_cfg(base, text, RK3588).table == base.table
        assert apply_cfg(base, "quantize_parameters: {}", RK3588).table == base.table
        trimmed = "quantize_parameters:\n    conv/Relu:0:\n    '1.10': {min: [], colour: red}\nother: [1]"
        assert apply_cfg(base, trimmed, RK3588).table == base.table

    def test_wishes_count_for_every_output_of_a_layer(self, base: Quantized, text: str) -> None:
        wished = apply_cfg(base, with_wishes(text, {"b": "float16", "conv/Relu:0": "int16"}), RK3588)
        assert wished.table.wishes == {"b": "float16", "512": "float16", "conv/Relu:0": "int16"}
        assert wished.table.precision("512") == "float16"
        assert wished.table.rows == base.table.rows
        # The next cfg replaces them.
        assert apply_cfg(wished, text, RK3588).table.wishes == {}

    @pytest.mark.parametrize("ends", [(0.0, 0.25), (-3.0, 50.0), (0.5, 1.5), (0.0, 0.0)])
    def test_a_range_is_narrowed_or_widened_and_its_scale_follows(
        self, ends: tuple[float, float], base: Quantized, text: str
    ) -> None:
        row = apply_cfg(base, with_ranges(text, {"conv/Relu:0": ends}), RK3588).table.rows["conv/Relu:0"]
        old = base.table.rows["conv/Relu:0"]
        assert (row.min, row.max, row.scale, row.zero_point) == (*ends, *asymmetric(*ends))
        assert (row.ori_min, row.ori_max) == (old.ori_min, old.ori_max)

    def test_the_simulated_model_is_cut_where_the_cfg_says(self, base: Quantized, text: str) -> None:
        cut = apply_cfg(base, with_ranges(text, {"y_int8": (-0.5, 0.5)}), RK3588)
        x = random(1, 3, 4, 4)
        before, after = (Simulator(q).run({"x": x})[1] for q in (base, cut))
        assert np.abs(before).max() > 1.0
        assert np.abs(after).max() <= 0.5 + cut.table.rows["y_int8"].scale

    def test_scale_and_zero_point_may_be_old_or_new(self, base: Quantized, text: str) -> None:
        old_scale = with_ranges(text, {"y_int8": (-1.0, 4.0)})
        wanted = apply_cfg(base, old_scale, RK3588)
        new_scale = to_cfg(wanted.table)
        assert new_scale != old_scale
        assert apply_cfg(base, new_scale, RK3588).table == wanted.table

    def test_numbers_that_another_program_shortened_are_taken_for_the_same(self, base: Quantized, text: str) -> None:
        row = base.table.rows["y_int8"]
        shortened = edit(text, "y_int8", "ori_min", f"{row.ori_min:.8g}")
        shortened = edit(shortened, "y_int8", "scale", f"{row.scale:.8g}")
        assert shortened != text
        assert apply_cfg(base, shortened, RK3588).table == base.table

    def test_corrections_stay(self, base: Quantized, text: str) -> None:
        biases = {"conv1/Conv:0": random(6)}
        corrected = apply_cfg(base.changed(biases=biases), text, RK3588)
        assert corrected.corrections.biases is biases

    def test_targets_without_float16_take_integers(self, base: Quantized, text: str) -> None:
        target = find_target("rv1106")
        assert apply_cfg(base, with_wishes(text, {"y": "int16"}), target).table.precision("y") == "int16"

    def test_the_toolkits_layout_is_read(self, base: Quantized) -> None:
        """Anchors, empty lists on the key's line, comments at the right, names without quotes, and copies' rows."""
        rows = base.table.rows
        relu, copy = rows["conv/Relu:0"], rows["512__float16"]
        text = f"""\
custom_quantize_layers:{" " * 77}# 0.99953
    conv1/Conv:0: float16
    conv/Relu:0: float16{" " * 76}# 0.99986
    1.10: int16
quantize_parameters:
    x:
        qtype: asym
        qmethod: layer
        dtype: float32
        min: &id001
        -   {rows["x"].min!r}
        max: &id002
        -   {rows["x"].max!r}
        scale: []
        zero_point: []
        ori_min: *id001
        ori_max: *id002
    conv/Relu:0:
        qtype: asym
        qmethod: layer
        dtype: int8
        min: &id003
        -   {relu.min!r}
        max:
        -   0.5
        scale:
        -   {relu.scale!r}
        zero_point:
        -   {relu.zero_point}
        ori_min:
        -   {relu.ori_min!r}
        ori_max:
        -   {relu.ori_max!r}
    x_int8:
        qtype: asym
        qmethod: layer
        dtype: int8
        min: *id001
        max: *id002
        ori_min: *id001
        ori_max: *id002
    512__float16:
        qtype: asym
        qmethod: layer
        dtype: float16
        min:
        -   {copy.min!r}
        max:
        -   {copy.max!r}
        scale: []
        zero_point: []
"""
        result = apply_cfg(base, text, RK3588).table
        assert result.wishes == {"conv1/Conv:0": "float16", "conv/Relu:0": "float16", "1.10": "int16"}
        assert result.rows["conv/Relu:0"].max == 0.5
        assert {n: r for n, r in result.rows.items() if n != "conv/Relu:0"} == {
            n: r for n, r in rows.items() if n != "conv/Relu:0"
        }


class TestRefusal:
    def refused(self, base: Quantized, text: str, target: str = "rk3588") -> str:
        with pytest.raises(QuantizationError) as caught:
            apply_cfg(base, text, find_target(target), where="m.cfg")
        assert caught.value.where.startswith("m.cfg")
        return str(caught.value)

    @pytest.mark.parametrize(
        ("line", "target", "message"),
        [
            ("conv/Relu:1: float16", "rk3588", "m.cfg line 2, column 5: 'conv/Relu:1': the model has no such tensor"),
            ("conv/Relu:1: float16", "rk3588", "(did you mean 'conv/Relu:0'"),
            ("w: float16", "rk3588", "line 2, column 5: 'w': the model has no such tensor"),
            ("x_int8: float16", "rk3588", "line 2, column 5: 'x_int8': the model has no such tensor"),
            ("y: float16", "rv1106", "line 2, column 8: 'y': rv1106 cannot run a layer in 'float16' (use int8, int16)"),
            ("y: float32", "rk3588", "line 2, column 8: 'y': rk3588 cannot run a layer in 'float32'"),
            ("y:", "rk3588", "line 2, column 7: 'y' is given no precision"),
            ("y: [int8]", "rk3588", "line 2, column 8: 'y' is given no precision"),
        ],
    )  # fmt: skip
    def test_wishes(self, line: str, target: str, message: str, base: Quantized, text: str) -> None:
        edited = text.replace("custom_quantize_layers: {}", f"custom_quantize_layers:\n    {line}")
        assert message in self.refused(base, edited, target)

    @pytest.mark.parametrize(
        ("row", "key", "value", "message"),
        [
            ("y_int8", "min", "99", "has min 99 above max"),
            ("y_int8", "max", ".nan", "float32 cannot hold"),
            ("y_int8", "max", ".inf", "float32 cannot hold"),
            ("y_int8", "max", "1e39", "float32 cannot hold"),
            ("y_int8", "min", "low", "not a list of one number"),
            ("y_int8", "scale", "0.5", "scale of 'y_int8' may not be changed (put "),
            ("y_int8", "zero_point", "3", "zero_point of 'y_int8' may not be changed (put "),
            ("y_int8", "ori_max", "3", "ori_max of 'y_int8' may not be changed (put "),
            ("y_int8", "dtype", "int16", "dtype of 'y_int8' may not be changed (put int8 back; change min and max"),
            ("y_int8", "qtype", "[sym]", "qtype of 'y_int8' may not be changed (put asym back"),
            ("y_int8", "qmethod", "channel", "qmethod of 'y_int8' may not be changed"),
            ("y", "max", "1.0", "not quantized, so its range cannot be set (set the range of 'y_int8')"),
            ("y", "scale", "[0.1]", "scale of 'y' may not be changed (put [] back"),
            ("s", "max", "2.0", "not quantized, so its range cannot be set"),
            ("512__float16", "min", "-2.0", "not quantized, so its range cannot be set"),
            ("m", "max", "9.0", "'m' is a constant, whose range is that of its numbers"),
        ],
    )  # fmt: skip
    def test_rows(self, row: str, key: str, value: str, message: str, base: Quantized, text: str) -> None:
        edited = edit(text, row, key, value)
        refusal = self.refused(base, edited)
        assert message in refusal
        assert int(refusal.split("line ")[1].split(",")[0]) - place(edited, row, key) in (0, 1)

    def test_unknown_rows_name_the_nearest(self, base: Quantized, text: str) -> None:
        refusal = self.refused(base, text.replace("    y_int8:", "    y_int9:"))
        assert "the model has no row 'y_int9' (did you mean 'y_int8'" in refusal
        assert f"line {text.splitlines().index('    y_int8:') + 1}, column 5" in refusal

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("custom_quantize_layers: {", ": is not YAML"),
            ("custom_quantize_layers: [y]", "m.cfg line 1, column 25: custom_quantize_layers is not a mapping"),
            ("quantize_parameters: 7", "m.cfg line 1, column 22: quantize_parameters is not a mapping"),
            ("quantize_parameters: {y: 7}", "m.cfg line 1, column 26: 'y' is not a mapping"),
            ("", "holds no mapping"),
            ("custom_quantize_layer: {y: int16}", "line 1, column 1: there is no section 'custom_quantize_layer'"),
            ("custom_quantize_layers:\ny: int16\n", "line 2, column 1: 'y' stands outside of custom_quantize_layers"),
            ("quantize_parameters: {y: int16}", "precisions are wished for in custom_quantize_layers"),
        ],
    )
    def test_broken_files(self, text: str, message: str, base: Quantized) -> None:
        assert message in self.refused(base, text)

    def test_all_faults_are_told_in_order(self, base: Quantized, text: str) -> None:
        edited = edit(
            edit(edit(text, "conv/Relu:0", "max", "-5"), "conv/Relu:0", "qtype", "sym"), "y_int8", "scale", "7"
        )
        edited = edited.replace("custom_quantize_layers: {}", "custom_quantize_layers:\n    z: int8\n    y: int4")
        refusal = self.refused(base, edited)
        head, *lines = refusal.splitlines()
        assert head == "m.cfg: has 5 faults"
        numbers = [int(line.split("line ")[1].split(",")[0]) for line in lines]
        assert numbers[:2] == [2, 3] and numbers == sorted(numbers) and len(set(numbers)) == 5
        assert all(line.startswith("  m.cfg line ") for line in lines)

    def test_twenty_faults_are_enough(self, base: Quantized) -> None:
        wishes = "".join(f"\n    t{i}: int8" for i in range(30))
        lines = self.refused(base, f"custom_quantize_layers:{wishes}").splitlines()
        assert lines[0] == "m.cfg: has 30 faults" and lines[-1] == "  … and 10 more" and len(lines) == 22

    def test_precisions_that_need_a_range_are_refused_without_one(self, tmp_path: Path) -> None:
        session = built(tmp_path, network({"x": (1, 4)}, "y = Relu (x)", {}), [[random(1, 4)]])
        session.build(do_quantization=False)
        half = Quantized(session.model, layers(session.model), session.table)
        assert "never calibrated" in self.refused(half, "custom_quantize_layers: {y: int8}")


class TestRemarks:
    def test_a_cfg_tells_where_its_numbers_come_from(self, base: Quantized) -> None:
        corrections = Corrections({"conv1/Conv:0": random(1)}, {"b": random(1), "conv1/Conv:0": random(1)})
        equalized = ["a\nb", *(f"layer{i}" for i in range(39))]
        corrected = dataclasses.replace(base, corrections=corrections)
        lines = remarks("mse + equalization", 20, equalized, corrected)
        text = to_cfg(base.table, lines)
        assert from_cfg(text) == base.table
        assert text.splitlines()[:4] == [
            "# quantized with mse + equalization, calibrated with 20 samples",
            "# equalized in 40 layers: a?b, layer0, layer1, layer2, layer3, layer4, layer5, layer6 and 32 more",
            "# weights clipped in 1 layer: conv1/Conv:0",
            "# bias corrected in 2 layers: conv1/Conv:0, b",
        ]
        assert text.splitlines()[4].startswith("custom_quantize_layers")

    def test_a_plain_model_says_so_in_a_line(self, base: Quantized) -> None:
        assert remarks("minmax", 1, (), base) == ("quantized with minmax, calibrated with 1 sample",)
