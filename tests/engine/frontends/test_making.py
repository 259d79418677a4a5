"""Graphs made node by node, and message classes made from lists of fields."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from engine.errors import ModelError, UnsupportedOperator
from engine.frontends.finishing import finish
from engine.frontends.making import GraphMaker
from engine.frontends.protobuf_schema import message_classes
from engine.graph.execution import run_float
from engine.graph.given import GivenParameters, given
from engine.graph.provenance import sources
from engine.summaries import Grid


def test_shapes_are_known_as_nodes_are_added_and_sources_are_kept() -> None:
    maker = GraphMaker("net.model")
    image = maker.input("data", [1, 3, 8, 8])
    weights = maker.constant(np.ones((4, 3, 3, 3), np.float32), "conv.weights")
    out = maker.node("Conv", [image, weights], "conv", source="layer 1", pads=[1, 1, 1, 1], strides=[2, 2])
    assert maker.shape(out) == (1, 4, 4, 4)
    model = finish(maker.model([out], ["result"]), "net.model")
    assert [v.name for v in model.graph.outputs] == ["result"]
    assert [sources(node) for node in model.graph] == [("layer 1",)]
    outputs = run_float(model, {"data": np.ones((1, 3, 8, 8), np.float32)})
    assert float(np.max(outputs[0])) == 27.0


def test_an_impossible_node_is_refused_where_it_stands() -> None:
    maker = GraphMaker("net.model")
    image = maker.input("data", [1, 3, 2, 2])
    with pytest.raises(ModelError, match=r"net\.model: layer 7"):
        maker.node("Reshape", [image, maker.constant([7], "shape")], "flat", source="layer 7")


def test_all_that_is_refused_is_told_at_once() -> None:
    maker = GraphMaker("net.model")
    image = maker.input("data", [1, 3])
    maker.refuse("Warp", "warp_1", "mode 3")
    maker.refuse("Bend", "bend_1", hint="export with opset 9")
    with pytest.raises(UnsupportedOperator) as caught:
        maker.model([image])
    assert "Warp (warp_1: mode 3), Bend (bend_1)" in str(caught.value)
    assert "export with opset 9" in caught.value.hint


def test_inputs_constants_and_repeated_values_can_be_outputs() -> None:
    maker = GraphMaker("net.model")
    image = maker.input("data", [1, 3])
    half = maker.node("Relu", [image], "half")
    model = maker.model([half, half, image], ["one", "two", "three"])
    assert [v.name for v in model.graph.outputs] == ["one", "two", "three"]
    values = run_float(finish(model, "net.model"), {"data": np.array([[-1, 0, 2]], np.float32)})
    assert [v.ravel().tolist() for v in values] == [[0, 0, 2], [0, 0, 2], [-1, 0, 2]]


def test_unsigned_grids_become_the_equal_signed_ones() -> None:
    maker = GraphMaker("net.model")
    value = maker.quantized(maker.input("data", [1, 3]), "uint8", [0.5], [100])
    assert given(value) == GivenParameters("int8", (0.5,), (-28,), None)
    # The same grid in other integers: the input is still told as the source model takes it.
    maker.quantized(value, "int8", [0.5], [-28])
    assert (parameters := given(value)) and parameters.source_grid == Grid("uint8", 0.5, 100)
    for scale, zero in (([0.0], [0]), ([float("nan")], [0]), ([0.5], [0, 1])):
        with pytest.raises(ModelError, match="'data'"):
            maker.quantized(value, "int8", scale, zero)
    with pytest.raises(ModelError, match="int4"):
        maker.quantized(value, "int4", [0.5], [0])


def test_message_classes_read_text_and_bytes() -> None:
    classes = message_classes(
        "shapes",
        {
            "Shape": "repeated int64 dim = 1 packed\noptional Kind kind = 2 default ROUND",
            "Set": "map<string> Shape shape = 1\nrepeated Shape more = 2",
        },
        {"Kind": {"FLAT": 0, "ROUND": 1}, "Other": {"FLAT": 0}},
    )
    one = classes["Set"]()
    one.shape["a"].dim.extend([2, 3])
    text_format.Parse("more { dim: 4 dim: 5 kind: FLAT }", one)
    again = classes["Set"].FromString(one.SerializeToString())
    assert list(again.shape["a"].dim) == [2, 3]
    assert again.shape["a"].kind == 1
    assert (list(again.more[0].dim), again.more[0].kind) == ([4, 5], 0)
