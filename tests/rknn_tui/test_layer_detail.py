"""What is told of a layer, in a strip of few lines and in a panel: what it looks like, and what is left out first."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.summaries import (
    Alternative,
    ErrorPair,
    LayerError,
    LayerFacts,
    LayerSummary,
    PartError,
    PartQuality,
    Quality,
    TensorFacts,
)
from rknn_tui.bench.facts import judged_words
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from rknn_tui.widgets.layer_detail import detail_lines


def layer(index: int, name: str, op: str, *reads: str, sources: tuple[str, ...] = ()) -> LayerSummary:
    return LayerSummary(index, name, op, reads, (1, 32, 40, 40), "float32", "int8", sources, (name,), reads)


def quality(cosine: float, noise: float) -> Quality:
    return Quality(cosine, cosine, noise, ())


def tensor(name: str) -> TensorFacts:
    counts = (1, 4, 60, 200, 100, 70, 40, 20, 10, 5, 3, 2, 1, 0, 0, 1)
    return TensorFacts(name, "int8", (1, 32), -0.28, 6.1, -0.28, 6.4, 0.025, -117, name, -0.28, 6.4, counts, 0.002)


SPLIT, CONV, READER = (
    layer(23, "/m.6/Split", "Split"),
    layer(24, "/m.6/m.0/cv2", "Conv"),
    layer(27, "/m.6/m.1/cv1", "Conv"),
)
ADD = layer(26, "/m.6/m.0/Add", "Add", SPLIT.name, CONV.name, sources=("Add_12", "Relu_13"))
LAYERS = {one.name: one for one in (SPLIT, CONV, ADD, READER)}
WORDS = "computes in float16; reads int8 `/m.6/Split`, `/m.6/m.0/cv2`; its output is rounded to int8 for `/m.6/m.1/cv1`"
ERROR = LayerError(ADD.name, "Add", "float16", ErrorPair(0.98712, 1.25), ErrorPair(0.99812, 0.12), (), 0.123)
FACTS = LayerFacts(
    ADD.name,
    (tensor(SPLIT.name), tensor(CONV.name)),
    (tensor(ADD.name),),
    (
        Alternative("", 0.0, quality(0.9712, 0.05)),
        Alternative("int8", 0.0, quality(0.9712, 0.05)),
        Alternative("int16", 0.004, quality(0.998, 0.001)),
        Alternative("float16", 0.012, quality(0.9999, 0.0001)),
    ),
)
VALUES = LayerValues("float16", "float16", True, 0.98712, 0.99812, 0.123)
AROUND = {name: LayerValues("int8", entire=0.9912) for name in (SPLIT.name, CONV.name, READER.name)}


def text(width: int, height: int, symbols: Symbols = UNICODE, **changes: Any) -> str:
    known: dict[str, Any] = {
        "error": ERROR,
        "readers": (READER.name,),
        "values": VALUES,
        "around": AROUND,
        "facts": FACTS,
        "words": WORDS,
        "block": "/m.6",
        "saved": "int8",
    }
    known |= changes
    lines = detail_lines(known.pop("layer", ADD), LAYERS, known.pop("error"), width, height, symbols, **known)
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)


LOOKS = {
    (80, 2, UNICODE): """
─ #26 /m.6/m.0/Add Add 1×32×40×40 float32 float16* (saved int8)
 entire cos 0.98712  single cos 0.99812  share 12.3 % …
""",
    (60, 2, ASCII): """
- #26 /m.6/m.0/Add Add 1x32x40x40 float16* (saved int8)
 entire cos 0.98712  single cos 0.99812  share 12.3 % ~
""",
    (80, 5, UNICODE): """
─ #26 /m.6/m.0/Add Add 1×32×40×40 float32 float16* (saved int8)
 entire cos 0.98712 euclidean 1.25  single cos 0.99812  share 12.3 %
 outputs with int8 0.97120  int16 0.99800 +0.4 %  ▶float16 0.99990 +1.2 %
 stored int8  range -0.28 to 6.1  0.2 % outside  ▁▁▄█▆▅▄▃▂▁▁▁▁  ▁  scale 0.025 …
 computes in float16; reads int8 `/m.6/Split`, `/m.6/m.0/cv2`; its output is ro…
""",
    (60, 5, ASCII): """
- #26 /m.6/m.0/Add Add 1x32x40x40 float16* (saved int8)
 entire cos 0.98712  single cos 0.99812  share 12.3 %
 outputs with int8 0.97120  int16 0.99800 +0.4 % ~
 stored int8  range -0.28 to 6.1  0.2 % outside  .#*-:... ~
 computes in float16; reads int8 `/m.6/Split`, `/m.6/m.0/cv~
""",
    (48, 30, UNICODE): """
─ #26 /m.6/m.0/Add
 Add 1×32×40×40 float32
 float16* (saved int8)  block /m.6
 computes in float16; reads int8 `/m.6/Split`,
 `/m.6/m.0/cv2`; its output is rounded to int8
 for `/m.6/m.1/cv1`

 entire cos 0.98712 euclidean 1.25
 single cos 0.99812 euclidean 0.12
 share 12.3 %

 outputs with   cosine  SNR dB      time
  int8         0.97120    13.0    +0.0 %
  int16        0.99800    30.0    +0.4 %
 ▶float16      0.99990    40.0    +1.2 %

 stored int8  range -0.28 to 6.1  0.2 % outside
 scale 0.025  zero point -117  seen -0.28 to 6.4
 -0.28 ▁▁▄█▆▅▄▃▂▁▁▁▁  ▁ 6.4

 in  #23 ….6/Split int8 -0.28 to 6.1 cos 0.99120
 in  #24 …/m.0/cv2 int8 -0.28 to 6.1 cos 0.99120
 out #27 /m.6/m.1/cv1 int8 cos 0.99120

 from Add_12, Relu_13
""",
    (56, 18, ASCII): """
- #26 /m.6/m.0/Add
 Add 1x32x40x40 float32
 float16* (saved int8)  block /m.6
 computes in float16; reads int8 `/m.6/Split`,
 `/m.6/m.0/cv2`; its output is rounded to int8 for
 `/m.6/m.1/cv1`

 entire cos 0.98712 euclidean 1.25
 single cos 0.99812 euclidean 0.12
 share 12.3 %

 outputs with   cosine  SNR dB      time
  int8         0.97120    13.0    +0.0 %
  int16        0.99800    30.0    +0.4 %
 >float16      0.99990    40.0    +1.2 %

 stored int8  range -0.28 to 6.1  0.2 % outside
 scale 0.025  zero point -117  seen -0.28 to 6.4 ~
""",
}


@pytest.mark.parametrize(("width", "height", "symbols"), LOOKS, ids=[f"{width}x{height}" for width, height, _ in LOOKS])
def test_the_detail_looks_like_this(width: int, height: int, symbols: Symbols) -> None:
    assert text(width, height, symbols) == LOOKS[width, height, symbols].strip("\n")


def test_before_a_build_there_is_what_the_model_says() -> None:
    plain = dataclasses.replace(ADD, precision="")
    shown = text(
        *(80, 5), layer=plain, error=None, values=LayerValues(), around={}, facts=None, words="", saved="", readers=()
    )
    assert shown == (
        "─ #26 /m.6/m.0/Add Add 1×32×40×40 float32\n"
        " in #23 /m.6/Split int8  in #24 /m.6/m.0/cv2 int8\n"
        " from Add_12, Relu_13"
    )
    assert detail_lines(None, {}, None, 80, 5, UNICODE) == []


def test_the_precision_in_force_is_marked() -> None:
    assert "▶float16 0.99990" in text(80, 5)
    assert "▶int8 0.97120" in text(80, 5, values=LayerValues("int8")), "no wish is in force: what that makes, it has"
    unlike = dataclasses.replace(FACTS, alternatives=FACTS.alternatives[:1] + FACTS.alternatives[2:])
    assert "▶default 0.97120" in text(80, 5, values=LayerValues("int8"), facts=unlike)


def test_without_live_evaluation_only_the_time_is_told() -> None:
    unmeasured = tuple(dataclasses.replace(one, quality=None) for one in FACTS.alternatives)
    shown = text(80, 5, facts=dataclasses.replace(FACTS, alternatives=unmeasured))
    assert "time with int8 +0.0 %  int16 +0.4 %  ▶float16 +1.2 %" in shown
    panel = text(48, 30, facts=dataclasses.replace(FACTS, alternatives=unmeasured))
    assert "cosine  SNR" not in panel
    assert " precision          time\n  int8            +0.0 %\n  int16           +0.4 %" in panel


def test_the_distance_goes_once_the_cosine_is_another() -> None:
    assert "entire cos 0.98712 euclidean 1.25" in text(80, 5)
    changed = dataclasses.replace(VALUES, entire=0.99, stale=True)
    shown = text(80, 5, values=changed)
    assert "entire cos 0.99000 before the change" in shown
    assert "euclidean" not in shown


def test_the_report_alone_is_enough() -> None:
    shown = text(80, 5, values=LayerValues(), error=dataclasses.replace(ERROR, note="reads int16"), words="")
    assert "entire cos 0.98712 euclidean 1.25  single cos 0.99812  share 12.3 %" in shown
    assert " reads int16" in shown


def test_a_fused_layer_says_so() -> None:
    fused = LayerError(ADD.name, "Add", "", None, None)
    assert "fused: no tensor of its own on the NPU" in text(80, 5, error=fused, values=LayerValues(), facts=None)
    assert "fused" in text(80, 5, error=None, values=LayerValues(fused=True), facts=None)


def test_parts_of_a_join_are_judged_alone() -> None:
    parts = (PartError("/a", 1, 0, 16, ErrorPair(0.5, 2.0), ErrorPair(0.5, 2.0), "zero"),)
    shown = text(80, 40, error=dataclasses.replace(ERROR, parts=parts))
    assert " part /a [0:16] entire cos 0.50000 euclidean 2 zero!" in shown


def test_time_and_memory_say_where_they_come_from() -> None:
    values = dataclasses.replace(VALUES, milliseconds=0.059, bytes=1e5, bound="memory")
    assert "estimated 0.059 ms memory-bound 100 kB" in text(80, 40, values=values)
    short = dataclasses.replace(values, milliseconds=0.00041)
    assert "estimated 0.41 us memory-bound" in text(80, 40, values=short)
    assert all(" 0.0004 " in line or "0.0004" not in line for line in text(48, 30, times={"int8": 4e-4}).splitlines())
    expected = dataclasses.replace(values, expected=True, bound="cpu")
    assert "~0.059 ms on the CPU" in text(80, 40, values=expected)
    assert "measured 0.059 ms" in text(80, 40, values=LayerValues(milliseconds=0.059, estimated=False))
    strip = text(80, 5, values=values).splitlines()[1]
    assert "memory-bound" in strip and "euclidean" not in strip, "no column tells that"


TIMES = {"int8": 0.05, "int16": 0.1, "float16": 0.125}


def test_the_time_in_each_precision_stands_beside_what_it_gives() -> None:
    assert "cosine, ms with int8 0.97120 0.050  int16 0.99800 0.100  ▶float16 0.99990 0.125" in text(90, 5, times=TIMES)
    lines = text(48, 30, times=TIMES).splitlines()
    assert any(line.split() == ["outputs", "with", "cosine", "SNR", "dB", "~ms", "in", "all"] for line in lines)
    assert any(line.split() == ["▶float16", "0.99990", "40.0", "0.1250", "+1.2", "%"] for line in lines)
    unmeasured = tuple(dataclasses.replace(one, quality=None) for one in FACTS.alternatives)
    shown = text(80, 5, times=TIMES, facts=dataclasses.replace(FACTS, alternatives=unmeasured))
    assert "time with int8 0.050 ms  int16 0.100 ms +0.4 %  ▶float16 0.125 ms +1.2 %" in shown


def test_nothing_is_told_of_the_time_on_a_target_that_was_not_built_for() -> None:
    elsewhere = tuple(dataclasses.replace(one, quality=None, extra=math.nan) for one in FACTS.alternatives)
    facts = dataclasses.replace(FACTS, alternatives=elsewhere)
    assert "time with int8 0.050 ms  int16 0.100 ms  ▶float16 0.125 ms\n" in text(80, 5, times=TIMES, facts=facts)
    assert "%" not in text(48, 30, times=TIMES, facts=facts).partition("precision")[2].partition("stored")[0]


def test_before_a_build_the_times_are_all_that_is_known_of_precisions() -> None:
    plain = dataclasses.replace(ADD, precision="")
    known: dict[str, Any] = {"layer": plain, "values": LayerValues("int8", milliseconds=0.05), "facts": None}
    assert " time with ▶int8 0.050 ms  int16 0.100 ms  float16 0.125 ms" in text(80, 5, times=TIMES, **known)
    lines = text(48, 30, times=TIMES, **known).splitlines()
    assert any(line.split() == ["precision", "~ms"] for line in lines)
    assert any(line.split() == ["float16", "0.1250"] for line in lines)


def test_what_is_cut_has_a_sign_and_is_the_least_important() -> None:
    many = tuple(f"/reader.{number}" for number in range(40))
    assert text(60, 4, readers=many).splitlines()[-1].endswith("…")
    panel = text(60, 20, readers=many)
    assert panel.endswith("…")
    assert "outputs with" in panel
    assert "from Add_12" not in panel


def test_of_a_long_name_the_end_is_kept_and_a_panel_has_room_for_it() -> None:
    long = dataclasses.replace(ADD, name="/model/" + "block/" * 20 + "Add_output")
    assert "block/Add_output Add float16*" in text(60, 2, layer=long).splitlines()[0]
    assert "/model/" + "block/" * 20 + "Add_output" in text(60, 30, layer=long).replace("\n", "")


names = st.text(max_size=60)
numbers = st.floats()
few = st.lists(names, max_size=3).map(tuple)
precisions = st.sampled_from(["", "int8", "int16", "float16", "int8+float16"])
pairs = st.builds(ErrorPair, numbers, numbers)
shapes = st.lists(st.integers(1, 9999), max_size=5).map(tuple)
layers = st.builds(
    LayerSummary, st.integers(0, 9999), names, names, few, shapes, st.just("float32"), precisions, few, few, few
)
tensors = st.builds(
    TensorFacts,
    *(names, precisions, shapes, numbers, numbers, numbers, numbers, st.none() | numbers, st.none() | st.integers()),
    *(names, numbers, numbers, st.lists(st.integers(0, 10**9), max_size=60).map(tuple), numbers),
)
qualities = st.none() | st.builds(Quality, numbers, numbers, numbers, st.just(()))
facts = st.builds(
    LayerFacts,
    *(names, st.lists(tensors, max_size=2).map(tuple), st.lists(tensors, max_size=2).map(tuple)),
    st.lists(st.builds(Alternative, precisions, numbers, qualities), max_size=4).map(tuple),
)
parts = st.builds(PartError, names, st.just(1), st.integers(0, 9), st.integers(0, 9), pairs, pairs, names)
errors = st.builds(
    LayerError,
    *(names, names, precisions, st.none() | pairs, st.none() | pairs, st.lists(parts, max_size=2).map(tuple)),
    *(st.none() | numbers, names),
)
values = st.builds(
    LayerValues,
    *(precisions, precisions, st.booleans(), numbers, numbers, numbers, numbers, numbers),
    *(st.booleans(), st.booleans(), st.booleans()),
)


@settings(deadline=None)
@given(layers, st.lists(layers, max_size=3), st.none() | errors, values, st.none() | facts, names, st.data())
def test_any_layer_fits(
    one: LayerSummary,
    others: list[LayerSummary],
    error: LayerError | None,
    known: LayerValues,
    more: LayerFacts | None,
    words: str,
    data: st.DataObject,
) -> None:
    width, height = data.draw(st.integers(0, 130)), data.draw(st.integers(0, 40))
    symbols = data.draw(st.sampled_from([UNICODE, ASCII]))
    by_name = {layer.name: layer for layer in (one, *others)}
    around = dict.fromkeys(by_name, known)
    lines = detail_lines(
        *(one, by_name, error, width, height, symbols),
        readers=tuple(by_name),
        values=known,
        around=around,
        facts=more,
        words=words,
        block=words,
        saved=data.draw(precisions),
    )
    assert len(lines) <= height
    for line in lines:
        shown = "".join(piece for piece, _ in line)
        assert cell_len(shown) <= width
        assert shown.isprintable()
        assert symbols.unicode or shown.isascii()


def test_an_output_that_is_judged_by_another_tensor_says_so() -> None:
    parts = (PartQuality("y", "logits", "", 0.99, 0.98, 0.01), PartQuality("z", "z", "", 0.99, 0.98, 0.01))
    quality = Quality(0.99, 0.98, 0.01, parts)
    assert judged_words(quality, ("y",)) == "the output is judged by `logits`"
    assert judged_words(quality, ("z",)) == judged_words(quality, ("elsewhere",)) == judged_words(None, ("y",)) == ""
