"""Cfg texts, rows and tensor names that tests of the cfg file draw from."""

from __future__ import annotations

from hypothesis import strategies as st

from engine.quantization.parameters import LIMITS
from engine.quantization.table import Row

SAMPLE = """\
custom_quantize_layers: {}
quantize_parameters:
    dw:
        qtype: asym
        qmethod: layer
        dtype: int8
        min:
        -   -38.55097198486328
        max:
        -   31.56854820251465
        scale:
        -   0.27497851053873695
        zero_point:
        -   12
        ori_min:
        -   -38.55097198486328
        ori_max:
        -   31.56854820251465
"""
DW = Row(
    "int8", -38.55097198486328, 31.56854820251465, 0.27497851053873695, 12, -38.55097198486328, 31.56854820251465
)  # fmt: skip

# Names that YAML reads as a number, a truth, a date, a comment, a mapping, or not at all.
HOSTILE = [
    "1", "1.10", "0x1F", "1_000", "1e5", "012", "no", "Yes", "null", "~", "", " ", "a b", " a", "a ", "a: b", "a:b",
    "a #b", "#a", "- a", "-", "?", "? a", "*a", "&a", "!a", "%a", "@a", "`a`", "'a'", '"a"', "a'b\"c", "{a}", "[a]",
    "a,b", "a\nb", "a\tb", "\x07", "\x85", "\ufeffa", "\u2028", "2020-01-01", ".inf", ".nan", "=", "<<", "---", "...",
    "...\n", "|", ">", "model/层/Conv:0", "\U0001f600", "a\\b", "x" * 127, "x" * 130, "a b" * 60, "y" * 3000,
    "ü: " * 500,
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
NUMBERS = st.floats(allow_nan=False)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    dtype = draw(st.sampled_from([*LIMITS, "float16", "float32"]))
    ranges = [draw(NUMBERS) for _ in range(4)]
    if dtype not in LIMITS:
        return Row(dtype, ranges[0], ranges[1], None, None, ranges[2], ranges[3])
    scale = draw(st.floats(1e-45, 3e38, exclude_min=True))
    zero_point = draw(st.integers(*LIMITS[dtype]))
    qtype = draw(st.sampled_from(["asym", "sym", "dfp"]))
    return Row(dtype, ranges[0], ranges[1], scale, zero_point, ranges[2], ranges[3], qtype)
