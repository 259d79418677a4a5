"""Charts as text and as CSV: what they look like, and that no data can break them."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.errors import ConfigError, FileError
from engine.estimates import CostTotals
from engine.summaries import Candidate, LayerSummary, Quality, SourceMap, SourceShare, TensorFacts, TuneReport
from rknn_tui.charting.axes import cosine_extent, short, tick_labels, ticks
from rknn_tui.charting.blocks import gathered, row_of_columns, stacked
from rknn_tui.charting.builders import (
    cosine_by_layer,
    error_sources,
    pareto,
    range_histogram,
)
from rknn_tui.charting.chart import Chart, Mark
from rknn_tui.charting.cost_charts import memory_over_run, time_by_operator, time_by_target
from rknn_tui.charting.drawing import as_text
from rknn_tui.charting.exporting import as_csv, export
from rknn_tui.charting.measured_charts import time_by_layer
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from tests.rknn_tui.scripted_engine import made_up_totals

ENTIRE = (1.0, 0.9995, 0.9989, 0.9991, 0.9874, 0.9902, 0.9911, math.nan, 0.9886, 0.9871, 0.9921, 0.9918)
SINGLE = (1.0, 0.9998, 0.9997, 0.9999, 0.9891, 0.9996, 0.9997, math.nan, 0.9981, 0.9996, 0.9999, 0.9998)
LAYERS = tuple(LayerSummary(at, f"/m.{at}/conv", "Conv", (), (1, 16, 8, 8), "float32") for at in range(12))


def values(*, estimated: bool = True) -> dict[str, LayerValues]:
    return {
        layer.name: LayerValues(
            "int8",
            entire=ENTIRE[layer.index],
            single=SINGLE[layer.index],
            milliseconds=0.01 * (1 + 7 * layer.index % 12),
            bytes=1000.0 * (12 - abs(5 - layer.index)) ** 2,
            estimated=estimated,
        )
        for layer in LAYERS
    }


def quality(cosine: float, noise: float) -> Quality:
    return Quality(cosine, cosine - 0.01, noise, ())


SOURCES = SourceMap(
    ("y",),
    tuple(
        SourceShare(kind, f"/m.{at}/conv", f"/m.{at}/conv", "Conv", (share / 100,), share)
        for kind, at, share in (
            ("tensor", 4, 0.45),
            ("weights", 8, 0.25),
            ("weights", 4, 0.125),
            ("tensor", 9, 0.1),
            ("tensor", 1, 0.05),
            ("weights", 2, 0.02),
            ("tensor", 3, 0.0046),
            ("weights", 0, 0.0004),
        )
    ),
    quality(0.9918, 0.0164),
    8,
    1.5,
)
REPORT = TuneReport(
    quality(0.9918, 0.0164),
    tuple(
        Candidate({}, ("layer",) * layers, cost, quality(cosine, 2 * (1 - cosine)))
        for layers, cost, cosine in ((1, 0.01, 0.9951), (2, 0.024, 0.9972), (3, 0.05, 0.9984), (6, 0.11, 0.9991))
    ),
    2,
    True,
    True,
    8,
    12.0,
)
COUNTS = (900, 4000, 12000, 7000, 3000, 1500, 600, 250, 90, 40, 16, 6, 0, 2, 0, 1)
FACTS = TensorFacts("/m.4/conv", "int8", (1, 16), -0.5, 4.75, -0.5, 7.5, 0.02, -104, "", -0.5, 7.5, COUNTS, 0.0003)

CHARTS = {
    "cosine": cosine_by_layer(LAYERS, values(), limit=0.99),
    "sources": error_sources(SOURCES),
    "time": time_by_layer(LAYERS, values()),
    "memory": memory_over_run(LAYERS, values(estimated=False)),
    "candidates": pareto(REPORT, None),
    "range": range_histogram(FACTS),
}


def text(chart: Chart, width: int, height: int, symbols: Symbols) -> str:
    lines = ("".join(piece for piece, _ in line).rstrip() for line in as_text(chart, width, height, symbols))
    return "\n".join(lines)


LOOKS = {
    ("cosine", 78, 18, UNICODE): """
 cosine by layer  ▚ entire  x single  ─ limit 0.99
1.000┤▚▄▄▄▄▄▖      x     ▖            x      x                  x      x     x
     │      ▝▀▀▀▀▀▀▀▀▀▀▀▀▚                                x
     │                    ▚
     │                    ▝▖
0.995┤                     ▝▖
     │                      ▐
     │                       ▚                                         ▞▄▄▄▄▄▄
0.990┤────────────────────────▌───────▄▄▄▄▄▄▄▞▄▄▄▄───────────────────▄▀───────
     │                        ▝▖x  ▄▞▀            ▀▀▀▀▚▄▄▄▄        ▗▀
     │                         ▝▄▞▀                        ▀▀▄▄  ▗▞▘
     │                                                         ▀▀▘
0.985┤
     └┬────────────┬────────────┬────────────┬────────────┬────────────┬──────
      0            2            4            6            8           10
                                                            layer, as executed
 lowest entire: 0.98710 at #9 /m.9/conv; lowest single: 0.98910 at #4
 /m.4/conv
""",
    ("cosine", 58, 10, ASCII): """
 cosine by layer  * entire  x single  - limit 0.99
1.00+***************         x   x              x   x    x
    |               *                      x
    |                *
0.99+-----------------*------*****------------------******
    |                  ******     ******************
    |
    ++-----------------------+----------------------+-----
     0                       5                     10
 lowest entire: 0.98710 at #9 /m.9/conv; lowest single: 0~
""",
    ("sources", 78, 18, UNICODE): """
 where the error comes from  share of the outputs' error
 tensor  /m.4/conv ███████████████████████████████████████████████████ 45.0 %
 weights /m.8/conv ████████████████████████████▎                       25.0 %
 weights /m.4/conv ██████████████▏                                     12.5 %
 tensor  /m.9/conv ███████████▎                                        10.0 %
 tensor  /m.1/conv █████▋                                               5.0 %
 weights /m.2/conv ██▎                                                  2.0 %
 tensor  /m.3/conv ▌                                                    0.5 %
 weights /m.0/conv                                                     <0.1 %
 8 roundings, each alone in the float model, 8 samples; together: cosine
 0.99180, SNR 17.9 dB
""",
    ("sources", 58, 10, ASCII): """
 where the error comes from  share of the outputs' error
 tensor  /m.4/conv ############################### 45.0 %
 weights /m.8/conv #################               25.0 %
 weights /m.4/conv ########                        12.5 %
 tensor  /m.9/conv ######                          10.0 %
 tensor  /m.1/conv ###                              5.0 %
 weights /m.2/conv #                                2.0 %
 tensor  /m.3/conv                                  0.5 %
 weights /m.0/conv                                 <0.1 %
 8 roundings, each alone in the float model, 8 samples; t~
""",
    ("time", 78, 18, UNICODE): """
 time by layer, estimated  milliseconds
 /m.5/conv  ███████████████████████████████████████████████████████ 0.1200 ms
 /m.10/conv ██████████████████████████████████████████████████▍     0.1100 ms
 /m.3/conv  █████████████████████████████████████████████▊          0.1000 ms
 /m.8/conv  █████████████████████████████████████████▎              0.0900 ms
 /m.1/conv  ████████████████████████████████████▋                   0.0800 ms
 /m.6/conv  ████████████████████████████████                        0.0700 ms
 /m.11/conv ███████████████████████████▌                            0.0600 ms
 /m.4/conv  ██████████████████████▉                                 0.0500 ms
 /m.9/conv  ██████████████████▎                                     0.0400 ms
 /m.2/conv  █████████████▊                                          0.0300 ms
 /m.7/conv  █████████▏                                              0.0200 ms
 /m.0/conv  ████▌                                                   0.0100 ms
 0.78 ms in all; longest 0.12 ms at #5 /m.5/conv
""",
    ("time", 58, 10, ASCII): """
 time by layer, estimated  milliseconds
 /m.5/conv  ################################### 0.1200 ms
 /m.10/conv ################################    0.1100 ms
 /m.3/conv  #############################       0.1000 ms
 /m.8/conv  ##########################          0.0900 ms
 /m.1/conv  #######################             0.0800 ms
 /m.6/conv  ####################                0.0700 ms
 /m.11/conv #################                   0.0600 ms
 and 5 more                                     0.1500 ms
 0.78 ms in all; longest 0.12 ms at #5 /m.5/conv
""",
    ("memory", 78, 18, UNICODE): """
 memory over the run, measured  bytes
      │                             ███████
      │                             ███████
      │                       ▇▇▇▇▇▇███████▇▇▇▇▇▇
      │                       ███████████████████
100 kB┤                 ███████████████████████████████
      │           ▂▂▂▂▂▂███████████████████████████████▂▂▂▂▂▂
      │           ███████████████████████████████████████████
      │     ▆▆▆▆▆▆███████████████████████████████████████████▆▆▆▆▆▆
 50 kB┤▃▃▃▃▃███████████████████████████████████████████████████████▃▃▃▃▃▃
      │██████████████████████████████████████████████████████████████████▂▂▂▂▂
      │███████████████████████████████████████████████████████████████████████
      │███████████████████████████████████████████████████████████████████████
   0 B┤███████████████████████████████████████████████████████████████████████
      └───┬────────────────────────────┬────────────────────────────┬─────────
          0                            5                           10
                                                            layer, as executed
 peak 144 kB at #5 /m.5/conv
""",
    ("memory", 58, 10, ASCII): """
 memory over the run, measured  bytes
      |                     #####
      |                 #############
100 kB+            ######################
 50 kB+    #######################################
      |###################################################
   0 B+###################################################
      +--+--------------------+--------------------+------
         0                    5                   10
 peak 144 kB at #5 /m.5/conv
""",
    ("candidates", 78, 18, UNICODE): """
 candidates of the search  [n] chosen  0 as it was  cosine
     │
     │                                                                     4
0.998┤                               [3]
     │
     │                 2
0.996┤
     │        1
     │
0.994┤
     │
     │
0.992┤  0
     │
     └──┬───────────┬───────────┬────────────┬───────────┬───────────┬────────
      0.0 %       2.0 %       4.0 %        6.0 %       8.0 %      10.0 %
                                                         extra time, estimated
 chosen: 3, cosine 0.99840, SNR 24.9 dB, 3 layers, est time +5.0%
""",
    ("candidates", 58, 10, ASCII): """
 candidates of the search  [n] chosen  0 as it was  cosine
     |                                                  4
     |            2         [3]
     |
0.995+      1
     |
     | 0
     +-+---------------------+---------------------+------
     0.0 %                 5.0 %                10.0 %
 chosen: 3, cosine 0.99840, SNR 24.9 dB, 3 layers, est ti~
""",
    ("range", 78, 18, UNICODE): """
 values of /m.4/conv  │ range in use  ░ outside  how many, logarithmic
10k┤  │        █████▂▂▂▂                           │
   │  │    ▅▅▅▅█████████▂▂▂▂                       │
   │  │    █████████████████▃▃▃▃▃                  │
 1k┤  │▆▆▆▆██████████████████████▁▁▁▁              │
   │  │██████████████████████████████              │
   │  │██████████████████████████████████          │
100┤  │██████████████████████████████████▆▆▆▆▆     │
   │  │███████████████████████████████████████▆▆▆▆ │
 10┤  │███████████████████████████████████████████▅│░░░
   │  │████████████████████████████████████████████│░░░
  1┤  │████████████████████████████████████████████│░░░░░░░
  0┤  │████████████████████████████████████████████│░░░░░░░    ░░░░░    ░░░░
   └──────┬─────────────────┬────────────────┬────────────────┬───────────────
          0                 2                4                6
                                                                         value
 <0.1 % of the values outside; stored as int8, range -0.5 to 4.75, calibration
 saw -0.5 to 7.5
""",
    ("range", 58, 10, ASCII): """
 values of /m.4/conv  | range in use  . outside
10k+ |      ######                    |
   | |   ################             |
   | |#########################       |
100+ |#############################   |
   | |################################|..
  0+ |################################|.....    ...   ...
   +-----+------------------------------+-----------------
         0                              5
 <0.1 % of the values outside; stored as int8, range -0.5~
""",
}


@pytest.mark.parametrize(
    ("id", "width", "height", "symbols"), LOOKS, ids=[f"{id}-{width}x{height}" for id, width, height, _ in LOOKS]
)
def test_a_chart_looks_like_this(id: str, width: int, height: int, symbols: Symbols) -> None:
    assert text(CHARTS[id], width, height, symbols) == LOOKS[id, width, height, symbols].strip("\n")


names = st.text(max_size=20) | st.text("漢é\x1b\n/ab", max_size=20)
numbers = st.floats() | st.floats(0.9, 1.0) | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324])
counts = st.lists(st.integers(0, 10**9), max_size=300) | st.just([1] * 3000)


@st.composite
def charts(draw: st.DrawFn) -> Chart:
    """Charts of all kinds with anything in their tables."""
    kind = draw(st.sampled_from(["lines", "steps", "bars", "points", "histogram"]))
    header = ("x", "end", "y", "z", "name", "word")
    count = draw(st.integers(1, 12) | st.just(3000))
    some = draw(
        st.lists(
            st.tuples(numbers, numbers, numbers, numbers, names, st.sampled_from(["", "base", "chosen", "tensor"])),
            min_size=min(count, 12),
            max_size=12,
        )
    )
    rows = tuple((float(at), *some[at % len(some)][1:]) if count > 12 else some[at] for at in range(count))
    if kind == "histogram":
        first, last = sorted((draw(st.floats(-1e300, 1e300)), draw(st.floats(-1e300, 1e300))))
        rows = tuple((first, last, abs(row[2]), *row[3:]) for row in rows)
    marks = draw(st.lists(st.builds(Mark, st.floats(-1e9, 1e9), st.just("low")), max_size=2))
    return Chart(
        "id",
        draw(names),
        kind,  # type: ignore[arg-type]
        header,
        rows if draw(st.booleans()) else (),
        x="x",
        ys=("y", "z") if draw(st.booleans()) else ("y",),
        label="name",
        tag=draw(st.sampled_from(["", "word"])),
        x_label=draw(st.sampled_from(["", "layer"])),
        y_label="y",
        unit=draw(st.sampled_from(["", "ms", "share", "bytes", "cosine"])),
        marks=tuple(marks) if kind == "histogram" else (),
        limit=draw(numbers),
        note=draw(names),
    )


@settings(deadline=None)
@given(charts(), st.integers(0, 200), st.integers(0, 60), st.sampled_from([UNICODE, ASCII]))
def test_any_data_gives_lines_that_fit(chart: Chart, width: int, height: int, symbols: Symbols) -> None:
    lines = as_text(chart, width, height, symbols)
    assert len(lines) <= height
    for line in lines:
        shown = "".join(piece for piece, _ in line)
        assert cell_len(shown) <= width
        assert shown.isprintable()
        assert symbols.unicode or shown.isascii()


@settings(deadline=None)
@given(st.lists(st.tuples(names, numbers, numbers, numbers, numbers), max_size=20))
def test_the_csv_has_every_number_to_the_last_bit(found: list[tuple[str, float, float, float, float]]) -> None:
    layers = [LayerSummary(at, f"{at} {row[0]}", "Add", (), (), "float32") for at, row in enumerate(found)]
    known = {
        layer.name: LayerValues(entire=row[1], single=row[2], milliseconds=row[3], bytes=row[4])
        for layer, row in zip(layers, found, strict=True)
    }
    makers = (cosine_by_layer, time_by_layer, memory_over_run, time_by_operator)
    for chart in (make(layers, known) for make in makers):
        header, *rows = csv.reader(io.StringIO(as_csv(chart), newline=""))
        assert tuple(header) == chart.header
        assert len(rows) == len(chart.rows)
        for row, cells in zip(rows, chart.rows, strict=True):
            for written, cell in zip(row, cells, strict=True):
                if isinstance(cell, str):
                    assert written == cell
                    assert written.isprintable()
                else:
                    assert float(written) == cell or (math.isnan(float(written)) and math.isnan(cell))


@settings(deadline=None)
@given(numbers, numbers, numbers, numbers, numbers, counts, st.text("ab\x00漢", max_size=90), st.integers(20, 90))
def test_any_tensor_can_be_shown(
    low: float, high: float, first: float, last: float, outside: float, found: list[int], name: str, width: int
) -> None:
    facts = TensorFacts(name, "int8", (), low, high, first, last, None, None, "", first, last, tuple(found), outside)
    lines = as_text(range_histogram(facts), width, 16, UNICODE)
    assert all(cell_len("".join(piece for piece, _ in line)) <= width for line in lines)


def test_nothing_is_invented_where_there_is_no_cost_model() -> None:
    known = {name: LayerValues(precision="int8", entire=0.99) for name in values()}
    for chart in (time_by_layer(LAYERS, known), memory_over_run(LAYERS, known), time_by_operator(LAYERS, known)):
        assert chart.rows == ()
        assert "no estimate yet" in text(chart, 60, 10, UNICODE)


def costed() -> dict[str, LayerValues]:
    """The first layer takes 4 ms on the CPU, the others 1 ms each, bound by memory or by compute."""
    bounds = ("memory", "compute")
    return {
        layer.name: LayerValues(milliseconds=1.0 if place else 4.0, bound=bounds[place % 2] if place else "cpu")
        for place, layer in enumerate(LAYERS)
    }


def test_operators_are_told_by_what_bounds_them_with_their_share_of_the_time() -> None:
    layers = [dataclasses.replace(one, op="Add") if one.index > 8 else one for one in LAYERS]
    chart = time_by_operator(layers, costed())
    assert chart.title == "time by operator, estimated"
    rows = {str(row[0]): row[3:6] for row in chart.rows}
    assert rows["Conv cpu"] == (1, 4.0, 4 / 15)
    assert rows["Conv memory"] == (4, 4.0, 4 / 15)
    assert rows["Add compute"] == (2, 2.0, 2 / 15)
    assert sum(float(row[5]) for row in chart.rows) == pytest.approx(1.0)
    assert "15 ms in all; 40.0 % compute-bound; 33.3 % memory-bound; 26.7 % on the CPU" in chart.note
    assert "operator,op,bound,layers,milliseconds,share,source" in as_csv(chart)


def totals(milliseconds: float) -> CostTotals:
    return made_up_totals(1000 * milliseconds, weight_bytes=2_000_000, internal_bytes=500_000)


def test_targets_are_compared_by_time_and_memory_and_one_without_says_why() -> None:
    known = {"rk3566": totals(8.0), "rk3588": totals(2.0), "rv1103": ConfigError("has no float16")}
    chart = time_by_target(known, "rk3566")
    shown = text(chart, 80, 12, UNICODE).splitlines()
    assert "time by target, estimated" in shown[0]
    assert [line.split()[2] for line in shown if "2.5 MB" in line] == ["rk3566", "rk3588"], "the slowest first"
    for told in ("rk3566 in use: 8 ms, with overhead 10 ms, 100 a second", "fastest: rk3588, 2 ms"):
        assert told in chart.note
    assert "rv1103: has no float16" in chart.note
    assert "rk3588,2.0,2.5,400.0,2000000,500000," in as_csv(chart)
    assert "no estimate yet" in time_by_target({}, "rk3566").note


def test_the_time_chart_tells_of_what_comes_on_top_of_the_layers() -> None:
    assert " in all, with overhead 10 ms, 100 a second; longest" in time_by_layer(LAYERS, values(), totals(8.0)).note


def test_the_memory_chart_tells_of_the_weights_beside() -> None:
    note = memory_over_run(LAYERS, values(), totals(1.0)).note
    assert note.endswith("; planned 500 kB, and 2 MB of weights")


@pytest.mark.parametrize(
    ("chart", "note"),
    [
        (cosine_by_layer(LAYERS, {}), "no accuracy is known yet"),
        (error_sources(None), "not traced yet"),
        (pareto(None, None), "no search has run yet"),
        (range_histogram(None), "no layer's tensors"),
        (error_sources(SourceMap((), (), quality(1.0, 0.0), 1, 0.1)), "no rounding costs anything"),
    ],
)
def test_an_empty_chart_says_why(chart: Chart, note: str) -> None:
    assert note in text(chart, 60, 10, ASCII)


def test_every_time_says_whether_it_was_estimated_or_measured() -> None:
    mixed = values(estimated=True)
    mixed["/m.5/conv"] = values(estimated=False)["/m.5/conv"]
    chart = time_by_layer(LAYERS, mixed)
    assert chart.title == "time by layer, estimated and measured"
    lines = text(chart, 78, 18, UNICODE).splitlines()
    assert lines[1].startswith(" measured  /m.5/conv")
    assert lines[2].startswith(" estimated /m.10/conv")


def test_one_bad_layer_of_thousands_is_seen_and_named() -> None:
    layers = [LayerSummary(at, f"/layer.{at}", "Conv", (), (), "float32") for at in range(5000)]
    known = {layer.name: LayerValues(entire=0.5 if layer.index == 3210 else 0.99) for layer in layers}
    lines = text(cosine_by_layer(layers, known), 78, 18, ASCII).splitlines()
    assert "v lower" in lines[0]
    lowest = [line for line in lines if line[5:].strip("+| -")][-4]
    assert lowest.index("v") - 6 == pytest.approx(3210 / 5000 * 72, abs=1), "the others keep the room above it"
    assert "0.50000 at #3210 /layer.3210" in lines[-1]


def test_a_chosen_point_is_never_under_another() -> None:
    same = tuple(Candidate({}, ("layer",), 0.1, quality(0.999, 0.002)) for _ in range(40))
    report = TuneReport(quality(0.99, 0.02), same, 33, True, True, 8, 1.0)
    shown = text(pareto(report, 33), 78, 18, UNICODE)
    assert "[34]" in shown
    assert "under others" in shown


def test_a_point_is_at_its_number_in_the_table_of_candidates() -> None:
    chart = pareto(dataclasses.replace(REPORT, chosen=-1, reached=False), None)
    assert [row[0] for row in chart.rows] == [0, 1, 2, 3, 4]
    assert [row[6] for row in chart.rows] == ["base", "", "", "", ""]
    assert "[" not in text(chart, 60, 10, UNICODE).splitlines()[3]


def test_the_candidate_in_force_is_marked_rather_than_the_one_that_was_chosen() -> None:
    chart = pareto(REPORT, 0)
    assert [row[6] for row in chart.rows] == ["base", "in force", "", "", ""]
    shown = text(chart, 60, 10, UNICODE)
    assert "[n] in force" in shown
    assert "[1]" in shown and "[3]" not in shown
    assert "in force: 1, cosine 0.99510" in shown
    timed = pareto(dataclasses.replace(REPORT, time_us=2500.0), 0)
    assert timed.rows[0][-1] == 2.5
    assert "est time +" in timed.note
    assert pareto(REPORT, -1) == pareto(REPORT, None), "with the model as it was, the chosen one is"


def test_export_writes_text_and_csv_and_replaces_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        written, table = export(CHARTS["sources"], tmp_path, "det", ASCII)
        assert (written.name, table.name) == ("det.sources.txt", "det.sources.csv")
        assert written.read_text().startswith(" where the error comes from")
        assert max(map(len, written.read_text().splitlines())) <= 120
        assert table.read_bytes().splitlines(keepends=True)[1] == b"tensor,/m.4/conv,/m.4/conv,Conv,0.45\r\n"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(FileError, match="missing"):
        export(CHARTS["sources"], tmp_path / "missing", "det", ASCII)


def test_plotext_is_loaded_with_the_first_plot() -> None:
    script = (
        "import sys, rknn_tui.screens.charts\n"
        "from rknn_tui.charting.chart import Chart\n"
        "from rknn_tui.charting.drawing import as_text\n"
        "from rknn_tui.symbols import UNICODE\n"
        "assert 'plotext' not in sys.modules\n"
        "as_text(Chart('a', 'a', 'lines', ('x', 'y'), ((0, 1.0),), x='x', ys=('y',)), 60, 16, UNICODE)\n"
        "assert 'plotext' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@given(st.floats(-1e15, 1e15), st.floats(1e-9, 1e15), st.integers(1, 12), st.booleans())
def test_ticks_are_few_and_on_the_axis(low: float, span: float, most: int, whole: bool) -> None:
    found = ticks(low, low + span, most, whole=whole)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)
    assert not whole or all(tick == int(tick) for tick in found[1:])
    assert len(tick_labels(found)) == len(found)


def test_numbers_are_short() -> None:
    written = [short(0.1234567), short(12345.0), short(3.2e-7), short(math.nan), short(-0.0), short(6.5e6, "bytes")]
    assert written == ["0.1235", "12.35k", "3.20e-07", "nan", "-0", "6.5 MB"]
    assert [short(value, "share") for value in (0.123, 0.0001, 0.0)] == ["12.3 %", "<0.1 %", "0.0 %"]
    assert short(0.9999999, "cosine") == "0.99999", "never rounded up to a perfect 1"


def test_a_cosine_axis_leaves_no_layer_out_where_there_are_few() -> None:
    assert cosine_extent([1.0, 0.99, 0.2]) == (pytest.approx(0.2), 1.0)
    assert cosine_extent([0.2, *[0.99] * 40]) == (pytest.approx(0.98), 1.0)
    assert cosine_extent([1.0, math.nan])[0] < 1.0


@given(counts.filter(bool), st.integers(1, 200))
def test_bins_put_together_lose_no_value(found: list[int], places: int) -> None:
    assert sum(gathered(found, places)) == pytest.approx(sum(found))
    line = row_of_columns(found, places)
    assert len(line) == min(places, len(found))
    assert bool(line.strip()) == any(found)


def test_columns_are_as_high_as_their_values() -> None:
    assert stacked([1.0, 0.5, 0.01, 0.0, math.nan, 2.0], 2) == ["█    █", "██▁  █"]
    assert stacked([1.0, 0.5, 0.01, 0.0], 2, unicode=False) == ["#   ", "### "]
