"""Constants are computed once, shapes become static, and what the input decides stays in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.graph import folding
from engine.graph.cutting import drop_dead
from engine.graph.execution import random_feeds, run_float
from engine.graph.given import GivenParameters, after, given, keep
from engine.graph.optimize import optimize
from engine.graph.provenance import mark_source, sources
from engine.graph.query import constant, static_shape
from tests.engine.graph.graph_building import Array, integers, number, operators, random

IMAGE = {"x": (1, 3, 4, 5)}


def unfolded(
    inputs: Mapping[str, Sequence[int | str]],
    body: str,
    constants: Mapping[str, Array],
    outputs: Sequence[str] = ("y",),
) -> ir.Model:
    """A model as it comes from a file: no type or shape is known but the inputs'."""
    nodes = [onnx.parser.parse_node(line.strip()) for line in body.strip().splitlines()]
    for node in nodes:
        node.name = f"{node.op_type}_{node.output[0]}"
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    mark_source(model.graph)
    return model


def folded(model: ir.Model) -> ir.Model:
    before = ir.from_proto(ir.to_proto(model))
    feeds = random_feeds(model)
    folding.fold(model)
    for old, new in zip(run_float(before, feeds), run_float(model, feeds), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not folding.unresolved(model)
    folding.require_static(model)
    return model


RESHAPED = """
    n = Shape (x)
    h = Gather (n, two)
    w = Gather (n, three)
    a = Mul (h, w)
    u = Unsqueeze (a, first)
    t = Concat <axis = 0> (batch, u)
    r = Reshape (x, t)
    y = Relu (r)
"""
SIZES = {"two": integers(2)[0], "three": integers(3)[0], "first": integers(0), "batch": integers(-1)}


def test_arithmetic_on_shapes_leaves_nothing_but_its_result() -> None:
    model = folded(unfolded(IMAGE, RESHAPED, SIZES))
    assert operators(model) == ["Reshape", "Relu"]
    target = constant(next(iter(model.graph)).inputs[1])
    assert target is not None and target.tolist() == [-1, 20]
    assert static_shape(model.graph.outputs[0]) == (3, 20)
    assert len(model.graph.initializers) == 1
    assert [sources(node) for node in model.graph] == [("Reshape_r",), ("Relu_y",)]


@pytest.mark.parametrize(
    ("attributes", "expected"), [("", [1, 3, 4, 5]), ("<start = 1>", [3, 4, 5]), ("<start = -3, end = -1>", [3, 4])]
)
def test_shape_takes_a_part_of_the_dimensions(attributes: str, expected: list[int]) -> None:
    model = folded(
        unfolded(
            IMAGE, f"n = Shape {attributes} (x)\nc = Cast <to = 1> (n)\ny = Mul (c, c)\nv = Relu (x)", {}, ["y", "v"]
        )
    )
    assert run_float(model, random_feeds(model))[0].tolist() == [size**2 for size in expected]


def test_size_is_a_constant() -> None:
    assert operators(folded(unfolded(IMAGE, "n = Size (x)\nc = Cast <to = 1> (n)\ny = Div (x, c)", {}))) == ["Div"]


def test_an_output_that_constants_decide_is_still_computed() -> None:
    model = folded(unfolded(IMAGE, "c = Add (k, k)\nd = Mul (c, k)\ny = Mul (x, c)", {"k": number(2)}, ["y", "c", "d"]))
    assert [v.name for v in model.graph.outputs] == ["y", "c", "d"]
    assert operators(model) == ["Add", "Mul", "Mul"]


def test_random_numbers_are_not_frozen() -> None:
    model = unfolded(IMAGE, "n = RandomNormal <shape = [1]> ()\ny = Add (x, n)", {})
    folding.fold(model)
    assert operators(model) == ["RandomNormal", "Add"]


def test_all_results_of_a_node_are_folded() -> None:
    body = "a, b = Split <axis = 0, num_outputs = 2> (k)\nc = Mul (x, a)\nd = Add (c, b)\n"
    body += "t, i = TopK (k, one)\ny = Mul (d, t)"
    assert operators(folded(unfolded(IMAGE, body, {"k": random(2), "one": integers(1)}))) == ["Mul", "Add", "Mul"]


def test_large_results_are_left_to_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "LARGEST_FOLDED", 50)
    body = "a = Expand (k, s)\nb = Neg (a)\nm = ReduceMax <keepdims = 0> (b)\n"
    body += "c = Expand (k, t)\nd = Add (x, c)\ny = Add (d, m)"
    model = folded(unfolded(IMAGE, body, {"k": number(2), "s": integers(8, 8), "t": integers(4, 5)}))
    assert operators(model) == ["Expand", "Neg", "ReduceMax", "Add", "Add"]


def test_constants_that_blow_up_are_refused_where_they_do() -> None:
    body = "a = Expand (k, s)\nb = Neg (a)\nm = ReduceMax <keepdims = 0> (b)\ny = Add (x, m)"
    with pytest.raises(ModelError, match="Neg_b: its constants blow up"):
        folding.fold(unfolded(IMAGE, body, {"k": number(2), "s": integers(1 << 13, 5000)}))


def test_quantizers_of_constants_wait_until_they_are_wanted() -> None:
    body = "d = DequantizeLinear (q, s, z)\nt = Transpose (d)\ny = MatMul (x, t)"
    constants = {"q": np.ones((6, 5), np.int8), "s": number(0.5), "z": np.int8(0)}
    model = unfolded({"x": (2, 5)}, body, constants)
    folding.fold(model)
    assert operators(model) == ["DequantizeLinear", "Transpose", "MatMul"]
    folding.fold(model, quantizers=True)
    assert operators(model) == ["MatMul"]


def test_noting_shapes_keeps_every_node() -> None:
    model = unfolded(IMAGE, RESHAPED, SIZES)
    before = operators(model)
    folding.note_shapes(model)
    assert operators(model) == before
    found = {v.name: v for node in model.graph for v in node.outputs}
    assert static_shape(found["r"]) == (3, 20) and found["r"].dtype == ir.DataType.FLOAT
    partly = unfolded({"x": ("n", 3, 4, 5)}, RESHAPED, SIZES)
    folding.note_shapes(partly)
    assert {v.name: v.dtype for node in partly.graph for v in node.outputs}["r"] == ir.DataType.FLOAT


def test_noting_shapes_stops_at_what_is_wrong() -> None:
    model = unfolded(IMAGE, "a = Relu (x)\nb = MatMul (a, k)\ny = Relu (b)", {"k": random(7, 7)})
    folding.note_shapes(model)
    shapes = {v.name: v.shape for node in model.graph for v in node.outputs}
    assert shapes["a"] is not None and shapes["y"] is None
    with pytest.raises(ModelError, match="MatMul_b"):
        folding.fold(model)


def test_results_that_the_data_sizes_are_named() -> None:
    model = unfolded(IMAGE, "n = NonZero (x)\nc = Cast <to = 1> (n)\ny = Abs (c)", {})
    folding.fold(model)
    with pytest.raises(ModelError, match=r"NonZero_n: the shape of 3 tensors depends on the data"):
        folding.require_static(model)


def test_results_without_elements_are_refused() -> None:
    model = unfolded(IMAGE, "y = Conv (x, w)", {"w": random(2, 3, 5, 5)})
    folding.fold(model)
    with pytest.raises(ModelError, match="Conv_y: its result has no elements"):
        folding.require_static(model)


def test_what_is_empty_is_left_out_where_it_is_joined() -> None:
    body = """
        a, none, b = Split <axis = 1> (x, sizes)
        r = Relu (a)
        nothing = Slice (x, zero, zero, one)
        y = Concat <axis = 1> (r, none, nothing, b, nil)
    """
    constants = {"sizes": integers(2, 0, 1), "zero": integers(0), "one": integers(1), "nil": random(1, 0, 4, 5)}
    model = unfolded(IMAGE, body, constants)
    folding.fold(model)
    drop_dead(model)
    folding.require_static(model)
    assert operators(model) == ["Split", "Relu", "Concat"]
    assert [value.name for node in model.graph for value in node.outputs] == ["a", "b", "r", "y"]
    x = random(1, 3, 4, 5)
    expected = np.concatenate([np.maximum(x[:, :2], 0), x[:, 2:]], axis=1)
    np.testing.assert_array_equal(run_float(model, {"x": x})[0], expected)


def test_what_is_empty_altogether_is_refused_where_it_begins() -> None:
    body = "n = Slice (x, zero, zero, one)\na, b = Split <axis = 2> (n, sizes)\ny = Concat <axis = 1> (a, b)"
    model = unfolded(IMAGE, body, {"sizes": integers(2, 2), "zero": integers(0), "one": integers(1)})
    folding.fold(model)
    with pytest.raises(ModelError, match="Slice_n: its result has no elements"):
        folding.require_static(model)


def test_bounds_of_a_range_may_be_lists_of_one() -> None:
    body = "i = Range (zero, four, one)\nf = Cast <to = 1> (i)\nu = Unsqueeze (f, one)\ny = Add (x, u)"
    model = unfolded(IMAGE, body, {"zero": integers(0), "four": integers(4), "one": integers(1)})
    folding.fold(model)
    assert operators(model) == ["Add"]


@pytest.mark.parametrize("axis", [0, [[0]]])
def test_axes_may_be_other_than_lists(axis: object) -> None:
    body = (
        "u = Unsqueeze (x, axis)\nm = ReduceMean (u, axis)\ns = Squeeze (m, axis)\nq = Squeeze (s, axis)\ny = Abs (q)"
    )
    model = unfolded(IMAGE, body, {"axis": np.array(axis, np.int64)})
    folding.fold(model)
    assert static_shape(model.graph.outputs[0]) == (3, 4, 5)
    assert {constant(node.inputs[1]).shape for node in model.graph if len(node.inputs) > 1} == {(1,)}  # type: ignore[union-attr]
    optimize(model, 3)
    x = random(1, 3, 4, 5)
    np.testing.assert_array_equal(run_float(model, {"x": x})[0], np.abs(x[0]))


GRID = GivenParameters("int8", (0.1, 0.2, 0.3), (0, 1, 2), 1)


@pytest.mark.parametrize(
    ("body", "constants", "axis"),
    [
        ("t = Transpose <perm = [1, 2, 0]> (k)", {}, 0),
        ("t = Transpose (k)", {}, 1),
        ("t = Reshape (k, s)", {"s": integers(2, 3, 2, 2)}, 1),
        ("t = Reshape (k, s)", {"s": integers(2, 1, 3, 4)}, 2),
        ("t = Unsqueeze (k, s)", {"s": integers(0)}, 2),
        ("t = Reshape (k, s)", {"s": integers(6, 4)}, None),
        ("t = Neg (k)", {}, None),
    ],
)
def test_parameters_follow_a_constant_that_is_rearranged(
    body: str, constants: Mapping[str, Array], axis: int | None
) -> None:
    model = unfolded(
        IMAGE,
        f"{body}\nr = ReduceMax <keepdims = 0> (t)\nz = Add (t, t)\ny = Mul (x, r)",
        {"k": random(2, 3, 4), **constants},
        ["y", "z"],
    )
    keep(model.graph.initializers["k"], GRID)
    folding.fold(model)
    added = next(node for node in model.graph if node.op_type == "Add").inputs[0]
    assert added is not None
    expected = None if axis is None else GivenParameters("int8", GRID.scale, GRID.zero_point, axis)
    assert given(added) == expected


def test_one_pair_for_all_follows_any_rearrangement() -> None:
    model = unfolded({"x": (2, 3)}, "y = Reshape (x, s)", {"s": integers(6)})
    folding.fold(model)
    parameters = GivenParameters("int8", (0.5,), (3,))
    keep(model.graph.inputs[0], parameters)
    assert after(next(iter(model.graph))) == parameters


@settings(max_examples=30, deadline=None)
@each(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_any_chain_of_shape_arithmetic_ends_in_constants(dims: list[int], data: st.DataObject) -> None:
    lines, last = ["v0 = Shape (x)"], 0
    operations = [
        "Add (v{0}, v{0})",
        "Mul (v{0}, k)",
        "Identity (v{0})",
        "Abs (v{0})",
        "Max (v{0}, k)",
        "Div (v{0}, k)",
    ]
    for template in data.draw(st.lists(st.sampled_from(operations), max_size=6)):
        lines.append(f"v{last + 1} = {template.format(last)}")
        last += 1
    body = "\n".join([*lines, f"c = Cast <to = 1> (v{last})", "m = ReduceSum <keepdims = 0> (c)", "y = Mul (x, m)"])
    assert operators(folded(unfolded({"x": dims}, body, {"k": integers(3)}))) == ["Mul"]
