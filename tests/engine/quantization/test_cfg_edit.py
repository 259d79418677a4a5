"""Edits of a cfg's text: what was asked for changes, and everything that a person wrote stays as it was."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.errors import QuantizationError
from engine.quantization.cfg_edit import with_ranges, with_wishes
from engine.quantization.cfg_text import quoted
from engine.quantization.table import from_cfg, to_cfg
from tests.engine.quantization.cfg_samples import NAMES, SAMPLE, rows

PRECISIONS = st.sampled_from(["int8", "int16", "float16"])
WISHES = st.dictionaries(NAMES, PRECISIONS, max_size=5)
PARAMETERS = SAMPLE.partition("\n")[2]
BY_HAND = f"""\
# which layers, and why
custom_quantize_layers:        # tried on Monday

    # the stem
    'conv 1': float16   # 0.93 before
    "b": int8
    # "c": float16

    d:   int16
# the rest
{PARAMETERS}"""


def has(text: str, *, wishes: dict[str, str]) -> bool:
    """Whether plain YAML loaders and ours read these wishes, and the rows of SAMPLE."""
    table = from_cfg(text)
    loaded = yaml.safe_load(text)["custom_quantize_layers"] or {}
    return table.wishes == wishes == loaded and table.rows == from_cfg(SAMPLE).rows


@st.composite
def cfgs(draw: st.DrawFn) -> str:
    """Cfgs with comments and blank lines wherever lines begin or end, in one of four layouts."""
    table = from_cfg(SAMPLE)
    table.rows = draw(st.dictionaries(NAMES, rows(), max_size=2))
    table.wishes = draw(WISHES)
    lines = []
    note = st.text("abc #:'\"-{}[]?é😀", max_size=8)
    for line in to_cfg(table).splitlines():
        for text in draw(st.lists(note, max_size=2)):
            lines.append(draw(st.sampled_from(["", f"# {text}", f"    # {text}", "        "])))
        if draw(st.integers(0, 3)) == 0 and "\\" not in line and not re.match(r" *\?", line):
            line += f"{draw(st.sampled_from([' ', '   ', ' ' * 40]))}# {draw(note)}"
        lines.append(line)
    if table.wishes and draw(st.booleans()):
        start = next(i for i, line in enumerate(lines) if line.startswith("custom_quantize_layers"))
        end = next(i for i, line in enumerate(lines) if line.startswith("quantize_parameters"))
        names = ", ".join(f"{quoted(n)}: {p}" for n, p in table.wishes.items() if len(n) < 900)
        lines[start:end] = [f"custom_quantize_layers: {{{names}}}"]
    text = draw(st.sampled_from(["\n", "\r\n"])).join(lines)
    return draw(st.sampled_from(["", "\ufeff"])) + text + draw(st.sampled_from(["", "\n", "\n\n# end"]))


def comment_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


class TestWishes:
    @settings(max_examples=100)
    @given(cfgs(), WISHES, st.booleans(), st.data())
    def test_they_are_what_was_asked_for_and_comments_stay(
        self, text: str, wishes: dict[str, str], keep: bool, data: st.DataObject
    ) -> None:
        before = from_cfg(text)
        if keep:
            wishes = {**{name: data.draw(PRECISIONS) for name in before.wishes if data.draw(st.booleans())}, **wishes}
        after = with_wishes(text, wishes)
        table = from_cfg(after)
        assert table.wishes == wishes
        assert table.rows == before.rows
        kept = [name for name in before.wishes if name in wishes]
        assert list(table.wishes) == kept + [name for name in wishes if name not in before.wishes]
        assert comment_lines(after) == comment_lines(text)
        assert with_wishes(after, wishes) == after
        # Outside of the section, nothing is touched.
        head, tail = text.index("custom_quantize_layers"), text.index("\nquantize_parameters")
        assert after.startswith(text[:head]) and after.endswith(text[tail + 1 :])

    @settings(max_examples=60)
    @given(cfgs(), WISHES)
    def test_lines_that_come_and_go_leave_no_trace(self, text: str, wishes: dict[str, str]) -> None:
        old = from_cfg(text).wishes
        assume(not set(old) & set(wishes) and old)
        assert with_wishes(with_wishes(text, {**old, **wishes}), old) == text

    def test_a_persons_file_keeps_its_look(self) -> None:
        after = with_wishes(BY_HAND, {"b": "float16", "d": "int16", "1.10": "int8", "e": "float16"})
        assert after == BY_HAND.replace("    'conv 1': float16   # 0.93 before\n", "").replace(
            '"b": int8', '"b": float16'
        ).replace("d:   int16\n", "d:   int16\n    '1.10': int8\n    e: float16\n")

    def test_an_emptied_section_closes_and_opens_again(self) -> None:
        empty = with_wishes(BY_HAND, {})
        assert empty.splitlines()[1:6] == [
            "custom_quantize_layers: {}        # tried on Monday", "", "    # the stem", '    # "c": float16', "",
        ]  # fmt: skip
        assert has(empty, wishes={})
        again = with_wishes(empty, {"x": "float16"})
        assert again.splitlines()[1:3] == ["custom_quantize_layers:        # tried on Monday", "    x: float16"]
        assert has(again, wishes={"x": "float16"})

    @pytest.mark.parametrize(
        ("section", "wishes", "expected"),
        [
            ("custom_quantize_layers: {a: float16, b: int8}", {"b": "int8"}, "custom_quantize_layers: {b: int8}"),
            ("custom_quantize_layers: {a: float16, b: int8}", {"a": "int16"}, "custom_quantize_layers: {a: int16}"),
            ("custom_quantize_layers: {a: float16,}", {}, "custom_quantize_layers: {}"),
            (
                "custom_quantize_layers: {'a': float16,b: int8}  # c", {"a": "float16", "x,y": "int8"},
                "custom_quantize_layers: {'a': float16, \"x,y\": int8}  # c",
            ),
            (
                "custom_quantize_layers: {  # c\n  a: float16,  # why\n  b: int8  # d\n}", {"a": "float16"},
                "custom_quantize_layers: {  # c\n  a: float16  # why\n    # d\n}",
            ),
            ("custom_quantize_layers: {  # c\n}", {"a": "int8"}, "custom_quantize_layers: {a: int8  # c\n}"),
            ("custom_quantize_layers:\n  {}", {"a": "int8"}, "custom_quantize_layers:\n  {a: int8}"),
            ("custom_quantize_layers: ~", {"a": "int8"}, "custom_quantize_layers:\n    a: int8"),
            ("custom_quantize_layers:  # c", {"a": "int8"}, "custom_quantize_layers:  # c\n    a: int8"),
            ("custom_quantize_layers:", {}, "custom_quantize_layers:"),
            ("'custom_quantize_layers' : {}", {"a": "int8"}, "'custom_quantize_layers' :\n    a: int8"),
            ("custom_quantize_layers:\n  a: int8", {"b": "int8"}, "custom_quantize_layers:\n  b: int8"),
            ("custom_quantize_layers:\n  ? a\n  : int8", {}, "custom_quantize_layers: {}"),
            (
                "custom_quantize_layers:\n  a: # why?\n    # because\n    int8\n  b: int8", {"b": "int16"},
                "custom_quantize_layers:\n    # because\n  b: int16",
            ),
            (
                "custom_quantize_layers:\n    a: &f float16\n    b: *f\n    c: *f",
                {"b": "float16", "c": "int8"}, "custom_quantize_layers:\n    b: float16\n    c: int8",
            ),
            (
                "custom_quantize_layers:\n    a: &f float16\n    b: *f", {"a": "int8", "b": "float16"},
                "custom_quantize_layers:\n    a: int8\n    b: float16",
            ),
            (
                "w: &w {a: int8}\ncustom_quantize_layers: *w",
                {"b": "int8"},
                "w: &w {a: int8}\ncustom_quantize_layers: {b: int8}",
            ),
            ("# no section", {"b": "int8"}, "# no section\ncustom_quantize_layers:\n    b: int8"),
            ("# no section", {}, "# no section"),
        ],
    )  # fmt: skip
    def test_every_layout_of_the_section_is_edited_in_its_own_way(
        self, section: str, wishes: dict[str, str], expected: str
    ) -> None:
        after = with_wishes(f"{section}\n{PARAMETERS}", wishes)
        assert after == f"{expected}\n{PARAMETERS}"
        assert from_cfg(after).wishes == wishes

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("{custom_quantize_layers: {}}", "{custom_quantize_layers: {a: int8}}"),
            ("{custom_quantize_layers: ~, b: 1}", "{custom_quantize_layers: {a: int8}, b: 1}"),
            ("{quantize_parameters: {}}", "{custom_quantize_layers: {a: int8}, quantize_parameters: {}}"),
            ("{}", "{custom_quantize_layers: {a: int8}}"),
            ("  quantize_parameters: {}", "  custom_quantize_layers:\n      a: int8\n  quantize_parameters: {}"),
            ("custom_quantize_layers:", "custom_quantize_layers:\n    a: int8\n"),
            ("custom_quantize_layers:\n b: int8", "custom_quantize_layers:\n a: int8\n"),
            ("custom_quantize_layers:\n a: int16", "custom_quantize_layers:\n a: int8"),
        ],
    )
    def test_documents_in_brackets_and_without_a_last_line_break(self, text: str, expected: str) -> None:
        assert with_wishes(text, {"a": "int8"}) == expected

    def test_comments_stand_where_the_toolkit_puts_them(self) -> None:
        wishes = {"a": "float16", "n" * 110: "float16", "1.10": "int16", "x" * 2000: "int8"}
        text = with_wishes(SAMPLE, wishes, comments={**dict.fromkeys(wishes, "0.99957"), "z": "9"}, heading="0.98")
        lines = text.splitlines()
        assert lines[0] == "custom_quantize_layers:".ljust(100) + "# 0.98"
        assert lines[1] == "    a: float16".ljust(100) + "# 0.99957"
        assert lines[2] == f"    {'n' * 110}: float16  # 0.99957"
        assert lines[5] == "    : int8".ljust(100) + "# 0.99957"
        assert has(text, wishes=wishes)
        assert with_wishes(text, wishes, comments=dict.fromkeys(wishes, "0.5"), heading="0.5") == text
        lines = with_wishes(SAMPLE, {}, heading="0.98").splitlines()
        assert lines[0] == "custom_quantize_layers: {}".ljust(100) + "# 0.98"
        lines = with_wishes(text, {**wishes, "1.10": "int8"}, comments={"1.10": "other"}).splitlines()
        assert lines[3] == "    '1.10': int8" + " " * 83 + "# 0.99957"
        lines = with_wishes(
            BY_HAND, {"b": "int16", "d": "int16"}, comments={"b": "one\n: two", "d": "three"}
        ).splitlines()
        assert lines[4] == '    "b": int16'.ljust(100) + "# one?: two"
        assert lines[7] == "    d:   int16".ljust(100) + "# three"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no mapping"),
            ("- a", "no mapping"),
            ("a: [", "not YAML"),
            ("custom_quantize_layers: 5", "not a mapping"),
            ("custom_quantize_layers: [a]", "not a mapping"),
            ("custom_quantize_layers: &all\n    a: int8\nb: *all", "cannot be edited"),
            ("? custom_quantize_layers\n: a: int8", "cannot be edited"),
            ("custom_quantize_layers:\n    ?\n      a\n    : int8", "cannot be edited"),
        ],
    )
    def test_what_cannot_be_edited_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(QuantizationError, match=message) as caught:
            with_wishes(text, {}, where="m.cfg")
        assert caught.value.where.startswith("m.cfg")

    def test_a_line_without_a_precision_can_be_removed_but_not_kept(self) -> None:
        for text in ("custom_quantize_layers:\n    a:\n    b: int8\n", "custom_quantize_layers: {a: [b], b: int8}"):
            assert from_cfg(with_wishes(text, {"b": "int16"})).wishes == {"b": "int16"}
            with pytest.raises(QuantizationError, match="'a' is given no precision"):
                with_wishes(text, {"a": "int8"})

    def test_a_precision_cannot_smuggle_in_more(self) -> None:
        with pytest.raises(QuantizationError, match="cannot be edited"):
            with_wishes(SAMPLE, {"a": "int8\nquantize_parameters: {}"})

    @settings(max_examples=100)
    @given(st.text(alphabet=" \n-:[]{}&*!#'\"ax01.,?|>%@`\t", max_size=40), WISHES)
    @example("{a, b}", {"a": "int8"})
    def test_noise_is_edited_or_refused(self, noise: str, wishes: dict[str, str]) -> None:
        for text in (noise, f"custom_quantize_layers: {noise}", f"custom_quantize_layers:\n a: int8{noise}"):
            try:
                assert from_cfg(with_wishes(text, wishes)).wishes == wishes
            except QuantizationError as error:
                assert str(error)


class TestRanges:
    SHARED = """\
custom_quantize_layers: {}
quantize_parameters:
    a: &row
        qtype: asym   # as ever
        min: &id001
        -   -1.0
        max:   # cut
        -   &top 2.0   # by hand
        ori_min: *id001
        ori_max: [*top]
    b:
        min: *id001
        max: *id001
    c: *row
    d: {qtype: asym, min: [0.5], max: 7}
    e: {max: []}
    f:
        dtype: int8
"""

    def numbers(self, text: str) -> dict[str, list[float | None]]:
        found = {}
        for name, row in yaml.safe_load(text)["quantize_parameters"].items():
            values = [row.get(key) for key in ("min", "max", "ori_min", "ori_max")]
            found[name] = [v[0] if isinstance(v, list) and v else v or None for v in values]
        return found

    @settings(max_examples=100)
    @given(
        st.dictionaries(
            st.sampled_from("abcdef"), st.tuples(st.floats(-9, 9), st.floats(allow_nan=False, allow_infinity=False))
        )
    )
    def test_only_the_rows_asked_for_change(self, ranges: dict[str, tuple[float, float]]) -> None:
        expected = self.numbers(self.SHARED)
        for name, ends in ranges.items():
            expected[name][:2] = [*ends]
        after = with_ranges(self.SHARED, ranges)
        for name, row in self.numbers(after).items():
            assert [v or 0 for v in row] == [v or 0 for v in expected[name]], name
        assert [line.partition("#")[2] for line in after.splitlines() if "#" in line] in (
            [" as ever", " cut", " by hand"],
        )
        assert with_ranges(after, ranges) == after

    def test_an_alias_is_written_out_where_the_number_stays(self) -> None:
        after = with_ranges(self.SHARED, {"a": (-1.0, 3.5)})
        assert after == self.SHARED.replace("&top 2.0", "3.5").replace("*top", "2.0").replace(
            "    c: *row", "    c: {qtype: asym, min: [-1.0], max: [2.0], ori_min: [-1.0], ori_max: [2.0]}"
        )
        after = with_ranges(self.SHARED, {"b": (-1.0, 0.0), "d": (0.5, 8.0)})
        assert after == self.SHARED.replace("max: *id001", "max: [0.0]").replace("max: 7", "max: 8.0")

    def test_the_same_numbers_leave_the_text_alone(self) -> None:
        assert with_ranges(self.SHARED, {"a": (-1.0, 2.0), "c": (-1.0, 2.0), "d": (0.5, 7.0)}) == self.SHARED

    def test_missing_numbers_are_added(self) -> None:
        after = with_ranges(self.SHARED, {"e": (-1e-05, 1e20), "f": (0.0, 1.0)})
        assert after.endswith(
            "    e: {min: [-1.0e-05], max: [1.0e+20]}\n"
            "    f:\n        min: [0.0]\n        max: [1.0]\n        dtype: int8\n"
        )

    def test_rows_that_are_not_there_are_told(self) -> None:
        with pytest.raises(QuantizationError, match=r"no row 'dv'.*did you mean 'dw'"):
            with_ranges(SAMPLE, {"dv": (0, 1)})
        with pytest.raises(QuantizationError, match="no row 'dw'"):
            with_ranges("quantize_parameters: {dw: 5}", {"dw": (0, 1)})
        with pytest.raises(QuantizationError, match="not a list of one number"):
            with_ranges("quantize_parameters: {dw: {min: [1, 2]}}", {"dw": (0, 1)})

    def test_what_an_alias_repeats_has_a_bound(self) -> None:
        deep = "quantize_parameters:\n  a: &a {min: [1], x: &x [[1]], y: *x}\n  b: *a\n"
        with pytest.raises(QuantizationError, match="alias"):
            with_ranges(deep, {"a": (0, 1)})
