"""The levels as a whole: what they promise of any graph, of tensors with given quantization, and of real models."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.graph.given import GivenParameters, keep
from engine.graph.optimize import LEVELS, optimize, pass_name
from engine.ort import make_session, run
from tests.engine.graph.graph_building import (
    Array,
    all_sources,
    assert_consistent,
    build,
    initializer,
    integers,
    number,
    operators,
    outputs_of,
    random,
    signature,
    with_batch,
)
from tests.zoo import FOLDER, needs_zoo

SHAPE = (2, 4, 4, 4)
CONSTANTS: dict[str, Array] = {
    "zero": number(0),
    "three": number(3),
    "six": number(6),
    "scale": np.array([0.8], np.float32),
    "per": random(1, 4, 1, 1),
    "per3": random(4, 1, 1, seed=1) + 2,
    "row": random(4, seed=2),
    "w1": random(4, 4, 1, 1) / 2,
    "wd": random(4, 1, 3, 3) / 3,
    "b": random(4, seed=3),
    "variance": np.abs(random(4, seed=4)) + 0.5,
    "dense": random(64, 64) / 8,
    "last": integers(-1),
    "spatial": integers(2, 3),
    "flat": integers(0, -1),
    "image": integers(0, 4, 4, 4),
    "ring": integers(0, 0, 1, 1, 0, 0, 1, 1),
    "ones": integers(1, 1, 1, 1),
}
# Each takes one or two tensors of SHAPE to another; {n} numbers the tensors inside.
STEPS = [
    "{y} = Identity ({x})",
    "{y} = Dropout ({x})",
    "{y} = Tile ({x}, ones)",
    "{y} = Relu ({x})",
    "{y} = Sigmoid ({x})",
    "{y} = Add ({x}, zero)",
    "{y} = Add (per, {x})",
    "{y} = Sub ({x}, per3)",
    "{y} = Sub (per3, {x})",
    "{y} = Add ({x}, row)",
    "{y} = Mul ({x}, scale)",
    "{y} = Mul (per, {x})",
    "{y} = Mul ({x}, row)",
    "{y} = Div ({x}, six)",
    "{y} = Div ({x}, per3)",
    "{y} = Add ({x}, {z})",
    "{y} = Mul ({x}, {z})",
    "{y} = Conv ({x}, w1)",
    "{y} = Conv ({x}, w1, b)",
    "{y} = ConvTranspose ({x}, w1)",
    "{y} = Conv <group = 4, pads = [1, 1, 1, 1]> ({x}, wd, b)",
    "p{n} = Pad ({x}, ring)\n{y} = Conv <group = 4> (p{n}, wd)",
    "p{n} = Pad ({x}, ring)\n{y} = AveragePool <kernel_shape = [3, 3]> (p{n})",
    "{y} = BatchNormalization ({x}, b, row, b, variance)",
    "a{n} = Add ({x}, three)\nc{n} = Clip (a{n}, zero, six)\nm{n} = Mul ({x}, c{n})\n{y} = Div (m{n}, six)",
    "l{n} = Relu ({x})\n{y} = Min (l{n}, six)",
    "{y} = Transpose <perm = [0, 1, 3, 2]> ({x})",
    "f{n} = Flatten ({x})\n{y} = Reshape (f{n}, image)",
    "f{n} = Reshape ({x}, flat)\ng{n} = MatMul (f{n}, dense)\n{y} = Reshape (g{n}, image)",
    "f{n} = Flatten ({x})\ng{n} = Gemm <transB = 1> (f{n}, dense)\nr{n} = Relu (g{n})\n{y} = Reshape (r{n}, image)",
    "e{n} = ReduceMean ({x}, spatial)\ns{n} = HardSigmoid (e{n})\n{y} = Mul ({x}, s{n})",
]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, list[str]]:
    """The lines of a graph over the input `x`, and the names of its outputs: all ends, and some tensors inside."""
    lines, tensors, read = [], ["x"], set[str]()
    for index in range(draw(st.integers(1, 9))):
        step = draw(st.sampled_from(STEPS))
        # The newest tensor is the likeliest operand, so that chains are as common as branches.
        first, second = (tensors[max(-len(tensors), -draw(st.sampled_from([1, 1, 1, 2, 3])))] for _ in range(2))
        lines.append(step.format(x=first, z=second, y=f"t{index}", n=index))
        read |= {first, second} if "{z}" in step else {first}
        tensors.append(f"t{index}")
    inside = draw(st.lists(st.sampled_from(tensors[1:]), unique=True, max_size=2))
    return "\n".join(lines), [t for t in tensors[1:] if t not in read or t in inside]


def every_tensor(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """What each named tensor of the graph holds."""
    proto = ir.to_proto(model)
    names = [name for node in proto.graph.node for name in node.output if name]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, run(make_session(proto, optimization="none", threads=1), names, feeds), strict=True))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_level_keeps_what_any_graph_computes(graph: tuple[str, list[str]], level: int, choice: object) -> None:
    body, outputs = graph
    model, original = (build({"x": SHAPE}, body, CONSTANTS, outputs) for _ in range(2))
    values = [v for node in model.graph for v in node.outputs]
    kept = choice.sample(values, k=min(2, len(values) - 1))  # type: ignore[attr-defined]
    for value in kept:
        keep(value, GivenParameters("int8", (0.1,), (0,)))
    kept_names = {v.name for v in kept}

    optimize(model, level)

    assert signature(model) == signature(original)
    assert_consistent(model)
    assert all_sources(model) <= all_sources(original)
    feeds = {"x": random(*SHAPE)}
    before, after = every_tensor(original, feeds), every_tensor(model, feeds)
    assert kept_names <= set(after)
    for name in before.keys() & after.keys():
        compare(before[name], after[name], level)
    wider = (outputs_of(with_batch(m, 5)) for m in (original, model))
    for old, new in zip(*wider, strict=True):
        compare(old, new, level)
    assert optimize(model, level) == []


def compare(old: Array, new: Array, level: int) -> None:
    if level <= 1:
        assert np.array_equal(old, new)
    else:
        assert np.abs(old - new).max() <= 1e-4 * max(np.abs(old).max(), 1e-3)


def test_each_level_runs_the_passes_of_the_one_below() -> None:
    assert [len(level) for level in LEVELS] == sorted({len(level) for level in LEVELS})
    for lower, higher in itertools.pairwise(LEVELS):
        assert [p for p in higher if p in lower] == list(lower)
    assert LEVELS[0] == ()


@pytest.mark.parametrize("level", [-1, 4, True, "2", 1.0])
def test_other_levels_are_refused_by_name(level: object) -> None:
    with pytest.raises(ConfigError, match="optimization_level"):
        optimize(build({"x": SHAPE}, "y = Relu (x)", {}), level)  # type: ignore[arg-type]


def test_the_callback_hears_of_each_change_and_sees_a_valid_model() -> None:
    body = "a = Identity (x)\nc = Conv (a, w1)\nd = Mul (c, scale)\ny = Add (d, per)"
    model = build({"x": SHAPE}, body, CONSTANTS)
    expected = outputs_of(model)
    heard: list[str] = []

    def on_pass(name: str, current: ir.Model) -> None:
        heard.append(name)
        assert_consistent(current)
        compare(expected[0], outputs_of(current)[0], 3)

    names = optimize(model, 3, on_pass)
    assert names == list(dict.fromkeys(heard))
    assert {"RemoveNoOps", "FoldArithmetic"} <= set(names) <= {pass_name(p) for p in LEVELS[3]}


def test_a_tensor_with_given_quantization_is_not_fused_away() -> None:
    body = """
        i = Identity (x)
        c = Conv (i, w1)
        d = Mul (c, scale)
        a = Add (d, three)
        l = Clip (a, zero, six)
        m = Mul (d, l)
        y = Div (m, six)"""
    for name, left in {"c": "Mul", "l": "Clip", "i": "Identity"}.items():
        model = build({"x": SHAPE}, body, CONSTANTS)
        value = next(v for node in model.graph for v in node.outputs if v.name == name)
        keep(value, GivenParameters("int8", (0.1,), (0,)))
        optimize(model, 3)
        assert left in operators(model)
        assert name in {v.name for node in model.graph for v in node.outputs}


def test_weights_with_given_quantization_are_not_rewritten() -> None:
    parameters = GivenParameters("int8", (0.1,) * 4, (0,) * 4, axis=0)
    folded = build({"x": SHAPE}, "c = Conv (x, w1, b)\nd = Add (c, per)\ny = Mul (d, scale)", CONSTANTS)
    keep(folded.graph.initializers["w1"], parameters)
    optimize(folded, 3)
    assert operators(folded) == ["Conv", "Mul"]
    assert np.array_equal(initializer(folded, "w1"), CONSTANTS["w1"])
    dense = build({"x": (2, 64)}, "y = MatMul (x, dense)", CONSTANTS)
    keep(dense.graph.initializers["dense"], parameters)
    optimize(dense, 3)
    assert operators(dense) == ["MatMul"]


def test_the_last_tensor_of_a_fusion_keeps_its_given_quantization() -> None:
    model = build({"x": SHAPE}, "c = Conv (x, w1)\nd = Mul (c, scale)\ny = Relu (d)", CONSTANTS)
    value = next(v for node in model.graph for v in node.outputs if v.name == "d")
    keep(value, GivenParameters("int8", (0.1,), (0,)))
    optimize(model, 3)
    assert operators(model) == ["Conv", "Relu"]
    assert [(v.name, bool(v.metadata_props)) for v in model.graph[0].outputs] == [("d", True)]


@needs_zoo
@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("ch_ppocr_mobile_v2.0_cls_infer", (1, 3, 48, 192), {"HardSwish": 18, "Conv": 54, "HardSigmoid": 9, "Add": 7}),
        ("ch_PP-OCRv4_det_infer", (1, 3, 160, 160), {"HardSwish": 24, "Conv": 62, "ConvTranspose": 2, "Resize": 6}),
    ],
)
def test_real_models_shrink_to_their_layers(name: str, size: tuple[int, ...], expected: dict[str, int]) -> None:
    frontend = pytest.importorskip("engine.frontends.onnx")
    (path,) = FOLDER.glob(f"onnx/{name}/*.onnx")
    model = frontend.load(path, input_size_list=[size])
    before, sources_before = outputs_of(model, spread=1.0), all_sources(model)
    optimize(model, 3)
    assert_consistent(model)
    left = Counter(operators(model))
    assert {op: left[op] for op in expected} == expected
    assert not {"BatchNormalization", "Clip", "Div", "Sub", "Identity", "MatMul"} & left.keys()
    assert len(sources_before - all_sources(model)) <= len(sources_before) // 50
    # Both end in a probability, whose range is 1.
    for old, new in zip(before, outputs_of(model, spread=1.0), strict=True):
        assert np.abs(old - new).max() <= 1e-5
