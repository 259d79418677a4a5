"""Level 1: what disappears without any result changing by a bit, and what must stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engine.graph.optimize import optimize
from engine.graph.provenance import sources
from tests.engine.graph.graph_building import (
    Array,
    all_sources,
    build,
    initializer,
    integers,
    node_of,
    number,
    operators,
    optimized,
    outputs_of,
    random,
    with_batch,
)

IMAGE = {"x": (1, 3, 4, 5)}
CUBE: dict[str, Array] = {
    "none": integers(0, 0, 0, 0, 0, 0, 0, 0),
    "ones": integers(1, 1, 1, 1),
    "shape": integers(1, 3, 4, 5),
    "full_start": integers(0, 0),
    "full_end": integers(3, 2**40),
    "full_axes": integers(1, 2),
    "unit": np.ones((1, 3, 1, 1), np.float32),
    "zero": np.zeros(1, np.float32),
    "scales": np.ones(4, np.float32),
}


@pytest.mark.parametrize(
    "line",
    [
        "Identity (a)",
        "Dropout (a)",
        "Cast <to = 1> (a)",
        "Reshape (a, shape)",
        "Expand (a, shape)",
        "Tile (a, ones)",
        "Transpose <perm = [0, 1, 2, 3]> (a)",
        "Slice (a, full_start, full_end, full_axes)",
        "Pad (a, none)",
        "Resize (a, , scales)",
        "Resize <mode = 'linear'> (a, , , shape)".replace("'", '"'),
        "Concat <axis = 1> (a)",
        "Max (a)",
        "Sum (a)",
        "Split <axis = 1, num_outputs = 1> (a)",
        "MaxPool <kernel_shape = [1, 1]> (a)",
        "AveragePool <kernel_shape = [1, 1]> (a)",
        "Mul (unit, a)",
        "Div (a, unit)",
        "Pow (a, unit)",
        "Sub (a, zero)",
    ],
)
def test_a_node_that_returns_its_input_disappears(line: str) -> None:
    model = build(IMAGE, f"a = Relu (x)\nb = {line}\ny = Sigmoid (b)", CUBE)
    assert optimized(model, 1) == ["Relu", "Sigmoid"]
    assert sources(node_of(model, "Relu")) == ("Relu_a", line.split()[0] + "_b")
    assert not model.graph.initializers


@pytest.mark.parametrize(
    ("line", "constants"),
    [
        ("Cast <to = 10> (a)", {}),
        ("Reshape (a, s)", {"s": integers(1, 3, 5, 4)}),
        ("Transpose <perm = [0, 2, 1, 3]> (a)", {}),
        ("Slice (a, s, e)", {"s": integers(0, 1), "e": integers(1, 3)}),
        ("Slice (a, s, e, s, t)", {"s": integers(1), "e": integers(9), "t": integers(2)}),
        ("Slice (a, s, e, i, t)", {"s": integers(-1), "e": integers(-9), "i": integers(1), "t": integers(-1)}),
        ("Pad (a, s)", {"s": integers(0, 0, 1, 0, 0, 0, 0, 0)}),
        # The size is the same, yet every element is sampled a little beside its place.
        ('Resize <mode = "linear"> (a, , s)', {"s": np.array([1, 1, 1.2, 1.1], np.float32)}),
        ('Resize <coordinate_transformation_mode = "tf_crop_and_resize"> (a, r, s)', {
            "r": np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], np.float32), "s": np.ones(4, np.float32)}),
        ("MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (a)", {}),
        ("Mul (a, s)", {"s": np.array([1, 1, 1, 1, 1.0001], np.float32)}),
        ("Mul (a, s)", {"s": np.ones((2, 1, 1, 1), np.float32)}),
        ("Sub (zero, a)", {"zero": number(0)}),
        ("Div (one, a)", {"one": number(1)}),
        ("Softmax (a)", {}),
    ],
)  # fmt: skip
def test_a_node_that_changes_something_stays(line: str, constants: dict[str, Array]) -> None:
    model = build(IMAGE, f"a = Relu (x)\ny = {line}", constants)
    assert optimized(model, 1) == ["Relu", line.split()[0]]


def test_dropout_stays_when_its_mask_is_read_or_it_is_training() -> None:
    read = build(IMAGE, "d, mask = Dropout (x)\nf = Cast <to = 1> (mask)\ny = Add (d, f)", {})
    assert operators_after_level_1(read) == ["Dropout", "Cast", "Add"]
    training = build(
        IMAGE, "a = Relu (x)\ny = Dropout <seed = 1> (a, ratio, on)", {"ratio": number(0.5), "on": np.array(True)}
    )
    assert operators_after_level_1(training) == ["Relu", "Dropout"]


def operators_after_level_1(model: ir.Model) -> list[str]:
    optimize(model, 1)
    return operators(model)


def test_a_graph_output_keeps_its_name_when_its_no_op_goes() -> None:
    model = build(IMAGE, "a = Relu (x)\ny = Identity (a)", {})
    assert optimized(model, 1) == ["Relu"]
    assert [v.name for v in model.graph.outputs] == ["y"]


def test_no_ops_stay_where_two_names_must_live_on() -> None:
    both_outputs = build(IMAGE, "a = Relu (x)\ny = Identity (a)", {}, outputs=["a", "y"])
    assert optimized(both_outputs, 1) == ["Relu", "Identity"]
    input_to_output = build(IMAGE, "y = Identity (x)", {})
    assert optimized(input_to_output, 1) == ["Identity"]


def test_the_sources_of_a_no_op_behind_a_graph_input_go_to_its_readers() -> None:
    model = build(IMAGE, "a = Identity (x)\nb = Relu (a)\nc = Sigmoid (a)\ny = Add (b, c)", {})
    optimized(model, 1)
    assert set(sources(node_of(model, "Relu"))) == {"Relu_b", "Identity_a"}
    assert set(sources(node_of(model, "Sigmoid"))) == {"Sigmoid_c", "Identity_a"}


def test_a_slice_of_the_first_sample_is_no_no_op() -> None:
    first = {"s": integers(0), "e": integers(1)}
    assert optimized(build(IMAGE, "a = Relu (x)\ny = Slice (a, s, e)", first), 1) == ["Relu", "Slice"]
    everything = {"s": integers(0), "e": integers(2**31 - 1)}
    assert optimized(build(IMAGE, "a = Relu (x)\ny = Slice (a, s, e)", everything), 1) == ["Relu"]


@pytest.mark.parametrize(
    ("line", "constants", "target"),
    [
        ("Flatten (x)", {}, [0, 6]),
        ("Flatten <axis = 2> (x)", {}, [-1, 2]),
        ("Flatten <axis = 0> (x)", {}, [1, -1]),
        ("Squeeze (x, a)", {"a": integers(-1, 2)}, [0, 3, 2]),
        ("Squeeze (x, a)", {"a": integers(0)}, [-1, 1, 2, 1]),
        ("Unsqueeze (x, a)", {"a": integers(2, -1)}, [0, 3, 1, 1, 2, 1, 1]),
        ("Unsqueeze (x, a)", {"a": integers(0)}, [1, -1, 3, 1, 2, 1]),
        ("Transpose <perm = [0, 1, 3, 2, 4]> (x)", {}, [0, 3, 2, 1, 1]),
    ],
)
def test_changes_of_shape_become_reshapes_that_leave_the_batch_free(
    line: str, constants: dict[str, Array], target: list[int]
) -> None:
    batch = 1 if "Squeeze (x, a)" in line and constants["a"].tolist() == [0] else 2
    model = build({"x": (batch, 3, 1, 2, 1)}, f"y = {line}", constants)
    assert optimized(model, 1) == ["Reshape"]
    shape = initializer(model, node_of(model, "Reshape").inputs[1].name).tolist()  # type: ignore[union-attr, arg-type]
    assert shape[: len(target)] == target[: len(shape)]


def test_transposes_that_move_data_or_the_batch_stay() -> None:
    assert optimized(build({"x": (1, 3, 2)}, "y = Transpose <perm = [0, 2, 1]> (x)", {}), 1) == ["Transpose"]
    assert optimized(build({"x": (1, 1, 2)}, "y = Transpose <perm = [1, 0, 2]> (x)", {}), 1) == ["Transpose"]


def test_consecutive_reshapes_become_one_that_still_takes_another_batch() -> None:
    body = """
        a = Reshape (x, first)
        b = Unsqueeze (a, axis)
        c = Reshape (b, second)
        y = Relu (c)"""
    constants = {"first": integers(0, -1), "axis": integers(1), "second": integers(0, 2, 30)}
    model = build({"x": (1, 3, 4, 5)}, body, constants)
    original = with_batch(build({"x": (1, 3, 4, 5)}, body, constants), 4)
    assert optimized(model, 1) == ["Reshape", "Relu"]
    assert sources(node_of(model, "Reshape")) == ("Reshape_c", "Unsqueeze_b", "Reshape_a")
    assert np.array_equal(outputs_of(with_batch(model, 4))[0], outputs_of(original)[0])


def test_reshapes_that_undo_each_other_cancel() -> None:
    model = build(
        IMAGE, "a = Relu (x)\nb = Flatten (a)\nc = Reshape (b, s)\ny = Sigmoid (c)", {"s": integers(-1, 3, 4, 5)}
    )
    assert optimized(model, 1) == ["Relu", "Sigmoid"]


def test_a_reshape_that_others_read_stays_for_them() -> None:
    body = "a = Reshape (x, s)\nb = Relu (a)\nc = Reshape (a, t)\ny = Sigmoid (c)"
    model = build(IMAGE, body, {"s": integers(0, -1), "t": integers(0, 5, 12)}, outputs=["b", "y"])
    assert sorted(optimized(model, 1)) == ["Relu", "Reshape", "Reshape", "Sigmoid"]


def test_consecutive_transposes_join_or_cancel() -> None:
    turn = "b = Transpose <perm = [0, 2, 3, 1]> (a)"
    cancel = build(IMAGE, f"a = Relu (x)\n{turn}\nc = Transpose <perm = [0, 3, 1, 2]> (b)\ny = Abs (c)", {})
    assert optimized(cancel, 1) == ["Relu", "Abs"]
    join = build(IMAGE, f"a = Relu (x)\n{turn}\ny = Transpose <perm = [0, 2, 1, 3]> (b)", {})
    assert optimized(join, 1) == ["Relu", "Transpose"]
    assert tuple(node_of(join, "Transpose").attributes["perm"].value) == (0, 3, 2, 1)


def test_what_is_computed_twice_is_computed_once() -> None:
    body = """
        a = Clip (x, low, high)
        b = Clip (x, low2, high2)
        c = Relu (a)
        d = Relu (b)
        y = Add (c, d)"""
    bounds = {"low": number(0), "high": number(2), "low2": number(0), "high2": number(2)}
    model = build(IMAGE, body, bounds)
    assert optimized(model, 1) == ["Clip", "Relu", "Add"]
    assert set(sources(node_of(model, "Clip"))) == {"Clip_a", "Clip_b"}


def test_what_differs_in_attributes_constants_or_names_of_outputs_is_not_merged() -> None:
    body = """
        a = LeakyRelu <alpha = 0.1> (x)
        b = LeakyRelu <alpha = 0.2> (x)
        c = Add (x, one)
        d = Add (x, two)
        y = Sum (a, b, c, d)"""
    model = build(IMAGE, body, {"one": number(1), "two": number(2)})
    assert len(optimized(model, 1)) == 5
    outputs = build(IMAGE, "a = Relu (x)\ny = Relu (x)", {}, outputs=["a", "y"])
    assert optimized(outputs, 1) == ["Relu", "Relu"]
    random_numbers = build(IMAGE, "a = RandomNormalLike (x)\nb = RandomNormalLike (x)\ny = Sub (a, b)", {})
    optimize(random_numbers, 1)
    assert operators(random_numbers) == ["RandomNormalLike", "RandomNormalLike", "Sub"]


def test_dead_nodes_and_constants_go() -> None:
    model = build(IMAGE, "y = Relu (x)\na = Mul (x, w)\nb = Sigmoid (a)", {"w": random(1)})
    assert optimized(model, 1) == ["Relu"]
    assert not model.graph.initializers


def test_level_0_changes_nothing_and_level_1_no_arithmetic() -> None:
    body = "a = Identity (x)\nb = Sub (a, c)\ny = Div (b, c)"
    model = build(IMAGE, body, {"c": number(3)})
    assert optimized(model, 0) == ["Identity", "Sub", "Div"]
    assert optimized(model, 1) == ["Sub", "Div"]
    assert all_sources(model) == {"Identity_a", "Sub_b", "Div_y"}
