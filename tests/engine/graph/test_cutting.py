"""A graph starts and ends where a person says, and takes the sizes that they give."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import pytest
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st

from engine.errors import ConfigError, ModelError
from engine.graph import cutting
from engine.graph.query import static_shape
from tests.engine.graph.graph_building import build, random

BODY = """
    a = Conv (x, w)
    b = Relu (a)
    c = Sigmoid (a)
    d = Add (b, c)
    y = Tanh (d)
    z = Abs (b)
"""


def chain() -> ir.Model:
    return build({"x": (1, 3, 4, 5)}, BODY, {"w": random(2, 3, 1, 1), "unread": random(2)}, ["y", "z"])


def names(values: Sequence[ir.Value]) -> list[str | None]:
    return [value.name for value in values]


def test_outputs_are_taken_in_the_order_that_is_asked_for() -> None:
    model = chain()
    cutting.cut_outputs(model.graph, ["c", "x", "w", "b"])
    cutting.drop_dead(model)
    assert names(model.graph.outputs) == ["c", "x", "w", "b"]
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Sigmoid"]


def test_inputs_replace_what_computed_them() -> None:
    model = chain()
    cutting.cut_inputs(model.graph, ["c", "b"])
    cutting.drop_dead(model)
    assert names(model.graph.inputs) == ["c", "b"]
    assert [static_shape(v) for v in model.graph.inputs] == [(1, 2, 4, 5)] * 2
    assert [node.op_type for node in model.graph] == ["Add", "Tanh", "Abs"]
    assert not model.graph.initializers


def test_an_input_that_still_feeds_something_stays_behind_the_named_ones() -> None:
    model = chain()
    cutting.cut_inputs(model.graph, ["b"])
    cutting.drop_dead(model)
    assert names(model.graph.inputs) == ["b", "x"]


def test_an_output_may_be_fed_itself() -> None:
    model = chain()
    cutting.cut_inputs(model.graph, ["y"])
    cutting.drop_dead(model)
    assert names(model.graph.inputs) == ["y", "x"] and names(model.graph.outputs) == ["y", "z"]


def test_dead_inputs_go_unless_they_were_named() -> None:
    model = build({"x": (1, 2), "spare": (1, 2)}, "y = Relu (x)", {})
    cutting.drop_dead(model, keep_inputs=["spare"])
    assert names(model.graph.inputs) == ["x", "spare"]
    cutting.drop_dead(model)
    assert names(model.graph.inputs) == ["x"]


def test_a_graph_without_inputs_is_empty() -> None:
    model = chain()
    cutting.cut_outputs(model.graph, ["w"])
    cutting.drop_dead(model)
    with pytest.raises(ModelError, match="no output depends on an input"):
        cutting.check_not_empty(model, "file.onnx")


@pytest.mark.parametrize("argument", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "empty list"),
        (["b", "b"], "twice"),
        ("b", "expected a list"),
        (["B"], "did you mean 'b'"),
        (["conv"], "no tensor 'conv'"),
        ([None], "no tensor None"),
        ([["b"]], "no tensor"),
    ],
)
def test_wrong_names_leave_the_graph_as_it_was(argument: str, wanted: list[str], message: str) -> None:
    model = chain()
    cut = cutting.cut_inputs if argument == "inputs" else cutting.cut_outputs
    with pytest.raises(ConfigError) as caught:
        cut(model.graph, wanted)
    assert message in str(caught.value) and caught.value.where == argument
    assert (names(model.graph.inputs), names(model.graph.outputs)) == (["x"], ["y", "z"])


def dynamic(*dims: int | str | None) -> ir.Model:
    model = chain()
    model.graph.inputs[0].shape = ir.Shape(dims)
    return model


def test_without_sizes_a_static_graph_stays() -> None:
    model = chain()
    cutting.fix_sizes(model.graph, None, None)
    assert static_shape(model.graph.inputs[0]) == (1, 3, 4, 5)


def test_sizes_need_not_be_given_for_every_input() -> None:
    model = build({"x": (1, 2), "v": (1, 2)}, "y = Add (x, v)", {})
    cutting.fix_sizes(model.graph, ["v"], [[1, 2]])
    with pytest.raises(ConfigError, match=r"gives 1 shapes for 2 inputs \(x, v\)"):
        cutting.fix_sizes(model.graph, None, [[1, 2]])


def test_zero_and_negative_dimensions_in_the_file_are_dynamic() -> None:
    model = dynamic(0, 3, -1, 5)
    with pytest.raises(ConfigError, match=r"'x' \[\?, 3, \?, 5\]"):
        cutting.fix_sizes(model.graph, None, None)
    cutting.fix_sizes(model.graph, None, [[2, 3, 4, 5]])
    assert static_shape(model.graph.inputs[0]) == (2, 3, 4, 5)


def test_a_batch_of_one_may_be_made_larger_and_other_fixed_sizes_not() -> None:
    model = chain()
    cutting.fix_sizes(model.graph, None, [[4, 3, 4, 5]])
    assert static_shape(model.graph.inputs[0]) == (4, 3, 4, 5)
    with pytest.raises(ConfigError, match=r"\[4, 2, 4, 5\] does not fit the model's \[4, 3, 4, 5\]"):
        cutting.fix_sizes(model.graph, None, [[4, 2, 4, 5]])


@settings(max_examples=50, deadline=None)
@each(st.lists(st.one_of(st.integers(-3, 6), st.floats(), st.none(), st.text(max_size=2), st.booleans()), max_size=5))
def test_any_size_is_taken_or_refused_with_a_message(size: list[object]) -> None:
    model = dynamic("n", 3, None, 5)
    try:
        cutting.fix_sizes(model.graph, None, [size])  # type: ignore[list-item]
    except ConfigError as error:
        assert "'x'" in str(error)
    else:
        assert static_shape(model.graph.inputs[0]) == tuple(size)
        assert size[1::2] == [3, 5]
