"""The filter line's language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.summaries import LayerSummary
from rknn_tui.graph.filters import Subject, describe, parse
from rknn_tui.graph.layer_values import LayerValues


def subject(name: str, op: str, values: LayerValues, *, marked: bool = False, blocks: tuple[str, ...] = ()) -> Subject:
    layer = LayerSummary(0, name, op, (), (1, 8, 4, 4), "float32", "int8")
    return Subject(layer, name.lower(), op.lower(), values, 0.99, marked, blocks)


CONV = subject(
    "/model.4/m.1/cv1/Conv_output_0",
    "ConvRelu",
    LayerValues("int8", entire=0.98, single=0.999, share=0.12, milliseconds=0.2, bytes=3 * 2**20, bound="memory"),
    blocks=("/model.4", "/model.4/m.1"),
)
ADD = subject(
    "Head/Add:0",
    "Add",
    LayerValues("int8+float16", changed=True, entire=0.995, share=0.01, bytes=900.0, bound="cpu"),
    marked=True,
)
INPUT = subject("images", "Input", LayerValues())


def passed(text: str) -> str:
    test = parse(text)
    return "".join(letter for letter, layer in zip("CAI", (CONV, ADD, INPUT), strict=True) if test(layer))


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("", "CAI"),
        ("conv", "C"),
        ("HEAD", "A"),
        ("add", "A"),
        ("model.4 cv1", "C"),
        ("model.4 add", ""),
        ("op:conv", "C"),
        ("op:relu", "C"),
        ("name:add", "A"),
        ("name:relu", ""),
        ("type:int8", "CAI"),
        ("dt:float16", "A"),
        ("dt:flo", "A"),
        ("cos<.99", "C"),
        ("cos<0.99", "C"),
        ("cosine>=.98", "CA"),
        ("cos<2", "CA"),
        ("single<1", "C"),
        ("share>5%", "C"),
        ("share>.05", "C"),
        ("error<=1%", "A"),
        ("ms>0.1", "C"),
        ("time>.1", "C"),
        ("mem>1M", "C"),
        ("mem>2k", "C"),
        ("memory<1k", "A"),
        ("mem>1g", ""),
        ("bound:memory", "C"),
        ("bound:m", "C"),
        ("bound:cpu", "A"),
        ("bound:compute|memory", "C"),
        ("bound:", "CAI"),
        ("cos>-1", "CA"),
        ("block:model.4", "C"),
        ("block:m.1", "C"),
        ("block:m.", "C"),
        ("block:m.10", ""),
        ("block:/model", "C"),
        ("block:/model.40", ""),
        ("is:changed", "A"),
        ("is:marked", "A"),
        ("is:bad", "C"),
        ("is:b", "C"),
        ("is:", "CAI"),
        ("is:purple", ""),
        ("!conv", "AI"),
        ("!is:bad !op:input", "A"),
        ("!cos<.99", "AI"),
        ("conv|add", "CA"),
        ("op:conv|input", "CI"),
        ("op:conv|name:head", "CA"),
        ("!op:conv|input", "A"),
        ("cos<.99|is:changed", "CA"),
        ("add:0", "A"),
        ("cv1/conv_output", "C"),
    ],
)
def test_what_passes(text: str, layers: str) -> None:
    assert passed(text) == layers


@pytest.mark.parametrize("text", ["cos<", "mem>", "op:", "!", "!op:", "conv|", "|", "!|", "block:", "ms>=", "op:|"])
def test_a_word_that_is_not_typed_to_its_end_hides_no_more_than_what_stands_there(text: str) -> None:
    assert passed(text) == ("C" if text == "conv|" else "CAI")


def test_a_test_tells_what_it_looks_at_beside_the_numbers() -> None:
    assert parse("conv !is:marked").asks_marks
    assert parse("a|block:m.1 conv").asks_blocks
    assert not parse("conv cos<.9 is:bad").asks_marks
    assert not parse("conv cos<.9 is:bad").asks_blocks


@given(st.text() | st.text("!|:<>=%.opnamecs15kmg ", max_size=20))
def test_any_text_is_valid_and_turned_round_lets_the_others_through(text: str) -> None:
    assert set(passed(text)) <= set("CAI")
    words = text.split()
    if len(words) == 1 and not text.startswith("!") and passed(text) != "CAI":
        assert sorted(passed(text) + passed("!" + words[0])) == list("ACI")


def test_the_help_fits_the_message_line_and_its_examples_are_understood() -> None:
    assert len(describe()) <= 76
    for word in describe().split():
        assert passed(word) != "CAI" or word == "type:int8" or word == "!x"
