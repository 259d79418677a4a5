"""A memory plan never overlaps tensors in use, ends near the lower bound, and near what the toolkit prints."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config
from engine.cost.chips import chip_of
from engine.cost.memory import CONVOLUTION, DEPTHWISE, INPUT, OTHER, Kept, demands, given_out, lifetimes
from engine.cost.plan import ALIGNMENT, Demand, end, in_use, lower_bound, plan
from engine.estimates import MemoryBlock
from engine.graph.layers import FLOATS, Layer, layers
from engine.graph.query import attribute, static_shape, tensors
from engine.session import Session
from engine.targets import TARGETS, find_target
from tests.end_to_end.zoo_models import ZooModel, loaded, models, quick_ones
from tests.zoo import FOLDER, needs_zoo

CLASSIFIER = ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192))
DETECTOR = ("ch_PP-OCRv4_det_infer", (1, 3, 480, 480))
# Names that each step reads and writes, and those of inputs and outputs.
Graph = tuple[list[tuple[list[str], list[str]]], list[str], list[str]]
# What RKNN-Toolkit2 2.5.0 prints as total internal memory, in units of 1024 bytes.
PRINTED = [
    (CLASSIFIER, "rk3566", "int8", 106.6),
    (CLASSIFIER, "rk3588", "int8", 171),
    (DETECTOR, "rk3566", "int8", 6750),
    (DETECTOR, "rk3588", "float16", 14400),
]


def kind(layer: Layer) -> str:
    """What makes a layer's output, for its size."""
    node = layer.nodes[0]
    if node.op_type == "GlobalAveragePool":
        return DEPTHWISE
    if node.op_type not in ("Conv", "ConvTranspose"):
        return OTHER
    groups = attribute(node, "group", 1)
    return DEPTHWISE if groups > 1 and groups == static_shape(node.inputs[0])[1] else CONVOLUTION


def wanted(model: ir.Model, precision: str, target: str) -> tuple[Demand, ...]:
    """What a plan for a model has to hold."""
    graph, found = model.graph, layers(model)
    kinds = {name: kind(layer) for layer in found for name in layer.outputs}
    kinds.update({v.name or "": INPUT for v in graph.inputs})
    kept = {
        v.name: Kept(static_shape(v), precision if v.dtype in FLOATS else "", kinds[v.name])
        for v in tensors(graph)
        if v.name in kinds
    }
    names = [[v.name or "" for v in values] for values in (graph.inputs, graph.outputs)]
    return demands([(one.inputs, one.outputs) for one in found], kept, *names, chip_of(find_target(target)))


def network(name: str, shape: tuple[int, ...]) -> ir.Model:
    """One of the zoo."""
    session = Session(Config(target_platform="rk3588"))
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[list(shape)])
    return session.model


def sound(blocks: Sequence[MemoryBlock], asked: Sequence[Demand]) -> None:
    """Every demand is met, and nothing lies where something else in use lies."""
    assert [(b.tensor, b.bytes, b.first, b.last) for b in blocks] == [tuple(demand) for demand in asked]
    assert all(b.offset >= 0 and b.offset % ALIGNMENT == 0 for b in blocks)
    for a, b in itertools.combinations(blocks, 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
    assert end(blocks) >= lower_bound(asked)


@st.composite
def lasting(draw: st.DrawFn) -> list[Demand]:
    """Tensors of any size that last from any step to any other."""
    steps = draw(st.integers(1, 20))
    sizes = st.sampled_from([0, 1, 63, 64, 65, 128, 1000, 4096, 10_000]) | st.integers(0, 100_000)
    spans = st.tuples(st.integers(0, steps - 1), st.integers(0, steps - 1)).map(sorted)
    drawn = draw(st.lists(st.tuples(sizes, spans), max_size=40))
    return [Demand(f"t{index}", size, first, last) for index, (size, (first, last)) in enumerate(drawn)]


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Steps that read any of what is there already; the names of inputs and outputs."""
    inputs = [f"in{index}" for index in range(draw(st.integers(1, 2)))]
    there, steps = list(inputs), []
    for index in range(draw(st.integers(1, 15))):
        writes = [f"t{index}.{number}" for number in range(draw(st.integers(1, 2)))]
        steps.append((draw(st.lists(st.sampled_from(there), min_size=1, max_size=3)), writes))
        there += writes
    return steps, inputs, draw(st.lists(st.sampled_from(there), min_size=1, max_size=2, unique=True))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(lasting())
def test_tensors_in_use_together_never_overlap(asked: list[Demand]) -> None:
    sound(plan(asked), asked)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(lasting())
def test_bytes_in_use_are_those_of_the_tensors_there(asked: list[Demand]) -> None:
    used = in_use(asked)
    for step, size in enumerate(used):
        assert size == sum(d.bytes for d in asked if d.first <= step <= d.last)
    assert lower_bound(asked) == max(used, default=0)
    assert len(used) == max((d.last + 1 for d in asked), default=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks(), st.sampled_from(sorted(TARGETS)), st.data())
def test_every_tensor_of_a_graph_is_there_while_it_is_read(graph: Graph, target: str, data: st.DataObject) -> None:
    steps, inputs, outputs = graph
    times, end_step = lifetimes(steps, inputs, outputs), len(steps) - 1
    for step, (reads, writes) in enumerate(steps):
        for name in (*reads, *writes):
            assert times[name][0] <= step <= times[name][1]
        assert all(times[name][0] == step for name in writes)
    assert all(times[name] == (0, end_step) for name in inputs)
    assert all(times[name][1] == end_step for name in outputs)
    shapes = st.tuples(st.just(1), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))
    kinds = st.sampled_from([CONVOLUTION, DEPTHWISE, OTHER])
    kept = {name: Kept(data.draw(shapes), "int8", INPUT if name in inputs else data.draw(kinds)) for name in times}
    asked = demands(steps, kept, inputs, outputs, chip_of(find_target(target)))
    sound(plan(asked), asked)


def test_a_tensor_is_there_until_its_last_reader_and_one_that_nobody_reads_while_it_is_written() -> None:
    steps = [(["x", "constant"], ["a"]), (["a"], ["b", "unread"]), (["a"], ["c"]), (["b", "c"], ["y"])]
    assert lifetimes(steps, ["x"], ["y"]) == {
        "x": (0, 3), "a": (0, 2), "b": (1, 3), "unread": (1, 1), "c": (2, 3), "y": (3, 3)
    }  # fmt: skip


def test_an_output_that_is_read_again_or_is_an_input_stays_to_the_end() -> None:
    assert lifetimes([(["x"], ["a"]), (["a"], ["b"]), (["b"], ["c"])], ["x"], ["a", "x"]) == {
        "x": (0, 2), "a": (0, 2), "b": (1, 2), "c": (2, 2)
    }  # fmt: skip
    assert lifetimes([], ["x"], ["x"]) == {"x": (0, 0)}


def test_an_output_in_blocks_of_channels_is_given_out_in_a_dense_copy() -> None:
    kept = {"x": Kept((1, 3, 8, 8), "int8", INPUT), "y": Kept((1, 3, 8, 8), "int8", CONVOLUTION)}
    kept["flat"] = Kept((1, 10), "int8", CONVOLUTION)
    asked = demands([(["x"], ["y"]), (["y"], ["flat"])], kept, ["x"], ["y", "flat"], chip_of(find_target("rk3588")))
    assert asked == (
        Demand("x", 192, 0, 1),
        Demand("y", 2048, 0, 1),
        Demand("flat", 64, 1, 1),
        Demand(given_out("y"), 192, 0, 1),
    )


def test_nothing_takes_no_memory() -> None:
    assert (plan([]), in_use([]), lower_bound([]), end([])) == ((), [], 0, 0)
    empty = Demand("empty", 0, 0, 3)
    assert plan([empty]) == (MemoryBlock("empty", 0, 0, 0, 3),)


def test_memory_is_used_again() -> None:
    chain = [Demand(f"t{index}", 640, index, index + 1) for index in range(100)]
    assert end(plan(chain)) == 1280


def test_where_the_largest_tensors_are_in_the_way_another_order_is_found() -> None:
    # Placed by size they end at 384, and those of the fullest step first at 448.
    asked = [Demand("a", 128, 3, 4), Demand("b", 128, 0, 2), Demand("c", 128, 0, 2), Demand("d", 192, 4, 5)]
    asked.append(Demand("e", 64, 1, 3))
    assert end(plan(asked)) == lower_bound(asked) == 320


@needs_zoo
@pytest.mark.parametrize(("zoo", "target", "precision", "printed"), PRINTED)
def test_real_networks_take_nearly_what_the_toolkit_prints(
    zoo: tuple[str, tuple[int, ...]], target: str, precision: str, printed: float
) -> None:
    asked = wanted(network(*zoo), precision, target)
    assert end(plan(asked)) / 1024 == pytest.approx(printed, rel=0.15)
    assert end(plan(asked)) == lower_bound(asked)


@needs_zoo
@pytest.mark.parametrize(("zoo", "target", "precision", "printed"), PRINTED[:2])
def test_placed_as_the_toolkit_does_a_classifier_takes_what_it_prints(
    zoo: tuple[str, tuple[int, ...]], target: str, precision: str, printed: float
) -> None:
    model = network(*zoo)
    inputs, top, used = {v.name for v in model.graph.inputs}, 0, []
    last = {name: step for step, layer in enumerate(layers(model)) for name in layer.inputs}
    # The toolkit forgets inputs too once they are read, and puts each tensor into the first gap.
    for demand in wanted(model, precision, target):
        if demand.tensor in inputs:
            demand = demand._replace(last=last[demand.tensor])
        used = sorted(place for place in used if place[2] >= demand.first)
        offset = 0
        for begin, stop, _ in used:
            if begin - offset >= demand.bytes:
                break
            offset = max(offset, stop)
        used.append((offset, offset + demand.bytes, demand.last))
        top = max(top, offset + demand.bytes)
    assert top / 1024 == pytest.approx(printed, rel=0.001)


@needs_zoo
def test_planning_is_quick_enough_for_each_key() -> None:
    asked = wanted(network(*DETECTOR), "int8", "rk3566")
    assert _seconds(asked) < 0.01
    residual = [Demand(f"t{i}", 64 * (1 + i * 7919 % 97), i, min(4999, i + 1 + 20 * (i % 3 == 0))) for i in range(5000)]
    assert _seconds(residual) < 1


def _seconds(asked: Sequence[Demand]) -> float:
    """The least of three plans."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        plan(asked)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _near_the_bound(model: ZooModel) -> None:
    made, _ = loaded(model)
    for target, precision in itertools.product(TARGETS, ("int8", "float16")):
        asked = wanted(made.model, precision, target)
        blocks = plan(asked)
        assert end(blocks) <= 1.2 * lower_bound(asked)
        if target == "rk3588":
            sound(blocks, asked)


@needs_zoo
@pytest.mark.parametrize("model", quick_ones(), ids=lambda model: model.label)
def test_plans_of_small_real_networks_end_near_the_lower_bound(model: ZooModel) -> None:
    _near_the_bound(model)


@needs_zoo
@pytest.mark.slow
@pytest.mark.parametrize("model", models(), ids=lambda model: model.label)
def test_plans_of_real_networks_end_near_the_lower_bound(model: ZooModel) -> None:
    _near_the_bound(model)
