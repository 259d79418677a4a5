"""What is left of the traced error, of all layers and of each, while precisions change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.summaries import LayerSummary, PartQuality, Quality, SourceMap, SourceShare
from rknn_tui.bench.estimates import NoiseEstimate

CHAIN = "abcd"
SHARES = {"weights": (0.1, 0.2, 0.05, 0.05), "tensor": (0.1, 0.2, 0.1, 0.2)}
ALL_INT8 = dict.fromkeys(CHAIN, "int8")


def traced(judged: str = "") -> NoiseEstimate:
    """The sources of four layers in a row; where `judged` names a tensor, the outputs are compared there."""
    layers = [
        LayerSummary(place, name, "Conv", (), (1, 8), "float32", outputs=(name,), reads=tuple(CHAIN[place - 1 : place]))
        for place, name in enumerate(CHAIN)
    ]
    sources = tuple(
        SourceShare(kind, name, name, "Conv", (0.1,), share)
        for kind, shares in SHARES.items()
        for name, share in zip(CHAIN, shares, strict=True)
    )
    parts = (PartQuality("d", judged, "", 0.9, 0.9, 0.2),) if judged else ()
    return NoiseEstimate(SourceMap(("d",), sources, Quality(0.9, 0.9, 0.2, parts), 1, 0.1), layers, ALL_INT8)


def test_a_layer_keeps_the_rounding_for_its_reader_until_that_is_fine_too() -> None:
    noise = traced()
    assert noise.left_of("b", ALL_INT8) == pytest.approx(0.4)
    assert noise.left_of("b", ALL_INT8 | {"b": "float16"}) == pytest.approx(0.2)
    assert noise.left_of("b", ALL_INT8 | {"b": "float16", "c": "float16"}) == 0.0
    assert noise.left_of("b", ALL_INT8 | {"b": "int8+float16"}) == pytest.approx(0.4), "its coarse half is left"
    assert noise.left_of("elsewhere", ALL_INT8) == 0.0


def test_where_the_outputs_are_judged_the_rounding_for_the_reader_does_not_count() -> None:
    noise = traced("c")
    assert noise.left_of("c", ALL_INT8 | {"c": "float16"}) == 0.0
    assert noise.left(ALL_INT8 | {"c": "float16"}) == pytest.approx(0.85)


def test_a_change_is_told_of_the_layers_before_it_as_well() -> None:
    assert traced().sharing(["c"]) == {"b", "c"}


@given(st.fixed_dictionaries({name: st.sampled_from(["int8", "int16", "float16", "int8+float16"]) for name in CHAIN}))
def test_what_is_left_of_all_is_the_sum_of_what_each_layer_leaves(precisions: dict[str, str]) -> None:
    noise = traced()
    assert noise.left(precisions) == pytest.approx(sum(noise.left_of(name, precisions) for name in CHAIN))
    touched = [name for name, precision in precisions.items() if precision != ALL_INT8[name]]
    assert noise.left(precisions, touched) == pytest.approx(noise.left(precisions)), "others need no look"


@given(
    st.fixed_dictionaries({name: st.sampled_from(["int8", "float16"]) for name in CHAIN}),
    st.sampled_from(CHAIN),
)
def test_the_shares_of_no_other_layers_change(precisions: dict[str, str], changed: str) -> None:
    noise = traced()
    after = precisions | {changed: "float16" if precisions[changed] == "int8" else "int8"}
    for name in set(CHAIN) - noise.sharing([changed]):
        assert noise.left_of(name, precisions) == noise.left_of(name, after)
