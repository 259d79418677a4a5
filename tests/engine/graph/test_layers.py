"""Which nodes make one layer: every fusion with its near misses, and that no node is lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.graph import given as given_parameters
from engine.graph.describe import describe_layers, mark_layouts
from engine.graph.layers import Layer, layers
from tests.engine.graph.graph_building import Array, build, integers, number, random

SHAPE = (1, 4, 6, 6)
CONSTANTS: dict[str, Array] = {
    "w": random(4, 4, 1, 1), "k": random(6, 6), "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32),
    "low": number(0), "high": number(6), "per": random(1, 4, 1, 1), "axes": integers(1),
    "tiny": number(1e-10), "small": number(1e-4), "two": number(2),
}  # fmt: skip


def steps(body: str, outputs: Sequence[str] = ("y",), grids: Sequence[str] = ()) -> dict[str, str]:
    """Layer operators by output name; tensors in `grids` came with quantization parameters of their own."""
    return {layer.name: layer.op for layer in of(body, outputs, grids)}


def of(body: str, outputs: Sequence[str] = ("y",), grids: Sequence[str] = ()) -> tuple[Layer, ...]:
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: array for name, array in CONSTANTS.items() if name in words}
    model = build({"x": SHAPE, "x2": SHAPE}, body, used, outputs)
    for node in model.graph:
        for value in node.outputs:
            if value.name in grids:
                given_parameters.keep(value, given_parameters.GivenParameters("int8", (0.1,), (0,)))
    found = layers(model)
    assert_partition(model, found)
    return found


def assert_partition(model: ir.Model, found: tuple[Layer, ...]) -> None:
    """Every node in one layer; a layer reads only what came before; inner tensors stay inside."""
    members = [node for layer in found for node in layer.nodes]
    assert len(members) == len(set(members)) and set(members) == set(model.graph)
    known = {v.name for v in model.graph.inputs}
    for layer in found:
        assert set(layer.inputs) <= known, layer.name
        known |= set(layer.outputs)
        made = {v.name for node in layer.nodes for v in node.outputs if v.name}
        assert made == set(layer.outputs) | set(layer.inner) and layer.name == layer.outputs[0]
        for node in layer.nodes[:-1]:
            for value in node.outputs:
                assert not value.is_graph_output() and all(use.node in layer.nodes for use in value.uses())


POSITIVE = [
    ("c = Conv (x, w)\ny = Relu (c)", "ConvRelu"),
    ("c = Conv (x, w)\ny = Clip (c, low, high)", "ConvClip"),
    ("c = Conv (x, w)\ny = Clip (c, , high)", "ConvClip"),
    ("c = Conv (x, w)\ny = HardSwish (c)", "ConvHardSwish"),
    ("c = Conv (x, w)\ny = HardSigmoid (c)", "ConvHardSigmoid"),
    ("c = Conv (x, w)\ns = Sigmoid (c)\ny = Mul (c, s)", "ConvExSwish"),
    ("c = Conv (x, w)\ns = Sigmoid (c)\ny = Mul (s, c)", "ConvExSwish"),
    ("c = Conv (x, w)\ny = Add (c, x)", "ConvAdd"),
    ("c = Conv (x, w)\ny = Add (x, c)", "ConvAdd"),
    ("c = Conv (x, w)\na = Add (c, x)\ny = Relu (a)", "ConvAddRelu"),
    ("c = Conv (x, w)\na = Add (c, x)\ny = Clip (a, low, high)", "ConvAddClip"),
    ("c = ConvTranspose (x, w)\ny = Relu (c)", "ConvTransposeRelu"),
    ("c = MatMul (x, k)\ny = Relu (c)", "MatMulRelu"),
    ("c = MatMul (x, k)\ns = Sigmoid (c)\ny = Mul (c, s)", "MatMulExSwish"),
    ("b = BatchNormalization (x, one, zero, zero, one)\ny = Relu (b)", "BatchNormalizationRelu"),
    ("a = Add (x, x2)\ny = Relu (a)", "AddRelu"),
    ("s = Sigmoid (x)\ny = Mul (x, s)", "exSwish"),
]


class TestFusions:
    @pytest.mark.parametrize(("body", "op"), POSITIVE)
    def test_it_is_one_layer_named_by_its_output(self, body: str, op: str) -> None:
        assert steps(body) == {"y": op}

    @pytest.mark.parametrize(("body", "op"), POSITIVE)
    def test_not_when_an_inner_tensor_is_an_output_of_the_model(self, body: str, op: str) -> None:
        first = body.split(" ", 1)[0]
        assert len(steps(body, [first, "y"])) >= 2

    @pytest.mark.parametrize(("body", "op"), POSITIVE)
    def test_not_when_another_layer_reads_an_inner_tensor(self, body: str, op: str) -> None:
        inner = body.splitlines()[-2].split(" ", 1)[0]
        found = steps(f"{body}\nz = Neg ({inner})", ["y", "z"])
        assert len(found) >= 3 and found["y"] != op

    @pytest.mark.parametrize(("body", "op"), POSITIVE)
    def test_not_across_a_tensor_with_a_grid_of_its_own(self, body: str, op: str) -> None:
        for line in body.splitlines()[:-1]:
            inner = line.split(" ", 1)[0]
            found = steps(body, grids=[inner])
            assert inner in found and found["y"] != op

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("c = Conv (x, w)\ny = LeakyRelu (c)", ["Conv", "LeakyRelu"]),
            ("c = Conv (x, w)\ny = Sigmoid (c)", ["Conv", "Sigmoid"]),
            ("c = Conv (x, w)\ny = Add (c, c)", ["Conv", "Add"]),
            ("c = Conv (x, w)\ny = Add (c, per)", ["Conv", "Add"]),
            ("m = ReduceMean (x, axes)\nc = Conv (x, w)\ny = Add (c, m)", ["ReduceMean", "Conv", "Add"]),
            (
                "h = ReduceMax <keepdims = 0> (x2)\nc = Conv (x, w)\ny = Clip (c, h, high)",
                ["ReduceMax", "Conv", "Clip"],
            ),
            ("c = MatMul (x, x2)\ny = Relu (c)", ["MatMul", "Relu"]),
            ("m = Mul (x, x2)\ny = Relu (m)", ["Mul", "Relu"]),
            ("s = Sigmoid (x)\ny = Mul (x2, s)", ["Sigmoid", "Mul"]),
            ("s = Sigmoid (x)\ny = Mul (s, s)", ["Sigmoid", "Mul"]),
            (
                "b = BatchNormalization (x, one, zero, zero, one)\ny = HardSwish (b)",
                ["BatchNormalization", "HardSwish"],
            ),
            ("a = Add (x, x2)\ns = Sigmoid (a)\ny = Mul (a, s)", ["Add", "exSwish"]),
        ],
    )
    def test_near_misses(self, body: str, expected: list[str]) -> None:
        assert list(steps(body).values()) == expected

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("p = Pow (x, two)\nr = ReduceSum (p, axes)\na = Add (r, tiny)\ny = Log (a)", ["exLog"]),
            ("p = Mul (x, x)\na = Max (p, tiny)\nm = Mul (two, a)\ny = Log (m)", ["exLog"]),
            ("a = Clip (x, tiny, high)\ny = Log (a)", ["exLog"]),
            ("p = Mul (x, x2)\na = Add (p, tiny)\ny = Log (a)", ["exLog"]),
            ("p = Conv (x, w)\na = Add (p, tiny)\ny = Log (a)", ["Conv", "exLog"]),
            ("a = Add (x, tiny)\nb = Log (a)\ny = Add (a, b)", ["Add", "Log", "Add"]),
            ("a = Add (x, small)\ny = Log (a)", ["Add", "Log"]),
            ("a = Mul (x, tiny)\ny = Log (a)", ["Mul", "Log"]),
        ],
    )
    def test_a_floor_that_float16_cannot_hold_is_kept_with_its_logarithm(self, body: str, expected: list[str]) -> None:
        assert list(steps(body).values()) == expected

    def test_not_across_a_tensor_with_a_grid_of_its_own_to_the_logarithm(self) -> None:
        assert steps("p = Mul (x, x)\na = Add (p, tiny)\ny = Log (a)", grids=["p"]) == {"p": "Mul", "y": "exLog"}

    def test_a_sigmoid_of_several_readers_is_a_layer_of_its_own(self) -> None:
        body = "c = Conv (x, w)\ns = Sigmoid (c)\na = Mul (c, s)\ny = Mul (a, s)"
        assert list(steps(body).values()) == ["Conv", "Sigmoid", "Mul", "Mul"]

    def test_a_layer_lists_what_it_reads_once_and_what_stays_inside(self) -> None:
        (layer,) = of("c = Conv (x, w)\na = Add (c, x)\ny = Relu (a)")
        assert (layer.inputs, layer.outputs, layer.inner) == (("x",), ("y",), ("c", "a"))
        assert layer.last.op_type == "Relu" and layer.sources == ("Conv_c", "Add_a", "Relu_y")


class TestResiduals:
    def test_of_two_convolutions_the_later_takes_the_addition(self) -> None:
        body = "a = Conv (x, w)\nb = Conv (x2, w)\ns = Add (a, b)\ny = Relu (s)"
        for text in (body, body.replace("Add (a, b)", "Add (b, a)")):
            found = of(text)
            assert [(layer.name, layer.op, layer.inputs) for layer in found] == [
                ("a", "Conv", ("x",)),
                ("y", "ConvAddRelu", ("x2", "a")),
            ]

    def test_a_later_product_of_two_activations_cannot_take_it(self) -> None:
        assert steps("c = Conv (x, w)\nm = MatMul (x2, x2)\ny = Add (c, m)") == {"m": "MatMul", "y": "ConvAdd"}

    def test_nor_a_later_convolution_with_a_grid_of_its_own(self) -> None:
        body = "a = Conv (x, w)\nb = Conv (x2, w)\ny = Add (a, b)"
        assert steps(body, grids=["b"]) == {"b": "Conv", "y": "ConvAdd"}

    def test_nor_one_with_another_reader(self) -> None:
        body = "a = Conv (x, w)\nb = Conv (x2, w)\ny = Add (a, b)\nz = Neg (b)"
        assert steps(body, ["y", "z"]) == {"b": "Conv", "y": "ConvAdd", "z": "Neg"}

    def test_the_other_side_may_be_made_after_the_convolution(self) -> None:
        found = of("c = Conv (x, w)\nn = Neg (x2)\nm = Abs (n)\ny = Add (c, m)")
        assert [layer.op for layer in found] == ["Neg", "Abs", "ConvAdd"]


def test_a_layer_of_several_outputs_is_named_by_the_first() -> None:
    (split, _) = of("a, b = Split <axis = 1, num_outputs = 2> (x)\ny = Add (a, b)")
    assert (split.name, split.outputs) == ("a", ("a", "b"))


BINARY, UNARY = ("Add", "Mul"), ("Relu", "Sigmoid", "HardSwish", "Neg", "Conv", "MatMul", "BatchNormalization")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Nodes that read anything made before them, and some of their tensors as outputs."""
    names, lines = ["x", "x2"], []
    for index in range(draw(st.integers(1, 12))):
        op, name = draw(st.sampled_from(BINARY + UNARY)), f"t{index}"
        # Mostly the newest tensors, since that is what fuses.
        sources = [names[-min(draw(st.integers(1, 3)), len(names))] for _ in range(2)]
        extra = {"Conv": ", w", "MatMul": ", k", "BatchNormalization": ", one, zero, zero, one"}.get(op, "")
        lines.append(f"{name} = {op} ({', '.join(sources[: 2 if op in BINARY else 1])}{extra})")
        names.append(name)
    read = {word.strip("(),") for line in lines for word in line.split()[2:]}
    ends = [name for name in names[2:] if name not in read]
    return "\n".join(lines), ends + draw(
        st.lists(st.sampled_from(names[2:]), max_size=1).filter(lambda n: n not in ends)
    )


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_any_graph_is_cut_into_layers_that_can_run_in_order(graph: tuple[str, list[str]]) -> None:
    body, outputs = graph
    of(body, list(dict.fromkeys(outputs)))


class TestDescription:
    def test_layers_name_the_layers_that_they_read(self) -> None:
        model = build(
            {"x": SHAPE},
            "c = Conv (x, w)\nr = Relu (c)\na, b = Split <axis = 1, num_outputs = 2> (r)\ny = Mul (b, a)",
            {"w": CONSTANTS["w"]},
        )
        summary = describe_layers(model, layers(model), lambda layer: "int8")
        assert [(s.index, s.name, s.op, s.inputs, s.shape, s.precision) for s in summary] == [
            (0, "x", "Input", (), SHAPE, "int8"),
            (1, "r", "ConvRelu", ("x",), SHAPE, "int8"),
            (2, "a", "Split", ("r",), (1, 2, 6, 6), "int8"),
            (3, "y", "Mul", ("a",), (1, 2, 6, 6), "int8"),
        ]

    @pytest.mark.parametrize(
        ("body", "layout"),
        [
            ("y = Transpose <perm = [0, 3, 1, 2]> (x)", "nhwc"),
            ("s = Div (x, high)\nm = Sub (s, low)\ny = Transpose <perm = [0, 3, 1, 2]> (m)", "nhwc"),
            ("y = Transpose <perm = [0, 2, 3, 1]> (x)", "nchw"),
            ("t = Transpose <perm = [0, 3, 1, 2]> (x)\ny = Conv (x, w)\nz = Neg (t)", "nchw"),
            ("y = Conv (x, w)", "nchw"),
        ],
    )
    def test_an_input_that_is_transposed_first_is_nhwc(self, body: str, layout: str) -> None:
        used = {name: array for name, array in CONSTANTS.items() if f" {name})" in body}
        outputs = ["y", "z"] if "z = " in body else ["y"]
        model = build({"x": SHAPE}, body, used, outputs)
        mark_layouts(model)
        assert model.graph.inputs[0].metadata_props["rknn_tui.layout"] == layout
