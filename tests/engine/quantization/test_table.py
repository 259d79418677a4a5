"""The cfg file: what is written comes back, the toolkit's own files are read, and a broken one is told by its place."""

from __future__ import annotations

import dataclasses
import math

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import QuantizationError
from engine.quantization.table import Row, Table, changed, from_cfg, to_cfg
from tests.engine.quantization.cfg_samples import DW, HOSTILE, NAMES, SAMPLE, rows


class TestRoundTrip:
    @settings(deadline=None)
    @given(
        st.dictionaries(NAMES, rows(), max_size=6),
        st.dictionaries(NAMES, st.sampled_from(["int8", "int16", "float16"]), max_size=4),
    )
    def test_any_table_comes_back_the_same_and_in_order(
        self, parameters: dict[str, Row], wishes: dict[str, str]
    ) -> None:
        back = from_cfg(to_cfg(Table(dict(parameters), dict(wishes))))
        assert list(back.rows.items()) == list(parameters.items())
        assert list(back.wishes.items()) == list(wishes.items())

    @pytest.mark.parametrize("name", HOSTILE)
    def test_any_name_comes_back(self, name: str) -> None:
        text = to_cfg(Table({name: DW}, {name: "float16"}))
        assert list(from_cfg(text).rows) == list(from_cfg(text).wishes) == [name]
        # Other programs read the file with a plain YAML loader.
        assert list(yaml.safe_load(text)["quantize_parameters"]) == [name]

    @settings(deadline=None)
    @given(st.floats(allow_nan=False, width=32), st.floats(1e-40, 1e30))
    @example(1e-05, 1e16)
    @example(-0.0, 5e-324 * 1e300)
    def test_a_plain_yaml_loader_reads_the_numbers_as_numbers(self, number: float, scale: float) -> None:
        row = dataclasses.replace(DW, min=number, ori_max=-number, scale=scale)
        fields = yaml.safe_load(to_cfg(Table({"t": row})))["quantize_parameters"]["t"]
        assert (fields["min"], fields["ori_max"], fields["scale"]) == ([number], [-number], [scale])
        assert type(fields["zero_point"][0]) is int

    def test_rows_without_an_observed_range_come_back_without_one(self) -> None:
        row = from_cfg(to_cfg(Table({"t": Row("float16", 0.0, 1.0)}))).rows["t"]
        assert math.isnan(row.ori_min) and math.isnan(row.ori_max)


class TestTheToolkitsFormat:
    def test_its_text_is_read_and_written_to_the_letter(self) -> None:
        table = from_cfg(SAMPLE)
        assert table == Table({"dw": DW})
        assert to_cfg(table) == SAMPLE

    def test_float_rows_have_empty_lists(self) -> None:
        text = to_cfg(Table({"x": Row("float32", -1.0, 2.0, ori_min=-1.0, ori_max=2.0)}))
        assert "        scale: []\n        zero_point: []\n" in text
        assert from_cfg(text).rows["x"].scale is None

    def test_wishes_stand_above(self) -> None:
        text = to_cfg(Table({"dw": DW}, {"conv1": "float16", "7": "int16"}))
        assert text.startswith("custom_quantize_layers:\n    conv1: float16\n    '7': int16\nquantize_parameters:\n")

    def test_lists_may_be_shared_by_anchors(self) -> None:
        text = SAMPLE.replace("ori_min:\n        -   -38.55097198486328", "ori_min: *id001").replace(
            " min:\n        -   -38.5", " min: &id001\n        -   -38.5"
        )
        text = text.replace("ori_max:\n        -   31.56854820251465", "ori_max: *id002").replace(
            " max:\n        -   31.5", " max: &id002\n        -   31.5"
        )
        assert text.count("*id00") == text.count("&id00") == 2
        assert from_cfg(text) == Table({"dw": DW})

    def test_names_without_quotes_stay_as_they_are_written(self) -> None:
        text = SAMPLE.replace("dw:", "1.10:").replace("{}", "\n    007: float16\n    no: int8\n    1e3: int8")
        table = from_cfg(text)
        assert list(table.rows) == ["1.10"]
        assert table.wishes == {"007": "float16", "no": "int8", "1e3": "int8"}

    def test_comments_inline_lists_exponents_without_a_point_and_bare_numbers_are_read(self) -> None:
        text = SAMPLE.replace("custom_quantize_layers: {}", "custom_quantize_layers:   # 0.99\n    a: float16   # 0.98")
        text = text.replace("scale:\n        -   0.27497851053873695", "scale: [1e-05]")
        text = text.replace("zero_point:\n        -   12", "zero_point: 12")
        table = from_cfg(text)
        assert table.wishes == {"a": "float16"}
        assert (table.rows["dw"].scale, table.rows["dw"].zero_point) == (1e-05, 12)

    def test_unknown_keys_and_empty_sections_are_passed_over(self) -> None:
        assert from_cfg("custom_quantize_layers:\nquantize_parameters:\nnew_key: [1, {a: b}]\n") == Table()
        assert from_cfg(SAMPLE + "        remark: [[x]]\n") == Table({"dw": DW})


class TestBrokenFiles:
    @pytest.mark.parametrize(
        ("old", "new", "place", "what"),
        [
            ("        -   31.56854820251465\n        scale", "        -  [31.5\n        scale", "line 1", ""),
            ("qtype: asym", "qtype: asym: 1", "line 4, column", "not YAML"),
            ("    dw:", "\tdw:", "line 3, column 1", "not YAML"),
            ("quantize_parameters:\n", "quantize_parameters: 5\nother:\n", "line 2, column 22", "not a mapping"),
            ("-   12", "-   twelve", "line 14, column 9", "zero_point"),
            ("-   12", "-   12\n        -   13", "line 14, column 9", "one number"),
            ("-   12", "-   12.5", "line 14, column 9", "not whole"),
            ("-   12", "-   200", "line 14, column 9", "outside of int8"),
            ("-   12", "-   1e400", "line 14, column 9", "zero_point"),
            ("-   0.27497851053873695", "-   0.0", "line 4, column 9", "scale above 0"),
            ("-   0.27497851053873695", "-   -1", "line 4, column 9", "scale above 0"),
            ("-   0.27497851053873695", "-   .inf", "line 4, column 9", "scale above 0"),
            ("-   0.27497851053873695", "-   1e39", "line 4, column 9", "scale above 0"),
            ("dtype: int8", "dtype: int9", "line 6, column 16", "int9"),
            ("dtype: int8", "dtype:", "line 6, column 15", "dtype"),
            ("        qmethod: layer\n", "", "line 4, column 9", "qmethod"),
            ("custom_quantize_layers: {}", "custom_quantize_layers: {a: }", "line 1, column 29", "no precision"),
            ("custom_quantize_layers: {}", "custom_quantize_layers: {a: [b]}", "line 1, column 29", "no precision"),
            ("custom_quantize_layers: {}", "custom_quantize_layers: [a]", "line 1, column 25", "not a mapping"),
            ("qtype: asym", "dtype: int8", "line 6, column 9", "twice"),
            ("-   12", "-   *nowhere", "line 14, column 13", "anchor"),
            ("custom_quantize_layers: {}", "[]: 1", "line 1, column 1", "key"),
            ("quantize_parameters:\n", "---\nquantize_parameters:\n", "line 2, column 1", "second document"),
        ],
    )
    def test_the_message_names_the_place(self, old: str, new: str, place: str, what: str) -> None:
        assert SAMPLE.count(old) == 1
        with pytest.raises(QuantizationError) as caught:
            from_cfg(SAMPLE.replace(old, new), where="m.cfg")
        assert str(caught.value).startswith("m.cfg line ")
        assert place in caught.value.where and what in caught.value.what

    @pytest.mark.parametrize("text", ["", "just text", "- a\n- b", "7"])
    def test_text_that_is_no_mapping_is_refused(self, text: str) -> None:
        with pytest.raises(QuantizationError, match="no mapping"):
            from_cfg(text)

    @pytest.mark.parametrize("text", ["[" * 500_000, "{a: " * 500_000, "- " * 200_000, "? " * 100_000])
    def test_deep_nesting_ends_in_an_error_and_not_in_the_stack(self, text: str) -> None:
        with pytest.raises(QuantizationError):
            from_cfg(text)

    def test_aliases_of_aliases_cost_nothing(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 40)]
        with pytest.raises(QuantizationError, match="no precision") as caught:
            from_cfg("\n".join([*lines, "custom_quantize_layers: {t: *a39}"]))
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("text", ["a: !!python/object/apply:os.getcwd []\n" + SAMPLE, "!!set {a}", "a: \x00"])
    def test_tags_make_nothing_and_odd_bytes_are_refused(self, text: str) -> None:
        try:
            assert from_cfg(text).rows.keys() <= {"dw"}
        except QuantizationError as error:
            assert "cfg" in str(error)

    @settings(deadline=None)
    @given(st.text(alphabet=" \n-:[]{}&*!#'\"ax01.,?|>%@`\t", max_size=60))
    def test_noise_is_a_table_or_an_error(self, text: str) -> None:
        try:
            assert isinstance(from_cfg(text), Table)
        except QuantizationError as error:
            assert str(error)

    @settings(deadline=None)
    @given(st.integers(0, len(SAMPLE) - 1), st.sampled_from(list(" \n-:[]{}&*!#'\"a1.,?|>%@`\t")))
    def test_one_wrong_character_is_a_table_or_an_error(self, position: int, character: str) -> None:
        text = SAMPLE[:position] + character + SAMPLE[position + 1 :]
        try:
            assert isinstance(from_cfg(text), Table)
        except QuantizationError as error:
            assert "line" in str(error) or "cfg" in str(error)


class TestLookingUp:
    TABLE = Table({"x": Row("float32", 0.0, 1.0), "m": DW, "p": Row("float16", 0.0, 1.0), "x_int8": DW})

    def test_an_input_is_quantized_by_its_copys_row(self) -> None:
        assert self.TABLE.quantizer("x") is DW and self.TABLE.precision("x") == "int8"

    def test_float16_and_unknown_tensors_are_not_quantized(self) -> None:
        assert self.TABLE.quantizer("p") is None and self.TABLE.precision("p") == "float16"
        assert self.TABLE.quantizer("ids") is None and self.TABLE.precision("ids") == ""

    def test_a_changed_table_leaves_the_first_as_it_was(self) -> None:
        other = changed(self.TABLE, [("m", dataclasses.replace(DW, max=1.0))])
        assert (other.rows["m"].max, self.TABLE.rows["m"].max) == (1.0, DW.max)
        assert list(other.rows) == list(self.TABLE.rows)
